"""Which functions of TensorFlow may a Keras 2 file call by name? Those that compute tensors from tensors, and no others.

Keras 2 records a TensorFlow function in a functional model as a layer that holds the function's public name. Those with
another signature in TensorFlow 1 are recorded as ``compat.v1.<name>``. A name that is not here is refused: it may read or
write files, load libraries, run Python or keep state.
"""

__all__ = ["is_tensor_function"]

_MATH = """
abs accumulate_n acos acosh add add_n angle approx_max_k approx_min_k argmax argmin asin asinh atan atan2 atanh bessel_i0
bessel_i0e bessel_i1 bessel_i1e betainc bincount ceil confusion_matrix conj cos cosh count_nonzero cumprod cumsum
cumulative_logsumexp digamma divide divide_no_nan equal erf erfc erfcinv erfinv exp expm1 floor floordiv floormod greater
greater_equal igamma igammac imag in_top_k invert_permutation is_finite is_inf is_nan is_non_decreasing
is_strictly_increasing l2_normalize lbeta less less_equal lgamma log log1p log_sigmoid log_softmax logical_and logical_not
logical_or logical_xor maximum minimum mod multiply multiply_no_nan ndtri negative nextafter not_equal polygamma polyval pow
real reciprocal reciprocal_no_nan reduce_all reduce_any reduce_euclidean_norm reduce_logsumexp reduce_max reduce_mean
reduce_min reduce_prod reduce_std reduce_sum reduce_variance rint round rsqrt scalar_mul segment_max segment_mean
segment_min segment_prod segment_sum sigmoid sign sin sinh softmax softplus softsign sqrt square squared_difference subtract
tan tanh top_k truediv unsorted_segment_max unsorted_segment_mean unsorted_segment_min unsorted_segment_prod
unsorted_segment_sqrt_n unsorted_segment_sum xdivy xlog1py xlogy zero_fraction zeta
"""
_NN = """
atrous_conv2d atrous_conv2d_transpose avg_pool avg_pool1d avg_pool2d avg_pool3d batch_norm_with_global_normalization
batch_normalization bias_add conv1d conv1d_transpose conv2d conv2d_transpose conv3d conv3d_transpose conv_transpose
convolution crelu depth_to_space depthwise_conv2d depthwise_conv2d_native dilation2d dropout elu embedding_lookup erosion2d
fused_batch_norm gelu in_top_k l2_loss l2_normalize leaky_relu local_response_normalization log_softmax lrn max_pool
max_pool1d max_pool2d max_pool3d max_pool_with_argmax moments normalize_moments pool relu relu6 relu_layer selu
separable_conv2d sigmoid silu softmax softplus softsign space_to_batch space_to_depth sufficient_statistics swish tanh top_k
weighted_moments with_space_to_batch xw_plus_b zero_fraction
"""
_LINALG = """
adjoint band_part cholesky cholesky_solve cross det diag diag_part einsum eye global_norm inv l2_normalize logdet lstsq
matmul matrix_transpose matvec norm normalize pinv set_diag slogdet solve tensor_diag tensor_diag_part tensordot trace
transpose triangular_solve tridiagonal_matmul tridiagonal_solve
"""
_SIGNAL = """
dct fft fft2d fft3d fftshift frame hamming_window hann_window idct ifft ifft2d ifft3d ifftshift inverse_stft irfft irfft2d
irfft3d linear_to_mel_weight_matrix mdct mfccs_from_log_mel_spectrograms overlap_and_add rfft rfft2d rfft3d stft
vorbis_window
"""
_IMAGE = """
adjust_brightness adjust_contrast adjust_gamma adjust_hue adjust_saturation central_crop combined_non_max_suppression
convert_image_dtype crop_and_resize crop_to_bounding_box extract_patches flip_left_right flip_up_down grayscale_to_rgb
hsv_to_rgb image_gradients non_max_suppression non_max_suppression_padded non_max_suppression_with_scores
pad_to_bounding_box per_image_standardization resize resize_area resize_bicubic resize_bilinear resize_image_with_crop_or_pad
resize_image_with_pad resize_images resize_nearest_neighbor resize_with_crop_or_pad resize_with_pad rgb_to_grayscale
rgb_to_hsv rgb_to_yiq rgb_to_yuv rot90 sobel_edges total_variation transpose yiq_to_rgb yuv_to_rgb
"""
_SHAPE = """
argsort batch_to_space batch_to_space_nd bitcast boolean_mask broadcast_dynamic_shape broadcast_static_shape broadcast_to
cast clip_by_average_norm clip_by_norm clip_by_value complex concat constant convert_to_tensor depth_to_space diag diag_part
dynamic_partition dynamic_stitch einsum ensure_shape expand_dims extract_image_patches extract_volume_patches
fake_quant_with_min_max_args fake_quant_with_min_max_vars fake_quant_with_min_max_vars_per_channel fill gather gather_nd
batch_gather identity identity_n linspace lin_space matrix_band_part matrix_diag matrix_diag_part matrix_set_diag
matrix_transpose meshgrid norm one_hot ones ones_like pad parallel_stack range rank realdiv repeat reshape reverse
reverse_sequence reverse_v2 roll saturate_cast scatter_nd searchsorted sequence_mask shape shape_n size slice sort
space_to_batch space_to_batch_nd space_to_depth split squeeze stack stop_gradient strided_slice tensor_scatter_add
tensor_scatter_nd_add tensor_scatter_nd_max tensor_scatter_nd_min tensor_scatter_nd_sub tensor_scatter_nd_update
tensor_scatter_sub tensor_scatter_update tile to_double to_float to_int32 to_int64 transpose truncatediv truncatemod unique
unique_with_counts unravel_index unstack where where_v2 zeros zeros_like div div_no_nan floor_div log_sigmoid
"""
_OPERATORS = "add eq getitem ne"
_BITWISE = "bitwise_and bitwise_or bitwise_xor invert left_shift right_shift"
_KERAS_ACTIVATIONS = """
elu exponential gelu hard_sigmoid linear log_softmax mish relu selu sigmoid softmax softplus softsign swish tanh
"""
_KERAS_BACKEND = """
abs all any arange argmax argmin batch_dot batch_flatten batch_normalization bias_add cast clip concatenate conv1d conv2d
conv2d_transpose conv3d constant cos cumprod cumsum depthwise_conv2d dot dropout elu equal exp expand_dims flatten gather
greater greater_equal hard_sigmoid int_shape l2_normalize less less_equal log max maximum mean min minimum ndim not_equal
one_hot ones_like permute_dimensions pool2d pool3d pow prod relu repeat repeat_elements reshape resize_images reverse round
separable_conv2d shape sigmoid sign sin softmax softplus softsign spatial_2d_padding sqrt square squeeze stack std
stop_gradient sum switch tanh temporal_padding tile transpose var zeros_like
"""
_PLACES = {
    "": f"{_SHAPE} {_MATH} {_LINALG}",
    "math": _MATH,
    "nn": _NN,
    "linalg": _LINALG,
    "signal": _SIGNAL,
    "image": _IMAGE,
    "bitwise": _BITWISE,
    "__operators__": _OPERATORS,
    "quantization": "fake_quant_with_min_max_args fake_quant_with_min_max_vars fake_quant_with_min_max_vars_per_channel",
    "keras.activations": _KERAS_ACTIVATIONS,
    "keras.backend": _KERAS_BACKEND,
}
_NAMES = {place: frozenset(names.split()) for place, names in _PLACES.items()}
_VERSION_1 = "compat.v1."


def is_tensor_function(name: object) -> bool:
    """Returns whether a public name of TensorFlow is that of a function from tensors to tensors alone.

    Args:
        name: as a file gives it, without ``tf.``; anything but a text is none.

    Examples:
        >>> is_tensor_function("compat.v1.transpose"), is_tensor_function("nn.relu6")
        (True, True)
        >>> is_tensor_function("io.write_file"), is_tensor_function("compat.v1.py_func"), is_tensor_function("raw_ops.Add")
        (False, False, False)
    """
    if not isinstance(name, str):
        return False
    place, _, function = name.removeprefix(_VERSION_1).rpartition(".")
    return function in _NAMES.get(place, ())

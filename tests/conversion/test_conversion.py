"""The whole conversion on real models: every target, the same numbers as TFLiteConverter's, and honest accounts."""

import dataclasses
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from models import compiled, striped_pictures, tiny_cnn
from tfcompress.conversion import verification
from tfcompress.errors import ConversionError, DataError, ModelError, OutputError, StrictError
from tfcompress.tflite import flatbuffer
from tfcompress.tflite.interpreter import open_model

X, Y = striped_pictures(128)


@pytest.fixture(scope="module")
def model():
    model = compiled(tiny_cnn())
    model.fit(X, Y, epochs=6, batch_size=32, verbose=0)
    return model


@pytest.mark.parametrize("target", tfc.TARGETS)
def test_every_target_runs_and_agrees_with_the_model(model, target):
    result = tfc.convert(model, target=target, representative_data=X)
    file = open_model(result.tflite)
    assert [tensor.name for tensor in file.inputs] == ["image"]
    assert [tensor.name for tensor in file.outputs] == ["logits"]
    assert file.inputs[0].dtype == np.dtype(result.target.input_type)
    answers = file.run({"image": X})["logits"]
    least = 0.9 if result.target.weights == "int4" else 0.97  # 15 levels of a weight instead of 255
    assert np.mean(answers.argmax(1) == model.predict(X, verbose=0).argmax(1)) >= least
    assert result.parity.samples == 32
    assert result.parity.argmax_agreement >= 0.9
    assert result.size_bytes == len(result.tflite)


def test_float32_equals_keras(model):
    answers = open_model(tfc.convert(model, target="float32").tflite).run({"image": X})["logits"]
    np.testing.assert_allclose(answers, model.predict(X, verbose=0), rtol=1e-4, atol=1e-5)  # other float kernels


def their_converter(model):
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in X)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter


def test_int8_equals_tfliteconverters_own_on_the_same_ranges(model):
    from tfcompress import lowering
    from tfcompress.quantization import quantizers
    from tfcompress.system import converter_silenced

    with converter_silenced(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, about statistics that it then does without
        theirs = their_converter(model).convert()
        calibrating = their_converter(model)
        calibrating._experimental_calibrate_only = True
        calibrated = flatbuffer.parse(calibrating.convert())
    lowered = lowering.lower_keras(model)
    hub = flatbuffer.parse(lowered.content)
    ranges = {}
    for mine, other in zip(flatbuffer.activation_tensors(hub), flatbuffer.activation_tensors(calibrated), strict=True):
        quantization_of = calibrated.subgraphs[0].tensors[other].quantization
        pair = float(quantization_of.min[0]), float(quantization_of.max[0])
        ranges[flatbuffer.tensor_name(hub.subgraphs[0].tensors[mine])] = pair
    ours = quantizers.quantize(lowered.content, ranges, tfc.TARGETS["cpu-int8"])
    measured = tfc.convert(model, representative_data=X, target="cpu-int8").calibration.ranges
    # Their calibrator reads a tensor that ADD has overwritten in place, and so gives it the range of the sum.
    overwritten = {name for name in ranges if "pointwise" in name}
    for name in ranges.keys() - overwritten:  # their float kernels sum in another order than XNNPACK
        low, high = ranges[name]
        assert measured[name] == pytest.approx((min(low, 0), max(high, 0)), rel=1e-4, abs=1e-5)
    for name in overwritten:
        assert measured[name][1] <= ranges[name][1]

    shape_ops = ("SHAPE", "STRIDED_SLICE", "PACK")  # of a dynamic flatten; ours is a constant
    their_ops = {name: count for name, count in verification.walk(theirs).ops.items() if name not in shape_ops}
    assert dict(verification.walk(ours).ops) == their_ops
    first, second = open_model(ours), open_model(theirs)
    assert first.outputs[0].scale == second.outputs[0].scale
    assert first.outputs[0].zero_point == second.outputs[0].zero_point
    mine = first.run({"image": X})["logits"]
    other = next(iter(second.run({second.inputs[0].name: X}).values()))
    assert np.abs(mine - other).max() / first.outputs[0].scale <= 1.01


def test_same_model_and_data_give_the_same_bytes(model):
    files = {tfc.convert(model, representative_data=X).tflite for _ in range(2)}
    assert len(files) == 1


@pytest.mark.parametrize("form", ["array", "dict", "dataset", "pairs", "single samples", "npy", "npz"])
def test_representative_data_in_every_form_gives_the_same_file(model, form, tmp_path):
    import tensorflow as tf

    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "x.npz", x=X, y=Y)
    data = {
        "array": lambda: X,
        "dict": lambda: {"image": X},
        "dataset": lambda: tf.data.Dataset.from_tensor_slices(X).batch(10),
        "pairs": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(7),
        "single samples": lambda: tf.data.Dataset.from_tensor_slices((X, Y)),
        "npy": lambda: tmp_path / "x.npy",
        "npz": lambda: tmp_path / "x.npz",
    }[form]()
    reference = tfc.convert(model, representative_data=X)
    result = tfc.convert(model, representative_data=data)
    assert result.tflite == reference.tflite
    assert result.calibration.data_sha256 == reference.calibration.data_sha256
    assert result.calibration.samples == len(X)


def test_defaults_follow_what_is_there(model):
    assert tfc.convert(model).target.name == "dynamic"
    assert tfc.convert(model, representative_data=X).target.name == "cpu-int8"


def test_moving_average_gives_narrower_ranges(model):
    wide = tfc.convert(model, representative_data=X).calibration.ranges
    narrow = tfc.convert(model, representative_data=X, calibration="moving_average").calibration.ranges
    assert wide.keys() == narrow.keys()
    assert all(wide[name][0] <= narrow[name][0] and narrow[name][1] <= wide[name][1] for name in wide)


def test_per_tensor_weights_are_a_setting_of_the_target(model):
    target = dataclasses.replace(tfc.TARGETS["cpu-int8"], name="mine", per_channel=False, per_channel_dense=False)
    parsed = flatbuffer.parse(tfc.convert(model, representative_data=X, target=target).tflite)
    assert all(
        len(tensor.quantization.scale) == 1
        for tensor in parsed.subgraphs[0].tensors
        if tensor.quantization is not None and tensor.quantization.scale is not None
    )


def test_several_inputs_are_fed_by_name(tmp_path):
    keras.utils.set_random_seed(0)
    a, b = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    both = layers.Concatenate()([layers.Dense(3)(b), layers.Dense(4, activation="relu")(a)])
    model = keras.Model([a, b], [layers.Dense(2, name="first")(both), layers.Dense(1, name="second")(both)])
    random = np.random.default_rng(0)
    data = {"right": random.normal(size=(64, 3)).astype("f"), "left": random.normal(size=(64, 4)).astype("f")}
    np.savez(tmp_path / "data.npz", **data)
    result = tfc.convert(model, representative_data=tmp_path / "data.npz")
    answers = open_model(result.tflite).run(data)
    expected = model.predict([data["left"], data["right"]], verbose=0)
    for name, wanted in zip(("first", "second"), expected, strict=True):
        assert np.abs(answers[name] - wanted).max() < 0.1 * np.abs(wanted).max()
    assert result.float_tensors == ()


def test_integer_inputs_stay_integers():
    keras.utils.set_random_seed(0)
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(20, 8)(tokens))
    model = keras.Model(tokens, layers.Dense(2, name="logits")(x))
    data = np.random.default_rng(0).integers(0, 20, (64, 6)).astype(np.int32)
    file = open_model(tfc.convert(model, representative_data=data).tflite)
    assert file.inputs[0].dtype == np.int32


def test_mixed_precision_models_are_lowered_in_float32():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        mixed = tiny_cnn()
    finally:
        keras.config.set_dtype_policy(policy)
    assert tfc.convert(mixed, representative_data=X).float_tensors == ()
    assert mixed.layers[1].compute_dtype == "float16"


def test_saved_model_and_h5_and_tflite_are_sources(model, tmp_path):
    import tensorflow as tf

    model.save(tmp_path / "m.keras")
    model.save(tmp_path / "m.h5")
    tf.saved_model.save(model, str(tmp_path / "saved"))
    tfc.convert(model, target="float32").save(tmp_path / "m.tflite")
    expected = model.predict(X, verbose=0)
    for source in ("m.keras", "m.h5", "saved", "m.tflite"):
        result = tfc.convert(tmp_path / source, representative_data=X)
        file = open_model(result.tflite)
        answers = next(iter(file.run({file.inputs[0].name: X}).values()))
        assert np.mean(answers.argmax(1) == expected.argmax(1)) >= 0.97, source
        assert result.float_tensors == (), source


def test_nothing_is_quantized_without_ranges(model):
    with pytest.raises(ConversionError, match="representative_data"):
        tfc.convert(model, target="cpu-int8")


def test_strict_names_the_float_tensors():
    signal = keras.Input((64,), name="signal")
    spectrum = layers.Lambda(lambda x: keras.ops.abs(keras.ops.rfft(x)[0]), output_shape=(33,))(signal)
    model = keras.Model(signal, layers.Dense(2)(spectrum))
    data = np.random.default_rng(0).normal(size=(40, 64)).astype("f")
    with pytest.raises(StrictError, match="must not hold float tensors. Received"):
        tfc.convert(model, representative_data=data)
    result = tfc.convert(model, representative_data=data, allow_float=True)
    assert result.float_tensors
    assert any(name.startswith("RFFT") for name in result.ops)


def test_weights_that_are_not_finite_are_refused():
    broken = tiny_cnn()
    kernel = broken.get_layer("stem").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    with pytest.raises(ConversionError, match="NaN or infinity in .*stem/kernel"):
        tfc.convert(broken, representative_data=X)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X[:, :4], "shape"),
        (np.where(np.arange(X.size).reshape(X.shape) == 7, np.nan, X), "finite"),
        (X[:0], "sample"),
        ("/no/such/folder", "exist"),
    ],
    ids=["shape", "nan", "empty", "missing"],
)
def test_bad_data_is_one_clear_error(model, data, message):
    with pytest.raises(DataError, match=message):
        tfc.convert(model, representative_data=data)


def test_files_are_whole_or_not_there(model, tmp_path):
    result = tfc.convert(model)
    path = result.save(tmp_path / "m.tflite")
    assert path.read_bytes() == result.tflite
    with pytest.raises(OutputError, match="exists already"):
        result.save(path)
    result.save(path, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["m.tflite"]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_is_refused_and_the_flag_named(tmp_path, suffix):
    model = keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x * 2, name="double"), layers.Dense(2)])
    path = tmp_path / f"lambda{suffix}"
    model.save(path)
    with pytest.raises(ModelError, match="Lambda.*--allow_unsafe"):
        tfc.convert(path)
    assert tfc.convert(path, source=tfc.SourceOptions(allow_unsafe=True)).ops


def test_a_saved_model_with_a_lambda_is_refused(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    (tmp_path / "keras_metadata.pb").write_bytes(b'..{"class_name": "Lambda", "config": {}}..')
    with pytest.raises(ModelError, match="Lambda.*--allow_unsafe"):
        tfc.convert(tmp_path)


def test_an_unknown_custom_object_is_refused(tmp_path):
    class Secret(layers.Layer):
        def call(self, inputs):
            return inputs

    keras.Sequential([keras.Input((4,)), Secret(), layers.Dense(2)]).save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match="unknown custom object.*--allow_unsafe"):
        tfc.convert(tmp_path / "m.keras")


def test_corrupt_files_are_one_clear_error(model, tmp_path):
    model.save(tmp_path / "good.keras")
    model.save(tmp_path / "good.h5")
    tfc.convert(model, target="float32").save(tmp_path / "good.tflite")
    random = np.random.default_rng(0)
    for suffix in (".keras", ".h5", ".tflite"):
        whole = (tmp_path / f"good{suffix}").read_bytes()
        for name, content in (
            ("cut", whole[: len(whole) // 2]),
            ("empty", b""),
            ("random", random.bytes(1000)),
            ("head", whole[:64] + random.bytes(500)),
        ):
            path = tmp_path / f"{name}{suffix}"
            path.write_bytes(content)
            with pytest.raises(ModelError):
                tfc.convert(path, target="float32")


def test_a_quantized_file_is_no_source(model, tmp_path):
    path = tfc.convert(model, representative_data=X).save(tmp_path / "int8.tflite")
    with pytest.raises(ModelError, match="quantized already"):
        tfc.convert(path, representative_data=X)


def test_ranges_of_an_unnamed_input_survive_the_file(tmp_path):
    model = compiled(keras.Sequential([keras.Input((8, 8, 2)), layers.Flatten(), layers.Dense(3)]))
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[tfc.QuantizationAwareTraining()])
    model.save(tmp_path / "model.keras")
    result = tfc.convert(tmp_path / "model.keras")
    assert result.points.calibrated == result.points.missing == 0
    assert result.points.trained >= 2
    assert open_model(result.tflite).inputs[0].name == open_model(tfc.convert(model).tflite).inputs[0].name


def test_repairs_are_tried_and_accounted_for(model):
    result = tfc.convert(model, target="cpu-int8", representative_data=iter(X), repair="auto")
    assert [step.method for step in result.repairs] == ["equalization", "clipping", "rounding", "bias"]
    plain = tfc.convert(model, target="cpu-int8", representative_data=X)
    assert any(step.kept for step in result.repairs) == (result.tflite != plain.tflite)
    assert all(step.method in str(result) for step in result.repairs)
    only = tfc.convert(model, target="cpu-int8", representative_data=X, repair="bias")
    assert [(step.method, step.kept) for step in only.repairs] == [("bias", True)]


def test_repairs_need_an_integer_target_data_and_a_known_name(model):
    with pytest.raises(ValueError, match="integer targets"):
        tfc.convert(model, target="float32", repair="auto")
    with pytest.raises(ValueError, match="equalization"):
        tfc.convert(model, target="cpu-int8", representative_data=X, repair="magic")


def test_layers_say_where_ranges_come_from_and_what_is_lost(model):
    options = tfc.CalibrationOptions("entropy", overrides=[("*logits*", "min_max")])
    result = tfc.convert(model, target="cpu-int8", representative_data=X, calibration=options)
    layers = result.layers()
    observers = [row.observer for row in layers]
    assert observers[-1] == "min_max" and set(observers) == {"entropy", "min_max", ""}
    assert all(bool(row.observer) == (row.origin == "calibrated") for row in layers)
    assert "by Entropy(values_per_sample=4096, seed=0, bits=8) on 128 samples, 1 of " in " ".join(str(result).split())
    assert [row.operation.op for row in layers] == list(_ops_in_order(result.tflite))
    assert {row.origin for row in layers} == {"calibrated", "follows"}
    assert all(row.error.sqnr_db > 15 for row in layers)  # about 40 dB are int8's own limit


def _ops_in_order(content):
    parsed = flatbuffer.parse(content)
    return [flatbuffer.op_name(parsed, operator) for operator in parsed.subgraphs[0].operators]


def test_the_same_conversion_twice_gives_the_same_bytes(model):
    first, second = (tfc.convert(model, target="cpu-int8", representative_data=X).tflite for _ in range(2))
    assert first == second

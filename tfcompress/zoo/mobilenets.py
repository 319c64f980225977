"""MobileNet V1, V2 and V3 as ``keras.applications`` builds them, ending in logits. Inputs are pixels in [-1, 1]."""

import keras

__all__ = ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3"]

SIZES = ("small", "large")


def mobilenet_v1(
    *,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    width: float = 1.0,
    name: str = "mobilenet_v1",
) -> keras.Model:
    """Returns MobileNet V1, untrained: depthwise and pointwise convolutions in turns.

    Args:
        input_shape: height, width and channels. Default: (224, 224, 3).
        classes: how many logits. Default: 1000.
        width: factor of the channels; 0.25, 0.5, 0.75 and 1.0 are the paper's. Default: 1.0.
        name: of the model. Default: "mobilenet_v1".

    Returns:
        A model from (n, height, width, channels) float32 in [-1, 1] to (n, classes) float32 logits.

    Examples:
        >>> mobilenet_v1(input_shape=(32, 32, 3), classes=10, width=0.25).output_shape
        (None, 10)

    Source: Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision applications", 2017,
    https://arxiv.org/abs/1704.04861.
    """
    return keras.applications.MobileNet(
        input_shape=input_shape, alpha=width, weights=None, classes=classes, classifier_activation=None, name=name
    )


def mobilenet_v2(
    *,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    width: float = 1.0,
    name: str = "mobilenet_v2",
) -> keras.Model:
    """Returns MobileNet V2, untrained: residuals between the narrow ends of expanded blocks.

    Args:
        input_shape: height, width and channels. Default: (224, 224, 3).
        classes: how many logits. Default: 1000.
        width: factor of the channels; 0.35, 0.5, 0.75, 1.0, 1.3 and 1.4 are the authors'. Default: 1.0.
        name: of the model. Default: "mobilenet_v2".

    Returns:
        A model from (n, height, width, channels) float32 in [-1, 1] to (n, classes) float32 logits.

    Examples:
        >>> mobilenet_v2(input_shape=(32, 32, 3), classes=10, width=0.35).output_shape
        (None, 10)

    Source: Sandler, Howard, Zhu, Zhmoginov and Chen, "MobileNetV2: inverted residuals and linear bottlenecks", 2018,
    https://arxiv.org/abs/1801.04381.
    """
    return keras.applications.MobileNetV2(
        input_shape=input_shape, alpha=width, weights=None, classes=classes, classifier_activation=None, name=name
    )


def mobilenet_v3(
    *,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    size: str = "small",
    minimalistic: bool = False,
    width: float = 1.0,
    name: str = "mobilenet_v3",
) -> keras.Model:
    """Returns MobileNet V3, untrained.

    The minimalistic form has no squeeze-and-excite, no hard swish and no 5x5 kernels: ReLU and 3x3 only, which every
    integer kernel and accelerator has.

    Args:
        input_shape: height, width and channels. Default: (224, 224, 3).
        classes: how many logits. Default: 1000.
        size: "small" or "large". Default: "small".
        minimalistic: whether to leave out what integer arithmetic is bad at. Default: False.
        width: factor of the channels; 0.75 and 1.0 are the authors'. Default: 1.0.
        name: of the model. Default: "mobilenet_v3".

    Returns:
        A model from (n, height, width, channels) float32 in [-1, 1] to (n, classes) float32 logits.

    Raises:
        ValueError: an unknown size.

    Examples:
        >>> mobilenet_v3(input_shape=(32, 32, 3), classes=10, minimalistic=True).output_shape
        (None, 10)

    Source: Howard et al., "Searching for MobileNetV3", 2019, https://arxiv.org/abs/1905.02244; the minimalistic form:
    https://github.com/tensorflow/models/tree/master/research/slim/nets/mobilenet.
    """
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}. Received: size={size!r}.")
    builder = keras.applications.MobileNetV3Small if size == "small" else keras.applications.MobileNetV3Large
    return builder(
        input_shape=input_shape,
        alpha=width,
        minimalistic=minimalistic,
        weights=None,
        classes=classes,
        classifier_activation=None,
        include_preprocessing=False,  # all three versions take the same pixels
        name=name,
    )

"""Which models the zoo has: one row each, from which ``build``, ``tfcompress zoo`` and the tests work."""

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import keras

__all__ = ["MODELS", "Entry", "build", "find"]

Task = Literal["image classification", "object detection", "keyword spotting", "anomaly detection", "text"]


@dataclass(frozen=True)
class Entry:
    """One model of the zoo.

    Args:
        name: what ``build`` takes.
        builder: "module:function" below ``tfcompress.zoo``.
        task: what the model is for.
        input_shape: of one sample with the default arguments.
        paper: authors, title and year.
        parameters: weights that training changes, with the default arguments; a test counts them.
        multiply_adds: of one sample, counted by ``costs.multiply_adds``; a test counts them.
        arguments: what ``build`` passes on unless told otherwise. Default: none.
        small: arguments of a small variant, for a quick look. Default: none.
        float_ops: operators that stay in float32 in a full-integer file. Default: none.
        choice: "module:function" below ``tfcompress.zoo`` that returns, for the arguments of ``build``, how boxes are chosen
            inside the file, which ``convert`` takes as ``detections``. Default: there are no boxes.
        refused: why it does not convert, by target. Default: nothing refuses it.
        note: what else to know about its targets. Default: none.

    Examples:
        >>> find("resnet_8").task
        'image classification'
    """

    name: str
    builder: str
    task: Task
    input_shape: tuple[int, ...]
    paper: str
    parameters: int
    multiply_adds: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    small: Mapping[str, Any] = field(default_factory=dict)
    float_ops: tuple[str, ...] = ()
    choice: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def function(self) -> "Callable[..., keras.Model]":
        """The function that builds the model."""
        return _function(self.builder)

    def settings(self, **arguments: Any) -> dict[str, Any]:
        """Returns what ``convert`` takes besides for the model that ``build(name, **arguments)`` returns.

        Examples:
            >>> find("ssdlite").settings(classes=3)["allow_float"]
            ('TFLite_Detection_PostProcess',)
        """
        found: dict[str, Any] = {"allow_float": self.float_ops or None}
        if self.choice:
            found["detections"] = _function(self.choice)(**arguments)
        return found


def _function(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f".{module}", __package__), name)


_PICTURE = (224, 224, 3)
_TINY: dict[str, Any] = {"input_shape": (32, 32, 3), "classes": 10}
_LOOKED_UP = dict.fromkeys(
    ("gpu-fp16", "edge-tpu", "ethos-u"),
    "it has no LESS, SELECT_V2 and GATHER, which look up an embedding; --check names the rest",
)


def _embedded(reason: str) -> dict[str, str]:
    """What refuses a model that begins with an embedding, with the reason of the two targets of the other quantizer."""
    return {**dict.fromkeys(("cpu-int16x8", "cpu-int4"), reason), **_LOOKED_UP}


_HARD_SWISH = {
    "cpu-int16x8": "HARD_SWISH with int16 activations stays in float32",
    "edge-tpu": "it has no HARD_SWISH",
}
_DEEP_SHUFFLE = {"edge-tpu": "only the three innermost axes of RESHAPE and TRANSPOSE may be longer than 1"}


def _picture(
    name: str,
    builder: str,
    paper: str,
    parameters: int,
    multiply_adds: int,
    *,
    shape: tuple[int, ...] = _PICTURE,
    **rest: Any,
) -> Entry:
    small = {**_TINY, **rest.pop("small", {})}
    return Entry(name, builder, "image classification", shape, paper, parameters, multiply_adds, small=small, **rest)


def _mobilenet_v3(size: str, parameters: int, multiply_adds: int, *, minimalistic: bool = False) -> Entry:
    name = f"mobilenet_v3_{size}" + ("_minimal" if minimalistic else "")
    arguments = {"size": size, "minimalistic": minimalistic, "name": name}
    paper = "Howard et al., Searching for MobileNetV3, 2019"
    return _picture(
        name,
        "mobilenets:mobilenet_v3",
        paper,
        parameters,
        multiply_adds,
        arguments=arguments,
        small={"width": 0.5},
        refused={} if minimalistic else _HARD_SWISH,
    )


MODELS: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        _picture(
            "mobilenet_v1",
            "mobilenets:mobilenet_v1",
            "Howard et al., MobileNets, 2017",
            4_231_976,
            568_740_352,
            small={"width": 0.25},
        ),
        _picture(
            "mobilenet_v2",
            "mobilenets:mobilenet_v2",
            "Sandler et al., MobileNetV2: inverted residuals and linear bottlenecks, 2018",
            3_504_872,
            300_774_272,
            small={"width": 0.35},
        ),
        _mobilenet_v3("small", 2_542_856, 56_510_400),
        _mobilenet_v3("large", 5_483_032, 216_589_760),
        _mobilenet_v3("small", 2_044_736, 52_288_448, minimalistic=True),
        _mobilenet_v3("large", 3_924_288, 209_136_704, minimalistic=True),
        _picture(
            "shufflenet_v1",
            "shufflenet_v1:shufflenet_v1",
            "Zhang et al., ShuffleNet, 2018",
            1_865_728,
            137_460_672,
            small={"width": 0.5, "units": (2, 2)},
            refused=_DEEP_SHUFFLE,
        ),
        _picture(
            "shufflenet_v2",
            "shufflenet_v2:shufflenet_v2",
            "Ma et al., ShuffleNet V2: practical guidelines for efficient CNN architecture design, 2018",
            2_278_604,
            144_907_992,
            small={"width": 0.5, "units": (2, 2)},
            refused=_DEEP_SHUFFLE,
        ),
        _picture(
            "resnet_8",
            "resnets:resnet_8",
            "Banbury et al., MLPerf Tiny benchmark, 2021",
            78_186,
            12_501_632,
            shape=(32, 32, 3),
        ),
        _picture(
            "resnet_20",
            "resnets:resnet_cifar",
            "He et al., Deep residual learning for image recognition, 2016",
            272_474,
            40_813_184,
            shape=(32, 32, 3),
            arguments={"depth": 20, "name": "resnet_20"},
        ),
        _picture(
            "resnet_56",
            "resnets:resnet_cifar",
            "He et al., Deep residual learning for image recognition, 2016",
            855_770,
            125_747_840,
            shape=(32, 32, 3),
            arguments={"depth": 56, "name": "resnet_56"},
            small={"depth": 14},
        ),
        _picture(
            "squeezenet",
            "squeezenet:squeezenet",
            "Iandola et al., SqueezeNet, 2016",
            1_235_496,
            349_151_936,
            small={"width": 0.5},
        ),
        Entry(
            "ssdlite",
            "ssdlite:ssdlite",
            "object detection",
            (224, 224, 3),
            "Sandler et al., MobileNetV2: inverted residuals and linear bottlenecks, 2018",
            389_148,
            67_480_192,
            small={"input_shape": (64, 64, 3), "classes": 3, "width": 0.5},
            float_ops=("TFLite_Detection_PostProcess",),
            choice="ssdlite:ssdlite_detections",
            refused=dict.fromkeys(
                ("gpu-fp16", "edge-tpu", "ethos-u"), "it has no TFLite_Detection_PostProcess, which chooses the boxes"
            ),
            note="converted without detections=, it ends in codes of boxes and every target takes it",
        ),
        Entry(
            "ds_cnn",
            "ds_cnn:ds_cnn",
            "keyword spotting",
            (49, 10, 1),
            "Zhang et al., Hello edge: keyword spotting on microcontrollers, 2017",
            23_756,
            2_656_768,
        ),
        Entry(
            "autoencoder",
            "autoencoder:autoencoder",
            "anomaly detection",
            (640,),
            "Banbury et al., MLPerf Tiny benchmark, 2021",
            267_928,
            264_192,
        ),
        Entry(
            "text_cnn",
            "text:text_cnn",
            "text",
            (64,),
            "Kim, Convolutional neural networks for sentence classification, 2014",
            74_434,
            655_488,
            refused=_embedded("REDUCE_MAX stays in float32"),
        ),
        Entry(
            "text_attention",
            "text:text_attention",
            "text",
            (64,),
            "Vaswani et al., Attention is all you need, 2017",
            72_354,
            786_496,
            refused=_LOOKED_UP,
        ),
        Entry(
            "text_lstm",
            "text:text_lstm",
            "text",
            (32,),
            "Hochreiter and Schmidhuber, Long short-term memory, 1997",
            72_386,
            262_208,
            small={"length": 8},
            refused=_embedded("FILL stays in float32"),
        ),
        Entry(
            "next_character",
            "text:next_character",
            "text",
            (64,),
            "Bai et al., An empirical evaluation of generic convolutional and recurrent networks, 2018",
            122_400,
            7_667_712,
            refused=_embedded("SPACE_TO_BATCH_ND stays in float32"),
        ),
    )
}
"""Every model of the zoo by name."""


def find(name: str) -> Entry:
    """Returns the row of that name.

    Raises:
        ValueError: an unknown name; the message lists the known ones and the nearest.
        TypeError: the name is no string.

    Examples:
        >>> find("shufflenet")
        Traceback (most recent call last):
        ...
        ValueError: Unknown model 'shufflenet'. Did you mean 'shufflenet_v2'? Known: mobilenet_v1, mobilenet_v2, ...
    """
    if not isinstance(name, str):
        raise TypeError(f"A model's name must be a string. Received: {type(name).__name__}.")
    if name in MODELS:
        return MODELS[name]
    near = difflib.get_close_matches(name, MODELS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"Unknown model {name!r}.{hint} Known: {', '.join(MODELS)}.")


def build(name: str, **arguments: Any) -> "keras.Model":
    """Returns a model of the zoo: functional, untrained, ending in logits.

    Args:
        name: one of ``MODELS``, for instance "shufflenet_v2".
        **arguments: what the model's own function takes: most know ``input_shape``, ``classes``, ``width`` and ``name``.

    Raises:
        ValueError: an unknown name, or a value that the model refuses.
        TypeError: an argument that the model does not have; the message lists those it has.

    Examples:
        >>> build("shufflenet_v2", width=0.5, classes=10, input_shape=(32, 32, 3)).output_shape
        (None, 10)
    """
    entry = find(name)
    known = [word for word in entry.function.__annotations__ if word != "return"]
    unknown = [word for word in arguments if word not in known]
    if unknown:
        raise TypeError(
            f"Arguments of {name} must be among {', '.join(known)}. Received: {unknown[0]}={arguments[unknown[0]]!r}."
        )
    return entry.function(**{**entry.arguments, **arguments})

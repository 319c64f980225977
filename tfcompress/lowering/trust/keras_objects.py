"""Which objects of a Keras configuration are known, by the loader that will run?

The classes are the loader's own, found under the names that its files use, each with the settings that its constructor
takes. Not among them: layers that hold code (``Lambda``, wrappers of recurrent cells around a function), open other files
(``TFSMLayer``), or wrap another framework. What a new version of Keras adds is unknown until it is listed here.
"""

import functools
import importlib
import inspect
import re
import sys
import types
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from .tfmot import toolkit_objects

__all__ = ["KerasObjects", "Loader", "keras_objects", "registered_objects"]

Loader = Literal["keras", "tf_keras"]
"""Which of the two loads a file: Keras 3, or tf_keras, which is Keras 2."""

_LAYER_NAMES = """
AbstractRNNCell Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention
AlphaDropout Attention AugMix AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D
BatchNormalization Bidirectional CategoryEncoding CenterCrop Concatenate Conv1D Conv1DTranspose Conv2D Conv2DTranspose
Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D Cropping2D Cropping3D CutMix Dense DepthwiseConv1D
DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense Embedding Equalization Flatten GRU GRUCell GaussianDropout
GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D
GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention HashedCrossing Hashing Identity InputLayer
IntegerLookup LSTM LSTMCell LayerNormalization LeakyReLU LocallyConnected1D LocallyConnected2D Masking MaxNumBoundingBoxes
MaxPooling1D MaxPooling2D MaxPooling3D Maximum MelSpectrogram Minimum MixUp MultiHeadAttention Multiply Normalization
PReLU Permute Pipeline RMSNormalization RNN RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter
RandomContrast RandomCrop RandomElasticTransform RandomErasing RandomFlip RandomFourierFeatures RandomGaussianBlur
RandomGrayscale RandomHeight RandomHue RandomInvert RandomPerspective RandomPosterization RandomRotation
RandomSaturation RandomSharpness RandomShear RandomTranslation RandomWidth RandomZoom ReLU RepeatVector Rescaling Reshape
Resizing ReversibleEmbedding STFTSpectrogram SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell Softmax Solarization
SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells StringLookup Subtract
SyncBatchNormalization TextVectorization ThresholdedReLU TimeDistributed UnitNormalization UpSampling1D UpSampling2D
UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
"""
_LAYERS = frozenset(_LAYER_NAMES.split())
_OLD_NAMES = {"BatchNormalizationV1": "BatchNormalization", "BatchNormalizationV2": "BatchNormalization"}
_GROUPS = {"initializers": "Initializer", "regularizers": "Regularizer", "constraints": "Constraint"}
_POLICIES = [
    "DTypePolicy",
    "FloatDTypePolicy",
    "QuantizedDTypePolicy",
    "QuantizedFloat8DTypePolicy",
    "DTypePolicyMap",
    "Policy",
    "GPTQDTypePolicy",
    "AWQDTypePolicy",
    "Int4DTypePolicy",
]
_OPERATION_MODULES = ("numpy", "nn", "math", "linalg", "image")
_CORE_OPERATIONS = [
    "Cast",
    "ConvertToTensor",
    "SaturateCast",
    "Scatter",
    "ScatterUpdate",
    "Slice",
    "SliceUpdate",
    "StopGradient",
    "Unstack",
]
_APPLICATION_LAYERS = {"convnext": ["LayerScale", "PreStem"], "inception_resnet_v2": ["CustomScaleLayer"]}
_FUNCTION_LAYERS = frozenset(["TFOpLambda", "SlicingOpLambda"])
_PREPROCESSING = ("layers", "layers.experimental", "layers.experimental.preprocessing")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,60}")
_BASE_SETTINGS = frozenset(
    [
        "name",
        "trainable",
        "dtype",
        "autocast",
        "batch_input_shape",
        "batch_shape",
        "input_shape",
        "input_dtype",
        "input_dim",
        "input_length",
    ]
)


class KerasObjects(NamedTuple):
    """What a loader may be asked for.

    Attributes:
        classes: the settings of each class, by (module, name); the module is "" for files that give none.
        functions: (module, name) of activation functions.
        identifiers: names that stand for an activation, initializer, regularizer or constraint.
        unlisted: names of the loader's own layers that are not among the classes.
    """

    classes: dict[tuple[str, str], frozenset[str]]
    functions: frozenset[tuple[str, str]]
    identifiers: frozenset[str]
    unlisted: frozenset[str]


@functools.lru_cache(maxsize=4)
def keras_objects(loader: Loader, *, with_tfmot: bool = False) -> KerasObjects:
    """Returns the known objects of a loader, which is imported for it.

    Args:
        loader: "keras" or "tf_keras".
        with_tfmot: whether those of the TFMOT toolkit are known too (tf_keras). Default: False.

    Raises:
        ImportError: the loader or the toolkit is not installed.

    Examples:
        >>> known = keras_objects("keras")
        >>> ("keras.layers", "Dense") in known.classes, ("keras.layers", "Lambda") in known.classes
        (True, False)
        >>> "units" in known.classes["", "Dense"]
        True
    """
    package = importlib.import_module(loader)
    classes: dict[tuple[str, str], frozenset[str]] = {}
    identifiers: set[str] = set()
    for place, name, cls in _built_in(package, loader):
        settings = _settings(cls)
        for module in _spellings(place, loader):
            classes[module, name] = settings
        for module in _spellings(cls.__module__, loader):
            classes[module, cls.__name__] = settings
        classes["", name] = classes["", cls.__name__] = settings
        if place.rpartition(".")[2] in _GROUPS or issubclass(cls, package.layers.Layer):
            identifiers |= {name, cls.__name__}
    activations = {name for name, value in vars(package.activations).items() if isinstance(value, types.FunctionType)}
    activations -= {"get", "serialize", "deserialize"}
    functions = {(module, name) for name in activations for module in ("builtins", "keras.activations")}
    functions |= {(f"{loader}.activations", name) for name in activations}
    if loader == "keras":
        functions |= {(module, name) for name in activations for module in ("keras.ops", "keras.ops.nn")}
    internal = importlib.import_module(f"{loader}.src.activations")
    aliases = {name for name, value in _table(internal) if getattr(value, "__name__", "") in activations}
    if with_tfmot:
        classes.update(_toolkit_classes())
    own = (
        vars(package.layers)
        if loader == "keras"
        else dict(_table(importlib.import_module("tf_keras.src.layers.serialization")))
    )
    unlisted = {*own, *vars(package.layers)} - {name for _, name in classes}
    return KerasObjects(
        classes, frozenset(functions), frozenset(identifiers | activations | aliases), frozenset(unlisted)
    )


def registered_objects(loader: Loader) -> dict[str, Any]:
    """Returns the custom objects that this process registered with a loader, by their names in files.

    Args:
        loader: which one; it is not imported.

    Examples:
        >>> "nobody>Nothing" in registered_objects("keras")
        False
    """
    package = sys.modules.get(loader)
    return {} if package is None else dict(package.saving.get_custom_objects())


def _built_in(package: Any, loader: Loader) -> Iterator[tuple[str, str, type]]:
    """Yields (public module, name, class) of all that may be in a file."""
    source = importlib.import_module(f"{loader}.src")
    for place in _PREPROCESSING:
        namespace = _attribute(package, place)
        for name in _LAYERS:
            if isinstance(getattr(namespace, name, None), type):
                yield f"{loader}.{place}", name, getattr(namespace, name)
    for old, new in _OLD_NAMES.items():
        yield f"{loader}.layers", old, getattr(package.layers, new)
    for name in ("Model", "Sequential"):
        yield loader, name, getattr(package, name)
        yield f"{loader}.models", name, getattr(package, name)
    models = importlib.import_module(f"{source.__name__}.models")
    yield models.Functional.__module__, "Functional", models.Functional
    yield f"{loader}.models", "Functional", models.Functional
    for group, base in _GROUPS.items():
        namespace = getattr(package, group)
        parent = getattr(namespace, base)
        own = importlib.import_module(f"{source.__name__}.{group}")
        for name, value in [*vars(namespace).items(), *_table(own)]:
            if isinstance(value, type) and issubclass(value, parent) and value is not parent:
                yield f"{loader}.{group}", name, value
    for place in ("", "dtype_policies", "mixed_precision"):
        namespace = _attribute(package, place)
        for name in _POLICIES:
            if isinstance(getattr(namespace, name, None), type):
                yield f"{loader}.{place}".rstrip("."), name, getattr(namespace, name)
    for module, names in _APPLICATION_LAYERS.items():
        application = importlib.import_module(f"{source.__name__}.applications.{module}")
        for name in names:
            if isinstance(getattr(application, name, None), type):
                yield application.__name__, name, getattr(application, name)
    if loader == "keras":
        yield from _operations()
    else:
        op_layers = importlib.import_module("tf_keras.src.layers.core.tf_op_layer")
        for name in _FUNCTION_LAYERS:
            yield op_layers.__name__, name, getattr(op_layers, name)


def _operations() -> Iterator[tuple[str, str, type]]:
    """Yields the operations of Keras 3 that compute tensors from tensors: none that takes a function."""
    operation = importlib.import_module("keras.src.ops.operation").Operation
    for place in (*_OPERATION_MODULES, "core"):
        module = importlib.import_module(f"keras.src.ops.{place}")
        for name, value in vars(module).items():
            own = isinstance(value, type) and issubclass(value, operation) and value.__module__ == module.__name__
            if own and (place != "core" or name in _CORE_OPERATIONS):
                yield module.__name__, name, value


def _toolkit_classes() -> Iterator[tuple[tuple[str, str], frozenset[str]]]:
    """Yields the classes that TFMOT's own scopes register, and its pruning schedules."""
    for name, cls in toolkit_objects().items():
        if isinstance(cls, type):
            settings = _settings(cls)
            yield ("", name), settings
            yield (cls.__module__, name), settings


def _attribute(package: Any, place: str) -> Any:
    for part in filter(None, place.split(".")):
        package = getattr(package, part, None)
    return package


def _table(module: Any) -> list[tuple[str, Any]]:
    """Returns the names by which a module of Keras finds its objects."""
    if hasattr(module, "populate_deserializable_objects"):
        module.populate_deserializable_objects()
    table = getattr(module, "ALL_OBJECTS_DICT", None) or getattr(getattr(module, "LOCAL", None), "ALL_OBJECTS", {})
    return list(table.items())


def _spellings(module: str, loader: Loader) -> set[str]:
    """Returns a module's names in files: tf_keras reads ``keras.`` as ``tf_keras.``."""
    if loader == "keras" or not module.startswith("tf_keras"):
        return {module}
    return {module, module.removeprefix("tf_")}


def _settings(cls: type) -> frozenset[str]:
    """Returns the names that a class's constructors and its reading and writing of configurations mention."""
    found: set[str] = set(_BASE_SETTINGS)
    for base in cls.__mro__[:-1]:
        for method in ("__init__", "from_config", "get_config"):
            function = inspect.unwrap(getattr(vars(base).get(method), "__func__", vars(base).get(method)) or object)
            if isinstance(function, types.FunctionType):
                code = function.__code__
                found.update(code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount])
                found.update(_constants(code.co_consts))
    return frozenset(found)


def _constants(values: Any) -> Iterator[str]:
    for value in values:
        if isinstance(value, str) and _IDENTIFIER.fullmatch(value):
            yield value
        elif isinstance(value, tuple | frozenset):
            yield from _constants(value)
        elif isinstance(value, types.CodeType):
            yield from _constants(value.co_consts)

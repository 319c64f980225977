"""May this Keras configuration be loaded? Every object in it must be known, with known settings, however deep it lies.

The check knows what the loader that will run really reads: classes by module, name and registered name; functions by name;
texts that stand for functions or files. This module loads no model.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from ...errors import ModelError
from .findings import Finding
from .keras_objects import KerasObjects, Loader, keras_objects
from .tensor_functions import is_tensor_function

__all__ = ["check_config", "examine_config", "uses_tfmot", "without_training"]

HOW_TO_ALLOW = "If you trust the file, pass --allow_unsafe (allow_unsafe=True in Python)."
TFMOT_CLASSES = frozenset(
    [
        "PruneLowMagnitude",
        "ClusterWeights",
        "QuantizeAnnotate",
        "QuantizeLayer",
        "QuantizeWrapper",
        "QuantizeWrapperV2",
        "OutputOnlyWrapper",
    ]
)
"""Layers of the TensorFlow Model Optimization toolkit (TFMOT), as they are named in files."""

_LIBRARIES = ("keras", "tf_keras", "builtins", "tensorflow", "numpy", "tensorflow_model_optimization")
_PLAIN_OBJECTS = frozenset(
    [
        "__tensor__",
        "__numpy__",
        "__bytes__",
        "__keras_tensor__",
        "__slice__",
        "__ellipsis__",
        "__tuple__",
        "TensorShape",
    ]
)
_CODE = frozenset(["Lambda", "__lambda__", "function"])
_FUNCTION_LAYERS = frozenset(["TFOpLambda", "SlicingOpLambda"])
_ENTRY_KEYS = frozenset(
    [
        *(
            "module",
            "class_name",
            "config",
            "registered_name",
            "build_config",
            "compile_config",
            "inbound_nodes",
            "name",
        ),
        *("shared_object_id", "__passive_serialization__", "keras_version", "backend", "input_spec"),
    ]
)
_NAMED_FUNCTIONS = ("activation", "initializer", "regularizer", "constraint")
_FILE_SETTINGS = frozenset(["vocabulary", "idf_weights"])
_LONGEST_SHOWN = 80


class _Rules(NamedTuple):
    known: KerasObjects
    registered: Collection[str]
    place: str


def uses_tfmot(config: Any) -> bool:
    """Returns whether a configuration holds layers of the TFMOT toolkit.

    Args:
        config: the parsed configuration of a model.

    Examples:
        >>> uses_tfmot({"class_name": "Sequential", "config": {"layers": [{"class_name": "PruneLowMagnitude"}]}})
        True
    """
    remaining = [config]
    while remaining:
        node = remaining.pop()
        if isinstance(node, dict):
            if _plain(node.get("class_name", "")) in TFMOT_CLASSES:
                return True
            remaining.extend(node.values())
        elif isinstance(node, list):
            remaining.extend(node)
    return False


def without_training(config: Any) -> Any:
    """Returns a configuration without what says how the model was compiled: losses, metrics and optimizers.

    Args:
        config: a parsed configuration, nested at most as deeply as ``parse_json`` lets through.

    Examples:
        >>> without_training({"class_name": "Sequential", "config": {}, "compile_config": {"loss": "mse"}})
        {'class_name': 'Sequential', 'config': {}}
    """
    if isinstance(config, list):
        return [without_training(item) for item in config]
    if not isinstance(config, dict):
        return config
    dropped = {"compile_config"} if "class_name" in config else set()
    return {key: without_training(value) for key, value in config.items() if key not in dropped}


def check_config(config: Any, place: str, known: Collection[str], *, loader: Loader | None = None) -> None:
    """Refuses a configuration that brings code along, in any layer, wrapper or nested model.

    Args:
        config: the parsed configuration of a model.
        place: how messages name the file.
        known: registered names of custom objects that the caller defined in this process.
        loader: which loader's objects are known. Default: that of either.

    Raises:
        ModelError: the first thing that ``examine_config`` finds.

    Examples:
        >>> check_config({"class_name": "Bidirectional", "config": {"layer": {"class_name": "Lambda"}}}, "m.h5", ())
        Traceback (most recent call last):
        ...
        tfcompress.errors.ModelError: A model file must not bring code along. Received: a Lambda (unnamed) in m.h5. ...
    """
    loaders: list[Loader] = [loader] if loader else ["keras", "tf_keras"]
    for each in loaders:
        first = next(examine_config(config, place, known, loader=each), None)
        if first is None:
            return
    raise ModelError(first.reason)  # type: ignore[union-attr]


def examine_config(config: Any, place: str, known: Collection[str], *, loader: Loader) -> Iterator[Finding]:
    """Yields what keeps a configuration from being loaded.

    Args:
        config: the parsed configuration of a model.
        place: how messages name the file.
        known: registered names of custom objects that the caller defined in this process.
        loader: the loader that will run.

    Examples:
        >>> entry = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 1, "then": "go"}}
        >>> [finding.what for finding in examine_config(entry, "m.keras", (), loader="keras")]
        ["the unknown setting 'then' of a Dense (unnamed)"]
    """
    rules = _Rules(keras_objects(loader, with_tfmot=loader == "tf_keras" and uses_tfmot(config)), known, place)
    remaining = [(config, "")]  # no recursion: a file may nest deeper than Python's stack
    while remaining:
        node, where = remaining.pop()
        if isinstance(node, list):
            inner = [
                (item, f"{where}/{index}") for index, item in enumerate(node) if item and isinstance(item, dict | list)
            ]
            remaining.extend(reversed(inner))
        elif isinstance(node, dict):
            if "class_name" in node:
                yield from _object_findings(node, where, rules)
            elif "_TYPE" in node:
                yield _code(f"a composite tensor ({_shown(node['_TYPE'])})", where, rules)
            remaining.extend(
                (value, f"{where}/{key}"[-200:])
                for key, value in reversed(node.items())
                if not (key == "compile_config" and "class_name" in node)
            )


def _object_findings(entry: dict[str, Any], where: str, rules: _Rules) -> Iterator[Finding]:
    class_name, module, registered = entry["class_name"], entry.get("module"), entry.get("registered_name")
    if not all(isinstance(value, str | None) for value in (class_name, module, registered)) or class_name is None:
        yield _code(f"an object whose class is no name ({_shown(class_name)})", where, rules)
        return
    config = entry.get("config")
    settings = config if isinstance(config, dict) else {}
    layer = f"{_plain(class_name)} ({_shown(settings.get('name') or 'unnamed')})"
    if class_name in _PLAIN_OBJECTS:
        return
    if class_name == "function":
        yield from _function_findings(entry, where, rules)
        return
    if _is_registered(entry, rules):
        return  # the caller's own class, which reads its settings itself; objects in them are looked at all the same
    known = rules.known.classes.get((module or "", class_name))
    if known is None or registered not in (None, class_name):
        yield _unknown_class(entry, layer, where, rules)
        return
    article = f"a {layer}"
    for key in entry:
        if key not in _ENTRY_KEYS:
            yield _code(f"the unknown entry {_shown(key)!r} of {article}", where, rules)
    if config is not None and not isinstance(config, dict | list):
        yield _code(f"{article} whose settings are {_shown(config)}", where, rules)
    for key, value in settings.items():
        if key not in known:
            yield _code(f"the unknown setting {_shown(key)!r} of {article}", where, rules)
        elif isinstance(value, str):
            yield from _text_findings(key, value, article, where, rules)
    if class_name in _FUNCTION_LAYERS and not is_tensor_function(settings.get("function")):
        yield _code(f"{article} that calls {_shown(settings.get('function'))}", where, rules)


def _is_registered(entry: dict[str, Any], rules: _Rules) -> bool:
    """Returns whether every way in which loaders look a class up leads to the caller's own."""
    class_name, registered = entry["class_name"], entry.get("registered_name")
    if registered is None and "module" in entry:
        return False
    name = class_name if registered is None else registered
    if name not in rules.registered or _plain(class_name) in rules.known.unlisted:
        return False
    own = getattr(rules.registered[name], "__name__", None) if isinstance(rules.registered, Mapping) else None
    return class_name in (name, own, _plain(name))  # some loaders go by the registered name, others by the class's


def _text_findings(key: str, value: str, layer: str, where: str, rules: _Rules) -> Iterator[Finding]:
    if key in _FILE_SETTINGS:
        yield Finding(
            "refused",
            f"{layer} that reads the file {_shown(value)}",
            where,
            f"A model file must not reach for files. Received: {layer} with {key}={_shown(value)!r} in {rules.place}. "
            f"Store the list itself. {HOW_TO_ALLOW}",
        )
    elif key.endswith(_NAMED_FUNCTIONS) and value not in rules.known.identifiers and value not in rules.registered:
        yield _code(f"{layer} with the unknown {key} {_shown(value)!r}", where, rules)


def _function_findings(entry: dict[str, Any], where: str, rules: _Rules) -> Iterator[Finding]:
    name, module, registered = entry.get("config"), entry.get("module"), entry.get("registered_name")
    if isinstance(name, str) and name in rules.registered:
        return
    if isinstance(name, str) and (module, name) in rules.known.functions and registered in (None, "function", name):
        return
    yield _code(f"a function (unnamed) called {_shown(module)}.{_shown(name)}", where, rules)


def _unknown_class(entry: dict[str, Any], layer: str, where: str, rules: _Rules) -> Finding:
    module, class_name = entry.get("module"), entry["class_name"]
    registered = entry.get("registered_name") or class_name
    if module is None:
        foreign = ">" in registered
    else:
        foreign = module.split(".")[0] not in _LIBRARIES or registered != class_name
    if not foreign or _plain(class_name) in _CODE:
        return _code(f"a {layer}", where, rules)
    return Finding(
        "refused",
        f"the unknown custom object {_shown(registered)!r}",
        where,
        f"A model file must not bring code along. Received: the unknown custom object {_shown(registered)!r} in "
        f"{rules.place}. Register it with keras.saving.register_keras_serializable. {HOW_TO_ALLOW}",
    )


def _code(what: str, where: str, rules: _Rules) -> Finding:
    reason = f"A model file must not bring code along. Received: {what} in {rules.place}. Replace it by a layer. {HOW_TO_ALLOW}"
    return Finding("refused", what, where, reason)


def _plain(class_name: Any) -> str:
    return str(class_name)[:_LONGEST_SHOWN].rpartition(">")[2]


def _shown(value: Any) -> str:
    text = str(value)[:_LONGEST_SHOWN]
    return "".join(sign if sign.isprintable() else "?" for sign in text)

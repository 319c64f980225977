"""How is a PyTorch model opened, and what are its inputs called?

A module, a ``torch.export`` program, a ``torch.jit`` archive, or a file of any of them becomes one callable with named
inputs. Nothing that a file brings along is run unless the caller allows it. Nothing is converted here.
"""

import contextlib
import inspect
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ModelError
from . import files
from .examination import HOW_TO_EXPORT, examine_torch
from .silence import quietly

__all__ = ["Opened", "evaluating", "frameworks", "is_torch", "open_module", "rewrite_advice", "run_on_example"]

_PICTURES = 4  # axes of an input that holds pictures
_MOST_COLOURS = 4
_ALLOW = "If you trust the file, pass --allow_unsafe (allow_unsafe=True in Python)."
# How PyTorch's converters name a branch or a loop: torch.export's operators, its refusal, and TorchScript's nodes.
_CONTROL_FLOW = re.compile(r"Lowering not found: (?:cond|while_loop)\b|data-dependent expression|prim::(?:If|Loop)\b")


@dataclass(frozen=True)
class Opened:
    """A PyTorch model that can be called by the names of its inputs.

    Args:
        name: how messages name it.
        module: the ``torch.nn.Module`` that holds the weights.
        inputs: names of the inputs, in order; further ones may exist that have defaults.
        call: from a dictionary of tensors by input name to what the model returns.
        examples: tensors by input name that came with the model, empty if none did.
        batch: the one batch size that the model takes. Default: None, any.
    """

    name: str
    module: Any
    inputs: tuple[str, ...]
    call: Callable[[Mapping[str, Any]], Any]
    examples: Mapping[str, Any]
    batch: int | None = None


def is_torch(model: Any) -> bool:
    """Returns whether this is a PyTorch module, program or file, without importing PyTorch.

    Args:
        model: any object or a path.

    Examples:
        >>> is_torch("model.keras")
        False
    """
    if isinstance(model, str | os.PathLike):
        return files.detect(model) is not None
    names = {f"{kind.__module__}.{kind.__name__}" for kind in type(model).__mro__}
    return bool(names & {"torch.nn.modules.module.Module", "torch.export.exported_program.ExportedProgram"})


def frameworks(name: str, *, debug: bool = False) -> tuple[Any, Any]:
    """Returns the modules ``torch`` and ``litert_torch``.

    Args:
        name: the model that they are needed for, for the message.
        debug: whether their log lines are shown. Default: False.

    Raises:
        ModelError: one of them is not installed.
    """
    with quietly(debug=debug):
        try:
            import litert_torch
            import torch
        except ImportError as error:
            raise ModelError(
                f"A PyTorch model needs the extra [torch]. Received: {name} without it ({error}). "
                "In a clone of tfcompress: pip install -c constraints.txt -e '.[torch]'"
            ) from error
    return torch, litert_torch


def open_module(
    model: Any,
    torch: Any,
    *,
    shapes: Callable[[tuple[str, ...]], Mapping[str, Any]],
    allow_unsafe: bool = False,
    debug: bool = False,
) -> Opened:
    """Returns the model, ready to be called by name.

    Args:
        model: a module, a scripted or traced module, an exported program, or a path.
        torch: the module ``torch``.
        shapes: from the names of the inputs to example tensors; asked only where opening needs them (``torch.jit``).
        allow_unsafe: whether a file may bring code along. Default: False.
        debug: whether PyTorch's log lines are shown. Default: False.

    Raises:
        ModelError: a damaged file, one that brings code along, or one that holds weights without a model.
        TypeError: neither a PyTorch model nor a path.
    """
    name = str(model) if isinstance(model, str | os.PathLike) else type(model).__name__
    if isinstance(model, str | os.PathLike):
        model = _load(os.fspath(model), torch, allow_unsafe, debug)
    if isinstance(model, torch.export.ExportedProgram):
        return _from_program(model, name)
    if isinstance(model, torch.jit.ScriptModule):
        return _from_script(model, name, torch, shapes, debug)
    if isinstance(model, torch.nn.Module):
        return _from_module(model, name)
    raise TypeError(f"model must be a PyTorch module or program. Received: {type(model).__module__}.{name}.")


@contextlib.contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Puts a module and its parts into evaluation mode and gives each its own mode back."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False  # not eval(): an exported module refuses the call
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def run_on_example(run: Callable[[], Any], examples: Mapping[str, Any], name: str) -> Any:
    """Returns what ``run`` does, the model on its example.

    Args:
        run: calls the model.
        examples: tensors by input name as ``forward`` takes them, for the message.
        name: how messages name the model.

    Raises:
        ModelError: the model failed; where a shape looks channels last, the message has it the other way round.
    """
    try:
        return run()
    except Exception as error:  # a module may raise anything
        shapes = {key: tuple(tensor.shape) for key, tensor in examples.items()}
        text = ", ".join(f"{key} {shape}" for key, shape in shapes.items())
        turned = [
            f"{key}:{shape[0]},{shape[3]},{shape[1]},{shape[2]}"
            for key, shape in shapes.items()
            if len(shape) == _PICTURES and shape[3] <= _MOST_COLOURS < shape[1]
        ]
        advice = (
            f" Shapes and sample inputs are as forward takes them, channels first, also with --nhwc: {', '.join(turned)}."
            if turned
            else " Give the shapes that forward takes (--input_shape, --sample_inputs)."
        )
        raise ModelError(
            f"The model must run on its example. Received: {name} on {text} ({_reason(error)}).{advice}"
        ) from error


def _reason(error: BaseException) -> str:
    """Returns an error's first line, or what TorchScript's interpreter says at the end."""
    lines = str(error).strip().splitlines()
    last = lines[-1].partition(": ")[2] if len(lines) > 1 and "TorchScript interpreter" in lines[0] else ""
    return (last or first_line(error)).rstrip(".")


def _load(path: str, torch: Any, allow_unsafe: bool, debug: bool) -> Any:
    if files.detect(path) is None:
        raise ModelError(
            f"The model must be a PyTorch file (.pt2, .pt, .pth). Received: {path}, which is none. {HOW_TO_EXPORT}"
        )
    if allow_unsafe:
        return _loaded(path, path, torch, allow_unsafe, debug)
    with tempfile.TemporaryDirectory(prefix="tfcompress-") as folder:
        copy = os.path.join(folder, os.path.basename(path))
        shutil.copyfile(path, copy)  # what is checked is what is loaded, whoever writes to the file meanwhile
        for finding in examine_torch(copy, place=path):
            raise ModelError(finding.reason)
        return _loaded(copy, path, torch, allow_unsafe, debug)


def _loaded(path: str, place: str, torch: Any, allow_unsafe: bool, debug: bool) -> Any:
    kind = files.detect(path)
    if kind == "pickle":
        return _unpickled(path, place, torch, allow_unsafe, debug)
    if kind == "pt2" and not allow_unsafe:
        _check_examples(path, place, torch)
    with quietly(debug=debug):
        try:
            return torch.export.load(path) if kind == "pt2" else torch.jit.load(path, map_location="cpu")
        except Exception as error:  # PyTorch raises whatever the file makes it stumble over
            what = "torch.export program" if kind == "pt2" else "TorchScript archive"
            raise ModelError(
                f"PyTorch {torch.__version__} cannot load the {what} {place}: {first_line(error)} {HOW_TO_EXPORT}"
            ) from error


def _check_examples(path: str, place: str, torch: Any) -> None:
    import io
    import pickle
    import zipfile

    with zipfile.ZipFile(path) as archive:
        for full in archive.namelist():
            if not full.partition("/")[2].startswith("data/sample_inputs/"):
                continue
            try:
                torch.load(io.BytesIO(archive.read(full)), weights_only=True)
            except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile) as error:
                raise ModelError(
                    f"A model file must not bring code along. Received: example inputs in {place} that are more than "
                    f"tensors. Export it again with torch.export.save. {_ALLOW}"
                ) from error


def _unpickled(path: str, place: str, torch: Any, allow_unsafe: bool, debug: bool) -> Any:
    import pickle

    with quietly(debug=debug):
        try:
            value = torch.load(path, map_location="cpu", weights_only=not allow_unsafe)
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL ([\w.]+)", str(error))
            raise ModelError(
                f"A model file must not bring code along. Received: {place}, a pickle"
                f"{f' of {found[1]}' if found else ''}. {HOW_TO_EXPORT}. {_ALLOW}"
            ) from error
        except Exception as error:  # as above
            raise ModelError(f"PyTorch cannot read {place}: {first_line(error)} Copy or save it again.") from error
    if isinstance(value, torch.nn.Module):
        return value
    raise ModelError(
        f"A model file must hold the model, not its weights alone. Received: {place}, {_describe(value, torch)}. Build the "
        f"module, module.load_state_dict(torch.load({place!r}, weights_only=True)), and convert the module. {HOW_TO_EXPORT}"
    )


def _describe(value: Any, torch: Any) -> str:
    if not isinstance(value, Mapping):
        return f"a {type(value).__name__}"
    tensors = {key: item for key, item in value.items() if isinstance(item, torch.Tensor)}
    if not tensors:
        return f"a dictionary with {', '.join(map(str, list(value)[:5])) or 'nothing'}"
    key = next(iter(tensors))
    return f"a state_dict of {len(tensors)} tensors, the first {key} {tuple(tensors[key].shape)}"


def _from_module(module: Any, name: str) -> Opened:
    parameters = [
        parameter
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    spread = next((p for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL), None)
    if spread is not None:
        raise ModelError(
            f"forward must name its inputs. Received: forward(*{spread.name}) of {name}. Wrap it in a module whose forward "
            "names them."
        )
    by_position = {p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_ONLY}

    def call(inputs: Mapping[str, Any]) -> Any:
        leading = [inputs[p.name] for p in parameters if p.name in by_position and p.name in inputs]
        return module(*leading, **{key: value for key, value in inputs.items() if key not in by_position})

    required = [p.name for p in parameters if p.default is inspect.Parameter.empty]
    return Opened(name, module, tuple(required or [p.name for p in parameters][:1]), call, {})


def _from_program(program: Any, name: str) -> Opened:
    import torch

    names = tuple(re.sub(r"\W", "_", str(item)) for item in program.graph_signature.user_inputs)
    with quietly():
        module = program.module(check_guards=False)
    args, kwargs = program.example_inputs or ((), {})
    flat = [*args, *kwargs.values()]
    if any(not isinstance(value, torch.Tensor) for value in flat) or (flat and len(flat) != len(names)):
        raise ModelError(
            f"Inputs must be single tensors. Received: {name} with lists, dictionaries or numbers among its inputs. Wrap it "
            "in a module that takes tensors."
        )
    keywords = list(kwargs)
    leading = len(names) - len(keywords)

    def call(inputs: Mapping[str, Any]) -> Any:
        values = [inputs[key] for key in names]
        return module(*values[:leading], **dict(zip(keywords, values[leading:], strict=True)))

    holders = {
        node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and "val" in node.meta
    }
    sizes = [holders[key].shape[0] for key in program.graph_signature.user_inputs if len(holders[key].shape)]
    fixed = next((size for size in sizes if isinstance(size, int)), None)
    return Opened(name, module, names, call, dict(zip(names, flat, strict=False)), fixed)


def _from_script(
    model: Any, name: str, torch: Any, shapes: Callable[[tuple[str, ...]], Mapping[str, Any]], debug: bool
) -> Opened:
    arguments = [argument for argument in model.forward.schema.arguments if argument.name != "self"]
    names = tuple(re.sub(r"\W", "_", argument.name) for argument in arguments if not argument.has_default_value())
    examples = shapes(names)
    with quietly(debug=debug), evaluating(model):
        with torch.no_grad():
            run_on_example(lambda: model(*(examples[key] for key in names)), examples, name)
        try:
            from torch._export.converter import TS2EPConverter

            program = TS2EPConverter(model, tuple(examples[key] for key in names)).convert()
            module = program.module(check_guards=False)
        except Exception as error:  # the converter is a prototype that raises whatever it meets
            raise ModelError(
                f"PyTorch {torch.__version__} cannot read the TorchScript model {name}: {first_line(error)} {HOW_TO_EXPORT}"
                f"{f'. {advice}' if (advice := rewrite_advice(error)) else ''}"
            ) from error

    def call(inputs: Mapping[str, Any]) -> Any:
        return module(*(inputs[key] for key in names))

    return Opened(name, module, names, call, examples, _fixed_batch(program))


def _fixed_batch(program: Any) -> int | None:
    inputs = set(program.graph_signature.user_inputs)
    sizes = [
        node.meta["val"].shape[0] for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs
    ]
    return next((size for size in sizes if isinstance(size, int)), None)


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message with a full stop, or its type's name.

    Examples:
        >>> first_line(ValueError("Constraints violated!\\nFor more information ..."))
        'Constraints violated.'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = (lines[0][:300] if lines else type(error).__name__).rstrip(".:! ")
    return f"{text}."


def rewrite_advice(error: BaseException) -> str:
    """Returns how to write a branch or a loop that depends on data so that it can be converted; "" for other errors.

    Examples:
        >>> rewrite_advice(RuntimeError("Lowering not found: cond"))[:61]
        'Branches and loops that depend on data cannot be converted: w'
        >>> rewrite_advice(RuntimeError("Lowering not found: aten.foo"))
        ''
    """
    if not _CONTROL_FLOW.search(str(error)):
        return ""
    return (
        "Branches and loops that depend on data cannot be converted: write torch.where(condition, this, that) in place of "
        "an if, a fixed number of steps in place of a while, and convert the module."
    )


def to_numpy(tensor: Any) -> np.ndarray:
    """Returns a tensor as an array, bfloat16 and half precision as float32."""
    return tensor.detach().cpu().float().numpy() if tensor.is_floating_point() else tensor.detach().cpu().numpy()

"""How does a PyTorch model become the float ``.tflite`` flatbuffer, the hub of every conversion?

A module is exported by ``torch.export`` and lowered by litert-torch, both of the extra ``[torch]`` and loaded only when a
PyTorch model comes in. How files are opened is decided by ``modules``, integer arithmetic elsewhere.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...data import InputSpec
from ...errors import ConversionError, ModelError
from ...tflite import flatbuffer, static_shapes
from .. import substitutions
from ..lowered import Lowered
from . import channels_last, example_inputs, modules
from .channels_last import count_transposes
from .dynamic_batch import free_batch
from .example_inputs import Shape
from .files import detect
from .modules import is_torch
from .silence import quietly

__all__ = ["count_transposes", "detect", "is_torch", "lower_torch"]

_REFERENCE_BATCH = 8  # a large model's tensors for more samples at a time would cost gigabytes
_LARGEST_DIFFERENCE = 0.01  # of the largest value: far above rounding, far below another op's answer
_CHANNELS_FIRST = (0, 3, 1, 2)
_BATCH_IS_FIXED = "batch size {0}: the exported graph has it built in, so samples run {0} at a time"


def lower_torch(
    model: Any,
    *,
    sample_inputs: Any = None,
    input_shapes: Mapping[str, Shape] | None = None,
    nhwc: bool = False,
    allow_unsafe: bool = False,
    debug: bool = False,
) -> Lowered:
    """Returns the float flatbuffer of a PyTorch model in evaluation mode.

    The inputs keep the names of ``forward``'s arguments. The batch axis is dynamic where the file gives the same answers
    with more samples at once; otherwise it is fixed and a note says so.

    Args:
        model: a ``torch.nn.Module``, a scripted or traced one, an ``ExportedProgram``, or the path of a ``.pt2``, ``.pt``,
            ``.pth`` or ``.ptl`` file.
        sample_inputs: arrays or tensors (n, ...) by input name, as a list in the order of the inputs, or one alone, or the
            path of a ``.npy`` or ``.npz`` file of them; in PyTorch's layout, also with ``nhwc``. Default: those recorded
            in a ``.pt2`` file, or made from ``input_shapes``.
        input_shapes: shape by input name, in PyTorch's layout, float32; a leading None is a dynamic batch, a number fixes
            it. Default: None.
        nhwc: whether inputs of four axes are turned from (n, c, h, w) to (n, h, w, c), which saves a TRANSPOSE each.
            Default: False.
        allow_unsafe: whether a file may bring code along (pickles). Default: False.
        debug: whether log lines of PyTorch and litert-torch are shown. Default: False.

    Returns:
        A flatbuffer with unique tensor names, as in the module's own tree ("layer1/0/conv1"), and a reference that runs
        the PyTorch model.

    Raises:
        ModelError: PyTorch is not installed; the file is damaged, unsafe, or holds weights only; no example inputs, or
            the model fails on them.
        ConversionError: the model cannot be exported or expressed in TFLite's ops, or a weight is not finite.
        TypeError: not a PyTorch model.

    Examples:
        >>> from tfcompress.lowering import pytorch
        >>> pytorch.is_torch("model.keras")
        False

    Source: https://github.com/google-ai-edge/litert-torch.
    """
    if isinstance(sample_inputs, str | os.PathLike):
        sample_inputs = example_inputs.read(sample_inputs)
    torch, litert_torch = modules.frameworks(_name_of(model), debug=debug)

    def given(names: tuple[str, ...]) -> dict[str, Any]:
        return example_inputs.examples_for(names, sample_inputs, input_shapes, torch, _name_of(model))

    opened = modules.open_module(model, torch, shapes=given, allow_unsafe=allow_unsafe, debug=debug)
    has_own = bool(opened.examples) and sample_inputs is None and input_shapes is None
    examples = dict(opened.examples) if has_own else given(opened.inputs)
    _check_weights(opened, torch)
    batch, asks_any = example_inputs.batch_to_export(opened, examples, input_shapes)
    examples = {name: example_inputs.resized(tensor, batch) for name, tensor in examples.items()}
    images = [name for name, tensor in examples.items() if nhwc and tensor.dim() == 4]
    adapter = _adapter(torch, opened, images)
    fed = {
        name: tensor.permute(0, 2, 3, 1).contiguous() if name in images else tensor for name, tensor in examples.items()
    }
    with quietly(debug=debug), modules.evaluating(adapter), torch.no_grad():
        outputs = modules.run_on_example(lambda: adapter.names(fed), examples, opened.name)
        try:
            exported = litert_torch.convert(adapter, (), dict(fed)).model_content()
        except Exception as error:  # PyTorch and the converter raise many kinds, none of a common parent
            otherwise = "Replace what is named, or run with --debug for the converter's own log."
            raise ConversionError(
                f"The model cannot be expressed in TFLite's ops: {opened.name} ({modules.first_line(error)}) "
                f"{modules.rewrite_advice(error) or otherwise}"
            ) from error
    content, order = _repaired(exported, outputs)
    names = tuple(outputs[i] for i in order)
    probe = {name: example_inputs.probe(tensor) for name, tensor in fed.items()}
    freed = free_batch(content, probe, debug=debug) if asks_any and batch == 1 else None
    notes = [] if freed or not asks_any else [_BATCH_IS_FIXED.format(batch)]
    content = freed or content
    # A file with a batch of its own is compared at that batch: samples may depend on each other.
    reference = _reference(adapter, fed, order, torch, opened.batch or (None if freed else batch))
    _check_answers(content, names, reference, probe, opened.name, debug)
    notes.append(_turns(count_transposes(content), can_be_fewer=not nhwc and any(x.dim() == 4 for x in fed.values())))
    return Lowered(content, _specs(content), names, reference, notes=tuple(notes))


def _turns(count: int, *, can_be_fewer: bool) -> str:
    advice = "; channels last (--nhwc, nhwc=True) may take fewer" if count and can_be_fewer else ""
    return f"TRANSPOSE ops in the float file: {count}{advice}"


def _repaired(exported: bytes, outputs: list[str]) -> tuple[bytes, list[int]]:
    """Returns litert-torch's file in the hub's form, and which of the module's outputs each of the file's is."""
    model = flatbuffer.parse(exported)
    inputs, order = _order(model)
    # With this mark of litert-torch TFLiteConverter's quantizer takes no weight for a constant and leaves all in float.
    model.metadata = [entry for entry in model.metadata or [] if _text(entry.name) != "keep_stablehlo_constant"]
    static_shapes.fold_computed_reshapes(model)
    substitutions.substitute(model)
    channels_last.tidy(model)
    flatbuffer.set_signature(model, inputs, [outputs[i] for i in order])
    _readable_names(model)
    return flatbuffer.pack(model), order


def _name_of(model: Any) -> str:
    return str(model) if isinstance(model, str | bytes) or hasattr(model, "__fspath__") else type(model).__name__


def _check_weights(opened: Any, torch: Any) -> None:
    for name, tensor in opened.module.state_dict().items():
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            continue
        if tensor.dtype != torch.float32:
            raise ModelError(
                f"Weights must be float32. Received: {tensor.dtype} in {name} of {opened.name}. Call module.float() first."
            )
        if not bool(torch.isfinite(tensor).all()):
            raise ConversionError(
                f"All weights must be finite. Received: NaN or infinity in {name} of {opened.name}. Train again with a lower "
                "learning rate."
            )


def _adapter(torch: Any, opened: Any, images: list[str]) -> Any:
    """Returns a module with named tensors as its inputs and a flat tuple of tensors as its output."""

    class Adapter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = opened.module

        def outputs(self, inputs: Mapping[str, Any]) -> Any:
            turned = {name: x.permute(*_CHANNELS_FIRST) if name in images else x for name, x in inputs.items()}
            return opened.call(turned)

        def forward(self, **inputs: Any) -> tuple[Any, ...]:
            leaves = torch.utils._pytree.tree_leaves(self.outputs(inputs))
            return tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))

        def names(self, inputs: Mapping[str, Any]) -> list[str]:
            results = self.outputs(inputs)
            if isinstance(results, Mapping) and all(isinstance(value, torch.Tensor) for value in results.values()):
                return [str(name) for name in results]
            return [f"output_{i}" for i in range(len(self(**inputs)))]

    return Adapter()


def _order(model: Any) -> tuple[list[str], list[int]]:
    """Returns the input names, and which of the module's outputs each of the file's is, both in the file's order."""
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    inputs = {int(entry.tensorIndex): _text(entry.name) for entry in signature.inputs}
    # litert-torch numbers them: output_0, output_1, ...; a tensor that is returned twice has two entries.
    numbers: dict[int, list[int]] = {}
    for entry in signature.outputs:
        numbers.setdefault(int(entry.tensorIndex), []).append(int(_text(entry.name).rpartition("_")[2]))
    return [inputs[int(index)] for index in graph.inputs], [numbers[int(index)].pop(0) for index in graph.outputs]


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _readable_names(model: Any) -> None:
    """Turns "....Adapter/....Net_model/torch.nn.modules.conv.Conv2d_stem;" into "stem" and makes all names unique."""
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    known = {int(entry.tensorIndex): _text(entry.name) for entry in (*signature.outputs, *signature.inputs)}
    for index, tensor in enumerate(graph.tensors):
        name = flatbuffer.tensor_name(tensor)
        if index in known:
            name = known[index]
        elif "Adapter" in name:
            first = next((part for part in name.split(";") if part), "")
            steps = [step.rpartition(".")[2].partition("_")[2] for step in first.split("/")]
            steps = [step for step in steps if step]
            name = "/".join(steps[1:]) or "output"
            if flatbuffer.constant(model, tensor) is not None:
                rank = 0 if tensor.shape is None else len(tensor.shape)
                name = f"{name}/{'constant' if rank == 0 else 'bias' if rank == 1 else 'weight'}"
        tensor.name = name.encode()
    flatbuffer.unique_names(model)


def _specs(content: bytes) -> tuple[InputSpec, ...]:
    model = flatbuffer.parse(content)
    specs = []
    for entry in model.signatureDefs[0].inputs:
        tensor = model.subgraphs[0].tensors[int(entry.tensorIndex)]
        shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
        sizes = tuple(None if size < 0 else int(size) for size in ([] if shape is None else shape))
        dtype = flatbuffer.dtype_of(tensor)
        if dtype is None:
            raise ConversionError(
                f"Inputs must be numbers. Received: {_text(entry.name)} of type {flatbuffer.type_name(tensor)}. "
                "Take real and imaginary parts apart."
            )
        specs.append(InputSpec(_text(entry.name), sizes, dtype))
    return tuple(specs)


def _check_answers(
    content: bytes,
    names: tuple[str, ...],
    reference: Callable[[Mapping[str, np.ndarray]], list[np.ndarray]],
    probe: Mapping[str, np.ndarray],
    place: str,
    debug: bool,
) -> None:
    """Refuses a file whose answers are not PyTorch's: litert-torch translates a few ops to others.

    For instance max_pool2d with padding (1, 0), which litert-torch 0.10 pads on both axes.
    """
    from ...tflite import open_model

    file = open_model(content, debug=debug)
    answers = file.run({info.name: probe[info.name] for info in file.inputs})
    for name, expected in zip(names, reference(probe), strict=True):
        answer = answers[name]
        sound = answer.shape == expected.shape
        if sound and expected.dtype.kind == "f":
            finite = np.isfinite(expected)
            largest = np.abs(expected[finite]).max(initial=0.0)
            sound = bool(np.abs(answer - expected)[finite].max(initial=0.0) <= _LARGEST_DIFFERENCE * max(largest, 1e-6))
        if not sound:
            raise ConversionError(
                f"The file must answer as the PyTorch model does. Received: {name} of {place} as {answer.shape}, PyTorch "
                f"{expected.shape}, or values that differ by more than {_LARGEST_DIFFERENCE:.0%}: litert-torch translated an "
                "op wrongly. Convert parts of the model to find it, and write that part in other ops."
            )


def _reference(
    adapter: Any, fed: Mapping[str, Any], order: list[int], torch: Any, only: int | None
) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
    """Returns the PyTorch model as a function from arrays to arrays; ``only`` is the one batch size that it takes."""

    def answer(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        count = len(next(iter(arrays.values())))
        size = only or _REFERENCE_BATCH
        blocks = []
        with quietly(), modules.evaluating(adapter), torch.no_grad():
            for start in range(0, count, size):
                held = min(size, count - start)
                feeds = {}
                for name, example in fed.items():
                    values = arrays.get(name)
                    block = example[:1] if values is None else torch.as_tensor(np.array(values[start : start + held]))
                    feeds[name] = example_inputs.resized(block.to(example.dtype), only or held)
                results = adapter(**feeds)
                blocks.append([modules.to_numpy(results[i])[:held] for i in order])
        return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]

    return answer

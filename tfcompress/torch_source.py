"""How does a PyTorch model become the float ``.tflite`` flatbuffer, the hub of every conversion?

A module is exported by ``torch.export`` and lowered by litert-torch, both of the extra ``[torch]`` and loaded only when a
PyTorch model comes in. How files are opened is decided by ``torch_modules``, integer arithmetic elsewhere.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import flatbuffer, layouts, torch_modules
from .arrays import InputSpec
from .errors import ConversionError, ModelError
from .free_batch import free_batch
from .layouts import count_transposes
from .lowering import Lowered
from .torch_files import detect
from .torch_modules import is_torch

__all__ = ["count_transposes", "detect", "is_torch", "lower_torch"]

_REFERENCE_BATCH = 8  # a large model's tensors for more samples at a time would cost gigabytes
_CHANNELS_FIRST = (0, 3, 1, 2)
_BATCH_IS_FIXED = "batch size {0}: the exported graph has it built in, so samples run {0} at a time"

Shape = Sequence[int | None]


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
    with more samples at once; otherwise it is fixed and ``skipped["batch"]`` says so.

    Args:
        model: a ``torch.nn.Module``, a scripted or traced one, an ``ExportedProgram``, or the path of a ``.pt2``, ``.pt``,
            ``.pth`` or ``.ptl`` file.
        sample_inputs: arrays or tensors (n, ...) by input name, as a list in the order of the inputs, or one alone; in
            PyTorch's layout, also with ``nhwc``. Default: those recorded in a ``.pt2`` file, or made from ``input_shapes``.
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
        ModelError: PyTorch is not installed; the file is damaged, unsafe, or holds weights only; no example inputs.
        ConversionError: the model cannot be exported or expressed in TFLite's ops, or a weight is not finite.
        TypeError: not a PyTorch model.

    Example:
        >>> import tfcompress.torch_source as torch_source
        >>> torch_source.is_torch("model.keras")
        False

    Source: https://github.com/google-ai-edge/litert-torch.
    """
    torch, litert_torch = torch_modules.frameworks(_name_of(model), debug=debug)

    def given(names: tuple[str, ...]) -> dict[str, Any]:
        return _examples(names, sample_inputs, input_shapes, torch, _name_of(model))

    opened = torch_modules.open_module(model, torch, shapes=given, allow_unsafe=allow_unsafe, debug=debug)
    has_own = bool(opened.examples) and sample_inputs is None and input_shapes is None
    examples = dict(opened.examples) if has_own else given(opened.inputs)
    _check_weights(opened, torch)
    batch, wants_any = _batch(opened, examples, input_shapes)
    examples = {name: _resized(tensor, batch) for name, tensor in examples.items()}
    images = [name for name, tensor in examples.items() if nhwc and tensor.dim() == 4]
    adapter = _adapter(torch, opened, images)
    fed = {name: tensor.permute(0, 2, 3, 1).contiguous() if name in images else tensor for name, tensor in examples.items()}
    with torch_modules.quietly(debug=debug), torch_modules.evaluating(adapter), torch.no_grad():
        try:
            outputs = adapter.names(fed)
            content = litert_torch.convert(adapter, (), dict(fed)).model_content()
        except Exception as error:  # PyTorch and the converter raise many kinds, none of a common parent
            raise ConversionError(
                f"The model cannot be expressed in TFLite's ops: {opened.name} ({torch_modules.first_line(error)}) "
                "Replace what is named, or run with --debug for the converter's own log."
            ) from error
    parsed = flatbuffer.parse(content)
    inputs, order = _order(parsed)
    # With this mark of litert-torch TFLiteConverter's quantizer takes no weight for a constant and leaves all in float.
    parsed.metadata = [entry for entry in parsed.metadata or [] if _text(entry.name) != "keep_stablehlo_constant"]
    flatbuffer.fold_dynamic_reshapes(parsed)
    layouts.tidy(parsed)
    flatbuffer.set_signature(parsed, inputs, [outputs[i] for i in order])
    _readable_names(parsed)
    content = flatbuffer.pack(parsed)
    skipped = {}
    if wants_any:
        freed = free_batch(content, {name: _probe(tensor) for name, tensor in fed.items()}, debug=debug)
        if freed is None:
            skipped["batch"] = _BATCH_IS_FIXED.format(batch)
        content = freed or content
    reference = _reference(adapter, fed, order, torch, opened.batch)
    return Lowered(content, _specs(content), tuple(outputs[i] for i in order), reference, {}, skipped)


def _name_of(model: Any) -> str:
    return str(model) if isinstance(model, str | bytes) or hasattr(model, "__fspath__") else type(model).__name__


def _examples(
    names: tuple[str, ...], samples: Any, shapes: Mapping[str, Shape] | None, torch: Any, place: str
) -> dict[str, Any]:
    """Returns a tensor by input name, from what the caller gave."""
    if samples is None and not shapes:
        raise ModelError(
            f"A PyTorch model is exported on an example. Received: {place} with the inputs {', '.join(names)} and none for "
            f"them. Pass --input_shape={names[0] if names else 'x'}:1,3,224,224 "
            f"(input_shapes={{{names[0] if names else 'x'!r}: (1, 3, 224, 224)}}), or sample_inputs."
        )
    if samples is None:
        generator = torch.Generator().manual_seed(0)
        given = {
            name: torch.randn([1 if i == 0 and size is None else _size(name, size) for i, size in enumerate(shape)], generator=generator)
            for name, shape in (shapes or {}).items()
        }
    elif isinstance(samples, Mapping):
        given = dict(samples)
    else:
        values = list(samples) if isinstance(samples, list | tuple) else [samples]
        given = dict(zip(names, values, strict=False)) if len(values) <= len(names) else dict(enumerate(values))
    missing = [name for name in names if name not in given]
    if missing or any(not isinstance(name, str) for name in given):
        raise ModelError(
            f"Each input needs one example. Received: {', '.join(map(str, given)) or 'none'} for the inputs "
            f"{', '.join(names)} of {place}. Name them as forward does."
        )
    return {name: value if isinstance(value, torch.Tensor) else torch.as_tensor(np.asarray(value)) for name, value in given.items()}


def _size(name: str, size: int | None) -> int:
    if size is None or size < 1:
        raise ModelError(
            f"Only the batch axis of a PyTorch model may be open here. Received: {size} in the shape of {name}. Write its size."
        )
    return size


def _batch(opened: Any, examples: Mapping[str, Any], shapes: Mapping[str, Shape] | None) -> tuple[int, bool]:
    """Returns the batch size to export with, and whether the file should take any."""
    given = [shape[0] for shape in (shapes or {}).values() if len(shape)]
    if any(size is not None for size in given):
        return int(next(size for size in given if size is not None)), False
    if any(tensor.dim() == 0 for tensor in examples.values()):
        raise ModelError(f"Inputs have the batch as their first axis. Received: a single number for {opened.name}.")
    return opened.batch or 1, (opened.batch or 1) == 1


def _resized(tensor: Any, batch: int) -> Any:
    repeats = -(-batch // len(tensor))
    return tensor.repeat(repeats, *[1] * (tensor.dim() - 1))[:batch].contiguous()


def _probe(tensor: Any) -> np.ndarray:
    """Returns two samples that differ where the input is float."""
    example = torch_modules.to_numpy(tensor[:1])
    if example.dtype.kind == "f":
        return np.random.default_rng(0).normal(size=(2, *example.shape[1:])).astype(np.float32)
    narrow = example.astype(np.int32) if example.dtype == np.int64 else example
    return np.concatenate([narrow, narrow])


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


def _reference(
    adapter: Any, fed: Mapping[str, Any], order: list[int], torch: Any, only: int | None
) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
    """Returns the PyTorch model as a function from arrays to arrays; ``only`` is the one batch size that it takes."""

    def answer(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        count = len(next(iter(arrays.values())))
        size = only or _REFERENCE_BATCH
        blocks = []
        with torch_modules.quietly(), torch_modules.evaluating(adapter), torch.no_grad():
            for start in range(0, count, size):
                held = min(size, count - start)
                feeds = {}
                for name, example in fed.items():
                    values = arrays.get(name)
                    block = example[:1] if values is None else torch.as_tensor(np.array(values[start : start + held]))
                    feeds[name] = _resized(block.to(example.dtype), only or held)
                results = adapter(**feeds)
                blocks.append([torch_modules.to_numpy(results[i])[:held] for i in order])
        return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]

    return answer

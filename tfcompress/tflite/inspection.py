"""What is in a ``.tflite`` file, whoever made it: ops, precision, ranges, weights, bytes and arithmetic, layer by layer.

Read from the flatbuffer alone, so that a file which LiteRT refuses can be looked at too; whether and why it is refused is
tried in a child process. Changes nothing and measures nothing.
"""

import dataclasses
import gzip
import hashlib
import io
import os
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..system import checked_arguments
from ..system.text_tables import MISSING, columns, count_text, fields, number_text, share_text
from . import constant_tensors, flatbuffer, operands
from .model_files import ModelSource, read_model
from .op_summaries import OpSummary, TensorSummary, summarize_ops, summarize_tensor
from .trial import Trial, try_file

__all__ = ["Inspection", "Signature", "bytes_by_kind", "inspect"]

KINDS = (operands.WEIGHTS, operands.BIAS, "other constants", "metadata", "graph")
GZIP_LEVEL = 9
_RUNTIME_VERSION = "min_runtime_version"


@dataclass(frozen=True)
class Signature:
    """One way to feed a file by name.

    Args:
        key: its name, often "serving_default".
        inputs: name of the tensor by name of the input.
        outputs: name of the tensor by name of the output.
    """

    key: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.key}: {', '.join(self.inputs)} -> {', '.join(self.outputs)}"


@dataclass(frozen=True)
class Inspection:
    """What a ``.tflite`` file holds.

    Args:
        name: path of the file, or "the model bytes".
        sha256: hash of the file.
        size_bytes: size of the file.
        gzip_bytes: size after gzip at level 9, what a download costs.
        description: who wrote the file, as it says itself.
        min_runtime_version: the oldest TensorFlow whose interpreter has all its ops, as the file says; None if it does not.
        bytes_by_kind: stored size of weights, biases, other constants, metadata and graph (the rest); their sum is
            ``size_bytes``.
        inputs: of the main graph.
        outputs: of the main graph.
        signatures: how it is fed by name; empty for a file without.
        metadata: size in bytes of each entry by name; files packed behind the flatbuffer by "file NAME".
        subgraphs: how many graphs there are.
        operations: every op, graph by graph, in the order of execution.
        trial: how LiteRT took it; None where that was not tried.
    """

    name: str
    sha256: str
    size_bytes: int
    gzip_bytes: int
    description: str
    min_runtime_version: str | None
    bytes_by_kind: Mapping[str, int]
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    signatures: tuple[Signature, ...]
    metadata: Mapping[str, int]
    subgraphs: int
    operations: tuple[OpSummary, ...] = dataclasses.field(repr=False)
    trial: Trial | None = None

    @property
    def ops(self) -> dict[str, int]:
        """Number of each op, most frequent first."""
        return dict(Counter(operation.op for operation in self.operations).most_common())

    @property
    def precisions(self) -> dict[str, int]:
        """Number of ops of each precision, most frequent first."""
        return dict(Counter(operation.precision for operation in self.operations).most_common())

    @property
    def multiply_adds(self) -> int:
        """Of the whole file, for one run at the shapes in the file."""
        return sum(operation.multiply_adds for operation in self.operations)

    @property
    def sparsity(self) -> float | None:
        """Fraction of all weights that are exactly 0, by bytes; None without weights."""
        known = [(o.sparsity, o.weight_bytes) for o in self.operations if o.sparsity is not None]
        total = sum(size for _, size in known)
        return sum(share * size for share, size in known) / total if total else None

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain JSON values."""
        return {
            **dataclasses.asdict(dataclasses.replace(self, operations=())),
            "ops": self.ops,
            "precisions": self.precisions,
            "multiply_adds": self.multiply_adds,
            "weight_sparsity": self.sparsity,
            "operations": [operation.to_json() for operation in self.operations],
        }

    def __str__(self) -> str:
        return inspection_text(self)


@checked_arguments
def inspect(source: ModelSource, *, run: bool = True, debug: bool = False) -> Inspection:
    """Returns what a ``.tflite`` file holds.

    Args:
        source: path of the file, its bytes, or a ``Conversion``.
        run: whether LiteRT tries it, in a child process (about half a second). Default: True.
        debug: whether the interpreter's log lines are shown. Default: False.

    Raises:
        ModelError: the file is missing, empty, not TFLite, or so damaged that its flatbuffer cannot be read. A file that
            only LiteRT refuses is no error: ``trial`` says why.

    Examples:
        >>> import keras
        >>> from tfcompress.conversion import convert
        >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="head")])
        >>> found = inspect(convert(model, target="float32").tflite, run=False)
        >>> found.ops, found.multiply_adds, found.bytes_by_kind["weights"]
        ({'FULLY_CONNECTED': 1}, 8, 32)
    """
    name, content = read_model(source)
    model = flatbuffer.parse(content, place=name)
    try:
        found = _inspect(name, content, model)
    except (IndexError, ValueError, TypeError, AttributeError, OverflowError) as error:
        # Numbers that the flatbuffer allows and no writer writes: a tensor of a buffer that is not there, and the like.
        raise ModelError(f"{name} is damaged: its tables contradict each other. Copy or convert it again.") from error
    return dataclasses.replace(found, trial=_tried(source, content, model, debug)) if run else found


def inspect_in_child(request: Mapping[str, Any], report: Any) -> Inspection:
    """Returns what ``inspect`` does, in the child that the command line starts.

    Args:
        request: "model", its path; "run", whether LiteRT tries it; "debug".
        report: not called.
    """
    return inspect(request["model"], run=request["run"], debug=request["debug"])


def bytes_by_kind(content: bytes, model: Any = None) -> dict[str, int]:
    """Returns how many bytes of a file are weights, biases, other constants, metadata, and graph (everything else).

    Args:
        content: the bytes of a ``.tflite`` file.
        model: what ``flatbuffer.parse`` made of it. Default: it is parsed.

    Returns:
        Bytes by kind; their sum is ``len(content)``.

    Raises:
        ModelError: the file is damaged.
    """
    model = flatbuffer.parse(content) if model is None else model
    sizes = dict.fromkeys(KINDS, 0)
    role_of = operands.buffer_roles(model)
    described = {int(entry.buffer) for entry in model.metadata or []}
    for number, buffer in enumerate(model.buffers):
        kind = "metadata" if number in described else role_of.get(number, "other constants")
        sizes[kind] += constant_tensors.buffer_bytes(buffer)
    sizes["metadata"] += sum(_packed_files(content).values())
    sizes["graph"] = len(content) - sum(sizes.values())
    if sizes["graph"] < 0:
        raise ModelError("The model is damaged: its buffers lie on top of each other. Copy or convert it again.")
    return sizes


def _inspect(name: str, content: bytes, model: Any) -> Inspection:
    graph = model.subgraphs[0]
    metadata = {_text(e.name): constant_tensors.buffer_bytes(model.buffers[e.buffer]) for e in model.metadata or []}
    return Inspection(
        name=name,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        gzip_bytes=len(gzip.compress(content, GZIP_LEVEL, mtime=0)),
        description=_text(model.description),
        min_runtime_version=_runtime_version(model),
        bytes_by_kind=bytes_by_kind(content, model),
        inputs=tuple(summarize_tensor(graph.tensors[index]) for index in flatbuffer.index_list(graph.inputs)),
        outputs=tuple(summarize_tensor(graph.tensors[index]) for index in flatbuffer.index_list(graph.outputs)),
        signatures=tuple(_signature(model, definition) for definition in model.signatureDefs or []),
        metadata={**metadata, **{f"file {path}": size for path, size in _packed_files(content).items()}},
        subgraphs=len(model.subgraphs),
        operations=summarize_ops(model),
    )


def _tried(source: ModelSource, content: bytes, model: Any, debug: bool) -> Trial:
    if not isinstance(source, str | os.PathLike):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            path.write_bytes(content)
            tried = try_file(path, debug=debug)
    else:
        tried = try_file(Path(source).absolute(), debug=debug)
    number = re.search(r"[Tt]ensor (\d+)", tried.refusal or "")
    tensors = model.subgraphs[0].tensors
    if number is None or int(number[1]) >= len(tensors):
        return tried
    name = flatbuffer.tensor_name(tensors[int(number[1])])
    return dataclasses.replace(tried, refusal=f"{tried.refusal} Tensor {number[1]} is {name}.")


def _signature(model: Any, definition: Any) -> Signature:
    graph = model.subgraphs[definition.subgraphIndex]

    def names(entries: Any) -> dict[str, str]:
        return {_text(e.name): flatbuffer.tensor_name(graph.tensors[e.tensorIndex]) for e in entries or []}

    return Signature(_text(definition.signatureKey), names(definition.inputs), names(definition.outputs))


def _runtime_version(model: Any) -> str | None:
    for entry in model.metadata or []:
        data = model.buffers[entry.buffer].data
        if _text(entry.name) == _RUNTIME_VERSION and data is not None:
            return bytes(data).split(b"\0")[0].decode(errors="replace") or None
    return None


def _packed_files(content: bytes) -> dict[str, int]:
    """Returns the stored size of the files that TFLite metadata packs behind the flatbuffer, as a ZIP archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            start = min((entry.header_offset for entry in entries), default=len(content))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, OverflowError):
        return {}
    sizes = {entry.filename: entry.compress_size for entry in entries}
    overhead = len(content) - start - sum(sizes.values())
    return {**sizes, "(archive headers)": overhead} if sizes and overhead >= 0 else {}


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def inspection_text(found: Inspection) -> str:
    """Returns the whole inspection as text: what the file is, then a table of layers and one of ranges."""
    lines = [found.name, *fields(_overview(found)), "", *_layers(found.operations)]
    ranges = _ranges(found.operations)
    return "\n".join([*lines, "", *ranges] if ranges else lines)


def _overview(found: Inspection) -> list[tuple[str, str]]:
    kinds = [
        f"{kind} {size:,} ({share_text(size / found.size_bytes)})" for kind, size in found.bytes_by_kind.items() if size
    ]
    pairs = [("size", f"{found.size_bytes:,} bytes, {found.gzip_bytes:,} gzipped"), ("bytes", ", ".join(kinds))]
    if found.trial is not None:
        pairs.append(("LiteRT", str(found.trial)))
    if found.min_runtime_version:
        pairs.append(("needs", f"the interpreter of TensorFlow {found.min_runtime_version} or newer, says the file"))
    pairs += [("input", str(tensor)) for tensor in found.inputs]
    pairs += [("output", str(tensor)) for tensor in found.outputs]
    pairs += [("signature", str(signature)) for signature in found.signatures] or [("signature", "none")]
    pairs.append(("ops", _counted(found.ops)))
    pairs.append(("precision", _counted(found.precisions)))
    pairs.append(("compute", f"{count_text(found.multiply_adds)} multiply-adds a run"))
    if found.sparsity is not None:
        pairs.append(("zeros", f"{share_text(found.sparsity)} of the weights"))
    if found.metadata:
        pairs.append(("metadata", ", ".join(f"{name} ({size:,} bytes)" for name, size in found.metadata.items())))
    if found.subgraphs > 1:
        pairs.append(("graphs", f"{found.subgraphs}; # below counts in each, as graph:number"))
    return [(label, text) for label, text in pairs if text]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _layers(operations: Sequence[OpSummary]) -> list[str]:
    # One precision for all ops stands in the overview; the column would only take the room of the names.
    shown = len({op.precision for op in operations}) > 1
    rows = [
        (
            _number(op),
            op.layer,
            op.op,
            *([op.precision] if shown else []),
            op.output.sample_text if op.output is not None else MISSING,
            count_text(op.multiply_adds) if op.multiply_adds else MISSING,
            f"{op.weight_bytes:,}" if op.weight_bytes else MISSING,
            MISSING if op.sparsity is None else share_text(op.sparsity),
        )
        for op in operations
    ]
    precision = ["precision"] if shown else []
    headings = ("#", "layer", "op", *precision, "output", "mul-adds", "bytes", "zeros")
    return columns(headings, rows, left=(1, 2, 3, 4 if shown else 3), flexible=1)


def _ranges(operations: Sequence[OpSummary]) -> list[str]:
    rows = []
    for op in operations:
        output = op.output
        if output is None or output.range is None or output.scale is None:
            continue
        rows.append(
            (
                _number(op),
                op.layer,
                number_text(output.range[0]),
                number_text(output.range[1]),
                f"{output.scale:.6g}",
                str(output.zero_point),
                op.granularity or MISSING,
            )
        )
    headings = ("#", "layer", "lowest", "highest", "scale", "zero point", "weights")
    return columns(headings, rows, left=(1, 6), flexible=1) if rows else []


def _number(op: OpSummary) -> str:
    return f"{op.subgraph}:{op.index}" if op.subgraph else str(op.index)

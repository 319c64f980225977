"""What does a ``.tflite`` file answer? A thin skin over LiteRT's interpreter that speaks in real numbers.

Inputs are quantized and outputs dequantized with the model's own scales; many samples go in at once, whatever batch
size the file has. This module scores nothing and times nothing, and imports neither Keras nor TensorFlow.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

try:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
except ImportError:  # boards with Python 3.9 have the older package of the same interpreter
    from tflite_runtime.interpreter import Interpreter, OpResolverType

from ..errors import DataError, DeviceError, ModelError
from ..system.quiet import native_stderr_silenced
from .model_files import SMALLEST_HEADER, ModelSource, read_file, read_model
from .tensors import TensorInfo, check_shape, from_raw, tensor_info, to_raw

__all__ = ["Model", "TensorInfo", "check_threads", "one_line", "open_model"]

LONGEST_REASON = 200
DEFAULT_BATCH = 32
MOST_THREADS = 256  # LiteRT crashes when the system gives it no more
STATEFUL_OPERATIONS = frozenset(
    {
        "BIDIRECTIONAL_SEQUENCE_LSTM",
        "BIDIRECTIONAL_SEQUENCE_RNN",
        "LSTM",
        "RNN",
        "SVDF",
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "UNIDIRECTIONAL_SEQUENCE_RNN",
        "VAR_HANDLE",
    }
)
"""Operations with variable tensors, which keep their values from one inference to the next."""

Arrays = Mapping[str, np.ndarray]


def open_model(
    source: ModelSource,
    *,
    threads: int = 1,
    reset_state: bool = True,
    keep_all: bool = False,
    xnnpack: bool = True,
    debug: bool = False,
) -> Model:
    """Opens a TFLite model.

    A damaged file is refused as far as LiteRT's own checks reach. Where a file may be hostile, open it in a child
    process first, as ``measure`` does.

    Args:
        source: path of a ``.tflite`` file, its bytes, or a ``Conversion``.
        threads: threads for one inference, at least 1. Default: 1.
        reset_state: whether an LSTM's state and other variable tensors start from zero in every inference, as a Keras
            layer that is not ``stateful`` does; otherwise one sample leaves traces in the next. Default: True.
        keep_all: whether every tensor keeps its values after a run, for ``tensor``; takes memory. Default: False.
        xnnpack: whether XNNPACK may take over parts of the graph. Default: True.
        debug: lets the interpreter's own log lines through. Default: False.

    Raises:
        ModelError: the file is missing, empty, cut off, not TFLite, damaged, or holds what the interpreter refuses.
        ValueError: ``threads`` is not a whole number from 1.

    Examples:
        >>> open_model(b"not a model")
        Traceback (most recent call last):
        ...
        tfcompress.errors.ModelError: A TFLite model has 'TFL3' at byte 4. Received: the model bytes without it. ...
    """
    return Model(source, threads=threads, reset_state=reset_state, keep_all=keep_all, xnnpack=xnnpack, debug=debug)


class Model:
    """An opened model; not to be used from two threads at once.

    Attributes:
        name: path of the file, or "the model bytes".
        inputs: what goes in.
        outputs: what comes out.

    Args:
        source: path of a ``.tflite`` file, its bytes, or a ``Conversion``.
        threads: threads for one inference, at least 1. Default: 1.
        reset_state: whether an LSTM's state and other variable tensors start from zero in every inference, as a Keras
            layer that is not ``stateful`` does; otherwise one sample leaves traces in the next. Default: True.
        keep_all: whether every tensor keeps its values after a run, for ``tensor``; takes memory. Default: False.
        xnnpack: whether XNNPACK may take over parts of the graph. Default: True.
        debug: lets the interpreter's own log lines through. Default: False.
    """

    def __init__(
        self,
        source: ModelSource,
        *,
        threads: int = 1,
        reset_state: bool = True,
        keep_all: bool = False,
        xnnpack: bool = True,
        debug: bool = False,
    ):
        check_threads(threads)
        self.reset_state = reset_state
        self.debug = debug
        # By path the file is mapped into memory, as on a phone, instead of being held twice.
        where: dict[str, Any]
        if isinstance(source, (str, os.PathLike)):
            self.name = str(Path(source))
            read_file(Path(source), SMALLEST_HEADER)
            # LiteRT takes no path that is not text, such as one of other bytes than UTF-8.
            is_text = self.name.isascii() or self.name.encode(errors="replace").decode() == self.name
            where = {"model_path": self.name} if is_text else {"model_content": Path(source).read_bytes()}
        else:
            self.name, content = read_model(source)
            where = {"model_content": content}
        if keep_all:
            where["experimental_preserve_all_tensors"] = True
        if not xnnpack:
            where["experimental_op_resolver_type"] = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        try:
            with native_stderr_silenced(debug=debug), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
                self._interpreter = Interpreter(**where, num_threads=threads)
                self._allocate_unless_dynamic()
                self.inputs = self._tensors(self._interpreter.get_input_details(), "inputs")
                self.outputs = self._tensors(self._interpreter.get_output_details(), "outputs")
            in_order = self.is_stateful and not reset_state  # in a batch no sample comes after another
        except (ValueError, RuntimeError, MemoryError) as error:  # among them names that are no text
            raise ModelError(f"LiteRT refuses {self.name}: {one_line(error)} Convert it again.") from error
        self._can_batch = bool(self.inputs) and all(i.shape[:1] == (None,) for i in self.inputs) and not in_order

    def _allocate_unless_dynamic(self) -> None:
        """Prepares the graph; one with dynamic sizes may be too small as it stands, until ``feed`` resizes it."""
        try:
            self._interpreter.allocate_tensors()
        except RuntimeError:
            details = self._interpreter.get_input_details()
            if not any(size < 0 for detail in details for size in detail["shape_signature"][1:]):
                raise

    def _tensors(self, details: list[dict[str, Any]], direction: str) -> tuple[TensorInfo, ...]:
        names = self._signature_names(direction)
        if set(names) != {detail["index"] for detail in details}:
            names = {detail["index"]: detail["name"] for detail in details}
        return tuple(tensor_info(names[detail["index"]], detail) for detail in details)

    def _signature_names(self, direction: str) -> dict[int, str]:
        """Returns signature names by tensor number if the file has exactly one signature."""
        signatures = list(self._interpreter._get_full_signature_list().values())  # the public list lacks the numbers
        return {index: name for name, index in signatures[0][direction].items()} if len(signatures) == 1 else {}

    def __repr__(self) -> str:
        inputs, outputs = "; ".join(map(str, self.inputs)), "; ".join(map(str, self.outputs))
        return f"Model({self.name}: {inputs} -> {outputs})"

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the graph's operations, with a DELEGATE for each part that XNNPACK took over."""
        return tuple(operation["op_name"] for operation in self._interpreter._get_ops_details())

    @property
    def activation_bytes(self) -> int:
        """Bytes of the activations that are alive at once, at worst, at the present batch size.

        An activation lives from the operation that writes it to the last one that reads it. No arena can be smaller;
        LiteRT's is larger by alignment and by what its kernels need for themselves.
        """
        sizes = {d["index"]: int(np.prod(d["shape"])) * np.dtype(d["dtype"]).itemsize for d in self._tensor_details()}
        operations = self.operation_details()
        begins = {info.index: 0 for info in self.inputs}
        ends = {info.index: len(operations) for info in self.outputs}
        for step, operation in enumerate(operations):
            for index in operation["outputs"]:
                begins.setdefault(int(index), step)
            for index in operation["inputs"]:
                ends[int(index)] = max(step, ends.get(int(index), 0))
        alive = np.zeros(len(operations) + 1, np.int64)
        for index, begin in begins.items():
            alive[begin : ends.get(index, begin) + 1] += sizes.get(index, 0)
        return int(alive.max())

    def operation_details(self) -> list[dict[str, Any]]:
        """Returns name, tensors and dtypes of each operation of the file, by number, as LiteRT tells them."""
        return [o for o in self._interpreter._get_ops_details() if o["op_name"] != "DELEGATE"]

    def _tensor_details(self) -> list[dict[str, Any]]:
        details = self._interpreter.get_tensor_details()
        return [detail for detail in details if np.dtype(detail["dtype"]).kind in "biuf"]

    @property
    def delegate_nodes(self) -> int:
        """How many parts of the graph a delegate took over."""
        return self.operations.count("DELEGATE")

    @property
    def is_stateful(self) -> bool:
        """Whether the graph holds variable tensors, such as the state of an LSTM."""
        return not STATEFUL_OPERATIONS.isdisjoint(self.operations)

    def run(self, feeds: Arrays | np.ndarray, *, batch: int = DEFAULT_BATCH) -> dict[str, np.ndarray]:
        """Returns the model's answers in real numbers.

        Args:
            feeds: for each input name an array (n, ...) of real numbers; a model with one input takes the array alone.
            batch: samples per inference where the file lets itself be resized; others run at their own batch size.
                Default: 32.

        Returns:
            For each output name an array (n, ...): float32 where the tensor is quantized, otherwise its own dtype.

        Raises:
            DataError: names, shapes or values do not fit the inputs.
            DeviceError: the interpreter failed.
        """
        arrays = self._named(feeds)
        raw = self.run_raw({info.name: to_raw(arrays[info.name], info) for info in self.inputs}, batch=batch)
        return {info.name: from_raw(raw[info.name], info) for info in self.outputs}

    def run_raw(self, feeds: Arrays | np.ndarray, *, batch: int = DEFAULT_BATCH) -> dict[str, np.ndarray]:
        """Returns the model's answers as its tensors hold them: integers stay integers.

        Args:
            feeds: as for ``run``, but each array in the input's own dtype.
            batch: as for ``run``. Default: 32.

        Returns:
            For each output name an array (n, ...) in the output's own dtype.

        Raises:
            DataError: names, shapes or dtypes do not fit the inputs.
            DeviceError: the interpreter failed.
        """
        arrays = self._named(feeds)
        for info in self.inputs:
            if arrays[info.name].dtype != info.dtype:
                raise DataError(
                    f"Input '{info.name}' of {self.name} holds {info.dtype}. Received: {arrays[info.name].dtype}. "
                    "Use run() for real numbers."
                )
        if batch < 1:
            raise ValueError(f"batch must be at least 1. Received: batch={batch}.")
        samples = len(arrays[self.inputs[0].name])
        if self._can_batch and min(batch, samples) > 1:
            answers = self._run_resized(arrays, min(batch, samples))
            if answers is not None:
                return answers
            self._can_batch = False
        return self._run_blocks(arrays, self._own_batch())

    def _own_batch(self) -> int:
        """Returns the fixed batch size of the file; 1 where it is free."""
        return next((info.shape[0] for info in self.inputs if info.shape[0] is not None), 1)

    def _run_resized(self, arrays: Arrays, batch: int) -> dict[str, np.ndarray] | None:
        """Returns the answers at this batch size, or None if the graph has another one built in."""
        try:
            answers = self._run_blocks(arrays, batch)
        except DeviceError:
            return None
        samples = len(arrays[self.inputs[0].name])
        return answers if all(len(answer) == samples for answer in answers.values()) else None

    def _run_blocks(self, arrays: Arrays, batch: int) -> dict[str, np.ndarray]:
        samples = len(arrays[self.inputs[0].name])
        blocks = []
        for start in range(0, samples, batch):
            block = {name: array[start : start + batch] for name, array in arrays.items()}
            blocks.append(self._run_block(block, batch))
        return {info.name: np.concatenate([block[info.name] for block in blocks]) for info in self.outputs}

    def _run_block(self, block: Arrays, batch: int) -> dict[str, np.ndarray]:
        """Runs at most ``batch`` samples; a short last block is filled up with its last sample."""
        samples = len(block[self.inputs[0].name])
        missing = batch - samples
        padded = {name: np.concatenate([a, np.repeat(a[-1:], missing, axis=0)]) for name, a in block.items()}
        self.feed(padded)
        self.invoke()
        return {info.name: self._interpreter.get_tensor(info.index)[:samples] for info in self.outputs}

    def feed(self, arrays: Arrays) -> None:
        """Copies one block of raw tensors in, resizing the inputs that have another shape.

        Args:
            arrays: for each input name an array in the input's own dtype and full shape.

        Raises:
            DeviceError: the graph cannot take the shape.
        """
        try:
            with native_stderr_silenced(debug=self.debug):
                current = {detail["index"]: detail["shape"] for detail in self._interpreter.get_input_details()}
                changed = [info for info in self.inputs if tuple(current[info.index]) != arrays[info.name].shape]
                for info in changed:
                    self._interpreter.resize_tensor_input(info.index, arrays[info.name].shape)
                if changed:
                    self._interpreter.allocate_tensors()
                for info in self.inputs:
                    self._interpreter.set_tensor(info.index, np.ascontiguousarray(arrays[info.name]))
        except (ValueError, RuntimeError, MemoryError) as error:
            raise DeviceError(f"LiteRT could not prepare {self.name}: {one_line(error)}") from error

    def invoke(self) -> None:
        """Runs the graph once on what ``feed`` copied in.

        Raises:
            DeviceError: an operation failed.
        """
        try:
            if self.reset_state:
                self._interpreter.reset_all_variables()
            self._interpreter.invoke()
        except (ValueError, RuntimeError, MemoryError) as error:
            raise DeviceError(f"LiteRT could not run {self.name}: {one_line(error)}") from error

    def tensor(self, index: int) -> np.ndarray | None:
        """Returns a copy of what a tensor holds after ``invoke``; None for one without values.

        Args:
            index: the tensor's number in the file. Inner ones hold their values in a model opened with ``keep_all``.
        """
        try:
            return self._interpreter.get_tensor(index)
        except (ValueError, TypeError):  # of a graph's unused part, or of a type that NumPy does not have
            return None

    def _named(self, feeds: Arrays | np.ndarray) -> dict[str, np.ndarray]:
        """Returns one array per input, all of the same number of samples and of the inputs' shapes."""
        if not isinstance(feeds, Mapping):
            feeds = {self.inputs[0].name: np.asarray(feeds)} if len(self.inputs) == 1 else {}
        expected = [info.name for info in self.inputs]
        if set(feeds) != set(expected) or not expected:
            raise DataError(f"{self.name} takes the inputs {expected}. Received: {sorted(map(str, feeds))}.")
        arrays = {info.name: np.asarray(feeds[info.name]) for info in self.inputs}
        for info in self.inputs:
            check_shape(arrays[info.name], info, self.name)
        counts = {name: len(array) for name, array in arrays.items()}
        if len(set(counts.values())) != 1 or 0 in counts.values():
            raise DataError(f"All inputs have the same number of samples, at least one. Received: {counts}.")
        return arrays


def check_threads(threads: int) -> None:
    """Refuses a number of threads that is not a whole number from 1 to 256 with a ``ValueError``.

    Examples:
        >>> check_threads(4)
    """
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"threads must be a whole number from 1 to {MOST_THREADS}. Received: threads={threads!r}.")


def one_line(error: Exception) -> str:
    """Returns the message of a native error on one line, shortened, with a full stop at its end.

    Examples:
        >>> one_line(ValueError("out of range.\\n  Tensor 33 is invalid"))
        'out of range. Tensor 33 is invalid.'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    text = text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 3] + "..."
    return text if text.endswith(".") else text + "."

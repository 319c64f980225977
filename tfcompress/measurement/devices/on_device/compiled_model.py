"""The same model through LiteRT's newer interface, ``CompiledModel``, which also knows GPUs and NPUs.

It has the members of ``interpreter.Model`` that the agent needs. The batch size is the file's own.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ....errors import DeviceError, ModelError
from ....system.quiet import native_stderr_silenced
from ....tflite.interpreter import Model, one_line

__all__ = ["Compiled"]

NEEDS = "CompiledModel comes with ai-edge-litert 2.1 or newer and ml_dtypes; install them, or use the interpreter."


class Compiled:
    """A model that LiteRT has compiled for an accelerator; not to be used from two threads at once.

    Args:
        path: of the file.
        model: the same file in the interpreter, which knows names and scales.
        threads: for one inference on the CPU. Default: 1.
        accelerator: "cpu"; "gpu", where ops that it does not take run on the CPU; "npu" for the whole file. Default: "cpu".
        xnnpack: whether XNNPACK may take over parts of the graph on the CPU. Default: True.
        debug: lets LiteRT's own log lines through. Default: False.

    Raises:
        DeviceError: the runtime has no such interface, or the machine no such accelerator.
        ModelError: LiteRT refuses the file.
    """

    def __init__(
        self,
        path: str,
        model: Model,
        *,
        threads: int = 1,
        accelerator: str = "cpu",
        xnnpack: bool = True,
        debug: bool = False,
    ):
        self.name, self.inputs, self.outputs = model.name, model.inputs, model.outputs
        self.debug = debug
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from ai_edge_litert.compiled_model import CompiledModel
                from ai_edge_litert.hardware_accelerator import HardwareAccelerator
                from ai_edge_litert.options import CpuKernelMode, CpuOptions, Options
        except ImportError as error:
            raise DeviceError(f"{NEEDS} Received: {one_line(error)}") from error
        mode = CpuKernelMode.DELEGATE if xnnpack else CpuKernelMode.BUILTIN
        # NPU and CPU together is taken for the CPU alone where there is no NPU, without a word.
        chosen = {
            "cpu": HardwareAccelerator.CPU,
            "gpu": HardwareAccelerator.GPU | HardwareAccelerator.CPU,
            "npu": HardwareAccelerator.NPU,
        }[accelerator]
        options = Options(hardware_accelerators=chosen, cpu_options=CpuOptions(num_threads=threads, kernel_mode=mode))
        try:
            with native_stderr_silenced(debug=debug):
                self._model = CompiledModel.from_file(path, options=options)
                self._inputs = self._model.create_input_buffers(0)
                self._outputs = self._model.create_output_buffers(0)
        except (ValueError, RuntimeError, MemoryError) as error:
            if accelerator != "cpu":
                name = accelerator.upper()
                raise DeviceError(
                    f"LiteRT must find {'an' if name == 'NPU' else 'a'} {name} that runs {self.name}. Received: none on this "
                    f"device ({reason(error)}) Use accelerator='cpu', or install the maker's driver."
                ) from error
            raise ModelError(f"LiteRT's CompiledModel refuses {self.name}: {reason(error)}") from error
        names = self._model.get_signature_by_index(0)
        self._order = [place(names["inputs"], info.name, i) for i, info in enumerate(self.inputs)]
        self._answers = [place(names["outputs"], info.name, i) for i, info in enumerate(self.outputs)]

    def feed(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Copies one block of raw tensors in.

        Args:
            arrays: for each input name an array in the input's own dtype and the file's own shape.

        Raises:
            DeviceError: the graph cannot take them.
        """
        try:
            for info, position in zip(self.inputs, self._order):
                self._inputs[position].write(np.ascontiguousarray(arrays[info.name]))
        except (ValueError, RuntimeError) as error:
            raise DeviceError(f"LiteRT could not prepare {self.name}: {reason(error)}") from error

    def invoke(self) -> None:
        """Runs the graph once on what ``feed`` copied in.

        Raises:
            DeviceError: an operation failed.
        """
        try:
            self._model.run_by_index(0, self._inputs, self._outputs)
        except (ValueError, RuntimeError) as error:
            raise DeviceError(f"LiteRT could not run {self.name}: {reason(error)}") from error

    def run_raw(self, arrays: Mapping[str, np.ndarray], *, batch: int = 1) -> dict[str, np.ndarray]:
        """Returns the answers as ``interpreter.Model.run_raw`` does, at the file's own batch size.

        Args:
            arrays: for each input name an array (n, ...) in the input's own dtype.
            batch: is not used: the file's own size is fixed when it is compiled. Default: 1.
        """
        own = next((info.shape[0] for info in self.inputs if info.shape[0] is not None), 1)
        samples = len(arrays[self.inputs[0].name])
        blocks: list[dict[str, np.ndarray]] = []
        for start in range(0, samples, own):
            block = {name: array[start : start + own] for name, array in arrays.items()}
            taken = min(own, samples - start)
            missing = own - taken
            self.feed({n: np.concatenate([a, np.repeat(a[-1:], missing, axis=0)]) for n, a in block.items()})
            self.invoke()
            blocks.append({name: array[:taken] for name, array in self._read(own).items()})
        return {info.name: np.concatenate([block[info.name] for block in blocks]) for info in self.outputs}

    def _read(self, batch: int) -> dict[str, np.ndarray]:
        found = {}
        for info, position in zip(self.outputs, self._answers):
            buffer = self._outputs[position]
            shape = tuple(buffer.get_tensor_details()["shape"])
            found[info.name] = buffer.read(int(np.prod(shape)), info.dtype).reshape(shape)
        return found


def place(names: Any, name: str, otherwise: int) -> int:
    """Returns where a name stands in a list, or the given place if it is not there.

    Examples:
        >>> place(["a", "b"], "b", 0), place(["a", "b"], "x", 0)
        (1, 0)
    """
    return list(names).index(name) if name in names else otherwise


def reason(error: Exception) -> str:
    """Returns the last telling line of LiteRT's error, which is a tree of source files with the reason at its end.

    Examples:
        >>> reason(RuntimeError("ERROR: [a.h:1]\\n└ Some ops are not accelerated."))
        'Some ops are not accelerated.'
    """
    lines = [line.strip(" └") for line in str(error).splitlines() if line.strip()]
    return one_line(ValueError(lines[-1] if lines else "no reason given"))

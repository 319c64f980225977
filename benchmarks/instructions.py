"""How many ARM64 instructions one inference takes: a cost that repeats where the time of an emulator means nothing.

``python benchmarks/instructions.py --model=float.tflite,int8.tflite --cpu=cortex-a72,cortex-a76``. The dynamic
qemu-user of Debian runs Python and LiteRT of the device lab (docs/devices.md) with a plugin that counts; the lab must
have been built, and root is needed to show LiteRT the features of the processor in /proc/cpuinfo. The result is one
number per file; the same file gives the same within 1 % (0 to 0.2 % seen). It is emulated and never compared with a time:
instructions say nothing of caches and of what runs at once.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from tfcompress.cli.parsing import UsageError, help_text, new_flags, parse
from tfcompress.errors import DeviceError, TfcompressError
from tfcompress.system import write_atomically

ROOT = Path(__file__).resolve().parents[1]
LAB = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfcompress" / "devicelab"
QEMU = "qemu-aarch64"
SECONDS = 600
COUNTED = re.compile(r"INSNS (\d+) tag (\d+)")

COMMON = "fp asimd evtstrm aes pmull sha1 sha2 crc32"
PROCESSORS = {
    "cortex-a72": ("0xd08", f"{COMMON} cpuid"),  # Raspberry Pi 4: no dot product of int8
    "cortex-a76": ("0xd0b", f"{COMMON} atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"),  # Raspberry Pi 5
}
CPUINFO = (
    "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
    "CPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 3\n"
)
# The system call 3001 is the plugin's own: it prints the count with a tag and sets it to 0.
COUNT = """
import ctypes, sys
import numpy as np
from ai_edge_litert import interpreter
mark = lambda tag: ctypes.CDLL(None).syscall(3001, tag)
kind = interpreter.OpResolverType
resolver = kind.AUTO if sys.argv[2] == "on" else kind.BUILTIN_WITHOUT_DEFAULT_DELEGATES
model = interpreter.Interpreter(sys.argv[1], num_threads=1, experimental_op_resolver_type=resolver)
model.allocate_tensors()
for details in model.get_input_details():
    model.set_tensor(details["index"], np.zeros(details["shape"], details["dtype"]))
for _ in range(2):
    model.invoke()
for run in range(int(sys.argv[3])):
    mark(0)
    model.invoke()
    mark(run + 1)
"""


@dataclasses.dataclass(frozen=True)
class Count:
    """What one file costs on one processor."""

    model: str
    model_sha256: str
    cpu: str
    xnnpack: bool
    instructions: int
    spread: float
    runs: int
    kind: str = "emulated"


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_list("model", None, "one or several .tflite files", flag_values=values)
    flags.DEFINE_list("cpu", list(PROCESSORS), "processors, as qemu names them", flag_values=values)
    flags.DEFINE_bool("xnnpack", True, "let XNNPACK take over parts of the graph", flag_values=values)
    flags.DEFINE_integer("runs", 3, "counted inferences", lower_bound=1, flag_values=values)
    shared = os.environ.get("TFCOMPRESS_SHARED", str(ROOT.parent / "shared"))
    flags.DEFINE_string("shared", shared, "folder with devicelab/insn.c", flag_values=values)
    flags.DEFINE_string("lab", str(LAB), "folder with the built device lab", flag_values=values)
    flags.DEFINE_string("json", None, "also write the figures as JSON; - is stdout", flag_values=values)
    return values


def build_plugin(source: Path, folder: Path) -> Path:
    """Returns the compiled plugin.

    Raises:
        DeviceError: there is no source or no compiler for it.
    """
    target = folder / "insn.so"
    line = ["cc", "-shared", "-fPIC", "-O2", "-o", str(target), str(source)]
    try:
        done = subprocess.run(line, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise DeviceError("The plugin must be compiled. Received: no cc. Install gcc.") from error
    if done.returncode:
        raise DeviceError(f"The plugin {source} must compile. Received: {done.stderr.strip().splitlines()[-1]}.")
    return target


def count(model: Path, cpu: str, *, plugin: Path, board: Path, folder: Path, xnnpack: bool, runs: int) -> Count:
    """Returns what a file costs on a processor.

    Raises:
        DeviceError: the emulator or LiteRT in it failed.
    """
    part, features = PROCESSORS[cpu]
    shown = folder / f"cpuinfo-{cpu}"
    shown.write_text(CPUINFO.format(part=part, features=features))
    python = board / "usr/bin/python3.11"
    words = [QEMU, "-cpu", cpu, "-L", str(board), "-plugin", str(plugin), str(python), "-c", COUNT]
    words += [str(model.resolve()), "on" if xnnpack else "off", str(runs)]
    # A mount namespace of its own: the other file is seen by this one process and leaves no trace.
    script = 'mount --bind "$0" /proc/cpuinfo && exec "$@"'
    line = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, str(shown), *words]
    packages = board / "usr/local/lib/python3.11/dist-packages"
    environment = {"PYTHONHOME": str(board / "usr"), "PYTHONPATH": str(packages), "PATH": os.environ["PATH"]}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    counts = [int(number) for number, tag in COUNTED.findall(done.stderr) if tag != "0"]
    if done.returncode or len(counts) != runs:
        said = [line for line in done.stderr.splitlines() if line.strip() and not COUNTED.search(line)] or ["nothing"]
        raise DeviceError(f"{model} on {cpu} must be counted {runs} times. Received: {len(counts)} ({said[-1]}).")
    middle = sorted(counts)[len(counts) // 2]
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    spread = (max(counts) - min(counts)) / middle
    return Count(str(model), digest, cpu, xnnpack, middle, round(spread, 6), runs)


def table(counts: Sequence[Count]) -> str:
    """Returns the figures for people, the first file of each processor as 1.00."""
    lines = [f"{'model':32} {'cpu':11} {'instructions (emulated)':>24} {'ratio':>6}"]
    for each in counts:
        first = next(other for other in counts if other.cpu == each.cpu)
        name = Path(each.model).name[-32:]
        lines.append(f"{name:32} {each.cpu:11} {each.instructions:>24,} {each.instructions / first.instructions:>6.2f}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    values = _flags()
    if parse(values, arguments, required=("model",)):
        print(help_text(values, program="instructions.py", summary=__doc__, example="{program} --model=int8.tflite"))
        return 0
    unknown = [cpu for cpu in values.cpu if cpu not in PROCESSORS]
    if unknown:
        raise UsageError(f"--cpu must be of {', '.join(PROCESSORS)}. Received: {', '.join(unknown)}.")
    board = Path(values.lab) / "board"
    if not (board / "usr/bin/python3.11").exists():
        raise DeviceError(f"The device lab must be built. Received: no board in {values.lab}. See docs/devices.md.")
    if shutil.which(QEMU) is None:
        raise DeviceError(f"{QEMU} must be installed. Received: none on the PATH. Install Debian's qemu-user.")
    with tempfile.TemporaryDirectory(prefix="tfcompress-") as name:
        folder = Path(name)
        plugin = build_plugin(Path(values.shared) / "devicelab" / "insn.c", folder)
        places = {"plugin": plugin, "board": board, "folder": folder}
        counts = [
            count(Path(model), cpu, xnnpack=values.xnnpack, runs=values.runs, **places)
            for cpu in values.cpu
            for model in values.model
        ]
    text = json.dumps([dataclasses.asdict(each) for each in counts], indent=2) + "\n"
    if values.json == "-":
        print(text, end="")
        return 0
    print(table(counts))
    if values.json:
        write_atomically(Path(values.json), text, overwrite=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (UsageError, TfcompressError) as error:
        print(f"instructions.py: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)

"""Where the time of one inference goes, op by op, as a value: what each op takes, and what stayed off the delegate.

Values only; ``devices.on_device.profiler`` obtains them.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping
from typing import Any

__all__ = ["OpTime", "Profile", "compare_profiles"]

TOP = 10
WIDTH = 80
LEAST_MS = 0.001  # the clock of LiteRT's profiler


@dataclasses.dataclass(frozen=True)
class OpTime:
    """What one op takes on average.

    Attributes:
        name: what ran: the delegate's kernel ("Convolution (NHWC, QC8) IGEMM") or the op's name ("SOFTMAX").
        node: its number in its part of the graph.
        part: number of the delegated part, from 0; None for an op that the interpreter ran itself.
        ms: average time per inference.
        reason: why it stayed off the delegate; "" for a delegated op.
    """

    name: str
    node: int
    part: int | None
    ms: float
    reason: str = ""

    @property
    def place(self) -> str:
        """Where it ran: "XNNPACK 0" for the first delegated part, or "interpreter"."""
        return "interpreter" if self.part is None else f"XNNPACK {self.part}"


@dataclasses.dataclass(frozen=True)
class Profile:
    """The times of all ops of one file.

    Attributes:
        ops: in the order of execution.
        whole_ms: average time of one inference while the profiler ran.
        plain_ms: median time of one inference without it, in the same process; the difference is its overhead.
        runs: how many inferences were profiled.

    Examples:
        >>> profile = Profile((OpTime("CONV", 0, 0, 0.9), OpTime("SOFTMAX", 3, None, 0.1, "int8")), 1.02, 1.0, 50)
        >>> profile.delegated_share, profile.overhead
        (0.9, 0.02)
        >>> print(profile)
        2 ops, 1.000 ms of 1.020 ms (98 %); profiler 2 %; 90 % in 1 delegated part
          ms     share  where        op
          0.900   90 %  XNNPACK 0    #0 CONV
          0.100   10 %  interpreter  #3 SOFTMAX
        off the delegate: SOFTMAX (int8)
    """

    ops: tuple[OpTime, ...]
    whole_ms: float
    plain_ms: float
    runs: int

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Profile:
        """Returns what ``dataclasses.asdict`` and JSON made of one."""
        return cls(**{**fields, "ops": tuple(OpTime(**op) for op in fields["ops"])})

    @property
    def sum_ms(self) -> float:
        """What all ops take together."""
        return sum(op.ms for op in self.ops)

    @property
    def delegated_share(self) -> float:
        """Share of the ops' time that the delegate takes."""
        delegated = sum(op.ms for op in self.ops if op.part is not None)
        return delegated / self.sum_ms if self.sum_ms else 0.0

    @property
    def parts(self) -> dict[int, float]:
        """Time of each delegated part in ms."""
        found: dict[int, float] = {}
        for op in self.ops:
            if op.part is not None:
                found[op.part] = found.get(op.part, 0.0) + op.ms
        return found

    @property
    def overhead(self) -> float:
        """How much longer an inference takes with the profiler, as a share of the time without it."""
        return round(self.whole_ms / self.plain_ms - 1, 6) if self.plain_ms else 0.0

    @property
    def off_delegate(self) -> tuple[OpTime, ...]:
        """The ops that the interpreter ran itself."""
        return tuple(op for op in self.ops if op.part is None)

    def top(self, count: int = TOP) -> tuple[OpTime, ...]:
        """Returns the ops that take longest, the longest first.

        Args:
            count: how many. Default: 10.
        """
        return tuple(sorted(self.ops, key=lambda op: -op.ms)[:count])

    def kinds(self) -> dict[str, float]:
        """Returns the time in ms by name of the op, the longest first."""
        found: dict[str, float] = {}
        for op in self.ops:
            found[op.name] = found.get(op.name, 0.0) + op.ms
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def __str__(self) -> str:
        parts = "1 delegated part" if len(self.parts) == 1 else f"{len(self.parts)} delegated parts"
        whole = f"{self.sum_ms:.3f} ms of {self.whole_ms:.3f} ms ({percent(self.sum_ms, self.whole_ms)})"
        shares = f"profiler {100 * self.overhead:.0f} %; {100 * self.delegated_share:.0f} % in {parts}"
        lines = [f"{len(self.ops)} ops, {whole}; {shares}", "  ms     share  where        op"]
        for op in self.top():
            lines.append(f"  {op.ms:.3f}  {percent(op.ms, self.sum_ms):>5}  {op.place:11}  #{op.node} {op.name[:46]}")
        reasons: dict[str, int] = {}
        for op in self.off_delegate:
            text = f"{op.name} ({op.reason})" if op.reason else op.name
            reasons[text] = reasons.get(text, 0) + 1
        shown = [text if count == 1 else f"{count} {text}" for text, count in reasons.items()]
        off = textwrap.wrap(f"off the delegate: {'; '.join(shown)}", WIDTH, subsequent_indent="  ") if shown else []
        return "\n".join([*lines, *off])


FAMILIES = {
    "AVERAGE_POOL_2D": "Average Pooling",
    "BATCH_MATMUL": "Batch Matrix Multiply",
    "CONV_2D": "Convolution",
    "DEPTHWISE_CONV_2D": "Convolution",
    "FULLY_CONNECTED": "Fully Connected",
    "MAX_POOL_2D": "Max Pooling",
}
CONVERSIONS = ("Convert", "QUANTIZE", "DEQUANTIZE")


def family(name: str) -> str:
    """Returns what an op does, whoever does it: kernels of the delegate and ops of the interpreter under one name.

    Examples:
        >>> family("Convolution (NHWC, QC8) IGEMM"), family("AVERAGE_POOL_2D"), family("SOFTMAX")
        ('Convolution', 'Average Pooling', 'Softmax')
    """
    plain = name.split(" (")[0].strip()
    plain = plain.removeprefix("Static ")
    return FAMILIES.get(plain, plain.replace("_", " ").title() if plain.isupper() or "_" in plain else plain)


def compare_profiles(name: str, profile: Profile, other_name: str, other: Profile) -> str:
    """Returns why one file takes another time than the other: the differences by what ops do, the largest first.

    Answers "why is int8 slower than float here?": which ops, whether they left the delegate, and what conversions cost.

    Args:
        name: of the one.
        profile: of it.
        other_name: of the other.
        other: profile of it.

    Examples:
        >>> float_ = Profile((OpTime("Convolution (NHWC, F32) IGEMM", 0, 0, 1.0), OpTime("Softmax (NC, F32)", 1, 0, 0.1)), 1.1, 1.1, 9)
        >>> int8 = Profile((OpTime("Convolution (NHWC, QC8) IGEMM", 0, 0, 2.0), OpTime("SOFTMAX", 1, None, 0.4, "int8")), 2.4, 2.4, 9)
        >>> print(compare_profiles("int8", int8, "float", float_))
        int8 takes 2.400 ms, float 1.100 ms: 2.18 times as long, +1.300 ms
          +1.000 ms  Convolution: 2.000 ms in 1 op instead of 1.000 ms in 1
          +0.300 ms  Softmax: 0.400 ms in 1 op instead of 0.100 ms in 1, off the delegate
    """
    apart = profile.sum_ms - other.sum_ms
    ratio = profile.sum_ms / other.sum_ms if other.sum_ms else float("nan")
    lines = [
        f"{name} takes {profile.sum_ms:.3f} ms, {other_name} {other.sum_ms:.3f} ms: {ratio:.2f} times as long, {apart:+.3f} ms"
    ]
    mine, theirs = by_family(profile), by_family(other)
    changes = {kind: total(mine, kind) - total(theirs, kind) for kind in {**mine, **theirs}}
    for kind in sorted(changes, key=lambda each: -abs(changes[each]))[:TOP]:
        if abs(changes[kind]) < LEAST_MS:
            break
        ops, before = mine.get(kind, []), theirs.get(kind, [])
        off = ", off the delegate" if any(op.part is None for op in ops) else ""
        count = "1 op" if len(ops) == 1 else f"{len(ops)} ops"
        lines.append(
            f"  {changes[kind]:+.3f} ms  {kind}: {total(mine, kind):.3f} ms in {count} instead of "
            f"{total(theirs, kind):.3f} ms in {len(before)}{off}"
        )
    converting = sum(op.ms for op in profile.ops if op.name.split(" (")[0] in CONVERSIONS)
    if converting >= LEAST_MS:
        lines.append(f"  {converting:.3f} ms of it go into conversions between float and integer")
    return "\n".join(lines)


def by_family(profile: Profile) -> dict[str, list[OpTime]]:
    """Returns the ops by what they do."""
    found: dict[str, list[OpTime]] = {}
    for op in profile.ops:
        found.setdefault(family(op.name), []).append(op)
    return found


def total(families: Mapping[str, list[OpTime]], kind: str) -> float:
    """Returns the time in ms of all ops that do one thing."""
    return sum(op.ms for op in families.get(kind, ()))


def percent(part: float, whole: float) -> str:
    """Returns a share in per cent.

    Examples:
        >>> percent(1.0, 4.0), percent(1.0, 0.0)
        ('25 %', '-')
    """
    return f"{100 * part / whole:.0f} %" if whole else "-"

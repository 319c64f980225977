"""Do two ``.tflite`` files give the same answers, and if not, where do they part?

Runs both on the same samples: agreement of the outputs, and the first tensor, in the order of execution, that is further
apart than asked for. A float file and its integer one, two integer ones, ours and somebody else's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data import InputSpec, Scaling, ScalingName, load_representative
from ..data.handing_over import opened
from ..errors import DataError
from ..metrics import Difference, argmax_agreement
from ..system import checked_arguments
from ..system.text_tables import MISSING, columns, decibel_text, fields, number_text
from ..tflite import ModelSource, TensorInfo, read_model
from .layer_comparison import cores, file_errors
from .layer_errors import LayerError, json_number
from .side_by_side import File, fed

__all__ = ["Agreement", "OutputAgreement", "answer", "compare", "random_samples"]

THRESHOLD_DB = 20.0
"""A tenth of the amplitude is error: below this a tensor no longer carries what it should."""
STEPS = 1.0
SAMPLES = 32
RANDOM_SAMPLES = 8
LARGEST_MADE_UP = 1 << 30  # bytes of one input


@dataclass(frozen=True)
class OutputAgreement:
    """How far one output of two files is apart.

    Args:
        name: of the output in the first file.
        same_argmax: how often the largest value is the same one, in [0, 1]; None for outputs of a single value.
        max_difference: largest absolute difference.
        mean_difference: mean absolute difference.
        step: the larger of both files' quantization steps of this output; None where both are float.
        cosine: cosine similarity over all samples.
        sqnr_db: energy of the first file's output over that of the difference, in decibels.

    Examples:
        >>> print(OutputAgreement("scores", 0.97, 0.5, 0.125, 0.25, 0.999, 31.0))
        scores: same arg-max 97.0%, difference max 2 and mean 0.5 steps, cosine 0.99900, SQNR 31.0 dB
    """

    name: str
    same_argmax: float | None
    max_difference: float
    mean_difference: float
    step: float | None
    cosine: float
    sqnr_db: float

    def __str__(self) -> str:
        same = "" if self.same_argmax is None else f"same arg-max {self.same_argmax:.1%}, "
        step, unit = (self.step, " steps") if self.step else (1.0, "")
        ratio = "exact" if self.sqnr_db == math.inf else f"SQNR {self.sqnr_db:.1f} dB"
        return (
            f"{self.name}: {same}difference max {self.max_difference / step:.3g} and mean "
            f"{self.mean_difference / step:.3g}{unit}, cosine {self.cosine:.5f}, {ratio}"
        )


@dataclass(frozen=True)
class Agreement:
    """How two files answer the same samples.

    Args:
        first: name of the first file, the reference.
        second: name of the second.
        size_bytes: of both files.
        samples: how many samples both answered.
        random: whether they were made up, as no data was given.
        outputs: in the order of the first file.
        layers: each op that both files share, in the order of the second one's execution.
        operators: how many ops each file has, QUANTIZE and the like included.
        threshold_db: an SQNR below which a tensor has parted.
        steps: a difference in quantization steps of the second file above which it differs.
    """

    first: str
    second: str
    size_bytes: tuple[int, int]
    samples: int
    random: bool
    outputs: tuple[OutputAgreement, ...]
    layers: tuple[LayerError, ...]
    operators: tuple[int, int]
    threshold_db: float = THRESHOLD_DB
    steps: float = STEPS

    @property
    def parting(self) -> LayerError | None:
        """The first tensor whose SQNR is below ``threshold_db``, None if there is none."""
        return next((e for e in self.layers if e.sqnr_db is not None and e.sqnr_db < self.threshold_db), None)

    @property
    def first_difference(self) -> LayerError | None:
        """The first tensor that differs by more than ``steps`` (any difference, where the second is float), or None."""
        for error in self.layers:
            apart = error.max_steps if error.step else error.max_difference
            if apart is not None and apart > (self.steps if error.step else 0.0):
                return error
        return None

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain JSON values; an infinite ratio as the text "inf"."""
        plain = {
            name: getattr(self, name) for name in ("first", "second", "samples", "random", "threshold_db", "steps")
        }
        parting, difference = self.parting, self.first_difference
        return {
            **plain,
            "size_bytes": list(self.size_bytes),
            "operators": list(self.operators),
            "outputs": [{key: json_number(value) for key, value in vars(output).items()} for output in self.outputs],
            "parting": parting.to_json() if parting else None,
            "first_difference": difference.to_json() if difference else None,
            "layers": [error.to_json() for error in self.layers],
        }

    def __str__(self) -> str:
        return agreement_text(self)


@checked_arguments
def compare(
    first: ModelSource,
    second: ModelSource,
    data: Any = None,
    *,
    scaling: ScalingName | Scaling | None = None,
    samples: int | None = None,
    threshold_db: float = THRESHOLD_DB,
    steps: float = STEPS,
    seed: int = 0,
    allow_pickle: bool = False,
    debug: bool = False,
) -> Agreement:
    """Returns how far the answers of two files are apart, and where they part.

    Both files run in this process; where a file may be hostile, do this in a child process, as the command line does.

    Args:
        first: path or bytes of a ``.tflite`` file, or a ``Conversion``, the reference: the float one, or the official one.
        second: the other, likewise.
        data: samples as ``tfcompress.data.load_representative`` takes them. Default: random ones, from the range
            that a quantized input of either file can hold, else [0, 1).
        scaling: how pixels of images become inputs. Default: as ``load_representative``.
        samples: how many at most. Default: 32, and 8 random ones.
        threshold_db: a tensor has parted below this SQNR. Default: 20.
        steps: a tensor differs above this many quantization steps. Default: 1.
        seed: of the random samples. Default: 0.
        allow_pickle: whether arrays of Python objects may be unpickled. Default: False.
        debug: whether the interpreter's log lines are shown. Default: False.

    Raises:
        ModelError: a file is damaged, or LiteRT refuses it.
        DataError: the data does not fit, or the files take different inputs.
        DeviceError: an op failed.
        ValueError: ``samples`` or ``steps`` is negative, or ``samples`` 0.

    Examples:
        >>> import keras
        >>> from tfcompress.conversion import convert
        >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="head")])
        >>> content = convert(model, target="float32").tflite
        >>> found = compare(content, content)
        >>> found.random, found.outputs[0].same_argmax, found.parting, found.first_difference
        (True, 1.0, None, None)
    """
    if (samples is not None and samples < 1) or steps < 0:
        raise ValueError(f"samples must be at least 1 and steps 0. Received: samples={samples}, steps={steps}.")
    (first_name, first_content), (second_name, second_content) = read_model(first), read_model(second)
    threads = cores()
    ours = File(first_content, first_name, threads=threads, debug=debug)
    theirs = File(second_content, second_name, threads=threads, debug=debug)
    if data is None:
        feeds = random_samples(ours, theirs, count=samples or RANDOM_SAMPLES, seed=seed)
    else:
        specs = [InputSpec(info.name, info.shape, info.real_dtype) for info in ours.model.inputs]
        loaded = load_representative(data, specs, scaling=scaling, allow_pickle=allow_pickle)
        feeds = next(loaded.batches(samples or SAMPLES))
    layers = file_errors(ours, theirs, feeds, own=False, threads=threads, debug=debug)
    return Agreement(
        first=first_name,
        second=second_name,
        size_bytes=(len(first_content), len(second_content)),
        samples=len(next(iter(feeds.values()))),
        random=data is None,
        outputs=_outputs(ours, theirs, feeds),
        layers=layers,
        operators=(_count(ours), _count(theirs)),
        threshold_db=threshold_db,
        steps=steps,
    )


def answer(request: Mapping[str, Any], report: Any) -> dict[str, Any]:
    """Compares in the child process of the command line: ``compare`` on plain JSON values.

    Args:
        request: the arguments of ``compare`` by name, with the data as ``data.handing_over`` makes it portable.
        report: not called.

    Returns:
        ``text`` and ``json`` of the ``Agreement``.
    """
    found = compare(**{**request, "data": opened(request.get("data"))})
    return {"text": str(found), "json": found.to_json()}


def random_samples(first: File, second: File, *, count: int, seed: int) -> dict[str, np.ndarray]:
    """Returns made-up samples by input name of the first file.

    Uniform over what a quantized input of either file can hold, else over [0, 1); whole numbers are 0, as an index that
    no table has would be an error.

    Args:
        first: decides names and shapes; a free axis gets length 1.
        second: the other file.
        count: how many samples.
        seed: of the random numbers.
    """
    generator = np.random.default_rng(seed)
    partners = {info.name: info for info in second.model.inputs}
    made = {}
    for place, info in enumerate(first.model.inputs):
        others = second.model.inputs
        partner = partners.get(info.name, others[place] if place < len(others) else info)
        shape = (count, *(size or 1 for size in info.shape[1:]))
        size = math.prod(shape) * np.dtype(np.float64).itemsize  # as NumPy draws them
        if size > LARGEST_MADE_UP:
            raise DataError(
                f"Made-up samples must take at most {LARGEST_MADE_UP >> 30} GiB. Received: {info.name} {shape} with {size / 2**30:,.1f} "
                "GiB. Pass --samples=1, or --data with samples of the size that you use."
            )
        parameters = info.parameters or partner.parameters
        if parameters is not None:
            made[info.name] = generator.uniform(*parameters.real_range, shape).astype(np.float32)
        elif info.dtype.kind == "f":
            made[info.name] = generator.random(shape).astype(info.dtype)
        else:
            made[info.name] = np.zeros(shape, info.dtype)
    return made


def _outputs(first: File, second: File, feeds: Mapping[str, np.ndarray]) -> tuple[OutputAgreement, ...]:
    ours, theirs = first.model.run(dict(feeds)), second.model.run(fed(second, first, feeds))
    partners = {info.name: info for info in second.model.outputs}
    found = []
    for place, info in enumerate(first.model.outputs):
        if set(ours) != set(theirs) and place >= len(second.model.outputs):
            continue
        partner = partners[info.name] if set(ours) == set(theirs) else second.model.outputs[place]
        found.append(_output(info, partner, ours[info.name], theirs[partner.name]))
    return tuple(found)


def _output(info: TensorInfo, partner: TensorInfo, mine: np.ndarray, other: np.ndarray) -> OutputAgreement:
    if mine.size != other.size:
        raise DataError(
            f"Outputs of one shape are compared. Received: {info.name} {mine.shape} and {partner.name} {other.shape}."
        )
    apart = Difference.of(mine, other)
    has_classes = mine.ndim > 1 and mine.shape[-1] > 1
    return OutputAgreement(
        name=info.name,
        same_argmax=argmax_agreement(mine, other.reshape(mine.shape)) if has_classes else None,
        max_difference=apart.largest,
        mean_difference=apart.mean,
        step=max(info.scale or 0.0, partner.scale or 0.0) or None,
        cosine=apart.cosine,
        sqnr_db=apart.sqnr_db,
    )


def _count(file: File) -> int:
    return len(file.schema.subgraphs[0].operators or [])


def agreement_text(found: Agreement) -> str:
    """Returns how two files agree as text: their outputs, where they part, and a table of the layers both share."""
    first, second = found.size_bytes
    made_up = f"{found.samples} random samples, as no data was given: --data shows how they agree on real ones"
    pairs = [
        ("first", f"{found.first} ({first:,} bytes)"),
        ("second", f"{found.second} ({second:,} bytes)"),
        ("data", made_up if found.random else f"{found.samples} samples"),
        *(("output", str(output)) for output in found.outputs),
        ("matched", f"{len(found.layers)} ops of {found.operators[0]} and {found.operators[1]}"),
        ("differ", _where(found.first_difference, f"by more than {found.steps:g} step{'s' * (found.steps != 1)}")),
        ("part", _where(found.parting, f"below {found.threshold_db:g} dB")),
    ]
    rows = [
        (
            str(error.index),
            error.layer,
            error.op,
            decibel_text(error.weight_sqnr_db),
            decibel_text(error.sqnr_db),
            MISSING if error.cosine is None else f"{error.cosine:.4f}",
            MISSING if error.max_steps is None else number_text(error.max_steps),
        )
        for error in found.layers
    ]
    headings = ("#", "layer", "op", "weights dB", "output dB", "cosine", "max steps")
    return "\n".join([*fields(pairs), "", *columns(headings, rows, left=(1, 2), flexible=1)])


def _where(error: LayerError | None, how: str) -> str:
    if error is None:
        return f"nowhere {how}"
    ratio = "equal" if error.sqnr_db == math.inf else f"SQNR {decibel_text(error.sqnr_db)} dB"
    steps = "" if error.max_steps is None else f", at most {number_text(error.max_steps)} steps apart"
    return f"first at #{error.index} {error.layer} ({error.op}) {how}: {ratio}{steps}"

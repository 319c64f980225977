"""``remove_channels``: a smaller Keras model, by what pruning has emptied, by a count, or by measured latency.

Which channels go is decided by ``rebuilding``; here the budget is chosen, and for a latency measured: candidates are converted
to int8 and run in turns with the original on this machine.
"""

import statistics
import time
import warnings
from collections.abc import Callable

import keras
import numpy as np

from ..errors import TrainingError
from ..layers import Layers, recovery
from ..layers import multiply_adds as count_multiply_adds
from ..system.arguments import checked_arguments
from ..system.forks import check_not_forked
from . import channel_groups, importance, rebuilding
from .masked_training import Scope, check_scope

__all__ = ["latency_ratio", "remove_channels"]

_STEPS = 7  # halvings of the sparsity: a hundredth of the channels
_PAIRS = 15
_PAIRS_TO_CONFIRM = 61
_SPARE = 0.98  # of a measured budget: what is within it today is to be so tomorrow
_STEP = 0.02
_MOST = 0.97


@checked_arguments
def remove_channels(
    model: keras.Model,
    *,
    sparsity: float | None = None,
    multiply_adds: float | None = None,
    target_latency: float | None = None,
    multiple_of: int = 8,
    by: importance.ChannelScore | importance.WeightScores = "l1",
    scope: Scope = "layer",
    layers: Layers = None,
) -> keras.Model:
    """Returns ``model`` without the channels that pruning has emptied, or without the least important ones.

    The answers of the new model are those of the pruned one within float rounding. It is not compiled; train it for a few
    epochs after a budget was named here, for then nothing has prepared it for the loss.

    Args:
        model: a functional or Sequential Keras 3 model; it stays as it is.
        sparsity: fraction of each layer's channels that goes, in [0, 1). Default: None.
        multiply_adds: fraction of the multiply-adds that may stay, in (0, 1]. Default: None.
        target_latency: fraction of the int8 latency that may stay, in (0, 1), measured on this machine on one thread in
            turns with the original, the result a second time and longer. Default: None. Without any of the three the channels that are zero go.
        multiple_of: kept channels come in multiples of this. Default: 8.
        by: importance: "l1", "l2", "batch_norm" or an ``importance.Taylor``. Default: "l1".
        scope: "layer" takes the same fraction of each layer, "global" ranks all channels together. Default: "layer".
        layers: which layers may lose channels: a name pattern, a layer class, a list of these, a predicate, or None for all.
            Default: None.

    Raises:
        ValueError: more than one budget, one out of range, or a pattern or class without a match.
        TrainingError: a subclassed model, no channel that can go, or a budget out of reach.

    Examples:
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(32, 3, name="conv"), keras.layers.ReLU(),
        ...     keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10, name="head")])
        >>> remove_channels(model, sparsity=0.5).get_layer("conv").filters
        16

    Source: Li, Kadav, Durdanovic, Samet and Graf, "Pruning filters for efficient ConvNets", 2017,
    https://arxiv.org/abs/1608.08710; Yang et al., "NetAdapt: platform-aware neural network adaptation for mobile
    applications", 2018, https://arxiv.org/abs/1804.03230 (measured latency as the budget).
    """
    budgets = {"sparsity": sparsity, "multiply_adds": multiply_adds, "target_latency": target_latency}
    named = {name: value for name, value in budgets.items() if value is not None}
    if len(named) > 1:
        raise ValueError(f"At most one budget can hold. Received: {', '.join(f'{n}={v}' for n, v in named.items())}.")
    for name, value in named.items():
        low_end = value >= 0 if name == "sparsity" else value > 0
        high_end = value <= 1 if name == "multiply_adds" else value < 1
        if isinstance(value, bool) or not isinstance(value, int | float) or not (low_end and high_end):
            hint = f" Write {value / 100:g} for {value:g} %." if isinstance(value, int | float) and value > 1 else ""
            raise ValueError(f"{name} must be a fraction. Received: {name}={value!r}.{hint}")
    if isinstance(multiple_of, bool) or not isinstance(multiple_of, int) or multiple_of < 1:
        raise ValueError(f"multiple_of must be a whole number from 1 on. Received: multiple_of={multiple_of!r}.")
    check_scope(scope)
    check_not_forked()
    recovery.make_plain(model)  # of what an exception in fit may have left, or one that is running put on
    plan = channel_groups.plan(model)
    if not plan.blocks:
        raise TrainingError(
            f"The model must have channels that can go. Received: {model.name!r}, whose channels all reach an output or an "
            "operation through which they cannot be followed."
        )
    if not named:
        removed = rebuilding.emptied(plan, model, multiple_of=multiple_of)
        if not removed:
            raise TrainingError(
                f"There must be channels that are zero. Received: {model.name!r} without any. Train with "
                "tfcompress.ChannelPruning first, or name sparsity, multiply_adds or target_latency."
            )
        return rebuilding.remove(model, plan, removed)
    ranked = rebuilding.eligible(plan, model, layers)
    scores = importance.channel_scores(model, ranked, by)

    def smaller(fraction: float) -> keras.Model:
        chosen = rebuilding.choose(ranked, scores, fraction, multiple_of=multiple_of, jointly=scope == "global")
        return rebuilding.remove(model, plan, chosen)

    if sparsity is not None:
        return smaller(sparsity)
    if multiply_adds is not None:
        budget = multiply_adds * count_multiply_adds(model)
        return _least(smaller, lambda each: count_multiply_adds(each) <= budget, f"multiply_adds={multiply_adds}")
    original, budget = _int8(model), target_latency * _SPARE  # type: ignore[operator]

    def within(each: keras.Model, pairs: int = _PAIRS) -> bool:
        return latency_ratio(_int8(each), original, pairs=pairs) <= budget

    wish = f"target_latency={target_latency}"
    return _least(smaller, within, wish, lambda each: within(each, _PAIRS_TO_CONFIRM))


def _least(
    smaller: Callable[[float], keras.Model],
    fits: Callable[[keras.Model], bool],
    wish: str,
    confirm: Callable[[keras.Model], bool] = lambda _: True,
) -> keras.Model:
    """Returns the model of the least sparsity that fits, by bisection; from one that is not confirmed it goes on upwards."""
    low, high = 0.0, _MOST
    best = smaller(high)
    if not fits(best):
        raise TrainingError(
            f"The budget must be within reach. Received: {wish}, which is missed even without 97 % of the channels. "
            "Raise it, or lower multiple_of."
        )
    for _ in range(_STEPS):
        middle = (low + high) / 2
        candidate = smaller(middle)
        if fits(candidate):
            best, high = candidate, middle
        else:
            low = middle
    while not confirm(best):  # a lucky look, on a machine that had other things to do
        if high >= _MOST:
            raise TrainingError(
                f"The budget must be within reach. Received: {wish}, met once and then missed. Try again."
            )
        high = min(high + _STEP, _MOST)
        best = smaller(high)
    return best


def _int8(model: keras.Model) -> bytes:
    """Returns the int8 file of a model on noise: its answers mean nothing, its time does."""
    from ..calibration import CalibrationOptions
    from ..conversion import convert

    random = np.random.default_rng(0)
    samples = {tensor.name: random.normal(size=(2, *tensor.shape[1:])).astype(np.float32) for tensor in model.inputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that noise is no representative data
        data = samples if len(samples) > 1 else next(iter(samples.values()))
        options = CalibrationOptions(ranges="calibrated")
        return convert(model, target="cpu-int8", representative_data=data, calibration=options, allow_float=True).tflite


def latency_ratio(file: bytes, other: bytes, *, pairs: int = _PAIRS) -> float:
    """Returns the time of one inference of ``file`` over that of ``other``: the median over pairs run in turns.

    Args:
        file: bytes of a ``.tflite`` file.
        other: bytes of another.
        pairs: how often both run. Default: 15.
    """
    from ai_edge_litert.interpreter import Interpreter

    from ..system import native_stderr_silenced

    with native_stderr_silenced():
        both = [Interpreter(model_content=content, num_threads=1) for content in (file, other)]
        for each in both:
            each.allocate_tensors()
            for _ in range(3):
                each.invoke()
        ratios = []
        for turn in range(pairs):
            taken = {}
            for index in (0, 1) if turn % 2 else (1, 0):
                start = time.perf_counter()
                both[index].invoke()
                taken[index] = time.perf_counter() - start
            ratios.append(taken[0] / taken[1])
    return statistics.median(ratios)

"""A smaller Keras model without the channels that pruning has emptied, or without those that matter least.

Which channels belong together is found by ``channel_groups``; how much each matters by ``importance``. What the smaller model
takes in time is measured by ``channel_removal``.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from ..layers import interception, layer_choice
from . import channel_groups

__all__ = ["choose", "eligible", "emptied", "masks_without", "remove"]


def choose(
    plan: channel_groups.ChannelPlan,
    scores: Mapping[int, float],
    sparsity: float,
    *,
    multiple_of: int = 8,
    jointly: bool = False,
) -> set[int]:
    """Returns the labels of the channels that go when a fraction of them must.

    The number kept in each block is rounded up to ``multiple_of``, where groups lose equal numbers to steps of at least that
    many channels; among equal scores the earlier channels go first.

    Args:
        plan: the model's channels, with the blocks that may lose some.
        scores: importance by label.
        sparsity: fraction of the channels that goes, in [0, 1).
        multiple_of: kept channels come in multiples of this. Default: 8.
        jointly: whether all blocks share one ranking, scores being divided by their block's mean. Default: False.

    Raises:
        ValueError: a sparsity outside [0, 1).
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be a fraction in [0, 1). Received: sparsity={sparsity!r}.")
    blocks = plan.blocks
    doomed: set[int] = set()
    if jointly and blocks:
        relative = {}
        for block in blocks:
            mean = float(np.mean([scores[label] for label in block.labels.tolist()])) or 1.0
            relative.update({label: scores[label] / mean for label in block.labels.tolist()})
        order = sorted(relative, key=lambda label: (relative[label], label))
        doomed = set(order[: int(np.floor(len(order) * sparsity + 0.5))])
    removed: set[int] = set()
    for block in blocks:
        labels = block.labels.tolist()
        wanted = sum(label not in doomed for label in labels) if jointly else len(labels) * (1 - sparsity)
        kept = _rounded(wanted, block, multiple_of)
        order = sorted(range(len(labels)), key=lambda i: (scores[labels[i]], i))
        removed.update(labels[i] for i in order[: len(labels) - kept])
    return removed


def _rounded(wanted: float, block: channel_groups.Block, multiple_of: int) -> int:
    """Returns how many labels of a block stay when ``wanted`` would."""
    step = -(-multiple_of // block.copies)
    return min(len(block.labels), max(1, math.ceil(round(wanted, 6) / step)) * step)


def eligible(
    plan: channel_groups.ChannelPlan, model: keras.Model, layers: layer_choice.Layers, *, protected: Sequence[str] = ()
) -> channel_groups.ChannelPlan:
    """Returns the plan with the blocks that may lose channels only: a block goes with all that make it.

    Args:
        plan: the model's channels.
        model: the model.
        layers: which layers may lose channels, see ``MagnitudePruning``.
        protected: paths of layers that may not. Default: none.

    Raises:
        ValueError: a pattern or class that matches no layer.
    """
    by_path = interception.layer_paths(model)
    makers = {path: by_path[path] for block in plan.blocks for path in block.makers}
    chosen = set(layer_choice.matching(makers, layers)) - set(protected)
    return dataclasses.replace(plan, blocks=tuple(block for block in plan.blocks if set(block.makers) <= chosen))


def masks_without(
    plan: channel_groups.ChannelPlan, removed: set[int], model: keras.Model
) -> dict[str, tuple[Any, np.ndarray]]:
    """Returns (variable, 0/1 mask of its shape) by name, for every parameter that makes a channel zero.

    Args:
        plan: the model's channels.
        removed: labels of the channels that go.
        model: the model.
    """
    layers = interception.layer_paths(model)
    found = {}
    for parameter in plan.parameters:
        if parameter.own is None:
            continue
        variable = getattr(layers[parameter.path], parameter.attribute)
        stays = np.array([label not in removed for label in parameter.labels[parameter.own].tolist()], np.float32)
        shape = [1] * len(variable.shape)
        shape[parameter.own] = len(stays)
        mask = np.broadcast_to(stays.reshape(shape), tuple(variable.shape)).copy()
        found[f"{parameter.path}/{parameter.attribute}"] = (variable, mask)
    return found


def emptied(plan: channel_groups.ChannelPlan, model: keras.Model, *, multiple_of: int = 8) -> set[int]:
    """Returns the labels of the channels all of whose own parameters are zero, as channel pruning leaves them.

    Args:
        plan: the model's channels.
        model: the model.
        multiple_of: as many empty channels stay as it takes to keep a multiple of this. Default: 8.
    """
    layers = interception.layer_paths(model)
    alive: set[int] = set()
    for parameter in plan.parameters:
        if parameter.own is None or parameter.attribute == "moving_mean":
            continue
        values = interception.read(getattr(layers[parameter.path], parameter.attribute))
        axes = tuple(axis for axis in range(values.ndim) if axis != parameter.own % values.ndim)
        living = np.any(values != 0, axis=axes)
        alive.update(parameter.labels[parameter.own][living].tolist())
    removed: set[int] = set()
    for block in plan.blocks:
        labels = block.labels.tolist()
        empty = [label for label in labels if label not in alive]
        removed.update(empty[: len(labels) - _rounded(len(labels) - len(empty), block, multiple_of)])
    return removed


def remove(model: keras.Model, plan: channel_groups.ChannelPlan, removed: set[int]) -> keras.Model:
    """Returns a new model without the channels, with the same weights otherwise, not compiled.

    Args:
        model: a functional or Sequential model.
        plan: its channels.
        removed: labels of the channels that go.
    """
    paths = {id(layer): path for path, layer in interception.layer_paths(model).items()}

    def kept(labels: np.ndarray) -> np.ndarray:
        return np.flatnonzero([label not in removed for label in labels.tolist()])

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        labels = plan.widths.get(paths.get(id(layer), ""))
        if labels is not None:
            width = len(kept(labels.ravel()))
            if "target_shape" in config:
                groups = labels.shape[:-1]  # (), or (groups,) where the channels are divided
                config["target_shape"] = (*config["target_shape"][: -labels.ndim], *groups, width // math.prod(groups))
            else:
                config["filters" if "filters" in config else "units"] = width
        return type(layer).from_config(config)

    smaller = keras.models.clone_model(model, clone_function=clone, recursive=_has_models(model))
    new, slices = interception.layer_paths(smaller), {(p.path, p.attribute): p.labels for p in plan.parameters}
    for path, layer in interception.layer_paths(model).items():
        if isinstance(layer, keras.Model) or not getattr(layer, "weights", None):
            continue
        by_id = {id(getattr(layer, name)): labels for (place, name), labels in slices.items() if place == path}
        for old, fresh in zip(layer.weights, new[path].weights, strict=True):
            if fresh.dtype == "uint32" or "seed" in fresh.path:
                continue
            values = interception.read(old)
            for axis, labels in by_id.get(id(old), {}).items():
                values = np.take(values, kept(labels), axis=axis)
            fresh.assign(values)
    return smaller


def _has_models(model: keras.Model) -> bool:
    return any(isinstance(layer, keras.Model) for layer in interception.layer_paths(model).values())

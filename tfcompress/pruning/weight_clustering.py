"""Weight clustering as a Keras callback: each kernel ends with a few distinct values, so that its file compresses well.

The values are found by k-means when clustering begins; from then on the weights of a cluster move together. Zeros stay
zeros. Integer arithmetic gains nothing from it; gzip and over-the-air updates do.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from ..errors import TrainingError
from ..layers import (
    End,
    Layers,
    active_callbacks,
    check_backend,
    constraints,
    interception,
    layer_choice,
    recovery,
    weight_files,
)
from ..system.arguments import checked_arguments
from .magnitude_pruning import prunable_weights
from .masked_training import check_built

__all__ = ["WeightClustering", "centroids"]

_MOST_VALUES = 1 << 16  # that k-means looks at: more change no centroid by much
_ROUNDS = 30
_EXTRA = weight_files.Extra("WeightClustering")


def centroids(values: np.ndarray, clusters: int) -> np.ndarray:
    """Returns up to ``clusters`` centroids of ``values``, rising, float32, by k-means from evenly spread quantiles.

    Args:
        values: any shape; of many every k-th is looked at.
        clusters: how many at most.

    Examples:
        >>> centroids(np.array([1.0, 1.1, 5.0, 5.1]), 2).round(2)
        array([1.05, 5.05], dtype=float32)

    Source: Lloyd, "Least squares quantization in PCM", 1982.
    """
    from scipy.cluster.vq import kmeans

    flat = np.sort(values.reshape(-1).astype(np.float64))
    flat = flat[:: max(1, len(flat) // _MOST_VALUES)]
    start = np.unique(np.quantile(flat, (np.arange(clusters) + 0.5) / clusters))
    found, _ = kmeans(flat[:, None], start[:, None], iter=_ROUNDS)
    return np.sort(found[:, 0]).astype(np.float32)


class WeightClustering(keras.callbacks.Callback):
    """Gives each kernel at most ``clusters`` distinct values while the model trains.

    With pruning it waits for the final sparsity; zeros are a cluster of their own and stay zeros.

    Args:
        clusters: distinct values of a kernel, zero among them where the kernel is sparse, from 2 on. Default: 16.
        begin_epoch: first epoch, from 0, with clustered weights. Default: 0.
        layers: which layers: patterns, classes or a predicate, see ``MagnitudePruning``. Default: all.
        protect: the layers that keep their values: "first", "last" or both. Default: none.

    Raises:
        ValueError: fewer than 2 clusters, a negative epoch; at the start of ``fit``: a pattern or class without a match.
        TrainingError: the model is not built or has nothing to cluster, or Keras does not run on TensorFlow.

    Examples:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, name="head")])
        >>> model.compile("sgd", "mse")
        >>> x = np.random.rand(64, 8).astype("float32")
        >>> history = model.fit(x, np.zeros((64, 16)), verbose=0, callbacks=[WeightClustering(4)])
        >>> len(np.unique(model.get_layer("head").kernel))
        4

    Source: Han, Mao and Dally, "Deep compression", 2016, https://arxiv.org/abs/1510.00149, section 3.
    """

    @checked_arguments
    def __init__(
        self,
        clusters: int = 16,
        *,
        begin_epoch: int = 0,
        layers: Layers = None,
        protect: End | Sequence[End] = (),
    ) -> None:
        super().__init__()
        for name, value, least in (("clusters", clusters, 2), ("begin_epoch", begin_epoch, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number from {least} on. Received: {name}={value!r}.")
        check_backend()
        layer_choice.check(layers)
        self.clusters = clusters
        self.begin_epoch = begin_epoch
        self.layers = layers
        self.protect = layer_choice.check_ends(protect)
        self._waited = False
        self._chosen: dict[str, Any] = {}
        self._clustered: dict[str, tuple[Any, _Clustered]] = {}
        self._on = False
        self._has_begun = False
        self._restored: dict[str, np.ndarray] | None = None  # what the weights that a backup restored came with

    def settled(self) -> bool:
        """Returns whether the weights are clustered now."""
        return bool(self._clustered)

    def snapshot(self) -> None:
        """Weights that are clustered carry their clusters themselves."""

    def recall(self, snapshot: None) -> None:
        """Nothing to go back to."""

    def set_model(self, model: keras.Model) -> None:
        """Learns which model comes; what an exception left on the last one is taken off."""
        self.remove()
        super().set_model(model)
        self._has_begun, self._restored = False, None
        self._listen()

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Chooses the kernels."""
        self.remove()
        self._clustered = {}
        self._waited = False
        subject = interception.subject(self.model)
        check_built(subject)
        weights = prunable_weights(subject)
        if not weights:
            raise TrainingError(
                f"The model must have a layer to cluster. Received: {subject.name!r} without convolutions or Dense."
            )
        by_path = interception.layer_paths(subject)
        known: Mapping[str, Any] = {name.rpartition("/")[0]: by_path[name.rpartition("/")[0]] for name in weights}
        chosen, ends = layer_choice.matching(known, self.layers), layer_choice.ends(list(known), self.protect)
        paths = [path for path in chosen if path not in ends]
        if not paths:
            raise TrainingError(
                f"There must be a layer to cluster beside the protected ones. Received: {', '.join(known)}, of which "
                f"{', '.join(ends)} keep their values."
            )
        self._chosen = {name: variable for name, variable in weights.items() if name.rpartition("/")[0] in paths}
        active_callbacks.enter(self.model, self)
        self._has_begun = True
        self._listen()
        self._go_on()

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Leaves a model that is not trained alone."""
        if not self._has_begun:
            weight_files.listen(self.model, self)

    on_predict_begin = on_test_begin

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Finds the clusters when it is time, and all pruning has come to its end."""
        others = active_callbacks.active(self.model)
        waiting = [each for each in others if hasattr(each, "schedule") and not each.settled()]
        if self._clustered or epoch < self.begin_epoch:
            return
        if waiting:
            self._waited = True
            return
        for name, variable in self._chosen.items():
            self._clustered[name] = (variable, _Clustered.of(interception.read(variable), self.clusters))
        self._apply()
        self._attach()

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Sees to it that a step that fails leaves nothing behind."""
        if self._clustered and not self._on:  # a conversion in the middle of the fit has taken the clusters off
            self._attach()
        recovery.guard(self.model)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Takes the constraints off; the values stay few."""
        self._apply()
        self._has_begun = False
        self.remove()
        if not self._clustered:
            reason = "pruning that had not reached its final sparsity when the last epoch began"
            received = reason if self._waited else f"begin_epoch={self.begin_epoch}"
            way_out = "End its schedule earlier" if self._waited else "Begin earlier"
            warnings.warn(
                f"Weight clustering must begin before the end of fit. Received: {received}, and no weight was clustered. "
                f"{way_out} or train for more epochs.",
                stacklevel=2,
            )

    def remove(self, model: keras.Model | None = None) -> None:
        """Takes the constraints off ``model`` (default: the last one trained), also after an exception in ``fit``."""
        active_callbacks.leave(self)
        if self.model is not None:
            weight_files.listen(self.model, self)
        for variable, _ in self._clustered.values():
            constraints.detach(variable, _Clustered)
        for variable in model.variables if model is not None else ():
            constraints.detach(variable, _Clustered)
        for each in (self.model, model):
            if each is not None and (self._on or each is model):
                each.train_function = None
        self._on = False

    def _attach(self) -> None:
        for variable, constraint in self._clustered.values():
            constraints.attach(variable, constraint)
        self._on = True
        self._listen()
        active_callbacks.enter(self.model, self)
        self.model.make_train_function(force=True)

    def _listen(self) -> None:
        """Sees to it that clusters go with weights that are saved, and come with weights that a backup restores."""
        weight_files.listen(self.model, self, after_save=self._save, after_load=self._restore)

    def _save(self, path: str) -> None:
        if self._clustered:
            kept = {name: constraint.members for name, (_, constraint) in self._clustered.items()}
            counts = [(constraint.count, constraint.has_zeros) for _, constraint in self._clustered.values()]
            _EXTRA.write(path, {**kept, " counts": np.array(counts, np.int64)})

    def _restore(self, path: str) -> None:
        self._restored = _EXTRA.read(path)
        if self._has_begun:
            self._go_on()

    def _go_on(self) -> None:
        """Goes on with the clusters of weights that a backup restored, if they are of the kernels that are clustered here."""
        arrays, self._restored = self._restored, None
        if arrays is None or {*arrays} != {*self._chosen, " counts"}:
            return
        for (name, variable), (count, has_zeros) in zip(self._chosen.items(), arrays[" counts"], strict=True):
            self._clustered[name] = (variable, _Clustered(arrays[name], int(count), bool(has_zeros)))
        self._attach()

    def _apply(self) -> None:
        for variable, constraint in self._clustered.values():
            variable.assign(constraint.apply(keras.ops.convert_to_tensor(interception.read(variable))))


class _Clustered(constraints.Stacked):
    """Replaces each weight by the mean of its cluster; the cluster of zeros, if there is one, stays zero."""

    def __init__(self, members: np.ndarray, count: int, has_zeros: bool) -> None:
        super().__init__()
        self.members = members
        self.count = count
        self.has_zeros = has_zeros

    @classmethod
    def of(cls, values: np.ndarray, clusters: int) -> "_Clustered":
        """Returns the constraint for the clusters that ``values`` have now."""
        zeros = values == 0
        has_zeros = bool(zeros.sum() > 1)
        rest = values[~zeros] if has_zeros else values
        members = np.zeros(values.shape, np.int32)
        if not rest.size:
            return cls(members, 1, True)
        found = centroids(rest, clusters - has_zeros)
        nearest = np.searchsorted((found[1:] + found[:-1]) / 2, values).astype(np.int32)
        members = np.where(zeros, 0, nearest + 1).astype(np.int32) if has_zeros else nearest
        return cls(members, len(found) + has_zeros, has_zeros)

    def apply(self, value: Any) -> Any:
        members = self.members.reshape(-1)
        sums = keras.ops.segment_sum(keras.ops.reshape(value, (-1,)), members, num_segments=self.count)
        sizes = np.maximum(np.bincount(members, minlength=self.count), 1).astype(np.float32)
        means = sums / keras.ops.cast(sizes, sums.dtype)
        if self.has_zeros:
            means = means * keras.ops.cast(np.arange(self.count) > 0, means.dtype)
        return keras.ops.reshape(keras.ops.take(means, members), self.members.shape)

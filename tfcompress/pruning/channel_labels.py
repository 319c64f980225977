"""Which channels go together? Labels that can be tied and fixed, also so that groups lose equal numbers.

Every channel of a model has a label; ``channel_groups`` follows them through its layers. A grouped convolution needs as
many channels in each group, a channel shuffle as many in each row of what it transposes. So channels are tied across the
groups: the first of each cell, the second of each, and so on, where a cell holds the channels that go the same way through
all of these layers. What is left over stays. Nothing here knows Keras.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["Balance", "Labels"]


class Labels:
    """Labels that can be tied (union-find) and fixed.

    Examples:
        >>> labels = Labels()
        >>> first, second = labels.new(3), labels.new(3)
        >>> labels.tie(first, second)
        >>> labels.fix(second[:1])
        >>> labels.roots(second), labels.fixed()
        (array([0, 1, 2]), {0})
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._fixed: list[int] = []

    def new(self, count: int) -> np.ndarray:
        """Returns ``count`` labels that nothing has yet, int64 (count,)."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def find(self, label: int) -> int:
        """Returns the one label that stands for all that are tied to this one."""
        root = label
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[label] != root:
            self._parent[label], label = root, self._parent[label]
        return root

    def tie(self, one: np.ndarray, other: np.ndarray) -> None:
        """Ties labels pair by pair: they go together or stay."""
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            first, second = sorted((self.find(a), self.find(b)))
            self._parent[second] = first

    def fix(self, labels: np.ndarray) -> None:
        """Notes that these labels stay, and with them all that are or will be tied to them."""
        self._fixed.extend(labels.ravel().tolist())

    def roots(self, labels: np.ndarray) -> np.ndarray:
        """Returns ``find`` of each label, int64 (n,)."""
        return np.array([self.find(label) for label in labels.tolist()], np.int64)

    def fixed(self) -> set[int]:
        """Returns what stands for the labels that stay."""
        return {self.find(label) for label in self._fixed}


@dataclass
class _Division:
    path: str
    labels: np.ndarray  # (groups, channels of one group)
    rows_alike: bool  # whether the same positions of each group must go: the kernel has one axis for all groups


class Balance:
    """Divisions of channels into groups of equal size, collected while a model is followed.

    Args:
        labels: the labels that are tied and fixed.
    """

    def __init__(self, labels: Labels) -> None:
        self._labels = labels
        self._divisions: list[_Division] = []
        self._shuffles: list[np.ndarray] = []

    def divide(self, path: str, labels: np.ndarray, groups: int, *, rows_alike: bool = False) -> None:
        """Notes that a layer divides these channels.

        Args:
            path: the layer's path.
            labels: of the channels, int64 (n,).
            groups: into how many groups of neighbours.
            rows_alike: whether the same positions must go from each group. Default: False.
        """
        self._divisions.append(_Division(path, labels.reshape(groups, -1), rows_alike))

    def shuffle(self, labels: np.ndarray) -> None:
        """Notes that these channels, int64 (rows, columns), are transposed."""
        self._shuffles.append(labels)

    def settle(self) -> dict[str, str]:
        """Ties what must go together and fixes what cannot go; returns the layers that keep channels, with the reason."""
        kept: dict[str, str] = {}
        for component in self._components():
            if not (self._tie_cells(component) and self._agree(component)):
                for division in component:
                    self._labels.fix(division.labels.ravel())
                    kept[division.path] = "its groups of channels cannot lose equal numbers"
        return kept

    def _components(self) -> list[list[_Division]]:
        """Returns the divisions that share channels, together."""
        found: list[tuple[set[int], list[_Division]]] = []
        for division in self._divisions:
            roots, members = set(self._labels.roots(division.labels.ravel()).tolist()), [division]
            for other in [each for each in found if each[0] & roots]:
                found.remove(other)
                roots, members = roots | other[0], other[1] + members
            found.append((roots, members))
        return [members for _, members in found]

    def _tie_cells(self, component: list[_Division]) -> bool:
        """Ties the channels of one rank in all cells; returns False where the divisions are not of the same channels."""
        ways: dict[int, list[int]] = {}
        fixed = self._labels.fixed()
        for division in component:
            rows = self._labels.roots(division.labels.ravel()).reshape(division.labels.shape)
            for group, row in enumerate(rows.tolist()):
                for root in row:
                    ways.setdefault(root, []).append(group)
        if fixed & set(ways) or {len(way) for way in ways.values()} != {len(component)}:
            return False
        cells: dict[tuple[int, ...], list[int]] = {}
        for root, way in ways.items():
            cells.setdefault(tuple(way), []).append(root)
        common = min(map(len, cells.values()))
        members = np.array([cell[:common] for cell in cells.values()])  # (cells, rank)
        for cell in members[1:]:
            self._labels.tie(members[0], cell)
        self._labels.fix(np.array([root for cell in cells.values() for root in cell[common:]], np.int64))
        return True

    def _agree(self, component: list[_Division]) -> bool:
        """Whether any tied channels can go and leave every group as large as the others and in order."""
        fixed, of_component = self._labels.fixed(), set()
        for division in component:
            rows = self._free(division.labels, fixed)
            of_component |= set(rows.ravel().tolist())
            if (np.sort(rows, axis=1) != np.sort(rows[:1], axis=1)).any():
                return False
            if division.rows_alike and (rows != rows[:1]).any():
                return False
        for shuffle in self._shuffles:
            grid = self._free(shuffle, fixed)
            for label in set(grid.ravel().tolist()) & of_component - {-1}:
                places = np.arange(grid.size).reshape(grid.shape)
                stays = grid != label
                smaller = places[stays].reshape(len(grid), -1)
                if not np.array_equal(smaller.T.ravel(), places.T[stays.T]):
                    return False
        return True

    def _free(self, labels: np.ndarray, fixed: set[int]) -> np.ndarray:
        """Returns the labels, -1 for those that stay."""
        roots = self._labels.roots(labels.ravel())
        return np.where(np.isin(roots, list(fixed)), -1, roots).reshape(labels.shape)

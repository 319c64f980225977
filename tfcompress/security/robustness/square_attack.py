"""How little must change for a model that tells its answers only to answer wrongly? Random search over squares."""

import math
from collections.abc import Callable

import numpy as np

__all__ = ["margins", "square"]

SHARE = 0.8  # of the picture in the first square
_HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries
_ALL = 10_000


def square(
    answers: Callable[[np.ndarray], np.ndarray],
    pictures: np.ndarray,
    labels: np.ndarray,
    *,
    eps: float,
    queries: int = 500,
    seed: int = 0,
) -> np.ndarray:
    """Returns pictures that a random search within ``eps`` has brought closest to a wrong answer, in the maximum norm.

    Starts from vertical stripes of +-eps. Each query paints one square of +-eps, smaller as time goes on, and keeps it unless the
    margin of the label over the next class rises. Pictures that are answered wrongly are left as they are.

    Source: Andriushchenko et al., "Square Attack: a query-efficient black-box adversarial attack via random search", 2020,
    https://arxiv.org/abs/1912.00049. They keep a square only where the margin falls; int8 answers have plateaus.

    Args:
        answers: from pictures in [0, 1] to scores (n, classes), or (n, 1) for a binary model, of which class 1 is meant.
        pictures: shape (n, height, width, channels), or (n, ...), whose values are taken for a column; float32 in [0, 1].
        labels: shape (n,), integers.
        eps: largest change of a value.
        queries: answers asked of each picture at most. Default: 500.
        seed: of the search. Default: 0.

    Examples:
        >>> def bright(x):  # class 1 where the sum is above 2
        ...     total = x.reshape(len(x), -1).sum(axis=1)
        ...     return np.stack([2 - total, total - 2], axis=1)
        >>> found = square(bright, np.full((1, 2, 2, 1), 0.4, np.float32), np.array([0]), eps=0.2, queries=50)
        >>> bool(bright(found).argmax() == 1), round(float(np.abs(found - 0.4).max()), 6)
        (True, 0.2)
    """
    random = np.random.default_rng(seed)
    images = pictures if pictures.ndim == 4 else pictures.reshape(len(pictures), -1, 1, 1)
    _, height, width, channels = images.shape
    best = images.copy()
    margin = margins(answers(pictures), labels)

    def ask(places: np.ndarray, tried: np.ndarray) -> None:
        found = margins(answers(tried.reshape(len(places), *pictures.shape[1:])), labels[places])
        lower = found <= margin[places]
        best[places[lower]], margin[places[lower]] = tried[lower], found[lower]

    def painted(origin: np.ndarray, rows: int) -> np.ndarray:
        signs = random.choice(np.array([-eps, eps], np.float32), (len(origin), 1 if rows else height, width, channels))
        return np.clip(origin + signs, 0, 1)

    alive = np.flatnonzero(margin > 0)
    if len(alive):
        ask(alive, painted(images[alive], 1))
    for query in range(1, queries):
        alive = np.flatnonzero(margin > 0)
        if not len(alive):
            break
        share = SHARE / 2 ** sum(query * _ALL / queries > at for at in _HALVED_AT)
        side = max(1, round(math.sqrt(share * height * width)))
        tall, wide = min(side, height), min(side, width)
        rows = random.integers(0, height - tall + 1, len(alive))[:, None] + np.arange(tall)  # (alive, tall)
        columns = random.integers(0, width - wide + 1, len(alive))[:, None] + np.arange(wide)
        window = (np.arange(len(alive))[:, None, None], rows[:, :, None], columns[:, None, :])
        signs = random.choice(np.array([-eps, eps], np.float32), (len(alive), 1, 1, channels))
        tried = best[alive]
        tried[window] = np.clip(images[alive][window] + signs, 0, 1)
        ask(alive, tried)
    return best.reshape(pictures.shape)


def margins(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns how far the label's score is above the next one's, (n,); 0 or less for a wrong answer.

    A tie of the label counts as wrong, unless the label comes first, which is what an arg-max takes.

    Args:
        scores: shape (n, classes), two or more.
        labels: shape (n,), integers.

    Examples:
        >>> margins(np.array([[3.0, 1.0], [3.0, 4.0]]), np.array([0, 0]))
        array([ 2., -1.])
    """
    rows = np.arange(len(scores))
    others = scores.astype(np.float64)
    own = others[rows, labels]
    others[rows, labels] = -np.inf
    apart = own - others.max(axis=1)
    tied = (apart == 0) & (scores.argmax(axis=1) == labels)
    return np.where(tied, np.finfo(np.float64).tiny, apart)

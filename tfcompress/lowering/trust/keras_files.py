"""May this Keras file be opened? One answer for whoever opens it and for whoever only asks."""

from pathlib import Path

from ...errors import ModelError
from .findings import Finding
from .keras_configs import check_config, read_config

__all__ = ["examine_keras"]


def examine_keras(path: Path, *, known: frozenset[str] = frozenset()) -> list[Finding]:
    """Returns what keeps a ``.keras`` or ``.h5`` file from being opened; an empty list if nothing does.

    No loader sees the file.

    Args:
        path: the file.
        known: registered names of custom objects that the caller defined in this process. Default: none.

    Raises:
        ModelError: damaged, or weights without a model.

    Examples:
        >>> examine_keras(Path("models/digits/digits.keras"))
        []
    """
    config = read_config(path)
    try:
        check_config(config, str(path), known)
    except ModelError as error:
        what = str(error).partition(" Received: ")[2].partition(" in ")[0]
        return [Finding("refused", what, "", str(error))]
    return []

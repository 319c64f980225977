"""Fixing dynamic axes: what is fixed stays, what does not fit is refused."""

import pytest

from tfcompress.tflite.shapes import fix_shapes

KNOWN = {"image": (None, None, 8, 3), "state": (None, 4)}


def test_nothing_wanted_changes_nothing():
    assert fix_shapes(KNOWN, None, place="m") == KNOWN
    assert fix_shapes(KNOWN, {"image": (None, None, None, None)}, place="m") == KNOWN


def test_fixing_twice_is_fixing_once():
    once = fix_shapes(KNOWN, {"image": (1, 6, None, 3)}, place="m")
    assert once == {"image": (1, 6, 8, 3), "state": (None, 4)}
    assert fix_shapes(once, {"image": (1, 6, None, 3)}, place="m") == once


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"picture": (1,)}, "must name inputs of m: 'image', 'state'. Received: 'picture'"),
        ({"image": (1, 8, 3)}, "must have 4 axes"),
        ({"image": (1, 6, 9, 3)}, r"keep the sizes .*Received: \(1, 6, 9, 3\)"),
        ({"state": (0, 4)}, "at least 1"),
    ],
    ids=["name", "axes", "size", "zero"],
)
def test_what_does_not_fit_is_refused(wanted, message):
    with pytest.raises(ValueError, match=message):
        fix_shapes(KNOWN, wanted, place="m")

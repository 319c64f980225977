"""A type checker completes and checks the arguments of ``convert``; the literal names are those of the real tables."""

import re
from typing import get_args

import pytest
from type_checker import check_calls

import tfcompress as tfc
from tfcompress.calibration import OBSERVERS, ObserverName
from tfcompress.conversion import RepairMethod
from tfcompress.conversion.repair import METHODS
from tfcompress.data import SCALINGS, ScalingName
from tfcompress.quantization import Backend, TargetName
from tfcompress.quantization.targets import BACKENDS

# Each line that ends in a comment is refused for it; every other one is right.
CALLS = """\
import numpy as np
import tfcompress as tfc
from tfcompress.calibration import Percentile
from tfcompress.data import Scaling

x = np.zeros((100, 4), np.float32)
result = tfc.convert("model.keras")
tfc.convert("model.keras", target="cpu-int8", representative_data=x, calibration="percentile", repair="auto")
tfc.convert("model.keras", target=tfc.TARGETS["micro"], calibration=Percentile(percentile=99.0), repair=["bias", "rounding"])
tfc.convert("model.keras", calibration=tfc.CalibrationOptions("entropy", overrides=[("*logits*", "min_max")], ranges="trained"))
tfc.convert("model.keras", scaling=Scaling(std=(255.0,)), allow_float=["RFFT*"], metadata=tfc.Metadata(labels=["no", "yes"]))
tfc.convert("model.pt2", source=tfc.SourceOptions(input_shapes={"image": (None, 3, 96, 96)}, nhwc=True), progress=print)
tfc.convert("model.keras", rules=[("stem*", "*", None)], allow_float=True, backend="ai-edge-quantizer", debug=True)
if result.calibration is not None:
    tfc.convert("model.keras", calibration=result.calibration)
reveal_type(result)  # Revealed type is "tfcompress.conversion.result.Conversion"

tfc.convert("model.keras", target="cpu-int")  # incompatible type "Literal['cpu-int']"
tfc.convert("model.keras", calibration="percentil")  # incompatible type "Literal['percentil']"
tfc.convert("model.keras", repair=["bais"])  # incompatible type "Literal['bais']"
tfc.convert("model.keras", backend="mlir")  # incompatible type "Literal['mlir']"
tfc.convert("model.keras", scaling="zero-one")  # incompatible type "Literal['zero-one']"
tfc.convert("model.keras", representive_data=x)  # Unexpected keyword argument "representive_data"
tfc.convert("model.keras", observer="percentile")  # Unexpected keyword argument "observer"
tfc.convert("model.keras", "cpu-int8")  # Too many positional arguments
tfc.convert("model.keras", metadata={"name": "digits"})  # expected "Metadata | None"
tfc.CalibrationOptions(ranges="measured")  # incompatible type "Literal['measured']"
tfc.CalibrationOptions(overrides=[("*logits*", "minmax")])  # incompatible type "tuple[str, Literal['minmax']]"
tfc.SourceOptions(nchw=True)  # Unexpected keyword argument "nchw"
"""


@pytest.mark.parametrize(
    "names, table",
    [
        (TargetName, tfc.TARGETS),
        (ObserverName, OBSERVERS),
        (ScalingName, SCALINGS),
        (RepairMethod, METHODS),
        (Backend, BACKENDS),
    ],
)
def test_the_literal_names_are_those_of_the_table(names, table):
    assert get_args(names) == tuple(table)


@pytest.mark.parametrize(
    "keyword, way_out",
    [
        ("representive_data", "Did you mean 'representative_data'?"),
        ("observer", "Did you mean calibration=CalibrationOptions(observer=...)?"),
        ("ranges", "Did you mean calibration=CalibrationOptions(ranges=...)?"),
        ("input_shape", "Did you mean source=SourceOptions(input_shapes=...)?"),
        ("nhwc", "Did you mean source=SourceOptions(nhwc=...)?"),
        ("labels", "Did you mean metadata=Metadata(labels=...)?"),
        ("strict", "It has: model, target, representative_data, "),
    ],
)
def test_a_misspelt_argument_names_the_nearest(keyword, way_out):
    with pytest.raises(TypeError, match=re.escape(f"convert() has no argument {keyword!r}. {way_out}")):
        tfc.convert("model.keras", **{keyword: None})


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"metadata": "digits"}, "metadata must be a Metadata. Received: str. Write metadata=Metadata(...)."),
        ({"source": {"nhwc": True}}, "source must be a SourceOptions. Received: dict."),
        ({"calibration": 3}, "An observer is a name or has init, update, merge and range. Received: int."),
        ({"allow_float": [3]}, "allow_float must be True, False or patterns of operators. Received: [3]."),
    ],
)
def test_another_value_than_the_options_is_refused(arguments, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        tfc.convert("model.keras", **arguments)


@pytest.mark.slow
def test_a_type_checker_refuses_what_is_wrong_and_nothing_else(tmp_path):
    check_calls(CALLS, tmp_path)

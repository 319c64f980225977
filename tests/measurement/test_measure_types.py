"""A type checker completes and checks the arguments of ``measure``, and knows what comes out."""

import pytest
from type_checker import check_calls

CALLS = """\
from pathlib import Path
import tfcompress as tfc
from tfcompress.data import Scaling
from tfcompress.measurement.devices import LocalDevice

result = tfc.convert("model.keras")
reveal_type(tfc.measure("a.tflite"))  # Measurement"
reveal_type(tfc.measure(Path("a.tflite"), device=LocalDevice()))  # Measurement"
reveal_type(tfc.measure(b"...", device="tflm", label="int8"))  # Measurement"
reveal_type(tfc.measure(result, reference=result))  # Measurement"
reveal_type(tfc.measure(["a.tflite", "b.tflite"], label=["a", "b"]))  # list[tfcompress.measurement.records.Measurement |
reveal_type(tfc.measure((result, "a.tflite"), device=["local", "tflm"]))  # list[tfcompress.measurement.records.Measurement |
reveal_type(tfc.measure("a.tflite", device=["local", LocalDevice()]))  # list[tfcompress.measurement.records.Measurement |
tfc.measure("a.tflite", metric="top5", threads=2, scaling="zero_one", progress=print, debug=True)
tfc.measure("a.tflite", metric=["top1", lambda outputs, y: 1.0], scaling=Scaling(std=(255.0,)))
tfc.measure("a.tflite", latency=tfc.LatencyOptions(runs=5, warmup=None, interleave=True, profile=True, seed=1))
tfc.measure("a.tflite", evaluation=tfc.EvaluationOptions(confusion=True, batch=8, workers=1, reset_state=True))
tfc.measure("a.tflite", runtime=tfc.RuntimeOptions("compiled", "gpu", xnnpack=False, cpus=[0, 1]))
tfc.measure("a.tflite", connection=tfc.ConnectionOptions(install=True, timeout_seconds=60))

tfc.measure("a.tflite", num_runs=5)  # No overload variant of "measure" matches
tfc.measure("a.tflite", runs=5)  # No overload variant of "measure" matches
tfc.measure("a.tflite", latency=5)  # No overload variant of "measure" matches
tfc.measure("a.tflite", metric="top9")  # incompatible type "Literal['top9']"
tfc.measure(3)  # No overload variant of "measure" matches
tfc.LatencyOptions(run=5)  # Unexpected keyword argument "run"
tfc.LatencyOptions(runs="5")  # incompatible type "str"
tfc.RuntimeOptions(api="other")  # incompatible type "Literal['other']"
tfc.RuntimeOptions(accelerator="tpu")  # incompatible type "Literal['tpu']"
tfc.inspect("a.tflite", runs=True)  # Unexpected keyword argument "runs"
tfc.compare("a.tflite", result, scaling="zero-one")  # incompatible type "Literal['zero-one']"
tfc.bundle(result, "device", label=["no"])  # Unexpected keyword argument "label"
"""


@pytest.mark.slow
def test_a_type_checker_refuses_what_is_wrong_and_nothing_else(tmp_path):
    check_calls(CALLS, tmp_path)

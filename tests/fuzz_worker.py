"""Opens damaged files in a process of its own: one line "KIND PATH" in, one line of JSON out, until the input ends."""

import json
import os
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np


def read_flatbuffer(path):
    from tfcompress.conversion import verification
    from tfcompress.quantization.targets import TARGETS
    from tfcompress.tflite import flatbuffer, metadata

    content = Path(path).read_bytes()
    model = flatbuffer.parse(content)
    verification.walk(content)
    verification.forbidden_floats(content, TARGETS["cpu-int8"])
    metadata.read(content)
    flatbuffer.pack(model)


def open_interpreter(path):
    from tfcompress.measurement.devices.on_device.agent import run_request

    run_request({"model": path, "threads": 1, "warmup_runs": 0, "runs": 1, "seed": 0, "debug": False})


def open_source(path):
    from tfcompress.lowering.sources import open_source

    open_source(path)


def read_data(path):
    from tfcompress.data import InputSpec, load_representative

    specs = [InputSpec("image", (None, 8, 8, 3), np.dtype(np.float32))]
    for _ in load_representative(path, specs).batches(4):
        pass


def read_records(path):
    from tfcompress.data import InputSpec, TFRecords, load_representative

    specs = [InputSpec("image", (None, 4, 4, 3), np.dtype(np.float32)), InputSpec("age", (None, 1), np.dtype(np.int32))]
    source = TFRecords(path, {"image": {"feature": "png", "kind": "image"}, "age": "age"})
    for _ in load_representative(source, specs).batches(4):
        pass


def read_document(path):
    """As a record of measurements, as rules, as a feature map and as a calibration: each refuses what is not its own."""
    from tfcompress.calibration import Calibration
    from tfcompress.data.readers.tfrecords import read_feature_map
    from tfcompress.errors import TfcompressError
    from tfcompress.measurement.records import measurements_from_json
    from tfcompress.quantization.precision import read_rules

    text = Path(path).read_text(errors="replace")
    found = 0
    for read in (
        lambda: measurements_from_json(text),
        *(lambda r=r: r(path) for r in (read_rules, read_feature_map, Calibration.load)),
    ):
        try:
            for each in np.ravel(np.array(read(), object)):
                str(each)
            found += 1
        except (TfcompressError, ValueError, TypeError) as error:
            if len(str(error).splitlines()) != 1:
                raise RuntimeError(f"not one line: {error}") from error
            last = error
    if not found:
        raise last if isinstance(last, TfcompressError) else TfcompressError(str(last))


KINDS = {
    "flatbuffer": read_flatbuffer,
    "interpreter": open_interpreter,
    "source": open_source,
    "data": read_data,
    "document": read_document,
    "records": read_records,
}


def peak_bytes():
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    from tfcompress.errors import TfcompressError

    warnings.simplefilter("ignore")
    for line in sys.stdin:
        kind, _, path = line.rstrip("\n").partition(" ")
        foreign, outcome = "", "opened"
        try:
            KINDS[kind](path)
        except TfcompressError as error:
            outcome = type(error).__name__
            if len(str(error).splitlines()) != 1:
                foreign = f"not one line: {error}"
        except Exception:  # noqa: BLE001 - what is foreign is what this looks for
            foreign = traceback.format_exc()
        answers.write(json.dumps({"outcome": outcome, "foreign": foreign, "peak_bytes": peak_bytes()}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

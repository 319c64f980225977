"""How good, how small and how fast is a file on a device?

In: ``.tflite`` files (or what ``convert`` returns, or a Keras model), labelled samples, names of devices. Out: a
``Measurement`` of each file on each device, as a record, a table, CSV or JSON.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .latency import Ratio as Ratio
    from .measuring import measure as measure
    from .op_times import Profile as Profile
    from .op_times import compare_profiles as compare_profiles
    from .options import ConnectionOptions as ConnectionOptions
    from .options import EvaluationOptions as EvaluationOptions
    from .options import LatencyOptions as LatencyOptions
    from .options import RuntimeOptions as RuntimeOptions
    from .parallel_devices import Interrupted as Interrupted
    from .records import Failure as Failure
    from .records import Measurement as Measurement
    from .records import Reference as Reference
    from .records import Result as Result
    from .records import json_lines as json_lines
    from .records import json_text as json_text
    from .records import measurements_from_json as measurements_from_json
    from .tables import csv_text as csv_text
    from .tables import measurement_table as measurement_table
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "latency": ["Ratio"],
            "measuring": ["measure"],
            "op_times": ["Profile", "compare_profiles"],
            "options": ["ConnectionOptions", "EvaluationOptions", "LatencyOptions", "RuntimeOptions"],
            "parallel_devices": ["Interrupted"],
            "records": [
                "Failure",
                "Measurement",
                "Reference",
                "Result",
                "json_lines",
                "json_text",
                "measurements_from_json",
            ],
            "tables": ["csv_text", "measurement_table"],
        },
    )

"""What is lost between two files, layer by layer?

In: two ``.tflite`` files and samples. Out: the error of each layer, its own and what it inherited, and where the files part.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .agreement import Agreement as Agreement
    from .agreement import compare as compare
    from .layer_comparison import layer_reports as layer_reports
    from .layer_errors import LayerError as LayerError
    from .layer_errors import LayerReport as LayerReport
    from .layer_errors import ranking as ranking
    from .layer_errors import report_table as report_table
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "agreement": ["Agreement", "compare"],
            "layer_comparison": ["layer_reports"],
            "layer_errors": ["LayerError", "LayerReport", "ranking", "report_table"],
        },
    )

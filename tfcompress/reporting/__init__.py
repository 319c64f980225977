"""What do people read about a file who have not made it?

In: measurements, conversions, inspections. Out: self-contained HTML pages with plots, text, and records as JSON.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .file_report import conversion_record as conversion_record
    from .file_report import conversion_report as conversion_report
    from .file_report import conversion_text as conversion_text
    from .file_report import inspection_report as inspection_report
    from .measurement_report import report as report
    from .robustness_report import robustness_report as robustness_report
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "file_report": ["conversion_record", "conversion_report", "conversion_text", "inspection_report"],
            "measurement_report": ["report"],
            "robustness_report": ["robustness_report"],
        },
    )

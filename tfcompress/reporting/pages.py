"""How a page is filled in: the templates of this folder, with names of any kind escaped and printable."""

from pathlib import Path
from typing import Any

from ..system.printable import printable_lines
from ..system.text_tables import (
    bytes_text,
    count_text,
    decibel_text,
    milliseconds_text,
    number_text,
    share_text,
    size_text,
)

__all__ = ["render"]


def render(template: str, **values: Any) -> str:
    """Returns a page.

    Args:
        template: name of a file in this folder.
        values: what it asks for; a name that is missing is an error.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters.update(
        size=size_text,
        bytes=bytes_text,
        milliseconds=milliseconds_text,
        count=count_text,
        decibels=decibel_text,
        real=number_text,
        share=share_text,
    )
    return environment.get_template(template).render(**values)


def _printable(value: Any) -> Any:
    """Returns text of names and the like without what steers a browser's text; a picture or a page's part stays as it is."""
    return value if hasattr(value, "__html__") else printable_lines(str(value))

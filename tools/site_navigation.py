"""Lists the pages of docs/ that mkdocs.yml does not name, so that a new guide is in the site without a line there.

A hook of MkDocs (``hooks`` in mkdocs.yml): it is called with the site's configuration before the navigation is read.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

SECTION = "Applications and models"


def on_config(config: Any) -> Any:
    """Adds the pages that no section names to those of ``SECTION``, in the order of their names."""
    folder = Path(config.docs_dir)
    named = set(_pages(config.nav))
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.md"))
    unnamed = [page for page in found if page not in named]
    for entry in config.nav:
        if SECTION in entry:
            entry[SECTION] = [*entry[SECTION], *unnamed]
    return config


def _pages(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
        yield from _pages(inner)

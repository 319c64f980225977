"""The part of this package that runs on a board, as one zip archive that Python runs as it is.

NumPy and LiteRT are all that it imports besides; ``agent.MODULES`` says what it holds, ``deployment`` is where it starts.
"""

import functools
import hashlib
import io
import zipfile
from pathlib import Path, PurePosixPath

from ..on_device.agent import MODULES

__all__ = ["build", "contents", "sha256"]

PACKAGE = Path(__file__).resolve().parents[3]
START = "from tfcompress.measurement.devices.on_device.deployment import main\n\nmain()\n"
EARLIEST = (1980, 1, 1, 0, 0, 0)  # a zip archive knows no earlier time; a fixed one gives equal bytes
DEPLOYMENT = "measurement/devices/on_device/deployment.py"
PACKAGE_DOC = '"""The part of tfcompress that runs on a board."""\n'


def contents() -> dict[str, str]:
    """Returns the source of every file in the archive by its name.

    Examples:
        >>> sorted(contents())[:2]
        ['__main__.py', 'tfcompress/__init__.py']
    """
    names = sorted({*MODULES, DEPLOYMENT})
    sources = {f"tfcompress/{name}": (PACKAGE / name).read_text(encoding="utf-8") for name in names}
    # A package's own __init__ offers names of modules that a board does not get.
    folders = sorted({str(folder) for name in sources for folder in PurePosixPath(name).parents if folder.name})
    return {"__main__.py": START, **{f"{folder}/__init__.py": PACKAGE_DOC for folder in folders}, **sources}


@functools.cache
def build() -> bytes:
    """Returns the archive; the same sources give the same bytes.

    Examples:
        >>> build()[:2], build() == build()
        (b'PK', True)
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in contents().items():
            archive.writestr(zipfile.ZipInfo(name, EARLIEST), source, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def sha256() -> str:
    """Returns the archive's SHA-256 in hexadecimal digits.

    Examples:
        >>> len(sha256())
        64
    """
    return hashlib.sha256(build()).hexdigest()

"""How does a model get into a program that has no file system? As a C array that the linker puts into flash memory.

The array is aligned to 16 bytes, as TFLite Micro asks of a model. Compiles as C11 and as C++11.
"""

from .snippets import render

__all__ = ["array_files"]

BYTES_PER_ROW = 16


def array_files(content: bytes, sha256: str) -> dict[str, str]:
    """Returns the texts of ``model.h`` and ``model.cc``.

    Args:
        content: the bytes of the file.
        sha256: their hash, 64 hexadecimal digits.

    Examples:
        >>> print(array_files(b"TFL3", "0" * 64)["model.cc"].splitlines()[-2])
            0x54,0x46,0x4c,0x33,
    """
    rows = [
        "0x" + content[start : start + BYTES_PER_ROW].hex(",").replace(",", ",0x") + ","
        for start in range(0, len(content), BYTES_PER_ROW)
    ]
    values = {"size": len(content), "sha256": sha256, "rows": rows}
    return {name: render(f"{name}.jinja", **values) for name in ("model.h", "model.cc")}

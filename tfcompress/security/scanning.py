"""What is this model file, what would it run, and may it be opened? Asked without opening it.

The answer comes from the functions that ``convert`` asks before it opens a file, so that the two cannot disagree. No model is
loaded; TensorFlow is imported for its file format where the file is a SavedModel.
"""

import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..lowering.trust import Finding

__all__ = ["Scan", "scan"]

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_RULES = {
    "refused": "The file would run code, reach files or exhaust memory if it were opened, or it is damaged.",
    "note": "The file can be opened; whoever runs it should know this.",
}


@dataclass(frozen=True, repr=False)
class Scan:
    """What was found in a model file.

    Attributes:
        path: as it was given.
        kind: what the file is, such as "SavedModel".
        findings: what keeps it from being opened ("refused"), and what one should know ("note").
    """

    path: str
    kind: str
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> tuple[Finding, ...]:
        """The findings that keep the file from being opened."""
        return tuple(finding for finding in self.findings if finding.severity == "refused")

    @property
    def verdict(self) -> str:
        """The word "refused" if there is such a finding, else "clean"."""
        return "refused" if self.refused else "clean"

    def __repr__(self) -> str:
        lines = [f"{self.path}: {self.kind}, {self.verdict}"]
        for finding in self.findings:
            lines.append(f"  {finding.severity}: {finding.what}{f' ({finding.where})' if finding.where else ''}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Returns the account as values of JSON."""
        findings = [finding._asdict() for finding in self.findings]
        return {"path": self.path, "kind": self.kind, "verdict": self.verdict, "findings": findings}

    def to_sarif(self) -> dict[str, Any]:
        """Returns the account as a log of SARIF 2.1.0, which GitHub and editors show.

        Source: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0, 2023.
        """
        levels = {"refused": "error", "note": "note"}
        uri = Path(self.path).as_posix()
        results = [
            {
                "ruleId": finding.severity,
                "ruleIndex": list(_RULES).index(finding.severity),
                "level": levels[finding.severity],
                "message": {"text": finding.reason},
                "locations": [
                    {
                        "physicalLocation": {"artifactLocation": {"uri": _uri(uri)}},
                        "logicalLocations": [{"fullyQualifiedName": finding.where or self.kind}],
                    }
                ],
            }
            for finding in self.findings
        ]
        rules = [{"id": name, "shortDescription": {"text": text}} for name, text in _RULES.items()]
        driver = {
            "name": "tfcompress scan",
            "version": importlib.metadata.version("tfcompress"),
            "rules": rules,
        }
        run = {"tool": {"driver": driver}, "artifacts": [{"location": {"uri": _uri(uri)}}], "results": results}
        return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _uri(path: str) -> str:
    from urllib.parse import quote

    return quote(os.fsencode(path))


def scan(model: str | os.PathLike) -> Scan:
    """Returns what a model file is and what would run if it were opened, without opening it.

    Args:
        model: path of a ``.keras``, ``.h5``, ``.tflite``, ``.pt2``, ``.pt``, ``.pth`` or ``.ptl`` file, or of a SavedModel folder.

    Raises:
        ModelError: there is no such file, it cannot be read, or it is no model.

    Examples:
        >>> scan("models/digits/digits.keras")
        models/digits/digits.keras: Keras model (.keras), clean
    """
    path = Path(model)
    kind, examine = _examination(path)
    try:
        found = examine()
    except ModelError as error:  # damaged: no loader sees it either
        what = str(error).partition(" Received: ")[2] or str(error)
        found = [Finding("refused", f"damage: {what}", "", str(error))]
    return Scan(os.fspath(model), kind, tuple(found))


def _examination(path: Path) -> tuple[str, Callable[[], list[Finding]]]:
    """Returns what a file is by its first bytes, and the function that says what is in it."""
    from ..lowering.pytorch import files
    from ..lowering.pytorch.examination import examine_torch
    from ..lowering.tflite_examination import examine_tflite

    if path.is_dir():
        return "SavedModel", lambda: _saved_model(path)
    head = _head(path)
    if head[4:8] == b"TFL3":
        return "LiteRT model (.tflite)", lambda: examine_tflite(path.read_bytes(), place=str(path))
    torch_kinds = {
        "pt2": "torch.export program (.pt2)",
        "torchscript": "TorchScript archive",
        "pickle": "PyTorch pickle",
    }
    if (torch_kind := files.detect(path)) is not None:
        return torch_kinds[torch_kind], lambda: examine_torch(path)
    if head[:4] == b"PK\x03\x04":
        return "Keras model (.keras)", lambda: _keras(path)
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        return "Keras model (.h5)", lambda: _keras(path)
    raise ModelError(
        f"The model must be a .keras, .h5, .tflite, .pt2 or .pt file or a SavedModel folder. Received: {path}, "
        f"{path.stat().st_size} bytes of something else."
    )


def _head(path: Path) -> bytes:
    if not path.exists():
        raise ModelError(f"The model file must exist. Received: {path}. Check the path.")
    if not path.is_file():
        raise ModelError(f"The model must be a plain file or a folder. Received: {path}, a pipe or a device.")
    try:
        with open(path, "rb") as file:
            return file.read(8)
    except OSError as error:
        raise ModelError(f"The model file must be readable. Received: {path} ({error.strerror}).") from error


def _saved_model(path: Path) -> list[Finding]:
    import shutil

    from ..lowering import trust

    if not (path / "saved_model.pb").is_file():
        raise ModelError(f"A model folder must be a SavedModel. Received: {path} without saved_model.pb.")
    copy = trust.copy_saved_model(path)
    try:
        return trust.examine_saved_model(copy, place=str(path))
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _keras(path: Path) -> list[Finding]:
    from ..lowering import trust

    return trust.examine_keras(path)

"""What is in a model, in the words that inventories read? A CycloneDX 1.6 bill of materials for machine learning, as JSON.

It says what the caller and the file say: hashes, recipe, versions, and what was measured of this very file. It holds no time: the same
inputs give the same bytes.

Source: The OWASP Foundation, "CycloneDX Bill of Materials Standard", version 1.6 (ECMA-424), 2024, https://cyclonedx.org.
"""

import dataclasses
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..measurement import Measurement, measurements_from_json
from .provenance import Recipe, digest_of

__all__ = ["BILL", "Origin", "bill_of"]

BILL = "bom.cdx.json"
SPDX = re.compile(r"[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*")
NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # of names that are URLs, RFC 4122


@dataclasses.dataclass(frozen=True)
class Origin:
    """What nobody can read off a file: its licence, its parent, how it was trained, what was measured of it.

    Args:
        license: an SPDX expression such as "Apache-2.0", or a name. Default: None, not said.
        parent: the model that training started from or that was distilled; of a path that exists the hash is recorded.
            Default: None.
        training: how the source was trained, by the words for it. Default: nothing.
        measurement: a record of ``measure`` of this file, or the path of one. Default: None.

    Raises:
        ValueError: an empty licence or parent.

    Examples:
        >>> Origin("Apache-2.0", training={"epochs": "20", "callbacks": "MagnitudePruning(0.75)"}).license
        'Apache-2.0'
    """

    license: str | None = None
    parent: str | os.PathLike | None = None
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    measurement: Measurement | str | os.PathLike | None = None

    def __post_init__(self) -> None:
        for name in ("license", "parent"):
            value = getattr(self, name)
            if value is not None and not str(value).strip():
                raise ValueError(f"{name} must say something. Received: {name}={value!r}. Leave it out.")
        if not isinstance(self.training, Mapping):
            raise TypeError(f"training must be texts by name. Received: {type(self.training).__name__}.")

    def measured(self, sha256: str) -> Measurement | None:
        """Returns the record of the file with this hash; None where none was given.

        Raises:
            DataError: it cannot be read, or is of other files.
        """
        if self.measurement is None:
            return None
        if isinstance(self.measurement, Measurement):
            records = [self.measurement]
        else:
            try:
                records = measurements_from_json(Path(self.measurement).read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"The record must be readable. Received: {self.measurement} ({error}).") from error
        for record in records:
            if record.model_sha256 == sha256:
                return record
        raise DataError(
            f"The record must be of this very file. Received: none of SHA-256 {sha256[:12]}. Measure it, then write the bundle again."
        )


def bill_of(
    name: str,
    sha256: str,
    *,
    version: str,
    source: str,
    inputs: list[dict[str, Any]],
    outputs: list[dict[str, Any]],
    recipe: Recipe | None,
    origin: Origin,
    statement: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the bill of materials of one file.

    Args:
        name: the model's.
        sha256: the file's.
        version: the model's.
        source: what it was made from.
        inputs: its tensors, as ``snippets.describe`` has them.
        outputs: likewise.
        recipe: how it was converted, None where nobody recorded it.
        origin: what the caller says.
        statement: its provenance, of which the versions and the settings are repeated here.

    Raises:
        DataError: the record is of another file.
    """
    definition = statement["predicate"]["buildDefinition"]
    packages = [each for each in definition["resolvedDependencies"] if each["uri"].startswith("pkg:")]
    components = [_source(source, recipe, origin), *_files(recipe), *map(_package, packages)]
    record = origin.measured(sha256)
    card: dict[str, Any] = {
        "modelParameters": {
            "inputs": [{"format": _format(tensor)} for tensor in inputs],
            "outputs": [{"format": _format(tensor)} for tensor in outputs],
            **({"datasets": [{"ref": "representative_data"}]} if recipe is not None and recipe.data else {}),
        }
    }
    if record is not None:
        card["quantitativeAnalysis"] = {"performanceMetrics": list(_metrics(record))}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, sha256)}",
        "version": 1,
        "metadata": {
            "tools": {"components": [_package(each) for each in packages if each["name"] == "tfcompress"]},
            "component": {
                "type": "machine-learning-model",
                "bom-ref": "model.tflite",
                "name": name,
                "version": version,
                "hashes": _hashes(sha256),
                **({"licenses": [_license(origin.license)]} if origin.license else {}),
                "pedigree": {"ancestors": [_without_ref(components[0])]},
                "modelCard": card,
            },
        },
        "components": components,
        "dependencies": [
            {"ref": "model.tflite", "dependsOn": sorted(each["bom-ref"] for each in components)},
        ],
        "formulation": [
            {
                "bom-ref": "recipe",
                "workflows": [
                    {
                        "bom-ref": "convert",
                        "uid": "convert",
                        "name": "tfcompress convert",
                        "taskTypes": ["build"],
                        "properties": [
                            *_properties("flag", {} if recipe is None else recipe.flags),
                            *_properties("setting", definition["internalParameters"]),
                        ],
                    }
                ],
            }
        ],
    }


def _source(source: str, recipe: Recipe | None, origin: Origin) -> dict[str, Any]:
    """Returns the model that was converted, with its own parent and how it was trained."""
    found: dict[str, Any] = {"type": "machine-learning-model", "bom-ref": "source", "name": source}
    if recipe is not None:
        found["hashes"] = _hashes(recipe.model.sha256)
    if origin.parent is not None:
        parent = Path(origin.parent)
        ancestor: dict[str, Any] = {
            "type": "machine-learning-model",
            "name": parent.name if parent.exists() else str(parent),
        }
        if parent.exists():
            ancestor["hashes"] = _hashes(digest_of(parent))
        found["pedigree"] = {"ancestors": [ancestor]}
    if origin.training:
        found["properties"] = _properties("training", origin.training)
    return found


def _files(recipe: Recipe | None) -> Iterator[dict[str, Any]]:
    for each in () if recipe is None else recipe.inputs[1:]:
        kind = "data" if each.flag == "representative_data" and not each.is_script else "file"
        yield {"type": kind, "bom-ref": each.flag, "name": Path(each.path).name, "hashes": _hashes(each.sha256)}


def _package(each: Mapping[str, Any]) -> dict[str, Any]:
    version = each["uri"].rpartition("@")[2]
    return {"type": "library", "bom-ref": each["uri"], "name": each["name"], "version": version, "purl": each["uri"]}


def _metrics(record: Measurement) -> Iterator[dict[str, str]]:
    """Yields what was measured; how and on what stands in the slice."""
    data = f"{record.samples} samples" + (f", data SHA-256 {record.data_sha256}" if record.data_sha256 else "")
    scores = dict(record.scores) or ({} if record.accuracy is None else {record.metric: record.accuracy})
    for name, score in scores.items():
        yield {"type": name, "value": f"{score:.6g}", "slice": data}
    where = f"{record.kind} on {record.device.name}, threads {record.settings.threads}"
    if record.latency is not None:
        yield {"type": "median latency (ms)", "value": f"{record.latency.median_ms:.6g}", "slice": where}
    if record.peak_bytes is not None:
        yield {"type": "peak resident size (bytes)", "value": str(record.peak_bytes), "slice": where}


def _format(tensor: Mapping[str, Any]) -> str:
    shape = " x ".join("any" if size is None else str(size) for size in tensor["shape"])
    return f"{tensor['name']}: {tensor['dtype']}, {shape}"


def _hashes(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]


def _license(text: str) -> dict[str, Any]:
    return {"expression": text} if SPDX.fullmatch(text) else {"license": {"name": text}}


def _properties(kind: str, values: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"name": f"tfcompress:{kind}:{name}", "value": str(value)} for name, value in values.items()]


def _without_ref(component: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in component.items() if name != "bom-ref"}

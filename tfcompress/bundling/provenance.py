"""Where does a file come from: which model, which data, which conversion, by which versions? An in-toto statement of SLSA provenance.

It lies in the bundle, so that the bundle's signature covers it. It holds no time and no path of the machine: the same inputs give the
same bytes. What it says is what the maker says; ``tfcompress reproduce`` tries it.

Sources: "SLSA Provenance", version 1, https://slsa.dev/spec/v1.0/provenance; "in-toto Attestation Framework", version 1,
https://github.com/in-toto/attestation.
"""

import dataclasses
import hashlib
import json
import os
import platform
import stat
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ..errors import DataError, SignatureError, reason
from ..system.user_functions import names_a_function
from .snippets import plain

__all__ = [
    "FLOAT_MODEL",
    "PROVENANCE",
    "Input",
    "Recipe",
    "Statement",
    "chain",
    "digest_of",
    "read_statement",
    "statement_of",
    "tool_versions",
]

PROVENANCE = "provenance.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "pkg:pypi/tfcompress#convert"
BUILDER = "pkg:pypi/tfcompress"
FLOAT_MODEL = "float.tflite"
CHUNK_BYTES = 1 << 20
TOOLS = (  # what the bytes of a file depend on
    "tfcompress",
    "tensorflow",
    "keras",
    "tf_keras",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "numpy",
    "flatbuffers",
    "pillow",
)
PYTORCH_TOOLS = ("torch", "litert-torch")
PYTORCH_FILES = (".pt", ".pt2", ".pth")


@dataclasses.dataclass(frozen=True)
class Input:
    """A file or folder that a conversion reads.

    Args:
        flag: which flag of ``tfcompress convert`` names it.
        path: where it lies, from the folder that holds the bundle; its last part alone where it is elsewhere.
        sha256: as ``digest_of`` has it.
        function: which function of a script; "" for data. Default: "".

    Examples:
        >>> Input("representative_data", "x.npz", "0" * 64).is_script
        False
    """

    flag: str
    path: str
    sha256: str
    function: str = ""

    @property
    def is_script(self) -> bool:
        """Whether it is code, which nobody runs unasked."""
        return bool(self.function) or names_a_function(self.path)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a file was converted, so that it can be done again.

    Args:
        flags: those of ``tfcompress convert`` that steer the bytes, with their values; defaults are left out.
        inputs: the files that it read; the model first.

    Examples:
        >>> Recipe({"target": "cpu-int8"}, (Input("model", "m.keras", "0" * 64),)).model.path
        'm.keras'
    """

    flags: Mapping[str, Any]
    inputs: tuple[Input, ...]

    @property
    def model(self) -> Input:
        """The model that was converted."""
        return self.inputs[0]

    @property
    def data(self) -> Input | None:
        """The data that ranges were measured on, if any."""
        return next((each for each in self.inputs if each.flag == "representative_data"), None)


def digest_of(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file; of a folder, that of the sorted lines "digest  name" of all files in it, as ``sha256sum`` prints them.

    Args:
        path: a file or a folder; links are followed.

    Raises:
        DataError: it is not there, unreadable, or not a regular file.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a").write_bytes(b"abc")
        ...     digest_of(Path(folder, "a"))
        'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
    """
    path = Path(path)
    try:
        if not path.is_dir():
            return _file_digest(path)
        lines = [
            _file_digest(Path(here, name)).encode()
            + b"  "
            + os.fsencode(os.path.relpath(Path(here, name), path))
            + b"\n"
            for here, _, files in os.walk(path)
            for name in files
        ]
        return hashlib.sha256(b"".join(sorted(lines))).hexdigest()
    except OSError as error:
        raise DataError(f"A recorded input must be readable. Received: {path} ({error.strerror}).") from error


def _file_digest(path: Path) -> str:
    if not stat.S_ISREG(path.stat().st_mode):
        raise DataError(f"A recorded input must be a regular file. Received: {path}. Copy it to one.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tool_versions(model: str = "") -> dict[str, str]:
    """Returns the versions of what makes a file's bytes, by package; those that are not installed are left out.

    Args:
        model: the source, whose kind decides whether PyTorch took part. Default: "", it did not.

    Examples:
        >>> "tensorflow" in tool_versions(), "torch" in tool_versions()
        (True, False)
    """
    found = {}
    for name in (*TOOLS, *(PYTORCH_TOOLS if model.endswith(PYTORCH_FILES) else ())):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def statement_of(sha256: str, *, source: str, recipe: Recipe | None, said: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the statement of one file.

    Args:
        sha256: the file's.
        source: what it was made from, for people.
        recipe: how; None where the caller converted in Python, or has a finished file.
        said: what a conversion says of itself: "settings" and "byproducts"; nothing of a finished file.

    Examples:
        >>> made = statement_of("0" * 64, source="m.keras", recipe=None, said={})
        >>> made["predicateType"], made["subject"][0]["name"]
        ('https://slsa.dev/provenance/v1', 'model.tflite')
    """
    inputs = () if recipe is None else recipe.inputs
    versions = tool_versions(source)
    packages = [{"name": name, "uri": f"pkg:pypi/{name}@{version}"} for name, version in versions.items()]
    made_here = recipe is not None or bool(said)
    system = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": "model.tflite", "digest": {"sha256": sha256}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"source": source, "flags": None if recipe is None else dict(recipe.flags)},
                "internalParameters": {**system, **said.get("settings", {})} if made_here else {},
                "resolvedDependencies": [*map(_descriptor, inputs), *(packages if made_here else [])],
            },
            "runDetails": {
                "builder": {"id": f"{BUILDER}@{versions.get('tfcompress', 'unknown')}"},
                "byproducts": [
                    {"name": name, "digest": {"sha256": digest}} for name, digest in said.get("byproducts", {}).items()
                ],
            },
        },
    }


def _descriptor(each: Input) -> dict[str, Any]:
    function = {"annotations": {"function": each.function}} if each.function else {}
    return {"name": each.flag, "uri": each.path, "digest": {"sha256": each.sha256}, **function}


@dataclasses.dataclass(frozen=True)
class Statement:
    """What a bundle's statement says, read.

    Args:
        sha256: of the file that it is about.
        source: what that was made from, for people.
        recipe: how; None where the statement has none.
        versions: of the tools, by package.
        settings: what else the conversion said of itself.
        byproducts: digests of what came in between, by name.
    """

    sha256: str
    source: str
    recipe: Recipe | None
    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    byproducts: Mapping[str, str]


def read_statement(content: bytes, place: str = PROVENANCE) -> Statement:
    """Returns what a statement says.

    Args:
        content: the file's bytes.
        place: what messages call it. Default: "provenance.json".

    Raises:
        DataError: it is no such statement.

    Examples:
        >>> made = statement_of("0" * 64, source="m.keras", recipe=None, said={})
        >>> read_statement(json.dumps(made).encode()).source
        'm.keras'
    """
    try:
        stated = json.loads(content)
        if (stated["_type"], stated["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
            raise ValueError(f"it is {stated['predicateType']!r}")
        definition, details = stated["predicate"]["buildDefinition"], stated["predicate"]["runDetails"]
        if definition["buildType"] != BUILD_TYPE:
            raise ValueError(f"another tool made it, {definition['buildType']!r}")
        ((name, sha256),) = [(each["name"], each["digest"]["sha256"]) for each in stated["subject"]]
        named = definition["resolvedDependencies"]
        inputs = tuple(
            Input(
                _text(each["name"]),
                _text(each["uri"]),
                _text(each["digest"]["sha256"]),
                _text(each.get("annotations", {}).get("function", "")),
            )
            for each in named
            if "digest" in each
        )
        packages = [
            _text(each["uri"]).removeprefix("pkg:pypi/").partition("@") for each in named if "digest" not in each
        ]
        flags = definition["externalParameters"]["flags"]
        if flags is not None and (not isinstance(flags, dict) or not inputs or inputs[0].flag != "model"):
            raise ValueError("a recipe has flags and a model")
        if name != "model.tflite":
            raise ValueError(f"it is about {name!r}")
        return Statement(
            _text(sha256),
            _text(definition["externalParameters"]["source"]),
            None if flags is None else Recipe(flags, inputs),
            {package: version for package, _, version in packages},
            dict(definition["internalParameters"]),
            {_text(each["name"]): _text(each["digest"]["sha256"]) for each in details["byproducts"]},
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{place} must be a statement of SLSA provenance. Received: {reason(error)}.") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def chain(statement: Statement, model: bytes) -> Iterator[str]:
    """Yields the chain from the float model to the file, one link a line.

    Args:
        statement: what the bundle says.
        model: the bytes of its file.

    Raises:
        SignatureError: the statement is of another file.

    Examples:
        >>> found = hashlib.sha256(b"TFL3").hexdigest()
        >>> made = statement_of(found, source="m.keras", recipe=None, said={"byproducts": {"float.tflite": "0" * 64}})
        >>> for line in chain(read_statement(json.dumps(made).encode()), b"TFL3"):
        ...     print(line)
        from  m.keras, whose hash nobody recorded
        with  tfcompress ...
          ->  float.tflite, SHA-256 0000...
          ->  model.tflite, SHA-256 ..., the file that is here
    """
    found = hashlib.sha256(model).hexdigest()
    if statement.sha256 != found:
        raise SignatureError(
            f"{PROVENANCE} must be of the file beside it. Received: one of {statement.sha256[:12]}, the file has {found[:12]}."
        )
    if statement.recipe is None:
        yield f"from  {plain(statement.source)}, whose hash nobody recorded"
    else:
        for i, each in enumerate(statement.recipe.inputs):
            function = f":{each.function}" if each.function else ""
            yield f"{' and ' if i else 'from '} {plain(f'{each.path}{function}, SHA-256 {each.sha256} (--{each.flag})')}"
        flags = " ".join(f"--{name}={value}" for name, value in statement.recipe.flags.items())
        yield f"  by  convert {plain(flags)}".rstrip()
    if statement.versions:
        yield f"with  {plain(', '.join(f'{name} {version}' for name, version in statement.versions.items()))}"
    for name, digest in statement.byproducts.items():
        yield f"  ->  {plain(f'{name}, SHA-256 {digest}')}"
    yield f"  ->  model.tflite, SHA-256 {found}, the file that is here"

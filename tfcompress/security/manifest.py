"""Which files belong to a model, and what is the digest of each? The manifest of OpenSSF Model Signing v1.0.

Names, order, exclusions and the root digest are those of the specification's sections 6.1 to 6.5. Nothing is signed here.

Source: The OpenSSF, "OpenSSF Model Signing (OMS) Specification", version 1.0, 2025,
https://github.com/ossf/model-signing-spec.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from ..errors import SignatureError

__all__ = ["Manifest", "Resource", "Serialization", "digests_of", "files_of", "manifest_of"]

ALWAYS_IGNORED = (".git", ".gitattributes", ".github", ".gitignore")  # section 6.2
HASHES: dict[str, Callable[..., Any]] = {"sha256": hashlib.sha256, "blake2b": hashlib.blake2b}
CHUNK_BYTES = 1 << 20


class Resource(NamedTuple):
    """One file, or one shard of it, that a signature covers.

    Args:
        name: its path below the model, with "/" between the parts; "path:start:end" for a shard.
        digest: of its bytes, in hexadecimal digits.
    """

    name: str
    digest: str


class Serialization(NamedTuple):
    """How files are listed and hashed.

    Args:
        hash_type: "sha256" or "blake2b". Default: "sha256".
        shard_size: bytes of a shard, None where each file has one digest. Default: None.
        allow_symlinks: whether links are followed. Default: False.
        ignore_paths: paths below the model that are left out, besides git's own. Default: none.
    """

    hash_type: str = "sha256"
    shard_size: int | None = None
    allow_symlinks: bool = False
    ignore_paths: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns the object of the specification's section 5.2.2."""
        sharded = {} if self.shard_size is None else {"shard_size": self.shard_size}
        return {
            "method": "files" if self.shard_size is None else "shards",
            "hash_type": self.hash_type,
            **sharded,
            "allow_symlinks": self.allow_symlinks,
            "ignore_paths": sorted({*ALWAYS_IGNORED, *self.ignore_paths}),
        }

    @classmethod
    def from_json(cls, stated: Any) -> "Serialization":
        """Returns it from a signed predicate.

        Raises:
            SignatureError: a method or hash that this package does not know.
        """
        if not isinstance(stated, dict) or stated.get("method") not in ("files", "shards"):
            raise _unknown("serialization", stated)
        size = stated.get("shard_size")
        if (stated["method"] == "shards") != (type(size) is int and size > 0):
            raise _unknown("shard_size", size)
        if stated.get("hash_type") not in HASHES:
            raise _unknown("hash_type", stated.get("hash_type"))
        ignored = stated.get("ignore_paths", [])
        if not isinstance(ignored, list) or not all(isinstance(path, str) for path in ignored):
            raise _unknown("ignore_paths", ignored)
        return cls(stated["hash_type"], size, stated.get("allow_symlinks") is True, tuple(ignored))


class Manifest(NamedTuple):
    """What a signature covers.

    Args:
        name: the model's own name, for people.
        resources: files with their digests, sorted by name.
        serialization: how they were listed and hashed.
    """

    name: str
    resources: tuple[Resource, ...]
    serialization: Serialization

    @property
    def root_sha256(self) -> str:
        """One SHA-256 over the digests of all files in their order."""
        return hashlib.sha256(b"".join(bytes.fromhex(resource.digest) for resource in self.resources)).hexdigest()


def manifest_of(model: str | os.PathLike, serialization: Serialization = Serialization()) -> Manifest:  # noqa: B008
    """Returns the manifest of a file or a folder.

    Args:
        model: a file, or a folder with everything below it.
        serialization: how files are listed and hashed. Default: SHA-256 of whole files, links refused.

    Raises:
        SignatureError: nothing to sign, a link, a special file, or a name that is no UTF-8.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "model.tflite").write_bytes(b"TFL3")
        ...     print(*manifest_of(folder).resources)
        Resource(name='model.tflite', digest='...')
    """
    path = Path(model)
    resources: list[Resource] = []
    for name, file in files_of(path, serialization):
        with file.open("rb") as stream:
            resources += digests_of(name, stream, serialization)
    if not resources:
        raise SignatureError(f"A signature needs at least one file. Received: {path} without any. Name a model.")
    return Manifest(path.resolve().name, tuple(sorted(resources)), serialization)


def files_of(path: Path, serialization: Serialization) -> Iterator[tuple[str, Path]]:
    """Yields the name and the path of each file that belongs to a model.

    Args:
        path: a file or a folder.
        serialization: what is left out, and whether links are followed.

    Raises:
        SignatureError: as ``manifest_of`` has it.
    """
    if not path.exists():
        raise SignatureError(f"The model must exist. Received: {path}. Check the path.")
    if not path.is_dir():
        yield _checked_name(path.name, path), _regular(path, serialization)
        return
    ignored = {PurePosixPath(name) for name in (*ALWAYS_IGNORED, *serialization.ignore_paths)}
    for folder, folders, files in os.walk(path, onerror=_raise, followlinks=serialization.allow_symlinks):
        here = PurePosixPath(Path(folder).relative_to(path).as_posix())
        if not serialization.allow_symlinks:
            for name in folders:
                if Path(folder, name).is_symlink() and here / name not in ignored:
                    raise _link(Path(folder, name))
        folders[:] = sorted(name for name in folders if here / name not in ignored)
        for name in sorted(files):
            if here / name not in ignored:
                file = Path(folder, name)
                yield _checked_name((here / name).as_posix(), file), _regular(file, serialization)


def digests_of(name: str, stream: BinaryIO, serialization: Serialization) -> Iterator[Resource]:
    """Yields the digest of a file, or those of its shards.

    Args:
        name: the file's, below the model.
        stream: its bytes, read once.
        serialization: the hash, and the size of shards.

    Examples:
        >>> import io
        >>> [resource.name for resource in digests_of("m", io.BytesIO(b"abc"), Serialization(shard_size=2))]
        ['m:0:2', 'm:2:3']
    """
    make = HASHES[serialization.hash_type]
    if serialization.shard_size is None:
        yield Resource(name, hashlib.file_digest(stream, make).hexdigest())  # type: ignore[arg-type]
        return
    start = 0
    while True:
        digest, read = make(), 0
        while read < serialization.shard_size:
            part = stream.read(min(CHUNK_BYTES, serialization.shard_size - read))
            if not part:
                break
            digest.update(part)
            read += len(part)
        if not read:
            return
        yield Resource(f"{name}:{start}:{start + read}", digest.hexdigest())
        start += read


def _checked_name(name: str, file: Path) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise SignatureError(
            f"Names of signed files must be UTF-8. Received: {os.fsencode(file)!r}. Rename it."
        ) from error
    return name


def _regular(file: Path, serialization: Serialization) -> Path:
    if file.is_symlink() and not serialization.allow_symlinks:
        raise _link(file)
    if not stat.S_ISREG(file.stat().st_mode):
        raise SignatureError(f"Only regular files are signed. Received: {file}. Take it away or name a single file.")
    return file


def _link(file: Path) -> SignatureError:
    return SignatureError(
        f"Links are not signed, as their targets may change. Received: {file}. Copy the file in its place."
    )


def _raise(error: OSError) -> None:
    raise SignatureError(
        f"A model's folder must be readable. Received: {error.filename} ({error.strerror})."
    ) from error


def _unknown(what: str, value: Any) -> SignatureError:
    return SignatureError(
        f"A signature must list files as OpenSSF Model Signing v1.0 does. Received: {what}={value!r}. Sign it again."
    )

"""One checkpoint as a folder that Orbax writes, each process its own rows."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._errors import FormatError, MissingExtraError
from ._npz import flush_folder, temporary_name

# Written last: a folder without it is half a checkpoint.
MANIFEST = "kernax.json"


def installed() -> bool:
    """Whether there is Orbax."""
    from importlib.util import find_spec

    return find_spec("orbax") is not None and find_spec("orbax.checkpoint") is not None


def write(path: Path, arrays: list[Any]) -> None:
    """The arrays; all processes call."""
    orbax = _orbax()
    with orbax.Checkpointer(orbax.StandardCheckpointHandler()) as checkpointer:
        tree = {f"{i}": array for i, array in enumerate(arrays)}
        checkpointer.save(path.resolve(), args=orbax.args.StandardSave(tree), force=True)


def seal(path: Path, header: dict[str, Any]) -> None:
    """What makes it valid: the description, with a checksum of each file; by one process."""
    content = json.dumps({"header": header, "files": _checksums(path)}).encode()
    temporary = temporary_name(path / MANIFEST)
    with open(temporary, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path / MANIFEST)
    flush_folder(path)


def read_header(path: Path, *, verify: bool) -> tuple[dict[str, Any], str]:
    """The description, and a checksum of all; `FormatError` unless it is complete, and to
    ``verify`` that, unless all files are as they were written."""
    try:
        content = (path / MANIFEST).read_bytes()
        manifest = json.loads(content)
        header: dict[str, Any] = manifest["header"]
        if verify and _checksums(path) != manifest["files"]:
            raise ValueError("its files are not as they were written")
        if not isinstance(header["leaves"], list):
            raise ValueError("it has no leaves")
    except Exception as error:
        text = str(error) or type(error).__name__
        raise FormatError(
            f"{path} is not a whole checkpoint: {text}. Fix: remove it; the one before is used."
        ) from error
    return header, hashlib.sha256(content).hexdigest()


def read(path: Path, forms: list[Any]) -> list[Any]:
    """Arrays of those dtypes, shapes and shardings, of NumPy where that is None; all call."""
    orbax = _orbax()
    target = {
        f"{i}": np.broadcast_to(np.zeros((), dtype), shape)
        if sharding is None
        else jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        for i, (dtype, shape, sharding) in enumerate(forms)
    }
    with orbax.Checkpointer(orbax.StandardCheckpointHandler()) as checkpointer:
        found = checkpointer.restore(path.resolve(), args=orbax.args.StandardRestore(target))
    return [found[f"{i}"] for i in range(len(forms))]


def _orbax() -> Any:
    try:
        import orbax.checkpoint
    except ImportError as error:
        raise MissingExtraError("a checkpoint of Orbax", "orbax-checkpoint", "scale") from error
    return orbax.checkpoint


def _checksums(path: Path) -> dict[str, str]:
    found = {}
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.name != MANIFEST and not file.name.startswith(f".{MANIFEST}"):
            with open(file, "rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            found[file.relative_to(path).as_posix()] = digest
    return found

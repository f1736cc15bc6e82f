"""One checkpoint as an .npz file: arrays, a description as JSON, and a checksum of both."""

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._errors import FormatError
from .._typing import HostArray

# Members beside the arrays, which have numbers.
HEADER, CHECKSUM = "header", "checksum"


def write(path: Path, header: dict[str, Any], arrays: list[HostArray]) -> None:
    """The file, whole or not at all."""
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    members = {f"{i}": _as_stored(array) for i, array in enumerate(arrays)}
    members[HEADER] = text
    members[CHECKSUM] = np.frombuffer(_checksum(members), np.uint8)
    temporary = temporary_name(path)
    try:
        with open(temporary, "xb") as file:
            np.savez(file, allow_pickle=False, **members)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_folder(path.parent)


def read(path: Path) -> tuple[dict[str, Any], list[HostArray], str]:
    """The description, the arrays and the checksum; `FormatError` for all but a whole file."""
    try:
        with zipfile.ZipFile(path) as archive:
            # What was packed could become larger than the memory.
            if any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist()):
                raise ValueError("it is compressed")
        with np.load(path, allow_pickle=False) as file:
            members = {name: np.asarray(file[name]) for name in file.files}
        checksum = members.pop(CHECKSUM).tobytes()
        if checksum != _checksum(members):
            raise ValueError("its checksum is wrong")
        header = json.loads(members.pop(HEADER).tobytes())
        forms = [(leaf["dtype"], leaf["shape"]) for leaf in header["leaves"] if leaf["dtype"]]
        arrays = [_as_was(members[f"{i}"], *form) for i, form in enumerate(forms)]
    # Of a file cut short, or with other bytes, zipfile and NumPy raise whatever comes first.
    except Exception as error:
        text = str(error) or type(error).__name__
        raise FormatError(
            f"{path} is not a whole checkpoint: {text}. Fix: remove it; the one before is used."
        ) from error
    return header, arrays, checksum.hex()


def temporary_name(path: Path) -> Path:
    """Where it is written first: nothing else has such a name."""
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")


def flush_folder(folder: Path) -> None:
    """So that the new name of a file is on the disk as well, where the system knows folders."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _checksum(members: dict[str, HostArray]) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(members):
        digest.update(f"{name} {members[name].dtype.str} {members[name].shape} ".encode())
        digest.update(members[name].reshape(-1).view(np.uint8).data)
    return digest.digest()


def _as_stored(array: HostArray) -> HostArray:
    """In an order and a dtype that files of NumPy know."""
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    return array if array.dtype.kind in "biufc" else array.view(f"u{array.dtype.itemsize}")


def _as_was(array: HostArray, name: str, shape: list[int]) -> HostArray:
    dtype = jnp.dtype(name)
    if array.shape != tuple(shape) or array.dtype.itemsize != dtype.itemsize:
        raise ValueError(f"an array of {dtype} {tuple(shape)} is {array.dtype} {array.shape}")
    return array.view(dtype)

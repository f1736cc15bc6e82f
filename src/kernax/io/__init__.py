"""Saving and loading: data, never code.

A file is JSON: a header with the format's name and version, then a tree of objects, each with the
name of its class and its fields; arrays are written as decimal numbers that read back to the same
bits. Loading looks class names up in a registry and fills in fields: it imports nothing, runs no
constructor, and refuses what does not fit with a `FormatError` that names the path.
"""

import json
import os
import warnings
from typing import Any

import equinox as eqx

from .._errors import FormatError, PrecisionWarning
from ._decode import Reader
from ._encode import encode
from ._files import write_bytes, write_text

__all__ = ["load", "load_with_extra", "save", "write_bytes", "write_text"]

FORMAT, VERSION = "kernax", 1
MOST_BYTES = 1 << 28


def save(path: str | os.PathLike[str], model: Any, extra: dict[str, Any] | None = None) -> None:
    """Write a kernel, Gaussian process or posterior to a file.

    A posterior is saved with its observations, so that it predicts the same after loading.
    ``extra``: plain values kept beside it. The file appears whole or not at all. Raises
    `FormatError` for a function or an unknown class inside the model.
    """
    if not isinstance(model, eqx.Module):
        raise FormatError(
            f"`model` is a {type(model).__name__}, expected a kernel, Gaussian process or "
            "posterior. Fix: pass one of these."
        )
    document = {
        "format": FORMAT,
        "version": VERSION,
        "model": encode(model, "model", 0),
        "extra": extra or {},
    }
    try:
        text = json.dumps(document, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise FormatError(f"`extra` is not plain data: {error}. Fix: leave that out.") from error
    write_text(path, text)


def load(
    path: str | os.PathLike[str], classes: tuple[type, ...] = (), *, strict: bool = False
) -> Any:
    """Read what `save` wrote. ``classes``: your own kernel or mean classes that the file may name.

    Raises `FormatError` for anything that is not exactly such a file. Where it holds 64-bit
    arrays and this process computes in 32 bits, warns `PrecisionWarning` with their paths, or
    raises `FormatError` where ``strict``.
    """
    model, _, narrowed = _load(path, classes)
    if narrowed:
        text = (
            f"{path} was saved in 64 bits, and this process computes in 32: {', '.join(narrowed)}. "
            'Fix: jax.config.update("jax_enable_x64", True) before loading.'
        )
        if strict:
            raise FormatError(text)
        warnings.warn(text, PrecisionWarning, stacklevel=2)
    return model


def load_with_extra(
    path: str | os.PathLike[str], classes: tuple[type, ...] = ()
) -> tuple[Any, dict[str, Any]]:
    """The model and the plain values that were saved beside it."""
    return _load(path, classes)[:2]


def _load(
    path: str | os.PathLike[str], classes: tuple[type, ...]
) -> tuple[Any, dict[str, Any], list[str]]:
    """The model, what was saved beside it, and the paths of the arrays that lost digits."""
    document = _read(path)
    if set(document) != {"format", "version", "model", "extra"}:
        raise FormatError(f"{path} has the parts {sorted(document)}. Fix: save the model again.")
    model, extra = document["model"], document["extra"]
    if not isinstance(model, dict) or not isinstance(extra, dict):
        raise FormatError(f"{path} holds no model. Fix: save the model again.")
    reader = Reader.of(classes)
    decoded = reader.decode(model, "model", 0)
    if not isinstance(decoded, eqx.Module):
        raise FormatError(f"{path} holds no model. Fix: save the model again.")
    return decoded, extra, reader.narrowed


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    with open(path, "rb") as file:
        # The size first; and a device has none, so that the reading is bounded too.
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > MOST_BYTES else file.read(MOST_BYTES + 1)
    if max(size, len(content)) > MOST_BYTES:
        raise FormatError(
            f"{path} has more than the {MOST_BYTES} bytes that a model may have. "
            "Fix: check that it is a model file."
        )
    try:
        document = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{path} is not a whole JSON file: {error}. Fix: save the model again."
        ) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise FormatError(f"{path} is not a Kernax model. Fix: pass a file written by save().")
    version = document.get("version")
    if type(version) is not int or version < 1:
        raise FormatError(f"{path} has no valid version ({version!r}). Fix: save it again.")
    if version > VERSION:
        raise FormatError(
            f"{path} was written in format {version}, this is format {VERSION}. "
            "Fix: update kernax-gp."
        )
    return document

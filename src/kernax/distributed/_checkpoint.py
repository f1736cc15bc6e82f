"""Checkpoints of all processes: written whole or not at all, and the newest whole one read."""

import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from .._errors import (
    FormatError,
    InputError,
    KernaxWarning,
    MissingExtraError,
    ParameterError,
)
from .._inputs import as_whole
from . import _npz, _orbax
from ._agreement import agree
from ._leaves import Leaf, check_alike, leaves_of, plain_tree, restored, skeleton
from ._rows import gather

FORMAT, VERSION = "kernax checkpoint", 1
_NAME = re.compile(r"checkpoint-(\d+)\.(npz|orbax)")
# What writers and removers that were killed have left.
_LEFT = re.compile(r"\.checkpoint-\d+\.(npz|orbax)\.\w+\.tmp|checkpoint-\d+\.orbax\.orbax-.*tmp.*")


def save_checkpoint(
    folder: str | os.PathLike[str], step: Any, tree: Any, keep: int = 3, *, backend: str = "auto"
) -> Path:
    """Write a tree of arrays as ``checkpoint-<step>`` into a folder that all processes see.

    ``tree``: any pytree of arrays, keys of random numbers, and numbers of Python. Global arrays
    are kept whole, of everything else what process 0 holds. ``keep``: how many checkpoints stay,
    the newest. ``backend``: ``"npz"``, one file that process 0 writes; ``"orbax"``, a folder into
    which each process writes its own rows; ``"auto"``, Orbax where it is installed and the rows of
    an array are spread over processes. Either counts only once it is complete, and has a checksum.

    Returns its path. All processes call, and what fails on one is raised on all: `FormatError` for
    leaves that are no data or not the same, `InputError` for different steps.
    """
    folder, values = Path(folder), list[Any]()

    def local() -> dict[str, Any]:
        own = {"step": as_whole(step, "step"), "keep": as_whole(keep, "keep")}
        if own["step"] < 0 or own["keep"] < 1:
            raise ParameterError(
                f"`step` is {step} and `keep` {keep}, expected at least 0 and 1. Fix: raise them."
            )
        if backend not in ("auto", "npz", "orbax"):
            raise ParameterError(
                f"`backend` is {backend!r}, expected 'auto', 'npz' or 'orbax'. Fix: name one."
            )
        if backend == "orbax" and not _orbax.installed():
            raise MissingExtraError("backend='orbax'", "orbax-checkpoint", "scale")
        leaves, found = leaves_of(tree)
        values.extend(found)
        return own | {"backend": backend, "leaves": leaves, "orbax": _orbax.installed()}

    said = agree("save_checkpoint", local)
    leaves = _same_leaves(said)
    step, keep = said[0]["step"], said[0]["keep"]
    spread = any(leaf.spread for leaf in leaves) and all(own["orbax"] for own in said)
    kind = "orbax" if backend == "orbax" or (backend == "auto" and spread) else "npz"
    path = folder / f"checkpoint-{step:09d}.{kind}"
    header = {
        "format": FORMAT,
        "version": VERSION,
        "step": step,
        "leaves": [
            leaf._asdict() | {"value": None if leaf.dtype else value}
            for leaf, value in zip(leaves, values, strict=True)
        ],
        "tree": skeleton(tree),
    }
    arrays = [
        value if kind == "orbax" and leaf.spread else gather(value)
        for leaf, value in zip(leaves, values, strict=True)
        if leaf.dtype
    ]
    _by_one("making the folder", lambda: folder.mkdir(parents=True, exist_ok=True))
    if kind == "orbax":
        agree("save_checkpoint", lambda: _orbax.write(path, arrays))
        _by_one("sealing a checkpoint", lambda: _orbax.seal(path, header))
    else:
        _by_one("writing a checkpoint", lambda: _npz.write(path, header, arrays))
    _by_one("removing old checkpoints", lambda: _tidy(path, keep))
    return path


def load_checkpoint(folder: str | os.PathLike[str], like: Any = None) -> tuple[int, Any] | None:
    """The step and the tree of the newest checkpoint that is whole; None where there is none.

    ``like``: a tree with the same structure, shapes and dtypes, whose sharding the arrays get.
    Without it, dictionaries, lists and tuples come back, with arrays of NumPy.

    Process 0 chooses for all. A file that was cut short or has changed gives a `KernaxWarning`
    with its name, and the one before is used. Raises `FormatError`, on all processes, where
    ``like`` does not fit, and where a process cannot read what process 0 can.
    """
    folder = Path(folder)
    chosen = agree("load_checkpoint", lambda: _newest(folder) if jax.process_index() == 0 else None)
    if chosen[0] is None:
        return None
    path, header = folder / chosen[0], dict[str, Any]()
    arrays, leaves = list[Any](), list[Leaf]()

    def local() -> str:
        found, read, checksum = _read(path, verify=False)
        header.update(found)
        arrays.extend(read)
        leaves.extend(_leaves_in(header))
        if like is not None:
            check_alike(leaves, leaves_of(like)[0], path.name, "`like`")
        elif header["tree"] is None:
            raise FormatError(
                f"{path} holds a tree with nodes that are no dictionary, list or tuple. "
                "Fix: pass one of the same structure as `like`."
            )
        return checksum

    checksums = agree("load_checkpoint", local)
    for i, checksum in enumerate(checksums):
        if checksum != checksums[0]:
            raise FormatError(
                f"{path} is not the same file on process {i} as on process 0. "
                "Fix: use a folder that all processes share."
            )
    likes = [None] * len(leaves) if like is None else jax.tree.leaves(like)
    if path.suffix == ".orbax":
        arrays = _from_orbax(path, leaves, likes)
    stored = iter(arrays)
    whole = [
        restored(leaf, next(stored) if leaf.dtype else one["value"], model)
        for leaf, one, model in zip(leaves, header["leaves"], likes, strict=True)
    ]
    if like is None:
        return header["step"], plain_tree(header["tree"], whole)
    return header["step"], jax.tree.unflatten(jax.tree.structure(like), whole)


def _by_one(what: str, act: Any) -> None:
    """Done by process 0; an error on all where it fails."""

    def local() -> None:
        if jax.process_index() == 0:
            act()

    agree(what, local)


def _same_leaves(said: list[dict[str, Any]]) -> list[Leaf]:
    first = [Leaf(*leaf) for leaf in said[0]["leaves"]]
    for i, own in enumerate(said):
        for word in ("step", "keep", "backend"):
            if own[word] != said[0][word]:
                raise InputError(
                    f"`{word}` is {own[word]!r} on process {i} and {said[0][word]!r} on process 0, "
                    "expected the same. Fix: save at the same points of a program."
                )
        leaves = [Leaf(*leaf) for leaf in own["leaves"]]
        check_alike(leaves, first, f"the tree of process {i}", "that of process 0")
        for leaf, other in zip(leaves, first, strict=True):
            if leaf.spread != other.spread:
                raise InputError(
                    f"`{leaf.path}` is spread over processes on some of them only. "
                    "Fix: pass the global array on every process."
                )
    return first


def _candidates(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a folder, newest first, whole or not."""
    if not folder.is_dir():
        return []
    matches = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted(((int(m[1]), path) for m, path in matches if m is not None), reverse=True)


def _newest(folder: Path) -> str | None:
    for step, path in _candidates(folder):
        try:
            header = _read(path, verify=True)[0]
            if header["step"] != step:
                raise FormatError(f"{path} is of step {header['step']}. Fix: rename it.")
            return path.name
        except FormatError as error:
            warnings.warn(f"a checkpoint was passed over: {error}", KernaxWarning, stacklevel=5)
    return None


def _read(path: Path, *, verify: bool) -> tuple[dict[str, Any], list[Any], str]:
    """The description, the arrays where it is one file, and a checksum."""
    if path.suffix == ".orbax":
        header, checksum = _orbax.read_header(path, verify=verify)
        return _checked(header, path), [], checksum
    header, arrays, checksum = _npz.read(path)
    return _checked(header, path), arrays, checksum


def _checked(header: dict[str, Any], path: Path) -> dict[str, Any]:
    if header.get("format") != FORMAT or not {"step", "leaves", "tree"} <= {*header}:
        raise FormatError(f"{path} is no checkpoint of Kernax. Fix: remove it.")
    if header.get("version") != VERSION:
        raise FormatError(
            f"{path} was written in version {header.get('version')}, this is version {VERSION}. "
            "Fix: update kernax-gp."
        )
    return header


def _leaves_in(header: dict[str, Any]) -> list[Leaf]:
    return [Leaf(*(one[field] for field in Leaf._fields)) for one in header["leaves"]]


def _from_orbax(path: Path, leaves: list[Leaf], likes: list[Any]) -> list[Any]:
    forms = []
    for leaf, like in zip(leaves, likes, strict=True):
        if leaf.dtype:
            spread = leaf.spread and leaf.kind == "array"
            sharding = getattr(like, "sharding", None) if spread else None
            forms.append((jnp.dtype(leaf.dtype), tuple(leaf.shape), sharding))
    return _orbax.read(path, forms)


def _tidy(path: Path, keep: int) -> None:
    """Only the newest stay, and nothing half written."""
    folder = path.parent
    for _, old in _candidates(folder)[keep:]:
        if old != path:
            # Under another name first: half of it has none that counts.
            gone = _npz.temporary_name(old)
            old.rename(gone)
    for left in folder.iterdir():
        if _LEFT.fullmatch(left.name):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)

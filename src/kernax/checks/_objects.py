"""A kernel as an object: its hyperparameters by name, its copies, and its files."""

import copy
import inspect
import pickle
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from .._errors import FormatError, ParameterError, ShapeError
from .._module import Hyperparameter, Parameterised, named_leaves
from ..io import load, save
from ..kernels import AbstractKernel
from ._subject import CheckFailedError, Subject, other_values
from ._wrong_inputs import expect_error


def check_hyperparameters(subject: Subject) -> list[str]:
    """`replace` by each name, and what it refuses."""
    kernel = subject.kernel
    subject.case = {"call": "replace()"}
    _check_replaced(kernel.replace(), kernel, {}, {})
    other = other_values(kernel)
    for entry in named_leaves(kernel):
        subject.case = {"call": f"replace({entry.path}=...)"}
        if entry.path in other:
            case = {entry.path: other[entry.path]}
            _check_replaced(kernel.replace(**case), kernel, case, case)
        _check_refusals(kernel, entry)
    name = "no_such_name"
    expect_error(
        ParameterError, lambda: kernel.replace(**{name: 1.0}), "do not override `replace`",
        text=name, call=f"replace({name}=1.0)",
    )  # fmt: skip
    return [] if kernel.hyperparameters else ["names of hyperparameters, since there are none"]


def _check_replaced(
    found: Any, kernel: AbstractKernel, changed: dict[str, Any], case: dict[str, Any]
) -> None:
    if type(found) is not type(kernel):
        raise CheckFailedError(
            f"{type(found).__name__} from replace()",
            f"a {type(kernel).__name__}",
            "do not override `replace`, or return what it returns",
            **case,
        )
    wanted = kernel.hyperparameters | changed
    for path, value in found.hyperparameters.items():
        if path not in wanted or not np.array_equal(value, wanted[path]):
            raise CheckFailedError(
                f"{path} = {value} after replace()",
                f"{wanted.get(path)}",
                "keep each hyperparameter in one field, and derive nothing from it in __init__",
                **case,
            )


def _check_refusals(kernel: AbstractKernel, entry: Hyperparameter) -> None:
    """Values outside the constraint, more values than there are dimensions, and a misspelt name."""
    last = entry.path.rsplit(".", 1)[-1]
    fix = "declare the field with kernax.positive() or its like, and do not override `replace`"
    refused: list[tuple[type[Exception], Any]] = [
        (ParameterError, value)
        for value in (np.nan, np.inf, -1.0)
        if not np.all(entry.constraint.contains(value))
    ]
    if entry.value.ndim > entry.batches:  # a number may become one per dimension
        refused.append((ShapeError, np.ones((*entry.value.shape, 2), entry.value.dtype)))
    for error, value in refused:
        case = {entry.path: value}
        expect_error(error, partial(kernel.replace, **case), fix, text=last, **case)
    misspelt = f"{entry.path}x"
    expect_error(
        ParameterError, lambda: kernel.replace(**{misspelt: 1.0}), fix, text=last,
        call=f"replace({misspelt}=1.0)",
    )  # fmt: skip


# --- copies and files ---------------------------------------------------------------------------


def check_persistence(subject: Subject) -> list[str]:
    """Copies, pickles and files give an equal kernel; calls write to no input."""
    kernel = subject.kernel
    left_out = []
    _check_inputs_unchanged(subject)
    twins = {"copy.copy": copy.copy(kernel), "copy.deepcopy": copy.deepcopy(kernel)}
    reason = _not_importable(kernel)
    if reason:
        left_out.append(f"pickle: {reason}")
    else:
        subject.case = {"call": "pickle.dumps(kernel)"}
        twins["pickle"] = pickle.loads(pickle.dumps(kernel))
    try:
        subject.case = {"call": "kernax.save(path, kernel)"}
        twins["kernax.load"] = _saved_and_loaded(kernel)
    except _NoFileError as error:
        left_out.append(f"save and load: {error}")
    for name, twin in twins.items():
        _check_twin(name, twin, kernel)
    subject.case = {"call": "kernel.equals(other)"}
    other = other_values(kernel)
    if other and kernel.equals(kernel.replace(**other)):
        raise CheckFailedError(
            "True from equals() for kernels of different hyperparameters",
            "False",
            "hold hyperparameters in fields that are not static",
        )
    return left_out


def _check_twin(name: str, twin: Any, kernel: AbstractKernel) -> None:
    fix = "make static fields comparable (int, str, tuple), and hold arrays in the others"
    if not isinstance(twin, AbstractKernel) or not kernel.equals(twin):
        raise CheckFailedError(f"{twin!r} from {name}", f"an equal kernel, {kernel!r}", fix)
    if hash(twin.structure) != hash(kernel.structure) or twin.structure != kernel.structure:
        raise CheckFailedError(f"another structure from {name}", "the same", fix)


def _check_inputs_unchanged(subject: Subject) -> None:
    X = subject.points(subject.usual(subject.middle, subject.dtypes[0]))
    kept = X.copy()
    for writeable in (True, False):
        X.flags.writeable = writeable
        kind = "a writeable array" if writeable else "a read-only array"
        subject.case = {"call": "gram(X)", "X": kind}
        subject.kernel.gram(X)
        if not np.array_equal(X, kept):
            raise CheckFailedError(
                "another X after the call", "the same", "copy an array before writing to it",
                **subject.case,
            )  # fmt: skip


class _NoFileError(Exception):
    """Why this kernel has no file."""


def _saved_and_loaded(kernel: AbstractKernel) -> Any:
    classes = tuple({type(node) for node in _modules(kernel)})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.json"
        try:
            save(path, kernel)
        except FormatError as error:
            raise _NoFileError(str(error).split(" Fix:")[0]) from error
        return load(path, classes)


def _not_importable(kernel: AbstractKernel) -> str:
    """Why no pickle can name what the kernel is made of; empty where one can."""
    made_of: list[Any] = [type(node) for node in _modules(kernel)]
    functions = [leaf for leaf in jax.tree.leaves(kernel) if inspect.isfunction(leaf)]
    for item in (*made_of, *functions):
        place = inspect.getmodule(item)
        for name in item.__qualname__.split("."):
            place = getattr(place, name, None)
        if place is not item:
            return f"{item.__qualname__} is not a name of a module, by which it could be found"
    return ""


def _modules(tree: Any) -> Iterator[Parameterised]:
    """Each module of the tree, the outer ones first."""
    is_other = lambda node: isinstance(node, eqx.Module) and node is not tree
    for node in (tree, *jax.tree.leaves(tree, is_leaf=is_other)):
        if node is tree and isinstance(tree, eqx.Module):
            yield node
        elif isinstance(node, eqx.Module):
            yield from _modules(node)

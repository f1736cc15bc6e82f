"""Every form of call has its shape and data type, for any number of points."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from .._errors import ParameterError, ShapeError
from .._module import flatten
from ._quick import quick_jit
from ._subject import (
    DIMS,
    FEWER,
    MOST_DIMS,
    ROWS,
    SLOPES,
    CheckFailedError,
    Subject,
    cast,
    formula,
)

# Small ones first: what fails for many points mostly fails for one.
SIZES = (1, 0, 50)
RUN = (1, 0)
GRAM = ("pairwise(x, y)", "gram(X)")
COLUMNS = ("gram(X) of a 1-D X", "k(x, y) of numbers")

# A name, the shape to expect, the function, and the shapes of its arguments.
Form = tuple[str, tuple[int, ...], Callable[..., Any], list[tuple[int, ...]]]


def check_shapes(subject: Subject) -> list[str]:
    """Finds the dimensions that the kernel takes; shapes when traced, and a few of them run."""
    left_out = _find_dims(subject)
    usual, least = subject.dtypes[0], subject.dtypes[-1]
    for n in SIZES:
        _check_forms(subject, n, subject.dims[0], usual, GRAM)
    for d in subject.dims:
        names = None if d == subject.middle else (*GRAM, *COLUMNS)
        _check_forms(subject, ROWS, d, usual, names)
    if least != usual:
        _check_forms(subject, 3, subject.middle, least, GRAM)
    _run(subject, subject.dims[0], usual)
    if subject.dtypes == (np.dtype(np.float32),):
        left_out.append("float64, since this process computes in 32 bits")
    return left_out


def _find_dims(subject: Subject) -> list[str]:
    """Sets ``subject.dims``; returns why others are not among them."""

    def refusal(d: int) -> str:
        subject.case = {"n": 1, "d": d, "call": "gram(X)"}
        X = jax.ShapeDtypeStruct((*subject.sets, 1, d), subject.dtypes[0])
        try:
            jax.eval_shape(subject.kernel.gram, X)
        except (ShapeError, ParameterError) as error:
            return str(error)
        except Exception:
            pass  # met again below, where the call that raises it is named
        return ""

    refused = {d: refusal(d) for d in subject.asked or DIMS}
    taken = [d for d, reason in refused.items() if not reason]
    if subject.asked is None and not taken:
        others = (d for d in range(1, MOST_DIMS + 1) if d not in DIMS)
        taken = [d for d in others if not refusal(d)][:1]
    if not taken or (subject.asked and len(taken) < len(refused)):
        d, reason = next((d, reason) for d, reason in refused.items() if reason)
        raise CheckFailedError(
            f"the error: {reason.split(' Fix:')[0]}",
            "points of some dimension to be taken",
            "pass dims= with the dimensions of the points that the kernel takes",
            d=d,
        )
    subject.dims = tuple(taken)
    return [
        f"dimension {d}, which the kernel refuses: {reason.split(' Fix:')[0]}"
        for d, reason in refused.items()
        if reason
    ]


def _check_forms(
    subject: Subject, n: int, d: int, dtype: Any, names: tuple[str, ...] | None
) -> None:
    """One trace of each of the forms of call, all of them where no ``names`` are given."""
    kernel = cast(subject.kernel, dtype)
    for name, wanted, call, shapes in _forms(subject, kernel, n, d, dtype):
        if names is None or name in names:
            subject.case = {"n": n, "d": d, "dtype": dtype.name, "call": name}
            arguments = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
            _compare(subject, jax.eval_shape(call, *arguments), wanted, dtype)


def _run(subject: Subject, d: int, dtype: Any) -> None:
    """What was traced for the smallest sizes, run: one program for all of them."""
    subject.case = {"d": d, "dtype": dtype.name, "call": "gram(X)"}
    kernel = cast(subject.kernel, dtype)
    grams = quick_jit(lambda *sets: [kernel.gram(X) for X in sets])
    results = grams(*(subject.points(np.zeros((n, d), dtype)) for n in RUN))
    for n, K in zip(RUN, results, strict=True):
        subject.case["n"] = n
        _compare(subject, K, (*subject.batch, n, n), dtype)


def _forms(subject: Subject, kernel: Any, n: int, d: int, dtype: Any) -> Iterator[Form]:
    b, m, x = subject.batch, FEWER, (d,)
    X, Y = (*subject.sets, n, d), (*subject.sets, m, d)
    if not subject.levels:
        yield "pairwise(x, y)", (), partial(formula, *flatten(kernel)), [x, x]
    yield "gram(X)", (*b, n, n), kernel.gram, [X]
    yield "gram(X, X2)", (*b, n, m), kernel.gram, [X, Y]
    yield "diagonal(X)", (*b, n), kernel.diagonal, [X]
    yield "k(X)", (*b, n, n), kernel, [X]
    yield "k(X, X2)", (*b, n, m), kernel, [X, Y]
    yield "k(X, x)", (*b, n), kernel, [X, x]
    yield "k(x, X)", (*b, n), kernel, [x, X]
    yield "k(x, y)", b, kernel, [x, x]
    yield "k(x)", b, kernel, [x]
    at = (*subject.sets, SLOPES, d)
    yield "gradient(X, X2)", (*b, SLOPES, SLOPES, d), kernel.gradient, [at, at]
    if not subject.levels:
        yield "k(X, X2) of 4 sets", (4, n, m), kernel, [(4, n, d), (4, m, d)]
    if d == 1:
        yield "k(x, y) of numbers", b, kernel, [(), ()]
        if not subject.sets:
            yield "gram(X) of a 1-D X", (*b, n, n), kernel.gram, [(n,)]
            yield "diagonal(X) of a 1-D X", (*b, n), kernel.diagonal, [(n,)]


def _compare(subject: Subject, result: Any, wanted: tuple[int, ...], dtype: Any) -> None:
    if result.shape != wanted:
        raise CheckFailedError(
            f"shape {result.shape}",
            f"{wanted}",
            "return one number, of shape (), from the formula of two points, for every d",
            **subject.case,
        )
    if result.dtype != dtype:
        raise CheckFailedError(
            f"dtype {result.dtype}",
            f"{dtype}, as the points and the hyperparameters",
            "write constants as Python numbers, such as 0.5, without a dtype of their own",
            **subject.case,
        )

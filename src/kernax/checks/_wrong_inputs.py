"""Inputs that mean nothing raise, and unusual ones that mean something are taken."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._errors import DTypeError, InputError, ShapeError
from ._quick import quick_jit
from ._subject import ROWS, CheckFailedError, Subject, show

FIX = "do not override `gram`, `diagonal` or `__call__`: write the formula in `pairwise`"


def expect_error(
    error: type[Exception], function: Callable[[], Any], fix: str, *, text: str = "", **case: Any
) -> None:
    """Fails unless the call raises that class, with the text and a fix in its message."""
    try:
        value = function()
    except error as raised:
        if text not in str(raised) or "Fix:" not in str(raised):
            raise CheckFailedError(
                f"the message {str(raised)!r}",
                f"one with {text!r} and a fix" if text else "one with a fix",
                fix,
                **case,
            ) from raised
        return
    except Exception as raised:
        raise CheckFailedError(
            f"{type(raised).__name__}: {next(iter(str(raised).splitlines()), '')}",
            error.__name__, fix, **case,
        ) from raised  # fmt: skip
    raise CheckFailedError(f"no error, and {show(value)}", error.__name__, fix, **case)


def check_wrong_inputs(subject: Subject) -> list[str]:
    """Dimensions that differ, no dimension, Inf, and values that are not real numbers."""
    k, d, dtype = subject.kernel, subject.middle, subject.dtypes[0]
    X = subject.points(np.random.default_rng(2).normal(size=(ROWS, d)).astype(dtype))
    one, none = subject.points(np.ones((4, d + 1))), subject.points(np.ones((ROWS, 0)))
    infinite = X.copy()
    infinite[..., -1, -1] = np.inf
    whole = np.asarray(np.round(4 * X) + 16, np.int32)  # wraps where differences of bytes do
    refused: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (ShapeError, "gram(X, X2) of dimensions d and d + 1", lambda: k.gram(X, one)),
        (ShapeError, "k(X, X2) of dimensions d and d + 1", lambda: k(X, one)),
        (ShapeError, "k(X, x) of dimensions d and d + 1", lambda: k(X, np.ones(d + 1))),
        (ShapeError, "gram(X) of dimension 0", lambda: k.gram(none)),
        (ShapeError, "gram of one number", lambda: k.gram(1.0)),
        (DTypeError, "gram(X) of complex numbers", lambda: k.gram(X * 1j)),
        (DTypeError, "gram(X) of complex numbers of JAX", lambda: k.gram(jnp.asarray(X * 1j))),
        (DTypeError, "gram(X) of float16", lambda: k.gram(X.astype(np.float16))),
        (DTypeError, "gram(X) of objects", lambda: k.gram(np.full(X.shape, None))),
        (DTypeError, "gram(X) of text", lambda: k.gram(X.astype(str))),
        (DTypeError, "diagonal(X) of text", lambda: k.diagonal(X.astype(str))),
    ]
    if d > 1 and not subject.sets:
        refused.append((ShapeError, "gram(X, X[0])", lambda: k.gram(X, X[..., 0, :])))
    if X.size:
        refused += [
            (InputError, "gram(X) with Inf", lambda: k.gram(infinite)),
            (InputError, "k(X, X2) with Inf in X2", lambda: k(X, infinite)),
            (InputError, "diagonal(X) with Inf", lambda: k.diagonal(infinite)),
        ]
    for error, name, call in refused:
        expect_error(error, call, FIX, d=d, call=name)
    taken = {
        "integers": lambda: k.gram(whole),
        "integers of JAX": lambda: quick_jit(k.gram)(jnp.asarray(whole)),
        "bytes": lambda: k.gram(whole.astype(np.uint8)),
    }
    if X.size:
        taken["lists"] = lambda: k.gram(whole.tolist())
    wanted = np.asarray(k.gram(whole.astype(dtype)))
    tolerance = 8 * np.finfo(wanted.dtype).eps * np.abs(wanted).max(initial=0.0)
    for name, take in taken.items():
        subject.case = {"d": d, "call": f"gram(X) of {name}"}
        found = np.asarray(take())
        if found.shape != wanted.shape or not (np.abs(found - wanted) <= tolerance).all():
            raise CheckFailedError(
                show(found), f"{show(wanted)}, as for the same numbers in float64", FIX,
                **subject.case,
            )  # fmt: skip
    subject.case["call"] = "gram(X) of booleans"
    k.gram(whole > 8)
    return ["inputs that belong to a Gaussian process, such as `y`"]

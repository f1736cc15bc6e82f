"""Padding changes nothing: neither a value nor a gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._module import Structure, flatten
from .._typing import HostArray
from ._quick import quick_jit
from ._subject import (
    FEWER,
    ROWS,
    CheckFailedError,
    Subject,
    cast,
    show,
    size,
)

PADDED = (2, 7)
REAL = np.array([row not in PADDED for row in range(ROWS)])


def with_filler(subject: Subject, filler: float) -> HostArray:
    """The usual points, but for two rows among them which hold the filler."""
    X = subject.usual(subject.middle, subject.dtypes[0]).copy()
    X[~REAL] = filler
    return subject.points(X)


def unpadded(subject: Subject) -> HostArray:
    """As many points, all of which are real: of the two others, nothing is asked."""
    return subject.points(subject.usual(subject.middle, subject.dtypes[0]))


def gradients(subject: Subject, X: HostArray, mask: HostArray | None = None) -> Any:
    """The derivatives of the sum of ``gram(X, mask=mask)`` over the real points, in a kernel."""
    return _padded(subject, X, mask)[0]


def _padded(subject: Subject, X: HostArray, mask: HostArray | None = None) -> Any:
    """These, those in the points, and calls with these points and with others."""
    structure, leaves = flatten(cast(subject.kernel, subject.dtypes[0]))
    mask, some = np.ones_like(REAL) if mask is None else mask, unpadded(subject)[..., :FEWER, :]
    return _program(structure, leaves, *map(jnp.asarray, (X, some, mask)))


@quick_jit
def _program(structure: Structure, leaves: Any, X: Array, some: Array, mask: Array) -> Any:
    asked = jnp.asarray(REAL[:, None] & REAL)

    def total(kernel: Any, X: Array) -> Array:
        K = kernel.gram(X, mask=mask)
        return jnp.sum(jnp.where(jnp.broadcast_to(asked, K.shape), K, jnp.zeros_like(K)))

    kernel = structure.rebuild(leaves)
    calls = {
        "gram(X)": kernel.gram(X),
        "diagonal(X)": kernel.diagonal(X),
        "k(X, X2)": kernel(X, some),
        "gram(X, X2, mask=mask)": kernel.gram(X, some, mask=mask),
    }
    return *jax.grad(total, argnums=(0, 1))(kernel, X), calls


def check_padding(subject: Subject) -> list[str]:
    """Padded rows hold what they should, and the others what they hold without padding."""
    d, dtype = subject.middle, subject.dtypes[0]
    subject.case = {"n": ROWS, "d": d, "dtype": dtype.name, "padding": f"rows {PADDED}"}
    _check_values(subject, cast(subject.kernel, dtype), float(np.finfo(dtype).eps))
    wanted, slopes, _ = _padded(subject, unpadded(subject))
    slopes = np.where(REAL[:, None], slopes, 0.0)
    for filler, mask in ((np.nan, None), (np.nan, REAL), (1e30, REAL), (0.0, REAL)):
        X = with_filler(subject, filler)
        how = f"filler {filler:g}, {'no ' if mask is None else ''}mask"
        found, moved, _ = _padded(subject, X, mask)
        pairs = {"the points": (moved, slopes)}
        for path, value in found.hyperparameters.items():
            pairs[f"'{path}'"] = (value, wanted.hyperparameters[path])
        for name, (value, other) in pairs.items():
            other = np.asarray(other)
            scale = np.abs(other).max(initial=1.0) * ROWS * size(subject.kernel)
            text = f"a derivative in {name} ({how})"
            _expect(subject, text, value, other, 64 * float(np.finfo(dtype).eps) * float(scale))
    nothing = gradients(subject, with_filler(subject, np.nan), np.zeros_like(REAL))
    for path, value in nothing.hyperparameters.items():
        text = f"a derivative in '{path}' of padding only"
        _expect(subject, text, value, np.zeros_like(value), 0.0)
    return []


def _check_values(subject: Subject, kernel: Any, eps: float) -> None:
    """NaN rows and columns in calls, those of the identity or zeros where there is a mask."""
    dtype, rows = subject.dtypes[0], np.flatnonzero(REAL)
    X, nan, infinite = unpadded(subject), *(with_filler(subject, x) for x in (np.nan, np.inf))
    K, cross = np.asarray(kernel.gram(X)), np.asarray(kernel.gram(X, X))[..., :FEWER]
    tolerance = 8 * eps * size(kernel) * float(np.abs(K).max(initial=0.0))
    found = _padded(subject, nan, REAL)[2]
    found["gram(X, mask=mask)"] = kernel.gram(infinite, mask=REAL)
    square, wide = (rows[:, None], rows), (rows, slice(None))
    parts: dict[str, tuple[Any, HostArray, tuple[Any, ...]]] = {
        "gram(X)": (np.nan, K, square),
        "diagonal(X)": (np.nan, np.diagonal(K, axis1=-2, axis2=-1), (rows,)),
        "k(X, X2)": (np.nan, cross, wide),
        "gram(X, X2, mask=mask)": (0.0, cross, wide),
        "gram(X, mask=mask)": (np.eye(ROWS), K, square),
    }
    for name, (fill, unpadded_values, index) in parts.items():
        wanted = np.broadcast_to(np.asarray(fill, dtype), found[name].shape).copy()
        wanted[(..., *index)] = unpadded_values[(..., *index)]
        _expect(subject, name, np.asarray(found[name]), wanted, tolerance)
    nothing = np.asarray(kernel.gram(nan, mask=~np.ones_like(REAL)))
    name = "gram(X, mask=mask) of padding only"
    _expect(subject, name, nothing, np.broadcast_to(np.eye(ROWS), nothing.shape), 0.0)


def _expect(subject: Subject, name: str, found: Any, wanted: Any, tolerance: float) -> None:
    found = np.asarray(found)
    bad = ~(np.abs(found - wanted) <= tolerance) & ~(np.isnan(found) & np.isnan(wanted))
    if bad.any():
        at = tuple(np.argwhere(bad)[0])
        raise CheckFailedError(
            f"{show(found[at])} in {name}" + (f" at {show(np.array(at))}" if at else ""),
            show(wanted[at]),
            "leave padding to `gram` and `diagonal` as they are, and let no row of X have a part "
            "in the value of others",
            **{key: value for key, value in subject.case.items() if key != "call"},
        )

"""Padding changes nothing: neither a value nor a gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._module import Structure, flatten
from .._typing import HostArray
from ._quick import quick_jit
from ._subject import ROWS, CheckFailedError, Subject, cast, diagonal_and_cross, show, size

PADDED = (2, 7)
REAL = np.array([row not in PADDED for row in range(ROWS + len(PADDED))])


def with_filler(subject: Subject, filler: float) -> HostArray:
    """The usual points with two more rows among them, which hold the filler."""
    d, dtype = subject.middle, subject.dtypes[0]
    X = np.full((len(REAL), d), filler, dtype)
    X[REAL] = subject.usual(d, dtype)
    return subject.points(X)


def unpadded(subject: Subject) -> HostArray:
    """As many points, all of which are real: of the two more, nothing is asked."""
    return with_filler(subject, 0.5)


def gradients(subject: Subject, X: HostArray, mask: HostArray | None = None) -> Any:
    """The derivatives of the sum of ``gram(X, mask=mask)`` over the usual points, in a kernel."""
    return _both_gradients(subject, X, mask)[0]


def _both_gradients(subject: Subject, X: HostArray, mask: HostArray | None = None) -> Any:
    structure, leaves = flatten(cast(subject.kernel, subject.dtypes[0]))
    mask = np.ones_like(REAL) if mask is None else mask
    kernel, points = _gradients(structure, leaves, jnp.asarray(X), jnp.asarray(mask))
    return kernel, np.asarray(points)


@quick_jit
def _gradients(structure: Structure, leaves: Any, X: Array, mask: Array) -> Any:
    asked = jnp.asarray(REAL[:, None] & REAL)

    def total(kernel: Any, X: Array) -> Array:
        K = kernel.gram(X, mask=mask)
        return jnp.sum(jnp.where(jnp.broadcast_to(asked, K.shape), K, jnp.zeros_like(K)))

    return jax.grad(total, argnums=(0, 1))(structure.rebuild(leaves), X)


def check_padding(subject: Subject) -> list[str]:
    """Padded rows hold what they should, and the others what they hold without padding."""
    d, dtype = subject.middle, subject.dtypes[0]
    subject.case = {"n": len(REAL), "d": d, "dtype": dtype.name, "padding": f"rows {PADDED}"}
    _check_values(subject, cast(subject.kernel, dtype), float(np.finfo(dtype).eps))
    wanted, slopes = _both_gradients(subject, unpadded(subject))
    for filler, mask in ((np.nan, None), (np.nan, REAL), (1e30, REAL), (0.0, REAL)):
        X = with_filler(subject, filler)
        how = f"filler {filler:g}, {'no ' if mask is None else ''}mask"
        found, moved = _both_gradients(subject, X, mask)
        pairs = {"the points": (moved, np.where(REAL[:, None], slopes, 0.0))}
        for path, value in found.hyperparameters.items():
            pairs[f"'{path}'"] = (value, wanted.hyperparameters[path])
        for name, (value, other) in pairs.items():
            other = np.asarray(other)
            scale = np.abs(other).max(initial=1.0) * len(REAL) * size(subject.kernel)
            text = f"a derivative in {name} ({how})"
            _expect(subject, text, value, other, 64 * float(np.finfo(dtype).eps) * float(scale))
    nothing = gradients(subject, with_filler(subject, np.nan), np.zeros_like(REAL))
    for path, value in nothing.hyperparameters.items():
        _expect(subject, f"a derivative in '{path}' of padding only", value, 0.0 * value, 0.0)
    return []


def _check_values(subject: Subject, kernel: Any, eps: float) -> None:
    """NaN rows and columns in calls, those of the identity or zeros where there is a mask."""
    d, dtype, n, rows = subject.middle, subject.dtypes[0], len(REAL), np.flatnonzero(REAL)
    X, nan = subject.points(subject.usual(d, dtype)), with_filler(subject, np.nan)
    infinite = with_filler(subject, np.inf)
    structure, leaves = flatten(kernel)
    K = np.asarray(kernel.gram(X))
    cross = np.asarray(diagonal_and_cross(structure, leaves, jnp.asarray(X))[1])
    tolerance = 8 * eps * size(kernel) * float(np.abs(K).max(initial=0.0))
    square, wide = (rows[:, None], rows), (rows, slice(None))
    diagonal = np.diagonal(K, axis1=-2, axis2=-1)
    parts: dict[str, tuple[Any, HostArray, tuple[Any, ...]]] = {
        "gram(X)": (np.nan, K, square),
        "diagonal(X)": (np.nan, diagonal, (rows,)),
        "k(X, X2)": (np.nan, cross, wide),
        "gram(X, X2, mask=mask)": (0.0, cross, wide),
        "gram(X, mask=mask)": (np.eye(n), K, square),
    }
    found = _padded(structure, leaves, jnp.asarray(nan), jnp.asarray(X), jnp.asarray(REAL))
    found["gram(X, mask=mask)"] = kernel.gram(infinite, mask=REAL)
    for name, (fill, part, index) in parts.items():
        wanted = np.broadcast_to(np.asarray(fill, dtype), found[name].shape).copy()
        wanted[(..., *index)] = part
        _expect(subject, name, np.asarray(found[name]), wanted, tolerance)
    nothing = np.asarray(kernel.gram(nan, mask=~np.ones_like(REAL)))
    name = "gram(X, mask=mask) of padding only"
    _expect(subject, name, nothing, np.broadcast_to(np.eye(n), nothing.shape), 0.0)


@quick_jit
def _padded(structure: Structure, leaves: Any, nan: Array, X: Array, mask: Array) -> Any:
    kernel = structure.rebuild(leaves)
    return {
        "gram(X)": kernel.gram(nan),
        "diagonal(X)": kernel.diagonal(nan),
        "k(X, X2)": kernel(nan, X),
        "gram(X, X2, mask=mask)": kernel.gram(nan, X, mask=mask),
    }


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

"""Padding: rows that stand for nothing, marked by NaN or by a mask.

They become clean rows and a mask once, before any arithmetic, and the mask is applied once, after
the whole composite; values and gradients then equal those of the unpadded problem.
"""

import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._errors import DTypeError, ShapeError
from ._typing import HostArray, Mask, OtherMask, Points


class Real(NamedTuple):
    """Which rows of two sets are real, as 1 and 0 of the dtype of the points."""

    rows: Float[Array, "n"]
    columns: Float[Array, "m"]

    def keep(self, K: Float[Array, "n m"]) -> Float[Array, "n m"]:
        """0 in padded rows and columns: a padded point is correlated with nothing."""
        return self.rows[:, None] * K * self.columns[None, :]

    def mark(self, K: Float[Array, "n m"]) -> Float[Array, "n m"]:
        """NaN in padded rows and columns: how a kernel call shows them."""
        return _mark(K, self.rows, self.columns)


@jax.custom_jvp
def _mark(K: Array, rows: Array, columns: Array) -> Array:
    # Sums of vectors cost less than a choice for each pair.
    gaps = (jnp.where(kept > 0, 0.0, jnp.nan).astype(K.dtype) for kept in (rows, columns))
    row, column = gaps
    return K + (row[:, None] + column[None, :])


@_mark.defjvp
def _(primals: Any, tangents: Any) -> Any:
    return _mark(*primals), Real(primals[1], primals[2]).keep(tangents[0])


def clean(X: Points, mask: Mask | None, *, finite: bool = False) -> tuple[Points, Mask]:
    """Rows with padding replaced by a real row of the same set, and which rows are real.

    Infinite rows are not padding: they stay, and make their covariances NaN; or with ``finite``
    they are replaced as well, and count as not real.
    """
    real = (jnp.isfinite(X) if finite else ~jnp.isnan(X)).all(axis=-1)
    if mask is not None:
        real = real & mask
    if X.shape[0] == 0:
        return X, real
    # A copy of a real row meets no value that the kernel would not meet anyway.
    stand_in = jnp.where(real.any(), X[jnp.argmax(real)], 0.0)
    return jnp.where(real[:, None], X, stand_in[None, :]), real


def both_real(real1: Mask, real2: OtherMask, dtype: Any) -> Real:
    """The two masks as numbers."""
    return Real(real1.astype(dtype), real2.astype(dtype))


def check_mask(mask: Array, points: tuple[int, ...], name: str) -> None:
    """A mask has one boolean per row of points of that shape, for each set or shared by all."""
    if mask.dtype != jnp.bool_:
        raise DTypeError(
            f"`{name}` has dtype {mask.dtype}, expected bool (True = a real row). "
            f"Fix: pass {name}.astype(bool)."
        )
    if mask.shape not in (points[:-1], points[-2:-1]):
        raise ShapeError(
            f"`{name}` has shape {mask.shape}, expected {points[:-1]}, one entry per point. "
            "Fix: pass one boolean per row."
        )


def pad(X: Any, y: Any = None, *, size: Any = None) -> Any:
    """Sets of different lengths as one array for a batch, filled up with rows of padding: NaN.

    ``X``: a list of (n_i, d) or (n_i,) arrays, to (b, n, d). ``y``: as many (n_i,) or (n_i, t)
    arrays, to (b, n) or (b, n, t); the result is then (X, y). y is NaN there too: a Gaussian
    process does not look at it, and a padded value used by mistake shows. For one set:
    ``pad([X])[0]``.

    ``size`` is n. By default it is the longest n_i rounded up to the next of 8, 10, 12, 14, 16, 20,
    24, 28, 32, 40, ..., beyond 8 by at most a quarter: calls compile once for each of these sizes
    (once more where nothing is padded), and not for each length. The result is of NumPy, in the
    floating dtype of the sets; whole numbers become float64. Raises `ShapeError`, and `DTypeError`
    for what is no real number.
    """
    points = [_rows(rows, f"X[{i}]") for i, rows in enumerate(_sets(X, "X"))]
    points = [rows[:, None] if rows.ndim == 1 else rows for rows in points]
    n = _size(max(map(len, points)), size)
    padded = _filled(points, n, "X")
    if y is None:
        return padded
    values = [_rows(rows, f"y[{i}]") for i, rows in enumerate(_sets(y, "y"))]
    if list(map(len, points)) != list(map(len, values)):
        raise ShapeError(
            f"`X` has sets of {list(map(len, points))} rows and `y` of {list(map(len, values))}, "
            "expected the same. Fix: pass one value of y per row of X."
        )
    return padded, _filled(values, n, "y")


def _sets(sets: Any, name: str) -> list[Any]:
    if not hasattr(sets, "__len__") or getattr(sets, "ndim", 3) < (3 if name == "X" else 2):
        # Its rows would pass as sets of points of dimension one.
        raise ShapeError(
            f"`{name}` has shape {np.shape(sets)}, expected a list of arrays. "
            f"Fix: pass [{name}] for one set."
        )
    if not len(sets):
        raise ShapeError(f"`{name}` is empty, expected a list of arrays. Fix: pass at least one.")
    return list(sets)


def _rows(rows: Any, name: str) -> HostArray:
    try:
        host = np.asarray(rows)
    except ValueError as error:
        raise ShapeError(
            f"`{name}` is a ragged list, expected rows of one length. Fix: pass an array."
        ) from error
    if host.dtype.kind not in "biu" and host.dtype not in (np.float32, np.float64):
        raise DTypeError(
            f"`{name}` has dtype {host.dtype}, expected float32 or float64. Fix: pass real numbers."
        )
    if host.ndim not in (1, 2):
        raise ShapeError(
            f"`{name}` has shape {host.shape}, expected (n, d) or (n,). Fix: pass a row per point."
        )
    return host.astype(np.float64) if host.dtype.kind in "biu" else host


def _size(longest: int, size: Any) -> int:
    if size is None:
        # Four sizes between one power of two and the next.
        step = 1 << max((longest - 1).bit_length() - 3, 0)
        return max(8, -(-longest // step) * step)
    if isinstance(size, bool) or operator.index(size) < longest:
        raise ShapeError(
            f"`size` is {size!r}, but the longest set has {longest} rows. "
            "Fix: pass at least as many, or leave it out."
        )
    return operator.index(size)


def _filled(sets: list[HostArray], n: int, name: str) -> HostArray:
    trailing = sets[0].shape[1:]
    padded = np.full((len(sets), n, *trailing), np.nan, np.result_type(*sets))
    for i, rows in enumerate(sets):
        if rows.shape[1:] != trailing:
            raise ShapeError(
                f"`{name}[{i}]` has shape {rows.shape} and `{name}[0]` {sets[0].shape}, expected "
                "the same but for the number of rows. Fix: pass equally many columns."
            )
        padded[i, : len(rows)] = rows
    return padded

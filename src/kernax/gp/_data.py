"""Observations as the arithmetic wants them: checked, clean, in one dtype, with what is padding.

The checks that need values run here, eagerly; inside a trace they are skipped, and a failure
shows as NaN.
"""

import dataclasses
import operator
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import _inputs, _padding
from .._errors import InputError, ParameterError, ShapeError
from .._module import prepared
from .._typing import HostArray
from ..kernels._gram import covariance
from ._means import evaluate_mean

if TYPE_CHECKING:
    from ._process import GaussianProcess


class Data(eqx.Module):
    """Points (n, d), values (n,), an optional mask, and facts that compilation may rely on."""

    X: Array
    y: Array
    mask: Array | None
    finite: bool = eqx.field(static=True)  # known to hold no padding
    column: bool = eqx.field(static=True)  # y came as (n, 1)
    # Taken off X on the host, per column, before rounding to 32 bits; a tuple is hashable.
    shift: tuple[float, ...] | None = eqx.field(static=True, default=None)

    @property
    def compiled(self) -> "Data":
        """What compiled code is given: the shift is taken off already, and is no part of it."""
        return self if self.shift is None else dataclasses.replace(self, shift=None)


def as_data(gp: "GaussianProcess", X: Any, y: Any, mask: Any, nan: str) -> Data:
    """Observations checked: shapes, dtypes, finiteness; lists and NumPy arrays on the device."""
    if nan not in ("pad", "raise"):
        raise ParameterError(
            f"`nan` is {nan!r}, expected 'pad' or 'raise'. Fix: leave it out to pad."
        )
    mask = None if mask is None else jnp.asarray(mask)
    X, y = (_inputs.without_filler(v, mask, name) for v, name in ((X, "X"), (y, "y")))
    shift = host_shift(gp, X)
    points, finite = as_inputs(X, shift)
    values, _ = _inputs.as_points(y, "y")
    _inputs.check_dtype(values.dtype, "y")
    column = values.ndim == 2 and values.shape[1] == 1
    values = values[:, 0] if column else values
    n = points.shape[0]
    if values.shape != (n,):
        raise ShapeError(
            f"`X` has {n} rows (shape {points.shape}) and `y` has shape {jnp.shape(y)}, expected "
            f"({n},) or ({n}, 1). Fix: pass one value of y per row of X."
        )
    if gp.noise_variance.shape not in ((), (n,)):
        raise ShapeError(wrong_noise(gp, n))
    if mask is not None:
        _padding.check_mask(mask, points.shape, "mask")
        finite = False
    _check_missing(points, values, mask, nan)
    return Data(points, values, mask, finite, column, shift)


def wrong_noise(gp: "GaussianProcess", n: int) -> str:
    return (
        f"`noise_variance` has shape {gp.noise_variance.shape}, but `X` has {n} rows. "
        "Fix: pass one value, or one per row."
    )


def as_inputs(X: Any, shift: tuple[float, ...] | None, name: str = "X") -> tuple[Array, bool]:
    """Points (n, d) on the device, less the shift, and whether they are known to be finite."""
    if isinstance(X, jax.core.Tracer) and shift is not None:
        points, finite = _shifted(X, np.asarray(shift)), False
    else:
        points, finite = _inputs.as_points(X, name, None if shift is None else np.asarray(shift))
    _inputs.check_dtype(points.dtype, name)
    if points.ndim not in (1, 2):
        raise ShapeError(
            f"`{name}` has shape {points.shape}, expected (n, d) or (n,). "
            "Fix: pass a row per point."
        )
    points = points[:, None] if points.ndim == 1 else points
    if points.shape[1] == 0:
        raise ShapeError(
            f"`{name}` has shape {points.shape}: need at least 1 input dimension. Fix: pass (n, d)."
        )
    _inputs.warn_of_spacing(points, name)
    return points, finite


def host_shift(gp: "GaussianProcess", X: Any) -> tuple[float, ...] | None:
    """What to take off 64-bit host data, per column, before rounding them to 32 bits."""
    if isinstance(X, jax.Array) or not (gp.kernel.stationary and getattr(gp.mean, "flat", False)):
        return None
    found = _inputs.common_shift(X)
    return None if found is None else tuple(found.tolist())


def _shifted(X: Array, shift: HostArray) -> Array:
    """X - shift inside a trace, in two steps: the shift alone would be rounded to 32 bits."""
    high = shift.astype(X.dtype)
    low = (shift - high).astype(X.dtype)
    high, low = (part[0] if X.ndim < 2 else part[None, :] for part in (high, low))
    # Without the barrier XLA adds the two parts up again.
    return jax.lax.optimization_barrier(X - high) - low


def _check_missing(X: Array, y: Array, mask: Array | None, nan: str) -> None:
    if any(isinstance(value, jax.core.Tracer) for value in (X, y, mask)):
        return
    missing = np.isnan(np.asarray(X)) if X.dtype.kind == "f" else np.zeros(X.shape, bool)
    if mask is not None:
        missing = missing & np.asarray(mask)[:, None]
    if nan == "raise" and missing.any():
        row, column = np.argwhere(missing)[0]
        raise InputError(
            f"`X` holds {int(missing.sum())} NaN, the first at row {row}, column {column}; "
            'expected numbers. Fix: drop those rows, or pass nan="pad" to read them as padding.'
        )
    real = ~missing.any(axis=1)
    real = real if mask is None else real & np.asarray(mask)
    bad = np.isnan(np.asarray(y)) & real if y.dtype.kind == "f" else np.zeros(y.shape, bool)
    if bad.any():
        raise InputError(
            f"`y` holds {int(bad.sum())} NaN where `X` is real, the first at row "
            f"{int(np.argmax(bad))}; expected numbers. Fix: drop those rows, or mark them as "
            "padding with `mask`, or by NaN in X."
        )


def prepared_gp(gp: Any, X: Array, *others: Array) -> tuple[Any, Array]:
    """The process and the points in the one floating dtype of these, and of other arrays."""
    leaves = [leaf for leaf in jax.tree.leaves(gp) if eqx.is_inexact_array(leaf)]
    dtype = _inputs.common_dtype(X, *leaves, *others)
    return prepared(gp, dtype), X.astype(dtype)


def clean_inputs(X: Array, finite: bool, mask: Array | None) -> tuple[Array, Array | None]:
    """Clean points, and which of them are real: None where all are known to be."""
    return (X, None) if finite and mask is None else _padding.clean(X, mask)


def mark_rows(values: Array, real: Array | None) -> Array:
    """NaN in the last axis where a test point is padding."""
    return (
        values if real is None else jnp.where(jnp.broadcast_to(real, values.shape), values, jnp.nan)
    )


def system(gp: "GaussianProcess", data: Data) -> tuple[Array, Array, Array, Array, Array]:
    """K + noise, y - mean, the number of real points, their mean variance, and the points."""
    gp, X = prepared_gp(gp, data.X, data.y)
    y = data.y.astype(X.dtype)
    X, real = clean_inputs(X, data.finite, data.mask)
    n = X.shape[0]
    K = covariance(gp.kernel, X) if n else jnp.zeros((0, 0), X.dtype)
    K = K + jnp.diag(jnp.broadcast_to(gp.noise_variance, (n,)))
    residual = y - evaluate_mean(gp.mean, X)
    if real is None:
        scale = jnp.mean(jnp.diagonal(K)) if n else jnp.ones((), X.dtype)
        return K, residual, jnp.asarray(n, X.dtype), jax.lax.stop_gradient(scale), X
    count = jnp.sum(real).astype(X.dtype)
    total = jnp.sum(jnp.where(real, jnp.diagonal(K), 0.0))
    scale = jax.lax.stop_gradient(total / jnp.maximum(count, 1.0))
    # The padded value goes before the subtraction, so that no NaN meets a derivative.
    residual = jnp.where(real, jnp.where(real, y, 0.0) - evaluate_mean(gp.mean, X), 0.0)
    return _padding.as_identity(K, real), residual, count, scale, X


def as_key(key: Any) -> Any:
    """A key of JAX's random numbers; `ParameterError` for anything else."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not (jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == jnp.uint32):
        raise ParameterError(
            f"`key` is {key!r}, expected a key of random numbers. Fix: pass jax.random.key(0)."
        )
    return key


def as_shape(shape: Any) -> tuple[int, ...]:
    """A shape of draws; one number is a shape of one axis."""
    try:
        sizes = tuple(operator.index(n) for n in (shape if np.iterable(shape) else (shape,)))
    except TypeError:
        sizes = (-1,)
    if any(size < 0 for size in sizes):
        raise ParameterError(
            f"`shape` is {shape!r}, expected whole numbers >= 0. Fix: pass for instance (3,)."
        )
    return sizes

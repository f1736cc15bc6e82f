"""The log density of a multivariate normal, and what is said when it fails."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import _inputs
from .._errors import InputError, KernaxError, NotPSDError, NumericalWarning, ShapeError
from .._typing import ArrayLike, HostArray
from ._dense import LADDER, log_density


def mvn_log_density(y: ArrayLike, mean: ArrayLike, covariance: ArrayLike) -> Array:
    """log N(y; mean, covariance): y (n,) or (n, 1), mean (n,) or a scalar, covariance (n, n).

    Differentiable to any order by a hand-written rule. Where the covariance is singular to
    working precision, a jitter relative to its diagonal is added, with a `NumericalWarning`.
    Raises `NotPSDError` where that does not help, `InputError` for an asymmetric covariance or
    NaN; traced, the result is NaN instead.
    """
    y, mean, K = (
        _inputs.as_points(value, name)[0]
        for value, name in ((y, "y"), (mean, "mean"), (covariance, "covariance"))
    )
    n = K.shape[0] if K.ndim == 2 else -1
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if K.shape != (n, n) or y.shape != (n,) or mean.shape not in ((), (n,)):
        raise ShapeError(
            f"`y` has shape {y.shape}, `mean` {mean.shape} and `covariance` {K.shape}, expected "
            "(n,), (n,) or (), and (n, n). Fix: use one size n."
        )
    check_no_nan(y, "y")
    check_no_nan(mean, "mean")
    check_covariance(K)
    value, jitter = _density(y, mean, K)
    report(value, jitter, lambda: failure(np.asarray(K)))
    return value


@jax.jit
def _density(y: Array, mean: Array, K: Array) -> tuple[Array, Array]:
    dtype = _inputs.common_dtype(y, mean, K)
    y, mean, K = y.astype(dtype), mean.astype(dtype), K.astype(dtype)
    count = jnp.asarray(K.shape[0], dtype)
    scale = jnp.mean(jnp.diagonal(K)) if K.shape[0] else jnp.ones((), dtype)
    # A symmetric matrix by construction: a gradient with respect to it is symmetric too.
    K = 0.5 * (K + K.T)
    return log_density(K, y - mean, count, scale)


def check_no_nan(values: Array, name: str) -> None:
    """`InputError` for a concrete array with NaN."""
    if isinstance(values, jax.core.Tracer) or values.dtype.kind != "f":
        return
    missing = np.argwhere(np.isnan(np.asarray(values)))
    if len(missing):
        place = ", ".join(
            f"{axis} {i}" for axis, i in zip(("row", "column"), missing[0], strict=False)
        )
        raise InputError(
            f"`{name}` holds {len(missing)} NaN{place and ', the first at ' + place}; expected "
            "numbers. Fix: look at the inputs it was computed from."
        )


def check_covariance(K: Array) -> None:
    """`InputError` for a concrete matrix with NaN, or that is not symmetric."""
    if isinstance(K, jax.core.Tracer):
        return
    check_no_nan(K, "covariance")
    host = np.asarray(K)
    asymmetry = np.abs(host - host.T).max(initial=0.0)
    if asymmetry > 10 * np.finfo(_inputs.common_dtype(K)).eps * np.abs(host).max(initial=0.0):
        raise InputError(
            f"`covariance` is not symmetric: entries differ from their mirror image by up to "
            f"{asymmetry:.3g}. Fix: pass (C + C.T) / 2 if that is what you mean."
        )


def report(
    value: Any, jitter: Any, explain: Callable[[], KernaxError], *, quiet: bool = False
) -> None:
    """The eager end of the rule on jitter: warn where there was some, raise where it failed."""
    if isinstance(value, jax.core.Tracer) or isinstance(jitter, jax.core.Tracer):
        return
    if np.isnan(value).any():
        raise explain()
    most = float(np.max(jitter, initial=0.0))
    if most > 0 and not quiet:
        warnings.warn(
            f"the covariance matrix is singular to working precision: {most:.3g} was added to its "
            "diagonal. Fix: add noise, or remove duplicate points.",
            NumericalWarning,
            stacklevel=3,
        )


def failure(K: HostArray, X: HostArray | None = None) -> KernaxError:
    """Why a log density of a covariance K is not a number, as far as can be seen."""
    A = _of_real_points(K, X)
    if np.isfinite(A).all() and _has_factor(A + _largest_jitter(A) * np.eye(len(A), dtype=A.dtype)):
        variances = np.diagonal(A)
        return InputError(
            f"the log density is beyond the range of {A.dtype}: `y` is too far from the mean for "
            f"variances between {variances.min():.6g} and {variances.max():.6g}. "
            "Fix: rescale `y`, or enable x64."
        )
    return not_psd(K, X)


def not_psd(K: HostArray, X: HostArray | None = None) -> NotPSDError:
    """Why K has no Cholesky factor, over the points that are real: rows of X without NaN."""
    K = _of_real_points(K, X)
    n, diagonal = K.shape[0], np.diagonal(K)
    if not np.isfinite(K).all():
        bad = np.argwhere(~np.isfinite(K))[0]
        return NotPSDError(
            f"the {n} x {n} covariance matrix ({K.dtype}) holds values that are not finite, the "
            f"first at row {bad[0]}, column {bad[1]}. Fix: look at the hyperparameters and inputs."
        )
    largest = _largest_jitter(K)
    where = "" if X is None else _nearest_pair(X)
    return NotPSDError(
        f"the {n} x {n} covariance matrix ({K.dtype}) is not positive semi-definite: its diagonal "
        f"is between {diagonal.min():.6g} and {diagonal.max():.6g}, and adding up to {largest:.3g} "
        f"to it did not help.{where} Fix: add noise (a larger `noise_variance`), or enable x64."
    )


def _of_real_points(K: HostArray, X: HostArray | None) -> HostArray:
    K = K if K.dtype.kind == "f" else K.astype(np.float64)
    if X is None:
        return K
    real = ~np.isnan(X).any(axis=1)
    return K[np.ix_(real, real)]


def _largest_jitter(K: HostArray) -> Any:
    n, eps = K.shape[0], np.finfo(K.dtype).eps
    return min(LADDER[-1] * n * eps, max(np.sqrt(eps), 10 * n * eps)) * np.diagonal(K).mean()


def _has_factor(K: HostArray) -> bool:
    try:
        np.linalg.cholesky(K)
    except np.linalg.LinAlgError:
        return False
    return True


def _nearest_pair(X: HostArray) -> str:
    rows = np.flatnonzero(~np.isnan(X).any(axis=1))
    n = len(rows)
    if n < 2:
        return ""
    sample = X[rows][:2000]
    order = np.lexsort(sample.T[::-1])
    gaps = np.linalg.norm(np.diff(sample[order], axis=0), axis=1)
    if n <= 500:
        distances = np.linalg.norm(sample[:, None] - sample[None], axis=-1)
        np.fill_diagonal(distances, np.inf)
        i, j = np.unravel_index(distances.argmin(), distances.shape)
        gap = distances[i, j]
    else:
        at = int(gaps.argmin())
        i, j, gap = order[at], order[at + 1], gaps[at]
    kind = "are duplicates" if gap == 0 else f"are only {gap:.3g} apart"
    i, j = sorted((int(rows[i]), int(rows[j])))
    return f" Points {i} and {j} {kind}."

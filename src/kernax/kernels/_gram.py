"""From a kernel to its matrices: the one place where calls are dispatched, cleaned and compiled.

Every public evaluation goes through a jitted function of this module, over (structure of the
kernel, its arrays, the points). Nothing is compiled again for new hyperparameter values, and
shapes, dtypes and names are checked when traced, at no run cost.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .. import _inputs, _padding
from .._errors import ShapeError
from .._module import Structure, flatten, prepared
from .._typing import Mask, Matrix, OtherPoints, Points, Vector
from ._mirror import mirror

if TYPE_CHECKING:
    from ._base import AbstractKernel

_jit = partial(jax.jit, static_argnames=("structure", "finite"), inline=True)


# --- eager entry points ------------------------------------------------------------------------


def call(kernel: "AbstractKernel", x1: Any, x2: Any) -> Array:
    structure, leaves = flatten(kernel)
    if isinstance(x1, jax.Array) and isinstance(x2, jax.Array) and x1.ndim < 2 and x2.ndim < 2:
        # One pair: looking at its values first would cost as much as the covariance.
        return _call(structure, False, leaves, x1, x2)
    x1, x2, finite = _points(kernel, x1, x2, ("x1", "x2"), single=True)
    return _call(structure, finite, leaves, x1, x2)


def gram(kernel: "AbstractKernel", X: Any, X2: Any, mask: Any, mask2: Any) -> Array:
    structure, leaves = flatten(kernel)
    X, X2, finite = _points(kernel, X, X2, ("X", "X2"))
    if mask is None and mask2 is None:
        return _gram(structure, finite, leaves, X, X2)
    if mask2 is not None and X2 is None:
        raise ShapeError("`mask2` was given without `X2`. Fix: use `mask` for the rows of X.")
    mask, mask2 = (None if m is None else jnp.asarray(m) for m in (mask, mask2))
    return _masked_gram(structure, leaves, X, X2, mask, mask2)


def diagonal(kernel: "AbstractKernel", X: Any) -> Array:
    structure, leaves = flatten(kernel)
    X, _, finite = _points(kernel, X, None, ("X", ""))
    return _diagonal(structure, finite, leaves, X)


def _points(
    kernel: "AbstractKernel", x1: Any, x2: Any, names: tuple[str, str], *, single: bool = False
) -> tuple[Array, Array | None, bool]:
    """Both sets on the device, by one common shift where the kernel does not notice one."""
    both = (x1,) if x2 is None else (x1, x2)
    host = not all(isinstance(x, jax.Array) for x in both)
    shift = None
    if host and kernel.stationary:
        shift = _inputs.common_shift(*both)
    first, finite = _inputs.as_points(x1, names[0], shift, single=single)
    if x2 is None:
        return first, None, finite
    second, also = _inputs.as_points(x2, names[1], shift, single=single)
    return first, second, finite and also


# --- compiled functions ------------------------------------------------------------------------


@_jit
def _call(
    structure: Structure, finite: bool, leaves: tuple[Array, ...], x1: Array, x2: Array | None
) -> Array:
    kernel, x1, x2 = _ready(structure, leaves, x1, x2, ("x1", "x2"))
    x1 = jnp.atleast_1d(x1)
    if x2 is None:
        if x1.ndim == 1:
            return _levels(lambda X: same_points(kernel, X, None, finite), x1[None, :], None)[0, 0]
        return _levels(lambda X: same_points(kernel, X, None, finite), x1, None)
    x2 = jnp.atleast_1d(x2)
    rows1, rows2 = (x if x.ndim > 1 else x[None, :] for x in (x1, x2))
    K = _levels(lambda X, Y: two_sets(kernel, X, Y, finite), rows1, rows2)
    K = K if x2.ndim > 1 else K[..., 0]
    return K if x1.ndim > 1 else (K[0] if x2.ndim == 1 or K.ndim < 3 else K[:, 0])


@_jit
def _gram(
    structure: Structure, finite: bool, leaves: tuple[Array, ...], X: Array, X2: Array | None
) -> Array:
    kernel, X, X2 = _ready(structure, leaves, X, X2, ("X", "X2"))
    X, X2 = _columns(X), _columns(X2)
    if X2 is None:
        return _levels(lambda X: same_points(kernel, X, None, finite), X, None)
    return _levels(lambda X, Y: two_sets(kernel, X, Y, finite), X, X2)


@partial(jax.jit, static_argnames=("structure",), inline=True)
def _masked_gram(
    structure: Structure,
    leaves: tuple[Array, ...],
    X: Array,
    X2: Array | None,
    mask: Array | None,
    mask2: Array | None,
) -> Array:
    kernel, X, X2 = _ready(structure, leaves, X, X2, ("X", "X2"))
    X, X2 = _columns(X), _columns(X2)
    for m, points, name in ((mask, X, "mask"), (mask2, X2, "mask2")):
        if m is not None and points is not None:
            _padding.check_mask(m, points.shape[0], name)
    clean, real = _padding.clean(X, mask)
    if X2 is None:
        return _padding.as_identity(covariance(kernel, clean), real)
    clean2, real2 = _padding.clean(X2, mask2)
    return _padding.as_zeros(kernel.matrix(clean, clean2), real, real2)


@_jit
def _diagonal(structure: Structure, finite: bool, leaves: tuple[Array, ...], X: Array) -> Array:
    kernel, X, _ = _ready(structure, leaves, X, None, ("X", "X2"))

    def one(X: Points) -> Vector:
        clean, real = _padding.clean(X, None)
        values = variances(kernel, clean)
        return values if finite else jnp.where(real, values, jnp.nan)

    return _levels(one, _columns(X), None)


# --- the driver: on prepared kernels, for use inside traced code --------------------------------


def same_points(kernel: "AbstractKernel", X: Points, mask: Mask | None, finite: bool) -> Matrix:
    """K(X, X) with white noise on the diagonal; NaN where there is padding."""
    if finite and mask is None:
        return covariance(kernel, X)
    clean, real = _padding.clean(X, mask)
    return _padding.mark(covariance(kernel, clean), real, real)


def two_sets(kernel: "AbstractKernel", X: Points, Y: OtherPoints, finite: bool) -> Matrix:
    """K(X, Y), without white noise; NaN where there is padding."""
    if finite:
        return kernel.matrix(X, Y)
    (X, real1), (Y, real2) = _padding.clean(X, None), _padding.clean(Y, None)
    return _padding.mark(kernel.matrix(X, Y), real1, real2)


def covariance(kernel: "AbstractKernel", X: Points, *, noise: bool = True) -> Matrix:
    """K(X, X) of clean points, exactly symmetric, with or without white noise."""
    K = kernel.matrix(X, X)
    if not kernel.symmetric_rounding:
        K = mirror(K)
    if noise and has_noise(kernel):
        diagonal = variances(kernel, X)
        K = jnp.where(jnp.eye(X.shape[0], dtype=bool), diagonal[:, None], K)
    return K


def variances(kernel: "AbstractKernel", X: Points, *, noise: bool = True) -> Vector:
    """k(x, x) for each row: the composite's formula with white noise present, or without."""
    kernel = with_noise(kernel) if noise else kernel
    values: Vector = jax.vmap(lambda x: kernel.pairwise(x, x))(X)
    return values


def has_noise(kernel: "AbstractKernel") -> bool:
    """Whether white noise stands anywhere in the tree."""
    from ._elementary import WhiteNoiseKernel

    is_noise = lambda node: isinstance(node, WhiteNoiseKernel)  # noqa: E731
    return any(is_noise(node) for node in jax.tree.leaves(kernel, is_leaf=is_noise))


def with_noise(kernel: "AbstractKernel") -> "AbstractKernel":
    """The tree with each white noise as a constant: the formula of one observation with itself."""
    from ._elementary import ConstantKernel, WhiteNoiseKernel

    is_noise = lambda node: isinstance(node, WhiteNoiseKernel)  # noqa: E731
    rewritten: AbstractKernel = jax.tree.map(
        lambda node: ConstantKernel(node.variance) if is_noise(node) else node,
        kernel,
        is_leaf=is_noise,
    )
    return rewritten


# --- helpers -----------------------------------------------------------------------------------


def _ready(
    structure: Structure,
    leaves: tuple[Array, ...],
    x1: Array,
    x2: Array | None,
    names: tuple[str, str],
) -> tuple[Any, Array, Array | None]:
    """Kernel and points in one floating dtype, shapes checked."""
    for x, name in ((x1, names[0]), (x2, names[1])):
        if x is not None:
            _inputs.check_dtype(x.dtype, name)
    dtype = _inputs.common_dtype(x1, *(() if x2 is None else (x2,)), *leaves)
    kernel = prepared(structure.rebuild(leaves), dtype)
    x1 = x1.astype(dtype)
    x2 = None if x2 is None else x2.astype(dtype)
    return kernel, x1, x2


def _columns(X: Array | None) -> Any:
    """(n,) is n points of dimension one."""
    if X is None or X.ndim > 1:
        return X
    if X.ndim == 0:
        raise ShapeError("`X` has shape (), expected (n, d) or (n,). Fix: pass at least a list.")
    return X[:, None]


def _levels(function: Any, X: Array, Y: Array | None) -> Array:
    """``function`` on 2-D sets, over a leading batch axis where there is one."""
    for points in (X,) if Y is None else (X, Y):
        if points.ndim > 3 or points.shape[-1] == 0:
            problem = (
                "need at least 1 input dimension" if points.ndim < 4 else "at most 3 axes expected"
            )
            raise ShapeError(
                f"points of shape {points.shape}: {problem}. Fix: pass (n, d) or (b, n, d)."
            )
    if Y is None:
        return jax.vmap(function)(X) if X.ndim == 3 else function(X)
    if X.ndim == Y.ndim == 3 and X.shape[0] != Y.shape[0]:
        raise ShapeError(
            f"batches of {X.shape[0]} and {Y.shape[0]} point sets, shapes {X.shape} and {Y.shape}, "
            "expected the same number. Fix: pass sets in equal batches."
        )
    if X.shape[-1] != Y.shape[-1]:
        raise ShapeError(
            f"`x1` has dimension {X.shape[-1]} and `x2` has dimension {Y.shape[-1]} (shapes "
            f"{X.shape} and {Y.shape}), expected the same. Fix: pass equally many columns."
        )
    if X.ndim == 2 and Y.ndim == 2:
        return function(X, Y)
    axes = (0 if X.ndim == 3 else None, 0 if Y.ndim == 3 else None)
    return jax.vmap(function, in_axes=axes)(X, Y)

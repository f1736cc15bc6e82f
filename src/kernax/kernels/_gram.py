"""From a kernel to its matrices: the one place where calls are dispatched, cleaned and compiled.

Every public evaluation goes through a jitted function of this module, over (structure of the
kernel, its arrays, the points). Nothing is compiled again for new hyperparameter values, and
shapes, dtypes and names are checked when traced, at no run cost.
"""

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .. import _inputs, _padding
from .._errors import ShapeError
from .._memory import check_memory
from .._module import Structure, flatten, prepared
from .._typing import Mask, Matrix, OtherPoints, Points, Vector
from ._blocks import BLOCK_PAIRS, raised, rectangle, triangle
from ._diagonal import add_to_diagonal, with_diagonal
from ._levels import PointSet, over_levels

if TYPE_CHECKING:
    from ._base import AbstractKernel

LARGE = 1 << 30  # bytes beyond which it is looked whether there is room

_jit = partial(jax.jit, static_argnames=("structure", "finite"), inline=True)


# --- eager entry points ------------------------------------------------------------------------


def call(kernel: "AbstractKernel", x1: Any, x2: Any) -> Array:
    structure, leaves = flatten(kernel)
    if isinstance(x1, jax.Array) and isinstance(x2, jax.Array) and x1.ndim < 2 and x2.ndim < 2:
        # One pair: looking at its values first would cost as much as the covariance.
        return _call(structure, False, leaves, x1, x2)
    x1, x2, finite = on_device(kernel, x1, x2, ("x1", "x2"), single=True)
    _check_room(x1, x2)
    return _call(structure, finite, leaves, x1, x2)


def gram(kernel: "AbstractKernel", X: Any, X2: Any, mask: Any, mask2: Any) -> Array:
    structure, leaves = flatten(kernel)
    if mask is None and mask2 is None:
        first, second, finite = on_device(kernel, X, X2, ("X", "X2"))
        _check_room(first, second)
        return _gram(structure, finite, leaves, first, second)
    if mask2 is not None and X2 is None:
        raise ShapeError("`mask2` was given without `X2`. Fix: use `mask` for the rows of X.")
    known = lambda m: m if m is None or isinstance(m, jax.Array) else jnp.asarray(m)
    mask, mask2 = known(mask), known(mask2)
    X = _inputs.without_filler(X, mask, "X")
    if X2 is not None:
        X2 = _inputs.without_filler(X2, mask2, "X2")
    first, second, _ = on_device(kernel, X, X2, ("X", "X2"))
    _check_room(first, second)
    return _masked_gram(structure, leaves, first, second, mask, mask2)


def diagonal(kernel: "AbstractKernel", X: Any) -> Array:
    structure, leaves = flatten(kernel)
    X, _, finite = on_device(kernel, X, None, ("X", ""))
    return _diagonal(structure, finite, leaves, X)


def _check_room(X: Array, X2: Array | None) -> None:
    """`ResourceError` for matrices of one set with another that do not fit into memory."""
    Y = X if X2 is None else X2
    if X.ndim and Y.ndim:
        rows, columns = (x.shape[0] if x.ndim == 1 else x.shape[-2] for x in (X, Y))
        count = max((math.prod(x.shape[:-2]) for x in (X, Y) if x.ndim > 2), default=1)
        need = count * rows * columns * max(X.dtype.itemsize, Y.dtype.itemsize)
        if need > LARGE:
            fix = "use kernax.KernelOperator, or solver=kernax.Iterative() in a Gaussian process"
            check_memory(f"a matrix of {rows} x {columns} covariances", need, fix)


def on_device(
    kernel: "AbstractKernel",
    x1: Any,
    x2: Any,
    names: tuple[str, str],
    *,
    single: bool = False,
    shifts: bool = True,
) -> tuple[Array, Array | None, bool]:
    """Both sets on the device, by one common shift where the kernel does not notice one.

    With ``shifts=False`` something else would notice.
    """
    both = (x1,) if x2 is None else (x1, x2)
    host = not all(isinstance(x, jax.Array) for x in both)
    shift = None
    if host and shifts and kernel.stationary:
        shift = _inputs.common_shift(*both, single=single)
    first, finite = _inputs.as_points(x1, names[0], shift, single=single)
    if not single or first.ndim > 1:
        _inputs.warn_of_spacing(first, names[0])
    if x2 is None:
        return first, None, finite
    second, also = _inputs.as_points(x2, names[1], shift, single=single)
    return first, second, finite and also


# --- compiled functions ------------------------------------------------------------------------


@_jit
def _call(
    structure: Structure, finite: bool, leaves: tuple[Array, ...], x1: Array, x2: Array | None
) -> Array:
    kernel, dtype, x1, x2 = ready(structure, leaves, x1, x2, ("x1", "x2"))
    # A 1-D array is one point, a set of one row for all elements of a batch.
    first = _point_set(x1, "x1")
    if x2 is None:
        K = _same(kernel, dtype, first, finite)
        return K[..., 0, 0] if x1.ndim < 2 else K
    K = _two(kernel, dtype, first, _point_set(x2, "x2"), finite)
    K = K if x2.ndim > 1 else K[..., 0]
    return K if x1.ndim > 1 else (K[..., 0] if x2.ndim < 2 else K[..., 0, :])


@_jit
def _gram(
    structure: Structure, finite: bool, leaves: tuple[Array, ...], X: Array, X2: Array | None
) -> Array:
    kernel, dtype, X, X2 = ready(structure, leaves, X, X2, ("X", "X2"))
    if X2 is None:
        return _same(kernel, dtype, columns(X, "X"), finite)
    return _two(kernel, dtype, columns(X, "X"), columns(X2, "X2"), finite)


@partial(jax.jit, static_argnames=("structure",), inline=True)
def _masked_gram(
    structure: Structure,
    leaves: tuple[Array, ...],
    X: Array,
    X2: Array | None,
    mask: Array | None,
    mask2: Array | None,
) -> Array:
    kernel, dtype, X, X2 = ready(structure, leaves, X, X2, ("X", "X2"))
    first = columns(X, "X")._replace(mask=mask)
    if X2 is None:

        def identity(kernel: Any, X: Points, mask: Mask | None) -> Matrix:
            X, real = _padding.clean(X, mask)
            return covariance(prepared(kernel, dtype), X, real)

        return over_levels(identity, kernel, first)

    def zeros(kernel: Any, X: Points, Y: OtherPoints, mask: Any, mask2: Any) -> Matrix:
        (X, real1), (Y, real2) = _padding.clean(X, mask), _padding.clean(Y, mask2)
        real = _padding.both_real(real1, real2, dtype)
        return rectangle(prepared(kernel, dtype), X, Y, real)

    return over_levels(zeros, kernel, first, columns(X2, "X2")._replace(mask=mask2))


@_jit
def _diagonal(structure: Structure, finite: bool, leaves: tuple[Array, ...], X: Array) -> Array:
    kernel, dtype, X, _ = ready(structure, leaves, X, None, ("X", "X2"))

    def one(kernel: Any, X: Points, _: None) -> Vector:
        clean = _padding.clean(X, None)[0]
        values = variances(prepared(kernel, dtype), clean)
        return values if finite else jnp.where(jnp.isfinite(X).all(axis=-1), values, jnp.nan)

    return over_levels(one, kernel, columns(X, "X"))


def _same(kernel: Any, dtype: Any, X: PointSet, finite: bool) -> Array:
    return over_levels(lambda k, X, _: same_points(prepared(k, dtype), X, finite), kernel, X)


def _two(kernel: Any, dtype: Any, X: PointSet, Y: PointSet, finite: bool) -> Array:
    return over_levels(lambda k, X, Y, *_: two_sets(prepared(k, dtype), X, Y, finite), kernel, X, Y)


# --- the driver: on prepared kernels, for use inside traced code --------------------------------


def same_points(kernel: "AbstractKernel", X: Points, finite: bool) -> Matrix:
    """K(X, X) with white noise on the diagonal; NaN where there is padding."""
    if finite:
        return covariance(kernel, X)
    X, real = _padding.clean(X, None, finite=True)
    return covariance(kernel, X, real, mark=True)


def two_sets(kernel: "AbstractKernel", X: Points, Y: OtherPoints, finite: bool) -> Matrix:
    """K(X, Y), without white noise; NaN where there is padding."""
    if finite:
        return rectangle(kernel, X, Y)
    (X, real1), (Y, real2) = (_padding.clean(points, None, finite=True) for points in (X, Y))
    return rectangle(kernel, X, Y, _padding.both_real(real1, real2, X.dtype), mark=True)


def covariance(
    kernel: "AbstractKernel",
    X: Points,
    real: Mask | None = None,
    *,
    noise: bool = True,
    mark: bool = False,
) -> Matrix:
    """K(X, X) of clean points, exactly symmetric, with or without white noise.

    Where ``real`` says that rows are padding they are those of the identity, or NaN with ``mark``.
    """
    kept = None if real is None else real.astype(X.dtype)
    both = None if kept is None else _padding.Real(kept, kept)
    if _settled(kernel, noise):
        K = rectangle(kernel, X, X, both, mark=mark)
        return K if kept is None or mark else add_to_diagonal(K, 1.0 - kept)
    diagonal = variances(kernel, X, noise=noise)
    if kept is not None:
        diagonal = jnp.where(kept > 0, diagonal, jnp.nan if mark else 1.0)
    if not kernel.symmetric_rounding:
        return triangle(kernel, X, diagonal, kept, mark=mark)
    return with_diagonal(rectangle(kernel, X, X, both, mark=mark), diagonal)


def _settled(kernel: "AbstractKernel", noise: bool = True) -> bool:
    """Whether what `rectangle` gives of one set is symmetric, and its diagonal what it should."""
    return kernel.symmetric_rounding and not (noise and has_noise(kernel))


def observed(
    kernel: "AbstractKernel", X: Points, noise: Vector, real: Mask | None = None
) -> tuple[Matrix, Vector]:
    """K(X, X) + diag(noise) of clean points, and its diagonal; padding has rows of the identity.

    A large one is written in one pass to the memory that a factorisation then overwrites.
    """
    kept = None if real is None else real.astype(X.dtype)
    added = noise if real is None else jnp.where(real, noise, 1.0)
    large, settled = len(X) ** 2 >= 2 * BLOCK_PAIRS, _settled(kernel)
    if large:
        diagonal = variances(kernel, X) + noise
        diagonal = diagonal if real is None else jnp.where(real, diagonal, 1.0)
        if settled:
            return raised(kernel, X, added, kept), diagonal
        return triangle(kernel, X, diagonal, kept), diagonal
    if settled:
        both = None if kept is None else _padding.Real(kept, kept)
        K = add_to_diagonal(rectangle(kernel, X, X, both), added)
    else:
        noise = noise if real is None else jnp.where(real, noise, 0.0)
        K = add_to_diagonal(covariance(kernel, X, real), noise)
    return K, jnp.diagonal(K)


def variances(kernel: "AbstractKernel", X: Points, *, noise: bool = True) -> Vector:
    """k(x, x) for each row: the composite's formula with white noise present, or without."""
    kernel = with_noise(kernel) if noise else kernel
    values: Vector = jax.vmap(lambda x: kernel.pairwise(x, x))(X)
    return values


def has_noise(kernel: "AbstractKernel") -> bool:
    """Whether white noise stands anywhere in the tree."""
    from ._elementary import WhiteNoiseKernel

    is_noise = lambda node: isinstance(node, WhiteNoiseKernel)
    return any(is_noise(node) for node in jax.tree.leaves(kernel, is_leaf=is_noise))


def with_noise(kernel: "AbstractKernel") -> "AbstractKernel":
    """The tree with each white noise as a constant: the formula of one observation with itself."""
    from ._elementary import ConstantKernel, WhiteNoiseKernel

    is_noise = lambda node: isinstance(node, WhiteNoiseKernel)
    rewritten: AbstractKernel = jax.tree.map(
        lambda node: ConstantKernel(node.variance) if is_noise(node) else node,
        kernel,
        is_leaf=is_noise,
    )
    return rewritten


# --- helpers -----------------------------------------------------------------------------------


def ready(
    structure: Structure,
    leaves: tuple[Array, ...],
    x1: Array,
    x2: Array | None,
    names: tuple[str, str],
) -> tuple[Any, Any, Array, Any]:
    """The kernel as it is, the dtype to compute in, and the points in it."""
    for x, name in ((x1, names[0]), (x2, names[1])):
        if x is not None:
            _inputs.check_dtype(x.dtype, name)
    dtype = _inputs.common_dtype(x1, *(() if x2 is None else (x2,)), *leaves)
    x2 = None if x2 is None else x2.astype(dtype)
    return structure.rebuild(leaves), dtype, x1.astype(dtype), x2


def _point_set(x: Array, name: str) -> PointSet:
    """For calls: (d,) is one point, for every element of a batch; numbers have dimension one."""
    if x.ndim < 2:
        return PointSet(jnp.atleast_1d(x)[None, :], name, may_share=True)
    return PointSet(x, name, may_share=name == "x2")


def columns(X: Array, name: str) -> PointSet:
    """For matrices: (n,) is n points of dimension one."""
    if X.ndim == 0:
        raise ShapeError(
            f"`{name}` has shape (), expected (n, d) or (n,). Fix: pass at least a list."
        )
    return PointSet(X if X.ndim > 1 else X[:, None], name, may_share=name == "X2")

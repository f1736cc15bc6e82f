"""The covariance matrix of observations as an operator: K(X, X) + noise, tile by tile."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array

from .. import _inputs, _padding
from .._errors import ParameterError, ShapeError
from .._module import prepared, rebuild_fields
from .._typing import ArrayLike
from ..calculus._apply import AppliedKernel, same_operator
from ..calculus._evaluate import variances as applied_variances
from ..kernels._gram import has_noise, variances
from ._contract import CovarianceOperator
from ._grid import as_noise, check_single_kernel, floats
from ._stored import StoredOperator
from ._tiles import (
    PAIRS,
    pays,
    share_of_tiles,
    symmetric_product,
    tiled_product,
    with_derivatives_of,
)


class KernelOperator(CovarianceOperator):
    """K(X, X) + noise of any kernel, without forming it: products take O(n (d + s)) memory.

    ``kernel``: any kernel of one element, or `apply(kernel, L, L)` with one operator on both
    sides, of p components; the matrix is then (n p, n p), point by point. ``X``: (n, d) or (n,);
    a row with a NaN, or where ``mask`` is False, is padding, whose rows are those of the identity.
    ``noise_variance``: a number, or one per row of the matrix. White noise in the kernel counts.

    ``mesh``: a `jax.sharding.Mesh` over whose ``axis`` the rows are shared out; n must be a
    multiple of its size (`kernax.distributed.shard_rows` pads). Every device then gathers the
    vectors of all and makes its share of the tiles, which are added up, or of few its own rows;
    with ``ring=True`` vectors are passed round instead, of which it holds 1/P at a time, and all
    of its rows are made. ``pairs``: how many numbers a tile has.

    Raises `ParameterError` for a batch of kernels, and for operators with values per row.
    """

    kernel: Any
    X: Array
    noise_variance: Array
    real: Array | None  # 1 or 0 for each row of the matrix: None where all are real
    mesh: Any = eqx.field(static=True, default=None)
    axis: str | None = eqx.field(static=True, default=None)
    ring: bool = eqx.field(static=True, default=False)
    pairs: int = eqx.field(static=True, default=PAIRS)

    def __init__(
        self,
        kernel: Any,
        X: ArrayLike,
        noise_variance: Any = 0.0,
        *,
        mask: ArrayLike | None = None,
        mesh: Any = None,
        axis: str | None = None,
        ring: bool = False,
        pairs: int = PAIRS,
    ):
        _check_kernel(kernel)
        X = _inputs.without_filler(X, None if mask is None else jnp.asarray(mask), "X")
        points, finite = _inputs.as_points(X, "X")
        if points.ndim not in (1, 2) or points.shape[-1] == 0:
            raise ShapeError(
                f"`X` has shape {points.shape}, expected (n, d) or (n,). Fix: one row per point."
            )
        points = points[:, None] if points.ndim == 1 else points
        size = len(points) * _components(kernel, points.shape[1])
        noise = as_noise(noise_variance, size)
        dtype = _inputs.common_dtype(points, noise, *floats(kernel))
        points, real = points.astype(dtype), None
        if mask is not None:
            _padding.check_mask(jnp.asarray(mask), points.shape, "mask")
        if mask is not None or not finite:
            points, rows = _padding.clean(points, None if mask is None else jnp.asarray(mask))
            real = jnp.repeat(rows, _components(kernel, points.shape[1])).astype(dtype)
        self.kernel, self.X, self.real = kernel, points, real
        self.noise_variance = noise.astype(dtype)
        self.mesh, self.axis, self.ring, self.pairs = mesh, _axis(mesh, axis), ring, pairs
        if mesh is not None and len(points) % mesh.shape[self.axis]:
            raise ShapeError(
                f"`X` has {len(points)} rows, not a multiple of the {mesh.shape[self.axis]} "
                f"devices along '{self.axis}'. Fix: pad with kernax.distributed.shard_rows."
            )

    @classmethod
    def made(cls, kernel: Any, X: Array, noise: Array, real: Array | None, where: Any) -> Any:
        """Of clean points in compiled code, with a ``where`` of mesh and axis."""
        mesh, axis = where
        names = ("kernel", "X", "noise_variance", "real", "mesh", "axis", "ring", "pairs")
        values = (kernel, X, noise, real, mesh, axis, False, PAIRS)
        return rebuild_fields(cls, dict(zip(names, values, strict=True)))

    @property
    def size(self) -> int:
        return len(self.X) * _components(self.kernel, self.X.shape[1])

    @property
    def dtype(self) -> Any:
        return self.X.dtype

    def product(self, V: Array) -> Array:
        kept = V if self.real is None else V * self.real[:, None]
        kernel = prepared(self.kernel, self.dtype)
        if self.mesh is None:
            P = symmetric_product(kernel, self.X, kept, self.pairs)
        else:
            P = _sharded(self, kernel, kept)
        added = self._added()[:, None]
        if self.real is None:
            return P + added * V
        real = self.real[:, None]
        return real * (P + added * V) + (1.0 - real) * V

    def stored(self) -> StoredOperator:
        """The same with its matrix in memory, for many products."""
        kernel, noise = prepared(self.kernel, self.dtype), self.noise()
        K = kernel.matrix(self.X, self.X)
        if self.real is not None:
            K = self.real[:, None] * K * self.real[None, :]
        own = jnp.eye(self.size, dtype=bool)
        return StoredOperator(jnp.where(own, self.diagonal()[:, None], K), noise)

    def noise(self) -> Array:
        return self._added() if self.real is None else jnp.where(self.real > 0, self._added(), 1.0)

    def diagonal(self) -> Array:
        kernel = prepared(self.kernel, self.dtype)
        if isinstance(kernel, AppliedKernel):
            plain = applied_variances(kernel.kernel, kernel.left, self.X).reshape(-1)
        else:
            plain = variances(kernel, self.X, noise=False)
        values = plain + self._added()
        return values if self.real is None else jnp.where(self.real > 0, values, 1.0)

    def columns(self, index: Array) -> Array:
        kernel = prepared(self.kernel, self.dtype)
        p = _components(kernel, self.X.shape[1])
        K = kernel.matrix(self.X, self.X[index // p])
        if p > 1:
            K = K[:, jnp.arange(len(index), dtype=index.dtype) * p + index % p]
        own = jnp.arange(self.size, dtype=index.dtype)[:, None] == index[None, :]
        if self.real is not None:
            K = K * self.real[:, None] * self.real[index][None, :]
            return jnp.where(own, self.diagonal()[index][None, :], K)
        return K + jnp.where(own, self._added()[index][None, :], 0.0)

    def _added(self) -> Array:
        """What is added to the diagonal: noise, and white noise in the kernel."""
        noise = jnp.broadcast_to(self.noise_variance, (self.size,))
        kernel = prepared(self.kernel, self.dtype)
        if isinstance(kernel, AppliedKernel) or not has_noise(kernel):
            return noise
        return noise + variances(kernel, self.X) - variances(kernel, self.X, noise=False)


def _check_kernel(kernel: Any) -> None:
    applied = isinstance(kernel, AppliedKernel)
    check_single_kernel(kernel.kernel if applied else kernel, "kernel")
    if applied and not same_operator(kernel.left, kernel.right):
        raise ParameterError(
            f"`{kernel!r}` has two different operators, and a covariance matrix has one on both "
            "sides. Fix: pass apply(kernel, L, L)."
        )
    if applied and kernel.left.rows() is not None:
        raise ParameterError(
            f"`{kernel.left!r}` has values per row, which tiles cannot share out. "
            "Fix: use kernax.apply(...).gram."
        )


def _components(kernel: Any, d: int) -> int:
    return int(kernel.left.components(d)) if isinstance(kernel, AppliedKernel) else 1


def _axis(mesh: Any, axis: str | None) -> str | None:
    if mesh is None:
        return None
    names = tuple(mesh.axis_names)
    if axis is None and len(names) == 1:
        return str(names[0])
    if axis not in names:
        raise ParameterError(
            f"`axis` is {axis!r}, and the mesh has the axes {names}. Fix: name one of them."
        )
    return axis


def _sharded(operator: KernelOperator, kernel: Any, V: Array) -> Array:
    """Each device makes the rows of its own points, or its share of all tiles, to be added up."""
    axis, mesh, pairs = operator.axis, operator.mesh, operator.pairs
    devices = mesh.shape[axis]
    rows, whole = PartitionSpec(axis), PartitionSpec()
    turn = [(i, (i + 1) % devices) for i in range(devices)]
    gathered = partial(jax.lax.all_gather, axis_name=axis, tiled=True)

    def on_each(function: Callable[..., Array]) -> Callable[[Any, Array, Array], Array]:
        def product(kernel: Any, X: Array, V: Array) -> Array:
            arrays, static = eqx.partition(kernel, eqx.is_array)
            own = lambda arrays, X, V: function(eqx.combine(arrays, static), X, V)
            return jax.shard_map(
                own, mesh=mesh, in_specs=(whole, rows, rows), out_specs=rows, check_vma=False
            )(arrays, X, V)  # fmt: skip

        return product

    def by_rows(kernel: Any, X: Array, V: Array) -> Array:
        return tiled_product(kernel, X, gathered(X), gathered(V), pairs)

    def by_shares(kernel: Any, X: Array, V: Array) -> Array:
        here = jax.lax.axis_index(axis)
        total = share_of_tiles(kernel, gathered(X), gathered(V), pairs, here, devices)
        return jax.lax.psum_scatter(total, axis, tiled=True)

    def by_turns(kernel: Any, X: Array, V: Array) -> Array:
        def step(carry: Any, _: None) -> Any:
            total, other, V = carry
            total = total + tiled_product(kernel, X, other, V, pairs)
            return (total, *(jax.lax.ppermute(v, axis, turn) for v in (other, V))), None

        return jax.lax.scan(step, (jnp.zeros_like(V), X, V), length=devices)[0][0]

    if operator.ring:
        return on_each(by_turns)(kernel, operator.X, V)
    if not pays(kernel, operator.X, pairs, devices):
        return on_each(by_rows)(kernel, operator.X, V)
    return with_derivatives_of(on_each(by_rows), on_each(by_shares))(kernel, operator.X, V)

"""Covariance matrices on Cartesian grids: products of a kernel per axis, which are never formed."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import _inputs
from .._errors import InputError, ParameterError, ShapeError
from .._module import field_values, prepared, rebuild_fields
from .._typing import ArrayLike
from ..kernels import (
    AbstractKernel,
    ActiveDimsKernel,
    ARDKernel,
    ConstantKernel,
    PeriodicKernel,
    PowerKernel,
    ProductKernel,
    SEKernel,
)
from ..kernels._gram import covariance, has_noise, variances
from ..kernels._pairs import check_per_dimension
from ._grid import GridOperator, as_cells, as_noise, check_single_kernel, floats

# A kernel, and the columns of the points that it reads, in its order.
Factor = tuple[AbstractKernel, tuple[int, ...]]


class KroneckerOperator(GridOperator):
    """The covariance of a product kernel on a Cartesian grid, without forming it.

    K = K_1 (x) ... (x) K_q + noise: the covariance of two cells is the product of those of their
    coordinates, k_1(x_1, y_1) ... k_q(x_q, y_q). Rows are the cells in C order (the last axis runs
    fastest). With N cells, n_i along axis i, a product with s vectors takes O(N s sum n_i) steps
    and O(N s + sum n_i^2) memory.

    ``kernels``: one per axis, each of the points of its axis alone. ``grids``: as many sets of
    points, (n_i,) or (n_i, d_i). ``observed``: booleans of the shape of the grid, or flat; rows are
    then the cells where it is True. ``noise_variance``: a number, or one per row.

    Raises `ParameterError` for white noise in a kernel, which belongs to one observation and which
    the other axes would repeat, and for a batch of kernels; `InputError` for NaN in a grid.
    Saatci (2011), Scalable inference for structured Gaussian process models, chapter 5.
    """

    kernels: tuple[Any, ...]
    grids: tuple[Array, ...]
    noise_variance: Array
    cells: Array | None

    def __init__(
        self,
        kernels: Sequence[Any],
        grids: Sequence[ArrayLike],
        noise_variance: Any = 0.0,
        *,
        observed: ArrayLike | None = None,
    ):
        kernels, points = tuple(kernels), _as_grids(grids)
        if len(kernels) != len(points):
            raise ShapeError(
                f"`kernels` has {len(kernels)} and `grids` {len(points)} entries, expected one "
                "kernel per axis. Fix: pass as many of both."
            )
        for i, kernel in enumerate(kernels):
            check_single_kernel(kernel, f"kernels[{i}]")
            if has_noise(kernel):
                raise ParameterError(_white_noise(f"kernels[{i}]"))
        self.cells = as_cells(observed, tuple(map(len, points)))
        self.kernels, self.grids = kernels, tuple(points)  # of which `size` reads the lengths
        noise = as_noise(noise_variance, self.size)
        dtype = _inputs.common_dtype(*points, noise, *floats(kernels))
        self.grids = tuple(x.astype(dtype) for x in points)
        self.noise_variance = noise.astype(dtype)

    @classmethod
    def from_product(
        cls,
        kernel: Any,
        grids: Sequence[ArrayLike],
        noise_variance: Any = 0.0,
        *,
        observed: ArrayLike | None = None,
    ) -> "KroneckerOperator":
        """The same from one kernel of whole points, those of the axes side by side.

        It must be a product, up to constants, of kernels that read one axis each through an
        `ActiveDimsKernel`; `SEKernel` and `PeriodicKernel`, with one length-scale or one per
        dimension, are such products by themselves, within an `ARDKernel` too. An axis that nothing
        reads has covariance 1. Raises `ParameterError` with the name of what is no product.
        """
        check_single_kernel(kernel, "kernel")
        if has_noise(kernel):
            raise ParameterError(_white_noise("kernel"))
        points = _as_grids(grids)
        dtype = _inputs.common_dtype(*points, *floats(kernel))
        axis_of = [axis for axis, x in enumerate(points) for _ in range(x.shape[1])]
        parts: list[list[AbstractKernel]] = [[] for _ in points]
        # Prepared first: what length-scales become parts of may have no constraint of its own.
        for factor, columns in _factors(
            prepared(kernel, dtype), tuple(range(len(axis_of))), axis_of
        ):
            axis = axis_of[columns[0]] if columns else 0
            own = tuple(column - axis_of.index(axis) for column in columns)
            whole = not columns or own == tuple(range(axis_of.count(axis)))
            parts[axis].append(factor if whole else ActiveDimsKernel(factor, own))
        kernels = [_product(each, dtype) for each in parts]
        return cls(kernels, points, noise_variance, observed=observed)

    @property
    def grid_shape(self) -> tuple[int, ...]:
        return tuple(map(len, self.grids))

    @property
    def X(self) -> Array:
        """The points of the rows, (n, d): those of the axes side by side."""
        places = self._places(self.observed_cells())
        rows = [x[place] for x, place in zip(self.grids, places, strict=True)]
        return jnp.concatenate(rows, axis=1)

    def grid_product(self, V: Array) -> Array:
        before, total = 1, V.size
        P = V
        for kernel, x in self._axes():
            K = covariance(kernel, x, noise=False)
            blocks = P.reshape(before, len(x), total // (before * len(x)))
            P = jnp.einsum("ij,bjr->bir", K, blocks, precision="highest")
            before *= len(x)
        return P.reshape(V.shape)

    def grid_columns(self, cells: Array) -> Array:
        K = jnp.ones((1, len(cells)), self.dtype)
        for (kernel, x), place in zip(self._axes(), self._places(cells), strict=True):
            own = kernel.matrix(x, x[place])
            K = (K[:, None, :] * own[None, :, :]).reshape(-1, len(cells))
        return K

    def grid_variances(self, cells: Array) -> Array:
        found = jnp.ones((len(cells),), self.dtype)
        for (kernel, x), place in zip(self._axes(), self._places(cells), strict=True):
            found = found * variances(kernel, x, noise=False)[place]
        return found

    def noise(self) -> Array:
        return jnp.broadcast_to(self.noise_variance, (self.size,))

    def _axes(self) -> list[tuple[Any, Array]]:
        """The kernel of each axis, ready for arithmetic, and its points."""
        ready = (prepared(kernel, self.dtype) for kernel in self.kernels)
        return list(zip(ready, self.grids, strict=True))

    def _places(self, cells: Array) -> list[Array]:
        """Where the cells are along each axis."""
        shape = self.grid_shape
        return [cells // math.prod(shape[i + 1 :]) % n for i, n in enumerate(shape)]


# --- a kernel as a product over axes -------------------------------------------------------------


def _factors(kernel: Any, columns: tuple[int, ...], axis_of: list[int]) -> list[Factor]:
    """Kernels of the columns of one axis, whose product over those ``columns`` the kernel is."""
    cls, inside = type(kernel), lambda part, own: _factors(part, own, axis_of)
    if cls is ConstantKernel:
        return [(kernel, ())]
    if cls is ActiveDimsKernel:
        kernel.check(len(columns))
        return inside(kernel.inner_kernel, tuple(columns[dim] for dim in kernel.active_dims))
    if len({axis_of[column] for column in columns}) == 1:
        return [(kernel, columns)]
    if cls is ProductKernel:
        return inside(kernel.left_kernel, columns) + inside(kernel.right_kernel, columns)
    if cls is PowerKernel:
        parts = inside(kernel.inner_kernel, columns)
        return [(PowerKernel(part, kernel.exponent), own) for part, own in parts]
    if cls is ARDKernel and kernel.length_scales.shape == (len(columns),):
        return inside(kernel.rescaled(jnp.ones_like(kernel.length_scales)), columns)
    if cls in (SEKernel, PeriodicKernel):
        return [
            _narrowed(kernel, columns, axis, axis_of)
            for axis in dict.fromkeys(axis_of[c] for c in columns)
        ]
    raise ParameterError(
        f"`{kernel!r}` reads several axes of the grid and is no product over them. Fix: multiply "
        "kernels of one axis each, sums inside an ActiveDimsKernel, or use KernelOperator."
    )


def _narrowed(kernel: Any, columns: tuple[int, ...], axis: int, axis_of: list[int]) -> Factor:
    """The part on one axis of a kernel that is a product over dimensions."""
    own = [i for i, column in enumerate(columns) if axis_of[column] == axis]
    values = field_values(kernel)
    for name, value in values.items():
        check_per_dimension(value, len(columns), name)
        values[name] = value[np.asarray(own)] if value.ndim else value
    return rebuild_fields(type(kernel), values), tuple(columns[i] for i in own)


def _product(parts: list[AbstractKernel], dtype: Any) -> AbstractKernel:
    if not parts:
        return ConstantKernel(jnp.ones((), dtype))
    return parts[0] if len(parts) == 1 else ProductKernel(parts[0], _product(parts[1:], dtype))


# --- checks ---------------------------------------------------------------------------------------


def _as_grids(grids: Sequence[ArrayLike]) -> list[Array]:
    """The points of each axis, (n_i, d_i)."""
    found = []
    for i, grid in enumerate(grids):
        points, finite = _inputs.as_points(grid, f"grids[{i}]")
        if points.ndim not in (1, 2) or points.size == 0:
            raise ShapeError(
                f"`grids[{i}]` has shape {points.shape}, expected (n, d) or (n,) with n > 0. "
                "Fix: one row per point of the axis."
            )
        if not finite and not isinstance(points, jax.core.Tracer) and jnp.isnan(points).any():
            raise InputError(
                f"`grids[{i}]` holds NaN, and a grid has no padding. Fix: pass the points of all "
                "cells, and name those that are there with `observed`."
            )
        found.append(points if points.ndim == 2 else points[:, None])
    if not found:
        raise ShapeError("`grids` is empty, expected one set of points per axis. Fix: pass some.")
    return found


def _white_noise(name: str) -> str:
    return (
        f"`{name}` has white noise, which belongs to one observation: in a product over axes it "
        "would be shared along the others. Fix: leave it out and pass `noise_variance`."
    )

"""Covariance matrices on grids of which some cells may be missing, and what is checked of them."""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import DTypeError, ParameterError, ShapeError
from .._module import as_parameter
from .._parameters import NonNegative
from ..kernels import AbstractKernel
from ._contract import CovarianceOperator


class GridOperator(CovarianceOperator):
    """Base of the covariances on grids: that of the whole grid at its observed cells, plus noise.

    Cells are numbered in C order. A subclass says what the matrix of the whole grid, of N cells
    and without noise, makes of vectors.
    """

    noise_variance: eqx.AbstractVar[Array]
    cells: eqx.AbstractVar[Array | None]  # the observed ones in order: None where all are

    @property
    @abc.abstractmethod
    def grid_shape(self) -> tuple[int, ...]:
        """The number of points along each axis."""

    @abc.abstractmethod
    def grid_product(self, V: Array) -> Array:
        """The product with the columns of V (N, s)."""

    @abc.abstractmethod
    def grid_columns(self, cells: Array) -> Array:
        """The columns of those cells, (N, b)."""

    @abc.abstractmethod
    def grid_variances(self, cells: Array) -> Array:
        """The diagonal at those cells, (b,)."""

    @abc.abstractmethod
    def noise(self) -> Array:
        """What is added to the diagonal, (n,)."""

    @property
    def size(self) -> int:
        return math.prod(self.grid_shape) if self.cells is None else len(self.cells)

    @property
    def dtype(self) -> Any:
        return self.noise_variance.dtype

    def observed_cells(self) -> Array:
        """The number of the cell of each row, (n,)."""
        return jnp.arange(self.size) if self.cells is None else self.cells

    def product(self, V: Array) -> Array:
        added = self.noise()[:, None] * V
        if self.cells is None:
            return self.grid_product(V) + added
        whole = jnp.zeros((math.prod(self.grid_shape), V.shape[1]), V.dtype)
        whole = whole.at[self.cells].set(V, indices_are_sorted=True, unique_indices=True)
        return self.grid_product(whole)[self.cells] + added

    def diagonal(self) -> Array:
        return self.grid_variances(self.observed_cells()) + self.noise()

    def columns(self, index: Array) -> Array:
        K = self.grid_columns(self.observed_cells()[index])
        K = K if self.cells is None else K[self.cells]
        own = jnp.arange(self.size, dtype=index.dtype)[:, None] == index[None, :]
        return K + jnp.where(own, self.noise()[index][None, :], 0.0)


# --- checks ---------------------------------------------------------------------------------------


def floats(tree: Any) -> list[Array]:
    """The floating leaves of a tree."""
    return [leaf for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)]


def check_single_kernel(kernel: Any, name: str) -> None:
    """`ParameterError` unless it is one kernel."""
    if not isinstance(kernel, AbstractKernel):
        raise ParameterError(
            f"`{name}` is {kernel!r}, expected a kernel. Fix: pass for instance SEKernel()."
        )
    if kernel.levels():
        raise ParameterError(
            f"`{name}` is a batch of kernels, and this is one matrix. Fix: pass `kernel[i]`."
        )


def as_noise(noise_variance: Any, size: int) -> Array:
    """One number, or one per row; else `ShapeError`."""
    noise = as_parameter(noise_variance, "`noise_variance`", NonNegative())
    if noise.shape not in ((), (size,)):
        raise ShapeError(
            f"`noise_variance` has shape {noise.shape}, expected a number or ({size},). "
            "Fix: pass one value, or one per row of the matrix."
        )
    return noise


def as_cells(observed: Any, shape: tuple[int, ...]) -> Array | None:
    """The numbers of the observed cells in ascending order; None where all are."""
    if observed is None:
        return None
    if isinstance(observed, jax.core.Tracer):
        raise ShapeError(
            "`observed` is traced, and the number of rows depends on its values. "
            "Fix: pass an array of NumPy."
        )
    seen = np.asarray(observed)
    if seen.dtype != bool:
        raise DTypeError(
            f"`observed` has dtype {seen.dtype}, expected bool (True = an observed cell). "
            "Fix: pass observed.astype(bool)."
        )
    if seen.shape not in (shape, (math.prod(shape),)) or not seen.any():
        raise ShapeError(
            f"`observed` has shape {seen.shape} and {int(seen.sum())} observed cells, expected "
            f"shape {shape} and at least one. Fix: pass one boolean per cell."
        )
    return None if seen.all() else jnp.asarray(np.flatnonzero(seen).astype(np.int32))

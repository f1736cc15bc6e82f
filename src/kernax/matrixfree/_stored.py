"""A covariance matrix that is held after all, where there is room for it."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from .._typing import Square
from ._contract import CovarianceOperator


class StoredOperator(CovarianceOperator):
    """A matrix as an operator: products cost a multiplication, and no evaluation of the kernel.

    For an iteration that multiplies often; gradients go through the tiles of what it was made of.
    """

    matrix: Square
    noise_variance: Array  # the part of the diagonal that is noise

    @property
    def size(self) -> int:
        return int(self.matrix.shape[0])

    @property
    def dtype(self) -> Any:
        return self.matrix.dtype

    def product(self, V: Array) -> Array:
        return jnp.matmul(self.matrix, V, precision="highest")

    def diagonal(self) -> Array:
        return jnp.diagonal(self.matrix)

    def columns(self, index: Array) -> Array:
        return self.matrix[index].T  # rows are next to each other in memory

    def noise(self) -> Array:
        return self.noise_variance

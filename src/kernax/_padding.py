"""Padding: rows that stand for nothing, marked by NaN or by a mask.

They become clean rows and a mask once, before any arithmetic, and the mask is applied once, after
the whole composite; values and gradients then equal those of the unpadded problem.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._errors import DTypeError, ShapeError
from ._typing import Mask, OtherMask, Points


def clean(X: Points, mask: Mask | None) -> tuple[Points, Mask]:
    """Rows with padding replaced by a real row of the same set, and which rows are real.

    Infinite rows are not padding: they stay, and make their covariances NaN.
    """
    real = ~jnp.isnan(X).any(axis=-1)
    if mask is not None:
        real = real & mask
    if X.shape[0] == 0:
        return X, real
    # A copy of a real row meets no value that the kernel would not meet anyway.
    stand_in = jnp.where(real.any(), X[jnp.argmax(real)], 0.0)
    return jnp.where(real[:, None], X, stand_in[None, :]), real


def mark(K: Array, real1: Mask, real2: OtherMask) -> Array:
    """NaN in padded rows and columns: how a kernel call shows them."""
    return jnp.where(real1[:, None] & real2[None, :], K, jnp.nan)


def as_identity(K: Float[Array, "n n"], real: Mask) -> Float[Array, "n n"]:
    """Rows and columns of the identity where there is padding: a determinant does not notice."""
    inside = real[:, None] & real[None, :]
    return jnp.where(inside, K, jnp.eye(K.shape[0], dtype=K.dtype))


def as_zeros(K: Float[Array, "n m"], real1: Mask, real2: OtherMask) -> Float[Array, "n m"]:
    """Zeros in padded rows and columns: a padded point is correlated with nothing."""
    return jnp.where(real1[:, None] & real2[None, :], K, 0.0)


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

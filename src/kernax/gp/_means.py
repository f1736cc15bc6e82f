"""Mean functions: callables from points (n, d) to values (n,)."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._errors import ShapeError
from .._module import Parameterised
from .._parameters import real
from .._typing import Parameter, Points, Vector


class AbstractMean(Parameterised):
    """A mean function with hyperparameters of its own."""

    @property
    def flat(self) -> bool:
        """Whether the mean does not look at the points."""
        return False


class ZeroMean(AbstractMean):
    """m(x) = 0."""

    @property
    def flat(self) -> bool:
        return True

    def __call__(self, X: Points) -> Vector:
        return jnp.zeros(X.shape[0], X.dtype)


class ConstantMean(AbstractMean):
    """m(x) = value."""

    value: Parameter = real(0.0)

    @property
    def flat(self) -> bool:
        return True

    def __call__(self, X: Points) -> Vector:
        if self.value.ndim:
            raise ShapeError(
                f"ConstantMean: `value` has shape {self.value.shape}, expected (). "
                "Fix: pass one number."
            )
        return jnp.broadcast_to(self.value, (X.shape[0],)).astype(X.dtype)


class LinearMean(AbstractMean):
    """m(x) = weights . x + bias; ``weights`` is one value per dimension, or one for all."""

    weights: Parameter = real()
    bias: Parameter = real(0.0)

    def __call__(self, X: Points) -> Vector:
        if self.weights.ndim > 1 or self.weights.shape not in ((), (X.shape[1],)):
            raise ShapeError(
                f"LinearMean: `weights` has shape {self.weights.shape}, but the points have "
                f"dimension {X.shape[1]}. Fix: pass one weight per dimension."
            )
        weights = jnp.broadcast_to(self.weights, (X.shape[1],)).astype(X.dtype)
        return jnp.matmul(X, weights, precision="highest") + self.bias.astype(X.dtype)


def as_mean(value: Any) -> Any:
    """A mean as it is; a number as a constant one."""
    if callable(value):
        return value
    return ConstantMean(value)


def evaluate_mean(mean: Callable[[Any], Any], X: Float[Array, "n d"]) -> Vector:
    """The mean at the points; `ShapeError` unless it maps (n, d) to (n,) for any n."""
    if not isinstance(mean, AbstractMean):
        # Tried on another number of rows, so that n = d cannot hide a function of one point.
        rows = X.shape[0] + X.shape[1] + 1
        try:
            shape = jnp.shape(eqx.filter_eval_shape(mean, np.zeros((rows, X.shape[1]), X.dtype)))
        except (TypeError, ValueError, IndexError) as error:
            raise ShapeError(_message(f"failed: {str(error).splitlines()[0]}")) from error
        _check_shape(shape, rows)
    values = jnp.asarray(mean(X))
    _check_shape(values.shape, X.shape[0])
    return values.reshape(X.shape[0]).astype(X.dtype)


def _check_shape(shape: tuple[int, ...], n: int) -> None:
    if shape not in ((n,), (n, 1)):
        raise ShapeError(_message(f"returned shape {shape} for {n} points"))


def _message(what: str) -> str:
    return (
        f"`mean` {what}; expected a function from points (n, d) to values (n,). "
        "Fix: write it with jax.numpy; for a function of one point, pass "
        "lambda X: jax.vmap(function)(X)."
    )

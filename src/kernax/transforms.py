"""Maps of points with hyperparameters: for `WarpedKernel`, and as length-scales of `GibbsKernel`.

Each is a callable of one point (d,). Any other callable will do in their place; one that derives
from `Transform` brings constraints, dotted paths, and a name in files.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from ._errors import ShapeError
from ._parameters import positive, real
from ._typing import Parameter, Point
from .kernels._maps import Transform, as_map, evaluate
from .kernels._pairs import check_per_dimension, in_one_dtype
from .kernels._periodic import remainder

__all__ = ["Chain", "Linear", "LogLinear", "Periodic", "Transform"]


class Linear(Transform):
    """x -> matrix x: a projection, a rotation, a scaling, or features that mix the inputs.

    ``matrix`` has shape (q, d), for points of dimension d: `ShapeError` for another.
    """

    matrix: Parameter = real()

    def __call__(self, x: Point) -> Array:
        """The product (q,)."""
        x, matrix = in_one_dtype(x, self.matrix)
        if matrix.ndim != 2 or matrix.shape[1:] != x.shape:
            raise ShapeError(
                f"Linear: `matrix` has shape {matrix.shape}, but the points have dimension "
                f"{x.shape[0]}. Fix: pass a matrix (q, {x.shape[0]})."
            )
        return jnp.matmul(matrix, x, precision="highest")


class Periodic(Transform):
    """x -> (cos(2 pi x_j / period), ..., sin(2 pi x_j / period), ...): points on circles.

    d cosines, then d sines. Any kernel becomes periodic on it: `SEKernel` becomes
    `PeriodicKernel` with the same length-scale. ``period``: one value, or one per dimension.
    """

    period: Parameter = positive(1.0)

    def __call__(self, x: Point) -> Array:
        """The point on the circles, (2 d,)."""
        x, period = in_one_dtype(x, self.period)
        check_per_dimension(period, x.shape[0], "period")
        # The remainder is exact and so is the step to the nearest whole period: far from 0 no
        # digit of the phase is lost.
        rest = remainder(x, jnp.broadcast_to(period, x.shape))
        angle = (2 * jnp.pi) * ((rest - period * jnp.round(rest / period)) / period)
        return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)])


class LogLinear(Transform):
    """x -> exp(weights . x + bias): a positive function, for the length-scale of `GibbsKernel`.

    ``weights`` is one value for all dimensions or has shape (d,), and the result is a number; or
    it is a matrix (q, d), and the result has shape (q,). ``bias`` is one value, or has shape (q,).
    At the defaults it is 1 everywhere.
    """

    weights: Parameter = real(0.0)
    bias: Parameter = real(0.0)

    def __call__(self, x: Point) -> Array:
        """The value, () or (q,)."""
        x, weights, bias = in_one_dtype(x, self.weights, self.bias)
        weights = jnp.broadcast_to(weights, x.shape) if weights.ndim == 0 else weights
        if weights.ndim > 2 or weights.shape[-1:] != x.shape:
            raise ShapeError(
                f"LogLinear: `weights` has shape {weights.shape}, but the points have dimension "
                f"{x.shape[0]}. Fix: pass one weight per dimension, or a matrix (q, {x.shape[0]})."
            )
        if bias.shape not in ((), weights.shape[:-1]):
            raise ShapeError(
                f"LogLinear: `bias` has shape {bias.shape}, but `weights` has shape "
                f"{weights.shape}. Fix: pass one value, or one per row of a matrix of weights."
            )
        return jnp.exp(jnp.matmul(weights, x, precision="highest") + bias)


class Chain(Transform):
    """x -> second(first(x)): two maps, one after the other; nest it for more.

    Either is a transform or any callable of one point.
    """

    first: Any = eqx.field(converter=lambda value: as_map(value, "first"))
    second: Any = eqx.field(converter=lambda value: as_map(value, "second"))

    def __check_init__(self) -> None:
        for name in ("first", "second"):
            as_map(getattr(self, name), name)  # what comes from a file has met no converter

    def __call__(self, x: Point) -> Array:
        """The image under both."""
        return evaluate(self.second, jnp.atleast_1d(evaluate(self.first, x, "first")), "second")

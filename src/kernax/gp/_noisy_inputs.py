"""Gaussian noise on the inputs: y = f(x + e) + noise, with e ~ N(0, diag(s)), s = input_variance.

To second order in e, given f, an observation at x has

    mean      f + 1/2 sum_j s_j d2f/dx_j2
    variance  noise_variance + sum_j s_j (df/dx_j)^2

An observation that is known takes the derivatives of the posterior mean there (McHutchon and
Rasmussen, 2011, Gaussian process training with input noise). Those depend on the observations and
on their noise in turn: they start from the prior's mean square, and are found again in ``STEPS``,
the last of which goes half the way, since what is left tends to change its sign. All of it is a
plain function of the hyperparameters, which is what `fit` differentiates.

At a new point the derivatives are random too, given y, and what is expected of them counts:

    mean      E[L f | y],  L = 1 + 1/2 sum_j s_j d2/dx_j2
    variance  Var[L f | y] + sum_j s_j (E[df/dx_j | y]^2 + Var[df/dx_j | y])

which is the second-order expansion of Girard et al. (2003), Gaussian process priors with uncertain
inputs, with its variance completed to one that is never negative.
"""

import functools
import operator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._errors import ParameterError, ShapeError
from .._module import as_parameter
from .._parameters import NonNegative
from ..calculus import Derivative, Gradient, Identity, LinearOperator
from ..calculus._evaluate import variances
from ..kernels._diagonal import add_to_diagonal
from ..linalg import solve
from ._blocks import cross, prior_mean

if TYPE_CHECKING:
    from ._data import System
    from ._process import GaussianProcess

STEPS = (1.0, 1.0, 0.5)
# Numbers in the covariances of values and derivatives that are held at once.
BLOCK = 1 << 18


def with_input_noise(gp: Any, at: "System") -> "System":
    """The system with what noise on the inputs adds to variances and means; the gp prepared."""
    X, d = at.X, at.X.shape[1]
    s = jnp.broadcast_to(gp.input_variance, (d,))
    bent = functools.reduce(operator.add, _bends(s, d))
    marked = lambda values: values if at.real is None else jnp.where(at.real, values, 0.0)
    noisy = lambda added: add_to_diagonal(at.K, marked(added))

    def again(found: tuple[Array, Array], step: Array) -> tuple[tuple[Array, Array], None]:
        added, bend = found
        a = solve(noisy(added), at.residual - bend, at.n, at.scale)
        slopes, bends = _of_mean(gp, at, Gradient(), a), _of_mean(gp, at, bent, a)
        new = jnp.sum(s[None] * jnp.square(slopes), axis=1), marked(bends[:, 0])
        return (added + step * (new[0] - added), bend + step * (new[1] - bend)), None

    prior = jnp.square(prior_mean(gp.mean, Gradient(), X)) + variances(gp.kernel, Gradient(), X)
    start = jnp.sum(s[None] * prior, axis=1), jnp.zeros_like(at.residual)
    # A gradient takes the steps of many points again, rather than keep what they made.
    step = again if len(X) ** 2 <= BLOCK else jax.checkpoint(again)
    added, bend = jax.lax.scan(step, start, jnp.asarray(STEPS, X.dtype))[0]
    return at._replace(K=noisy(added), residual=at.residual - bend)


def _of_mean(gp: Any, at: "System", own: LinearOperator, weights: Array) -> Array:
    """What an operator makes of the posterior mean at the observations themselves, (n, p)."""
    n, p = len(at.X), own.components(at.X.shape[1])
    parts = ((Identity(), at.X, at.real),)

    def row(x: Array) -> Array:
        K = cross(gp.kernel, parts, own, x[None])
        return jnp.matmul(weights, K, precision="highest")

    if n * n * p <= BLOCK:
        known = jnp.matmul(weights, cross(gp.kernel, parts, own, at.X), precision="highest")
    else:
        known = jax.lax.map(jax.checkpoint(row), at.X, batch_size=max(1, BLOCK // (n * p)))
    return known.reshape(n, p) + prior_mean(gp.mean, own, at.X)


def smoothed(s: Array, d: int) -> LinearOperator:
    """1 + 1/2 sum_j s_j d2/dx_j2, for s (d,), or (m, d) with a row per point."""
    return functools.reduce(operator.add, _bends(s, d), Identity())


def _bends(s: Array, d: int) -> list[LinearOperator]:
    return [0.5 * s[..., j] * Derivative(j, order=2) for j in range(d)]


def as_input_variance(given: Any, m: int, d: int) -> Array:
    """The variances of the inputs at m new points, (d,) or (m, d), checked."""
    s = as_parameter(given, "`input_variance`", NonNegative())
    if s.shape not in ((), (d,), (m, d)):
        raise ShapeError(
            f"`input_variance` has shape {s.shape}, expected a number, ({d},), one per dimension, "
            f"or ({m}, {d}), with a row per point. Fix: pass one of these."
        )
    return jnp.broadcast_to(s, (d,)) if s.ndim == 0 else s


def check_input_variance(gp: "GaussianProcess", d: int, *, single: bool) -> None:
    """Errors unless noise on the inputs fits observations of dimension d."""
    if gp.input_variance is None:
        return
    if not single:
        raise ParameterError(
            "`input_variance` is for observations of values, of one target, and these are blocks "
            "or several targets. Fix: condition on one column of y, or leave it out."
        )
    sizes = tuple(level.size for level in gp.kernel.levels())
    shape = gp.input_variance.shape
    if shape not in ((), sizes, (*sizes, d)):
        raise ShapeError(
            f"`input_variance` has shape {shape}, expected a number or {(*sizes, d)}, one per "
            "dimension. Fix: pass one value, or one per dimension."
        )

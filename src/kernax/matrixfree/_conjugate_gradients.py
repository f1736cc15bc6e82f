"""Preconditioned conjugate gradients for many right-hand sides at once.

All columns share each product with the matrix; a column that has converged stands still. What is
reported is the true residual, computed anew at the end; where that of the recurrence was wrong, the
iteration starts again from where it is.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._contract import CovarianceOperator
from ._preconditioner import Preconditioner


class Solution(eqx.Module):
    """What an iterative solver found: ``values`` (n, s), and for each column how far it came."""

    values: Array
    residual: Array  # |b - K x| / |b|, (s,), computed from the values
    steps: Array  # products with the matrix
    indefinite: Array  # a direction of negative curvature was met

    def converged(self, tolerance: Any) -> Array:
        """Whether every column is as near as that, to a tenth."""
        return jnp.all(self.residual <= 1.1 * tolerance) & ~self.indefinite


class _State(NamedTuple):
    X: Array
    R: Array
    P: Array
    rz: Array
    active: Array  # columns that are not there yet
    looks: Array  # the next product is one with X, for the true residual
    done: Array
    steps: Array
    indefinite: Array


def conjugate_gradients(
    operator: CovarianceOperator,
    B: Array,
    preconditioner: Preconditioner,
    *,
    start: Array | None = None,
    tolerance: Any = 1e-6,
    max_steps: Any = 1000,
    restarts: bool = True,
) -> Solution:
    """K^-1 B for B (n, s), to a relative residual of ``tolerance`` in every column.

    At most ``max_steps`` products, and one more for the residual that is reported. Without
    ``restarts`` the recurrence is believed, as it may be where the tolerance is loose; compiled
    code then makes no product for a residual that nobody asks for.
    """
    norms = _norms(B)
    bound = tolerance * norms

    def step(state: _State) -> _State:
        X, R, P, rz, active, looks, _, steps, indefinite = state
        # The program holds one product, be it a step or a look at the true residual.
        product = operator.product(jnp.where(looks, X, P))
        curvature = _inner(P, product)
        bad = active & ~looks & ~(curvature > 0)
        moves = active & ~looks & ~bad
        alpha = jnp.where(moves, rz / jnp.where(moves, curvature, 1.0), 0.0)
        X = X + alpha[None, :] * P
        R = jnp.where(looks, B - product, R - alpha[None, :] * product)
        Z = preconditioner.solve(R)
        new = _inner(R, Z)
        beta = jnp.where(moves, new / jnp.where(rz > 0, rz, 1.0), 0.0)
        P = jnp.where((moves | looks)[None, :], Z + beta[None, :] * P, P)
        indefinite = indefinite | jnp.any(bad)
        active = (_norms(R) > bound) & (moves | looks) & ~indefinite
        steps = steps + 1
        ends = ~jnp.any(active) | (steps >= max_steps)
        rz = jnp.where(moves | looks, new, rz)
        done = ends & looks if restarts else ends
        return _State(X, R, P, rz, active, ends & ~looks, done, steps, indefinite)

    no, count = jnp.zeros((), bool), jnp.zeros((), int)
    if start is None:  # there is nothing to look at
        Z = preconditioner.solve(B)
        state = _State(B * 0.0, B, Z, _inner(B, Z), norms > 0, no, ~jnp.any(norms > 0), count, no)
    else:
        state = _State(start, B, B * 0.0, norms, norms >= 0, ~no, no, count, no)
    state = jax.lax.while_loop(lambda state: ~state.done, step, state)
    left = state.R if restarts else B - operator.product(state.X)
    return Solution(state.X, relative(left, B), state.steps, state.indefinite)


def lanczos_coefficients(
    operator: CovarianceOperator, Z: Array, preconditioner: Preconditioner, steps: int
) -> tuple[Array, Array, Array]:
    """The tridiagonal matrices that conjugate gradients make of P^-1/2 K P^-1/2 from Z (n, s).

    Their diagonals (steps, s), off-diagonals (steps - 1, s), and the squared norms Z' P^-1 Z (s,).
    A column that comes to its end before has rows of the identity there.
    """
    start = preconditioner.solve(Z)
    squares = _inner(Z, start)

    def step(carry: Any, _: None) -> Any:
        R, P, rz, active = carry
        KP = operator.product(P)
        curvature = _inner(P, KP)
        active = active & (curvature > 0)
        alpha = jnp.where(active, rz / jnp.where(active, curvature, 1.0), 1.0)
        R = jnp.where(active[None, :], R - alpha[None, :] * KP, R)
        S = preconditioner.solve(R)
        new = _inner(R, S)
        going = active & (new > 1e3 * jnp.finfo(R.dtype).eps ** 2 * squares)
        beta = jnp.where(going, new / jnp.where(rz > 0, rz, 1.0), 0.0)
        P = S + beta[None, :] * P
        return (R, P, jnp.where(going, new, rz), going), (alpha, beta)

    carry = (Z, start, squares, squares > 0)
    alphas, betas = jax.lax.scan(step, carry, length=steps)[1]
    before = jnp.concatenate([jnp.zeros_like(betas[:1]), betas[:-1] / alphas[:-1]])
    return 1.0 / alphas + before, jnp.sqrt(betas[:-1]) / alphas[:-1], squares


def relative(R: Array, B: Array) -> Array:
    """|r| / |b| for each column."""
    norms = _norms(B)
    return _norms(R) / jnp.where(norms > 0, norms, 1.0)


def _inner(A: Array, B: Array) -> Array:
    return jnp.sum(A * B, axis=0)


def _norms(A: Array) -> Array:
    return jnp.sqrt(_inner(A, A))

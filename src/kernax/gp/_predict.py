"""Compiled computations of a posterior, each for one element of a batch at a time.

A prediction takes what it is compiled for, `Facts`, and what it is computed from, `Arrays`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._inputs import common_dtype
from .._module import Structure, prepared, with_fields
from ..calculus import Identity, LinearOperator
from ..calculus._apply import cast
from ..calculus._evaluate import check_rows
from ..calculus._evaluate import variances as prior_variances
from ..kernels import AbstractKernel
from ..kernels._gram import variances
from ..linalg import DenseFactor, factorise, status_of
from ._blocks import Part, cross, own_covariance, prior_mean, real_values
from ._data import Data, clean_inputs, joined, mark_rows, prepared_gp, system
from ._elements import Per, over_elements
from ._process import draw, keys

# Numbers in K(X, Xs) beyond which predictions are made block by block of test points.
BLOCK = 1 << 24


class State(eqx.Module):
    """What conditioning leaves: of a batch, every array has the batch axes in front."""

    factor: DenseFactor
    whitened: Array  # R^-1 (y - mean), for the root R of the factor
    weights: Array  # K^-1 (y - mean)
    value: Array  # the log marginal likelihood
    status: Array


class Known(eqx.Module):
    """A posterior as compiled code is given it."""

    gp: Any
    data: Any  # observations of values, or in blocks
    state: State


class Facts(NamedTuple):
    """What a prediction is compiled for."""

    operator: Structure  # of what is predicted
    structure: Structure  # of what is known
    finite: bool  # the test points are known to hold no padding
    part: Structure | None  # of the kernel that predicts, where it is not the whole


class Arrays(NamedTuple):
    """What a prediction is computed from."""

    leaves: tuple[Array, ...]
    operator: tuple[Array, ...]
    Xs: Array
    part_leaves: tuple[Array, ...]


# --- conditioning ------------------------------------------------------------------------------


@partial(jax.jit, static_argnames=("structure",))
def condition_state(structure: Structure, leaves: tuple[Array, ...], data: Any) -> State:
    """Factorise and solve."""

    def element(gp: Any, _: None, *arrays: Any) -> State:
        at = system(gp, data.element(*arrays))
        factor = factorise(at.K, at.n, at.scale)
        return _state(factor, factor.whiten(at.residual), at.n)

    state: State = over_elements(element, structure.rebuild(leaves), *data.arrays)
    return state


@partial(jax.jit, static_argnames=("structure",))
def extended_state(
    structure: Structure, leaves: tuple[Array, ...], new: Data
) -> tuple[State, Data]:
    """The state with further observations, in O(n^2 m), and all observations; the noise of all
    points is in the gp.

    Without the n^2 numbers of ``factor.first``, which stay as they are: a result is a copy.
    """
    known: Known = structure.rebuild(leaves)
    old = known.data

    def element(gp: Any, _: None, state: State, *arrays: Any) -> State:
        first, second = old.element(*arrays[:3]), new.element(*arrays[3:])
        n, noise = first.X.shape[0], gp.noise_variance
        own = with_fields(gp, noise_variance=noise[n:]) if noise.ndim else gp
        at = system(own, second)
        X, real = clean_inputs(first.X.astype(at.X.dtype), first.finite, first.mask)
        cross = prepared_gp(gp, at.X)[0].kernel.matrix(X, at.X)
        for rows, axis in ((real, 1), (at.real, 0)):
            if rows is not None:
                cross = jnp.where(jnp.expand_dims(rows, axis), cross, 0.0)
        count = at.n + (n if real is None else jnp.sum(real).astype(cross.dtype))
        factor = state.factor.extend(cross, at.K, count, at.scale)
        both = _state(factor, factor.append(state.whitened, at.residual), count)
        return with_fields(both, factor=with_fields(factor, first=None))

    arrays = (Per(known.state), *old.arrays, *new.arrays)
    return over_elements(element, known.gp, *arrays), joined(old, new)


def _state(factor: DenseFactor, whitened: Array, count: Array) -> State:
    value = factor.log_density(whitened, count)
    status = status_of(value, factor.jitter, count)
    return State(factor, whitened, factor.unwhiten(whitened), value, status)


@partial(jax.jit, static_argnames=("structure",))
def leave_one_out(structure: Structure, leaves: tuple[Array, ...]) -> tuple[Array, Array, Array]:
    """Mean, variance and log density of each observation given all the others."""
    known: Known = structure.rebuild(leaves)
    data = known.data

    def element(gp: Any, _: None, state: State, *arrays: Any) -> tuple[Array, Array, Array]:
        own = data.element(*arrays)
        at = system(gp, own)
        precision = state.factor.inverse_diagonal()
        spread = jnp.log(precision) - jnp.log(2.0 * jnp.pi).astype(precision.dtype)
        if data.targets:
            precision, spread = precision[:, None], spread[:, None]
        y, a = own.values.astype(at.X.dtype), state.weights
        mean, variance = y - a / precision, jnp.broadcast_to(1.0 / precision, a.shape)
        density = 0.5 * (spread - jnp.square(a) / precision)
        rows = at.real[:, None] if data.targets and at.real is not None else at.real
        mark = lambda values: values if rows is None else jnp.where(rows, values, jnp.nan)
        return mark(mean), mark(variance), mark(density)

    arrays = (Per(known.state), *data.arrays)
    found: tuple[Array, Array, Array] = over_elements(element, known.gp, *arrays)
    return found


# --- predictions -------------------------------------------------------------------------------


class _At(NamedTuple):
    """One element, and the test points, all in one floating dtype."""

    gp: Any  # prepared
    kernel: AbstractKernel  # the one that predicts: that of the process, or a part of it
    whole: bool
    parts: tuple[Part, ...]  # what was observed, and where
    size: int  # how many values
    operator: LinearOperator  # what of the function is predicted
    state: State

    def cross(self, points: Array) -> Array:
        """K(observations, predictions), zero where an observation is padding."""
        return cross(self.kernel, self.parts, self.operator, points)

    def mean(self, points: Array) -> Array:
        """(m, q), or (m, q, t) for t targets."""
        values = jnp.matmul(self.cross(points).T, self.state.weights, precision="highest")
        q = self.operator.components(points.shape[1])
        values = values.reshape(len(points), q, *values.shape[1:])
        if not self.whole:
            return values
        prior = prior_mean(self.gp.mean, self.operator, points)
        return values + (prior[..., None] if values.ndim == 3 else prior)

    def prior(self, points: Array) -> Array:
        """The prior variances (m, q), without white noise."""
        return prior_variances(self.kernel, self.operator, points)


def _predict(facts: Facts, arrays: Arrays, function: Callable[..., Any], *others: Per) -> Any:
    """``function(at, clean points, which are real, *others)`` for each element."""
    structure, finite, part = facts.structure, facts.finite, facts.part
    leaves, Xs, part_leaves = arrays.leaves, arrays.Xs, arrays.part_leaves
    dtype = common_dtype(Xs, *leaves, *part_leaves)
    known: Known = structure.rebuild(
        tuple(leaf.astype(dtype) if leaf.dtype.kind == "f" else leaf for leaf in leaves)
    )
    operator = cast(facts.operator.rebuild(arrays.operator), dtype)
    check_rows(operator, Xs.shape[-2], "Xs")
    data = known.data

    def element(gp: Any, part: Any, state: State, Xs: Array, *rest: Any) -> Any:
        gp = prepared(gp, dtype)
        kernel = gp.kernel if part is None else prepared(part, dtype)
        points, real = clean_inputs(Xs.astype(dtype), finite, None)
        parts = data.element(*rest[: len(data.arrays)]).parts(dtype)
        at = _At(gp, kernel, part is None, parts, data.rows, operator, state)
        return function(at, points, real, *rest[len(data.arrays) :])

    own_part = None if part is None else part.rebuild(part_leaves)
    everything = (Per(known.state), Per(Xs, 2), *data.arrays, *others)
    return over_elements(element, known.gp, *everything, part=own_part)


def _by_blocks(function: Callable[[Array], Any], points: Array, at: _At) -> Any:
    """``function`` of the points, block by block where the cross-covariances would be large."""
    m, width = points.shape[0], at.size * at.operator.components(points.shape[1])
    if m * width <= BLOCK or at.operator.rows() is not None:
        return function(points)
    size = max(1, BLOCK // width)
    index = jnp.minimum(jnp.arange(-(-m // size) * size), m - 1)
    blocks = points[index].reshape(-1, size, points.shape[1])
    stacked = jax.lax.map(function, blocks)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:m], stacked)


def _marked(values: Array, real: Array | None) -> Array:
    """(m, q, ...) with NaN at padding, and without an axis of one component."""
    if real is not None:
        values = jnp.where(jnp.expand_dims(real, range(1, values.ndim)), values, jnp.nan)
    return values[:, 0] if values.shape[1] == 1 else values


@partial(jax.jit, static_argnames=("facts",))
def mean(facts: Facts, arrays: Arrays) -> Array:
    """E[L f(Xs) | y], (m,), (m, q), or (m, t)."""

    def element(at: _At, points: Array, real: Any) -> Array:
        return _marked(_by_blocks(at.mean, points, at), real)

    values: Array = _predict(facts, arrays, element)
    return values


@partial(jax.jit, static_argnames=("facts", "observation"))
def variance(facts: Facts, arrays: Arrays, observation: bool) -> tuple[Array, Array]:
    """Var[L f(Xs) | y], (m,) or (m, q), and the worst negative one, in units of n eps of the
    prior."""

    def element(at: _At, points: Array, real: Any) -> tuple[Array, Array]:
        def block(points: Array) -> tuple[Array, Array]:
            prior = at.prior(points)
            explained = at.state.factor.inverse_quadratic(at.cross(points))
            return prior, prior - explained.reshape(prior.shape)

        prior, latent = _by_blocks(block, points, at)
        unit = at.size * jnp.finfo(latent.dtype).eps * prior
        worst = jnp.max(jnp.where(unit > 0, -latent / unit, 0.0), initial=0.0)
        values = jnp.maximum(latent, 0.0)
        if observation:
            white = variances(at.kernel, points) - variances(at.kernel, points, noise=False)
            values = values + (white + at.gp.noise_variance)[:, None]
        return _marked(values, real), worst

    values: tuple[Array, Array] = _predict(facts, arrays, element)
    return values


@partial(jax.jit, static_argnames=("facts", "observation"))
def full_covariance(facts: Facts, arrays: Arrays, observation: bool) -> Array:
    """Cov[L f(Xs) | y], (m, m) or (m q, m q)."""

    def element(at: _At, points: Array, real: Any) -> Array:
        C = _covariance(at, points, observation)
        if real is None:
            return C
        real = real_values(at.operator, points, real)
        return jnp.where(real[:, None] & real[None, :], C, jnp.nan)

    values: Array = _predict(facts, arrays, element)
    return values


@partial(jax.jit, static_argnames=("facts", "observation", "shape"))
def draws(
    facts: Facts, arrays: Arrays, observation: bool, key: Array, shape: tuple[int, ...]
) -> tuple[Array, Array]:
    """Joint draws of L f(Xs) given y, shape + (m,), (m, q) or (m, t), and the jitter they took."""

    def element(at: _At, points: Array, real: Any, key: Array) -> tuple[Array, Array]:
        C = _covariance(at, points, observation)
        middle = at.mean(points)
        m, q = middle.shape[:2]
        # In units of the prior, of values with their white noise.
        plain = isinstance(at.operator, Identity)
        prior = variances(at.kernel, points) if plain else at.prior(points)
        scale = jnp.mean(prior) if m else jnp.ones((), C.dtype)
        # The targets of one covariance are drawn apart: their axis goes first, and back last.
        own = middle.shape[2:]
        flat = middle.reshape(m * q, *own)
        values, jitter = draw(key, flat.T, C, scale, (*shape, *own))
        values = mark_rows(values, None if real is None else jnp.repeat(real, q))
        if own:
            return jnp.swapaxes(values, -1, -2), jitter
        return values.reshape(*values.shape[:-1], m, q) if q > 1 else values, jitter

    gp = facts.structure.rebuild(arrays.leaves).gp
    values: tuple[Array, Array] = _predict(facts, arrays, element, keys(gp, key))
    return values


def _covariance(at: _At, points: Array, observation: bool) -> Array:
    explained = at.state.factor.inverse_form(at.cross(points))
    C = own_covariance(at.kernel, at.operator, points, noise=observation) - explained
    if observation:
        C = C + at.gp.noise_variance * jnp.eye(len(points), dtype=C.dtype)
    return C

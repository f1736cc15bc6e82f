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
from .._module import Structure, field_values, prepared, rebuild_fields
from ..kernels import AbstractKernel
from ..kernels._gram import covariance, variances
from ..linalg import DenseFactor, factorise, status_of
from ._data import Data, clean_inputs, mark_rows, prepared_gp, system
from ._elements import Per, over_elements
from ._means import evaluate_mean
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
    data: Data
    state: State


class Facts(NamedTuple):
    """What a prediction is compiled for."""

    structure: Structure  # of what is known
    finite: bool  # the test points are known to hold no padding
    part: Structure | None  # of the kernel that predicts, where it is not the whole


class Arrays(NamedTuple):
    """What a prediction is computed from."""

    leaves: tuple[Array, ...]
    Xs: Array
    part_leaves: tuple[Array, ...]


# --- conditioning ------------------------------------------------------------------------------


@partial(jax.jit, static_argnames=("structure",))
def condition_state(structure: Structure, leaves: tuple[Array, ...], data: Data) -> State:
    """Factorise and solve."""

    def element(gp: Any, _: None, *arrays: Any) -> State:
        at = system(gp, data.element(*arrays))
        factor = factorise(at.K, at.n, at.scale)
        return _state(factor, factor.whiten(at.residual), at.n)

    state: State = over_elements(element, structure.rebuild(leaves), *data.arrays)
    return state


@partial(jax.jit, static_argnames=("structure",))
def extended_state(structure: Structure, leaves: tuple[Array, ...], new: Data) -> State:
    """The state with further observations, in O(n^2 m); the noise of all points is in the gp.

    Without the n^2 numbers of ``factor.first``, which stay as they are: a result is a copy.
    """
    known: Known = structure.rebuild(leaves)
    old = known.data

    def element(gp: Any, _: None, state: State, *arrays: Any) -> State:
        first, second = old.element(*arrays[:3]), new.element(*arrays[3:])
        n, noise = first.X.shape[0], gp.noise_variance
        fields = field_values(gp) | {"noise_variance": noise[n:] if noise.ndim else noise}
        at = system(rebuild_fields(type(gp), fields), second)
        X, real = clean_inputs(first.X.astype(at.X.dtype), first.finite, first.mask)
        cross = prepared_gp(gp, at.X)[0].kernel.matrix(X, at.X)
        for rows, axis in ((real, 1), (at.real, 0)):
            if rows is not None:
                cross = jnp.where(jnp.expand_dims(rows, axis), cross, 0.0)
        count = at.n + (n if real is None else jnp.sum(real).astype(cross.dtype))
        factor = state.factor.extend(cross, at.K, count, at.scale)
        both = _state(factor, factor.append(state.whitened, at.residual), count)
        return eqx.tree_at(lambda state: state.factor.first, both, None)

    arrays = (Per(known.state), *old.arrays, *new.arrays)
    state: State = over_elements(element, known.gp, *arrays)
    return state


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
        y, a = own.y.astype(at.X.dtype), state.weights
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
    X: Array
    known: Array | None  # which observations are real
    state: State

    def cross(self, points: Array) -> Array:
        """K(X, points), zero where X is padding."""
        if self.X.shape[0] == 0:
            return jnp.zeros((0, len(points)), points.dtype)
        K = self.kernel.matrix(self.X, points)
        return K if self.known is None else jnp.where(self.known[:, None], K, 0.0)

    def mean(self, points: Array) -> Array:
        values = jnp.matmul(self.cross(points).T, self.state.weights, precision="highest")
        if not self.whole:
            return values
        prior = evaluate_mean(self.gp.mean, points)
        return values + (prior[:, None] if values.ndim == 2 else prior)


def _predict(facts: Facts, arrays: Arrays, function: Callable[..., Any], *others: Per) -> Any:
    """``function(at, clean points, which are real, *others)`` for each element."""
    (structure, finite, part), (leaves, Xs, part_leaves) = facts, arrays
    dtype = common_dtype(Xs, *leaves, *part_leaves)
    known: Known = structure.rebuild(
        tuple(leaf.astype(dtype) if leaf.dtype.kind == "f" else leaf for leaf in leaves)
    )

    def element(gp: Any, part: Any, state: State, X: Array, mask: Any, Xs: Any, *rest: Any) -> Any:
        gp = prepared(gp, dtype)
        kernel = gp.kernel if part is None else prepared(part, dtype)
        points, real = clean_inputs(Xs.astype(dtype), finite, None)
        X, seen = clean_inputs(X.astype(dtype), known.data.finite, mask)
        return function(_At(gp, kernel, part is None, X, seen, state), points, real, *rest)

    X, _, mask = known.data.arrays
    own_part = None if part is None else part.rebuild(part_leaves)
    everything = (Per(known.state), X, mask, Per(Xs, 2), *others)
    return over_elements(element, known.gp, *everything, part=own_part)


def _by_blocks(function: Callable[[Array], Any], points: Array, n: int) -> Any:
    """``function`` of the points, block by block where K(X, points) would be large."""
    m = points.shape[0]
    if m * n <= BLOCK:
        return function(points)
    size = max(1, BLOCK // n)
    index = jnp.minimum(jnp.arange(-(-m // size) * size), m - 1)
    blocks = points[index].reshape(-1, size, points.shape[1])
    stacked = jax.lax.map(function, blocks)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:m], stacked)


@partial(jax.jit, static_argnames=("facts",))
def mean(facts: Facts, arrays: Arrays) -> Array:
    """E[f(Xs) | y], (m,) or (m, t)."""

    def element(at: _At, points: Array, real: Any) -> Array:
        values = _by_blocks(at.mean, points, len(at.X))
        return mark_rows(values.T, real).T

    values: Array = _predict(facts, arrays, element)
    return values


@partial(jax.jit, static_argnames=("facts", "observation"))
def variance(facts: Facts, arrays: Arrays, observation: bool) -> tuple[Array, Array]:
    """Var[f(Xs) | y], (m,), and the worst negative one, in units of n eps of the prior."""

    def element(at: _At, points: Array, real: Any) -> tuple[Array, Array]:
        def block(points: Array) -> tuple[Array, Array]:
            prior = variances(at.kernel, points, noise=False)
            return prior, prior - at.state.factor.inverse_quadratic(at.cross(points))

        prior, latent = _by_blocks(block, points, len(at.X))
        unit = len(at.X) * jnp.finfo(latent.dtype).eps * prior
        worst = jnp.max(jnp.where(unit > 0, -latent / unit, 0.0), initial=0.0)
        values = jnp.maximum(latent, 0.0)
        if observation:
            values = values + variances(at.kernel, points) - prior + at.gp.noise_variance
        return mark_rows(values, real), worst

    values: tuple[Array, Array] = _predict(facts, arrays, element)
    return values


@partial(jax.jit, static_argnames=("facts", "observation"))
def full_covariance(facts: Facts, arrays: Arrays, observation: bool) -> Array:
    """Cov[f(Xs) | y], (m, m)."""

    def element(at: _At, points: Array, real: Any) -> Array:
        C = _covariance(at, points, observation)
        return C if real is None else jnp.where(real[:, None] & real[None, :], C, jnp.nan)

    values: Array = _predict(facts, arrays, element)
    return values


@partial(jax.jit, static_argnames=("facts", "observation", "shape"))
def draws(
    facts: Facts, arrays: Arrays, observation: bool, key: Array, shape: tuple[int, ...]
) -> tuple[Array, Array]:
    """Joint draws of f(Xs) given y, shape + (m,) or (m, t), and the jitter they took."""

    def element(at: _At, points: Array, real: Any, key: Array) -> tuple[Array, Array]:
        C = _covariance(at, points, observation)
        m = len(points)
        scale = jnp.mean(variances(at.kernel, points)) if m else jnp.ones((), C.dtype)
        middle = at.mean(points)
        # The targets of one covariance are drawn apart: their axis goes first, and back last.
        own = (middle.shape[1],) if middle.ndim == 2 else ()
        values, jitter = draw(key, middle.T, C, scale, (*shape, *own))
        values = mark_rows(values, real)
        return jnp.swapaxes(values, -1, -2) if own else values, jitter

    gp = facts.structure.rebuild(arrays.leaves).gp
    values: tuple[Array, Array] = _predict(facts, arrays, element, keys(gp, key))
    return values


def _covariance(at: _At, points: Array, observation: bool) -> Array:
    explained = at.state.factor.inverse_form(at.cross(points))
    C = covariance(at.kernel, points, noise=observation) - explained
    if observation:
        C = C + at.gp.noise_variance * jnp.eye(len(points), dtype=C.dtype)
    return C

"""Pathwise samples: draws of a posterior as functions, to be evaluated anywhere later.

Matheron's rule: a draw of the prior, made a function by random features, plus the correction that
the observations ask for. Wilson et al. (2020), Efficiently sampling functions from Gaussian
process posteriors.
"""

import dataclasses
import math
import operator
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._errors import ParameterError
from .._inputs import common_dtype
from .._module import Structure, flatten
from .._typing import ArrayLike, Key, Shape
from ..kernels import AbstractKernel, RandomFeatures, random_features
from ..kernels._gram import variances
from ._data import as_inputs, as_key, as_shape, clean_inputs, mark_rows, prepared_gp, system
from ._elements import Per, over_elements
from ._means import evaluate_mean


class Paths(eqx.Module):
    """Functions drawn from a posterior, made by `Posterior.sample_paths`.

    ``paths(Xs)`` is shape + (m,) for points (m, d) or (m,), and shape + (m, t) for t targets; of a
    batch with the batch in front. The same functions at each call, in O((n + features) m),
    differentiable in Xs. Latent: without noise. NaN at padded points.
    """

    gp: Any
    drawn: "_Drawn"
    shape: tuple[int, ...] = eqx.field(static=True)
    targets: tuple[int, ...] = eqx.field(static=True)  # (t,), or () for one
    shift: tuple[float, ...] | None = eqx.field(static=True)

    __getattribute__ = object.__getattribute__

    def __repr__(self) -> str:
        return f"Paths({self.gp!r}, shape={self.shape})"

    def __call__(self, Xs: ArrayLike) -> Array:
        """The values at test points."""
        points, finite = as_inputs(self.gp, Xs, self.shift, "Xs")
        # The shift is taken off already, and another one compiles nothing again.
        values: Array = _evaluate(*flatten(dataclasses.replace(self, shift=None)), finite, points)
        return values


class _Drawn(eqx.Module):
    """What the functions are made of; of a batch with its axes in front."""

    X: Array  # clean observations
    correction: Array  # (n, functions): what multiplies K(Xs, X); 0 at padding
    features: RandomFeatures
    weights: Array  # (features, functions)


def sample_paths(posterior: Any, key: Key, shape: Shape, features: Any) -> Paths:
    """The work behind `Posterior.sample_paths`."""
    gp, data = posterior.gp, posterior.data
    try:
        count = operator.index(features)
    except TypeError:
        count = 0
    if count < 1:
        raise ParameterError(
            f"`features` is {features!r}, expected a whole number >= 1. Fix: pass 2048."
        )
    sizes = as_shape(shape)
    batch = tuple(level.size for level in gp.kernel.levels())
    keys = jax.random.split(as_key(key), (*batch, 3))
    targets = data.y.shape[-1:] if data.targets else ()
    functions = math.prod((*sizes, *targets))
    drawn = _draw(*posterior._compiled(), keys, count, functions)
    return Paths(gp, drawn, sizes, targets, data.shift)


@partial(jax.jit, static_argnames=("structure", "count", "functions"))
def _draw(
    structure: Structure, leaves: tuple[Array, ...], keys: Array, count: int, functions: int
) -> _Drawn:
    known = structure.rebuild(leaves)
    data = known.data

    def element(gp: Any, _: None, state: Any, keys: Array, *arrays: Any) -> _Drawn:
        at = system(gp, data.element(*arrays))
        gp, X = prepared_gp(gp, at.X)
        phi = random_features(keys[0], gp.kernel, X.shape[1], count)
        weights = jax.random.normal(keys[1], (phi.count, functions), X.dtype)
        white = variances(gp.kernel, X) - variances(gp.kernel, X, noise=False) + gp.noise_variance
        # The jitter is noise too, as far as the factorisation knows.
        spread = jnp.sqrt(white + state.factor.jitter.astype(X.dtype))
        noise = spread[:, None] * jax.random.normal(keys[2], (len(X), functions), X.dtype)
        prior = jnp.matmul(phi.features(X).astype(X.dtype), weights, precision="highest")
        # One function after the other, the targets of a draw side by side.
        residual = at.residual if data.targets else at.residual[:, None]
        missing = jnp.tile(residual, (1, functions // residual.shape[1])) - prior - noise
        if at.real is not None:
            missing = jnp.where(at.real[:, None], missing, 0.0)
        return _Drawn(X, state.factor.solve(missing), phi, weights)

    arrays = (Per(known.state), Per(keys), *data.arrays)
    drawn: _Drawn = over_elements(element, known.gp, *arrays)
    return drawn


@partial(jax.jit, static_argnames=("structure", "finite"))
def _evaluate(structure: Structure, leaves: tuple[Array, ...], finite: bool, Xs: Array) -> Array:
    dtype = common_dtype(Xs, *leaves)
    paths = structure.rebuild(
        tuple(leaf.astype(dtype) if leaf.dtype.kind == "f" else leaf for leaf in leaves)
    )

    def element(gp: Any, _: None, drawn: _Drawn, points: Array) -> Array:
        gp, points = prepared_gp(gp, points)
        points, real = clean_inputs(points, finite, None)
        kernel: AbstractKernel = gp.kernel
        values = jnp.matmul(drawn.features.features(points), drawn.weights, precision="highest")
        if drawn.X.shape[0]:
            K = kernel.matrix(points, drawn.X)
            values = values + jnp.matmul(K, drawn.correction, precision="highest")
        values = mark_rows((values + evaluate_mean(gp.mean, points)[:, None]).T, real)
        values = values.reshape(*paths.shape, *paths.targets, len(points))
        return values.swapaxes(-1, -2) if paths.targets else values

    values: Array = over_elements(element, paths.gp, Per(paths.drawn), Per(Xs.astype(dtype), 2))
    return values

"""Pathwise samples: draws of a posterior as functions, to be evaluated anywhere later.

Matheron's rule: a draw of the prior, made a function by random features, plus the correction that
the observations ask for. Wilson et al. (2020), Efficiently sampling functions from Gaussian
process posteriors.
"""

import dataclasses
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
from ._means import evaluate_mean


class Paths(eqx.Module):
    """Functions drawn from a posterior, made by `Posterior.sample_paths`.

    ``paths(Xs)`` is shape + (m,) for points (m, d) or (m,): the same functions at each call, in
    O((n + features) m), differentiable in Xs. Latent: without noise. NaN at padded points.
    """

    gp: Any
    X: Array  # clean observations
    correction: Array  # (n, draws): what multiplies K(Xs, X); 0 at padding
    features: RandomFeatures
    weights: Array  # (features, draws)
    shape: tuple[int, ...] = eqx.field(static=True)
    shift: tuple[float, ...] | None = eqx.field(static=True)

    __getattribute__ = object.__getattribute__

    def __call__(self, Xs: ArrayLike) -> Array:
        """The values at test points, shape + (m,)."""
        points, finite = as_inputs(self.gp, Xs, self.shift, "Xs")
        # The shift is taken off already, and another one compiles nothing again.
        values: Array = _evaluate(*flatten(dataclasses.replace(self, shift=None)), finite, points)
        return values


def sample_paths(posterior: Any, key: Key, shape: Shape, features: Any) -> Paths:
    """The work behind `Posterior.sample_paths`."""
    gp, data = posterior.gp, posterior.data
    if gp.kernel.levels() or data.targets:
        raise ParameterError(
            "`sample_paths` draws from one process with one target, and this posterior has more. "
            "Fix: condition on one element, or one column of y."
        )
    try:
        count = operator.index(features)
    except TypeError:
        count = 0
    if count < 1:
        raise ParameterError(
            f"`features` is {features!r}, expected a whole number >= 1. Fix: pass 2048."
        )
    sizes = as_shape(shape)
    keys = jax.random.split(as_key(key), 3)
    phi = random_features(keys[0], gp.kernel, data.X.shape[-1], count)
    X, correction, weights = _correct(*flatten(posterior._known()), phi, keys[1:], sizes)
    return Paths(gp, X, correction, phi, weights, sizes, data.shift)


@partial(jax.jit, static_argnames=("structure", "sizes"))
def _correct(
    structure: Structure, leaves: tuple[Array, ...], phi: Any, keys: Array, sizes: tuple[int, ...]
) -> tuple[Array, Array, Array]:
    known = structure.rebuild(leaves)
    at = system(known.gp, known.data)
    gp, X = prepared_gp(known.gp, at.X)
    n, draws = X.shape[0], 1
    for size in sizes:
        draws *= size
    weights = jax.random.normal(keys[0], (phi.count, draws), X.dtype)
    white = variances(gp.kernel, X) - variances(gp.kernel, X, noise=False) + gp.noise_variance
    # The jitter is noise too, as far as the factorisation knows.
    spread = jnp.sqrt(white + known.state.factor.jitter.astype(X.dtype))
    noise = spread[:, None] * jax.random.normal(keys[1], (n, draws), X.dtype)
    prior = jnp.matmul(phi.features(X).astype(X.dtype), weights, precision="highest")
    missing = at.residual[:, None] - prior - noise
    if at.real is not None:
        missing = jnp.where(at.real[:, None], missing, 0.0)
    return X, known.state.factor.solve(missing), weights


@partial(jax.jit, static_argnames=("structure", "finite"))
def _evaluate(structure: Structure, leaves: tuple[Array, ...], finite: bool, Xs: Array) -> Array:
    dtype = common_dtype(Xs, *leaves)
    paths = structure.rebuild(
        tuple(leaf.astype(dtype) if leaf.dtype.kind == "f" else leaf for leaf in leaves)
    )
    gp, points = prepared_gp(paths.gp, Xs.astype(dtype))
    points, real = clean_inputs(points, finite, None)
    kernel: AbstractKernel = gp.kernel
    values = jnp.matmul(paths.features.features(points), paths.weights, precision="highest")
    if paths.X.shape[0]:
        K = kernel.matrix(points, paths.X)
        values = values + jnp.matmul(K, paths.correction, precision="highest")
    values = values.T + evaluate_mean(gp.mean, points)[None, :]
    return mark_rows(values, real).reshape(*paths.shape, len(points))

"""What `fit` minimises: losses and gradients of many hyperparameters, in free space."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._inputs import common_dtype
from .._module import Structure, flatten, named_leaves, with_leaves
from .._typing import HostArray
from ..linalg import log_density
from ._data import system
from ._elements import element_of, over_elements
from ._free_space import FreeSpace, coordinate, free_space
from ._one_pass import in_one_pass
from ._priors import log_prior

# Numbers in the covariance matrices that are evaluated together.
TOGETHER = 1 << 18


class Problem:
    """The loss of a process on its data, as a function of free coordinates.

    The elements of a batch are ``elements`` problems apart where every free hyperparameter has a
    value of its own per element; else the sum over all elements is one problem. There are
    ``starts`` runs for each: run number r of element e is problem r * elements + e.
    """

    def __init__(self, gp: Any, data: Any, held: frozenset[str], priors: dict[str, Any]):
        self.gp, self.data, self.priors = gp, data, priors
        self.sizes = tuple(level.size for level in gp.kernel.levels())
        self.apart = bool(self.sizes) and _all_per_element(gp, held, self.sizes)
        self.elements = int(np.prod(self.sizes, dtype=int)) if self.apart else 1
        batch = len(self.sizes) if self.apart else 0
        self.space, start = free_space(gp, held, batch)
        shapes = dict(zip(self.space.paths, self.space.shapes, strict=True))
        self.start = {
            path: value.reshape(self.elements, *shapes[path]) if self.apart else value
            for path, value in start.items()
        }
        self.structure, self.leaves = flatten(gp)
        self.dtype = common_dtype(*data.points, *self.leaves)
        self.runs = self.elements

    def starts(self, count: int, key: Array | None) -> HostArray:
        """The given values, then ``count`` random starts, for every element: (runs, k).

        No key is that of 0, which is not made where no prior is drawn from: it would be compiled.
        """
        self.runs = (count + 1) * self.elements
        drawn = [self._random_start(key, i) for i in range(count)]
        origin = np.zeros((self.elements, self.space.size), self.dtype)
        return np.concatenate([origin, *drawn])

    def free_point(self, values: dict[str, Array]) -> HostArray:
        """The free coordinates of one process of these values."""
        parts = [np.zeros(0, self.dtype)]
        for path, constraint in zip(self.space.paths, self.space.constraints, strict=True):
            start = self.start[path].astype(self.dtype)
            parts.append(np.asarray(coordinate(constraint, values[path], start)).reshape(-1))
        return np.concatenate(parts).astype(self.dtype)

    def _random_start(self, key: Array | None, number: int) -> HostArray:
        """Free coordinates drawn from the priors; without one, around the start."""
        parts = [np.zeros((self.elements, 0), self.dtype)]
        # On the host, where nothing has to be compiled for a few numbers.
        data = (0, 0) if key is None else np.ravel(jax.random.key_data(key)).tolist()
        around = np.random.default_rng([number, *data])
        for index, path in enumerate(self.space.paths):
            start = self.start[path].astype(self.dtype)
            if path in self.priors:
                key = jax.random.key(0) if key is None else key
                own = jax.random.fold_in(jax.random.fold_in(key, number), index)
                with jax.numpy_dtype_promotion("standard"):
                    drawn = self.priors[path].sample(own, start.shape).astype(self.dtype)
                u = np.asarray(coordinate(self.space.constraints[index], drawn, start))
            else:
                u = 1.5 * around.normal(size=start.shape).astype(self.dtype)
            parts.append(u.reshape(self.elements, -1))
        return np.concatenate(parts, axis=1)

    def evaluate(self, points: HostArray, index: HostArray) -> tuple[HostArray, HostArray]:
        """Losses and gradients at ``points`` (p, k) of the problems of those numbers."""
        losses, gradients, _ = self._evaluated(points, index)
        return losses, gradients

    def jitter(self, points: HostArray, index: HostArray) -> float:
        """The largest amount that had to be added to a diagonal at the points."""
        return float(np.max(self._evaluated(points, index)[2], initial=0.0))

    def _evaluated(self, points: HostArray, index: HostArray) -> tuple[HostArray, ...]:
        """Losses, gradients and jitters."""
        n = self.data.rows
        elements = np.asarray(index) % self.elements
        together = min(max(1, TOGETHER // max(1, n * n)), self.runs)
        losses, gradients = np.empty(len(points)), np.empty(points.shape)
        jitters = np.empty(len(points))
        if together == 1 or (self.sizes and not self.apart):
            for row, (u, element) in enumerate(zip(points, elements, strict=True)):
                found = _one(*self._arguments(), u.astype(self.dtype), element)
                (losses[row], jitters[row]), gradients[row] = found
            return losses, gradients, jitters
        for first in range(0, len(points), together):
            part = slice(first, min(first + together, len(points)))
            # Always as many, the first again in place of none, so that nothing compiles again.
            rows = np.resize(np.arange(part.start, part.stop), together)
            found = _together(*self._arguments(), points[rows].astype(self.dtype), elements[rows])
            (values, amounts), slopes = jax.device_get(found)
            count = part.stop - part.start
            losses[part], jitters[part] = values[:count], amounts[:count]
            gradients[part] = slopes[:count]
        return losses, gradients, jitters

    def fitted(self, points: HostArray) -> Any:
        """The process at one free point per element."""
        u = points.astype(self.dtype)
        values = _natural(self.space, u if self.apart else u[0], self.start)
        shape = lambda path, value: (
            value.reshape(*self.sizes, *value.shape[1:]) if self.apart else value
        )
        cast = {
            path: shape(path, value).astype(self.start[path].dtype)
            for path, value in values.items()
        }
        return with_leaves(self.gp, cast)

    def starts_of_elements(self) -> list[dict[str, Any]]:
        """The start values of each element, by path."""
        found = {path: np.asarray(value) for path, value in self.start.items()}
        if not self.apart:
            return [found]
        return [{p: v[e] for p, v in found.items()} for e in range(self.elements)]

    def hessians(self, points: HostArray) -> HostArray:
        """The second derivatives of the loss at one free point per element."""
        arguments = self._arguments()
        return np.stack(
            [
                np.asarray(_hessian(*arguments, u.astype(self.dtype), e))
                for e, u in enumerate(points)
            ]
        )

    def _arguments(self) -> Any:
        how = (self.structure, self.space, self.apart)
        return *how, self.leaves, self.start, self.priors, self.data


def _all_per_element(gp: Any, held: frozenset[str], sizes: tuple[int, ...]) -> bool:
    """Whether every free hyperparameter has a value of its own for each element."""
    free = [entry for entry in named_leaves(gp) if entry.path not in held]
    own = lambda entry: (
        entry.batches == len(sizes)
        if entry.path.startswith("kernel.")
        else entry.value.shape[: len(sizes)] == sizes
    )
    return all(own(entry) for entry in free)


# --- compiled ----------------------------------------------------------------------------------


@jax.custom_vjp
def _finite_gradient(u: Array) -> Array:
    """u itself; a gradient that is not finite, from a rejected point, comes back as 0."""
    return u


_finite_gradient.defvjp(lambda u: (u, None), lambda _, g: (jnp.where(jnp.isfinite(g), g, 0.0),))


def _loss(
    structure: Structure,
    space: FreeSpace,
    apart: bool,
    leaves: tuple[Array, ...],
    start: dict[str, Array],
    priors: dict[str, Any],
    data: Any,
    u: Array,
    element: Array,
) -> tuple[Array, Array]:
    """Minus the log posterior, and the largest jitter that its factorisation took."""
    u = _finite_gradient(u)
    gp = structure.rebuild(leaves)
    if apart:
        start = {path: value[element] for path, value in start.items()}
        values = space.values(u, start)
        paths = [entry.path for entry in named_leaves(gp)]
        gp, *arrays = element_of(gp, element, *data.arrays)
        # The same hyperparameters in the same order, under the names of a single process.
        own = dict(zip(paths, (entry.path for entry in named_leaves(gp)), strict=True))
        gp = with_leaves(gp, {own[path]: value for path, value in values.items()})
        log_posterior, jitter = _log_likelihood(gp, None, data.element(*arrays))
    else:
        values = space.values(u, start)
        gp = with_leaves(gp, values)
        each = lambda gp, part, *arrays: _log_likelihood(gp, part, data.element(*arrays))
        over = in_one_pass(data.rows)
        each_value, each_jitter = over_elements(each, gp, *data.arrays, over=over)
        log_posterior, jitter = jnp.sum(each_value), jnp.max(each_jitter)
    if priors:
        log_posterior = log_posterior + log_prior(priors, values)
        log_posterior = log_posterior + space.log_jacobian(u, start, frozenset(priors))
    # What has no likelihood is to be walked away from.
    return jnp.where(jnp.isnan(log_posterior), jnp.inf, -log_posterior), jitter


def _log_likelihood(gp: Any, _: None, data: Any) -> tuple[Array, Array]:
    at = system(gp, data)
    value, jitter = log_density(at.K, at.residual, at.n, at.scale)
    # What failed all the same is seen by its value.
    return value, jnp.where(jnp.isnan(value), 0.0, jax.lax.stop_gradient(jitter))


@partial(jax.jit, static_argnums=0)
def _natural(space: FreeSpace, u: Array, start: dict[str, Array]) -> dict[str, Array]:
    return space.values(u, start)


_STATIC = (0, 1, 2)
_one = jax.jit(jax.value_and_grad(_loss, argnums=7, has_aux=True), static_argnums=_STATIC)
_hessian = jax.jit(
    lambda *arguments: jax.hessian(_loss, argnums=7, has_aux=True)(*arguments)[0],
    static_argnums=_STATIC,
)


@partial(jax.jit, static_argnums=_STATIC)
def _together(structure: Any, space: Any, apart: bool, *arrays: Any) -> tuple[Any, Array]:
    leaves, start, priors, data, points, elements = arrays
    loss = lambda u, e: _loss(structure, space, apart, leaves, start, priors, data, u, e)
    found: tuple[Any, Array] = jax.vmap(jax.value_and_grad(loss, has_aux=True))(points, elements)
    return found

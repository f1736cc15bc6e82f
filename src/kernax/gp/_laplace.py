"""Laplace's approximation: a normal distribution around the optimum of a fit, in free space."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import NotPSDError
from .._typing import HostArray, Key, Shape
from ._data import as_key, as_shape


@dataclasses.dataclass(frozen=True)
class LaplaceApproximation:
    """p(u | y) ~ N(u0, H^-1), with H the second derivatives of the loss at the optimum u0.

    u are the coordinates of free space (the logarithm of a positive hyperparameter, the logit of
    one in an interval), in which a normal distribution is a better approximation than in natural
    scale. ``mode`` and ``covariance`` are (k,) and (k, k), in the order of ``paths``; of a batch
    fitted element by element, (e, k) and (e, k, k). MacKay (1992), Bayesian interpolation.
    """

    paths: tuple[str, ...]
    mode: HostArray
    covariance: HostArray
    problem: Any = dataclasses.field(repr=False, compare=False)

    @classmethod
    def at(cls, problem: Any, points: HostArray) -> "LaplaceApproximation":
        """The approximation at one free point per element."""
        hessians = problem.hessians(points)
        try:
            roots = np.linalg.cholesky(hessians)
        except np.linalg.LinAlgError as error:
            least = float(np.linalg.eigvalsh(hessians).min())
            raise NotPSDError(
                "the loss is not convex where the fit ended: its second derivatives have the "
                f"eigenvalue {least:.3g}. Fix: fit until it converges, give priors, or fix what "
                "the data say nothing about."
            ) from error
        half = np.stack([_inverse_of_lower(root) for root in roots])
        covariance = np.einsum("eji,ejk->eik", half, half)
        names = [
            f"{path}[{i}]" if np.prod(shape, dtype=int) > 1 else path
            for path, shape in zip(problem.space.paths, problem.space.shapes, strict=True)
            for i in range(int(np.prod(shape, dtype=int)))
        ]
        single = not problem.apart
        return cls(
            tuple(names),
            points[0] if single else points,
            covariance[0] if single else covariance,
            problem,
        )

    @property
    def standard_deviation(self) -> HostArray:
        """Of each free coordinate: of a positive hyperparameter, its relative error."""
        deviations: HostArray = np.sqrt(np.diagonal(self.covariance, axis1=-2, axis2=-1))
        return deviations

    def sample(self, key: Key, shape: Shape = ()) -> dict[str, Array]:
        """Draws of the hyperparameters in natural scale: path -> shape + (the value's shape)."""
        sizes = as_shape(shape)
        mode, root = jnp.asarray(self.mode), jnp.asarray(np.linalg.cholesky(self.covariance))
        count = int(np.prod(sizes, dtype=int))
        white = jax.random.normal(as_key(key), (count, *mode.shape), root.dtype)
        moved = jnp.einsum("...ij,s...j->s...i", root, white, precision="highest")
        u = (mode[None] + moved).reshape(*sizes, *mode.shape)
        start = {
            path: jnp.broadcast_to(value, (*sizes, *value.shape))
            for path, value in self.problem.start.items()
        }
        values: dict[str, Array] = self.problem.space.values(u, start)
        return values


def _inverse_of_lower(root: HostArray) -> HostArray:
    from scipy.linalg import solve_triangular

    inverse: HostArray = solve_triangular(root, np.eye(len(root)), lower=True)
    return inverse

"""log |K| by stochastic Lanczos quadrature, with the preconditioner's share of it exact.

log |K| = log |P| + tr log(P^-1/2 K P^-1/2), and the trace is the mean of z' log(.) z over white z,
each by the Gauss quadrature of a Lanczos process (Ubaru, Chen and Saad, 2017).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ._conjugate_gradients import lanczos_coefficients
from ._contract import CovarianceOperator
from ._preconditioner import Preconditioner


class Estimate(eqx.Module):
    """A mean over random probes, and its standard error."""

    value: Array
    error: Array


def log_determinant(
    operator: CovarianceOperator,
    preconditioner: Preconditioner,
    key: Array,
    *,
    probes: int = 16,
    steps: int = 40,
) -> Estimate:
    """log |K|, and the standard error that the probes leave. Not differentiable."""
    steps = min(steps, operator.size)
    Z = preconditioner.sample(key, probes)
    diagonal, off, squares = lanczos_coefficients(operator, Z, preconditioner, steps)
    forms = squares * jax.vmap(_log_entry, in_axes=1)(diagonal, off)
    error = jnp.std(forms, ddof=1) / jnp.sqrt(probes) if probes > 1 else jnp.full((), jnp.inf)
    value = preconditioner.log_determinant() + jnp.mean(forms)
    return Estimate(value, error.astype(value.dtype))


def _log_entry(diagonal: Array, off: Array) -> Array:
    """The first entry of log T, of a symmetric tridiagonal T."""
    T = jnp.diag(diagonal) + jnp.diag(off, 1) + jnp.diag(off, -1)
    # Never differentiated: gradients of a likelihood have probes of their own.
    values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(T))
    safe = jnp.maximum(values, jnp.finfo(values.dtype).tiny)
    return jnp.sum(jnp.square(vectors[0]) * jnp.log(safe))

"""Priors on hyperparameters: distributions in natural scale, named by path.

Anything with ``log_prob(value)``, ``support`` and ``sample(key, shape)`` that is a pytree will
do, which NumPyro's distributions are.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import ParameterError
from .._module import Hyperparameter, named_leaves, resolve
from .._parameters import Constraint, Interval, NonNegative, Positive


def resolve_priors(
    module: Any, priors: dict[str, Any] | None, fixed: frozenset[str]
) -> dict[str, Any]:
    """Priors by whole path, checked: `ParameterError` for a name or a support that does not fit."""
    entries = {entry.path: entry for entry in named_leaves(module)}
    resolved: dict[str, Any] = {}
    for name, prior in (priors or {}).items():
        path = resolve(name, list(entries), "hyperparameter")
        if path in resolved:
            raise ParameterError(f"two priors for '{path}'. Fix: name each hyperparameter once.")
        if not hasattr(prior, "log_prob"):
            raise ParameterError(
                f"the prior of '{path}' is {prior!r}, expected a distribution with `log_prob`. "
                "Fix: pass for instance numpyro.distributions.LogNormal(0.0, 1.0)."
            )
        if path not in fixed:
            _check_support(entries[path], prior)
            resolved[path] = prior
    return resolved


def resolve_fixed(module: Any, fixed: Any) -> frozenset[str]:
    """Whole paths of what stays: each name is a path, the end of one, or a part of the tree."""
    paths = [entry.path for entry in named_leaves(module)]
    chosen: set[str] = set()
    for name in (fixed,) if isinstance(fixed, str) else fixed:
        inside = [path for path in paths if path.startswith(name + ".")]
        chosen.update(inside or [resolve(name, paths, "hyperparameter")])
    return frozenset(chosen)


def log_prior(priors: dict[str, Any], values: dict[str, Array]) -> Array:
    """The sum of log densities in natural scale; -inf outside a support."""
    dtype = jnp.result_type(*values.values()) if values else jnp.result_type(float)
    total = jnp.zeros((), dtype)
    for path, prior in priors.items():
        value = values[path]
        inside = jnp.asarray(prior.support(value)) if hasattr(prior, "support") else True
        density = jnp.asarray(prior.log_prob(value)).astype(dtype)
        total = total + jnp.sum(jnp.where(inside, density, -jnp.inf))
    return total


def _check_support(entry: Hyperparameter, prior: Any) -> None:
    support = getattr(prior, "support", None)
    if support is None:
        return
    for outside in _outside(entry.constraint):
        if bool(np.any(np.asarray(support(jnp.asarray(outside))))):
            raise ParameterError(
                f"the prior of '{entry.path}', {type(prior).__name__}, allows {outside:g}, but the "
                f"hyperparameter must be {entry.constraint}. Fix: use a prior whose support fits, "
                f"for instance {_example(entry.constraint)}."
            )


def _outside(constraint: Constraint) -> tuple[float, ...]:
    """Values that the constraint forbids, far and near."""
    if isinstance(constraint, Positive | NonNegative):
        return -1.0, -1e-3, -1e-6
    if isinstance(constraint, Interval):
        lower, upper, width = (
            constraint.lower,
            constraint.upper,
            constraint.upper - constraint.lower,
        )
        return upper + width, lower - width, upper + 1e-3 * width, lower - 1e-3 * width
    return ()


def _example(constraint: Constraint) -> str:
    if isinstance(constraint, Interval):
        return f"Uniform({constraint.lower:g}, {constraint.upper:g})"
    return "LogNormal(0, 1)"

"""Between hyperparameters in natural scale and the free space where they are fitted.

The coordinate u of each free hyperparameter is 0 at its start value, which comes back from u = 0
to the last bit:

=============  ====================================  ==================================
constraint     value                                 range
=============  ====================================  ==================================
positive       start exp(u)                          start 1e-10 ... start 1e10
interval       lower + width logistic(u + u0)        1e-6 of the width from each end
real           start + u                             unbounded
=============  ====================================  ==================================
"""

import dataclasses
from functools import partial, singledispatch
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import ParameterError
from .._module import Hyperparameter, named_leaves
from .._parameters import Constraint, Interval, NonNegative, Positive, Real
from .._typing import HostArray

REACH = float(np.log(1e10))
EDGE = float(np.log(1e6))


@dataclasses.dataclass(frozen=True)
class FreeSpace:
    """Which hyperparameters are free, in which order, and where each of them starts."""

    paths: tuple[str, ...]
    constraints: tuple[Constraint, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        return int(sum(np.prod(shape, dtype=int) for shape in self.shapes))

    def values(self, u: Array, start: dict[str, Array]) -> dict[str, Array]:
        """Natural values, by path, at free coordinates u (k,)."""
        return {
            path: natural(constraint, part, start[path].astype(u.dtype))
            for path, constraint, part in zip(
                self.paths, self.constraints, self._parts(u), strict=True
            )
        }

    def log_jacobian(self, u: Array, start: dict[str, Array], paths: frozenset[str]) -> Array:
        """log |d value / d u|, summed over the hyperparameters named."""
        total = jnp.zeros((), u.dtype)
        for path, constraint, part in zip(
            self.paths, self.constraints, self._parts(u), strict=True
        ):
            if path in paths:
                # Elementwise, so the derivative along ones is that of each.
                there = partial(natural, constraint, start=start[path].astype(u.dtype))
                slope = jax.jvp(there, (part,), (jnp.ones_like(part),))[1]
                total = total + jnp.sum(jnp.log(slope))
        return total

    def at_bounds(self, u: HostArray, start: dict[str, Array]) -> list[str]:
        """What ran into the end of its range, as text."""
        found = []
        for path, constraint, part in zip(
            self.paths, self.constraints, self._parts(u), strict=True
        ):
            for number, at in zip(np.ravel(part), np.ravel(np.asarray(start[path])), strict=True):
                low, high = bounds(constraint, float(at))
                if number <= low + 1e-3 or number >= high - 1e-3:
                    value = float(natural(constraint, jnp.asarray(number), jnp.asarray(at)))
                    edge = float(
                        natural(
                            constraint,
                            jnp.asarray(low if number <= low + 1e-3 else high),
                            jnp.asarray(at),
                        )
                    )
                    found.append(f"'{path}' = {value:.6g} is at the bound {edge:.6g}")
        return found

    def _parts(self, u: Any) -> list[Any]:
        parts, position = [], 0
        for shape in self.shapes:
            size = int(np.prod(shape, dtype=int))
            parts.append(u[position : position + size].reshape(shape))
            position += size
        return parts


def free_space(module: Any, fixed: frozenset[str]) -> tuple[FreeSpace, dict[str, Array]]:
    """The free space of a module whose ``fixed`` paths stay, and the start values by path."""
    free: list[Hyperparameter] = [e for e in named_leaves(module) if e.path not in fixed]
    for entry in free:
        if isinstance(entry.constraint, NonNegative) and not np.all(np.asarray(entry.value)):
            raise ParameterError(
                f"'{entry.path}' is 0 and would be fitted on a logarithmic scale, where it could "
                f"never move. Fix: start from a value > 0, or pass fixed=('{entry.path}',)."
            )
    space = FreeSpace(
        tuple(e.path for e in free),
        tuple(e.constraint for e in free),
        tuple(e.value.shape for e in free),
    )
    return space, {e.path: e.value for e in free}


@singledispatch
def natural(constraint: Constraint, u: Array, start: Array) -> Array:
    """The natural value at free coordinate u, elementwise."""
    raise TypeError(f"no transformation is known for {constraint!r}")


@natural.register
def _(constraint: Positive, u: Array, start: Array) -> Array:
    return start * jnp.exp(jnp.clip(u, -REACH, REACH))


@natural.register
def _(constraint: NonNegative, u: Array, start: Array) -> Array:
    return start * jnp.exp(jnp.clip(u, -REACH, REACH))


@natural.register
def _(constraint: Interval, u: Array, start: Array) -> Array:
    width = constraint.upper - constraint.lower
    fraction = jnp.clip((start - constraint.lower) / width, 1e-6, 1 - 1e-6)
    origin = jnp.log(fraction) - jnp.log1p(-fraction)
    moved = constraint.lower + width * jax.nn.sigmoid(jnp.clip(u + origin, -EDGE, EDGE))
    # At u = 0 the value is the start to the last bit, and the derivative is still the logistic's.
    return jnp.where(u == 0, start + (moved - jax.lax.stop_gradient(moved)), moved)


@natural.register
def _(constraint: Real, u: Array, start: Array) -> Array:
    return start + u


@singledispatch
def coordinate(constraint: Constraint, value: Array, start: Array) -> Array:
    """The free coordinate u where `natural` is ``value``, elementwise: its inverse."""
    raise TypeError(f"no transformation is known for {constraint!r}")


@coordinate.register(Positive)
@coordinate.register(NonNegative)
def _(constraint: Constraint, value: Array, start: Array) -> Array:
    return jnp.clip(jnp.log(value / start), -REACH, REACH)


@coordinate.register
def _(constraint: Interval, value: Array, start: Array) -> Array:
    width = constraint.upper - constraint.lower
    logit = jax.scipy.special.logit
    fraction, origin = (
        jnp.clip((at - constraint.lower) / width, 1e-6, 1 - 1e-6) for at in (value, start)
    )
    return logit(fraction) - logit(origin)


@coordinate.register
def _(constraint: Real, value: Array, start: Array) -> Array:
    return value - start


def bounds(constraint: Constraint, start: float) -> tuple[float, float]:
    """The ends of the search range, in free coordinates."""
    if isinstance(constraint, Positive | NonNegative):
        return -REACH, REACH
    if isinstance(constraint, Interval):
        fraction = (start - constraint.lower) / (constraint.upper - constraint.lower)
        origin = float(np.log(fraction / (1 - fraction)))
        return -EDGE - origin, EDGE - origin
    return -np.inf, np.inf

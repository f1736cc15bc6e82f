"""Between hyperparameters in natural scale and the free space where they are fitted.

The coordinate u of each free hyperparameter is 0 at its start value, which comes back from u = 0
to the last bit:

=============  ====================================  ==================================
constraint     value                                 range
=============  ====================================  ==================================
positive       start exp(u)                          start 1e-10 ... start 1e10
interval       lower + width logistic(u + u0)        1e-6 of the width from each open end
real           start + u                             unbounded
=============  ====================================  ==================================
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial, singledispatch
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import ParameterError
from .._inputs import common_dtype, precision
from .._module import Hyperparameter, named_leaves, with_leaves
from .._parameters import Constraint, Interval, NonNegative, Positive, Real
from .._typing import HostArray
from ._priors import resolve_fixed

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

    def values(self, u: Any, start: dict[str, Array]) -> dict[str, Array]:
        """Natural values, by path, at free coordinates u (..., k)."""
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

    def at_bounds(self, u: HostArray, start: dict[str, Any]) -> list[str]:
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
            parts.append(u[..., position : position + size].reshape((*u.shape[:-1], *shape)))
            position += size
        return parts


def free_space(
    module: Any, fixed: frozenset[str], batch: int = 0
) -> tuple[FreeSpace, dict[str, Array]]:
    """The free space of a module whose ``fixed`` paths stay, and the start values by path.

    ``batch``: how many leading axes of every value belong to elements, of which each has a space.
    """
    free: list[Hyperparameter] = [e for e in named_leaves(module) if e.path not in fixed]
    for entry in free:
        if isinstance(entry.constraint, NonNegative) and not np.all(np.asarray(entry.value)):
            raise ParameterError(
                f"'{entry.path}' is 0 and would be fitted on a logarithmic scale, where it could "
                f"never move. Fix: start from a value > 0, or pass fixed=('{entry.path}',)."
            )
        end = getattr(entry.constraint, "upper", None)
        if np.any(np.asarray(entry.value) == end):  # only a closed end is a value
            raise ParameterError(
                f"'{entry.path}' is {end:g}, the end of its interval, and would "
                "be fitted on a logistic scale, where it could hardly move. "
                f"Fix: start from a smaller value, or pass fixed=('{entry.path}',)."
            )
    space = FreeSpace(
        tuple(e.path for e in free),
        tuple(e.constraint for e in free),
        tuple(e.value.shape[batch:] for e in free),
    )
    return space, {e.path: e.value for e in free}


def unconstrained(
    module: Any, fixed: str | Sequence[str] = ()
) -> tuple[Array, Callable[[Array], Any]]:
    """The hyperparameters of a kernel, mean or process as one vector without constraints::

        u, restore = kernax.unconstrained(kernel)
        restore(u)  # the kernel; any u gives one that is allowed

    For optimisers and samplers of your own: ``u`` (k,) is 0 at the given values, ``restore`` is
    differentiable, and may be called inside `jax.jit`. Positive hyperparameters move on a
    logarithmic scale, those in an interval on a logistic one, others by a shift. ``fixed``: paths,
    or parts of the tree, that stay as they are. Raises `ParameterError` for an unknown path, and
    for a zero that would be free.
    """
    space, start = free_space(module, resolve_fixed(module, fixed))
    dtype = common_dtype(*start.values()) if start else precision()

    def restore(u: Array) -> Any:
        return with_leaves(module, space.values(jnp.asarray(u), start))

    return jnp.zeros(space.size, dtype), restore


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
    width, reach = constraint.upper - constraint.lower, _reach(constraint)
    fraction = _fraction(constraint, start)
    origin = jnp.log(fraction) - jnp.log1p(-fraction)
    moved = constraint.lower + width * jax.nn.sigmoid(jnp.clip(u + origin, -EDGE, EDGE)) / reach
    moved = jnp.minimum(moved, constraint.upper)
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
    logit = jax.scipy.special.logit
    return logit(_fraction(constraint, value)) - logit(_fraction(constraint, start))


@coordinate.register
def _(constraint: Real, value: Array, start: Array) -> Array:
    return value - start


def bounds(constraint: Constraint, start: float) -> tuple[float, float]:
    """The ends of the search range, in free coordinates."""
    if isinstance(constraint, Positive | NonNegative):
        return -REACH, REACH
    if isinstance(constraint, Interval):
        fraction = (start - constraint.lower) / (constraint.upper - constraint.lower)
        fraction *= _reach(constraint)
        origin = float(np.log(fraction / (1 - fraction)))
        return -EDGE - origin, EDGE - origin
    return -np.inf, np.inf


def _reach(constraint: Interval) -> float:
    """The value of the logistic at the upper end, which an open one never comes to."""
    return 1 / (1 + 1e-6) if constraint.closed else 1.0


def _fraction(constraint: Interval, value: Array) -> Array:
    """The value of the logistic at a value of the hyperparameter, kept from 0 and 1."""
    width, reach = constraint.upper - constraint.lower, _reach(constraint)
    highest = reach if constraint.closed else 1 - 1e-6
    return jnp.clip((value - constraint.lower) / width * reach, 1e-6, highest)

"""Operators that integrate over one dimension."""

import functools
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import ParameterError, PrecisionWarning, ShapeError
from .._inputs import as_whole, precision
from .._module import short
from .._parameters import real
from .._typing import HostArray, Parameter
from ._differential import check_dim
from ._operators import Field, LinearOperator, Span, Term

NODES = 40  # Gauss-Legendre nodes on each side of a kink


class Integral(LinearOperator):
    """The integral of a function over one dimension, from ``lower`` to ``upper``.

    (L f)(x) = int_lower^upper f(x_1, .., t, .., x_d) dt,  t in place of x_dim

    Bounds are numbers, or one per row (n,); what the points say in ``dim`` does not matter. For
    kernels of which the integral is known it is evaluated in closed form (`SEKernel` in any
    dimension, half-integer Matern and `CosineKernel` in one, products over dimensions, sums);
    else by Gauss-Legendre quadrature with ``nodes`` on each side of the point, or bound, where the
    kernel may have a kink. That is exact for polynomials, and to 1e-10 of the value where each side
    is no longer than eight length-scales, or periods; for longer ones pass more nodes.

    Raises `ParameterError` for ``lower`` > ``upper``, or bounds that are not finite, and
    `ShapeError` where the points do not have the dimension.
    """

    lower: Parameter = real()
    upper: Parameter = real()
    dim: int = eqx.field(static=True, default=0, converter=lambda value: as_whole(value, "dim"))
    nodes: int = eqx.field(static=True, default=NODES, converter=lambda v: _as_nodes(v))

    def __check_init__(self) -> None:
        lower, upper = self.lower, self.upper
        shapes = {np.shape(lower), np.shape(upper)} - {()}
        if len(shapes) > 1 or any(len(shape) > 1 for shape in shapes):
            raise ShapeError(
                f"`lower` has shape {np.shape(lower)} and `upper` {np.shape(upper)}, expected "
                "numbers, or one per row (n,). Fix: pass as many of both."
            )
        if any(isinstance(bound, jax.core.Tracer) for bound in jax.tree.leaves((lower, upper))):
            return
        low, high = np.asarray(lower, float), np.asarray(upper, float)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ParameterError(
                "the bounds `lower` and `upper` of an integral are not all finite, expected "
                "numbers. Fix: pass bounds far outside of the data instead of infinite ones."
            )
        if (low > high).any():
            place = np.argwhere(np.atleast_1d(low > high))[0, 0]
            pair = (each.reshape(-1)[place] for each in np.broadcast_arrays(low, high))
            raise ParameterError(
                "an integral has `lower` > `upper`: from {:g} to {:g}. Fix: exchange the two, and "
                "take the negative.".format(*pair)
            )
        _warn_of_rounding(low, high)

    @property
    def bounds(self) -> tuple[Array, Array]:
        """Both bounds, of one shape."""
        lower, upper = jnp.broadcast_arrays(self.lower, self.upper)
        return lower, upper

    def at(self, f: Field, x: Array, kinks: Array) -> Array:
        lower, upper = (bound.astype(x.dtype) for bound in self.bounds)
        inside = jnp.sort(jnp.clip(kinks[:, self.dim], lower, upper))
        edges = jnp.concatenate([lower[None], inside, upper[None]])
        nodes, weights = (jnp.asarray(a, x.dtype) for a in _unit_rule(self.nodes))
        lengths = jnp.diff(edges)
        places = edges[:-1, None] + lengths[:, None] * nodes[None, :]
        shares = lengths[:, None] * weights[None, :]
        values = jax.vmap(lambda t: f(x.at[self.dim].set(t)))(places.reshape(-1))
        return jnp.sum(shares.reshape(-1, 1) * values, axis=0)

    def components(self, d: int) -> int:
        check_dim(self.dim, d, self)
        return 1

    def terms(self, d: int) -> tuple[tuple[Term, ...], ...]:
        check_dim(self.dim, d, self)
        acts: list[Any] = [0] * d
        acts[self.dim] = Span(*self.bounds)
        return ((Term((), tuple(acts)),),)

    def row(self, i: Any) -> LinearOperator:
        pick = lambda bound: bound[i] if bound.ndim else bound
        return self.changed(lower=pick(self.lower), upper=pick(self.upper))

    def own_rows(self) -> tuple[int, ...]:
        return tuple({len(bound) for bound in (self.lower, self.upper) if bound.ndim})

    def support(self, x: Array) -> Array:
        return jnp.stack([x.at[self.dim].set(bound.astype(x.dtype)) for bound in self.bounds])

    def moved(self, offset: Array) -> LinearOperator:
        own = offset[self.dim]
        return self.changed(lower=self.lower - own, upper=self.upper - own)

    @property
    def cost(self) -> int:
        return 3 * self.nodes

    @property
    def invariant(self) -> bool:
        return False

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}({short(self.lower)}, {short(self.upper)}, dim={self.dim})"


class Average(Integral):
    """The mean of a function over a stretch of one dimension, such as an exposure.

    (L f)(x) = 1 / (upper - lower) int_lower^upper f(x_1, .., t, .., x_d) dt

    As `Integral`, and ``lower`` = ``upper`` is a `ParameterError`: use `Identity` there.
    """

    def __check_init__(self) -> None:
        Integral.__check_init__(self)
        if any(isinstance(bound, jax.core.Tracer) for bound in (self.lower, self.upper)):
            return
        if (np.asarray(self.lower) >= np.asarray(self.upper)).any():
            raise ParameterError(
                "an average has `lower` = `upper`, a stretch of no length. Fix: use Identity() "
                "for values at points."
            )

    def at(self, f: Field, x: Array, kinks: Array) -> Array:
        lower, upper = (bound.astype(x.dtype) for bound in self.bounds)
        return super().at(f, x, kinks) / (upper - lower)

    def terms(self, d: int) -> tuple[tuple[Term, ...], ...]:
        lower, upper = self.bounds
        whole = super().terms(d)[0][0]
        return ((whole._replace(factors=(1.0 / (upper - lower),)),),)


def _warn_of_rounding(low: HostArray, high: HostArray) -> None:
    """A `PrecisionWarning` where 32 bits change a stretch by a thousandth of its length."""
    if precision() == np.float64:
        return
    rounded = high.astype(np.float32).astype(float) - low.astype(np.float32).astype(float)
    if (np.abs(rounded - (high - low)) > 1e-3 * (high - low)).any():
        warnings.warn(
            "the bounds of an integral lie so close together, or so far from 0, that 32 bits "
            "change the stretch between them by more than a thousandth. Fix: shift points and "
            "bounds towards 0, or enable x64.",
            PrecisionWarning,
            stacklevel=4,
        )


@functools.cache
def _unit_rule(nodes: int) -> tuple[HostArray, HostArray]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    t, w = np.polynomial.legendre.leggauss(nodes)
    return 0.5 * (t + 1.0), 0.5 * w


def _as_nodes(value: Any) -> int:
    nodes = as_whole(value, "nodes")
    if nodes < 1:
        raise ParameterError(f"`nodes` is {nodes}, expected at least 1. Fix: leave it out for 40.")
    return nodes

"""Derivatives of kernels for all pairs at once: values that carry their derivatives with them.

A `Jet` is a function of the two points of a pair: its value, its derivatives in one or two slots,
each of which is one of the two points, and the mixed second one. Sums, products and powers of
jets follow the rules of calculus, so the rule by which a composite combines the values of its
parts combines their derivatives too. A stationary kernel is its profile, differentiated as a
function of one number, of the jet of a squared distance: one pass over the pairs, no Jacobian of a
Jacobian. A kernel of which no rule is known is differentiated by JAX, pair by pair.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._module import field_values
from ._base import AbstractKernel, ScaledInputsKernel
from ._compose import NegKernel, PowerKernel, ProductKernel, SumKernel
from ._dot_product import LinearKernel, PolynomialKernel
from ._elementary import ConstantKernel, WhiteNoiseKernel
from ._pairs import check_per_dimension, check_single
from ._periodic import PeriodicKernel, remainder
from ._rules import Rules
from ._stationary import StationaryKernel
from ._tie import TiedKernel
from ._transforms import ActiveDimsKernel, ARDKernel
from ._wendland import WendlandKernel

RULES = Rules("jet")


class Grid(NamedTuple):
    """All pairs of two sets of points, and the axes that a result is to have.

    ``axes``: letters, n and m for the points, A and B for the dimensions along which the slots
    differentiate; without m the pairs are those of each row of X with its row of Y. ``slots``: the
    argument, 0 or 1, that each slot stands for.
    """

    X: Array
    Y: Array
    axes: str
    slots: tuple[int, ...]

    def place(self, values: Array, letters: str) -> Array:
        """An array whose axes are ``letters``, with the axes of the result."""
        letters = letters if "m" in self.axes else letters.replace("m", "n")
        order = sorted(range(len(letters)), key=lambda i: self.axes.index(letters[i]))
        missing = [i for i, letter in enumerate(self.axes) if letter not in letters]
        return jnp.expand_dims(jnp.transpose(values, order), missing)

    def points(self, argument: int, letters: str) -> Array:
        """The coordinates of one argument along a slot, or with no letter a list of them."""
        values = (self.X, self.Y)[argument]
        return self.place(values, "nm"[argument] + letters)

    def coordinates(self, j: int) -> tuple[Array, Array]:
        """Coordinate number j of both points of each pair."""
        return self.place(self.X[:, j], "n"), self.place(self.Y[:, j], "m")

    def difference(self, letter: str) -> Array:
        """x - y along a slot."""
        return self.points(0, letter) - self.points(1, letter)

    def total(self, term: Callable[[int], Array]) -> Array:
        """A sum over the dimensions, written out."""
        result = term(0)
        for j in range(1, self.X.shape[1]):
            result = result + term(j)
        return result

    def same(self, values: Array) -> Array:
        """One value per dimension, where both slots are along the same one."""
        return self.place(jnp.diag(values), "AB")


class Jet(NamedTuple):
    """A value per pair, and its derivatives in slot A, in slot B, and in both.

    None stands for 0, or for a derivative that nobody asked for.
    """

    value: Array
    a: Any = None
    b: Any = None
    ab: Any = None

    def __add__(self, other: "Jet") -> "Jet":  # type: ignore[override]
        u, v = self, other
        return Jet(u.value + v.value, _plus(u.a, v.a), _plus(u.b, v.b), _plus(u.ab, v.ab))

    def __neg__(self) -> "Jet":
        minus = lambda part: None if part is None else -part
        return Jet(-self.value, minus(self.a), minus(self.b), minus(self.ab))

    def __mul__(self, other: "Jet") -> "Jet":  # type: ignore[override]
        u, v = self, other
        crossed = _plus(_times(u.a, v.b), _times(v.a, u.b))
        return Jet(
            u.value * v.value,
            _plus(_times(u.value, v.a), _times(v.value, u.a)),
            _plus(_times(u.value, v.b), _times(v.value, u.b)),
            _plus(_plus(_times(u.value, v.ab), _times(v.value, u.ab)), crossed),
        )

    def __pow__(self, exponent: int) -> "Jet":
        return self.through(lambda t: t**exponent)

    def through(self, function: Callable[[Array], Array]) -> "Jet":
        """A function of one number, of this."""
        order = 0 if self.a is None else 1 if self.b is None else 2
        value, *slopes = derivatives(function, self.value, order)
        if order == 0:
            return Jet(value)
        a = slopes[0] * self.a
        if order == 1:
            return Jet(value, a)
        # Far apart a slope is 0 where a product of two differences would be infinite.
        ab = _plus((slopes[1] * self.a) * self.b, _times(slopes[0], self.ab))
        return Jet(value, a, slopes[0] * self.b, ab)


def derivatives(function: Callable[[Array], Array], t: Array, order: int) -> tuple[Array, ...]:
    """A function of one number and its derivatives up to an order, elementwise."""
    if order == 0:
        return (function(t),)
    lower = lambda t: derivatives(function, t, order - 1)
    values, slopes = jax.jvp(lower, (t,), (jnp.ones_like(t),))
    return (*values, slopes[-1])


def jet(kernel: AbstractKernel, grid: Grid) -> Jet:
    """The kernel on the pairs of a grid, with its derivatives in the slots."""
    rule = radial if is_radial(kernel) else RULES.find(kernel) or _by_autodiff
    found: Jet = rule(kernel, grid)  # type: ignore[arg-type]
    return found


def _plus(u: Any, v: Any) -> Any:
    return v if u is None else u if v is None else u + v


def _times(u: Any, v: Any) -> Any:
    return None if u is None or v is None else u * v


# --- rules -------------------------------------------------------------------------------------


@RULES.of(SumKernel, ProductKernel, NegKernel, PowerKernel, ARDKernel, TiedKernel)
def _composite(kernel: Any, grid: Grid) -> Jet:
    found: Any = kernel.compose(lambda part, *_: jet(part, grid), grid.X, grid.Y)
    return found


@RULES.of(ActiveDimsKernel)
def _active(kernel: ActiveDimsKernel, grid: Grid) -> Jet:
    d = grid.X.shape[1]
    kernel.check(d)
    inner = jet(
        kernel.inner_kernel, grid._replace(X=kernel.chosen(grid.X), Y=kernel.chosen(grid.Y))
    )
    places = {dim % d: own for own, dim in enumerate(kernel.active_dims)}
    index = np.asarray([places.get(j, len(places)) for j in range(d)])

    def widened(part: Any, letters: str) -> Any:
        # Inactive dimensions take the zeros behind the last active one.
        for letter in "" if part is None else letters:
            axis = grid.axes.index(letter)
            width = [(0, int(i == axis)) for i in range(part.ndim)]
            part = jnp.take(jnp.pad(part, width), index, axis=axis)
        return part

    return Jet(inner.value, widened(inner.a, "A"), widened(inner.b, "B"), widened(inner.ab, "AB"))


@RULES.of(ScaledInputsKernel)
def _scaled(kernel: ScaledInputsKernel, grid: Grid) -> Jet:
    inverse = 1.0 / kernel.scales
    own = grid._replace(X=grid.X * inverse[None, :], Y=grid.Y * inverse[None, :])
    inner = jet(kernel.inner_kernel, own)
    factor = lambda letter: grid.place(inverse, letter) if letter in grid.axes else None
    a, b = factor("A"), factor("B")
    return Jet(inner.value, _times(inner.a, a), _times(inner.b, b), _times(_times(inner.ab, a), b))


@RULES.of(ConstantKernel, WhiteNoiseKernel)
def _constant(kernel: Any, grid: Grid) -> Jet:
    check_single(**field_values(kernel))
    value = kernel.value if isinstance(kernel, ConstantKernel) else jnp.zeros_like(kernel.variance)
    return Jet(jnp.reshape(value, (1,) * len(grid.axes)))


@RULES.of(LinearKernel)
def _linear(kernel: LinearKernel, grid: Grid) -> Jet:
    check_single(variance=kernel.variance)
    check_per_dimension(kernel.offset, grid.X.shape[1], "offset")
    offset = jnp.broadcast_to(kernel.offset, (1, grid.X.shape[1]))
    centred = grid._replace(X=grid.X - offset, Y=grid.Y - offset)
    return Jet(kernel.variance) * _inner_product(centred)


@RULES.of(PolynomialKernel)
def _polynomial(kernel: PolynomialKernel, grid: Grid) -> Jet:
    check_single(gamma=kernel.gamma, constant=kernel.constant)
    base = Jet(kernel.gamma) * _inner_product(grid) + Jet(kernel.constant)
    return base**kernel.degree


@RULES.of(PeriodicKernel)
def _periodic(kernel: PeriodicKernel, grid: Grid) -> Jet:
    d = grid.X.shape[1]
    for name in ("length_scale", "period"):
        check_per_dimension(getattr(kernel, name), d, name)
    weight = jnp.broadcast_to(1.0 / jnp.square(kernel.length_scale), (d,))
    period = jnp.broadcast_to(kernel.period, (d,))
    near = grid._replace(X=remainder(grid.X, period[None]), Y=remainder(grid.Y, period[None]))

    def angle(difference: Array, period: Array) -> Array:
        return 2.0 * jnp.pi * ((difference - period * jnp.round(difference / period)) / period)

    def term(j: int) -> Array:
        x, y = near.coordinates(j)
        return jnp.square(jnp.sin(0.5 * angle(x - y, period[j]))) * weight[j]

    def turned(letter: str, wave: Callable[[Array], Array], power: int) -> Array:
        """The derivative of a term along a slot, by sine of the full angle, or by its cosine."""
        periods = near.place(period, letter)
        factor = near.place(weight * (jnp.pi / period) ** power * power, letter)
        return factor * wave(angle(near.difference(letter), periods))

    first = lambda letter, argument: (1 - 2 * argument) * turned(letter, jnp.sin, 1)
    second = lambda: _signs(grid) * grid.same(jnp.ones_like(period)) * turned("A", jnp.cos, 2)
    return _assembled(grid, grid.total(term), first, second).through(lambda s: jnp.exp(-2.0 * s))


@RULES.of(WendlandKernel)
def _wendland(kernel: WendlandKernel, grid: Grid) -> Jet:
    return radial(kernel.in_dimension(grid.X.shape[1]), grid)


def radial(kernel: StationaryKernel, grid: Grid) -> Jet:
    """A profile of the scaled squared distance: differentiated as a function of one number."""
    d = grid.X.shape[1]
    check_per_dimension(kernel.length_scale, d, "length_scale")
    inverse = jnp.broadcast_to(1.0 / kernel.length_scale, (d,))

    def term(j: int) -> Array:
        x, y = grid.coordinates(j)
        return jnp.square((x - y) * inverse[j])

    def first(letter: str, argument: int) -> Array:
        scale = grid.place(inverse, letter)
        return (2.0 - 4.0 * argument) * (grid.difference(letter) * scale) * scale

    largest = jnp.asarray(jnp.finfo(inverse.dtype).max / 8, inverse.dtype)
    s = jnp.minimum(grid.total(term), largest)
    second = lambda: 2.0 * _signs(grid) * grid.same(jnp.square(inverse))
    return _assembled(grid, s, first, second).through(kernel.profile)


def is_radial(kernel: AbstractKernel) -> bool:
    """Whether the formula is the profile of a stationary kernel, and nothing else."""
    plain = type(kernel).pairwise is StationaryKernel.pairwise
    return isinstance(kernel, StationaryKernel) and plain


def _inner_product(grid: Grid) -> Jet:
    """x . y: the derivative in one point is the other one."""

    def term(j: int) -> Array:
        x, y = grid.coordinates(j)
        return x * y

    different = grid.slots in ((0, 1), (1, 0))
    first = lambda letter, argument: grid.points(1 - argument, letter)
    second = lambda: grid.same(jnp.ones_like(grid.X[0])) if different else None
    return _assembled(grid, grid.total(term), first, second)


def _assembled(grid: Grid, value: Array, first: Any, second: Any) -> Jet:
    slopes = [first(letter, a) for letter, a in zip("AB", grid.slots, strict=False)]
    return Jet(value, *slopes, *([second()] if len(slopes) == 2 else ()))


def _signs(grid: Grid) -> float:
    """1 where both slots are the same point, else -1: of a function of x - y."""
    return 1.0 if grid.slots[0] == grid.slots[1] else -1.0


def _by_autodiff(kernel: AbstractKernel, grid: Grid) -> Jet:
    """Derivatives of the formula by JAX, pair by pair."""

    def over_pairs(function: Any, letters: str) -> Array:
        if "m" not in grid.axes:
            return grid.place(jax.vmap(function)(grid.X, grid.Y), "n" + letters)
        row = lambda x: jax.vmap(lambda y: function(x, y))(grid.Y)
        return grid.place(jax.vmap(row)(grid.X), "nm" + letters)

    slopes = [jax.grad(kernel.pairwise, argnums=argument) for argument in grid.slots]
    parts = [over_pairs(slope, letter) for slope, letter in zip(slopes, "AB", strict=False)]
    if len(slopes) == 2:
        parts.append(over_pairs(jax.jacfwd(slopes[0], argnums=grid.slots[1]), "AB"))
    return Jet(over_pairs(kernel.pairwise, ""), *parts)

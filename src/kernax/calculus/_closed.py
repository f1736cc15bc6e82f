"""Integrals of kernels in closed form.

Along one dimension a stationary kernel k(x - y) has a ladder: its derivatives above, and below
its first and second antiderivatives F_1 and F_2. An integral in one argument is a difference of
two values one step down, in both arguments a second difference two steps down. Squared exponentials
are products over the dimensions; the others have a closed form where they read one dimension.

The antiderivatives are written with tails, integrals from r to infinity, whose differences lose
no digits far apart: with T_1 and T_2 the first and second tail and C = T_1(0),
F_1(t) = sign(t) (C - T_1(|t|)) and F_2(t) = C |t| + T_2(|t|). Differences over stretches short
beside the length-scale would cancel, and are taken by Gauss-Legendre quadrature instead.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..kernels import (
    AbstractKernel,
    ActiveDimsKernel,
    ARDKernel,
    ConstantKernel,
    CosineKernel,
    Matern12Kernel,
    Matern32Kernel,
    Matern52Kernel,
    MaternKernel,
    NegKernel,
    ProductKernel,
    SEKernel,
    SumKernel,
    TiedKernel,
    WhiteNoiseKernel,
)
from ..kernels._jets import derivatives
from ..kernels._pairs import check_per_dimension, check_single
from ..kernels._periodic import remainder
from ..kernels._rules import Rules
from ._operators import Span
from ._partials import Pairs, Unknown, partials

RULES = Rules("integrals")
SHORT = 0.25  # in length-scales: below, quadrature of 6 nodes has all digits
NODES = 6


class Ladder(NamedTuple):
    """A stationary kernel of one dimension: a function of t = (x - y) / unit."""

    unit: Array
    value: Callable[[Array], Array]
    tail: Callable[[Array], Array]  # its integral from t >= 0 to infinity
    second: Callable[[Array], Array]  # the integral of that
    whole: Array | float  # tail(0)


Acts = tuple[Any, ...]


def integrals(kernel: AbstractKernel, pairs: Pairs, left: Acts, right: Acts) -> Array:
    """What ``left`` makes of x and ``right`` of y: for each dimension an order, or a `Span`.

    Raises `Unknown` where no closed form is known.
    """
    if not any(isinstance(act, Span) for act in (*left, *right)):
        key = (left, right)
        return partials(kernel, pairs, frozenset([key])).get(key, _zero(pairs))
    rule = RULES.find(kernel)
    if rule is None:
        raise Unknown
    found: Array = rule(kernel, pairs, left, right)
    return found


# --- composites --------------------------------------------------------------------------------


@RULES.of(SumKernel)
def _sum(kernel: SumKernel, pairs: Pairs, left: Acts, right: Acts) -> Array:
    return integrals(kernel.left_kernel, pairs, left, right) + integrals(
        kernel.right_kernel, pairs, left, right
    )


@RULES.of(NegKernel)
def _negative(kernel: NegKernel, pairs: Pairs, left: Acts, right: Acts) -> Array:
    return -integrals(kernel.inner_kernel, pairs, left, right)


@RULES.of(ARDKernel, TiedKernel)
def _through(kernel: Any, pairs: Pairs, left: Acts, right: Acts) -> Array:
    inner = lambda part, *_: integrals(part, pairs, left, right)
    found: Array = kernel.compose(inner, pairs.X, pairs.Y)
    return found


@RULES.of(ProductKernel)
def _product(kernel: ProductKernel, pairs: Pairs, left: Acts, right: Acts) -> Array:
    """A product of functions of different dimensions: each dimension is acted on in its own."""
    d = pairs.dimension
    parts = (kernel.left_kernel, kernel.right_kernel)
    first, second = (_read(part, d) for part in parts)
    if first & second:
        raise Unknown
    # What neither reads is acted on once.
    first = first | (frozenset(range(d)) - second)
    results = []
    for part, own in zip(parts, (first, second), strict=True):
        mine = [tuple(a if j in own else 0 for j, a in enumerate(acts)) for acts in (left, right)]
        results.append(integrals(part, pairs, mine[0], mine[1]))
    return results[0] * results[1]


def _read(kernel: AbstractKernel, d: int) -> frozenset[int]:
    """The dimensions that a kernel reads, as far as is known."""
    if isinstance(kernel, ConstantKernel):
        return frozenset()
    if isinstance(kernel, ActiveDimsKernel):
        kernel.check(d)
        inner = _read(kernel.inner_kernel, len(kernel.active_dims))
        return frozenset(kernel.active_dims[j] % d for j in inner)
    if isinstance(kernel, ProductKernel | SumKernel):
        return _read(kernel.left_kernel, d) | _read(kernel.right_kernel, d)
    return frozenset(range(d))


@RULES.of(ActiveDimsKernel)
def _active(kernel: ActiveDimsKernel, pairs: Pairs, left: Acts, right: Acts) -> Array:
    d = pairs.dimension
    kernel.check(d)
    dims = [dim % d for dim in kernel.active_dims]
    factor: Any = 1.0
    for acts, place in ((left, pairs.rows), (right, pairs.columns)):
        for j in set(range(d)) - set(dims):
            factor = factor * _of_constant(acts[j], place)
    chosen = pairs._replace(X=kernel.chosen(pairs.X), Y=kernel.chosen(pairs.Y))
    own = [tuple(acts[j] for j in dims) for acts in (left, right)]
    return factor * integrals(kernel.inner_kernel, chosen, own[0], own[1])


@RULES.of(ConstantKernel, WhiteNoiseKernel)
def _constant(kernel: Any, pairs: Pairs, left: Acts, right: Acts) -> Array:
    if isinstance(kernel, WhiteNoiseKernel):
        return _zero(pairs)
    check_single(value=kernel.value)
    factors = [_of_constant(act, pairs.rows) for act in left]
    factors += [_of_constant(act, pairs.columns) for act in right]
    return functools.reduce(jnp.multiply, factors, kernel.value)


def _of_constant(act: Any, place: Callable[[Array], Array]) -> Any:
    """What an act makes of the function 1: a length, 0 for a derivative."""
    if isinstance(act, Span):
        return place(act.upper - act.lower)
    return 0.0 if act else 1.0


# --- ladders -----------------------------------------------------------------------------------


@RULES.of(SEKernel)
def _squared_exponential(kernel: SEKernel, pairs: Pairs, left: Acts, right: Acts) -> Array:
    d = pairs.dimension
    check_per_dimension(kernel.length_scale, d, "length_scale")
    scale = jnp.broadcast_to(kernel.length_scale, (d,))
    root = math.sqrt(math.pi / 2)

    def tail(t: Array) -> Array:
        return root * jax.lax.erfc(t * math.sqrt(0.5))

    bell = lambda t: jnp.exp(-0.5 * jnp.square(t))
    second = lambda t: jnp.maximum(bell(t) - t * tail(t), 0.0)
    factors = [
        _along(Ladder(scale[j], bell, tail, second, root), pairs, j, left[j], right[j])
        for j in range(d)
    ]
    return functools.reduce(jnp.multiply, factors)


@RULES.of(Matern12Kernel, Matern32Kernel, Matern52Kernel, MaternKernel)
def _matern(kernel: Any, pairs: Pairs, left: Acts, right: Acts) -> Array:
    if pairs.dimension > 1:
        raise Unknown
    check_per_dimension(kernel.length_scale, 1, "length_scale")
    p = round(kernel.differentiability)
    unit = jnp.reshape(kernel.length_scale, ()) / math.sqrt(2 * p + 1)
    # exp(t) times the kernel and its tails, as polynomials of t: all coefficients are positive.
    value = _matern_coefficients(p)
    tail = _tail(value)
    second = _tail(tail)
    of = lambda coefficients: lambda t: _polynomial(coefficients, t) * jnp.exp(-t)
    profile = lambda t: kernel.profile(jnp.square(t) / (2 * p + 1))
    ladder = Ladder(unit, profile, of(tail), of(second), tail[0])
    return _along(ladder, pairs, 0, left[0], right[0])


def _matern_coefficients(p: int) -> tuple[float, ...]:
    """exp(t) times the Matern kernel of smoothness p + 1/2, from its recursion."""
    previous, current = [1.0], ([1.0] if p == 0 else [1.0, 1.0])
    for q in range(2, p + 1):
        step = [0.0, 0.0, *(c / ((2 * q - 1) * (2 * q - 3)) for c in previous)]
        longer = [*current, *[0.0] * (len(step) - len(current))]
        previous, current = current, [a + b for a, b in zip(longer, step, strict=True)]
    return tuple(current)


def _tail(coefficients: tuple[float, ...]) -> tuple[float, ...]:
    """exp(t) int_t^inf q(u) exp(-u) du: the sum of q and all its derivatives."""
    total = [0.0] * len(coefficients)
    slope = list(coefficients)
    while slope:
        total[: len(slope)] = [a + b for a, b in zip(total, slope, strict=False)]
        slope = [n * c for n, c in enumerate(slope)][1:]
    return tuple(total)


def _polynomial(coefficients: tuple[float, ...], t: Array) -> Array:
    value = jnp.full_like(t, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        value = value * t + c
    return value


@RULES.of(CosineKernel)
def _cosine(kernel: CosineKernel, pairs: Pairs, left: Acts, right: Acts) -> Array:
    if pairs.dimension > 1:
        raise Unknown
    check_per_dimension(kernel.period, 1, "period")
    unit = jnp.reshape(kernel.period, ()) / (2.0 * math.pi)
    # Differences of sines and cosines, as products: an integral turns the middle of its stretch.
    factor, places = jnp.ones((), unit.dtype), []
    for act, place, points in ((left[0], pairs.rows, pairs.X), (right[0], pairs.columns, pairs.Y)):
        if isinstance(act, Span):
            factor = factor * place(2.0 * unit * jnp.sin((act.upper - act.lower) / (2.0 * unit)))
            places.append(place(act.lower + 0.5 * (act.upper - act.lower)))
        else:
            places.append(place(points[:, 0]))
    order, sign = 0, 1.0
    for act, each in ((left[0], 1.0), (right[0], -1.0)):
        if not isinstance(act, Span):
            order, sign = order + act, sign * each**act
    angle = remainder(places[0] - places[1], jnp.reshape(kernel.period, ())) / unit
    wave = (jnp.cos(angle), -jnp.sin(angle), -jnp.cos(angle), jnp.sin(angle))[order % 4]
    return sign * factor * wave / unit**order


def _along(ladder: Ladder, pairs: Pairs, j: int, left: Any, right: Any) -> Array:
    """What both acts make of a ladder along dimension j."""
    x, y = pairs.coordinates(j)
    if not isinstance(left, Span) and not isinstance(right, Span):
        return _step(ladder, left + right, x - y) * (-1.0 if right % 2 else 1.0)
    if not isinstance(left, Span):
        ends = [pairs.columns(bound) for bound in right]
        return _single(ladder, left, x - ends[0], x - ends[1], (ends[1] - ends[0]))
    if not isinstance(right, Span):
        ends = [pairs.rows(bound) for bound in left]
        value = _single(ladder, right, ends[1] - y, ends[0] - y, ends[1] - ends[0])
        return value * (-1.0 if right % 2 else 1.0)
    return _double(ladder, [pairs.rows(b) for b in left], [pairs.columns(b) for b in right])


def _step(ladder: Ladder, order: int, t: Array) -> Array:
    """The derivative of an order >= 0 of the kernel at a difference."""
    return derivatives(ladder.value, t / ladder.unit, order)[-1] / ladder.unit**order


def _single(ladder: Ladder, order: int, high: Array, low: Array, length: Array) -> Array:
    """d^order of the integral over differences from ``low`` to ``high``."""
    if order:
        return _step(ladder, order - 1, high) - _step(ladder, order - 1, low)
    b, a, stretch = high / ladder.unit, low / ladder.unit, length / ladder.unit

    def closed() -> Array:
        tails = [jnp.sign(t) * ladder.tail(jnp.abs(t)) for t in (a, b)]
        return ladder.whole * (jnp.sign(b) - jnp.sign(a)) + (tails[0] - tails[1])

    weight = lambda t: jnp.ones_like(t)
    return ladder.unit * _unless_short(ladder, closed, stretch, [a, b], weight)


def _double(ladder: Ladder, left: list[Array], right: list[Array]) -> Array:
    """The integral over both arguments: a second difference."""
    (a, b), (c, e) = ([bound / ladder.unit for bound in bounds] for bounds in (left, right))

    def overlap(t: Array) -> Array:
        """How much of the left stretch the right one covers, moved by t: t has this weight."""
        return jnp.maximum(jnp.minimum(b, e + t) - jnp.maximum(a, c + t), 0.0)

    def closed() -> Array:
        tails = [ladder.second(jnp.abs(t)) for t in (b - c, a - e, a - c, b - e)]
        linear = 2.0 * ladder.whole * overlap(jnp.zeros_like(b - c))
        return linear + ((tails[0] - tails[2]) + (tails[1] - tails[3]))

    inner = [jnp.minimum(a - c, b - e), jnp.maximum(a - c, b - e)]
    knots = [a - e, *inner, b - c]
    stretch = jnp.maximum(b - a, e - c)
    return jnp.square(ladder.unit) * _unless_short(ladder, closed, stretch, knots, overlap)


def _unless_short(
    ladder: Ladder,
    closed: Callable[[], Array],
    stretch: Array,
    knots: list[Array],
    weight: Callable[[Array], Array],
) -> Array:
    """The closed form; where a stretch is short, the integral of kernel times weight by panels.

    The panels end at the knots, and at 0, where the kernel may have a kink.
    """
    nodes, weights = np.polynomial.legendre.leggauss(NODES)

    def by_panels() -> Array:
        kink = jnp.clip(0.0, knots[0], knots[-1])
        edges = [knots[0], *(jnp.minimum(t, kink) for t in knots[1:])]
        edges += [jnp.maximum(t, kink) for t in knots]
        total = jnp.zeros((), stretch.dtype)
        shares = jnp.asarray(weights, stretch.dtype)
        for low, high in itertools.pairwise(edges):
            middle, half = 0.5 * (low + high), 0.5 * (high - low)
            at = lambda node, t=middle, h=half: ladder.value(t + node * h) * weight(t + node * h)
            values = jax.vmap(at)(jnp.asarray(nodes, half.dtype))
            total = total + half * jnp.tensordot(shares, values, axes=1, precision="highest")
        return total

    short = stretch < SHORT
    mixed = lambda: jnp.where(short, by_panels(), closed())
    found: Array = jax.lax.cond(jnp.any(short), mixed, closed)
    return found


def _zero(pairs: Pairs) -> Array:
    return jnp.zeros((), pairs.X.dtype)

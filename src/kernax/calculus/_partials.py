"""Partial derivatives of any order of a kernel, in symbols where its class has a rule.

A table holds a matrix for each pair of orders (of derivatives in each dimension of x, and of y);
what is missing is 0. Sums of kernels add their tables, products follow Leibniz' rule. A stationary
kernel needs one matrix for each sum of the two orders, from the derivatives of its profile in the
squared distance.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..kernels import (
    AbstractKernel,
    ActiveDimsKernel,
    ARDKernel,
    ConstantKernel,
    CosineKernel,
    LinearKernel,
    NegKernel,
    PeriodicKernel,
    PowerKernel,
    ProductKernel,
    SEKernel,
    SumKernel,
    TiedKernel,
    WendlandKernel,
    WhiteNoiseKernel,
)
from ..kernels._cycles import fraction
from ..kernels._jets import derivatives, is_radial
from ..kernels._pairs import check_per_dimension, check_single
from ..kernels._periodic import remainder
from ..kernels._rules import Rules
from ..kernels._spectral_mixture import phase

RULES = Rules("partials")

Orders = tuple[int, ...]
Key = tuple[Orders, Orders]


class Pairs(NamedTuple):
    """Pairs of points: all those of two sets, or each row of X with its row of Y."""

    X: Array
    Y: Array
    crossed: bool

    @property
    def dimension(self) -> int:
        """That of the points."""
        return int(self.X.shape[1])

    def coordinates(self, j: int) -> tuple[Array, Array]:
        """Coordinate number j of both points, to be broadcast against each other."""
        return self.rows(self.X[:, j]), self.columns(self.Y[:, j])

    def rows(self, values: Array) -> Array:
        """One value per point of X, as pairs want it; one number as it is."""
        return values[:, None] if self.crossed and values.ndim else values

    def columns(self, values: Array) -> Array:
        """One value per point of Y, as pairs want it; one number as it is."""
        return values[None, :] if self.crossed and values.ndim else values

    def map(self, function: Callable[[Any, Any], Array]) -> Array:
        """``function(i, j)`` of the numbers of both points of each pair."""
        n, m = jnp.arange(len(self.X)), jnp.arange(len(self.Y))
        if not self.crossed:
            return jax.vmap(function)(n, m)
        return jax.vmap(lambda i: jax.vmap(lambda j: function(i, j))(m))(n)


class Unknown(Exception):  # noqa: N818  (never seen by a user)
    """No rule is known for a kernel."""


Table = dict[Key, Array]


def partials(kernel: AbstractKernel, pairs: Pairs, wanted: frozenset[Key]) -> Table:
    """d^alpha_x d^beta_y k for each of the keys (alpha, beta); 0 where one is missing.

    Raises `Unknown` where there is a part without a rule.
    """
    if not wanted:  # of a part that reads none of the dimensions
        return {}
    rule = RULES.find(kernel) or (_radial if is_radial(kernel) else None)
    if rule is None:
        raise Unknown
    found: Table = rule(kernel, pairs, wanted)
    return found


# --- rules -------------------------------------------------------------------------------------


@RULES.of(SumKernel)
def _sum_of(kernel: SumKernel, pairs: Pairs, wanted: frozenset[Key]) -> Table:
    result = dict(partials(kernel.left_kernel, pairs, wanted))
    for key, value in partials(kernel.right_kernel, pairs, wanted).items():
        result[key] = result[key] + value if key in result else value
    return result


@RULES.of(NegKernel)
def _negative(kernel: NegKernel, pairs: Pairs, wanted: frozenset[Key]) -> Table:
    return {key: -value for key, value in partials(kernel.inner_kernel, pairs, wanted).items()}


@RULES.of(ProductKernel)
def _product_of(kernel: ProductKernel, pairs: Pairs, wanted: frozenset[Key]) -> Table:
    left, right = kernel.left_kernel, kernel.right_kernel
    for constant, other in ((left, right), (right, left)):
        if isinstance(constant, ConstantKernel):
            check_single(value=constant.value)
            found = partials(other, pairs, wanted)
            return {key: constant.value * value for key, value in found.items()}
    below = frozenset(share for key in wanted for share, _, _ in _splits(key))
    return _leibniz(partials(left, pairs, below), partials(right, pairs, below), wanted)


@RULES.of(PowerKernel)
def _power_of(kernel: PowerKernel, pairs: Pairs, wanted: frozenset[Key]) -> Table:
    below = frozenset(share for key in wanted for share, _, _ in _splits(key))
    base = partials(kernel.inner_kernel, pairs, below)
    result = base
    for _ in range(kernel.exponent - 1):
        result = _leibniz(result, base, below)
    return {key: value for key, value in result.items() if key in wanted}


@RULES.of(ARDKernel, TiedKernel)
def _through(kernel: Any, pairs: Pairs, wanted: frozenset[Key]) -> Table:
    inner = lambda part, *_: partials(part, pairs, wanted)
    found: Table = kernel.compose(inner, pairs.X, pairs.Y)
    return found


@RULES.of(ActiveDimsKernel)
def _active(kernel: ActiveDimsKernel, pairs: Pairs, wanted: frozenset[Key]) -> Table:
    d = pairs.dimension
    kernel.check(d)
    dims = [dim % d for dim in kernel.active_dims]
    pick = lambda orders: tuple(orders[dim] for dim in dims)
    # A derivative along what is not read is 0.
    own = {key: (pick(key[0]), pick(key[1])) for key in wanted}
    read = {key: inner for key, inner in own.items() if _sum(key) == _sum(inner)}
    chosen = pairs._replace(X=kernel.chosen(pairs.X), Y=kernel.chosen(pairs.Y))
    inner = partials(kernel.inner_kernel, chosen, frozenset(read.values()))
    return {key: inner[small] for key, small in read.items() if small in inner}


@RULES.of(ConstantKernel, WhiteNoiseKernel)
def _constant(kernel: Any, pairs: Pairs, wanted: frozenset[Key]) -> Table:
    zero = (0,) * pairs.dimension
    if isinstance(kernel, WhiteNoiseKernel):
        return {}
    check_single(value=kernel.value)
    return {(zero, zero): kernel.value} if (zero, zero) in wanted else {}


@RULES.of(LinearKernel)
def _linear(kernel: LinearKernel, pairs: Pairs, wanted: frozenset[Key]) -> Table:
    d = pairs.dimension
    check_single(variance=kernel.variance)
    check_per_dimension(kernel.offset, d, "offset")
    offset = jnp.broadcast_to(kernel.offset, (d,))
    zero = (0,) * d
    entries: Table = {}
    for j in range(d):
        x, y = (coordinate - offset[j] for coordinate in pairs.coordinates(j))
        unit = tuple(int(i == j) for i in range(d))
        value = kernel.variance * x * y
        entries[zero, zero] = value + entries[zero, zero] if j else value
        entries[unit, zero] = kernel.variance * y
        entries[zero, unit] = kernel.variance * x
        entries[unit, unit] = kernel.variance
    return {key: value for key, value in entries.items() if key in wanted}


@RULES.of(WendlandKernel)
def _wendland(kernel: WendlandKernel, pairs: Pairs, wanted: frozenset[Key]) -> Table:
    return _radial(kernel.in_dimension(pairs.dimension), pairs, wanted)


def _stationary(wanted: frozenset[Key], entry: Callable[[Orders], Array]) -> Table:
    """Of a function of x - y: one entry per sum of the orders, and a sign for those in y."""
    known: dict[Orders, Array] = {}
    entries = {}
    for alpha, beta in wanted:
        both = tuple(a + b for a, b in zip(alpha, beta, strict=True))
        if both not in known:
            known[both] = entry(both)
        entries[alpha, beta] = -known[both] if sum(beta) % 2 else known[both]
    return entries


def _radial(kernel: Any, pairs: Pairs, wanted: frozenset[Key]) -> Table:
    d = pairs.dimension
    check_per_dimension(kernel.length_scale, d, "length_scale")
    inverse = jnp.broadcast_to(1.0 / kernel.length_scale, (d,))
    order = max(map(_sum, wanted), default=0)
    dtype = inverse.dtype
    # Far apart the profile is 0 or flat to all digits, and no power of a distance overflows.
    most = jnp.asarray(jnp.finfo(dtype).max ** (1.0 / (order + 2)), dtype)
    z = [jnp.clip((x - y) * inverse[j], -most, most) for j, (x, y) in _coordinates(pairs)]
    s = functools.reduce(jnp.add, [jnp.square(each) for each in z])
    slopes = derivatives(kernel.profile, s, order)

    def entry(orders: Orders) -> Array:
        """d^orders of profile(sum_j z_j^2), by the formula of Faa di Bruno for a square."""
        total: Any = None
        for halves in itertools.product(*(range(n // 2 + 1) for n in orders)):
            count, factor = 1.0, slopes[sum(orders) - sum(halves)]
            for j, (n, m) in enumerate(zip(orders, halves, strict=True)):
                count *= math.factorial(n) / (math.factorial(m) * math.factorial(n - 2 * m))
                if n > 2 * m:
                    factor = factor * jax.lax.integer_pow(2.0 * z[j], n - 2 * m)
            total = count * factor if total is None else total + count * factor
        return _product([total, *_powers(inverse, orders)])

    return _stationary(wanted, entry)


@RULES.of(SEKernel)
def _squared_exponential(kernel: SEKernel, pairs: Pairs, wanted: frozenset[Key]) -> Table:
    # By dimension: Hermite polynomials in the scaled differences times the value.
    d = pairs.dimension
    check_per_dimension(kernel.length_scale, d, "length_scale")
    inverse = jnp.broadcast_to(1.0 / kernel.length_scale, (d,))
    order = max(map(_sum, wanted), default=0)
    most = jnp.asarray(jnp.finfo(inverse.dtype).max ** (1.0 / (order + 2)), inverse.dtype)
    z = [jnp.clip((x - y) * inverse[j], -most, most) for j, (x, y) in _coordinates(pairs)]
    value = jnp.exp(-0.5 * functools.reduce(jnp.add, [jnp.square(each) for each in z]))
    hermite = [
        _hermite(each, max(max(a[j] + b[j] for a, b in wanted), 1)) for j, each in enumerate(z)
    ]

    def entry(orders: Orders) -> Array:
        factors = [hermite[j][n] for j, n in enumerate(orders) if n]
        return _product([value, *factors, *_powers(inverse, orders)])

    return _stationary(wanted, entry)


def _hermite(z: Array, order: int) -> list[Array]:
    """exp(z^2 / 2) d^n exp(-z^2 / 2) for n up to an order."""
    found = [jnp.ones_like(z), -z]
    for n in range(1, order):
        found.append(-z * found[n] - n * found[n - 1])
    return found


@RULES.of(PeriodicKernel)
def _periodic(kernel: PeriodicKernel, pairs: Pairs, wanted: frozenset[Key]) -> Table:
    d = pairs.dimension
    for name in ("length_scale", "period"):
        check_per_dimension(getattr(kernel, name), d, name)
    scale, period = (jnp.broadcast_to(v, (d,)) for v in (kernel.length_scale, kernel.period))
    near = pairs._replace(X=remainder(pairs.X, period[None]), Y=remainder(pairs.Y, period[None]))
    columns = []
    for j, (x, y) in _coordinates(near):
        most = max(a[j] + b[j] for a, b in wanted)
        difference = x - y
        turn = difference - period[j] * jax.lax.stop_gradient(jnp.round(difference / period[j]))
        wave = lambda t, j=j: jnp.exp(
            -2.0 * jnp.square(jnp.sin(jnp.pi * (t / period[j])) / scale[j])
        )
        columns.append(derivatives(wave, turn, most))
    return _stationary(
        wanted, lambda orders: _product([columns[j][n] for j, n in enumerate(orders)])
    )


@RULES.of(CosineKernel)
def _cosine(kernel: CosineKernel, pairs: Pairs, wanted: frozenset[Key]) -> Table:
    d = pairs.dimension
    check_per_dimension(kernel.period, d, "period")
    rate = jnp.broadcast_to(2.0 * jnp.pi / kernel.period, (d,))
    ends = pairs.rows(phase(pairs.X, kernel.period)), pairs.columns(phase(pairs.Y, kernel.period))
    angle = 2.0 * jnp.pi * fraction(ends[0] - ends[1])
    waves = (jnp.cos(angle), -jnp.sin(angle), -jnp.cos(angle), jnp.sin(angle))
    entry = lambda orders: _product([waves[sum(orders) % 4], *_powers(rate, orders)])
    return _stationary(wanted, entry)


# --- helpers -----------------------------------------------------------------------------------


def _leibniz(left: Table, right: Table, wanted: frozenset[Key]) -> Table:
    """The table of a product."""
    products: Table = {}
    for key in wanted:
        for share, rest, count in _splits(key):
            if share in left and rest in right:
                term = count * (left[share] * right[rest])
                products[key] = products[key] + term if key in products else term
    return products


def _splits(key: Key) -> Iterator[tuple[Key, Key, float]]:
    """All ways to share derivatives between two factors, and how often each comes."""
    alpha, beta = key
    d = len(alpha)
    for share in itertools.product(*(range(order + 1) for order in (*alpha, *beta))):
        rest = tuple(n - k for n, k in zip((*alpha, *beta), share, strict=True))
        count = math.prod(map(math.comb, (*alpha, *beta), share))
        yield (share[:d], share[d:]), (rest[:d], rest[d:]), float(count)


def _coordinates(pairs: Pairs) -> Iterator[tuple[int, tuple[Array, Array]]]:
    return ((j, pairs.coordinates(j)) for j in range(pairs.dimension))


def _sum(key: Key) -> int:
    return sum(key[0]) + sum(key[1])


def _powers(values: Array, orders: Orders) -> list[Array]:
    return [jax.lax.integer_pow(values[j], n) for j, n in enumerate(orders) if n]


def _product(factors: list[Array]) -> Array:
    return functools.reduce(jnp.multiply, factors)

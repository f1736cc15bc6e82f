"""Linear operators on functions of a point: what they are, and how they combine.

An operator says one thing: ``at(f, x)``, its value at a point of any function of a point. Sums,
factors and compositions are operators by what they make of ``at``; the product rule comes with the
derivatives that JAX takes. ``terms(d)``, a sum of factors times partial derivatives and integrals,
is the same thing in symbols where it has some, and opens the faster ways of `_evaluate`.
"""

import abc
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import ShapeError
from .._module import Parameterised, field_values, short, with_fields
from ..kernels._maps import Function, as_map

Field = Callable[[Array], Array]  # a function of a point (d,), to a vector (q,)


class Span(NamedTuple):
    """An integral over one dimension, from one bound to another: numbers, or one per row."""

    lower: Array
    upper: Array


class Term(NamedTuple):
    """Factors, each a number, one per row, or a function of the point, and what acts on each
    dimension: an order of differentiation, or a `Span`."""

    factors: tuple[Any, ...]
    acts: tuple[Any, ...]

    @property
    def orders(self) -> tuple[int, ...]:
        """How often each dimension is differentiated."""
        return tuple(0 if isinstance(act, Span) else act for act in self.acts)

    @property
    def spans(self) -> bool:
        """Whether it integrates."""
        return any(isinstance(act, Span) for act in self.acts)


class LinearOperator(Parameterised):
    """Base of the linear operators: `Identity`, `Derivative`, `Gradient`, `Laplacian`, `Integral`.

    They form sums and differences, take factors, and are composed by ``@``: with c a number, an
    array of one value per row, or a function of a point, ``c * L``, ``L1 + L2`` and ``L1 @ L2``
    (L1 of what L2 makes) are operators, so that the left side of a linear differential equation
    is one: ``Derivative(0) - 0.1 * Derivative(1, order=2)`` is that of the heat equation.
    """

    @abc.abstractmethod
    def at(self, f: Field, x: Array, kinks: Array) -> Array:
        """The operator on f at the point x: for f of q components and p of the operator (q p,),
        those of f slow.

        ``kinks`` (k, d): points through which, dimension by dimension, f may not be smooth.
        """

    @abc.abstractmethod
    def components(self, d: int) -> int:
        """How many values it has at a point of dimension d; errors for a d it cannot act on."""

    @abc.abstractmethod
    def terms(self, d: int) -> tuple[tuple[Term, ...], ...] | None:
        """Each component as a sum; None where it has no symbol."""

    @property
    def parts(self) -> tuple["LinearOperator", ...]:
        """The operators it is made of."""
        return ()

    def orders(self, d: int) -> tuple[tuple[int, ...], ...]:
        """The orders of derivatives that occur, at least: one tuple per kind of term."""
        return tuple({term.orders for component in self.terms(d) or () for term in component})

    def mapped(self, function: Callable[["LinearOperator"], "LinearOperator"]) -> "LinearOperator":
        """The same operator, of what ``function`` makes of each of its parts."""
        fields = field_values(self).items()
        parts = {name: function(value) for name, value in fields if _is_operator(value)}
        return self.changed(**parts)

    def changed(self, **values: Any) -> "LinearOperator":
        """A copy with other values in some fields, unchecked."""
        return with_fields(self, **values)

    def row(self, i: Any) -> "LinearOperator":
        """The operator of row i, of which it may have values of its own."""
        return self.mapped(lambda part: part.row(i))

    def moved(self, offset: Array) -> "LinearOperator":
        """The same operator in coordinates from which ``offset`` (d,) was taken off."""
        return self.mapped(lambda part: part.moved(offset))

    def own_rows(self) -> tuple[int, ...]:
        """The numbers of rows for which its own fields, not its parts, have values."""
        return ()

    def rows(self) -> int | None:
        """For how many rows it has values of its own; None where it has none."""
        found = {*self.own_rows(), *(part.rows() for part in self.parts)} - {None}
        if len(found) > 1:
            raise ShapeError(
                f"`{self!r}` has values for {sorted(map(str, found))} rows, expected the same "
                "number. Fix: pass one number, or one per row."
            )
        return found.pop() if found else None

    def support(self, x: Array) -> Array:
        """Points (k, d) through which, in the other argument, what it makes may not be smooth."""
        if not self.parts:
            return x[None, :]
        return jnp.concatenate([part.support(x) for part in self.parts])

    @property
    def cost(self) -> int:
        """At how many points it evaluates a function, by its definition."""
        return sum(part.cost for part in self.parts) or 1

    @property
    def invariant(self) -> bool:
        """Whether it is the same at every point, so that coordinates may be shifted."""
        return all(part.invariant for part in self.parts)

    __array_ufunc__ = None

    def __add__(self, other: Any) -> Any:
        if isinstance(other, int) and other == 0:  # sum([A, B]) starts from it
            return self
        return SumOperator(self, other) if isinstance(other, LinearOperator) else NotImplemented

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self + (-other) if isinstance(other, LinearOperator) else NotImplemented

    def __neg__(self) -> "LinearOperator":
        return ScaledOperator(-1.0, self)

    def __mul__(self, factor: Any) -> "LinearOperator":
        return ScaledOperator(factor, self)

    __rmul__ = __mul__

    def __truediv__(self, number: Any) -> "LinearOperator":
        return ScaledOperator(1.0 / number, self)

    def __matmul__(self, other: Any) -> Any:
        if not isinstance(other, LinearOperator):
            return NotImplemented
        return ComposedOperator(self, other)


class SumOperator(LinearOperator):
    """(A + B) f = A f + B f, of as many components each."""

    first: LinearOperator
    second: LinearOperator

    @property
    def parts(self) -> tuple[LinearOperator, ...]:
        return self.first, self.second

    def at(self, f: Field, x: Array, kinks: Array) -> Array:
        return self.first.at(f, x, kinks) + self.second.at(f, x, kinks)

    def components(self, d: int) -> int:
        p, q = self.first.components(d), self.second.components(d)
        if p != q:
            raise ShapeError(
                f"`{self.first!r}` has {p} components and `{self.second!r}` {q} for points of "
                f"dimension {d}, expected the same. Fix: observe them in blocks of their own."
            )
        return p

    def terms(self, d: int) -> tuple[tuple[Term, ...], ...] | None:
        self.components(d)
        a, b = self.first.terms(d), self.second.terms(d)
        if a is None or b is None:
            return None
        return tuple((*left, *right) for left, right in zip(a, b, strict=True))

    def orders(self, d: int) -> tuple[tuple[int, ...], ...]:
        return (*self.first.orders(d), *self.second.orders(d))

    def __repr__(self) -> str:
        return f"{self.first!r} + {self.second!r}"


class ScaledOperator(LinearOperator):
    """(c L) f = c (L f), for a number c, one per row (n,), or a function c(x) of a point."""

    factor: Any = eqx.field(converter=lambda value: _as_factor(value))
    inner: LinearOperator

    @property
    def parts(self) -> tuple[LinearOperator, ...]:
        return (self.inner,)

    def at(self, f: Field, x: Array, kinks: Array) -> Array:
        return factor_at(self.factor, x) * self.inner.at(f, x, kinks)

    def components(self, d: int) -> int:
        return self.inner.components(d)

    def terms(self, d: int) -> tuple[tuple[Term, ...], ...] | None:
        inner = self.inner.terms(d)
        if inner is None:
            return None
        scaled = lambda term: term._replace(factors=(self.factor, *term.factors))
        return tuple(tuple(map(scaled, component)) for component in inner)

    def orders(self, d: int) -> tuple[tuple[int, ...], ...]:
        return self.inner.orders(d)

    def row(self, i: Any) -> LinearOperator:
        own = super().row(i)
        if callable(self.factor) or not self.factor.ndim:
            return own
        return own.changed(factor=self.factor[i])

    def own_rows(self) -> tuple[int, ...]:
        several = not callable(self.factor) and self.factor.ndim
        return (int(self.factor.shape[0]),) if several else ()

    def moved(self, offset: Array) -> LinearOperator:
        own = super().moved(offset)
        if not callable(self.factor):
            return own
        return own.changed(factor=_Moved(self.factor, offset))

    @property
    def invariant(self) -> bool:
        return not callable(self.factor) and self.inner.invariant

    def __repr__(self) -> str:
        inner = f"({self.inner!r})" if isinstance(self.inner, SumOperator) else repr(self.inner)
        factor = repr(self.factor) if callable(self.factor) else short(self.factor)
        return f"{factor} * {inner}"


class ComposedOperator(LinearOperator):
    """(A @ B) f = A (B f): of p and q components p q, those of B slow."""

    outer: LinearOperator
    inner: LinearOperator

    @property
    def parts(self) -> tuple[LinearOperator, ...]:
        return self.outer, self.inner

    def at(self, f: Field, x: Array, kinks: Array) -> Array:
        return self.outer.at(lambda u: self.inner.at(f, u, kinks), x, kinks)

    def components(self, d: int) -> int:
        return self.outer.components(d) * self.inner.components(d)

    def terms(self, d: int) -> tuple[tuple[Term, ...], ...] | None:
        outer, inner = self.outer.terms(d), self.inner.terms(d)
        if outer is None or inner is None:
            return None
        result = []
        for b in inner:
            for a in outer:
                products = [_composed(u, v) for u in a for v in b]
                if None in products:
                    return None
                result.append(tuple(term for some in products for term in some or ()))
        return tuple(result)

    def orders(self, d: int) -> tuple[tuple[int, ...], ...]:
        return tuple(
            tuple(i + j for i, j in zip(a, b, strict=True))
            for a in self.outer.orders(d)
            for b in self.inner.orders(d)
        )

    @property
    def cost(self) -> int:
        return self.outer.cost * self.inner.cost

    def __repr__(self) -> str:
        grouped = lambda part: (
            f"({part!r})" if isinstance(part, SumOperator | ScaledOperator) else repr(part)
        )
        return f"{grouped(self.outer)} @ {grouped(self.inner)}"


class _Moved(eqx.Module):
    """A function of a point, in coordinates from which an offset was taken off."""

    function: Any
    offset: Array

    def __call__(self, x: Array) -> Any:
        return self.function(x + self.offset.astype(x.dtype))


# --- helpers -----------------------------------------------------------------------------------


def _is_operator(value: Any) -> bool:
    return isinstance(value, LinearOperator)


def slope(f: Field, direction: Array) -> Field:
    """The derivative of f along a direction, as a function of the point."""
    return lambda x: jax.jvp(f, (x,), (direction,))[1]


def _composed(outer: Term, inner: Term) -> tuple[Term, ...] | None:
    """The product of two terms by Leibniz' rule; None where an integral stands in its way."""
    fields = tuple(factor for factor in inner.factors if callable(factor))
    numbers = tuple(factor for factor in inner.factors if not callable(factor))
    met = zip(outer.acts, inner.acts, strict=True)
    if any((isinstance(a, Span) or isinstance(b, Span)) and a != 0 and b != 0 for a, b in met):
        return None
    if fields and outer.spans:
        return None
    terms = []
    # Of each derivative, some fall on the factors and the others on the function.
    shares = [range(order + 1) if fields else (0,) for order in outer.orders]
    for share in itertools.product(*shares):
        count = math.prod(math.comb(n, k) for n, k in zip(outer.orders, share, strict=True))
        acts = tuple(
            (b if a == 0 else a) if isinstance(a, Span) or isinstance(b, Span) else a - k + b
            for a, b, k in zip(outer.acts, inner.acts, share, strict=True)
        )
        factors = (*outer.factors, *numbers)
        factors = factors if count == 1 else (*factors, float(count))
        own = fields if not any(share) else (_Slope(fields, share),)
        terms.append(Term((*factors, *own), acts))
    return tuple(terms)


class _Slope(eqx.Module):
    """A partial derivative of a product of functions of a point."""

    functions: tuple[Any, ...]
    orders: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        values = lambda x: [factor_at(function, x) for function in self.functions]
        f: Field = lambda x: functools.reduce(jnp.multiply, values(x))
        for j, order in enumerate(self.orders):
            for _ in range(order):
                f = slope(f, jnp.zeros_like(x).at[j].set(1.0))
        return f(x)


def factor_at(factor: Any, x: Array) -> Array:
    """A factor at a point (d,): one number; `ShapeError` for a function of anything else."""
    value = jnp.asarray(factor(x) if callable(factor) else factor)
    if value.ndim:
        raise ShapeError(
            f"the factor {factor!r} of an operator has shape {value.shape} at a point, expected "
            "(). Fix: return one number for one point (d,)."
        )
    return value.astype(x.dtype)


def _as_factor(value: Any) -> Any:
    if callable(value):
        return as_map(value, "factor") if not isinstance(value, Function) else value
    if np.ndim(value) > 1:
        raise ShapeError(
            f"the factor of an operator has shape {np.shape(value)}, expected a number, or one "
            "per row (n,). Fix: use one block per operator."
        )
    return value

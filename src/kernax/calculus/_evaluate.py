"""Operators on both arguments of a kernel: by symbols where they are known, else by definition.

By its definition an operator acts on any function of a point, which here is the other operator on
the kernel. Three faster ways give the same numbers: values and gradients by `Jet`s, polynomials of
partial derivatives by tables, and integrals in closed form.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._errors import ShapeError
from ..kernels import AbstractKernel, ConstantKernel, NegKernel, ProductKernel, SumKernel
from ..kernels._jets import Grid, jet
from ..kernels._smoothness import check_continuity, check_smoothness
from ._closed import integrals
from ._differential import Gradient, Identity
from ._operators import LinearOperator, Term, factor_at
from ._partials import Pairs, Unknown, partials

# Evaluations of the kernel that are made at once where operators act by their definition.
TOGETHER = 1 << 20


def check(kernel: AbstractKernel, left: LinearOperator, right: LinearOperator, d: int) -> None:
    """Errors where an operator cannot act on the kernel, or on points of dimension d."""
    for operator in (left, right):
        operator.components(d)
    for a in left.orders(d):
        for b in right.orders(d):
            both = tuple(i + j for i, j in zip(a, b, strict=True))
            check_smoothness(kernel, both, f"`{left!r}` with `{right!r}`")
    for operator in (left, right):
        if not isinstance(operator, Identity):
            check_continuity(kernel, repr(operator))


def check_rows(operator: LinearOperator, n: int, name: str) -> None:
    """`ShapeError` unless what an operator has per row fits the points."""
    rows = operator.rows()
    if rows not in (None, n):
        raise ShapeError(
            f"`{operator!r}` has values for {rows} rows, but `{name}` has {n} rows. "
            "Fix: pass one number, or one per row."
        )


def blocks(
    kernel: AbstractKernel, left: LinearOperator, right: LinearOperator, X: Array, Y: Array
) -> Array:
    """(n, p, m, q): component j of ``left`` at row i of X, with those of ``right`` at rows of Y.

    The kernel and the operators prepared, points clean. Raises what `check` does.
    """
    d = X.shape[1]
    check(kernel, left, right, d)
    shape = (len(X), left.components(d), len(Y), right.components(d))
    if 0 in shape:
        return jnp.zeros(shape, X.dtype)
    if all(isinstance(operator, Identity | Gradient) for operator in (left, right)):
        return jnp.broadcast_to(_values_and_slopes(kernel, left, right, X, Y), shape)
    entries = _apply(kernel, left, right, Pairs(X, Y, crossed=True))
    if shape[1] == shape[3] == 1:
        return jnp.broadcast_to(entries[0][0], (len(X), len(Y)))[:, None, :, None]
    whole = [[jnp.broadcast_to(entry, (len(X), len(Y))) for entry in row] for row in entries]
    return jnp.stack([jnp.stack(row, axis=-1) for row in whole], axis=1)


def flat(K: Array) -> Array:
    """(n p, m q), point by point, of (n, p, m, q)."""
    n, p, m, q = K.shape
    return K.reshape(n * p, m * q)


def variances(kernel: AbstractKernel, operator: LinearOperator, X: Array) -> Array:
    """(n, p): the variance of each component at each point, without white noise."""
    n, d = X.shape
    check(kernel, operator, operator, d)
    if n == 0:
        return jnp.zeros((0, operator.components(d)), X.dtype)
    if isinstance(operator, Identity):
        return jax.vmap(lambda x: kernel.pairwise(x, x))(X)[:, None]
    if isinstance(operator, Gradient):
        found = jet(kernel, Grid(X, X, "nAB", (0, 1))).ab
        found = jnp.zeros((), X.dtype) if found is None else found
        return jnp.diagonal(jnp.broadcast_to(found, (n, d, d)), axis1=1, axis2=2)
    entries = _apply(kernel, operator, operator, Pairs(X, X, crossed=False))
    diagonal = [jnp.broadcast_to(row[i], (n,)) for i, row in enumerate(entries)]
    return jnp.stack(diagonal, axis=-1)


def of_function(operator: LinearOperator, function: Any, X: Array) -> Array:
    """(n, p): the operator on a plain function of a point."""
    at = lambda i: operator.row(i).at(lambda x: function(x)[None], X[i], X[i][None])
    return jax.vmap(at)(jnp.arange(len(X)))


# --- ways --------------------------------------------------------------------------------------


def _values_and_slopes(
    kernel: AbstractKernel, left: LinearOperator, right: LinearOperator, X: Array, Y: Array
) -> Array:
    sloped = [isinstance(operator, Gradient) for operator in (left, right)]
    if not any(sloped):
        return kernel.matrix(X, Y)[:, None, :, None]
    if all(sloped):
        found = jet(kernel, Grid(X, Y, "nAmB", (0, 1))).ab
    else:
        axes, slot = ("nAm", 0) if sloped[0] else ("nmA", 1)
        found = jet(kernel, Grid(X, Y, axes, (slot,))).a
        found = found if found is None else jnp.expand_dims(found, 3 if sloped[0] else 1)
    return jnp.zeros((), X.dtype) if found is None else found


Entries = list[list[Any]]


def _apply(
    kernel: AbstractKernel, left: LinearOperator, right: LinearOperator, pairs: Pairs
) -> Entries:
    """For each component of ``left`` and of ``right`` what is to be broadcast over the pairs."""
    d = pairs.dimension
    symbols = left.terms(d), right.terms(d)
    if symbols[0] is not None and symbols[1] is not None:
        try:
            return _by_symbols(kernel, symbols[0], symbols[1], pairs)
        except Unknown:
            pass
    # Of a sum each term goes its own way.
    match kernel:
        case SumKernel(left_kernel=first, right_kernel=second):
            parts = [_apply(part, left, right, pairs) for part in (first, second)]
            return _zipped(lambda a, b: a + b, *parts)
        case NegKernel(inner_kernel=inner):
            return _zipped(lambda a: -a, _apply(inner, left, right, pairs))
        case (
            ProductKernel(left_kernel=ConstantKernel(value=c), right_kernel=inner)
            | ProductKernel(left_kernel=inner, right_kernel=ConstantKernel(value=c))
        ):
            return _zipped(lambda a: c * a, _apply(inner, left, right, pairs))
    return _by_definition(kernel, left, right, pairs)


def _zipped(function: Any, *parts: Entries) -> Entries:
    return [
        [function(*values) for values in zip(*rows, strict=True)]
        for rows in zip(*parts, strict=True)
    ]


def _by_symbols(kernel: AbstractKernel, left: Any, right: Any, pairs: Pairs) -> Entries:
    plain = not any(term.spans for side in (left, right) for terms in side for term in terms)
    if plain:
        # Together, so that what they share is computed once.
        keys = frozenset((a.acts, b.acts) for p in left for a in p for q in right for b in q)
        known: Any = partials(kernel, pairs, keys)
    else:
        known = {}
    spans: dict[Any, Any] = {}

    def value(a: Term, b: Term) -> Any:
        if plain:
            return known.get((a.acts, b.acts))
        key = (id(a.acts), id(b.acts))
        if key not in spans:
            spans[key] = integrals(kernel, pairs, a.acts, b.acts)
        return spans[key]

    def entry(p: tuple[Term, ...], q: tuple[Term, ...]) -> Any:
        total: Any = jnp.zeros((), pairs.X.dtype)
        for a in p:
            for b in q:
                part = value(a, b)
                if part is not None:
                    factors = [_factor(f, pairs.X, pairs.rows) for f in a.factors]
                    factors += [_factor(f, pairs.Y, pairs.columns) for f in b.factors]
                    total = total + functools.reduce(jnp.multiply, factors, part)
        return total

    return [[entry(p, q) for q in right] for p in left]


def _factor(factor: Any, X: Array, place: Any) -> Any:
    if isinstance(factor, float):
        return factor
    return place(jax.vmap(lambda x: factor_at(factor, x))(X) if callable(factor) else factor)


def _by_definition(
    kernel: AbstractKernel, left: LinearOperator, right: LinearOperator, pairs: Pairs
) -> Entries:
    X, Y, d = pairs.X, pairs.Y, pairs.dimension
    p, q = left.components(d), right.components(d)

    def pair(i: Any, j: Any) -> Array:
        first, second, x, y = left.row(i), right.row(j), X[i], Y[j]
        covariance = lambda u: second.at(lambda w: kernel.pairwise(u, w)[None], y, u[None])
        # Of ``left`` the fast index, of ``right`` the slow one.
        return first.at(covariance, x, second.support(y)).reshape(q, p)

    if pairs.crossed:
        row = lambda i: jax.vmap(lambda j: pair(i, j))(jnp.arange(len(Y)))
        width = len(Y) * left.cost * right.cost
    else:
        row, width = lambda i: pair(i, i), left.cost * right.cost
    size = max(1, TOGETHER // width)
    if size >= len(X):
        values = jax.vmap(row)(jnp.arange(len(X)))
    else:
        values = jax.lax.map(jax.checkpoint(row), jnp.arange(len(X)), batch_size=size)
    return [[values[..., b, a] for b in range(q)] for a in range(p)]

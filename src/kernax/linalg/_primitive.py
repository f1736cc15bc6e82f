"""Factorisations as one operation of JAX, and how each platform carries it out.

JAX has no `potri`, and K^-1 from triangular solves costs 2.5 times what LAPACK asks. On a CPU the
work is one call to the host for a whole batch: by a primitive of our own and not by
`jax.pure_callback`, which puts its operands on the device inside the callback and so can wait for
itself. Small matrices and other platforms stay in JAX. Derivatives are in `_derivatives`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from jax.interpreters import batching, mlir
from jaxtyping import Array

from .._errors import ResourceError
from ..kernels._levels import varying
from . import _host, _lapack, _portable

SMALL = 32  # up to here the arithmetic is less than the calls

# Which results have the batch axes of the matrices alone, and which those of everything.
RESULTS = {
    "factor": ("matrix", "matrix"),
    "density": ("matrix", "all", "matrix"),
    "inverse": ("matrix", "all", "matrix", "all", "matrix"),
    "slopes": ("matrix", "all", "matrix", "all", "matrix"),
}


def factor(K: Array, amounts: Array, route: str = "auto") -> tuple[Array, Array]:
    """The lower factor of K + c I, and c: 0, or the least of ``amounts`` (3,) that will do.

    NaN where none does, or where K is not finite (then c = 0). ``route`` is where the work is
    done: "small" or "library", in JAX, or "lapack"; "auto" is the fastest of the platform.
    """
    if K.shape[0] == 0:
        return K, jnp.zeros((), K.dtype)
    L, c = _bind(K, amounts, wanted="factor", route=route)
    return L, c


def density(K: Array, y: Array, amounts: Array, route: str = "auto") -> tuple[Array, ...]:
    """log(det K) / 2, y' K^-1 y and c, of K + c I as in `factor`; y is (n,), or (m, n)."""
    return _with_y("density", K, y, amounts, route)


def inverse(K: Array, y: Array, amounts: Array, route: str = "auto") -> tuple[Array, ...]:
    """What `density` gives, then K^-1 y in the shape of y, and K^-1."""
    return _with_y("inverse", K, y, amounts, route)


def slopes(K: Array, y: Array, amounts: Array, route: str = "auto") -> tuple[Array, ...]:
    """What `density` gives, then a = K^-1 y in the shape of y, and (sum of a a' - m K^-1) / 2: the
    slope in K of the log density of m vectors y, which is -a in y.
    """
    columns = y if y.ndim == 2 else y[None]
    half_log_det, square, c, a, W = _with_y("slopes", K, columns, amounts, route)
    return (half_log_det, square, c, a, W) if y.ndim == 2 else (half_log_det, square[0], c, a[0], W)


def _with_y(wanted: str, K: Array, y: Array, amounts: Array, route: str) -> tuple[Array, ...]:
    if K.shape[0] == 0:
        zero = jnp.zeros((), K.dtype)
        results = (zero, jnp.zeros(y.shape[:-1], K.dtype), zero, y, K)
        return results[: len(RESULTS[wanted])]
    if y.ndim == 1:
        return _bind(K, amounts, y, wanted=wanted, route=route)
    found = _bind(K[None], amounts[None], y, wanted=wanted, route=route)
    kinds = RESULTS[wanted]
    return tuple(x[0] if kind == "matrix" else x for x, kind in zip(found, kinds, strict=True))


# --- the primitive -----------------------------------------------------------------------------
#
# Operands K (*b, n, n), amounts (*b, 3) and, but for a factor, y (*b, n). A batch axis that an
# operand does not have is of size 1: a matrix shared by many y is factorised once. For slopes the
# last axis of b, 1 of K and m of y, is the one that is summed over.

factorise_p = jax.extend.core.Primitive("kernax_factorise")
factorise_p.multiple_results = True


@partial(jax.jit, static_argnames=("wanted", "route"), inline=True)
def _bind(*operands: Array, wanted: str, route: str) -> tuple[Array, ...]:
    return tuple(factorise_p.bind(*operands, wanted=wanted, route=route))


def _shapes(*operands: Any, wanted: str, route: str) -> list[Any]:
    n, dtype = operands[0].shape[-1], operands[0].dtype
    of_matrix, of_all = _batch_shapes(*operands)
    shapes = {
        "factor": ((*of_matrix, n, n), of_matrix),
        "density": (of_matrix, of_all, of_matrix),
    }.get(wanted, (of_matrix, of_all, of_matrix, (*of_all, n), (*of_matrix, n, n)))
    axes = frozenset[Any]().union(*(varying(x) for x in operands))
    if not axes:
        return [jax.core.ShapedArray(shape, dtype) for shape in shapes]
    first = operands[0]
    mat = getattr(first, "manual_axis_type", None)
    kept = {"vma": axes} if mat is None else {"manual_axis_type": mat.update(varying=axes)}
    whole = lambda shape: first.sharding.update(spec=(None,) * len(shape))
    return [first.update(shape=shape, sharding=whole(shape), **kept) for shape in shapes]


def _batch_shapes(K: Any, amounts: Any, *y: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The batch axes of the matrices, and of everything."""
    of_matrix = np.broadcast_shapes(K.shape[:-2], amounts.shape[:-1])
    return of_matrix, np.broadcast_shapes(of_matrix, *(x.shape[:-1] for x in y))


def _run(*operands: Array, wanted: str, route: str) -> tuple[Array, ...]:
    with jax.disable_jit(False):  # or it would be asked for again
        return _bind(*operands, wanted=wanted, route=route)


factorise_p.def_impl(_run)
factorise_p.def_abstract_eval(_shapes)


def _batched(operands: Any, axes: Any, *, wanted: str, route: str) -> Any:
    """One call for the whole batch, whose axis comes first."""
    moved = [
        jnp.expand_dims(x, 0) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands, axes, strict=True)
    ]
    shared = all(axis is None for axis in axes[:2])
    alone = [shared and kind == "matrix" for kind in RESULTS[wanted]]
    if wanted == "slopes" and shared:
        # One inverse for all, and a slope for each.
        *others, a, P = factorise_p.bind(*moved, wanted="inverse", route=route)
        results, alone[-1] = [*others, a, slope(a, P)], False
    else:
        results = factorise_p.bind(*moved, wanted=wanted, route=route)
    return (
        [x[0] if only else x for x, only in zip(results, alone, strict=True)],
        [None if only else 0 for only in alone],
    )


batching.primitive_batchers[factorise_p] = _batched


def slope(a: Array, P: Array) -> Array:
    """(sum of a a' - m P) / 2 for a (*b, m, n) and P (*b, 1, n, n), of the shape of that."""
    return 0.5 * (outer(a, a) - a.shape[-2] * P)


def outer(a: Array, b: Array) -> Array:
    """The sum of a b' over the last axis but one, which stays."""
    if a.shape[-2] == 1:
        return a[..., :, None] * b[..., None, :]
    return jnp.matmul(a.mT, b, precision="highest")[..., None, :, :]


# --- the way to each platform ------------------------------------------------------------------


def _anywhere(ctx: Any, *operands: Any, wanted: str, route: str) -> Any:
    work: Any = _portable.library
    if route == "small" and wanted != "factor":
        work = _portable.small
    return _lowered(partial(_in_jax, work), ctx, operands, wanted)


def _on_cpu(ctx: Any, *operands: Any, wanted: str, route: str) -> Any:
    n, module = ctx.avals_in[0].shape[-1], ctx.module_context
    if len(module.platforms) > 1 or module.lowering_parameters.for_export:
        route = "library"  # a program that travels has no way back to this host
    elif route == "auto":
        little = "library" if wanted == "factor" else "small"
        route = little if n <= SMALL else "lapack"
    if route == "lapack" and not _host.AVAILABLE:
        route = "library"
    if route != "lapack":
        return _anywhere(ctx, *operands, wanted=wanted, route=route)
    if n > _lapack.LARGEST:
        raise ResourceError(
            f"LAPACK's `potrf` counts the entries of a {n} x {n} matrix in 32 bits, which ends at "
            f"n = {_lapack.LARGEST}. Fix: use fewer points."
        )
    # Slopes of small matrices are less work to whoever reads them than to the host.
    work = partial(_in_jax, _on_host) if n <= _lapack.UNBLOCKED else _on_host
    return _lowered(work, ctx, operands, wanted)


mlir.register_lowering(factorise_p, _anywhere)
mlir.register_lowering(factorise_p, _on_cpu, platform="cpu")


def _lowered(work: Callable[..., tuple[Array, ...]], ctx: Any, operands: Any, wanted: str) -> Any:
    # Traced with shapes alone: over which axes of a mesh they vary the primitive has said.
    avals = [jax.core.ShapedArray(aval.shape, aval.dtype) for aval in ctx.avals_in]
    flat = _Flat(avals)

    def function(*operands: Array) -> tuple[Array, ...]:
        return flat.results(work(*flat.operands(operands), wanted=wanted), wanted)

    within = ctx.replace(primitive=None, avals_in=avals, avals_out=None)
    return mlir.lower_fun(function, multiple_results=True)(within, *operands)


def _in_jax(
    work: Callable[..., tuple[Array, ...]], *operands: Array, wanted: str
) -> tuple[Array, ...]:
    if wanted != "slopes":
        return work(*operands, wanted=wanted)
    *others, a, P = work(*operands, wanted="inverse")
    return (*others, a, slope(a, P[:, None])[:, 0])


def _on_host(K: Array, amounts: Array, *ys: Array, wanted: str) -> tuple[Array, ...]:
    """One call for all matrices, which leaves one of its results where they were."""
    g = K.shape[0]
    rows: Any = ys[0].shape if ys else ()
    numbers: Any = {"factor": [(g,)], "density": [(g,), rows[:2], (g,)]}
    shapes = numbers.get(wanted, [(g,), rows[:2], (g,), rows])
    # XLA passes on the memory of one matrix where it keeps its shape.
    K = K[0] if g == 1 else K
    shapes = [K.shape, *shapes]
    matrices, *others = _host.call(_lapack.TARGETS[wanted], shapes, K, amounts, *ys, batch=g > 1)
    matrices = matrices[None] if g == 1 else matrices
    if wanted == "factor":
        return (matrices, *others)
    return tuple(others) if wanted == "density" else (*others, matrices)


class _Flat:
    """Batch axes, whatever they are, as K (g, n, n), amounts (g, 3) and y (g, m, n), and back.

    Axes that only y has become its axis m.
    """

    def __init__(self, avals: Any):
        self.n = avals[0].shape[-1]
        self.of_matrix, self.of_all = _batch_shapes(*avals)
        axes = range(len(self.of_all))
        shared = [i for i in axes if self.of_matrix[i] != self.of_all[i]]
        order = [*(i for i in axes if i not in shared), *shared]
        self.g, self.m = math.prod(self.of_matrix), math.prod(self.of_all[i] for i in shared)
        # How the axes of y are moved, and moved back; None where they are in order.
        self.order = None if order == sorted(order) else order
        self.moved = tuple(self.of_all[i] for i in order)

    def operands(self, operands: Any) -> list[Array]:
        """A copy only where an operand lacks an axis, or axes change places."""
        K, amounts, *ys = operands
        of_matrix, n = self.of_matrix, self.n
        K, amounts = _spread(K, (*of_matrix, n, n)), _spread(amounts, (*of_matrix, 3))
        flat = [K.reshape(self.g, n, n), amounts.reshape(self.g, 3)]
        for y in ys:
            y = _spread(y, (*self.of_all, n))
            y = y.transpose(*self.order, -1) if self.order else y
            flat.append(y.reshape(self.g, self.m, n))
        return flat

    def results(self, results: Any, wanted: str) -> tuple[Any, ...]:
        """With the batch axes they should have."""
        shapes = {"matrix": self.of_matrix, "all": self.moved}
        pairs = zip(results, RESULTS[wanted], strict=True)
        return tuple(self._restored(x, kind, shapes[kind]) for x, kind in pairs)

    def _restored(self, x: Any, kind: str, shape: tuple[int, ...]) -> Any:
        x = x.reshape((*shape, *x.shape[1 if kind == "matrix" else 2 :]))
        if kind == "matrix" or not self.order:
            return x
        back = [self.order.index(i) for i in range(len(shape))]
        return x.transpose((*back, *range(len(shape), x.ndim)))


def _spread(x: Array, shape: tuple[int, ...]) -> Array:
    return x if x.shape == shape else jnp.broadcast_to(x, shape)

"""Factorisations as one operation of JAX, and how each platform carries it out.

JAX has no `potri`, and K^-1 from triangular solves costs 2.5 times what LAPACK asks. On a CPU the
work is one call to the host for a whole batch: by a primitive of our own and not by
`jax.pure_callback`, which puts its operands on the device inside the callback and so can wait for
itself. Small matrices and other platforms stay in JAX. Derivatives are in `_dense`.
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
from .._typing import HostArray
from . import _lapack, _portable

SMALL = 32  # up to here the arithmetic is less than the calls

# Which results have the batch axes of the matrices alone, and which those of everything.
RESULTS = {
    "factor": ("matrix", "matrix"),
    "density": ("matrix", "all", "matrix"),
    "inverse": ("matrix", "all", "matrix", "all", "matrix"),
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
# operand does not have is of size 1: a matrix shared by many y is factorised once.

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
        "inverse": (of_matrix, of_all, of_matrix, (*of_all, n), (*of_matrix, n, n)),
    }[wanted]
    varying = frozenset[Any]().union(*(_varying(x) for x in operands))
    if not varying:
        return [jax.core.ShapedArray(shape, dtype) for shape in shapes]
    first = operands[0]
    mat = getattr(first, "manual_axis_type", None)
    kept = {"vma": varying} if mat is None else {"manual_axis_type": mat.update(varying=varying)}
    whole = lambda shape: first.sharding.update(spec=(None,) * len(shape))
    return [first.update(shape=shape, sharding=whole(shape), **kept) for shape in shapes]


def _varying(aval: Any) -> Any:
    """The axes of a mesh over which an array inside `shard_map` differs (by version of JAX)."""
    mat = getattr(aval, "manual_axis_type", None)
    return getattr(aval, "vma", ()) if mat is None else mat.varying


def _batch_shapes(K: Any, amounts: Any, *y: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The batch axes of the matrices, and of everything."""
    of_matrix = np.broadcast_shapes(K.shape[:-2], amounts.shape[:-1])
    return of_matrix, np.broadcast_shapes(of_matrix, *(x.shape[:-1] for x in y))


factorise_p.def_impl(_bind)
factorise_p.def_abstract_eval(_shapes)


def _batched(operands: Any, axes: Any, *, wanted: str, route: str) -> Any:
    """One call for the whole batch, whose axis comes first."""
    moved = [
        jnp.expand_dims(x, 0) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands, axes, strict=True)
    ]
    results = factorise_p.bind(*moved, wanted=wanted, route=route)
    shared = all(axis is None for axis in axes[:2])
    alone = [shared and kind == "matrix" for kind in RESULTS[wanted]]
    return (
        [x[0] if only else x for x, only in zip(results, alone, strict=True)],
        [None if only else 0 for only in alone],
    )


batching.primitive_batchers[factorise_p] = _batched


# --- the way to each platform ------------------------------------------------------------------


def _anywhere(ctx: Any, *operands: Any, wanted: str, route: str) -> Any:
    return _in_jax(ctx, operands, wanted, route)


def _on_cpu(ctx: Any, *operands: Any, wanted: str, route: str) -> Any:
    n, module = ctx.avals_in[0].shape[-1], ctx.module_context
    if len(module.platforms) > 1 or module.lowering_parameters.for_export:
        route = "library"  # a program that travels has no way back to this host
    elif route == "auto":
        little = "library" if wanted == "factor" else "small"
        route = little if n <= SMALL else "lapack"
    if route != "lapack":
        return _in_jax(ctx, operands, wanted, route)
    if n > _lapack.LARGEST:
        raise ResourceError(
            f"LAPACK's `potrf` counts the entries of a {n} x {n} matrix in 32 bits, which ends at "
            f"n = {_lapack.LARGEST}. Fix: use fewer points."
        )
    work = partial(_lapack.factorise, _lapack.routines(ctx.avals_in[0].dtype.char), wanted)

    def callback(*views: HostArray) -> tuple[HostArray, ...]:
        with np.errstate(all="ignore"):
            return _flattened(np, work, wanted, *map(_lapack.taken, views))

    results, _, _ = mlir.emit_python_callback(
        ctx,
        callback,
        None,
        list(operands),
        ctx.avals_in,
        ctx.avals_out,
        has_side_effect=False,
        returns_token=False,
    )
    return results


mlir.register_lowering(factorise_p, _anywhere)
mlir.register_lowering(factorise_p, _on_cpu, platform="cpu")


def _in_jax(ctx: Any, operands: Any, wanted: str, route: str) -> Any:
    small = route == "small" and wanted != "factor"
    work = partial(_portable.small if small else _portable.library, wanted=wanted)
    function = partial(_flattened, jnp, work, wanted)
    # Traced with shapes alone: over which axes of a mesh they vary the primitive has said.
    avals = [jax.core.ShapedArray(aval.shape, aval.dtype) for aval in ctx.avals_in]
    within = ctx.replace(primitive=None, avals_in=avals, avals_out=None)
    return mlir.lower_fun(function, multiple_results=True)(within, *operands)


def _flattened(xp: Any, work: Callable[..., Any], wanted: str, *operands: Any) -> tuple[Any, ...]:
    """Results of ``work`` on K (g, n, n), amounts (g, 3), y (g, m, n), whatever the batch axes.

    Axes that only y has become its axis m. ``xp`` is jnp or np.
    """
    K, amounts, *ys = operands
    n = K.shape[-1]
    of_matrix, of_all = _batch_shapes(*operands)
    axes = range(len(of_all))
    alone = [i for i in axes if of_matrix[i] == of_all[i]]
    shared = [i for i in axes if of_matrix[i] != of_all[i]]
    order = (*alone, *shared)
    g, m = (math.prod(of_all[i] for i in part) for part in (alone, shared))
    if K.shape[:-2] != of_matrix:
        K = xp.broadcast_to(K, (*of_matrix, n, n))
    K = K.reshape(g, n, n)
    amounts = xp.broadcast_to(amounts, (*of_matrix, amounts.shape[-1])).reshape(g, -1)
    ys = [xp.broadcast_to(y, (*of_all, n)).transpose(*order, -1).reshape(g, m, n) for y in ys]

    def restored(x: Any, kind: str) -> Any:
        if kind == "matrix":
            return x.reshape((*of_matrix, *x.shape[1:]))
        x = x.reshape((*(of_all[i] for i in order), *x.shape[2:]))
        return x.transpose((*(order.index(i) for i in axes), *range(len(order), x.ndim)))

    results = work(K, amounts, *ys)
    return tuple(restored(x, kind) for x, kind in zip(results, RESULTS[wanted], strict=True))

"""Likelihoods with their derivatives from one pass, of a batch a cache full of it at a time.

In reverse mode a batch would write all of its matrices, then all inverses, and read both again on
the way back; and eagerly, one process keeps several. Here, where derivatives are wanted,
likelihoods come together with their slopes, for as many elements as a cache holds, and nothing of
the size of the matrices outlives them.
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from ..kernels._levels import Level, varying, vmap_levels

# Numbers in the covariance matrices that are worked on together: of a CPU, whose caches they stay
# in. Other devices have work for all of their units with more.
AT_ONCE, ELSEWHERE = 1 << 18, 1 << 26

Axes = list[tuple[bool, ...]]


def in_one_pass(rows: int) -> Callable[..., tuple[Array, Array]]:
    """A way to go through elements of so many rows, as `vmap_levels` does, for functions that give
    one number with derivatives and one without."""

    def over(
        function: Callable[..., tuple[Array, Array]],
        levels: tuple[Level, ...],
        values: list[Any],
        has_axes: Axes,
    ) -> tuple[Array, Array]:
        plainly = lambda: vmap_levels(function, levels, values, has_axes)
        if not all(level.size for level in levels):
            return plainly()  # nothing to go through
        there = [value is not None for value in values]
        arrays = [value for value in values if value is not None]
        axes = [own for own, known in zip(has_axes, there, strict=True) if known]

        def element(*arrays: Array) -> tuple[Array, Array]:
            given = iter(arrays)
            return function(*(next(given) if known else None for known in there))

        # What functions of the user's close over, and may trace, goes in as all else does.
        one = [x[(0,) * sum(own)] for x, own in zip(arrays, axes, strict=True)]
        around, rest = eqx.partition(eqx.filter_closure_convert(element, *one), eqx.is_array)
        around, treedef = jax.tree.flatten(around)
        count = len(arrays)
        if any(varying(jax.typeof(x)) for x in (*arrays, *around)):
            # Inside a `shard_map` that keeps account, where a slope in what the devices share would
            # be added up among them.
            return plainly()

        def closed(*arrays: Array) -> tuple[Array, Array]:
            own, outside = arrays[:count], arrays[count:]
            found: tuple[Array, Array] = eqx.combine(jax.tree.unflatten(treedef, outside), rest)(
                *own
            )
            return found

        axes = [*axes, *((False,) * len(levels) for _ in around)]
        return _differentiated(closed, levels, axes, rows)(*arrays, *map(jnp.asarray, around))

    return over


def _differentiated(
    element: Callable[..., tuple[Array, Array]], levels: tuple[Level, ...], axes: Axes, rows: int
) -> Callable[..., tuple[Array, Array]]:
    def plainly(*arrays: Array) -> tuple[Array, Array]:
        found: tuple[Array, Array] = vmap_levels(element, levels, list(arrays), axes)
        return found

    def rule(primals: Any, tangents: Any) -> Any:
        moving = [not isinstance(tangent, SymbolicZero) for tangent in tangents]

        def with_slopes(*arrays: Array) -> Any:
            of_moving, free = _of_moving(element, arrays, moving)
            which = tuple(range(len(free)))
            return jax.value_and_grad(of_moving, which, has_aux=True)(*free)

        try:
            (value, other), slopes = _by_chunks(with_slopes, levels, primals, axes, rows)
        except ValueError:
            # What cannot be transposed, as a loop of unknown length, has derivatives all the same.
            of_moving, free = _of_moving(plainly, primals, moving)
            return jax.jvp(of_moving, free, [t for t, m in zip(tangents, moving, strict=True) if m])
        moved = [(t, own) for t, own, m in zip(tangents, axes, moving, strict=True) if m]
        parts = [_inner(slope, *at) for slope, at in zip(slopes, moved, strict=True)]
        return (value, other), (sum(parts[1:], parts[0]), jnp.zeros_like(other))

    everything = jax.custom_jvp(plainly)
    everything.defjvp(rule, symbolic_zeros=True)
    return everything


def _of_moving(
    function: Callable[..., Any], values: Any, moving: list[bool]
) -> tuple[Callable[..., Any], list[Any]]:
    """The function of those arguments that move, and their values."""

    def of_moving(*free: Array) -> Any:
        changed = iter(free)
        pairs = zip(values, moving, strict=True)
        return function(*(next(changed) if moves else old for old, moves in pairs))

    return of_moving, [value for value, moves in zip(values, moving, strict=True) if moves]


def _inner(slope: Array, tangent: Array, own: tuple[bool, ...]) -> Array:
    """What a tangent with the batch axes ``own`` adds to each element."""
    absent = tuple(axis for axis, has in enumerate(own) if not has)
    change = slope * jnp.expand_dims(tangent, absent)
    return jnp.sum(change, axis=tuple(range(len(own), change.ndim)))


def _by_chunks(
    function: Callable[..., Any],
    levels: tuple[Level, ...],
    values: Any,
    axes: Axes,
    rows: int,
) -> Any:
    """`vmap_levels`, for some elements of the outermost level at a time."""
    if not levels:
        return function(*values)
    size, inner = levels[0].size, math.prod(level.size for level in levels[1:])
    most = AT_ONCE if jax.default_backend() == "cpu" else ELSEWHERE
    chunks = _chunks(size, most // max(1, inner * rows * rows))
    own = [value for value, at in zip(values, axes, strict=True) if at[0]]
    if chunks == 1 or not own:
        return vmap_levels(function, levels, list(values), axes)
    each = -(-size // chunks)
    part = (levels[0]._replace(size=each), *levels[1:])
    padding = each * chunks - size  # by the last element again

    def one(own: list[Array]) -> Any:
        given = iter(own)
        pairs = zip(values, axes, strict=True)
        arrays = [next(given) if at[0] else value for value, at in pairs]
        return vmap_levels(function, part, arrays, axes)

    # A chunk takes every so manieth element: where a batch is shared out over devices, each of
    # them has some of every chunk.
    def split(x: Array) -> Array:
        x = jnp.concatenate([x, jnp.repeat(x[-1:], padding, axis=0)]) if padding else x
        return jnp.moveaxis(x.reshape(each, chunks, *x.shape[1:]), 1, 0)

    joined = lambda x: jnp.moveaxis(x, 0, 1).reshape(each * chunks, *x.shape[2:])[:size]
    return jax.tree.map(joined, jax.lax.map(jax.checkpoint(one), [split(value) for value in own]))


def _chunks(size: int, most: int) -> int:
    """The number of chunks of at most so many elements: one that divides ``size`` if near."""
    least = -(-size // max(1, most))
    return next((count for count in range(least, 2 * least) if size % count == 0), least)

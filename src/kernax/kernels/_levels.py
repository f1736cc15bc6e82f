"""One function of a kernel and sets of points, over every batch axis there is."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jax.sharding import PartitionSpec
from jaxtyping import Array

from .. import _padding
from .._errors import ShapeError
from .._module import named_leaves
from .._nodes import INSIDE, Stacked


class Level(NamedTuple):
    """One batch axis: its length, and whether inputs have it too."""

    size: int
    over_inputs: bool


class Batched:
    """Marks a kernel that adds a batch axis to its ``inner_kernel``."""

    __slots__ = ()

    inner_kernel: Any


def aligned(parts: list[tuple[Level, ...]]) -> tuple[Level, ...]:
    """The levels of kernels side by side, aligned from the innermost."""
    longest = max(parts, key=len, default=())
    for part in parts:
        for level, other in zip(reversed(part), reversed(longest), strict=False):
            if level != other:
                raise ShapeError(
                    f"batches side by side have {level.size} and {other.size} elements, over "
                    f"inputs {level.over_inputs} and {other.over_inputs}, expected the same. "
                    "Fix: build them with one batch_size and one batch_over_inputs."
                )
    return longest


class PointSet(NamedTuple):
    """Points (n, d), with leading batch axes or shared by all elements, and which rows are real."""

    points: Array
    name: str
    mask: Array | None = None
    may_share: bool = False  # one set for all elements, where others have one each


def over_levels(function: Callable[..., Array], kernel: Any, *sets: PointSet) -> Array:
    """``function(kernel, points, ..., mask, ...)`` on single sets, with batch axes in front.

    The kernel comes to ``function`` without its batches. Raises `ShapeError` where points do not
    have the batch axes that the kernel expects.
    """
    _check_points(sets)
    levels, (inner, leaf_axes) = kernel.levels(), unbatched(kernel)
    if not levels:
        # A plain kernel, with the same hyperparameters for each set of a batch.
        sizes = [s.points.shape[0] for s in sets if s.points.ndim == 3]
        levels = (Level(sizes[0], True),) if sizes else ()
        sets = tuple(s._replace(may_share=True) for s in sets)
    for each in sets:
        check_batch(each, levels, kernel)
    arrays = [*(s.points for s in sets), *(s.mask for s in sets)]
    shared = [s.points.ndim == 2 for s in sets]
    shared += [s.mask is None or s.mask.ndim == 1 for s in sets]
    depth = len(levels)
    over_inputs = tuple(level.over_inputs for level in levels)
    has_axes = [tuple(depth - 1 - i in own for i in range(depth)) for own in leaf_axes]
    has_axes += [(False,) * depth if one else over_inputs for one in shared]
    leaves, treedef = jtu.tree_flatten(inner)
    dynamic = [leaf for leaf in leaves if eqx.is_array(leaf)]

    def element(*values: Any) -> Array:
        filled = iter(values)
        full = [next(filled) if eqx.is_array(leaf) else leaf for leaf in leaves]
        return function(jtu.tree_unflatten(treedef, full), *filled)

    result: Array = on_devices(vmap_levels, element, levels, [*dynamic, *arrays], has_axes)
    return result


def vmap_levels(
    function: Callable[..., Any],
    levels: tuple[Level, ...],
    values: list[Any],
    has_axes: list[tuple[bool, ...]],
) -> Any:
    """``function(*values)`` over one leading axis per level, the outermost first.

    ``has_axes`` says for each value, or tree of values, which levels it has an axis for; a result
    that no value gives an axis is repeated.
    """
    if not levels:
        return function(*values)
    axes = tuple(0 if own[0] else None for own in has_axes)
    inner = [own[1:] for own in has_axes]
    step = lambda *values: vmap_levels(function, levels[1:], list(values), inner)
    size = levels[0].size
    if not any(axis == 0 for axis in axes):
        repeat = lambda result: jnp.broadcast_to(result[None], (size, *result.shape))
        return jax.tree.map(repeat, step(*values))
    return jax.vmap(step, in_axes=axes, axis_size=size)(*values)


def on_devices(
    over: Callable[..., Any],
    function: Callable[..., Any],
    levels: tuple[Level, ...],
    values: list[Any],
    has_axes: list[tuple[bool, ...]],
) -> Any:
    """``over(function, levels, values, has_axes)``: what `vmap_levels` gives.

    Where the types of arrays say that devices share out the outermost axis, each goes through its
    own elements, and nothing is moved between them.
    """
    first = [bool(own and own[0]) for own in has_axes]
    batched = [value for value, has in zip(values, first, strict=True) if has]
    places = [jax.typeof(leaf).sharding for leaf in jax.tree.leaves(batched)]
    owners = [place for place in places if place.spec and place.spec[0] is not None]
    if not owners:
        return over(function, levels, values, has_axes)
    mesh, axis = owners[0].mesh, owners[0].spec[0]
    own, whole = PartitionSpec(axis), PartitionSpec()
    names = axis if isinstance(axis, tuple) else (axis,)
    part = levels[0]._replace(size=levels[0].size // math.prod(mesh.shape[name] for name in names))
    specs = [own if has else whole for has in first]
    placed = lambda value, spec: jax.tree.map(
        lambda leaf: jax.sharding.reshard(leaf, jax.sharding.NamedSharding(mesh, spec)), value
    )
    return jax.shard_map(
        lambda values: over(function, (part, *levels[1:]), values, has_axes),
        mesh=mesh, in_specs=(specs,), out_specs=own, check_vma=False,
    )([placed(value, spec) for value, spec in zip(values, specs, strict=True)])  # fmt: skip


def varying(aval: Any) -> Any:
    """The axes of a mesh over which an array inside `shard_map` differs (by version of JAX)."""
    mat = getattr(aval, "manual_axis_type", None)
    return getattr(aval, "vma", ()) if mat is None else mat.varying


def varied(x: Array, *others: Any) -> Array:
    """x as one that differs over all those axes over which any array of ``others`` does: what a
    loop starts from where they come in."""
    own, found = set(varying(jax.typeof(x))), set[Any]()
    for leaf in filter(eqx.is_array, jax.tree.leaves(others)):
        found.update(varying(jax.typeof(leaf)))
    missing = tuple(found - own)
    if not missing:
        return x
    cast = getattr(jax.lax, "pcast", None)
    wide: Array = cast(x, missing, to="varying") if cast else jax.lax.pvary(x, missing)
    return wide


def _check_points(sets: tuple[PointSet, ...]) -> None:
    for points, name, mask, _ in sets:
        if points.shape[-1] == 0:
            raise ShapeError(
                f"`{name}` has shape {points.shape}: need at least 1 input dimension. "
                "Fix: pass (n, d) or (b, n, d)."
            )
        if mask is not None:
            _padding.check_mask(mask, points.shape, "mask" if name in ("X", "x1") else "mask2")
    first, last = sets[0], sets[-1]
    if first.points.shape[-1] != last.points.shape[-1]:
        raise ShapeError(
            f"`x1` has dimension {first.points.shape[-1]} and `x2` has dimension "
            f"{last.points.shape[-1]} (shapes {first.points.shape} and {last.points.shape}), "
            "expected the same. Fix: pass equally many columns."
        )


def check_batch(each: PointSet, levels: tuple[Level, ...], kernel: Any) -> None:
    """`ShapeError` where points do not have the batch axes that the kernel expects of them."""
    shape, sizes = each.points.shape, tuple(level.size for level in levels if level.over_inputs)
    if len(shape) == 2 and (each.may_share or not sizes):
        return
    if len(shape) == 2 + len(sizes) and shape[:-2] == sizes:
        return
    wanted = ", ".join(map(str, (*sizes, "n", "d")))
    if not levels:
        raise ShapeError(
            f"`{each.name}` has shape {shape}: at most 3 axes expected. "
            "Fix: pass (n, d) or (b, n, d)."
        )
    if not kernel.levels():
        raise ShapeError(
            f"batches of {sizes[0]} and {shape[0]} point sets, expected the same number. "
            "Fix: pass sets in equal batches."
        )
    batched = [entry for entry in named_leaves(kernel) if entry.batches]
    named = f" (`{batched[0].path}` has shape {batched[0].value.shape})" if batched else ""
    raise ShapeError(
        f"`{each.name}` has shape {shape}, but the kernel is a batch over "
        f"{tuple(level.size for level in levels)}{named} and expects ({wanted}). "
        "Fix: pass as many sets as the batch has elements, or build the batch with "
        f"batch_over_inputs={'False' if sizes else 'True'}."
    )


def unbatched(kernel: Any) -> tuple[Any, list[frozenset[int]]]:
    """The tree without batch kernels, and for each array leaf the levels that gave it an axis.

    Levels count from the innermost, 0. Their axes lead in every leaf, the outermost first.
    """
    axes: list[frozenset[int]] = []

    def strip(node: Any, around: tuple[int, ...]) -> Any:
        def visit(part: Any) -> Any:
            if isinstance(part, Batched):
                own = len(part.inner_kernel.levels())
                return strip(part.inner_kernel, (*around, own))
            own_axes = part.axes if isinstance(part, Stacked) else ()
            if len(own_axes) != len(around) and eqx.is_array_like(unstacked(part)):
                raise ShapeError(_misplaced(around))
            if eqx.is_array(unstacked(part)):
                axes.append(frozenset(n for n, has in zip(around, own_axes, strict=True) if has))
            return unstacked(part)

        return jtu.tree_map(visit, node, is_leaf=lambda n: isinstance(n, Batched | Stacked))

    return strip(kernel, ()), axes


def _misplaced(around: tuple[int, ...]) -> str:
    if around:
        return (
            "a hyperparameter of a BatchKernel was exchanged for an array without its batch. "
            "Fix: use batch.replace(name=values)."
        )
    return INSIDE


def unstacked(leaf: Any) -> Any:
    return leaf.values if isinstance(leaf, Stacked) else leaf

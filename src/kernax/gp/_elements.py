"""One function of a process and what goes with it, over every batch axis there is."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import ParameterError, ShapeError
from .._module import with_fields
from ..kernels._levels import Level, on_devices, unbatched, vmap_levels
from ._means import ConstantMean


class Per(NamedTuple):
    """An array, or None, with ``ndim`` axes for one element; what leads them are batch axes.

    ``ndim=None``: a tree whose arrays all have every batch axis.
    """

    value: Any
    ndim: int | None = None

    def axes(self, levels: tuple[Level, ...]) -> tuple[bool, ...]:
        """Which batch axes it has."""
        batches = len(levels)
        extra = (
            batches
            if self.ndim is None
            else self.value is not None and (self.value.ndim - self.ndim)
        )
        if extra in (0, batches):
            return (extra == batches,) * batches
        return tuple(level.over_inputs for level in levels)


def over_elements(
    function: Callable[..., Any],
    gp: Any,
    *others: Per,
    part: Any = None,
    over: Callable[..., Any] = vmap_levels,
) -> Any:
    """``function(gp, part, *values)`` for one element of a batch, with batch axes in front.

    The process comes to ``function`` without its batches, and so does ``part``, a kernel of the
    same batches or None. ``over``: how the elements are gone through.
    """
    levels: tuple[Level, ...] = gp.kernel.levels()
    if not levels and over is vmap_levels:  # other ways do more than go through elements
        return function(gp, part, *(other.value for other in others))
    kernels, leaf_axes = unbatched((gp.kernel, part))
    leaves, treedef = jax.tree.flatten(kernels)
    arrays = [leaf for leaf in leaves if eqx.is_array(leaf)]
    depth = len(levels)
    has_axes = [tuple(depth - 1 - i in own for i in range(depth)) for own in leaf_axes]
    beside = _own(gp, depth)
    others = (*beside, *others)

    def element(*found: Any) -> Any:
        filled = iter(found)
        full = [next(filled) if eqx.is_array(leaf) else leaf for leaf in leaves]
        kernel, own_part = jax.tree.unflatten(treedef, full)
        single = _single(gp, kernel, *(next(filled) for _ in beside))
        return function(single, own_part, *filled)

    values = [*arrays, *(other.value for other in others)]
    axes = [*has_axes, *(other.axes(levels) for other in others)]
    return on_devices(over, element, levels, values, axes)


def element_of(gp: Any, index: Any, *others: Per) -> tuple[Any, ...]:
    """The process and values of one element, by its number among all, which may be traced."""
    levels: tuple[Level, ...] = gp.kernel.levels()
    if not levels:
        return (gp, *(other.value for other in others))
    sizes = tuple(level.size for level in levels)
    place = jnp.unravel_index(index, sizes) if len(sizes) > 1 else (index,)

    def pick(array: Any, axes: tuple[bool, ...]) -> Any:
        return array[tuple(i for i, has in zip(place, axes, strict=True) if has)]

    kernel, leaf_axes = unbatched(gp.kernel)
    leaves, treedef = jax.tree.flatten(kernel)
    depth, found = len(levels), iter(leaf_axes)
    for number, leaf in enumerate(leaves):
        if eqx.is_array(leaf):
            own = next(found)
            leaves[number] = pick(leaf, tuple(depth - 1 - i in own for i in range(depth)))
    beside = _own(gp, depth)
    values = [
        None if other.value is None else pick(other.value, other.axes(levels))
        for other in (*beside, *others)
    ]
    single = _single(gp, jax.tree.unflatten(treedef, leaves), *values[: len(beside)])
    return (single, *values[len(beside) :])


def _single(gp: Any, kernel: Any, noise: Any, spread: Any, *of_mean: Any) -> Any:
    arrays, rest = eqx.partition(gp.mean, eqx.is_array)
    mean = eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), of_mean), rest)
    return with_fields(gp, kernel=kernel, noise_variance=noise, input_variance=spread, mean=mean)


def _own(gp: Any, batches: int) -> tuple[Per, ...]:
    """What a process has beside its kernel: the noise of values and of inputs, and the arrays of
    its mean, of which the value of a constant one may have batch axes."""
    noises = (gp.noise_variance, gp.input_variance)
    arrays = jax.tree.leaves(eqx.filter(gp.mean, eqx.is_array))
    shared = not isinstance(gp.mean, ConstantMean)
    return (
        *(Per(v, 0 if v is None else max(v.ndim - batches, 0)) for v in noises),
        *(Per(v, v.ndim if shared else 0) for v in arrays),
    )


def check_shapes(gp: Any) -> None:
    """Errors unless what a process has per element fits the batches of its kernel."""
    sizes = tuple(level.size for level in gp.kernel.levels())
    shape = np.shape(gp.noise_variance)
    if len(shape) > len(sizes) + 1 or (shape and shape[: len(sizes)] != sizes):
        batch = ", ".join(map(str, sizes))
        wanted = f"({batch},), one per element, or ({batch}, n)" if sizes else "(n,)"
        raise ParameterError(
            f"`noise_variance` has shape {shape}, expected a scalar or {wanted}. "
            "Fix: pass one value, or one per point."
        )
    level = gp.mean.value.shape if isinstance(gp.mean, ConstantMean) else ()
    if sizes and level not in ((), sizes):
        raise ShapeError(
            f"ConstantMean: `value` has shape {level}, expected () or {sizes}. "
            "Fix: pass one number, or one per element of the batch."
        )

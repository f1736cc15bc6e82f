"""Batches of kernels: the same formula with hyperparameters, or inputs, of its own per element."""

import operator
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from .._errors import ParameterError, ShapeError
from .._module import resolve
from .._nodes import Stacked, path_name
from ._base import AbstractKernel
from ._compose import Call, TransparentKernel, as_kernel
from ._levels import Batched, Level, unstacked


class BatchKernel(TransparentKernel, Batched):
    """``inner_kernel`` once per element of a batch.

    ``batch_in_axes`` says which hyperparameters have a value of their own per element, along a
    new leading axis of length ``batch_size``: None shares all, 0 batches all, a dict of names or a
    tree like ``inner_kernel`` of 0 and None mixes. They start equal; ``replace`` sets them apart.
    ``batch_over_inputs`` says whether inputs are (b, n, d) or one shared (n, d); it reads back as
    0 or None.

    The batch is the outermost axis of every result: (b, n, m). Batches nest, the outer one first,
    and combine with numbers, plain kernels and other batches, aligned from the innermost; their
    sizes and ``batch_over_inputs`` must agree, else `ShapeError`. A second set of points (m, d) is
    shared. ``batch[i]`` is the kernel of element i. A batch has no ``pairwise``, and its
    ``inner_kernel`` cannot be evaluated by itself.
    """

    inner_kernel: AbstractKernel
    batch_size: int = eqx.field(static=True, converter=lambda value: _as_size(value))
    # 0 is an axis here, so that only None and False share.
    batch_over_inputs: Literal[0] | None = eqx.field(
        static=True, converter=lambda value: None if value is None or value is False else 0
    )

    def __init__(
        self,
        inner_kernel: Any,
        batch_size: Any,
        batch_in_axes: Any = None,
        batch_over_inputs: Any = True,
    ):
        inner, size = as_kernel(inner_kernel), _as_size(batch_size)
        axes = iter(_axes(inner, batch_in_axes))
        self.inner_kernel = jtu.tree_map(
            lambda leaf: _stack(leaf, next(axes), size),
            inner,
            is_leaf=lambda node: isinstance(node, Stacked),
        )
        self.batch_size, self.batch_over_inputs = size, batch_over_inputs

    @property
    def batch_in_axes(self) -> dict[str, Literal[0] | None]:
        """0 or None for each hyperparameter of the inner kernel, by its path."""
        return {
            path_name(path): 0 if leaf.axes[0] else None
            for path, leaf in _stacked_leaves(self.inner_kernel)
        }

    def levels(self) -> tuple[Level, ...]:
        own = Level(self.batch_size, self.batch_over_inputs == 0)
        return (own, *self.inner_kernel.levels())

    pairwise = property(
        lambda self: _refuse("a BatchKernel has no `pairwise`. Fix: use batch[i].pairwise(x, y)")
    )

    def compose(self, call: Call, x: Any, y: Any) -> Any:
        raise ShapeError(
            "a BatchKernel was evaluated on one pair of points. Fix: call it on whole sets."
        )

    def sign(self) -> int:
        return self.inner_kernel.sign()

    @property  # again: with `pairwise` the class lost what it inherits
    def stationary(self) -> bool:  # type: ignore[override]
        return self.inner_kernel.stationary

    @property
    def differentiability(self) -> float:  # type: ignore[override]
        return float(self.inner_kernel.differentiability)

    def __len__(self) -> int:
        return self.batch_size

    def __getitem__(self, index: int) -> AbstractKernel:
        """The kernel of one element."""
        i = operator.index(index)
        if not -self.batch_size <= i < self.batch_size:
            raise IndexError(
                f"batch[{i}]: the batch has {self.batch_size} elements. Fix: use an index from "
                f"{-self.batch_size} to {self.batch_size - 1}."
            )

        def element(leaf: Any) -> Any:
            if not isinstance(leaf, Stacked):
                return leaf
            values = leaf.values[i] if leaf.axes[0] else leaf.values
            return Stacked(values, leaf.axes[1:]) if leaf.axes[1:] else values

        kernel: AbstractKernel = jtu.tree_map(
            element, self.inner_kernel, is_leaf=lambda node: isinstance(node, Stacked)
        )
        return kernel


def _stack(leaf: Any, batched: bool, size: int) -> Any:
    values = unstacked(leaf)
    if not eqx.is_array(values):
        return leaf
    if batched:
        values = _repeated(values, size)
    return Stacked(values, (batched, *(leaf.axes if isinstance(leaf, Stacked) else ())))


def _repeated(values: Any, size: int) -> Any:
    """The values ``size`` times, on the host if they are known: nothing is compiled for it."""
    shape = (size, *values.shape)
    if isinstance(values, jax.core.Tracer) or len(values.sharding.device_set) > 1:
        return jnp.broadcast_to(values[None], shape)
    return jnp.asarray(np.array(np.broadcast_to(np.asarray(values), shape)))


def _stacked_leaves(kernel: AbstractKernel) -> list[tuple[Any, Any]]:
    found, _ = jtu.tree_flatten_with_path(kernel, is_leaf=lambda node: isinstance(node, Stacked))
    return [(path, leaf) for path, leaf in found if eqx.is_array(unstacked(leaf))]


def _axes(inner: AbstractKernel, given: Any) -> list[bool]:
    """Whether each leaf of the inner kernel gets the batch axis."""
    paths = [path_name(path) for path, _ in _stacked_leaves(inner)]
    if given is None or (isinstance(given, int) and not isinstance(given, bool)):
        return [_is_zero(given)] * len(paths)
    if isinstance(given, dict):
        named = {
            resolve(name, paths, "hyperparameter"): _is_zero(axis) for name, axis in given.items()
        }
        return [named.get(path, False) for path in paths]
    found, _ = jtu.tree_flatten_with_path(given, is_leaf=lambda node: node is None)
    stated = {path_name(path): axis for path, axis in found}
    different = [path for path in (*paths, *stated) if (path in paths) != (path in stated)]
    if different:
        raise ShapeError(
            f"`batch_in_axes` does not have the structure of the kernel: they differ at "
            f"'{different[0]}'. Fix: pass 0, None, a dict of names, or a tree like the kernel."
        )
    return [_is_zero(stated[path]) for path in paths]


def _is_zero(axis: Any) -> bool:
    if axis is None:
        return False
    if isinstance(axis, int) and not isinstance(axis, bool) and axis == 0:
        return True
    raise ParameterError(
        f"`batch_in_axes` holds {axis!r}, expected 0 (a value per element) or None (shared). "
        "Fix: use one of these."
    )


def _as_size(value: Any) -> int:
    try:
        size = -1 if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        size = -1
    if size < 0:
        raise ParameterError(
            f"`batch_size` is {value!r}, expected a whole number >= 0. Fix: pass for instance 3."
        )
    return size


def _refuse(text: str) -> Any:
    raise AttributeError(text)

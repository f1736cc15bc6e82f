"""Pytree nodes that stand in a module in place of a hyperparameter."""

from typing import Any

import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np


class Unit(float):
    """The number 1 in place of a hyperparameter that is no longer there: a node without leaves."""

    def __repr__(self) -> str:
        return "1"


jtu.register_pytree_node(Unit, lambda unit: ((), None), lambda aux, children: Unit(1.0))


class Tied:
    """In place of a hyperparameter that is read from another one: a node without leaves."""

    __slots__ = ("source",)

    def __init__(self, source: str):
        self.source = source

    def __repr__(self) -> str:
        return self.source

    def __reduce__(self) -> Any:
        return Tied, (self.source,)


jtu.register_pytree_node(Tied, lambda node: ((), node.source), lambda source, _: Tied(source))


class Tying:
    """Marks a module with `Tied` nodes inside; ``untied()`` is the inside without them."""

    __slots__ = ()

    untied: Any


def untied(module: Any) -> Any:
    """The tree without modules that tie: in their place what is inside, with a value each."""
    is_tying = lambda node: isinstance(node, Tying)
    undo = lambda node: untied(node.untied()) if is_tying(node) else node
    return jtu.tree_map(undo, module, is_leaf=is_tying)


def with_ones(module: Any, dtype: Any) -> Any:
    """The tree with its units filled in, by ones of a dtype."""
    is_unit = lambda node: isinstance(node, Unit)
    one = jnp.ones((), dtype)
    return jtu.tree_map(lambda node: one if is_unit(node) else node, module, is_leaf=is_unit)


INSIDE = (
    "this kernel is the inside of a BatchKernel and cannot be evaluated by itself. "
    "Fix: call the batch, or take an element with batch[i]."
)


class Stacked:
    """A hyperparameter inside batch kernels: its ``values``, and which batches gave them an axis.

    ``axes`` has one entry per batch kernel around it, the outermost first. It is no array, so that
    a kernel taken out of its batch cannot be evaluated as if a batch axis were one of dimensions.
    """

    __slots__ = ("axes", "values")
    __array_ufunc__ = None  # no arithmetic; NumPy may read it

    def __init__(self, values: Any, axes: tuple[bool, ...]):
        self.values, self.axes = values, axes

    shape = property(lambda self: jnp.shape(self.values))
    ndim = property(lambda self: jnp.ndim(self.values))
    dtype = property(lambda self: self.values.dtype)
    size = property(lambda self: int(np.prod(self.shape, dtype=int)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self.values, dtype)

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"Stacked({self.values!r})"

    def __reduce__(self) -> Any:
        return Stacked, (self.values, self.axes)


class Inside:
    """The step of a path into a node of this module, which names do not show."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Inside)

    def __hash__(self) -> int:
        return hash(Inside)

    def __repr__(self) -> str:
        return ""


def _restack(axes: tuple[bool, ...], children: Any) -> Stacked:
    (values,) = children
    return Stacked(values, axes)


jtu.register_pytree_with_keys(
    Stacked,
    lambda node: (((Inside(), node.values),), node.axes),
    _restack,
    lambda node: ((node.values,), node.axes),
)


def path_name(path: tuple[Any, ...]) -> str:
    """A path of the tree as dotted names."""
    return ".".join(_step_name(key) for key in path if not isinstance(key, Inside))


def _step_name(key: Any) -> str:
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)

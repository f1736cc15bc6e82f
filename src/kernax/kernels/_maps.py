"""Maps of points: what a kernel does to its inputs first, or reads a scale from.

A map takes one point (d,). It is a module with hyperparameters of its own, or a plain function,
which is then part of the structure of the kernel.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._errors import ParameterError, ShapeError
from .._inputs import check_dtype, common_dtype
from .._module import Parameterised, as_parameter, field_values, short
from .._nodes import Unit
from .._typing import Point, PointOrPoints
from ._base import AbstractKernel


class Transform(Parameterised):
    """Base of the maps x -> z with hyperparameters.

    To write one, subclass it with fields for them, and the formula at one point::

        class Stretch(kernax.transforms.Transform):
            power: Array = kernax.positive(1.0)

            def __call__(self, x):
                return jnp.sign(x) * jnp.abs(x) ** self.power
    """

    @abc.abstractmethod
    def __call__(self, x: Point) -> Array:
        """The image of one point (d,): a vector, or a scalar."""

    def __repr__(self) -> str:
        arguments = [
            f"{name}={short(value) if hasattr(value, 'dtype') else repr(value)}"
            for name, value in field_values(self).items()
            if not isinstance(value, Unit)
        ]
        return f"{type(self).__name__}({', '.join(arguments)})"


class Function(Transform):
    """A plain function as a map: no leaf of the tree, so that kernels stay arguments of `jit`."""

    function: Callable[..., Any] = eqx.field(static=True)

    def __call__(self, x: Point) -> Any:
        """What the function says."""
        return self.function(x)

    def __repr__(self) -> str:
        return str(getattr(self.function, "__name__", None) or repr(self.function))


def as_map(value: Any, name: str) -> Any:
    """What the field ``name`` holds: a module as it is, a function as a `Function`.

    Python numbers in a module become arrays, hyperparameters as in a kernel, and weakly typed
    arrays strong ones. `ParameterError` for what is no map.
    """
    wrong = isinstance(value, type | AbstractKernel)
    if wrong or not callable(value):
        what = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
        raise ParameterError(
            f"`{name}` is {what}, expected a function of one point. "
            "Fix: pass a function, or an instance of a class of kernax.transforms."
        )
    if not jax.tree_util.all_leaves([value]):
        if not any(map(_is_loose, jax.tree.leaves(value))):
            return value
        strict = lambda leaf: as_parameter(leaf, name) if _is_loose(leaf) else leaf
        return jax.tree.map(strict, value)
    try:
        hash(value)
    except TypeError as error:
        raise ParameterError(
            f"`{name}` is an unhashable {type(value).__name__}, and could not be told from others "
            "when compiled. Fix: write it as an equinox.Module, or as a function."
        ) from error
    return Function(value)


def _is_loose(leaf: Any) -> bool:
    return type(leaf) in (int, float) or (eqx.is_inexact_array(leaf) and leaf.weak_type)


def evaluate(function: Any, x: PointOrPoints, name: str) -> Array:
    """The map at one point (d,), or at each of n: (q,) or (n, q); where it is scalar () or (n,)."""
    leaves = [leaf for leaf in jax.tree.leaves(function) if eqx.is_inexact_array(leaf)]
    x = x.astype(common_dtype(x, *leaves))
    at = lambda point: _checked(function(point), point, name)
    return at(x) if x.ndim == 1 else jax.vmap(at)(x)


def _checked(value: Any, x: Array, name: str) -> Array:
    fix = "Fix: write it for one point (d,), and return a number or a vector."
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise ShapeError(
            f"`{name}` returned {type(value).__name__} for a point of shape {x.shape}, expected "
            f"an array of shape () or (q,). {fix}"
        ) from error
    check_dtype(array.dtype, f"{name}(x)")
    if array.ndim > 1 or array.size == 0:
        raise ShapeError(
            f"`{name}` returned shape {array.shape} for a point of shape {x.shape}, expected () "
            f"or (q,). {fix}"
        )
    return array.astype(x.dtype)

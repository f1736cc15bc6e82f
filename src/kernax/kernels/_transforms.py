"""Kernels of transformed inputs: chosen dimensions, and one length-scale per dimension."""

import operator
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array

from .._errors import ParameterError, ShapeError
from .._nodes import Stacked, Tied, Unit, with_ones
from .._parameters import positive
from .._typing import OtherPointOrPoints, Parameter, PointOrPoints
from ._base import AbstractKernel
from ._compose import Call, TransparentKernel, WrapperKernel, as_kernel


def _as_dims(value: Any) -> tuple[int, ...]:
    try:
        items = np.atleast_1d(value).tolist()
        if any(isinstance(item, bool) for item in items):
            raise TypeError
        dims = tuple(operator.index(item) for item in items)
    except TypeError as error:
        raise ParameterError(
            f"`active_dims` got {value!r}, expected whole numbers. Fix: pass a list such as [0, 2]."
        ) from error
    if not dims:
        raise ParameterError(
            "`active_dims` is empty, expected at least one dimension. Fix: name the columns the "
            "kernel reads, for instance [0]."
        )
    if len(set(dims)) < len(dims):
        raise ParameterError(
            f"`active_dims` got {list(dims)}, expected no dimension twice. "
            "Fix: name each column once."
        )
    return dims


class ActiveDimsKernel(TransparentKernel, WrapperKernel):
    """``inner_kernel`` on some of the dimensions.

    k(x, y) = inner(x[active_dims], y[active_dims])

    Dimensions count from 0, or from the end where negative. They are checked against the data
    when the kernel first meets them: `ShapeError` for one that is not there. Empty or repeated
    ones are a `ParameterError` at once.
    """

    active_dims: tuple[int, ...] = eqx.field(static=True, converter=_as_dims)

    def compose(self, call: Call, x: PointOrPoints, y: OtherPointOrPoints) -> Any:
        for points in (x, y):
            self.check(points.shape[-1])
        return call(self.inner_kernel, self.chosen(x), self.chosen(y))

    def rescaled(self, length_scales: Array) -> AbstractKernel:
        self.check(length_scales.shape[-1])
        inner = self.inner_kernel.rescaled(self.chosen(length_scales))
        return ActiveDimsKernel(inner, self.active_dims)

    def chosen(self, x: PointOrPoints) -> Array:
        """The active coordinates, on the last axis."""
        # Slices fuse into the pairs; a gather would not.
        return jnp.stack([x[..., dim] for dim in self.active_dims], axis=-1)

    def check(self, d: int) -> None:
        """Errors unless points of dimension d have the active dimensions, each once."""
        for dim in self.active_dims:
            if not -d <= dim < d:
                raise ShapeError(
                    f"`active_dims` names dimension {dim}, but the points have dimension {d}. "
                    f"Fix: use dimensions from {-d} to {d - 1}."
                )
        if len({dim % d for dim in self.active_dims}) < len(self.active_dims):
            raise ParameterError(
                f"`active_dims` = {list(self.active_dims)} names a dimension twice for points of "
                f"dimension {d}. Fix: name each column once."
            )


class ARDKernel(TransparentKernel, WrapperKernel):
    """``inner_kernel`` with one length-scale per dimension.

    k(x, y) = inner(x / length_scales, y / length_scales)

    Inside it every hyperparameter named exactly ``length_scale`` reads as 1, and is no
    hyperparameter any more, over any tree of kernels; ``period`` and inner ``length_scales``
    stay, in scaled units. The number of ``length_scales``, shape (d,), must be that of the points:
    `ShapeError`.
    """

    inner_kernel: AbstractKernel = eqx.field(converter=lambda kernel: _without_scale(kernel))
    length_scales: Parameter = positive()

    def __check_init__(self) -> None:
        several = isinstance(self.length_scales, list | tuple | Tied)
        if not several and np.ndim(self.length_scales) == 0:
            raise ShapeError(
                "ARDKernel: `length_scales` has shape (), expected (d,), one per dimension. "
                "Fix: pass a list, for instance [1.0, 2.0]."
            )

    def compose(self, call: Call, x: PointOrPoints, y: OtherPointOrPoints) -> Any:
        for points, name in ((x, "x1"), (y, "x2")):
            if self.length_scales.shape != points.shape[-1:]:
                raise ShapeError(
                    f"`length_scales` has shape {self.length_scales.shape}, but `{name}` has "
                    f"dimension {points.shape[-1]}. Fix: pass one length-scale per dimension."
                )
        return call(self._rescaled(self.length_scales), x, y)

    def rescaled(self, length_scales: Array) -> AbstractKernel:
        return self._rescaled(self.length_scales * length_scales)

    def _rescaled(self, length_scales: Array) -> AbstractKernel:
        # Units are numbers of 64 bits to JAX, unless they are filled in.
        inner: AbstractKernel = with_ones(self.inner_kernel, length_scales.dtype)
        return inner.rescaled(length_scales)


def _without_scale(kernel: Any) -> AbstractKernel:
    def hide(path: tuple[Any, ...], leaf: Any) -> Any:
        last = path[-1] if path else None
        name = getattr(last, "name", getattr(last, "key", None))
        return Unit(1.0) if name == "length_scale" else leaf

    hidden: AbstractKernel = jtu.tree_map_with_path(
        hide, as_kernel(kernel), is_leaf=lambda node: isinstance(node, Stacked | Tied)
    )
    return hidden

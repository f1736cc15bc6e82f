"""Sums, products, signs and powers of kernels.

Each is a kernel with a formula of its own, stated once, by ``compose(call, x, y)``: ``call(kernel,
x, y)`` evaluates a part on two points, or on all pairs of two sets. They nest in any order, and
white noise inside them is handled by rewriting the tree, so that user-written kernels take part.
"""

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array

from .._errors import ShapeError
from .._module import field_values, short, with_fields
from .._nodes import Unit
from .._parameters import positive_integer
from .._typing import Matrix, OtherPointOrPoints, OtherPoints, Point, PointOrPoints, Points, Scalar
from ._base import AbstractKernel, subkernels
from ._elementary import ConstantKernel, WhiteNoiseKernel

Call = Callable[[AbstractKernel, Any, Any], Any]


class CompositeKernel(AbstractKernel):
    """Base of the kernels made of other kernels."""

    def __check_init__(self) -> None:
        self.levels()  # batches that do not fit together are refused here

    @abc.abstractmethod
    def compose(self, call: Call, x: PointOrPoints, y: OtherPointOrPoints) -> Any:
        """The rule, for points, for sets of points, and for values that carry derivatives.

        ``call`` gives what has sums, products and whole powers.
        """

    def pairwise(self, x: Point, y: Point) -> Scalar:
        """The rule on one pair of points."""
        return self.compose(lambda kernel, a, b: kernel.pairwise(a, b), x, y)

    def matrix(self, X: Points, Y: OtherPoints) -> Matrix:
        return self.compose(lambda kernel, a, b: kernel.matrix(a, b), X, Y)


class TransparentKernel(CompositeKernel):
    """A composite that is stationary, smooth, and symmetric to the last bit, where its parts are.

    What other classes declare as a constant is a property here (hence the ignored overrides).
    """

    @property
    def stationary(self) -> bool:  # type: ignore[override]
        return all(kernel.stationary for kernel in subkernels(self))

    @property
    def differentiability(self) -> float:  # type: ignore[override]
        return float(min((part.differentiability for part in subkernels(self)), default=math.inf))

    @property
    def symmetric_rounding(self) -> bool:  # type: ignore[override]
        # Where several parts are fused, XLA may round them differently from one pair to another.
        flat = (ConstantKernel, WhiteNoiseKernel)
        parts = [kernel for kernel in subkernels(self) if not isinstance(kernel, flat)]
        return len(parts) < 2 and all(kernel.symmetric_rounding for kernel in parts)


class OperatorKernel(TransparentKernel):
    """A composite that only combines the values of its parts at the same two points."""

    def rescaled(self, length_scales: Array) -> AbstractKernel:
        parts = {
            name: value.rescaled(length_scales)
            for name, value in field_values(self).items()
            if isinstance(value, AbstractKernel)
        }
        return with_fields(self, **parts)


class WrapperKernel(CompositeKernel):
    """Base of the kernels around one ``inner_kernel``; a number becomes a constant kernel.

    A subclass of yours may write ``pairwise`` on top of ``self.inner_kernel.pairwise``.
    """

    inner_kernel: AbstractKernel = eqx.field(converter=lambda value: as_kernel(value))

    def compose(self, call: Call, x: PointOrPoints, y: OtherPointOrPoints) -> Any:
        return call(self.inner_kernel, x, y)


class _PairKernel(OperatorKernel):
    left_kernel: AbstractKernel = eqx.field(converter=lambda value: as_kernel(value))
    right_kernel: AbstractKernel = eqx.field(converter=lambda value: as_kernel(value))


class SumKernel(_PairKernel):
    """k(x, y) = left(x, y) + right(x, y): independent functions added."""

    def compose(self, call: Call, x: PointOrPoints, y: OtherPointOrPoints) -> Any:
        return call(self.left_kernel, x, y) + call(self.right_kernel, x, y)

    def sign(self) -> int:
        left, right = self.left_kernel.sign(), self.right_kernel.sign()
        return left if left == right else 0


class ProductKernel(_PairKernel):
    """k(x, y) = left(x, y) * right(x, y)."""

    def compose(self, call: Call, x: PointOrPoints, y: OtherPointOrPoints) -> Any:
        return call(self.left_kernel, x, y) * call(self.right_kernel, x, y)

    def sign(self) -> int:
        return self.left_kernel.sign() * self.right_kernel.sign()


class NegKernel(OperatorKernel, WrapperKernel):
    """k(x, y) = -inner(x, y): a term of a difference, not a covariance by itself."""

    def compose(self, call: Call, x: PointOrPoints, y: OtherPointOrPoints) -> Any:
        return -call(self.inner_kernel, x, y)

    def sign(self) -> int:
        return -self.inner_kernel.sign()


class PowerKernel(OperatorKernel, WrapperKernel):
    """k(x, y) = inner(x, y)^exponent, for a whole exponent >= 1, which keeps it a covariance."""

    exponent: int = positive_integer()

    def compose(self, call: Call, x: PointOrPoints, y: OtherPointOrPoints) -> Any:
        return call(self.inner_kernel, x, y) ** self.exponent

    def sign(self) -> int:
        return self.inner_kernel.sign() ** self.exponent


def as_kernel(value: Any) -> AbstractKernel:
    """A kernel as it is; a number as a constant kernel, negated where it is negative."""
    if isinstance(value, AbstractKernel):
        return value
    if np.ndim(value):
        raise ShapeError(
            f"a kernel was combined with an array of shape {np.shape(value)}, expected a kernel "
            "or a scalar. Fix: combine it with one number, or use BatchKernel for many."
        )
    if not isinstance(value, jax.core.Tracer) and np.isrealobj(value) and value < 0:
        return NegKernel(ConstantKernel(-value))
    return ConstantKernel(value)


def add(left: Any, right: Any) -> Any:
    # sum([k1, k2]) starts from the integer 0.
    if isinstance(left, int) and left == 0:
        return as_kernel(right)
    return SumKernel(left, right) if _scalar_or_kernel(left, right) else NotImplemented


def subtract(left: Any, right: Any) -> Any:
    return add(left, NegKernel(right)) if _scalar_or_kernel(left, right) else NotImplemented


def multiply(left: Any, right: Any) -> Any:
    return ProductKernel(left, right) if _scalar_or_kernel(left, right) else NotImplemented


def _scalar_or_kernel(*values: Any) -> bool:
    return all(
        isinstance(value, AbstractKernel | int | float | complex | np.generic)
        or hasattr(value, "dtype")
        for value in values
    )


def as_formula(kernel: Any, digits: str) -> str:
    """The kernel as a formula, ``4356 * SE(length_scale=67) + 5 * Linear(...)``."""

    def grouped(part: AbstractKernel, *kinds: type) -> str:
        text = as_formula(part, digits)
        return f"({text})" if isinstance(part, (NegKernel, *kinds)) else text

    match kernel:
        case SumKernel(left_kernel=left, right_kernel=NegKernel(inner_kernel=right)):
            return f"{as_formula(left, digits)} - {grouped(right, SumKernel)}"
        case SumKernel(left_kernel=left, right_kernel=right):
            return f"{as_formula(left, digits)} + {as_formula(right, digits)}"
        case ProductKernel(left_kernel=left, right_kernel=right):
            return f"{grouped(left, SumKernel)} * {grouped(right, SumKernel, ProductKernel)}"
        case NegKernel(inner_kernel=inner):
            return f"-{grouped(inner, SumKernel)}"
        case PowerKernel(inner_kernel=inner, exponent=exponent):
            return f"{grouped(inner, SumKernel, ProductKernel, PowerKernel)}**{exponent}"
        case ConstantKernel(value=value):
            return short(value, digits)
    return (
        f"{type(kernel).__name__.removesuffix('Kernel')}({', '.join(_arguments(kernel, digits))})"
    )


def _arguments(kernel: AbstractKernel, digits: str) -> list[str]:
    arguments = []
    for name, value in field_values(kernel).items():
        if isinstance(value, AbstractKernel):
            arguments.append(as_formula(value, digits))
        elif not isinstance(value, Unit):
            text = short(value, digits) if hasattr(value, "dtype") else repr(value)
            arguments.append(f"{name}={text}")
    return arguments

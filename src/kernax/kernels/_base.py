"""`AbstractKernel`: one formula, and from it every matrix.

A kernel's author writes ``pairwise(x, y)`` on two single points. The rest follows: a matrix is
that formula under two `vmap`s, unless the class also says ``matrix(X, Y)``, a faster way to
the same numbers. Names are fixed in the package documentation.
"""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array

from .._module import Parameterised
from .._typing import ArrayLike, Matrix, OtherPoints, Point, Points, Scalar
from . import _gram
from ._levels import Level, aligned

# What holds for one formula only.
_FACTS = ("matrix", "rescaled", "stationary", "symmetric_rounding", "differentiability")


def _provider(cls: type, name: str) -> int:
    """How far up its ancestors a class finds an attribute."""
    return next(depth for depth, parent in enumerate(cls.__mro__) if name in parent.__dict__)


def _checked(formula: Callable[..., Any]) -> Callable[..., Any]:
    """The formula of a class, with `TypeError` where it does not give one number.

    No `ShapeError`, with which a kernel refuses points.
    """

    @functools.wraps(formula)
    def pairwise(self: Any, x: Any, y: Any) -> Any:
        value = formula(self, x, y)
        if value is None or np.shape(value):
            found = "None" if value is None else f"shape {np.shape(value)}"
            raise TypeError(
                f"{type(self).__name__}: its formula gives {found} for one pair of points, "
                "expected one number, shape (). Fix: sum over the dimensions of the points, and "
                "use hyperparameters of one value."
            )
        return value

    return pairwise


class AbstractKernel(Parameterised):
    """A covariance function k(x, y).

    To write one, subclass it with fields for the hyperparameters and the formula::

        class Exponential(kernax.AbstractKernel):
            length_scale: Array = kernax.positive(1.0)

            def pairwise(self, x, y):
                return jnp.exp(-jnp.sum(jnp.abs(x - y)) / self.length_scale)

    Kernels are frozen pytrees: pass them to `jax.jit`, `jax.grad` and `jax.vmap` as arguments.
    """

    __slots__ = ("_levels",)

    static_class: ClassVar[Any] = None
    # Facts that a class may declare. k(x + c, y + c) = k(x, y):
    stationary: ClassVar[bool] = False
    # How often the process is mean-square differentiable:
    differentiability: ClassVar[float] = math.inf
    # matrix(X, X) equals its own transpose to the last bit:
    symmetric_rounding: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if inspect.isfunction(cls.__dict__.get("pairwise")):
            cls.pairwise = _checked(cls.__dict__["pairwise"])  # type: ignore[method-assign]
        # A class with a formula of its own, be it from a mixin, must not inherit what was true
        # of another one.
        formula = min(_provider(cls, name) for name in ("pairwise", "static_class"))
        for name in _FACTS:
            if formula < _provider(cls, name):
                setattr(cls, name, AbstractKernel.__dict__[name])

    def __check_init__(self) -> None:
        if type(self).pairwise is AbstractKernel.pairwise and self.static_class is None:
            raise TypeError(
                f"{type(self).__name__} has no formula. Fix: define pairwise(self, x, y)."
            )

    def pairwise(self, x: Point, y: Point) -> Scalar:
        """k(x, y) of two single points (d,), (d,): the formula, without white noise."""
        value: Scalar = _checked(self.static_class.pairwise_cov)(self, x, y)
        return value

    def matrix(self, X: Points, Y: OtherPoints) -> Matrix:
        """The formula on all pairs, (n, d) and (m, d) to (n, m); inputs clean and of one dtype."""
        row = jax.vmap(self.pairwise, in_axes=(None, 0))
        return jax.vmap(row, in_axes=(0, None))(X, Y)

    def rescaled(self, length_scales: Array) -> "AbstractKernel":
        """The kernel (x, y) -> k(x / l, y / l), for one length-scale l per dimension."""
        return ScaledInputsKernel(self, length_scales)

    def sign(self) -> int:
        """1 where k is positive semi-definite, -1 where -k is, 0 where neither is known.

        By default that of the kernels inside, where they agree; a formula that makes something
        else of them says so by overriding this.
        """
        signs = [kernel.sign() for kernel in subkernels(self)]
        return 1 if signs.count(1) == len(signs) else signs[0] if len(signs) == 1 else 0

    def levels(self) -> tuple[Level, ...]:
        """The batch axes of every result, the outermost first; () where there is no batch."""
        try:
            found: tuple[Level, ...] = object.__getattribute__(self, "_levels")
        except AttributeError:
            found = aligned([kernel.levels() for kernel in subkernels(self)])
            object.__setattr__(self, "_levels", found)
        return found

    def __call__(self, x1: ArrayLike, x2: ArrayLike | None = None) -> Array:
        """Covariances between points.

        A 1-D array is **one point** of dimension d (in `gram` it is n points of dimension one).

        ==================  ========================================================
        (d,) and (d,)       (), one pair; scalars are points of dimension one
        (n, d) and (d,)     (n,), in either order
        (n, d) and (m, d)   (n, m)
        (n, d) alone        (n, n), ``gram(X)``: white noise is on the diagonal
        (b, n, d), (b,m,d)  (b, n, m), the same hyperparameters for each
        ==================  ========================================================

        A row with a NaN coordinate is padding: its covariances are NaN. Raises `ShapeError`,
        `DTypeError`, and `InputError` for Inf; traced, and for one pair of JAX arrays, which is
        not looked at first, Inf gives NaN.
        """
        return _gram.call(self, x1, x2)

    def gram(
        self,
        X: ArrayLike,
        X2: ArrayLike | None = None,
        *,
        mask: ArrayLike | None = None,
        mask2: ArrayLike | None = None,
    ) -> Array:
        """The matrix of covariances K(X, X2), (n, d) and (m, d) to (n, m).

        A 1-D array is **n points of dimension one** (in ``kernel(x1, x2)`` it is one point).
        ``X2=None`` means the same observations: white noise is on the diagonal, which
        ``gram(X, X)`` leaves out. Rows with a NaN coordinate are padding, and give NaN. With
        ``mask`` (True = real) padded rows are those of the identity in K(X, X), zeros in K(X, X2).
        """
        return _gram.gram(self, X, X2, mask, mask2)

    def diagonal(self, X: ArrayLike) -> Array:
        """The diagonal of ``gram(X)``, white noise included, in O(n): (n, d) or (n,) to (n,)."""
        return _gram.diagonal(self, X)

    def gradient(self, X1: ArrayLike, X2: ArrayLike | None = None, argument: Any = 0) -> Array:
        """The derivatives of k(x1, x2) in one of its points, (n, d) and (m, d) to (n, m, d).

        ``argument``: 0 for x1, 1 for x2. ``X2=None`` means X1; white noise is left out. Right at
        coincident points too; where the two one-sided slopes differ there (`Matern12Kernel`) it
        is their mean, 0. A 1-D array is **n points of dimension one**; padding gives NaN.
        """
        return _derivatives().gradient(self, X1, X2, argument)

    def hessian(self, X1: ArrayLike, X2: ArrayLike | None = None, argument: Any = 1) -> Array:
        """The second derivatives of k(x1, x2) in one of its points, to (n, m, d, d).

        Entry [.., j, l] is d2k/dx_j dx_l, of x1 for ``argument`` 0, of x2 for 1. ``X2=None`` means
        X1. Right at coincident points; a kernel whose process is not mean-square differentiable
        (`differentiability` < 1) is refused with `ParameterError`, since it has none there.
        """
        return _derivatives().hessian(self, X1, X2, argument)

    def mixed_hessian(self, X1: ArrayLike, X2: ArrayLike | None = None) -> Array:
        """The covariances of gradients, entry [.., j, l] d2k/dx1_j dx2_l, to (n, m, d, d).

        Points and errors as in `hessian`. Where k is a function of x1 - x2, it is minus the
        hessian in either point.
        """
        return _derivatives().mixed_hessian(self, X1, X2)

    # Without this NumPy arrays would take over `array * kernel` element by element.
    __array_ufunc__ = None

    def __add__(self, other: Any) -> "AbstractKernel":
        return _compose().add(self, other)

    def __radd__(self, other: Any) -> "AbstractKernel":
        return _compose().add(other, self)

    def __sub__(self, other: Any) -> "AbstractKernel":
        return _compose().subtract(self, other)

    def __rsub__(self, other: Any) -> "AbstractKernel":
        return _compose().subtract(other, self)

    def __mul__(self, other: Any) -> "AbstractKernel":
        return _compose().multiply(self, other)

    def __rmul__(self, other: Any) -> "AbstractKernel":
        return _compose().multiply(other, self)

    def __neg__(self) -> "AbstractKernel":
        return _compose().NegKernel(self)

    def __pow__(self, exponent: Any) -> "AbstractKernel":
        return _compose().PowerKernel(self, exponent)

    def __format__(self, digits: str) -> str:
        """The formula, with its numbers in the given format: ``f"{kernel:.4g}"``."""
        return _compose().as_formula(self, digits or ".10g")

    def __repr__(self) -> str:
        return format(self)


class StaticAbstractKernel:
    """The formula of a kernel as a class without state, apart from its hyperparameters.

    Override ``pairwise_cov`` and name the class in an `AbstractKernel`::

        class StaticExponential(kernax.StaticAbstractKernel):
            @classmethod
            def pairwise_cov(cls, kern, x1, x2):
                return jnp.exp(-jnp.sum(jnp.abs(x1 - x2)) / kern.length_scale)

        class Exponential(kernax.AbstractKernel):
            length_scale: Array = kernax.positive(1.0)
            static_class = StaticExponential
    """

    @classmethod
    def pairwise_cov(cls, kern: AbstractKernel, x1: Point, x2: Point) -> Scalar:
        """k(x1, x2) of two single points, with the hyperparameters that ``kern`` holds."""
        raise TypeError(f"{cls.__name__} has no formula. Fix: define pairwise_cov(cls, kern, ...).")


class ScaledInputsKernel(AbstractKernel):
    """inner(x / l, y / l), for a kernel that cannot take l into its own hyperparameters."""

    inner_kernel: AbstractKernel
    scales: Array

    def pairwise(self, x: Point, y: Point) -> Scalar:
        """inner(x / l, y / l)."""
        return self.inner_kernel.pairwise(x / self.scales, y / self.scales)

    def matrix(self, X: Points, Y: OtherPoints) -> Matrix:
        inverse = 1.0 / self.scales[None, :]
        return self.inner_kernel.matrix(X * inverse, Y * inverse)


def _compose() -> Any:
    # The operators of a kernel make kernels, so the two modules need each other.
    from . import _compose

    return _compose


def _derivatives() -> Any:
    # What is known of a class is stated for kernels that derive from this one.
    from . import _derivatives

    return _derivatives


def subkernels(kernel: AbstractKernel) -> list[AbstractKernel]:
    """The kernels directly inside this one, wherever its fields keep them."""
    inside = jax.tree.leaves(
        eqx.tree_flatten_one_level(kernel)[0],
        is_leaf=lambda node: isinstance(node, AbstractKernel),
    )
    return [node for node in inside if isinstance(node, AbstractKernel)]

"""Kernels from plain functions, and pure functions from kernel classes."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from jaxtyping import Array

from .._errors import ParameterError
from .._module import suggestion
from .._parameters import real
from .._typing import ArrayLike, Point, Scalar
from ._base import AbstractKernel

_NOT_GIVEN = object()


class FunctionKernel(AbstractKernel):
    """Base of the kernels that `kernel` makes. Called with hyperparameters only, a new one."""

    def __call__(self, x1: Any = _NOT_GIVEN, x2: Any = None, **hyperparameters: Any) -> Any:
        """``k(x1, x2)`` as for every kernel; ``k(length_scale=2.0)`` is ``k.replace(...)``."""
        if x1 is _NOT_GIVEN:
            return self.replace(**hyperparameters)
        return super().__call__(x1, x2, **hyperparameters)


def kernel(function: Callable[..., Any] | None = None, /, **parameters: Any) -> Any:
    """A kernel from a formula on two points, with named hyperparameters::

        laplace = kernax.kernel(
            lambda x, y, *, rate: jnp.exp(-rate * jnp.sum(jnp.abs(x - y))),
            rate=kernax.positive(1.0),
        )
        laplace(0.0, 1.0), laplace(rate=2.0).gram(X)

    Each parameter is `positive`, `non_negative`, `interval`, `real` or `positive_integer` with a
    default; a plain number is a real one. The result is a kernel at the defaults, with everything
    that a kernel of a class has. Make it once: each makes a class, for which calls are compiled
    anew. Without ``function`` it decorates one. Raises `ParameterError` where the names are not
    those of the function, or a default is missing.
    """
    if function is None:
        return lambda decorated: kernel(decorated, **parameters)
    _check_names(function, parameters)
    fields = {
        name: value if isinstance(value, dataclasses.Field) else real(value)
        for name, value in parameters.items()
    }
    for name, field in fields.items():
        if field.default is dataclasses.MISSING:
            raise ParameterError(
                f"parameter '{name}' of the kernel has no default. Fix: give one, for instance "
                f"{name}=kernax.positive(1.0)."
            )

    def pairwise(self: Any, x: Point, y: Point) -> Scalar:
        value: Scalar = function(x, y, **{name: getattr(self, name) for name in fields})
        return value

    name = getattr(function, "__name__", "").replace("<lambda>", "")
    pairwise.__doc__ = function.__doc__ or "The formula."
    namespace = {
        "__annotations__": {
            name: int if field.metadata.get("static") else Array for name, field in fields.items()
        },
        "__doc__": function.__doc__ or "A kernel made by `kernax.kernel`.",
        "__module__": getattr(function, "__module__", __name__),
        "pairwise": pairwise,
        **fields,
    }
    metaclass: Any = type(FunctionKernel)
    return metaclass(name or "Function", (FunctionKernel,), namespace)()


class static:  # noqa: N801  (used like a function)
    """A kernel class as a pure function of points and hyperparameters::

        k = kernax.static(kernax.SEKernel)
        k(x1, x2, length_scale=0.3)        # SEKernel(length_scale=0.3)(x1, x2)
        k.gram(X, length_scale=0.3), k.diagonal(X, length_scale=0.3)

    Works for any kernel class, and for what `kernel` makes. Nothing is compiled again for new
    values. Raises `ParameterError` for a name that the class does not have.
    """

    __slots__ = ("_names", "kernel_class")

    def __init__(self, kernel_class: Any):
        if isinstance(kernel_class, FunctionKernel):
            self.kernel_class: Any = type(kernel_class)
        elif inspect.isclass(kernel_class) and issubclass(kernel_class, AbstractKernel):
            self.kernel_class = kernel_class
        else:
            raise ParameterError(
                f"`static` got {kernel_class!r}, expected a kernel class. "
                "Fix: pass for instance kernax.SEKernel."
            )
        self._names = tuple(inspect.signature(self.kernel_class).parameters)

    def __call__(self, x1: ArrayLike, x2: ArrayLike | None = None, **hyperparameters: Any) -> Array:
        """k(x1, x2), in the shapes of a call of a kernel."""
        values: Array = self._kernel(hyperparameters)(x1, x2)
        return values

    def gram(
        self, X: ArrayLike, X2: ArrayLike | None = None, *, mask: Any = None, mask2: Any = None,
        **hyperparameters: Any,
    ) -> Array:  # fmt: skip
        """K(X, X2), as `AbstractKernel.gram`."""
        return self._kernel(hyperparameters).gram(X, X2, mask=mask, mask2=mask2)

    def diagonal(self, X: ArrayLike, **hyperparameters: Any) -> Array:
        """The diagonal of K(X, X), as `AbstractKernel.diagonal`."""
        return self._kernel(hyperparameters).diagonal(X)

    def _kernel(self, hyperparameters: dict[str, Any]) -> AbstractKernel:
        for name in hyperparameters:
            if name not in self._names:
                raise ParameterError(_unknown(name, self._names, self.kernel_class.__name__))
        built: AbstractKernel = self.kernel_class(**hyperparameters)
        return built

    def __repr__(self) -> str:
        return f"static({self.kernel_class.__name__})"


def _check_names(function: Callable[..., Any], parameters: dict[str, Any]) -> None:
    signature = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in signature):
        return
    named = [p.name for p in signature][2:]
    required = [p.name for p in signature if p.default is p.empty][2:]
    for name in parameters:
        if name not in named:
            raise ParameterError(_unknown(name, tuple(named), "the function"))
    missing = sorted(set(required) - set(parameters))
    if missing:
        raise ParameterError(
            f"the function takes '{missing[0]}', which has no parameter. Fix: declare it, for "
            f"instance {missing[0]}=kernax.positive(1.0)."
        )


def _unknown(name: str, known: tuple[str, ...], owner: str) -> str:
    return f"{owner} has no hyperparameter '{name}'{suggestion(name, known)}"

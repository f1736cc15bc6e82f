"""Constraints declared on the fields that hold hyperparameters.

A constraint says which values are allowed. It is used when a kernel is built, to refuse a wrong
value, and when it is fitted, to choose a transformation to free space. Nothing about fitting is
stored in a kernel: the transformations live in `kernax.gp`.
"""

import dataclasses
import operator
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ._errors import ParameterError

_CONSTRAINT = "kernax_constraint"


@dataclasses.dataclass(frozen=True)
class Constraint:
    """The set of allowed values of one hyperparameter; the base class allows any finite one.

    ``guarded`` says whether a traced value outside the set is turned into NaN.
    """

    guarded: bool = dataclasses.field(default=True, kw_only=True)

    def contains(self, value: Any) -> Any:
        """Elementwise, for NumPy and JAX arrays alike."""
        return abs(value) < np.inf

    def __str__(self) -> str:
        return "a finite value"


@dataclasses.dataclass(frozen=True)
class Real(Constraint):
    """Any finite value."""


@dataclasses.dataclass(frozen=True)
class Positive(Constraint):
    """0 < value < inf."""

    def contains(self, value: Any) -> Any:
        return (value > 0) & (value < np.inf)

    def __str__(self) -> str:
        return "a finite value > 0"


@dataclasses.dataclass(frozen=True)
class NonNegative(Constraint):
    """0 <= value < inf: zero is allowed, but cannot be fitted (its logarithm is not finite)."""

    def contains(self, value: Any) -> Any:
        return (value >= 0) & (value < np.inf)

    def __str__(self) -> str:
        return "a finite value >= 0"


@dataclasses.dataclass(frozen=True)
class Interval(Constraint):
    """lower < value < upper, both finite; value <= upper where ``closed``."""

    lower: float = 0.0
    upper: float = 1.0
    closed: bool = False

    def contains(self, value: Any) -> Any:
        below = value <= self.upper if self.closed else value < self.upper
        return (value > self.lower) & below

    def __str__(self) -> str:
        end = f", {self.upper:g} included" if self.closed else ""
        return f"a value between {self.lower:g} and {self.upper:g}{end}"


def positive(default: Any = dataclasses.MISSING, *, guarded: bool = True) -> Any:
    """A hyperparameter that must be finite and > 0.

    Use it as a field of a kernel class, ``length_scale: Array = kernax.positive(1.0)``, or as a
    parameter of `kernax.kernel`. ``guarded=False`` lets a traced value through as it is, where
    the default turns a traced value outside the set into NaN.
    """
    return constrained(Positive(guarded=guarded), default)


def non_negative(default: Any = dataclasses.MISSING) -> Any:
    """A hyperparameter that must be finite and >= 0; zero is never fitted."""
    return constrained(NonNegative(), default)


def interval(
    lower: float, upper: float, default: Any = dataclasses.MISSING, *, closed: bool = False
) -> Any:
    """A hyperparameter strictly between two finite bounds; ``closed`` admits the upper one."""
    if not (np.isfinite(lower) and np.isfinite(upper) and lower < upper):
        raise ParameterError(
            f"`interval` got lower={lower!r}, upper={upper!r}, expected finite bounds with "
            "lower < upper. Fix: use positive() or real() for an unbounded side."
        )
    return constrained(Interval(float(lower), float(upper), closed), default)


def real(default: Any = dataclasses.MISSING) -> Any:
    """A hyperparameter that may take any finite value."""
    return constrained(Real(), default)


def positive_integer(default: Any = dataclasses.MISSING) -> Any:
    """A static integer >= 1, such as a polynomial degree: part of the structure, never fitted."""

    def convert(value: Any) -> int:
        try:
            number = operator.index(value)
        except TypeError:
            number = 0
        if isinstance(value, bool) or number < 1:
            raise ParameterError(
                f"got {value!r} where an int >= 1 is expected. Fix: pass a whole number, for "
                "instance 2."
            )
        return number

    return eqx.field(converter=convert, static=True, **_default(default))


def constrained(constraint: Constraint, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that carries a constraint."""
    return eqx.field(
        # Conversion happens where the field's name is known; a converter that takes anything
        # makes the constructor accept numbers and lists.
        converter=lambda value: value,
        metadata={_CONSTRAINT: constraint},
        **_default(default),
    )


def constraint_of(field: "dataclasses.Field[Any]") -> Constraint:
    """The constraint declared on a field; `Real` where none is."""
    found: Constraint = field.metadata.get(_CONSTRAINT, Real())
    return found


def is_constrained(field: "dataclasses.Field[Any]") -> bool:
    """Whether a field was declared as a hyperparameter."""
    return _CONSTRAINT in field.metadata


def guard(value: Array, constraint: Constraint) -> Array:
    """NaN in place of a value outside its constraint: what a traced failure looks like."""
    if not constraint.guarded:
        return value
    return jnp.where(constraint.contains(value), value, jnp.full((), np.nan, value.dtype))


def _default(default: Any) -> dict[str, Any]:
    return {} if default is dataclasses.MISSING else {"default": default}

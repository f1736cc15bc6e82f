"""`check_kernel`: what every kernel promises, checked on one of yours.

Ten checks, the cheapest and most basic first. The first that fails is named, with the smallest
inputs that show it.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax

from .._errors import KernelCheckError, ParameterError
from ..kernels import AbstractKernel
from ._derivatives import check_derivatives
from ._objects import check_hyperparameters, check_persistence
from ._padding import check_padding
from ._shapes import check_shapes
from ._subject import CheckFailedError, Subject, show
from ._transformations import check_transformations
from ._values import check_definiteness, check_precision, check_symmetry
from ._wrong_inputs import check_wrong_inputs

# Each returns what it left out, and why; where the text starts with "all", nothing was checked.
CHECKS: dict[str, Callable[[Subject], list[str]]] = {
    "shapes": check_shapes,
    "symmetry": check_symmetry,
    "definiteness": check_definiteness,
    "derivatives": check_derivatives,
    "precision": check_precision,
    "padding": check_padding,
    "transformations": check_transformations,
    "hyperparameters": check_hyperparameters,
    "persistence": check_persistence,
    "wrong inputs": check_wrong_inputs,
}

# What a formula does to a traced value that only a number allows; it fails wherever it is traced.
_NEEDS_NUMBERS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.UnexpectedTracerError,
)


@dataclasses.dataclass(frozen=True)
class KernelReport:
    """What `check_kernel` found in order: ``passed``, and ``left_out`` with the reasons.

    ``passed`` are names of checks; ``left_out`` pairs of a check's name and a reason, of checks,
    or parts of them, that do not apply to this kernel. ``dims`` and ``dtypes`` are those tried.
    ``print`` it.
    """

    kernel: str
    dims: tuple[int, ...]
    dtypes: tuple[str, ...]
    passed: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        head = f"{self.kernel}: dimensions {', '.join(map(str, self.dims))}; "
        lines = [head + " and ".join(self.dtypes)]
        for name in CHECKS:
            verdict = "passed" if name in self.passed else "not applicable"
            reasons = [reason for check, reason in self.left_out if check == name]
            lines.append(f"  {name:<16} {verdict}")
            lines += [f"  {'':<16} - {reason}" for reason in reasons]
        return "\n".join(lines)


def check_kernel(kernel: Any, *, dims: int | Iterable[int] | None = None) -> KernelReport:
    """Check that a kernel keeps what every kernel promises; a few seconds.

    ``kernel`` is any: of the catalogue or your own, a composite, a wrapper, a `BatchKernel`.
    ``dims`` are the dimensions of the points to try; by default 1, 2 and 5, without those that the
    kernel refuses with a `ShapeError` or `ParameterError`, or else the first that it takes.

    ===============  ============================================================================
    shapes           every form of call, for 0 to 50 points, has its shape and data type
    symmetry         ``gram(X)`` is symmetric, is ``pairwise``, and has ``diagonal(X)``
    definiteness     no eigenvalue is negative beyond rounding, unless ``sign()`` is not 1
    derivatives      first and second ones are right, at coincident points too
    precision        32 bits agree with 64; finite for inputs from 1e-25 to 1e25
    padding          NaN rows and masks change no value and no gradient
    transformations  jit, vmap and a loop agree, with one trace for all hyperparameters
    hyperparameters  `replace` takes what it should and refuses the rest
    persistence      copies, pickles and files are equal; inputs are not written to
    wrong inputs     each raises the class of error that it should
    ===============  ============================================================================

    Returns a `KernelReport`. Raises `KernelCheckError` at the first check that fails, naming it
    and the smallest inputs found that show it. Deterministic; changes no setting. Float64 is
    checked where the process has it enabled.
    """
    if not isinstance(kernel, AbstractKernel):
        raise ParameterError(
            f"`kernel` is {kernel!r}, expected a kernel. Fix: pass an instance, for instance "
            "kernax.SEKernel(length_scale=1.0)."
        )
    subject = Subject(kernel, dims)
    passed, left_out = [], []
    for name, check in CHECKS.items():
        try:
            reasons = check(subject)
        except CheckFailedError as failure:
            raise _report(name, subject, failure) from failure.__cause__
        except _NEEDS_NUMBERS as error:
            raised = CheckFailedError(
                f"{type(error).__name__}: {_first_line(error)}",
                "a formula that can be traced",
                "use jnp.where in place of `if`, and functions of jax.numpy in place of NumPy's",
                **subject.case,
            )
            raise _report("transformations", subject, raised) from error
        except Exception as error:
            raised = CheckFailedError(
                f"{type(error).__name__}: {_first_line(error)}",
                "a value",
                "see the error above, which the kernel raised",
                **subject.case,
            )
            raise _report(name, subject, raised) from error
        if not any(reason.startswith("all") for reason in reasons):
            passed.append(name)
        left_out += [(name, reason) for reason in reasons]
    dtypes = tuple(dtype.name for dtype in subject.dtypes)
    return KernelReport(repr(kernel), subject.dims, dtypes, tuple(passed), tuple(left_out))


def _report(name: str, subject: Subject, failure: CheckFailedError) -> KernelCheckError:
    case = ", ".join(f"{key} = {show(value)}" for key, value in failure.case.items())
    at = f" at {case}" if case else ""
    return KernelCheckError(
        f"{type(subject.kernel).__name__} fails the check '{name}'{at}: got {failure.found}, "
        f"expected {failure.expected}. Fix: {failure.fix}.",
        name,
        failure.case,
    )


def _first_line(error: BaseException) -> Any:
    return next(iter(str(error).splitlines()), "").rstrip(".")

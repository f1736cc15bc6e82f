"""Exceptions and warnings of Kernax.

Every class also derives from the builtin a careful user would already catch. A message names
the argument, what came, what was expected, and one fix.
"""

from typing import Any

import numpy as np


class KernaxError(Exception):
    """Base of every exception raised by Kernax."""


class ShapeError(KernaxError, ValueError):
    """An array has the wrong rank or size."""


class DTypeError(KernaxError, TypeError):
    """An array has a data type Kernax does not compute with."""


class InputError(KernaxError, ValueError):
    """Data hold a value that cannot be used: Inf, an unexpected NaN, an asymmetric matrix."""


class ParameterError(KernaxError, ValueError):
    """A hyperparameter, or its name, is not allowed."""


class NotPSDError(KernaxError, np.linalg.LinAlgError):
    """A matrix that should be a covariance is not positive semi-definite."""


class ConvergenceError(KernaxError, RuntimeError):
    """An iteration could not produce a usable result."""


class ClusterError(KernaxError, RuntimeError):
    """A process of a cluster failed; ``result`` holds what each of them ended with and printed."""

    def __init__(self, message: str, result: Any = None):
        super().__init__(message)
        self.result = result


class FormatError(KernaxError, ValueError):
    """A file does not hold what it should."""


class ResourceError(KernaxError, MemoryError):
    """A computation would need more memory than there is."""


class MissingExtraError(KernaxError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, feature: str, package: str, extra: str):
        super().__init__(
            f"{feature} needs the package `{package}`, which is not installed. "
            f"Fix: pip install 'kernax-gp[{extra}]'."
        )


class KernelCheckError(KernaxError, AssertionError):
    """A kernel fails one of the checks of `check_kernel`.

    ``check`` is the name of that check, ``case`` the smallest inputs found that show it, by name.
    """

    def __init__(self, message: str, check: str = "", case: dict[str, Any] | None = None):
        super().__init__(message)
        self.check, self.case = check, case or {}


class KernaxWarning(UserWarning):
    """Base of every warning given by Kernax."""


class PrecisionWarning(KernaxWarning):
    """Digits were lost before Kernax could use them."""


class NumericalWarning(KernaxWarning):
    """A computation needed help, and says how much."""


class ConvergenceWarning(KernaxWarning):
    """An iteration stopped early, or at a bound."""

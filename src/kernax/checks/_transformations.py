"""The same numbers called as it is, inside jit, under vmap and in a loop, from one trace."""

from typing import Any

import jax
import numpy as np

from ._quick import quick_jit
from ._subject import CheckFailedError, Subject, cast, other_values, show, size


def check_transformations(subject: Subject) -> list[str]:
    """One program of the hyperparameters, by jit and by vmap, against calls outside of both."""
    d, dtype = subject.middle, subject.dtypes[0]
    kernel, x = cast(subject.kernel, dtype), subject.usual(d, dtype)
    X = subject.points(x)
    subject.case = {"d": d, "dtype": dtype.name}
    values = kernel.hyperparameters
    changed = values | other_values(kernel)
    both = {path: np.stack([value, changed[path]]) for path, value in values.items()}
    traces: list[None] = []

    def traced(values: dict[str, Any], both: dict[str, Any], X: Any, x: Any) -> Any:
        """A kernel that is built from traced values; cross-covariances point by point."""
        traces.append(None)
        k = kernel.replace(**values)
        rows = jax.vmap(lambda point: k(point, X), out_axes=-2)(x)
        own = jax.vmap(lambda each: kernel.replace(**each).gram(X))(both) if both else ()
        return {"gram(X)": k.gram(X), "gram(X, X2)": rows}, own

    def plain(values: dict[str, Any]) -> dict[str, Any]:
        """The same without jit or vmap around it."""
        k = kernel.replace(**values)
        return {"gram(X)": k.gram(X), "gram(X, X2)": k.gram(subject.points(x), X)}

    jitted = quick_jit(traced)
    wanted = [plain(values), plain(changed)]
    tolerance = 16 * float(np.finfo(dtype).eps) * size(kernel)
    for each, numbers in zip(wanted, (values, changed), strict=True):
        found, together = jitted(numbers, both, X, x)
        _same(subject, "jit", found, each, tolerance)
    if len(traces) > 1 or kernel.structure is not kernel.replace(**changed).structure:
        raise CheckFailedError(
            "another trace for other hyperparameters",
            "one for all values",
            "hold hyperparameters in fields of arrays, let no formula change them, and do not "
            "override `replace`",
            **subject.case,
        )
    if not values:
        return ["vmap over hyperparameters, since there are none"]
    for K, each in zip(together, wanted, strict=True):
        K, each = {"gram(X)": K}, {"gram(X)": each["gram(X)"]}
        _same(subject, "vmap over hyperparameters", K, each, tolerance)
    return []


def _same(
    subject: Subject,
    how: str,
    found: dict[str, Any],
    wanted: dict[str, Any],
    relative: float,
) -> None:
    for name, expected in wanted.items():
        value, expected = np.asarray(found[name]), np.asarray(expected)
        tolerance = relative * np.abs(expected).max(initial=0.0)
        bad = ~(np.abs(value - expected) <= tolerance)
        if value.shape != expected.shape or bad.any():
            raise CheckFailedError(
                f"{show(value.ravel()[np.argmax(bad)])} for {name} by {how}",
                f"{show(expected.ravel()[np.argmax(bad)])}, as without it",
                "let the formula depend on its two points and on the fields of the kernel only",
                **subject.case,
            )

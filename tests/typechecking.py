"""beartype as the checker under jaxtyping's import hook, at less cost for the same checks."""

import inspect
from typing import Any

from beartype import beartype

_checkers: dict[Any, Any] = {}


def checked(function: Any) -> Any:
    """Checks the parameters, or the result, of what jaxtyping makes of each function to check.

    Of the two, the one for the result would check the parameters again, whose names of axes are
    known by then. And a function inside another is decorated whenever the outer one runs, though
    its checks are the same each time.
    """
    if not inspect.isfunction(function) or function.__module__.split(".")[0] != "kernax":
        return beartype(function)
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.KEYWORD_ONLY and p.name == "ret0" for p in parameters):
        function.__annotations__ = {"return": function.__annotations__.get("return", Any)}
    if any(p.default is not p.empty for p in parameters):
        return beartype(function)  # which checks the default values, now
    names = tuple((p.name, p.kind) for p in parameters)
    key = (
        function.__module__,
        function.__qualname__,
        names,
        tuple(function.__annotations__.items()),
    )
    try:
        if key not in _checkers:
            _checkers[key] = beartype(function)
    except TypeError:  # an annotation that is not hashable
        return beartype(function)
    return _checkers[key]

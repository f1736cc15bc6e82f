"""Kernel and prior expressions: Python's grammar, a whitelist of its nodes, and no evaluation.

``66**2*SE(67) + 2.4**2*SE(90)*Periodic(1.3, period=1)`` is parsed by `ast` and walked; a name
that is not in the catalogue, or any other construct, is an error that says where.
"""

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from .._errors import InputError, KernaxError, MissingExtraError
from ..kernels import AbstractKernel
from ..kernels._catalogue import CATALOGUE

LONGEST = 10_000
_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_ALLOWED = "Fix: use names, numbers, + - * ** and brackets."
_FUNCTIONS: dict[str, Callable[..., Any]] = {"exp": math.exp, "log": math.log, "sqrt": math.sqrt}
PRIORS = (
    "Beta",
    "Exponential",
    "Gamma",
    "HalfCauchy",
    "HalfNormal",
    "InverseGamma",
    "LogNormal",
    "Normal",
    "Uniform",
)


def parse_kernel(text: str) -> AbstractKernel:
    """A kernel from its expression."""
    names = {name: cls for cls in CATALOGUE for name in short_names(cls)}
    value = _parse(text, names, "kernel")
    if not isinstance(value, AbstractKernel):
        raise InputError(
            f"kernel expression '{_shown(text)}' is {value!r}, expected a kernel. "
            "Fix: write for instance '2 * SE(1)'."
        )
    return value


def parse_prior(text: str) -> tuple[str, Any]:
    """``path=LogNormal(0, 1)`` to a hyperparameter path and a distribution."""
    path, _, expression = text.partition("=")
    if not path.strip() or not expression.strip():
        raise InputError(
            f"prior '{_shown(text)}' is not of the form path=Distribution(...). "
            "Fix: write for instance 'noise_variance=LogNormal(0, 1)'."
        )
    try:
        import numpyro.distributions as distributions
    except ImportError as error:
        raise MissingExtraError("priors", "numpyro", "mcmc") from error
    names = {name: getattr(distributions, name) for name in PRIORS}
    prior = _parse(expression.strip(), names, "prior")
    if not hasattr(prior, "log_prob"):
        raise InputError(
            f"prior '{_shown(text)}' is {prior!r}, expected a distribution. "
            f"Fix: use one of {', '.join(PRIORS)}."
        )
    return path.strip(), prior


def short_names(cls: type) -> tuple[str, ...]:
    """``SEKernel`` may be written SE or SEKernel; a few have a customary abbreviation."""
    name = cls.__name__
    more = {"SEKernel": ("RBF",), "RationalQuadraticKernel": ("RQ",), "WhiteNoiseKernel": ("WN",)}
    return (name.removesuffix("Kernel"), name, *more.get(name, ()))


def _parse(text: str, names: dict[str, Any], kind: str) -> Any:
    if len(text) > LONGEST:
        raise InputError(
            f"{kind} expression has {len(text)} characters, at most {LONGEST} are allowed. "
            "Fix: write a shorter one."
        )
    label = f"{kind} expression '{_shown(text)}'"
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return _walk(tree.body, names, kind)
    except SyntaxError as error:
        where = f" at character {error.offset}" if error.offset else ""
        raise InputError(f"{label} cannot be read: {error.msg}{where}. {_ALLOWED}") from error
    except (RecursionError, MemoryError) as error:
        raise InputError(
            f"{label} is nested too deeply. Fix: use fewer terms and brackets."
        ) from error
    except OverflowError as error:
        raise InputError(
            f"{label} has a number that is too large. Fix: use smaller numbers."
        ) from error
    except KernaxError:
        raise
    except (ArithmeticError, TypeError, ValueError) as error:
        fix = "see `kernax kernels`" if kind == "kernel" else "write for instance LogNormal(0, 1)"
        raise InputError(f"{label}: {str(error).rstrip('.')}. Fix: {fix}.") from error


def _walk(node: ast.AST, names: dict[str, Any], kind: str) -> Any:
    match node:
        case ast.Constant(value=value) if type(value) in (int, float):
            return _finite(value)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_walk(inner, names, kind)
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return _walk(inner, names, kind)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _combine(type(op), _walk(left, names, kind), _walk(right, names, kind))
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_walk(item, names, kind) for item in items]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords):
            known = names | _FUNCTIONS
            if name not in known:
                listed = ", ".join(sorted(n for n in known if not n.endswith("Kernel")))
                raise InputError(
                    f"unknown name '{name}' in a {kind} expression. Fix: use one of {listed}."
                )
            if any(keyword.arg is None for keyword in keywords):
                raise InputError(
                    f"'**' inside {name}(...) is not allowed in a {kind} expression. {_ALLOWED}"
                )
            if len({keyword.arg for keyword in keywords}) < len(keywords):
                raise InputError(
                    f"{name}(...) is given one keyword twice in a {kind} expression. "
                    "Fix: name each hyperparameter once."
                )
            positional = [_walk(argument, names, kind) for argument in arguments]
            named = {str(k.arg): _walk(k.value, names, kind) for k in keywords}
            return _call(name, known[name], positional, named)
        case ast.Name(id=name):
            raise InputError(
                f"'{name}' stands alone in a {kind} expression. Fix: write it with its "
                f"hyperparameters, for instance {name}(1.0)."
            )
    what = repr(node.value) if isinstance(node, ast.Constant) else type(node).__name__
    raise InputError(f"{_shown(what)} is not allowed in a {kind} expression. {_ALLOWED}")


def _call(name: str, function: Any, positional: list[Any], named: dict[str, Any]) -> Any:
    if name in PRIORS:
        if any(isinstance(value, list) for value in (*positional, *named.values())):
            raise TypeError(f"{name}(...) takes numbers, not lists")
        # Otherwise a negative scale passes here, and shows as a loss that is not finite.
        prior = function(*positional, **named, validate_args=True)
        if name == "Uniform" and not np.all(np.less(prior.low, prior.high)):
            raise ValueError("Uniform(low, high) needs low < high")
        return prior
    return function(*positional, **named)


def _combine(op: type[ast.AST], left: Any, right: Any) -> Any:
    if isinstance(left, int | float) and isinstance(right, int | float):
        # Through floats, so that 9**9**9 overflows at once and does not compute for hours.
        value = _OPERATORS[op](float(left), float(right))
        if isinstance(value, complex):
            raise ValueError(f"{left} ** {right} is not a real number")
        return _finite(value)
    if isinstance(left, list) or isinstance(right, list):
        # Of lists, + would join and * repeat: not what is meant, and without end.
        raise TypeError("a list in brackets cannot be added or multiplied")
    if op is ast.Pow and isinstance(right, float) and right.is_integer():
        right = int(right)
    return _OPERATORS[op](left, right)


def _finite(value: Any) -> Any:
    if not math.isfinite(float(value)):
        raise OverflowError
    return value


def _shown(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}..."

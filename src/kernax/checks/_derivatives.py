"""First and second derivatives in the points, against differences of the formula."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._module import Structure, flatten
from .._typing import HostArray
from ..kernels import AbstractKernel
from ._padding import gradients, unpadded
from ._quick import quick_jit
from ._subject import SLOPES, CheckFailedError, Subject, cast, formula, pairs
from ._values import first_pair


class Rules(NamedTuple):
    """How differences are taken in one dtype: steps from large to small, and what they reach.

    The ratio of two steps is no whole number, or several could be multiples of one period.
    """

    steps: HostArray
    first: float
    mixed: float


RULES = {
    np.dtype(np.float64): Rules(0.137 * 7.3 ** -np.arange(8.0), 1e-6, 1e-4),
    np.dtype(np.float32): Rules(0.311 * 2.3 ** -np.arange(9.0), 2e-2, 1e-1),
}


def check_derivatives(subject: Subject) -> list[str]:
    """Gradients in both points and mixed second derivatives, at coincident points too."""
    if not subject.elements:
        return ["all: the batch is empty"]
    left_out = []
    dtype = subject.dtypes[0]
    for element in subject.elements:
        left_out = _check_element(subject, element, subject.middle, dtype)
    subject.case = {"d": subject.middle, "dtype": dtype.name}
    for path, value in gradients(subject, unpadded(subject)).hyperparameters.items():
        if not np.isfinite(value).all():
            raise CheckFailedError(
                f"the derivative {value} of the sum of gram(X) in '{path}', equal points in X",
                "a finite number",
                "keep the formula differentiable at equal points, where a square root is not",
                **subject.case,
            )
    return left_out


def _check_element(subject: Subject, kernel: AbstractKernel, d: int, dtype: Any) -> list[str]:
    kernel, steps, rules = cast(kernel, dtype), subject.steps[:d], RULES[dtype]
    X = _points(d, steps).astype(dtype)
    subject.case = {"d": d, "dtype": dtype.name, "call": "gradient(X, X2)"}
    structure, leaves = flatten(kernel)
    slopes, mixed = map(np.asarray, _derivatives(structure, leaves, jnp.asarray(X)))
    scale = np.abs(pairs(kernel, X.repeat(len(X), axis=0), np.tile(X, (len(X), 1)))).max()
    natural, ratio = scale / (steps[:, None] * steps), float(rules.steps[0] / rules.steps[1])
    plan = _mixed_differences(X, steps, rules.steps)
    wanted = _settled(kernel, plan, ratio, rules.mixed * natural)
    smooth = kernel.differentiability >= 1
    diverging = wanted.diverging & (np.abs(wanted.first) > 1e-2 * natural)
    if smooth and diverging.any():
        i, j = first_pair(diverging.any(axis=(2, 3)))
        raise CheckFailedError(
            "differences of d2k/dxdy that grow without bound as their steps shrink",
            "a second derivative, which `differentiability` >= 1 promises",
            "declare `differentiability: ClassVar[float] = 0` in the class",
            x=X[i],
            y=X[j],
            dtype=dtype.name,
        )
    # Where a coordinate of two points agrees, a kernel that is not smooth may have a kink: no
    # second derivative, and for the first one anything between the slopes on its two sides.
    kinked = np.equal(X[:, None], X[None]) & (not smooth)
    mixed = np.where(kinked.any(axis=-1)[..., None, None], wanted.value, mixed)
    for argument, name in ((0, "dk/dx"), (1, "dk/dy")):
        plan = _first_differences(X, steps, rules.steps, argument)
        enough = rules.first * scale / steps
        found, quotients = slopes[argument], _settled(kernel, plan, ratio, enough)
        tolerance = rules.first * np.abs(found) + enough + 4 * quotients.error
        tolerance += np.where(kinked, 1.01 * _kink(kernel, X, steps * rules.steps[-1]), 0.0)
        _judge(name, found, quotients.value, tolerance, X, dtype)
    tolerance = rules.mixed * (np.abs(mixed) + natural) + 4 * wanted.error
    _judge("d2k/dxdy", mixed, wanted.value, tolerance, X, dtype)
    return [] if smooth else ["second derivatives at equal points: `differentiability` is 0"]


def _points(d: int, steps: HostArray) -> HostArray:
    """The origin, one step from it, and three others, two of which coincide."""
    others = np.random.default_rng(3).normal(size=(SLOPES - 2, d))
    others[2] = others[1]
    return np.concatenate([np.zeros((1, d)), np.eye(d)[:1] * steps, others * steps])


def _kink(kernel: AbstractKernel, X: HostArray, h: HostArray) -> HostArray:
    """Half the jump of the slope in each coordinate, (n, n, d)."""
    n, d = X.shape
    away = np.stack([0 * np.diag(h), np.diag(h), -np.diag(h)]).astype(X.dtype)
    x = X[:, None, None, None] + away + np.zeros((n, n, 1, 1, 1), X.dtype)
    y = X[None, :, None, None] + np.zeros_like(x)
    middle, *sides = np.moveaxis(
        pairs(kernel, x.reshape(-1, d), y.reshape(-1, d)).astype(float).reshape(n, n, 3, d), 2, 0
    )
    return np.abs(sum(sides) - 2 * middle) / (2 * h)


def _judge(
    name: str, found: HostArray, wanted: HostArray, tolerance: HostArray, X: HostArray, dtype: Any
) -> None:
    bad = ~(np.abs(found - wanted) <= tolerance)
    if bad.any():
        i, j = first_pair(bad.any(axis=tuple(range(2, bad.ndim))))
        at = (i, j, *np.argwhere(bad[i, j])[0])
        raise CheckFailedError(
            f"{name} = {found[at]:.9g}",
            f"{wanted[at]:.6g}, from differences of the formula",
            "write the formula in the squared distance, or give it its derivative where two "
            "points coincide (jax.custom_jvp)",
            x=X[i],
            y=X[j],
            dtype=dtype.name,
        )


@quick_jit
def _derivatives(structure: Structure, leaves: tuple[Array, ...], X: Array) -> Any:
    kernel = structure.rebuild(leaves)
    slopes = jax.grad(partial(formula, structure, leaves), argnums=(0, 1))
    both = jax.jacfwd(slopes, argnums=1, has_aux=True)  # of the first, and the second with it
    n, d = X.shape
    mixed, second = jax.vmap(both)(jnp.repeat(X, n, axis=0), jnp.tile(X, (n, 1)))
    return jnp.stack([kernel.gradient(X, X), second.reshape(n, n, d)]), mixed.reshape(n, n, d, d)


# --- differences --------------------------------------------------------------------------------


class Plan(NamedTuple):
    """Pairs of displaced points, (..., d), and the weight of each in a difference quotient.

    The axes: steps, then those of the derivative, then the terms of one quotient.
    """

    x: HostArray
    y: HostArray
    weights: HostArray


class Quotients(NamedTuple):
    """The quotient that has settled best, how well, the first, and whether they settle at all."""

    value: HostArray
    error: HostArray
    first: HostArray
    diverging: HostArray


def _first_differences(X: HostArray, steps: HostArray, relative: HostArray, argument: int) -> Plan:
    """(k(x + h e_j, y) - k(x - h e_j, y)) / 2h, (h, n, n, d, 2); for argument 1 in y."""
    n, d = X.shape
    h = (relative[:, None, None, None, None, None] * steps * np.eye(d)[:, None, :]).astype(X.dtype)
    sides = np.array([1, -1], X.dtype)[:, None]
    fixed = np.zeros((len(relative), n, n, d, 2, d), X.dtype)
    moved = h * sides + fixed
    first, second = X[None, :, None, None, None], X[None, None, :, None, None]
    x, y = first + fixed + moved * (argument == 0), second + fixed + moved * (argument == 1)
    at = x if argument == 0 else y
    width = np.sum(at[..., 0, :].astype(float) - at[..., 1, :], axis=-1)
    return Plan(x, y, np.array([1.0, -1.0]) / width[..., None])


def _mixed_differences(X: HostArray, steps: HostArray, relative: HostArray) -> Plan:
    """The quotient of four values for d2k / dx_j dy_l, (h, n, n, d, d, 4)."""
    n, d = X.shape
    h = (relative[:, None, None, None, None, None, None] * steps).astype(X.dtype)
    basis = np.eye(d, dtype=X.dtype)
    left = np.array([1, 1, -1, -1], X.dtype)[:, None] * basis[:, None, None, :]
    right = np.array([1, -1, 1, -1], X.dtype)[:, None] * basis[None, :, None, :]
    fixed = np.zeros((len(relative), n, n, d, d, 4, d), X.dtype)
    x = X[None, :, None, None, None, None] + h * left + fixed
    y = X[None, None, :, None, None, None] + h * right + fixed
    width_x = np.sum(x[..., 0, :].astype(float) - x[..., 2, :], axis=-1)
    width_y = np.sum(y[..., 0, :].astype(float) - y[..., 1, :], axis=-1)
    return Plan(x, y, np.array([1.0, -1.0, -1.0, 1.0]) / (width_x * width_y)[..., None])


def _settled(kernel: AbstractKernel, plan: Plan, ratio: float, enough: HostArray) -> Quotients:
    """The quotients at the smallest steps that agree to within ``enough``, or else the best."""
    d = plan.x.shape[-1]
    values = pairs(kernel, plan.x.reshape(-1, d), plan.y.reshape(-1, d))
    terms = values.astype(float).reshape(plan.weights.shape)
    quotients = np.sum(terms * plan.weights, axis=-1)
    changes = np.abs(np.diff(quotients, axis=0))
    # Settled over three steps in a row; the middle one stands for them. Larger steps may settle
    # as well, on what is left of a kernel whose finer part they miss.
    three = np.maximum(changes[1:], changes[:-1])
    good = three <= np.maximum(enough, three.min(axis=0))
    best = (len(good) - 1 - np.argmax(good[::-1], axis=0))[None]
    value = np.take_along_axis(quotients, best + 1, axis=0)[0]
    error = np.take_along_axis(three, best, axis=0)[0]
    # At a kink they go as a power of the step above -2, which is that of rounding, and of a
    # kernel that changes over less than the steps.
    sizes = np.abs(quotients)
    growing = (sizes[1:] > ratio**0.2 * sizes[:-1]) & (sizes[1:] < ratio**1.7 * sizes[:-1])
    return Quotients(value, error, quotients[0], growing.all(axis=0))

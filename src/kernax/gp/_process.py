"""The Gaussian process: a prior over functions, with observation noise."""

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import (
    InputError,
    KernaxError,
    NotPSDError,
    NumericalWarning,
    ParameterError,
    ShapeError,
)
from .._module import Parameterised, Structure, flatten, named_leaves, short
from .._parameters import non_negative
from .._typing import ArrayLike, Key, NanOption, Parameter, Shape
from ..kernels import AbstractKernel, NegKernel
from ..kernels._diagonal import add_to_diagonal
from ..kernels._gram import covariance
from ..linalg import Dense, cholesky, log_density
from ..linalg._mvn import failure, not_psd, report
from ..matrixfree import Iterative
from ._choice import choose
from ._data import (
    System,
    as_data,
    as_inputs,
    as_key,
    as_shape,
    clean_inputs,
    host_shift,
    mark_rows,
    prepared_gp,
    system,
    wrong_noise,
)
from ._elements import Per, check_shapes, over_elements
from ._iterative import key_of, likelihood_of, plan_of
from ._iterative import report as report_solves
from ._means import ZeroMean, as_mean, evaluate_mean
from ._one_pass import in_one_pass


class GaussianProcess(Parameterised):
    """y = f(x) + noise, with f ~ GP(mean, kernel) and independent noise of ``noise_variance``.

    ``kernel``: any kernel that is positive semi-definite; `NotPSDError` names a difference.
    ``noise_variance``: a scalar, or one value per point (n,); zero is allowed where it is fixed.
    ``mean``: `ZeroMean`, `ConstantMean`, `LinearMean`, a number, or a function from (n, d) to (n,).
    ``solver``: `Dense`, exact inference by a Cholesky factorisation; `Iterative`, by products
    with tiles of the matrix; ``"auto"`` is exact up to 20,000 rows or what fits into memory, and
    warns where it is not.
    ``input_variance``: that of Gaussian noise on the rows of X, a number or one per dimension (d,);
    None without. Observations are then y = f(x + e) + noise, taken to second order in e, for
    kernels that can be differentiated; `fit` finds it as any hyperparameter.

    Everywhere X is (n, d), or (n,) for n points of dimension one; y is (n,) or (n, 1), and
    predictions come back in the form of y. With y (n, t) there are t independent processes of one
    covariance, which share its factorisation. A row of X with a NaN is padding, and so is one
    where ``mask`` is False: results equal those without it.

    With a `BatchKernel` it is a batch of processes: X is (b, n, d), or (n, d) where inputs are
    shared, y is (b, n) or (b, n, 1), ``noise_variance`` a scalar, (b,) or (b, n), and every result
    has the batch in front. X and y may be lists of b arrays of different lengths, which are padded.
    An element that fails is NaN, with a `NumericalWarning`; the others do not notice.

    Rasmussen and Williams (2006), chapter 2.
    """

    kernel: AbstractKernel
    noise_variance: Parameter = non_negative(0.01)
    mean: Any = eqx.field(default_factory=ZeroMean, converter=as_mean)
    solver: Any = eqx.field(default="auto", static=True)
    input_variance: Any = non_negative(None)

    def __check_init__(self) -> None:
        if not isinstance(self.kernel, AbstractKernel):
            raise ParameterError(
                f"`kernel` is {self.kernel!r}, expected a kernel. Fix: pass SEKernel(), say."
            )
        check_shapes(self)
        if not (isinstance(self.solver, Dense | Iterative) or self.solver == "auto"):
            raise ParameterError(
                f"`solver` is {self.solver!r}, expected 'auto', Dense() or Iterative(). "
                "Fix: leave it out."
            )
        if self.kernel.sign() != 1:
            raise NotPSDError(
                f"`kernel` = {self.kernel!r} is not a covariance: {_culprit(self.kernel)} makes it "
                "indefinite. Fix: use sums, products and positive factors of kernels."
            )

    def log_marginal_likelihood(
        self,
        X: Any,
        y: Any = None,
        *,
        mask: ArrayLike | None = None,
        nan: NanOption = "pad",
    ) -> Array:
        """log N(y; mean(X), K(X, X) + noise), a scalar; of blocks as in `condition`.

        ``nan="raise"`` refuses NaN in X instead of reading it as padding. Eagerly raises
        `NotPSDError`, `InputError`, or warns `NumericalWarning` where jitter was needed; traced,
        a failure is NaN. With an `Iterative` solver an estimate, whose gradient is one of reverse
        mode, with random draws that stay the same from call to call.
        """
        data: Any = as_data(self, X, y, mask, nan)
        solver, _ = choose(self, data)
        if isinstance(solver, Iterative):
            plan = plan_of(self, solver, data.X)
            found = likelihood_of(self, data, plan, key_of(solver))
            report_solves(plan, found.residual, found.steps, found.indefinite)
            return found.value
        structure, leaves = flatten(self)
        value, jitter = _log_likelihood(structure, leaves, data.compiled)
        report_elements(self, value, jitter, lambda: self._failure(data))
        return value

    def sample(
        self,
        key: Key,
        X: ArrayLike,
        shape: Shape = (),
        *,
        observation: bool = False,
    ) -> Array:
        """Draws from the prior at X, shape + (n,): of f, or with noise where ``observation``.

        Of a batch (b,) + shape + (n,), independent draws for each element.

        Singular covariances are fine: the factorisation may add jitter, at most 100 n eps of the
        mean variance. NaN at padded rows.
        """
        structure, leaves = flatten(self)
        key, shape = as_key(key), as_shape(shape)
        points, finite = as_inputs(self, X, host_shift(self, X))
        sizes, n = tuple(level.size for level in self.kernel.levels()), points.shape[-2]
        if observation and self.noise_variance.shape not in ((), sizes, (*sizes, n)):
            raise ShapeError(wrong_noise(self, n))
        draws, jitter = _sample(structure, finite, leaves, key, points, shape, observation)
        why = lambda: indefinite(self.kernel.gram, points)
        report_elements(self, jitter, jitter, why, quiet=True)
        return draws

    def condition(
        self,
        X: Any,
        y: Any = None,
        *,
        mask: ArrayLike | None = None,
        nan: NanOption = "pad",
    ) -> Any:
        """The posterior given observations: one factorisation, reused by all that follows.

        Observations of what linear operators make of the process come as a list of blocks in
        place of X and y: ``gp.condition([(Identity(), X, y), (Derivative(0), Xd, yd, 1e-4)])``.
        Each is (operator, X, y) or (operator, X, y, noise), with points of its own. y is (n,) for
        one component, else (n, p) or its rows one after the other: of `Gradient` the d slopes of
        the first point, then those of the second. ``noise``: the variance, a number or one per
        value; without it that of the process. White noise in the kernel belongs to values alone.
        Raises `ParameterError` where the process does not have the derivatives.

        With an `Iterative` solver an `IterativePosterior`, of values only. Arguments and errors
        are those of `log_marginal_likelihood`.
        """
        from . import _iterative_posterior, _posterior

        data: Any = as_data(self, X, y, mask, nan)
        solver, reason = choose(self, data)
        if isinstance(solver, Iterative):
            plan = plan_of(self, solver, data.X)
            return _iterative_posterior.condition(self, data, plan, solver, reason)
        return _posterior.condition(self, data)

    def summary(self) -> str:
        """The hyperparameters: path, value and allowed range, a line each."""
        rows = [(e.path, short(e.value), str(e.constraint)) for e in named_leaves(self)]
        width = max(len(row[0]) for row in rows)
        return "\n".join(f"{path:<{width}}  {value:<14} {text}" for path, value, text in rows)

    def __repr__(self) -> str:
        parts = [
            repr(self.kernel),
            f"noise_variance={short(self.noise_variance)}",
            f"mean={type(self.mean).__name__}",
        ]
        if self.solver != "auto":
            parts.append(f"solver={self.solver!r}")
        if self.input_variance is not None:
            parts.append(f"input_variance={short(self.input_variance)}")
        return f"GaussianProcess({', '.join(parts)})"

    def _failure(self, data: Any) -> KernaxError:
        at = _system(*flatten(self), data.compiled)
        missing = np.isnan(np.asarray(at.residual))
        if missing.any():
            return InputError(
                f"`mean` is NaN at {int(missing.sum())} points, the first at row "
                f"{int(np.argmax(missing))}; expected numbers. Fix: look at its hyperparameters."
            )
        X = np.asarray(at.X)
        rows = X if at.real is None else np.where(np.asarray(at.real)[:, None], X, np.nan)
        return failure(np.asarray(at.K), rows)


def report_elements(
    gp: GaussianProcess,
    value: Any,
    jitter: Any,
    explain: Callable[[], KernaxError],
    *,
    quiet: bool = False,
) -> None:
    """The eager end of a computation: raise where it failed, warn where it needed jitter.

    In a batch a failure is a warning, since the other elements are fine.
    """
    if not gp.kernel.levels() or isinstance(value, jax.core.Tracer):
        report(value, jitter, explain, quiet=quiet)
        return
    failed = np.argwhere(np.isnan(np.asarray(value)))
    if len(failed):
        names = ", ".join(str(tuple(i) if len(i) > 1 else i[0]) for i in failed[:5].tolist())
        warnings.warn(
            f"{len(failed)} of {np.size(value)} elements have no positive definite covariance, and "
            f"are NaN: {names}{', ...' if len(failed) > 5 else ''}. Fix: add noise to them.",
            NumericalWarning,
            stacklevel=3,
        )
    fine = ~np.isnan(np.asarray(value))
    report(np.zeros(()), np.where(fine, jitter, 0.0), explain, quiet=quiet)


def indefinite(gram: Callable[[Array], Array], points: Array) -> KernaxError:
    """Why a covariance has no factor to draw with."""
    X = np.asarray(points)
    return not_psd(np.asarray(gram(points)), X[:, None] if X.ndim == 1 else X)


def _culprit(kernel: AbstractKernel) -> str:
    is_neg = lambda node: isinstance(node, NegKernel)
    found = [node for node in jax.tree.leaves(kernel, is_leaf=is_neg) if is_neg(node)]
    return f"NegKernel in `{found[0]!r}`" if found else f"{type(kernel).__name__}"


@partial(jax.jit, static_argnames=("structure",), inline=True)
def _log_likelihood(
    structure: Structure, leaves: tuple[Array, ...], data: Any
) -> tuple[Array, Array]:
    gp = structure.rebuild(leaves)

    def element(gp: Any, _: None, *arrays: Any) -> tuple[Array, Array]:
        at = system(gp, data.element(*arrays))
        return log_density(at.K, at.residual, at.n, at.scale)

    over = in_one_pass(data.rows)
    found: tuple[Array, Array] = over_elements(element, gp, *data.arrays, over=over)
    return found


@partial(jax.jit, static_argnames=("structure",))
def _system(structure: Structure, leaves: tuple[Array, ...], data: Any) -> System:
    return system(structure.rebuild(leaves), data)


@partial(jax.jit, static_argnames=("structure", "finite", "shape", "observation"))
def _sample(
    structure: Structure,
    finite: bool,
    leaves: tuple[Array, ...],
    key: Array,
    X: Array,
    shape: tuple[int, ...],
    observation: bool,
) -> tuple[Array, Array]:
    gp = structure.rebuild(leaves)

    def element(gp: Any, _: None, X: Array, key: Array) -> tuple[Array, Array]:
        gp, X = prepared_gp(gp, X)
        points, real = clean_inputs(X, finite, None)

        def draws_at(points: Array, key: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
            K = covariance(gp.kernel, points, noise=observation)
            if observation:
                K = add_to_diagonal(K, jnp.broadcast_to(gp.noise_variance, (X.shape[0],)))
            mean, scale = evaluate_mean(gp.mean, points), jnp.mean(jnp.diagonal(K))
            return draw(key, mean, K, scale, shape)

        def draw_moved(key: Array) -> tuple[Array, Array]:
            own, key = jax.random.split(key)
            e = jax.random.normal(own, points.shape, points.dtype)
            spread = jnp.broadcast_to(jnp.sqrt(gp.input_variance), points.shape)
            return draws_at(points + spread * e, key, ())

        if observation and gp.input_variance is not None:
            # Each draw is of other points, so that each has a covariance of its own.
            each, jitters = jax.lax.map(draw_moved, jax.random.split(key, math.prod(shape)))
            draws = each.reshape(*shape, X.shape[0])
            jitter = jnp.max(jitters, initial=0.0)
        else:
            draws, jitter = draws_at(points, key, shape)
        return mark_rows(draws, real), jitter

    found: tuple[Array, Array] = over_elements(element, gp, Per(X, 2), keys(gp, key))
    return found


def keys(gp: GaussianProcess, key: Array) -> Per:
    """A key of its own for each element."""
    sizes = tuple(level.size for level in gp.kernel.levels())
    return Per(jax.random.split(key, sizes) if sizes else key)


def draw(
    key: Array, mean: Array, K: Array, scale: Array, shape: tuple[int, ...]
) -> tuple[Array, Array]:
    """Draws of N(mean, K), shape + (n,), and the jitter they took: NaN where K is indefinite."""
    n = K.shape[0]
    L, jitter = cholesky(K, jnp.asarray(n, K.dtype), scale)
    white = jax.random.normal(key, (*shape, n), K.dtype)
    draws = jnp.broadcast_to(mean, white.shape) + jnp.einsum(
        "ij,...j->...i", L, white, precision="highest"
    )
    return draws, jnp.where(jnp.isnan(L[-1, -1]), jnp.nan, jitter) if n else jitter

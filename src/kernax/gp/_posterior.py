"""The posterior: a Gaussian process given observations."""

import warnings
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import NumericalWarning, ParameterError, ShapeError
from .._module import Structure, field_values, flatten, rebuild_fields, with_fields
from .._typing import ArrayLike, Key, NanOption, Shape
from ..calculus import Gradient, Identity, LinearOperator
from ..calculus._apply import as_operator
from ..kernels import AbstractKernel
from ..linalg import DenseFactor
from . import _predict
from ._blocks import BlockData
from ._data import as_inputs, as_key, as_shape, check_dimension, values_data
from ._noisy_inputs import as_input_variance, smoothed
from ._paths import Paths, sample_paths
from ._process import GaussianProcess, indefinite, report_elements

_VALUES, _SLOPES = Identity(), Gradient()


class LeaveOneOut(NamedTuple):
    """Each observation as predicted from all the others: of the observation, noise included."""

    mean: Array
    variance: Array
    log_density: Array


class Posterior(eqx.Module):
    """A Gaussian process conditioned on observations, with its factorisation.

    Made by `GaussianProcess.condition`. Predictions speak of the latent function, white noise in
    the kernel left out; ``observation=True`` adds it and ``noise_variance``. ``kernel=part``
    predicts one part of a sum alone, without the mean function. Test points are (m, d) or (m,);
    a row with NaN gives NaN. Means, variances and samples come in the form of y: (m,), (m, 1), or
    (m, t) for t targets, whose variances are the same.

    ``jitter`` is what was added to the diagonal (0 unless needed), ``status`` a `kernax.Status`.
    Of a batch, every result has the batch in front, and test points may be shared.
    """

    __slots__ = ("_flat",)

    gp: GaussianProcess
    data: Any  # observations of values, or in blocks
    state: _predict.State

    __getattribute__ = object.__getattribute__

    def __repr__(self) -> str:
        points = " and ".join(str(np.shape(X)) for X in self.data.points)
        return f"Posterior({self.gp!r}, X of shape {points})"

    @property
    def log_marginal_likelihood(self) -> Array:
        """log N(y; mean(X), K(X, X) + noise)."""
        return self.state.value

    @property
    def jitter(self) -> Array:
        """What was added to the diagonal of the covariance."""
        return self.state.factor.jitter

    @property
    def status(self) -> Array:
        """How the factorisation went, a `kernax.Status`."""
        return self.state.status

    @property
    def factor(self) -> DenseFactor:
        """The factorisation of K(X, X) + noise."""
        return self.state.factor

    @property
    def weights(self) -> Array:
        """(K + noise)^-1 (y - m(X))."""
        return self.state.weights

    def mean(
        self,
        Xs: ArrayLike,
        *,
        kernel: Any = None,
        operator: Any = None,
        input_variance: Any = None,
    ) -> Array:
        """E[f(Xs) | y] = m(Xs) + K(Xs, X) (K + noise)^-1 (y - m(X)).

        With ``operator`` that of what it makes of f: (m,) for one component, else (m, q). With
        ``input_variance``, a number, (d,) or (m, d), test points are known up to Gaussian noise of
        that variance, and the mean is taken over it, to second order.
        """
        s = self._spread(Xs, input_variance)
        values: Array = self._predict(_predict.mean, Xs, kernel, self._operator(operator, s))
        return self._shaped(values)

    def variance(
        self,
        Xs: ArrayLike,
        *,
        observation: bool = False,
        kernel: Any = None,
        operator: Any = None,
        input_variance: Any = None,
    ) -> Array:
        """Var[f(Xs) | y] = k(Xs, Xs) - diag(K(Xs, X) (K + noise)^-1 K(X, Xs)), never negative.

        With ``input_variance`` that of the function at a test point known up to Gaussian noise, to
        second order: with L = 1 + 1/2 sum_j s_j d2/dx_j2,
        Var[L f | y] + sum_j s_j (E[df/dx_j | y]^2 + Var[df/dx_j | y]).
        """
        s = self._spread(Xs, input_variance)
        L = self._operator(operator, s, observation)
        values, worst = self._predict(_predict.variance, Xs, kernel, L, observation=observation)
        if s is not None:
            slopes = self._predict(_predict.mean, Xs, kernel, _SLOPES)
            varied, _ = self._predict(_predict.variance, Xs, kernel, _SLOPES, observation=False)
            squares = jnp.square(slopes) + varied
            squares = squares[..., None] if self.data.dimension == 1 else squares
            values = values + jnp.sum(jnp.broadcast_to(s, squares.shape) * squares, axis=-1)
        if not isinstance(worst, jax.core.Tracer) and np.max(worst, initial=0.0) > 100.0:
            n, eps = self.data.rows, float(np.finfo(values.dtype).eps)
            warnings.warn(
                "a predictive variance came out negative, by "
                f"{float(np.max(worst)) * n * eps:.3g} of the prior variance, and was set to 0. "
                "Fix: add noise, or enable x64.",
                NumericalWarning,
                stacklevel=2,
            )
        if self.data.targets:
            targets = self.data.y.shape[-1]
            return jnp.broadcast_to(values[..., None], (*values.shape, targets))
        return self._shaped(values)

    def covariance(
        self,
        Xs: ArrayLike,
        *,
        observation: bool = False,
        kernel: Any = None,
        operator: Any = None,
    ) -> Array:
        """Cov[f(Xs) | y], (m, m): K(Xs, Xs) - K(Xs, X) (K + noise)^-1 K(X, Xs).

        Of an ``operator`` of q components (m q, m q), point by point.
        """
        L = self._operator(operator, None, observation)
        C: Array = self._predict(_predict.full_covariance, Xs, kernel, L, observation=observation)
        return C

    def sample(
        self,
        key: Key,
        Xs: ArrayLike,
        shape: Shape = (),
        *,
        observation: bool = False,
        operator: Any = None,
    ) -> Array:
        """Joint draws of f(Xs) given y, shape + (m,); of a batch (b,) + shape + (m,).

        Of an ``operator`` of q components shape + (m, q).
        """
        draws, jitter = self._predict(
            _predict.draws,
            Xs,
            None,
            self._operator(operator, None, observation),
            observation=observation,
            key=as_key(key),
            shape=as_shape(shape),
        )
        gram = partial(self.covariance, observation=observation, operator=operator)
        why = lambda: indefinite(gram, jnp.asarray(Xs))
        report_elements(self.gp, jitter, jitter, why, quiet=True)
        return self._shaped(draws)

    def sample_paths(self, key: Key, shape: Shape = (), *, features: Any = 2048) -> Paths:
        """Draws of f given y as functions: ``paths(Xs)`` is shape + (m,), at any points, later.

        The targets of y are behind that, and a batch is in front.

        By Matheron's rule, from a prior drawn with random ``features``, so for kernels that have
        them (`random_features`); the error that leaves vanishes near the observations, and
        elsewhere is of the order of k(0) / sqrt(features).
        """
        self._values_only("sample_paths")
        return sample_paths(self, key, shape, features)

    def leave_one_out(self) -> LeaveOneOut:
        """Each observation predicted from all the others, in closed form: one factorisation.

        mean_i = y_i - a_i / P_ii,  variance_i = 1 / P_ii,  with P = (K + noise)^-1, a = P (y - m)

        Noise is included. ``log_density``: log N(y_i; mean_i, variance_i), whose sum is the
        logarithm of the pseudo-likelihood. Each (n,), or in the form of y; NaN where there is
        padding. Rasmussen and Williams (2006), equations 5.10 to 5.12.
        """
        values = _predict.leave_one_out(*self._compiled())
        return LeaveOneOut(*(self._shaped(value) for value in values))

    def update(
        self,
        X_new: ArrayLike,
        y_new: Any,
        *,
        noise_variance: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        nan: NanOption = "pad",
    ) -> "Posterior":
        """The posterior with further observations, in O(n^2 m) and without copying the n^2 numbers.

        Equal to conditioning on all of them to rounding. ``noise_variance`` (m,) is that of the new
        points, needed where the process has one per point.
        """
        self._values_only("update")
        gp, new = self._updated_gp(X_new, noise_variance)
        data = values_data(new, self._raw(X_new), y_new, mask, nan)
        if (data.column, data.targets) != (self.data.column, self.data.targets) or (
            data.targets and data.y.shape[-1] != self.data.y.shape[-1]
        ):
            raise ShapeError(
                f"`y_new` has shape {np.shape(y_new)}, in another form than the y conditioned on. "
                "Fix: pass it in the same form."
            )
        check_dimension(self.data, data.X, X_new, "X_new")
        known = self._compiled() if gp is self.gp else flatten(self._known(gp))
        state, both = _predict.extended_state(*known, data.compiled)
        factor = with_fields(state.factor, first=self.state.factor.first)
        state, both = with_fields(state, factor=factor), with_fields(both, shift=self.data.shift)
        report_elements(gp, state.value, factor.jitter, lambda: gp._failure(both))
        return Posterior(gp, both, state)

    # --- helpers -------------------------------------------------------------------------------

    def _predict(self, function: Any, Xs: Any, kernel: Any, operator: Any, **options: Any) -> Any:
        per_point = self.gp.noise_variance.ndim > len(self.gp.kernel.levels())
        if options.get("observation") and per_point:
            raise ParameterError(
                "`observation=True` with one `noise_variance` per training point: the noise of "
                "the new points is not known. Fix: add it to the latent variance yourself."
            )
        if kernel is not None and not isinstance(kernel, AbstractKernel):
            raise ParameterError(
                f"`kernel` is {kernel!r}, expected a kernel, one part of that of the process. "
                "Fix: pass for instance posterior.gp.kernel.left_kernel."
            )
        structure, leaves = self._compiled()
        points, finite = as_inputs(self.gp, Xs, self.data.shift, "Xs")
        check_dimension(self.data, points, Xs, "Xs")
        part, part_leaves = (None, ()) if kernel is None else flatten(kernel)
        own, own_leaves = flatten(operator)
        facts = _predict.Facts(own, structure, finite, part)
        arrays = _predict.Arrays(leaves, own_leaves, points, part_leaves)
        return function(facts, arrays, **options)

    def _spread(self, Xs: Any, input_variance: Any) -> Array | None:
        """The variances of the inputs of test points, (d,) or (m, d)."""
        if input_variance is None:
            return None
        if self.data.targets:
            raise ParameterError(
                "`input_variance` is for one target, and here are several. Fix: condition on one "
                "column of y."
            )
        shape, d = jnp.shape(Xs), self.data.dimension
        return as_input_variance(input_variance, shape[-2] if len(shape) > 1 else shape[0], d)

    def _operator(
        self, given: Any, s: Array | None = None, observation: bool = False
    ) -> LinearOperator:
        """What of the function is predicted: of test points known up to noise its average."""
        if given is None:
            return _VALUES if s is None else smoothed(s, self.data.dimension)
        known = as_operator(given, "operator")
        if self.data.targets or observation or s is not None:
            what = "`observation=True`" if observation else "`input_variance`"
            what = "several targets" if self.data.targets else what
            raise ParameterError(
                f"`operator` is for the function itself, of one target, and here it comes with "
                f"{what}. Fix: leave it out, or condition on one column of y."
            )
        if self.data.shift is not None and not known.invariant:
            known = known.moved(jnp.asarray(self.data.shift))
        return known

    def _values_only(self, what: str) -> None:
        if self.gp.input_variance is not None:
            raise ParameterError(
                f"`{what}` is for inputs known exactly, and the process has an `input_variance`. "
                "Fix: condition on all observations again, or draw with `sample`."
            )
        if isinstance(self.data, BlockData):
            raise ParameterError(
                f"`{what}` is for observations of values, and these are in blocks. "
                "Fix: condition on all blocks again."
            )

    def _updated_gp(self, X_new: Any, noise: Any) -> tuple[GaussianProcess, GaussianProcess]:
        """The process of all points, and of the new ones alone."""
        gp, depth = self.gp, len(self.gp.kernel.levels())
        per_point = gp.noise_variance.ndim > depth
        if (noise is not None) != per_point:
            raise ParameterError(
                "`noise_variance` is needed in an update where the process has one per point, and "
                "only there. Fix: "
                + ("pass the noise of the new points." if per_point else "leave it out.")
            )
        if not per_point:
            return gp, gp
        own = eqx.tree_at(lambda gp: gp.noise_variance, gp, jnp.asarray(noise))
        fields = field_values(gp) | {"noise_variance": own.noise_variance}
        new = GaussianProcess(**fields)
        joined = jnp.concatenate([gp.noise_variance, new.noise_variance], axis=-1)
        return GaussianProcess(**(field_values(gp) | {"noise_variance": joined})), new

    def _raw(self, X: Any) -> Any:
        """New points, less the shift that was taken off the old ones."""
        if self.data.shift is None:
            return X
        points, _ = as_inputs(self.gp, X, self.data.shift, "X_new")
        return points

    def _compiled(self) -> tuple[Structure, tuple[Array, ...]]:
        """What compiled code is given, remembered; another shift compiles nothing again."""
        try:
            found: tuple[Structure, tuple[Array, ...]] = object.__getattribute__(self, "_flat")
        except AttributeError:
            found = flatten(self._known(self.gp))
            object.__setattr__(self, "_flat", found)
        return found

    def _known(self, gp: GaussianProcess) -> Any:
        return _predict.Known(gp, self.data.compiled, self.state)

    def __reduce__(self) -> Any:
        return rebuild_fields, (type(self), field_values(self))

    def _shaped(self, values: Array) -> Array:
        return values[..., None] if self.data.column else values


def condition(gp: GaussianProcess, data: Any) -> Posterior:
    """Factorise, solve, and report: the work behind `GaussianProcess.condition`."""
    state = _predict.condition_state(*flatten(gp), data.compiled)
    report_elements(gp, state.value, state.factor.jitter, lambda: gp._failure(data))
    return Posterior(gp, data, state)

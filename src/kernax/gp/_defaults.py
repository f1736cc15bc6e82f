"""Start values and priors from the data's scale and dimension, for raw data of any units.

=====================  =====================================  =====================================
hyperparameter         start                                  prior
=====================  =====================================  =====================================
length-scale(s)        sqrt(d) std(x_j)                       LogNormal, median 4.1 sqrt(d) range_j,
                                                              sigma sqrt(3)
constant factor        var(y) / terms of the sum              LogNormal, median the start, sigma 2
noise_variance         var(y) / 10                            LogNormal, median var(y) / 100,
                                                              sigma 2
constant mean          mean(y)                                Normal(mean(y), std(y))
=====================  =====================================  =====================================

d counts the dimensions that a kernel reads, and one length-scale for several dimensions takes the
root mean square over them. Others (periods, shapes, slopes) keep their values and have no prior:
scale says nothing about them. The prior of length-scales is that of Hvarfner, Hellsten and Nardi
(2024), Vanilla Bayesian optimization performs great in high dimensions, whose median grows with
sqrt(d), in units of the range of each column.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._errors import MissingExtraError, ParameterError
from .._module import with_leaves
from .._nodes import Unit
from .._typing import ArrayLike, HostArray
from ..kernels import ActiveDimsKernel, ARDKernel, ConstantKernel, SumKernel
from ..kernels._base import subkernels
from ._data import Data, values_data
from ._means import ConstantMean
from ._process import GaussianProcess


def default_start(
    gp: GaussianProcess, X: ArrayLike, y: Any, *, mask: ArrayLike | None = None
) -> GaussianProcess:
    """The process with start values from the scale of the data.

    Length-scales, constant factors, ``noise_variance`` and a constant mean; see the table in the
    documentation of `default_priors`. A zero ``noise_variance`` stays. Not for batches.
    """
    found = _Scales.of(gp, X, y, mask)
    starts = {path: jnp.asarray(start) for path, (start, _, _) in found.values(gp).items()}
    return with_leaves(gp, starts)


def default_priors(
    gp: GaussianProcess, X: ArrayLike, y: Any, *, mask: ArrayLike | None = None
) -> dict[str, Any]:
    """Weak priors from the scale of the data, for ``fit(..., priors=...)``; needs NumPyro.

    Length-scales: LogNormal of median 4.1 sqrt(d) times the range of the column, sigma sqrt(3),
    after Hvarfner et al. (2024). Constant factors: LogNormal around var(y), shared among the terms
    of a sum, sigma 2. ``noise_variance``: LogNormal of median var(y) / 100, sigma 2. A constant
    mean: Normal(mean(y), std(y)). Other hyperparameters have none.
    """
    try:
        import numpyro.distributions as dist
    except ImportError as error:
        raise MissingExtraError("default_priors", "numpyro", "mcmc") from error
    priors: dict[str, Any] = {}
    for path, (_, middle, sigma) in _Scales.of(gp, X, y, mask).values(gp).items():
        positive = sigma is not None and not path.startswith("mean.")
        priors[path] = (
            dist.LogNormal(np.log(middle), sigma) if positive else dist.Normal(middle, sigma)
        )
    return priors


def noise_alone(gp: GaussianProcess, X: Any, y: Any, mask: Any) -> float:
    """The loss of y as independent noise of its own mean and variance."""
    found = _Scales.of(gp, X, y, mask)
    return 0.5 * found.count * (math.log(2 * math.pi * found.variance) + 1.0)


class _Scales:
    """What the data say of their scale."""

    def __init__(self, data: Data):
        X, y = np.asarray(data.X, float), np.asarray(data.y, float)
        real = ~np.isnan(X).any(axis=1)
        real = real if data.mask is None else real & np.asarray(data.mask)
        X, y = X[real], y[real]
        if len(y) < 2:
            raise ParameterError(
                f"`X` has {len(y)} real rows, and the scale of data needs at least 2. "
                "Fix: state start values and priors."
            )
        # A column that does not vary says nothing: 1 in its place.
        self.spread = _or_one(X.std(axis=0))
        self.range = _or_one(np.ptp(X, axis=0))
        self.mean, self.variance, self.count = float(y.mean()), float(_or_one(y.var())), y.size

    @classmethod
    def of(cls, gp: GaussianProcess, X: Any, y: Any, mask: Any) -> "_Scales":
        if gp.kernel.levels():
            raise ParameterError(
                "start values and priors from data are for one process, and this is a batch. "
                "Fix: use them for one element, or state them."
            )
        return cls(values_data(gp, X, y, mask, "pad"))

    def values(self, gp: GaussianProcess) -> dict[str, tuple[HostArray, HostArray, float]]:
        """Path -> start, middle of the prior, its sigma."""
        found: dict[str, tuple[HostArray, HostArray, float]] = {}
        self._walk(gp.kernel, "kernel", np.arange(len(self.spread)), 1, found)
        noise = np.asarray(gp.noise_variance)
        if noise.all():
            start = np.full(noise.shape, self.variance / 10)
            found["noise_variance"] = (start, start / 10, 2.0)
        if isinstance(gp.mean, ConstantMean):
            mean = np.asarray(self.mean)
            found["mean.value"] = (mean, mean, math.sqrt(self.variance))
        # Not what is tied to another, nor a field of that name with a meaning of its own.
        known = gp.hyperparameters
        fits = lambda path, start: path in known and np.shape(start) == known[path].shape
        return {
            path: (
                np.asarray(start, known[path].dtype),
                np.asarray(middle, known[path].dtype),
                sigma,
            )
            for path, (start, middle, sigma) in found.items()
            if fits(path, start)
        }

    def _walk(self, kernel: Any, path: str, dims: Any, terms: int, found: Any) -> None:
        if isinstance(kernel, ConstantKernel):
            start = np.asarray(self.variance / terms)
            found[f"{path}.value"] = (start, start, 2.0)
        for name in ("length_scale", "length_scales"):
            scale = getattr(kernel, name, None)
            if scale is not None and not isinstance(scale, Unit) and np.ndim(scale) < 2:
                start, middle = (
                    self._length(values[dims], np.shape(scale), len(dims))
                    for values in (self.spread, 4.1 * self.range)
                )
                found[f"{path}.{name}"] = (start, middle, math.sqrt(3.0))
        if isinstance(kernel, ActiveDimsKernel):
            dims = dims[list(kernel.active_dims)]
        if isinstance(kernel, SumKernel):
            terms = 2 * terms
        if isinstance(kernel, ARDKernel):
            # Inside, inputs are in units of the length-scales.
            unit = _Scales.__new__(_Scales)
            unit.spread = unit.range = np.ones_like(self.spread)
            unit.mean, unit.variance = self.mean, self.variance
            unit._walk(kernel.inner_kernel, f"{path}.inner_kernel", dims, terms, found)
            return
        inside = {id(part) for part in subkernels(kernel)}
        for name in kernel.__dataclass_fields__:
            part = getattr(kernel, name)
            if id(part) in inside:
                self._walk(part, f"{path}.{name}", dims, terms, found)

    @staticmethod
    def _length(units: HostArray, shape: tuple[int, ...], d: int) -> HostArray:
        if shape:
            return math.sqrt(d) * units
        return np.asarray(math.sqrt(d) * np.sqrt(np.mean(units**2)))


def _or_one(values: Any) -> Any:
    return np.where(np.asarray(values) > 0, values, 1.0)

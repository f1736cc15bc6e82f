"""Covariance matrices on regular grids of one dimension: convolutions."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import _inputs
from .._errors import InputError, ParameterError, ShapeError
from .._module import as_parameter, prepared
from .._parameters import Real
from .._typing import ArrayLike, HostArray
from ..kernels._gram import has_noise, variances
from ._grid import GridOperator, as_cells, as_noise, check_single_kernel, floats

# By how much of a step a point may be off its place.
TOLERANCE = 1e-6


class ToeplitzOperator(GridOperator):
    """The covariance of a stationary kernel on a regular grid of one dimension, plus noise.

    K_ij = k(|i - j| step) depends on i - j alone, so that K is a corner of a circulant matrix, a
    convolution: a product with s vectors takes O(n s log n) steps and O(n s) memory by Fourier
    transforms. White noise in the kernel is on the diagonal. Derivatives in the step go through.

    The grid is ``X`` (n,) or (n, 1), or ``start + step * (0, ..., size - 1)``, where start (0 by
    default) and step may be traced. A point of X may be off its place by 1e-6 steps and two
    roundings of the largest coordinate. ``observed``: (n,) booleans; rows are then the points where
    it is True. ``noise_variance``: a number, or one per row.

    Raises `ParameterError` for a kernel that is not stationary and for a batch; `InputError` for
    an X that is not regular, with its first irregular gap, and for a traced X, whose gaps cannot
    be seen. Wood and Chan (1994), Simulation of stationary Gaussian processes in [0, 1]^d.
    """

    kernel: Any
    start: Array
    step: Array
    noise_variance: Array
    cells: Array | None
    length: int = eqx.field(static=True)  # points of the whole grid

    def __init__(
        self,
        kernel: Any,
        X: ArrayLike | None = None,
        noise_variance: Any = 0.0,
        *,
        start: Any = None,
        step: Any = None,
        size: int | None = None,
        observed: ArrayLike | None = None,
    ):
        check_single_kernel(kernel, "kernel")
        if not kernel.stationary:
            raise ParameterError(
                f"`{kernel!r}` is not stationary, and its matrix on a regular grid not that of a "
                "convolution. Fix: use a stationary kernel, or KernelOperator."
            )
        if X is None and step is not None and size is not None:
            self.start = as_parameter(0.0 if start is None else start, "`start`", Real())
            self.step = as_parameter(step, "`step`", Real())
            self.length = _inputs.as_whole(size, "size")
        elif X is not None and start is None and step is None and size is None:
            self.start, self.step, self.length = _regular(X)
        else:
            raise ParameterError(
                f"`X` is {'not ' if X is None else ''}given, `start` is {start!r}, `step` {step!r} "
                f"and `size` {size!r}, expected one grid. Fix: pass X alone, or step and size."
            )
        if self.length < 1 or self.start.shape or self.step.shape:
            raise ShapeError(
                f"`size` is {self.length}, `start` has shape {self.start.shape} and `step` "
                f"{self.step.shape}, expected size > 0 and numbers. Fix: pass one of each."
            )
        self.kernel, self.cells = kernel, as_cells(observed, (self.length,))
        noise = as_noise(noise_variance, self.size)
        dtype = _inputs.common_dtype(self.start, self.step, noise, *floats(kernel))
        self.start, self.step = self.start.astype(dtype), self.step.astype(dtype)
        self.noise_variance = noise.astype(dtype)

    @property
    def grid_shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def X(self) -> Array:
        """The points of the rows, (n, 1)."""
        return (self.start + self.step * self.observed_cells().astype(self.dtype))[:, None]

    def grid_product(self, V: Array) -> Array:
        c, n = self._lags(), self.length
        # Vectors are filled up with zeros, so that nothing comes round the circle but at lags
        # above n - 1, whose covariances are free: 0.
        around = _smooth(2 * n - 1)
        free = jnp.zeros((around - (2 * n - 1),), c.dtype)
        circle = jnp.fft.rfft(jnp.concatenate([c, free, c[:0:-1]]))
        waves = circle[:, None] * jnp.fft.rfft(V, n=around, axis=0)
        return jnp.fft.irfft(waves, n=around, axis=0)[:n]

    def grid_columns(self, cells: Array) -> Array:
        apart = jnp.abs(jnp.arange(self.length, dtype=cells.dtype)[:, None] - cells[None, :])
        return self._lags()[apart]

    def grid_variances(self, cells: Array) -> Array:
        return jnp.broadcast_to(self._lags()[0], (len(cells),))

    def noise(self) -> Array:
        kernel = prepared(self.kernel, self.dtype)
        noise = self.noise_variance
        if has_noise(kernel):
            origin = jnp.zeros((1, 1), self.dtype)
            noise = noise + (variances(kernel, origin) - variances(kernel, origin, noise=False))[0]
        return jnp.broadcast_to(noise, (self.size,))

    def _lags(self) -> Array:
        """k(0, j step) for j = 0, ..., n - 1, without white noise."""
        # From 0, not from `start`, far from which differences would lose digits.
        places = (self.step * jnp.arange(self.length).astype(self.dtype))[:, None]
        lags: Array = prepared(self.kernel, self.dtype).matrix(places[:1], places)[0]
        return lags


# --- checks ---------------------------------------------------------------------------------------


def _regular(X: Any) -> tuple[Array, Array, int]:
    """The start, the step and the number of points of a regular grid."""
    if isinstance(X, jax.core.Tracer) or _inputs.holds_tracer(X):
        raise InputError(
            "`X` is traced, and whether it is regular cannot be seen. "
            "Fix: pass `start`, `step` and `size`."
        )
    host = _inputs.as_host(X, "X")
    if host.shape not in ((host.size,), (host.size, 1)) or host.size == 0:
        raise ShapeError(
            f"`X` has shape {host.shape}, expected (n,) or (n, 1) with n > 0. "
            "Fix: pass the points of one dimension."
        )
    points = host.reshape(-1).astype(np.float64)
    row = int(np.argmin(np.isfinite(points)))
    if not np.isfinite(points[row]):
        raise InputError(
            f"`X` holds {points[row]} at row {row}, expected finite numbers. Fix: pass the points "
            "of the whole grid, and name those that are there with `observed`."
        )
    step = (points[-1] - points[0]) / max(len(points) - 1, 1)
    _check_regular(points, step, 2.0 * float(np.spacing(np.abs(host).max())))
    dtype = jax.dtypes.canonicalize_dtype(host.dtype)
    return jnp.asarray(points[0], dtype), jnp.asarray(step, dtype), len(points)


def _check_regular(points: HostArray, step: float, rounding: float) -> None:
    allowed = TOLERANCE * abs(step) + rounding
    off = np.abs(points - (points[0] + step * np.arange(len(points))))
    if (off <= allowed).all():
        return
    gaps = np.diff(points)
    usual = np.median(gaps)
    apart = np.abs(gaps - usual)
    # Where many small ones add up, the largest.
    first = int(np.argmax(apart >= min(allowed, apart.max())))
    raise InputError(
        f"`X` is not regular: from row {first} to row {first + 1} it goes by {gaps[first]:.10g}, "
        f"and usually by {usual:.10g}; points may be off by {allowed:.3g}. Fix: pass the whole "
        "grid and name the points that are there with `observed`, or use KernelOperator."
    )


def _smooth(least: int) -> int:
    """The smallest 2^a 3^b 5^c >= ``least``, a length that is transformed fast."""
    best = 1 << (least - 1).bit_length()
    fives = 1
    while fives < best:
        threes = fives
        while threes < best:
            doublings = (-(-least // threes) - 1).bit_length()
            best = min(best, threes << doublings)
            threes *= 3
        fives *= 5
    return best

"""Observations as the arithmetic wants them: checked, clean, in one dtype, with what is padding.

The checks that need values run here, eagerly; inside a trace they are skipped, and a failure
shows as NaN.
"""

import dataclasses
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import _inputs, _padding
from .._errors import InputError, ParameterError, ShapeError
from .._module import prepared
from .._typing import HostArray
from ..calculus import Identity
from ..kernels._diagonal import add_to_diagonal
from ..kernels._gram import observed
from ..kernels._levels import PointSet, check_batch
from ._blocks import BlockData, Part, as_blocks, is_blocks, joint, prior_mean, real_values
from ._elements import Per
from ._means import evaluate_mean
from ._noisy_inputs import check_input_variance, with_input_noise

if TYPE_CHECKING:
    from ._process import GaussianProcess


class Data(eqx.Module):
    """Points (n, d), values (n,), an optional mask, and facts that compilation may rely on.

    Of a batch, each has batch axes in front, or is shared by all elements.
    """

    X: Array
    y: Array
    mask: Array | None
    # Known to hold no NaN: what the mask leaves out, if there is one, has clean rows already.
    finite: bool = eqx.field(static=True)
    column: bool = eqx.field(static=True)  # y came as (n, 1)
    # Taken off X on the host, per column, before rounding to 32 bits; a tuple is hashable.
    shift: tuple[float, ...] | None = eqx.field(static=True, default=None)
    targets: bool = eqx.field(static=True, default=False)  # y is (n, t), one process for each

    @property
    def values(self) -> Array:
        """What was observed."""
        return self.y

    @property
    def rows(self) -> int:
        """The number of values, of one target."""
        return int(self.X.shape[-2])

    @property
    def dimension(self) -> int:
        """That of the points."""
        return int(self.X.shape[-1])

    @property
    def points(self) -> tuple[Array, ...]:
        """The points of each block, of which there is one."""
        return (self.X,)

    def parts(self, dtype: Any) -> tuple[Part, ...]:
        """Operators and clean points of one element: values."""
        return ((Identity(), *clean_inputs(self.X.astype(dtype), self.finite, self.mask)),)

    @property
    def compiled(self) -> "Data":
        """What compiled code is given: the shift is taken off already, and is no part of it."""
        return self if self.shift is None else dataclasses.replace(self, shift=None)

    @property
    def cleaned(self) -> "Data":
        """With clean rows in the place of padding, so that a program which is run many times has
        nothing to clean; as it is where devices share it out."""
        everything = (self.X, self.y, *(() if self.mask is None else (self.mask,)))
        if self.finite or any(len(x.sharding.device_set) > 1 for x in everything):
            return self
        X = np.asarray(self.X)
        real: HostArray = np.ones(X.shape[:-1], bool)
        if X.dtype.kind == "f":
            real = real & ~np.isnan(X).any(axis=-1)
        if self.mask is not None:
            real = real & np.asarray(self.mask)
        if real.all():
            return dataclasses.replace(self, mask=None, finite=True)
        at = np.expand_dims(real.argmax(axis=-1), (-1, -2))
        X = np.where(real[..., None], X, np.take_along_axis(X, at, axis=-2))
        X = np.where(np.expand_dims(real.any(axis=-1), (-1, -2)), X, np.zeros_like(X))
        return dataclasses.replace(self, X=jnp.asarray(X), mask=jnp.asarray(real), finite=True)

    @property
    def arrays(self) -> tuple[Per, Per, Per]:
        """Points, values and mask, with the axes that they have for one element."""
        return Per(self.X, 2), Per(self.y, 2 if self.targets else 1), Per(self.mask, 1)

    def element(self, X: Array, y: Array, mask: Array | None) -> "Data":
        """The data of one element, of the arrays that it has."""
        return dataclasses.replace(self, X=X, y=y, mask=mask)


def as_data(gp: "GaussianProcess", X: Any, y: Any, mask: Any, nan: str) -> Data | BlockData:
    """Observations checked: of values, or in blocks."""
    if nan not in ("pad", "raise"):
        raise ParameterError(
            f"`nan` is {nan!r}, expected 'pad' or 'raise'. Fix: leave it out to pad."
        )
    if is_blocks(X):
        if y is not None or mask is not None:
            raise ParameterError(
                "blocks hold their values, and mark padding by NaN in X: `y` and `mask` go "
                "without. Fix: pass [(operator, X, y), ...] alone."
            )
        found = as_blocks(gp, X, nan)
        check_input_variance(gp, found.dimension, single=False)
        return found
    if y is None:
        raise ParameterError(
            "`y` is missing. Fix: pass X and y, or a list of blocks [(operator, X, y), ...]."
        )
    return values_data(gp, X, y, mask, nan)


def values_data(gp: "GaussianProcess", X: Any, y: Any, mask: Any, nan: str) -> Data:
    """Values checked: shapes, dtypes, finiteness; lists and NumPy arrays on the device."""
    sizes = tuple(level.size for level in gp.kernel.levels())
    if sizes and isinstance(X, list | tuple):
        X, y = _padding.pad(X, y)
    mask = None if mask is None else jnp.asarray(mask)
    X, y = (_inputs.without_filler(v, mask, name) for v, name in ((X, "X"), (y, "y")))
    shift = host_shift(gp, X)
    points, finite = as_inputs(gp, X, shift)
    values, _ = _inputs.as_points(y, "y")
    _inputs.check_dtype(values.dtype, "y")
    values, column, targets = _values(values, points, sizes)
    if gp.noise_variance.shape not in ((), sizes, (*sizes, points.shape[-2])):
        raise ShapeError(wrong_noise(gp, points.shape[-2]))
    check_input_variance(gp, points.shape[-1], single=not targets)
    if mask is not None:
        _padding.check_mask(mask, points.shape, "mask")
        finite = False
    absent = [i for i, has in enumerate(Per(points, 2).axes(gp.kernel.levels())) if not has]
    _check_missing(points, values, mask, nan, targets, absent)
    return Data(points, values, mask, finite, column, shift, targets)


def _values(y: Array, points: Array, sizes: tuple[int, ...]) -> tuple[Array, bool, bool]:
    """y as (..., n) or (..., n, t), whether it came as (n, 1), and whether it holds targets."""
    n = points.shape[-2]
    whole = (*sizes, n)
    if y.shape == whole or (sizes and points.ndim == 2 and y.shape == (n,)):
        return y, False, False
    if y.shape == (*whole, 1):
        return y[..., 0], True, False
    if y.ndim == len(whole) + 1 and y.shape[:-1] == whole and y.shape[-1]:
        return y, False, True
    wanted = f"({n},) or ({n}, 1)" if not sizes else f"{whole} or {(*whole, 1)}"
    raise ShapeError(
        f"`X` has {n} rows (shape {points.shape}) and `y` has shape {y.shape}, expected "
        f"{wanted}. Fix: pass one value of y per row of X."
    )


def wrong_noise(gp: "GaussianProcess", n: int) -> str:
    """What is said where per-point noise does not fit the points."""
    return (
        f"`noise_variance` has shape {gp.noise_variance.shape}, but `X` has {n} rows. "
        "Fix: pass one value, or one per row."
    )


def as_inputs(
    gp: "GaussianProcess", X: Any, shift: tuple[float, ...] | None, name: str = "X"
) -> tuple[Array, bool]:
    """Points on the device, less the shift, and whether they are known to be finite.

    They are (n, d), or for a batch have the batch axes that its kernel expects; points to predict
    at may be shared.
    """
    if isinstance(X, jax.core.Tracer) and shift is not None:
        points, finite = _shifted(X, np.asarray(shift)), False
    else:
        points, finite = _inputs.as_points(X, name, None if shift is None else np.asarray(shift))
    _inputs.check_dtype(points.dtype, name)
    levels = gp.kernel.levels()
    if points.ndim == 0 or (points.ndim > 2 and not levels):
        raise ShapeError(
            f"`{name}` has shape {points.shape}, expected (n, d) or (n,). "
            "Fix: pass a row per point."
        )
    points = points[:, None] if points.ndim == 1 else points
    if points.shape[-1] == 0:
        raise ShapeError(
            f"`{name}` has shape {points.shape}: need at least 1 input dimension. Fix: pass (n, d)."
        )
    if levels:
        check_batch(PointSet(points, name, may_share=name == "Xs"), levels, gp.kernel)
    _inputs.warn_of_spacing(points, name)
    return points, finite


def host_shift(gp: "GaussianProcess", X: Any) -> tuple[float, ...] | None:
    """What to take off 64-bit host data, per column, before rounding them to 32 bits."""
    if isinstance(X, jax.Array) or not (gp.kernel.stationary and getattr(gp.mean, "flat", False)):
        return None
    found = _inputs.common_shift(X)
    return None if found is None else tuple(found.tolist())


def _shifted(X: Array, shift: HostArray) -> Array:
    """X - shift inside a trace, in two steps: the shift alone would be rounded to 32 bits."""
    high = shift.astype(X.dtype)
    low = (shift - high).astype(X.dtype)
    high, low = (part[0] if X.ndim < 2 else part[None, :] for part in (high, low))
    # Without the barrier XLA adds the two parts up again.
    return jax.lax.optimization_barrier(X - high) - low


def _check_missing(
    X: Array, y: Array, mask: Array | None, nan: str, targets: bool, absent: list[int]
) -> None:
    """``absent``: the batch axes that X does not have."""
    # Of rows that other processes have, this one sees nothing either.
    seen = lambda value: getattr(value, "is_fully_addressable", True)
    if any(isinstance(v, jax.core.Tracer) or not seen(v) for v in (X, y, mask)):
        return
    missing = np.isnan(np.asarray(X)) if X.dtype.kind == "f" else np.zeros(X.shape, bool)
    if mask is not None:
        missing = missing & np.asarray(mask)[..., None]
    if nan == "raise" and missing.any():
        *rows, column = np.argwhere(missing)[0]
        raise InputError(
            f"`X` holds {int(missing.sum())} NaN, the first at {_place(rows)}, column {column}; "
            'expected numbers. Fix: drop those rows, or pass nan="pad" to read them as padding.'
        )
    real = ~missing.any(axis=-1)
    real = real if mask is None else real & np.asarray(mask)
    bad = np.isnan(np.asarray(y)) if y.dtype.kind == "f" else np.zeros(y.shape, bool)
    bad = bad.any(axis=-1) if targets else bad
    bad = bad & (np.expand_dims(real, absent) if bad.ndim > real.ndim else real)
    if bad.any():
        raise InputError(
            f"`y` holds {int(bad.sum())} NaN where `X` is real, the first at "
            f"{_place(np.argwhere(bad)[0])}; expected numbers. Fix: drop those rows, or mark them "
            "as padding with `mask`, or by NaN in X."
        )


def _place(index: Any) -> str:
    *elements, row = (int(i) for i in index)
    return f"{'element ' + ', '.join(map(str, elements)) + ', ' if elements else ''}row {row}"


def prepared_gp(gp: Any, X: Array, *others: Array) -> tuple[Any, Array]:
    """The process and the points in the one floating dtype of these, and of other arrays."""
    leaves = [leaf for leaf in jax.tree.leaves(gp) if eqx.is_inexact_array(leaf)]
    dtype = _inputs.common_dtype(X, *leaves, *others)
    return prepared(gp, dtype), X.astype(dtype)


def clean_inputs(X: Array, finite: bool, mask: Array | None) -> tuple[Array, Array | None]:
    """Clean points, and which of them are real: None where all are known to be."""
    return (X, mask) if finite else _padding.clean(X, mask)


def mark_rows(values: Array, real: Array | None) -> Array:
    """NaN in the last axis where a point is padding."""
    return (
        values if real is None else jnp.where(jnp.broadcast_to(real, values.shape), values, jnp.nan)
    )


class System(NamedTuple):
    """What a likelihood is made of, for one element of a batch."""

    K: Array  # K(X, X) with noise; rows of the identity where there is padding
    residual: Array  # y - mean, (n,) or (n, t); 0 where there is padding
    n: Array  # how many points are real
    scale: Array  # their mean variance
    X: Array  # clean points
    real: Array | None  # which of them are real: None where all are known to be


def system(gp: "GaussianProcess", data: Data | BlockData) -> System:
    """The system of one element: its process and data without batch axes."""
    if isinstance(data, BlockData):
        return _of_blocks(gp, data)
    at = _of_values(gp, data)
    if gp.input_variance is None:
        return at
    return with_input_noise(prepared_gp(gp, at.X)[0], at)


def _of_blocks(gp: "GaussianProcess", data: BlockData) -> System:
    noises = [block.noise for block in data.blocks if block.noise is not None]
    values = [block.y for block in data.blocks]
    gp, _ = prepared_gp(gp, data.blocks[0].X, *data.points, *values, *noises)
    dtype = gp.noise_variance.dtype
    parts = data.parts(dtype)
    K = joint(gp.kernel, parts)
    real = jnp.concatenate([real_values(*part) for part in parts])
    noise, residual = [], []
    for block, (own, X, _) in zip(data.blocks, parts, strict=True):
        variance = gp.noise_variance if block.noise is None else block.noise.astype(dtype)
        noise.append(jnp.broadcast_to(variance, block.y.shape))
        residual.append(block.y.astype(dtype) - prior_mean(gp.mean, own, X).reshape(-1))
    K = add_to_diagonal(K, jnp.where(real, jnp.concatenate(noise), 0.0))
    rows = [jnp.repeat(X, own.components(X.shape[1]), axis=0) for own, X, _ in parts]
    count = jnp.sum(real).astype(dtype)
    total = jnp.sum(jnp.where(real, jnp.diagonal(K), 0.0))
    scale = jax.lax.stop_gradient(total / jnp.maximum(count, 1.0))
    y = jnp.where(real, jnp.concatenate(residual), 0.0)
    return System(K, y, count, scale, jnp.concatenate(rows), real)


def _of_values(gp: "GaussianProcess", data: Data) -> System:
    gp, X = prepared_gp(gp, data.X, data.y)
    y = data.y.astype(X.dtype)
    X, real = clean_inputs(X, data.finite, data.mask)
    n = X.shape[0]
    noise = jnp.broadcast_to(gp.noise_variance, (n,))
    K, diagonal = observed(gp.kernel, X, noise, real)
    diagonal = jax.lax.stop_gradient(diagonal)
    mean = evaluate_mean(gp.mean, X)
    mean = mean[:, None] if data.targets else mean
    if real is None:
        scale = jnp.mean(diagonal) if n else jnp.ones((), X.dtype)
        count = jnp.asarray(n, X.dtype)
        return System(K, y - mean, count, scale, X, None)
    count = jnp.sum(real).astype(X.dtype)
    scale = jnp.sum(jnp.where(real, diagonal, 0.0)) / jnp.maximum(count, 1.0)
    # The padded value goes before the subtraction, so that no NaN meets a derivative.
    rows = real[:, None] if data.targets else real
    residual = jnp.where(rows, jnp.where(rows, y, 0.0) - mean, 0.0)
    return System(K, residual, count, scale, X, real)


def check_dimension(data: Data | BlockData, points: Array, given: Any, name: str) -> None:
    """`ShapeError` unless points have the dimension of those conditioned on."""
    d = data.dimension
    if points.shape[-1] != d:
        raise ShapeError(
            f"`{name}` has dimension {points.shape[-1]} (shape {jnp.shape(given)}), but the "
            f"process was conditioned on points of dimension {d}. Fix: pass (m, {d})"
            f"{', or (m,)' if d == 1 else ', one row per point'}."
        )


def joined(old: Data, new: Data) -> Data:
    """Old and new observations of one form."""
    rows = lambda data: (
        jnp.ones(data.X.shape[:-1], bool)
        if data.mask is None
        else jnp.broadcast_to(data.mask, data.X.shape[:-1])
    )
    masked = old.mask is not None or new.mask is not None
    axis = -2 if old.targets else -1
    return dataclasses.replace(
        old,
        X=jnp.concatenate([old.X, new.X.astype(old.X.dtype)], axis=-2),
        y=jnp.concatenate([old.y, new.y.astype(old.y.dtype)], axis=axis),
        mask=jnp.concatenate([rows(old), rows(new)], axis=-1) if masked else None,
        finite=old.finite and new.finite,
    )


def as_key(key: Any) -> Any:
    """A key of JAX's random numbers; `ParameterError` for anything else."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not (jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == jnp.uint32):
        raise ParameterError(
            f"`key` is {key!r}, expected a key of random numbers. Fix: pass jax.random.key(0)."
        )
    return key


def as_shape(shape: Any) -> tuple[int, ...]:
    """A shape of draws; one number is a shape of one axis."""
    try:
        sizes = tuple(operator.index(n) for n in (shape if np.iterable(shape) else (shape,)))
    except TypeError:
        sizes = (-1,)
    if any(size < 0 for size in sizes):
        raise ParameterError(
            f"`shape` is {shape!r}, expected whole numbers >= 0. Fix: pass for instance (3,)."
        )
    return sizes

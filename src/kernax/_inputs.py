"""What users pass becomes arrays: the checks that need values, done on the host where they can be.

Shapes and dtypes are checked when traced, at no run cost. Values are checked when they are there
to be looked at: arrays of NumPy, lists, and JAX arrays on the CPU. NumPy arrays of 64 bits in a
process without x64 are centred before they are rounded, where the kernel allows it.
"""

import math
import operator
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ._errors import (
    DTypeError,
    InputError,
    KernaxError,
    ParameterError,
    PrecisionWarning,
    ShapeError,
)
from ._typing import HostArray

_warned_of_precision = False


def precision() -> np.dtype[Any]:
    """The floating dtype that Python numbers take: float64 where x64 is enabled.

    Kernax never changes that setting. Enable it before any computation with
    ``jax.config.update("jax_enable_x64", True)`` or ``JAX_ENABLE_X64=1``.
    """
    return np.dtype(jnp.result_type(float))


def common_dtype(*arrays: Array) -> Any:
    """The floating dtype that holds all of them, also under strict promotion."""
    floats = [array.dtype for array in arrays if array.dtype.kind == "f"]
    # Arrays made while x64 was enabled count as 32 bits once it is not.
    return jax.dtypes.canonicalize_dtype(np.result_type(*floats)) if floats else precision()


def as_points(
    X: Any, name: str, shift: HostArray | None = None, *, single: bool = False
) -> tuple[Array, bool]:
    """An array for the device, and whether it is known to be finite.

    ``shift``, one value per column, is subtracted on the host in float64. ``single`` says that
    a 1-D array is one point.
    """
    X = jnp.asarray(X) if holds_tracer(X) else X
    if isinstance(X, jax.Array) and shift is None:
        return X, _known_finite(X, name)
    host = as_host(X, name)
    if shift is not None:
        host = np.asarray(host - (shift[0] if host.ndim < 2 and not single else shift))
    finite = _check_host(host, name)
    return to_device(host, name, quiet=shift is not None), finite


def holds_tracer(value: Any) -> bool:
    """Whether a list or tuple has traced numbers in it, which NumPy cannot read."""
    return isinstance(value, list | tuple) and any(
        isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value)
    )


def as_host(X: Any, name: str) -> HostArray:
    """A NumPy array of a floating dtype, integers and booleans converted exactly to float64.

    What a masked array of NumPy masks is NaN.
    """
    try:
        host = np.asarray(X)
    except ValueError as error:
        raise ShapeError(
            f"`{name}` is a ragged list, expected rows of one length. Fix: pad the shorter rows."
        ) from error
    if host.dtype.kind in "biu":
        host = host.astype(np.float64)
    check_dtype(host.dtype, name)
    return np.where(np.ma.getmaskarray(X), np.nan, host) if np.ma.isMaskedArray(X) else host


def check_dtype(dtype: Any, name: str) -> None:
    """`DTypeError` for what Kernax does not compute with: complex, half precision, objects."""
    kind = getattr(dtype, "kind", "O")  # a key of random numbers has none
    if kind in "biu" or dtype in (jnp.float32, jnp.float64):
        return
    if kind == "M":
        fix = "convert dates to numbers, for instance decimal years"
    elif dtype in (jnp.float16, jnp.bfloat16):
        fix = f"convert it, for instance {name}.astype('float32')"
    else:
        fix = "pass real numbers"
    raise DTypeError(f"`{name}` has dtype {dtype}, expected float32 or float64. Fix: {fix}.")


def common_shift(*sets: Any, single: bool = False) -> HostArray | None:
    """The offset, per column, to take off 64-bit host data before they are rounded to 32 bits.

    None where there is nothing to gain: with x64 enabled, for data that are 32-bit already, or
    where the offset is not large beside the spread. ``single`` says that a 1-D array is one point.
    """
    if precision() == np.float64 or any(
        isinstance(X, jax.core.Tracer) or holds_tracer(X) for X in sets
    ):
        return None
    try:
        hosts = [as_host(X, "") for X in sets]
    except KernaxError:
        return None  # a ragged list or no numbers, which is refused later
    if not any(
        X.dtype.itemsize == 8
        for X, given in zip(hosts, sets, strict=True)
        if not isinstance(given, jax.Array)
    ):
        return None
    rows = [_rows(X, single).astype(np.float64) for X in hosts]
    if len({row.shape[-1] for row in rows}) != 1:
        return None
    every = np.concatenate(rows)
    finite = np.isfinite(every)
    low = np.min(every, axis=0, initial=np.inf, where=finite)
    high = np.max(every, axis=0, initial=-np.inf, where=finite)
    known = low <= high
    middle, spread = np.zeros_like(low), np.zeros_like(low)
    middle[known], spread[known] = (low[known] + high[known]) / 2, high[known] - low[known]
    far = np.abs(middle) > 4 * spread
    return np.where(far, np.round(middle), 0.0) if far.any() else None


def _rows(X: HostArray, single: bool) -> HostArray:
    """Points as rows, whatever the shape they came in."""
    if X.size == 0:
        return X.reshape(0, X.shape[-1])
    if X.ndim < 2:
        return X.reshape(1, -1) if single else X.reshape(-1, 1)
    return X.reshape(-1, X.shape[-1])


def without_filler(values: Any, mask: Array | None, name: str) -> Any:
    """A real row in place of each that the mask calls padding: what fills those, Inf included, is
    never looked at."""
    values = jnp.asarray(values) if holds_tracer(values) else values
    values = values if isinstance(values, jax.Array) else as_host(values, name)
    if mask is None or isinstance(values, jax.core.Tracer) or not _at_hand(mask):
        return values
    real = np.asarray(mask)  # on the host, where a look costs no dispatch
    if values.ndim > 2 and real.shape == values.shape[-2:-1]:  # one mask for all sets
        real = np.broadcast_to(real, values.shape[:-1])
    fits = real.dtype == bool and real.ndim > 0 and real.shape == values.shape[: real.ndim]
    if not fits or values.dtype.kind != "f" or real.all():
        return values
    # Any filler on the host would stretch what is centred; on the device only Inf does harm.
    if isinstance(values, jax.Array) and _sum_is_finite(values):
        return values
    keep = real.reshape(*real.shape, *(1,) * (values.ndim - real.ndim))
    stand_in = values[np.unravel_index(np.argmax(keep), keep.shape)[: real.ndim]]
    where: Any = jnp.where if isinstance(values, jax.Array) else np.where
    return where(keep, values, stand_in if keep.any() else np.zeros_like(stand_in))


def as_whole(value: Any, name: str) -> int:
    """A whole number of Python; `ParameterError` for anything else."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return operator.index(value)
    except TypeError as error:
        raise ParameterError(
            f"`{name}` got {value!r}, expected a whole number. Fix: pass for instance 0."
        ) from error


def to_device(host: HostArray, name: str, *, quiet: bool = False) -> Array:
    """The array in the dtype of this process; a `PrecisionWarning`, once, where digits go."""
    return jnp.asarray(rounded(host, name, quiet=quiet))


def rounded(host: HostArray, name: str, *, quiet: bool = False) -> HostArray:
    """The same on the host."""
    global _warned_of_precision
    target = jax.dtypes.canonicalize_dtype(host.dtype)
    if target == host.dtype:
        return host
    rounded = host.astype(target)
    lossless = np.array_equal(rounded.astype(host.dtype), host, equal_nan=True)
    if not (lossless or quiet or _warned_of_precision):
        _warned_of_precision = True
        warnings.warn(
            f"`{name}` is {host.dtype} but JAX runs with 32 bits, so digits are lost. Fix: "
            'jax.config.update("jax_enable_x64", True) before any computation.',
            PrecisionWarning,
            stacklevel=6,
        )
    return rounded


def warn_of_spacing(points: Array, name: str) -> None:
    """`PrecisionWarning` where float32 numbers are so large that neighbours run together."""
    if points.dtype != np.float32 or not _at_hand(points):
        return
    X = np.asarray(points)
    X = X.reshape(-1, 1) if X.ndim < 2 else X
    if X.shape[-2] < 2 or not (np.abs(X) >= 2**14).any():
        return
    finite = np.isfinite(X)
    low = np.min(X, axis=-2, initial=np.inf, where=finite)
    high = np.max(X, axis=-2, initial=-np.inf, where=finite)
    known = low <= high
    largest = np.where(known, np.maximum(np.abs(low), np.abs(high)), np.float32(0))
    spread = np.where(known, high, 0.0) - np.where(known, low, 0.0)
    spacing = np.spacing(largest)
    bad = (spacing > 1e-3 * spread) & (spacing >= 1e-3)
    if bad.any():
        place = tuple(np.argwhere(bad)[0])
        warnings.warn(
            f"`{name}` column {place[-1]} is float32 with values near {largest[place]:g}, where "
            f"neighbouring numbers are {spacing[place]:g} apart. Fix: subtract an offset in "
            "float64 before converting, or enable x64.",
            PrecisionWarning,
            stacklevel=5,
        )


def _known_finite(X: jax.Array, name: str) -> bool:
    if isinstance(X, jax.core.Tracer) or getattr(X.dtype, "kind", "O") not in "fbiu":
        return False
    if X.dtype.kind != "f":
        return True
    return _at_hand(X) and _check_host(np.asarray(X), name)


def _at_hand(X: jax.Array) -> bool:
    """Whether values can be looked at without waiting for a device, or for another process."""
    if isinstance(X, jax.core.Tracer) or not X.is_fully_addressable:
        return False
    return next(iter(X.devices())).platform == "cpu"


def _check_host(host: HostArray, name: str) -> bool:
    """True where all values are finite; `InputError` for Inf, False where there are only NaN."""
    if _sum_is_finite(host):
        return True
    infinite = np.isinf(host)
    if infinite.any():
        index = tuple(int(i) for i in np.argwhere(infinite)[0])
        place = f"row {index[0]}" + (f", column {index[-1]}" if host.ndim > 1 else "")
        raise InputError(
            f"`{name}` holds {int(infinite.sum())} infinite value(s), the first at {place}; "
            "expected finite numbers (NaN marks padding, Inf never does). Fix: remove that row."
        )
    return not bool(np.isnan(host).any())


def _sum_is_finite(values: Any) -> bool:
    """The cheapest look at all values; a sum overflows only where the values are huge."""
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.asarray(values).sum())

"""A posterior in a file is its process and observations: it is conditioned again when loaded."""

from typing import Any

import jax
import numpy as np

from .._errors import FormatError
from ..gp import GaussianProcess, Posterior
from ..gp._blocks import BlockData
from ..gp._data import Data
from ..gp._posterior import condition

_NAMES = ("X", "y", "mask", "gp", "column", "shift", "targets")


def posterior_fields(posterior: Posterior) -> dict[str, Any]:
    """What a file holds of it: padding as a mask, since NaN is not JSON."""
    data = posterior.data
    if isinstance(data, BlockData):
        raise FormatError(
            "a posterior given blocks of observations cannot be saved. Fix: save its process "
            "`posterior.gp`, and condition again."
        )
    X, y, mask = np.asarray(data.X), np.asarray(data.y), None
    if not data.finite:
        mask = ~np.isnan(X).any(axis=-1)
        mask = mask if data.mask is None else mask & np.asarray(data.mask)
        # The padded rows stay, for the same sums in the same order.
        X = np.where(mask[..., None], X, X.dtype.type(0))
        rows = mask[..., None] if data.targets else mask
        y = np.where(rows, y, y.dtype.type(0))
    values = (X, y, mask, posterior.gp, data.column, data.shift, data.targets)
    return dict(zip(_NAMES, values, strict=True))


def build_posterior(values: dict[str, Any], path: str) -> Posterior:
    """The posterior of what a file holds, or a `FormatError`."""
    values = {"targets": False} | values  # files of earlier versions had one target
    same_names(set(values), set(_NAMES), path)
    X, y, mask, gp, column, shift, targets = (values[name] for name in _NAMES)
    again = "Fix: save the model again."
    if not isinstance(gp, GaussianProcess):
        raise FormatError(f"{path}.gp is not a Gaussian process. {again}")
    levels = gp.kernel.levels()
    sizes = tuple(level.size for level in levels)
    inputs = tuple(level.size for level in levels if level.over_inputs)
    arrays = isinstance(X, jax.Array) and isinstance(y, jax.Array)
    n = X.shape[-2] if arrays and X.ndim > 1 else -1
    tail = y.shape[-1:] if arrays and targets is True else ()
    fitting = (((*inputs, n), (*sizes, n, *tail)), ((n,), (n, *tail)))
    if not arrays or X.shape[-1:] == (0,) or (X.shape[:-1], y.shape) not in fitting:
        raise FormatError(
            f"{path}: X has shape {np.shape(X)} and y {np.shape(y)}, expected (n, d) and (n,). "
            f"{again}"
        )
    if not isinstance(targets, bool):
        raise FormatError(f"{path} has targets {targets!r}. {again}")
    marks = isinstance(mask, jax.Array) and mask.dtype == bool
    if not (mask is None or (marks and mask.shape in (X.shape[:-1], (n,), (*sizes, n)))):
        raise FormatError(f"{path}.mask is not an array of {n} booleans. {again}")
    if gp.noise_variance.shape not in ((), sizes, (*sizes, n)):
        raise FormatError(
            f"{path}.gp.noise_variance has shape {gp.noise_variance.shape} for {n} points. {again}"
        )
    numbers = isinstance(shift, tuple) and all(isinstance(s, float | int) for s in shift)
    if not isinstance(column, bool) or not (
        shift is None or (numbers and len(shift) == X.shape[-1] and np.isfinite(shift).all())
    ):
        raise FormatError(f"{path} has column {column!r} and shift {shift!r}. {again}")
    return condition(gp, Data(X, y, mask, mask is None, column, shift, targets))


def same_names(found: set[str], expected: set[str], path: str) -> None:
    if found != expected:
        missing, extra = sorted(expected - found), sorted(found - expected)
        raise FormatError(
            f"{path} lacks the fields {missing} and has the unknown fields {extra}. "
            "Fix: save the model again with this version."
        )

"""Observations of what operators make of a process: values, slopes, integrals, residuals of a
differential equation, each at points of its own and with noise of its own, all at once."""

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import _inputs
from .._errors import InputError, ParameterError, ShapeError
from ..calculus import Identity, LinearOperator
from ..calculus._apply import cast
from ..calculus._evaluate import blocks, check_rows, flat, of_function
from ..kernels._gram import covariance
from ._elements import Per
from ._means import evaluate_mean

if TYPE_CHECKING:
    from ._process import GaussianProcess

Part = tuple[LinearOperator, Array, Array | None]  # operator, clean points, which are real


class Block(eqx.Module):
    """One operator at points (n, d), its values (n p,) point by point, and their noise."""

    operator: LinearOperator
    X: Array
    y: Array
    noise: Array | None  # a scalar, or (n p,): None for that of the process
    finite: bool = eqx.field(static=True)


class BlockData(eqx.Module):
    """Observations in blocks; of a batch, X and y have batch axes in front, or are shared."""

    blocks: tuple[Block, ...]

    # What single observations of values may have beside, and these have not.
    shift = None
    mask = None
    column = False
    targets = False

    @property
    def compiled(self) -> "BlockData":
        """What compiled code is given."""
        return self

    @property
    def cleaned(self) -> "BlockData":
        """Padding in blocks is left to programs."""
        return self

    @property
    def arrays(self) -> tuple[Per, ...]:
        """Points and values of each block, with the axes that they have for one element."""
        return tuple(p for block in self.blocks for p in (Per(block.X, 2), Per(block.y, 1)))

    def element(self, *arrays: Array) -> "BlockData":
        """The data of one element, of the arrays that it has."""
        pairs = zip(self.blocks, arrays[::2], arrays[1::2], strict=True)
        own = [Block(b.operator, X, y, b.noise, b.finite) for b, X, y in pairs]
        return BlockData(tuple(own))

    @property
    def values(self) -> Array:
        """All values of one element."""
        return jnp.concatenate([block.y for block in self.blocks])

    @property
    def rows(self) -> int:
        """The number of values."""
        return sum(int(block.y.shape[-1]) for block in self.blocks)

    @property
    def dimension(self) -> int:
        """That of the points."""
        return int(self.blocks[0].X.shape[-1])

    @property
    def points(self) -> tuple[Array, ...]:
        """The points of each block."""
        return tuple(block.X for block in self.blocks)

    def parts(self, dtype: Any) -> tuple[Part, ...]:
        """Operators and clean points of one element."""
        from ._data import clean_inputs

        return tuple(
            (cast(block.operator, dtype), *clean_inputs(block.X.astype(dtype), block.finite, None))
            for block in self.blocks
        )


def is_blocks(X: Any) -> bool:
    """Whether what stands in place of points are blocks of observations."""
    several = isinstance(X, list | tuple) and len(X) > 0
    return several and all(
        isinstance(block, tuple | list) and len(block) > 0 and isinstance(block[0], LinearOperator)
        for block in X
    )


def as_blocks(gp: "GaussianProcess", given: Any, nan: str) -> BlockData:
    """Blocks checked: shapes, dtypes, finiteness."""
    found = [_as_block(gp, block, f"block {i}", nan) for i, block in enumerate(given)]
    d = found[0].X.shape[-1]
    for i, block in enumerate(found):
        if block.X.shape[-1] != d:
            raise ShapeError(
                f"block {i} has points of dimension {block.X.shape[-1]} and block 0 of dimension "
                f"{d}, expected the same. Fix: pass points of one space."
            )
    if gp.noise_variance.ndim > len(gp.kernel.levels()):
        raise ShapeError(
            f"`noise_variance` has shape {gp.noise_variance.shape}, and observations are in "
            "blocks. Fix: state noise per block, as (operator, X, y, noise)."
        )
    return BlockData(tuple(found))


def _as_block(gp: "GaussianProcess", given: Any, name: str, nan: str) -> Block:
    from ._data import as_inputs

    if len(given) not in (3, 4):
        raise ShapeError(
            f"{name} has {len(given)} entries, expected (operator, X, y) or (operator, X, y, "
            "noise). Fix: pass these."
        )
    operator, X, y = given[:3]
    points, finite = as_inputs(gp, X, None, f"X of {name}")
    values = _inputs.as_points(y, f"y of {name}")[0]
    n, d = points.shape[-2:]
    check_rows(operator, n, f"X of {name}")
    p = operator.components(d)
    sizes = tuple(level.size for level in gp.kernel.levels())
    whole = (*sizes, n)
    shapes = [(*whole, p), (*sizes, n * p)] + ([whole, (*whole, 1)] if p == 1 else [])
    if values.shape not in shapes:
        wanted = f"{whole}" if p == 1 else f"{(*whole, p)}, or {(*sizes, n * p)} point by point"
        raise ShapeError(
            f"{name}: `X` has {n} rows, `{operator!r}` {p} component(s), and `y` has shape "
            f"{values.shape}, expected {wanted}. Fix: pass one value per component and row."
        )
    values = values.reshape(*sizes, n * p)
    _check_missing(points, values, p, name, nan)
    return Block(operator, points, values, _as_noise(given[3:], n, p, name), finite)


def _as_noise(given: Any, n: int, p: int, name: str) -> Array | None:
    if not given or given[0] is None:
        return None
    noise = _inputs.as_points(given[0], f"noise of {name}")[0]
    noise = noise.astype(_inputs.common_dtype(noise))
    if noise.shape not in ((), (n,), (n, p), (n * p,)):
        raise ShapeError(
            f"{name}: its noise variance has shape {noise.shape}, expected a number, ({n},) or "
            f"({n * p},). Fix: pass one value, or one per value of y."
        )
    if not isinstance(noise, jax.core.Tracer) and (np.asarray(noise) < 0).any():
        raise ParameterError(
            f"{name}: its noise variance is {np.min(noise):g}, expected >= 0. Fix: pass variances."
        )
    if noise.shape == (n,) and p > 1:
        noise = jnp.repeat(noise, p)
    return noise.reshape(-1) if noise.ndim else noise


def _check_missing(X: Array, y: Array, p: int, name: str, nan: str) -> None:
    if isinstance(X, jax.core.Tracer) or isinstance(y, jax.core.Tracer):
        return
    missing = np.isnan(np.asarray(X, float)).any(axis=-1)
    if nan == "raise" and missing.any():
        raise InputError(
            f"{name}: `X` holds NaN in row {int(np.argwhere(missing)[0][-1])}; expected numbers. "
            'Fix: drop it, or pass nan="pad".'
        )
    bad = np.isnan(np.asarray(y, float)) & ~np.repeat(missing, p, axis=-1)
    if bad.any():
        raise InputError(
            f"{name}: `y` holds {int(bad.sum())} NaN where `X` is real, the first at row "
            f"{int(np.argwhere(bad)[0][-1]) // p}; expected numbers. Fix: drop those rows, or mark "
            "them as padding by NaN in X."
        )


# --- matrices ----------------------------------------------------------------------------------


def cross(kernel: Any, parts: tuple[Part, ...], operator: LinearOperator, points: Array) -> Array:
    """K(observations, operator at points), (n, m q): zero where an observation is padding."""
    rows = []
    for own, X, real in parts:
        K = blocks(kernel, own, operator, X, points)
        if real is not None:
            K = jnp.where(real[:, None, None, None], K, 0.0)
        rows.append(flat(K))
    return jnp.concatenate(rows) if len(rows) > 1 else rows[0]


def joint(kernel: Any, parts: tuple[Part, ...]) -> Array:
    """K(observations, observations), with white noise where they are values."""
    grid: list[list[Any]] = [[None] * len(parts) for _ in parts]
    for i, (first, X, _) in enumerate(parts):
        for j, (second, Y, _) in enumerate(parts[:i]):
            K = blocks(kernel, first, second, X, Y)
            grid[i][j] = flat(K)
            grid[j][i] = grid[i][j].T
        grid[i][i] = own_covariance(kernel, first, X)
    K = jnp.block(grid)
    if all(real is None for _, _, real in parts):
        return K
    real = jnp.concatenate([real_values(*part) for part in parts])
    return jnp.where(real[:, None] & real[None, :], K, jnp.eye(len(real), dtype=K.dtype))


def own_covariance(kernel: Any, operator: LinearOperator, X: Array, *, noise: bool = True) -> Array:
    """K of one operator at points, symmetric to the last bit."""
    if isinstance(operator, Identity):
        return covariance(kernel, X, noise=noise)
    K = blocks(kernel, operator, operator, X, X)
    K = flat(K)
    return jnp.where(jnp.tri(len(K), dtype=bool), K, K.T)


def prior_mean(mean: Any, operator: LinearOperator, X: Array) -> Array:
    """What the operator makes of the mean function, (n, p)."""
    if isinstance(operator, Identity):
        return evaluate_mean(mean, X)[:, None]
    return of_function(operator, lambda x: evaluate_mean(mean, x[None])[0], X)


def real_values(operator: LinearOperator, X: Array, real: Array | None) -> Array:
    """Which values are real, of points of which some are."""
    rows = jnp.ones(len(X), bool) if real is None else real
    return jnp.repeat(rows, operator.components(X.shape[1]))

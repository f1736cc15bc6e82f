"""The kernel under check, the points it is tried on, and how a failure is told.

Nearly all that a check costs is traces of the formula and programs to compile. What is traced is
kept per shape: hence the calls of `ROWS` points with `FEWER`, and `formula`.
"""

from collections.abc import Iterable
from functools import cached_property, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._inputs import precision
from .._module import Structure, flatten, named_leaves, prepared
from .._typing import HostArray
from ..kernels import AbstractKernel
from ..kernels._gram import has_noise, with_noise
from ..kernels._levels import unbatched
from ._quick import quick_jit

ROWS = 19  # no multiple of the length of a vector register
SLOPES = 5  # points at which derivatives are taken
FEWER = 2  # in a second set: no result has the shape of its transpose
DIMS = (1, 2, 5)
BLOCK = 4096
SETS = 13
MOST_DIMS = 64  # where none of those is taken, the first up to here


class CheckFailedError(Exception):
    """A check that failed: what was found, what was expected, a fix, and the inputs by name."""

    def __init__(self, found: str, expected: str, fix: str, **case: Any):
        super().__init__(found)
        self.found, self.expected, self.fix, self.case = found, expected, fix, case


class Subject:
    """A kernel, and what the checks share about it."""

    def __init__(self, kernel: AbstractKernel, dims: int | Iterable[int] | None):
        self.kernel = kernel
        self.levels = kernel.levels()
        self.batch = tuple(level.size for level in self.levels)
        self.sets = tuple(level.size for level in self.levels if level.over_inputs)
        self.elements = elements(kernel)
        self.asked = None if dims is None else (dims,) if isinstance(dims, int) else tuple(dims)
        self.dims: tuple[int, ...] = ()  # set by the first check
        self.case: dict[str, Any] = {}  # what is being tried, should the kernel itself raise
        both = (np.dtype(np.float64), np.dtype(np.float32))
        self.dtypes = both if precision() == np.float64 else both[1:]

    @property
    def middle(self) -> int:
        """A dimension for the checks that need only one, above 1 where there is one."""
        return self.dims[min(1, len(self.dims) - 1)]

    def points(self, X: HostArray) -> HostArray:
        """The same points for each element of a batch over inputs."""
        return np.ascontiguousarray(np.broadcast_to(X, (*self.sets, *X.shape)))

    def usual(self, d: int, dtype: Any) -> HostArray:
        """`ROWS` points (n, d) at distances that matter to the kernel, the simple ones first."""
        return (simple_points(d) * self.steps[:d]).astype(np.float32).astype(dtype)

    @cached_property
    def steps(self) -> HostArray:
        """Per dimension, the distance over which the kernel changes notably; for any dimension."""
        d, dtype = self.dims[0], self.dtypes[0]
        ladder = np.array([float(f"{digit}e{power}") for power in range(-8, 9) for digit in (1, 3)])
        start = np.full(d, 0.25)
        moved = start + ladder[:, None, None] * np.eye(d)
        x = np.concatenate([start[None], moved.reshape(-1, d)]).astype(dtype)
        change = np.zeros(len(x))
        for element in self.elements:
            self.case = {"d": d, "dtype": dtype.name, "call": "pairwise(x, y)"}
            k = pairs(cast(element, dtype), np.broadcast_to(x[0], x.shape), x).astype(float)
            change = np.maximum(change, np.nan_to_num(np.abs(k - k[0]) / max(abs(k[0]), 1e-30)))
        notable = change[1:].reshape(len(ladder), d) > 0.1
        steps = np.where(notable.any(axis=0), ladder[np.argmax(notable, axis=0)], 1.0)
        return np.concatenate([steps, np.full(MOST_DIMS, np.median(steps))])


def simple_points(d: int) -> HostArray:
    """`ROWS` points, of which the first are simple and the last two coincide; exact in 32 bits."""
    X = np.round(np.random.default_rng(d).normal(size=(ROWS, d)) * 64) / 64
    first, last = np.eye(d)[0], np.eye(d)[-1]
    X[:7] = [0 * first, first, last, -first, 0.5 * first, first + last, 2 * first + 0.25]
    X[-1] = X[-2]
    return X


def elements(kernel: AbstractKernel) -> list[AbstractKernel]:
    """The first and the last kernel of a batch, as plain ones; the kernel itself if it is one."""
    levels = kernel.levels()
    if not levels:
        return [kernel]
    inner, axes = unbatched(kernel)
    leaves, treedef = jax.tree.flatten(inner)
    found = []
    for end in (0, -1) if all(level.size for level in levels) else ():
        own = iter(axes)
        chosen = [
            np.asarray(leaf)[(end,) * len(next(own))] if eqx.is_array(leaf) else leaf
            for leaf in leaves
        ]
        found.append(jax.tree.unflatten(treedef, chosen))
    return found


def cast(kernel: Any, dtype: Any) -> Any:
    """The kernel with hyperparameters of that dtype."""
    change = lambda leaf: (
        jnp.asarray(np.asarray(leaf).astype(dtype)) if eqx.is_inexact_array_like(leaf) else leaf
    )
    return jax.tree.map(change, kernel)


def size(kernel: AbstractKernel) -> int:
    """How many kernels there are in the tree, each of which may add its rounding."""
    is_other = lambda node: isinstance(node, AbstractKernel) and node is not kernel
    inside = jax.tree.leaves(kernel, is_leaf=is_other)
    return 1 + sum(size(node) for node in inside if isinstance(node, AbstractKernel))


def other_values(kernel: Any) -> dict[str, Array]:
    """Each hyperparameter changed a little, inside its constraint."""
    changed = {}
    for entry in named_leaves(kernel):
        value = np.asarray(entry.value)
        for candidate in (value * 1.25, value * 0.75, value + 0.125, value - 0.125):
            candidate = candidate.astype(value.dtype)
            if np.all(entry.constraint.contains(candidate) & (candidate != value)):
                changed[entry.path] = jnp.asarray(candidate)
                break
    return changed


@partial(jax.jit, static_argnames=("structure",), inline=True)
def formula(structure: Structure, leaves: tuple[Array, ...], x: Array, y: Array) -> Array:
    """k(x, y) of one pair, traced once for all who need it."""
    value: Array = prepared(structure.rebuild(leaves), x.dtype).pairwise(x, y)
    return value


def pairs(kernel: AbstractKernel, x: HostArray, y: HostArray) -> HostArray:
    """The formula on each row of x with the same row of y, (n,)."""
    return values(kernel, x, y, np.zeros((SETS, ROWS, x.shape[1]), x.dtype))[0]


def values(
    kernel: AbstractKernel, x: HostArray, y: HostArray, sets: HostArray
) -> tuple[HostArray, HostArray, HostArray]:
    """`pairs` of x and y, in blocks of one compiled size; of `SETS` sets, matrices and variances.

    One program for all of them, of each dimension and dtype.
    """
    structure, leaves = flatten(kernel)
    found, points = [], jnp.asarray(sets)
    for start in range(0, len(x), BLOCK):
        rows = np.arange(start, start + BLOCK).clip(max=len(x) - 1)
        found.append(_values(structure, leaves, jnp.asarray(x[rows]), jnp.asarray(y[rows]), points))
    each = np.concatenate([np.asarray(block[0]) for block in found])[: len(x)]
    _, matrices, variances = map(np.asarray, found[0])
    return each, matrices, variances


@quick_jit
def _values(
    structure: Structure, leaves: tuple[Array, ...], x: Array, y: Array, sets: Array
) -> tuple[Array, Array, Array]:
    kernel = structure.rebuild(leaves)
    matrices = jax.vmap(lambda X: prepared(kernel, X.dtype).matrix(X, X))(sets)
    both, points = partial(formula, structure, leaves), sets.reshape(-1, sets.shape[-1])
    if has_noise(kernel):
        noisy = prepared(with_noise(kernel), sets.dtype)
        variances = jax.vmap(lambda x: noisy.pairwise(x, x))(points)
        return jax.vmap(both)(x, y), matrices, variances.reshape(-1, ROWS)
    # The same formula: as some more pairs it costs nothing to compile.
    together = jnp.concatenate([x, points]), jnp.concatenate([y, points])
    every = jax.vmap(both)(*together)
    return every[: len(x)], matrices, every[len(x) :].reshape(-1, ROWS)


def show(value: Any) -> str:
    """A number, a small array, or the shape of a large one, as text."""
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" or array.size > 40:
        return str(value) if array.ndim == 0 else f"{array.dtype}{list(array.shape)}"
    if array.ndim:
        return f"[{', '.join(show(item) for item in array)}]"
    with np.errstate(over="ignore"):
        short = array.astype(np.float32)
    return str(short if array.dtype.kind == "f" and short == array else array.item())

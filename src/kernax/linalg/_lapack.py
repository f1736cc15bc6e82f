"""LAPACK on NumPy arrays, in place: what the primitive calls on the host. Nothing here is JAX.

LAPACK reads by columns: the lower triangle of a row-major matrix is its upper one.
"""

import ctypes
import functools
import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .._typing import HostArray
from . import _blocked, _host

LARGEST = 46340  # n^2 fits into the 32-bit integers that LAPACK may count with
TILE = 128
UNBLOCKED = 96  # rows up to which LAPACK's plain loops beat blocks that are handed to threads

# OpenBLAS reads when it is loaded for how many cycles, as a power of two, its threads shall wait in
# a loop for more work. By default that is 25 ms, in which they take processors from what comes
# next: a sixth of the time of a likelihood and its gradient with 2,000 points. This is enough for
# the gaps within one factorisation.
WAIT, CYCLES = "OPENBLAS_THREAD_TIMEOUT", "20"


class Routines(NamedTuple):
    """Routines of one precision. They take addresses, and let go of the interpreter's lock."""

    potrf: Any
    potri: Any
    potf2: Any  # the same without blocks
    lauu2: Any
    trtri: Any
    lauum: Any
    trsv: Any
    trsm: Any
    trmm: Any
    syrk: Any
    gemm: Any
    one: Any  # the number, as trsm reads it


@functools.cache
def routines(char: str) -> Routines:
    """What SciPy exports for C, and `jaxlib` calls too, for dtype "f" or "d"."""
    cython_blas, cython_lapack = _scipy()
    letter, number = {"f": ("s", ctypes.c_float), "d": ("d", ctypes.c_double)}[char]
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]

    def routine(module: Any, name: str, arguments: int) -> Any:
        capsule = module.__pyx_capi__[letter + name]
        address = api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule))
        return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(address)

    return Routines(
        routine(cython_lapack, "potrf", 5),
        routine(cython_lapack, "potri", 5),
        routine(cython_lapack, "potf2", 5),
        routine(cython_lapack, "lauu2", 5),
        routine(cython_lapack, "trtri", 6),
        routine(cython_lapack, "lauum", 5),
        routine(cython_blas, "trsv", 8),
        routine(cython_blas, "trsm", 11),
        routine(cython_blas, "trmm", 11),
        routine(cython_blas, "syrk", 10),
        routine(cython_blas, "gemm", 13),
        number(1.0),
    )


def _scipy() -> tuple[Any, Any]:
    """The modules, whose threads wait briefly unless they were loaded before or told otherwise."""
    ours = WAIT not in os.environ
    if ours:
        os.environ[WAIT] = CYCLES
    try:
        from scipy.linalg import cython_blas, cython_lapack
    finally:
        if ours:
            os.environ.pop(WAIT, None)
    return cython_blas, cython_lapack


# Letters as Fortran takes them, by address; the buffer lives as long as the module.
_LETTERS = ctypes.create_string_buffer(b"UTNL")
UPPER, TRANSPOSED, PLAIN, LEFT = (ctypes.addressof(_LETTERS) + i for i in range(4))


def factorise(
    routines: Routines, wanted: str, K: HostArray, amounts: HostArray, *ys: HostArray
) -> tuple[HostArray, ...]:
    """The results for matrices (g, n, n), one after the other; the last of them is in K.

    Last rows and columns that are those of the identity, as padding has them, cost nothing.
    """
    g, n, _ = K.shape
    large = n > _blocked.AT_ONCE
    if large:
        routines = _blocked.in_blocks(routines, n)
    elif n <= UNBLOCKED:
        routines = _unblocked(routines)
    potrf, potri, one = routines.potrf, routines.potri, routines.one
    m = ys[0].shape[1] if ys else 0
    with_inverse, kept = wanted in ("inverse", "slopes"), wanted != "density"
    above = _above(min(n, TILE))
    diagonal = K.reshape(g, n * n)[:, :: n + 1]
    variances, c = diagonal.copy(), np.zeros(g, K.dtype)
    z = np.array(ys[0], order="C") if ys else np.empty((g, 0, n), K.dtype)
    # Slopes have a a' in those rows, unless y is 0 there.
    idle = ~ys[0].any(axis=1) if wanted == "slopes" else True
    sizes = ([n] * g) if large else _sizes(K, diagonal, idle).tolist()
    integers = (ctypes.c_int * 5)(n, m, 1, 0, n)
    LD, M, STEP, INFO, N = (ctypes.addressof(integers) + 4 * i for i in range(5))
    ONE = ctypes.addressof(one)
    subtract = _subtraction(routines, n, m)

    def divide(transposed: int, A: int, b: int) -> None:
        """L^-1 b, L being the transpose of the upper factor that LAPACK sees, or L^-T b."""
        if m == 1:
            routines.trsv(UPPER, transposed, PLAIN, N, A, LD, b, STEP)
        elif m:
            routines.trsm(LEFT, UPPER, transposed, PLAIN, N, M, ONE, A, LD, b, LD)

    for i, (size, A, Z) in enumerate(zip(sizes, _each(K), _each(z), strict=True)):
        integers[4] = size
        potrf(UPPER, N, A, LD, INFO)
        if integers[3]:
            attempt = partial(potrf, UPPER, N, A, LD, INFO)
            c[i] = _climb(attempt, integers, K[i, :size, :size], variances[i, :size], amounts[i])
        divide(TRANSPOSED, A, Z)
    pivots = diagonal.copy()
    a = z.copy() if with_inverse else z
    if with_inverse:
        for size, A, X in zip(sizes, _each(K), _each(a), strict=True):
            integers[4] = size
            divide(PLAIN, A, X)
            potri(UPPER, N, A, LD, INFO)
            if wanted == "slopes":
                subtract(size, A, X)
    if wanted == "slopes":
        for i in [i for i, size in enumerate(sizes) if size < n]:
            K[i, sizes[i] :, sizes[i] :] *= -0.5 * m
    if kept:
        _fill_upper(K, above, mirror=with_inverse)

    bad = ~np.isfinite(pivots).all(axis=1)
    if bad.any():
        for array in (K, a, z, pivots):
            array[bad] = np.nan
    if wanted == "factor":
        return K, c
    half_log_det = np.log(pivots, dtype=np.float64).sum(axis=1).astype(K.dtype)
    square = np.square(z, dtype=np.float64).sum(axis=2).astype(K.dtype)
    return (half_log_det, square, c, a, K)[: 5 if with_inverse else 3]


def _each(x: HostArray) -> list[int]:
    """The addresses of the parts along the first axis."""
    first, step = x.__array_interface__["data"][0], x.strides[0]
    return [first + i * step for i in range(len(x))]


def _subtraction(routines: Routines, n: int, m: int) -> Callable[[int, int, int], None]:
    """What makes P = (sum of a a' - m P) / 2 of the lower triangle of ``size`` rows at the address
    A, for m vectors a at X; rows have n numbers."""
    real = type(routines.one)
    number, factors = ctypes.sizeof(real), (real * 2)(0.5, -0.5 * m)
    integers = (ctypes.c_int * 4)(n, m, 0, 0)
    LD, M, WIDTH, REST = (ctypes.addressof(integers) + 4 * i for i in range(4))

    def subtract(size: int, A: int, X: int) -> None:
        HALF, LESS = (ctypes.addressof(factors) + number * i for i in range(2))
        for start in range(0, size, TILE):
            integers[2], integers[3] = min(TILE, size - start), size - start
            x, C = X + start * number, A + start * (n + 1) * number
            routines.gemm(PLAIN, TRANSPOSED, WIDTH, REST, M, HALF, x, LD, x, LD, LESS, C, LD)

    return subtract


def _sizes(work: HostArray, diagonal: HostArray, idle: Any) -> Any:
    """How many rows of each matrix come before those that are the identity's to the end, and
    ``idle``."""
    n = work.shape[-1]
    likely = (work[:, :, 0] == 0.0) & (diagonal == 1.0) & idle
    sizes = n - np.logical_and.accumulate(likely[:, ::-1], axis=1).sum(axis=1)
    for i in np.flatnonzero(sizes < n):
        if np.count_nonzero(work[i, sizes[i] :]) > n - sizes[i]:
            sizes[i] = n
    return sizes


def _unblocked(routines: Routines) -> Routines:
    """The routines, with `potrf` and `potri` for small matrices."""

    def potri(uplo: int, n: int, A: int, lda: int, info: int) -> None:
        routines.trtri(uplo, PLAIN, n, A, lda, info)
        routines.lauu2(uplo, n, A, lda, info)

    return routines._replace(potrf=routines.potf2, potri=potri)


def _climb(
    attempt: Callable[[], None],
    integers: Any,
    A: HostArray,
    variances: HostArray,
    amounts: HostArray,
) -> Any:
    """Factorise with the least of the amounts that will do, and return it: NaN if none does.

    The factorisation that failed has overwritten the lower triangle of A and its diagonal.
    """
    upper = np.triu(A, 1)
    if not (np.isfinite(upper).all() and np.isfinite(variances).all()):
        A.fill(np.nan)
        return 0.0
    for c in amounts:
        np.add(upper, upper.T, out=A)
        np.fill_diagonal(A, variances + c)
        attempt()
        if not integers[3]:
            break
    else:
        A.fill(np.nan)
    return c


@functools.cache
def _above(n: int) -> HostArray:
    """Which entries are above the diagonal."""
    return np.triu(np.ones((n, n), bool), 1)


def _fill_upper(A: HostArray, above: HostArray, *, mirror: bool) -> None:
    """Set what is above the diagonals to what is below, or 0. ``above`` is a mask of one tile."""
    n = A.shape[-1]
    for start in range(0, n, TILE):
        tile = slice(start, min(start + TILE, n))
        size, rest = tile.stop - start, slice(tile.stop, n)
        block = A[:, tile, tile]
        np.copyto(block, block.swapaxes(1, 2) if mirror else 0.0, where=above[:size, :size])
        if tile.stop < n:
            A[:, tile, rest] = A[:, rest, tile].swapaxes(1, 2) if mirror else 0.0


def _called(wanted: str, operands: list[HostArray], results: list[HostArray]) -> None:
    """What XLA calls: with one piece of memory for the first operand and the first result, unless
    it has made the call of each device out of that for all."""
    given, *others = operands
    K, *rest = results
    if K.ctypes.data != given.ctypes.data:
        K[...] = given
    K = K.reshape(-1, *K.shape[-2:])
    with np.errstate(all="ignore"):
        found = factorise(routines(K.dtype.char), wanted, K, *others)
    for result, x in zip(rest, (x for x in found if x is not K), strict=True):
        result[...] = x


TARGETS = {wanted: f"kernax_{wanted}" for wanted in ("factor", "density", "inverse", "slopes")}
for wanted, target in TARGETS.items():
    _host.register(target, partial(_called, wanted))

"""Symmetry, positive definiteness and precision: what matrices of real points show."""

from typing import Any, NamedTuple

import numpy as np

from .._typing import HostArray
from ..kernels import AbstractKernel
from ..kernels._gram import has_noise
from ._subject import (
    ROWS,
    CheckFailedError,
    Subject,
    cast,
    pairs,
    show,
    simple_points,
    size,
    values,
)

SCALES = (1e-25, 1e-12, 1e12, 1e25)
USUAL = 2  # the position of these among the sets of points


class Matrices(NamedTuple):
    """For each set of points: ``pairwise`` on all pairs, the ``matrix`` of them, and variances.

    ``spread`` is the largest coordinate in units over which the kernel changes, by which rounding
    of the inputs counts.
    """

    X: HostArray
    formula: HostArray
    matrix: HostArray
    variances: HostArray  # white noise included
    spread: HostArray


def point_sets(subject: Subject, d: int) -> dict[str, HostArray]:
    """Sets of `ROWS` points, those that are simple to read first; exact in 32 bits."""
    rng, steps, simple = np.random.default_rng(d), subject.steps[:d], simple_points(d)
    centres = rng.normal(size=(5, d)).repeat(4, axis=0)[:ROWS]
    apart = np.tile([0.0, 0.0, 1e-3, 0.1], 5)[:ROWS, None]
    side = int(np.ceil(ROWS ** (1 / d)))
    grid = np.stack(np.unravel_index(np.arange(ROWS), (side,) * d), axis=-1)
    box = rng.uniform(size=(ROWS, d))
    sets = {
        "simple": simple,
        "shifted": simple + 4.0,
        "usual": subject.usual(d, float),
        "clusters": (centres + apart * rng.normal(size=(ROWS, d))) * steps,
        "grid": grid * steps,
        "wide grid": grid * 7.0 * steps,
        "box": box * 10.0 * steps,
        "wide box": box * 100.0 * steps,
        "far apart": (box - 0.5) * 1e6 * steps,
    }
    sets |= {f"times {scale:g}": simple * scale for scale in SCALES}  # `SETS` in all
    return {name: X.astype(np.float32).astype(float) for name, X in sets.items()}


def matrices(subject: Subject, kernel: AbstractKernel, d: int, dtype: Any) -> Matrices:
    """All of them for one plain kernel."""
    X = np.stack(list(point_sets(subject, d).values()))
    sets = X.astype(dtype)
    subject.case = {"d": d, "dtype": dtype.name, "call": "gram(X, X2)"}
    first, second = sets.repeat(ROWS, axis=1), np.tile(sets, (1, ROWS, 1))
    x, y = first.reshape(-1, d), second.reshape(-1, d)
    formula, matrix, variances = (
        part.astype(float) for part in values(cast(kernel, dtype), x, y, sets)
    )
    spread = np.abs(X / subject.steps[:d]).max(axis=(1, 2))
    return Matrices(X, formula.reshape(-1, ROWS, ROWS), matrix, variances, spread)


# --- symmetry -----------------------------------------------------------------------------------


def check_symmetry(subject: Subject) -> list[str]:
    """The formula is symmetric, and ``gram`` and ``diagonal`` are the formula."""
    if not subject.elements:
        return ["all: the batch is empty"]
    for d in subject.dims:
        for element in subject.elements:
            for dtype in subject.dtypes:
                _check_formula(subject, element, d, dtype)
    for dtype in subject.dtypes:
        _check_calls(subject, subject.middle, dtype)
    return []


def _check_formula(subject: Subject, kernel: AbstractKernel, d: int, dtype: Any) -> None:
    m = matrices(subject, kernel, d, dtype)
    for s, (X, formula, matrix, _, spread) in enumerate(zip(*m, strict=True)):
        scale = np.abs(formula).max()
        if spread > 1e4 or not 1e-30 < scale < 1e30:
            continue  # rounding of the inputs alone, or the end of the range, may change all of it
        tolerance = 2 * (16 + d + spread) * size(kernel) * np.finfo(dtype).eps * scale
        _compare(
            formula, formula.T, tolerance, "k(x, y) = {} and k(y, x) = {}",
            "write a formula that stays the same when its points are exchanged", X, dtype,
        )  # fmt: skip
        _compare(
            matrix, formula, tolerance, "{} from matrix(X, Y) and {} from pairwise(x, y)",
            "make `matrix` the formula of `pairwise`, or leave it out", X, dtype,
        )  # fmt: skip
        if kernel.stationary and s == 1:
            _compare(
                m.formula[0], formula, tolerance,
                "k(x, y) = {}, and {} with 4 added to both points",
                "declare `stationary = True` only where k(x + c, y + c) = k(x, y)", m.X[0], dtype,
            )  # fmt: skip


def _check_calls(subject: Subject, d: int, dtype: Any) -> None:
    """``gram`` and ``diagonal`` as users call them, for the first and the last of a batch."""
    kernel, eps = cast(subject.kernel, dtype), float(np.finfo(dtype).eps)
    X = subject.usual(d, dtype)
    points = subject.points(X)
    subject.case = {"d": d, "dtype": dtype.name, "call": "gram(X)"}
    grams = np.asarray(kernel.gram(points))
    subject.case["call"] = "gram(X, X2)"
    crosses = np.asarray(kernel.gram(points, points))
    subject.case["call"] = "diagonal(X)"
    diagonals = np.asarray(kernel.diagonal(points))
    for end, element in zip((0, -1), subject.elements, strict=False):
        K, cross = (matrix.reshape(-1, ROWS, ROWS)[end] for matrix in (grams, crosses))
        diagonal = diagonals.reshape(-1, ROWS)[end]
        m = matrices(subject, element, d, dtype)
        formula, spread = m.formula[USUAL], m.spread[USUAL]
        tolerance = 2 * (16 + d + spread) * size(element) * eps * np.abs(formula).max()
        fix = "do not override `gram`: it follows from the formula"
        _compare(
            cross, formula, tolerance, "{} from gram(X, X2) and {} from pairwise(x, y)",
            fix, X, dtype,
        )  # fmt: skip
        noise = np.eye(ROWS, dtype=bool) & has_noise(element)
        off = np.where(noise, formula, K)
        _compare(
            off, formula, tolerance, "{} from gram(X) and {} from pairwise(x, y)", fix,
            X, dtype,
        )  # fmt: skip
        _compare(
            K, K.T, 0.0, "{} and {} in mirrored places of gram(X)",
            "leave `symmetric_rounding` at False, and do not override `gram`", X, dtype,
        )  # fmt: skip
        _compare(
            np.diag(np.diag(K)), np.diag(diagonal), 8 * eps * float(np.abs(diagonal).max()),
            "{} on the diagonal of gram(X) and {} from diagonal(X)",
            "do not override `diagonal` or `gram`: both follow from the formula", X, dtype,
        )  # fmt: skip


def _compare(
    a: HostArray, b: HostArray, tolerance: float, found: str, fix: str, X: HostArray, dtype: Any
) -> None:
    bad = ~(np.abs(a - b) <= tolerance)
    if bad.any():
        i, j = first_pair(bad)
        wanted = f"the same to within {tolerance:.2g}" if tolerance else "the same"
        raise CheckFailedError(
            found.format(show(a[i, j]), show(b[i, j])), wanted, fix, **_pair(X, i, j, dtype)
        )


# --- positive definiteness ----------------------------------------------------------------------


def check_definiteness(subject: Subject) -> list[str]:
    """No eigenvalue is below what rounding explains, for points near, far, equal and regular."""
    if any(element.sign() != 1 for element in subject.elements) or not subject.elements:
        return ["all: sign() does not say that the kernel is positive semi-definite"]
    for d in subject.dims:
        for element in subject.elements:
            for dtype in subject.dtypes:
                _check_eigenvalues(subject, element, d, dtype)
    return []


def _check_eigenvalues(subject: Subject, kernel: AbstractKernel, d: int, dtype: Any) -> None:
    m = matrices(subject, kernel, d, dtype)
    found = []
    for X, K, spread in zip(m.X, m.formula, m.spread, strict=True):
        slack = size(kernel) * np.finfo(dtype).eps * (16 + d + spread)
        if np.isfinite(K * K).all() and _excess(K, slack) > 1:
            rows = _fewest_rows(K, slack)
            found.append((X[rows], K[np.ix_(rows, rows)], slack))
    if not found:
        return
    X, K, slack = min(found, key=lambda case: len(case[0]))
    for digits in range(3):  # as simple as they can be
        rounded = np.round(X, digits)
        n, points = len(X), rounded.astype(dtype)
        values = pairs(cast(kernel, dtype), points.repeat(n, axis=0), np.tile(points, (n, 1)))
        other = values.reshape(n, n).astype(float)
        if _excess(other, slack) > 1:
            X, K = rounded, other
            break
    raise CheckFailedError(
        f"gram(X) with the eigenvalue {np.linalg.eigvalsh(K)[0]:.6g} and the trace "
        f"{np.trace(K):.6g}",
        "no negative eigenvalue",
        "correct the formula, refuse this dimension with a ShapeError, or let sign() return 0",
        n=len(X),
        d=d,
        X=X,
        dtype=np.dtype(dtype).name,
    )


def _excess(K: HostArray, slack: float) -> float:
    """The least eigenvalue, negated, in units of what rounding may explain: above 1 is wrong."""
    explained = (slack + len(K) * np.finfo(float).eps) * max(np.trace(K), np.abs(K).max())
    return float(-np.linalg.eigvalsh(K)[0] / max(explained, np.finfo(float).tiny))


def _fewest_rows(K: HostArray, slack: float) -> list[int]:
    """Rows taken out one by one for as long as the rest is still wrong."""
    rows = list(range(len(K)))
    while len(rows) > 1:
        fewer = [[row for row in rows if row != out] for out in rows]
        excess = [_excess(K[np.ix_(part, part)], slack) for part in fewer]
        if max(excess) <= 1:
            break
        rows = fewer[int(np.argmax(excess))]
    return rows


# --- precision ----------------------------------------------------------------------------------


def check_precision(subject: Subject) -> list[str]:
    """Finite for inputs of any scale, and in 32 bits what it is in 64 at the same inputs."""
    if not subject.elements:
        return ["all: the batch is empty"]
    single, double = np.dtype(np.float32), np.dtype(np.float64)
    least = np.inf
    for d in subject.dims:
        for element in subject.elements:
            low = cast(element, single)  # its hyperparameters rounded, as those of the reference
            m = reference = matrices(subject, low, d, single)
            if len(subject.dtypes) > 1:
                reference = matrices(subject, low, d, double)
                least = min(least, _check_finite(reference, reference, double))
                _check_rounding(m, reference, 4.0 * (16 + d) * size(element))
            least = min(least, _check_finite(m, reference, single))
    left_out = [] if least == np.inf else [f"points from {least:.2g} on, where k(x, x) is NaN"]
    missing = "the comparison with float64, not enabled here"
    return left_out if len(subject.dtypes) > 1 else [*left_out, missing]


def _check_finite(m: Matrices, reference: Matrices, dtype: Any) -> float:
    """Where the variances at x and y are within the range of the dtype, k(x, y) is a number.

    Far away a formula may end, by a variance of NaN: returns from which coordinate on.
    """
    least = np.inf
    for X, K, variance, spread, own in zip(
        m.X, m.formula, reference.variances, m.spread, m.variances, strict=True
    ):
        ends = _ends(own, spread)
        least = min(least, np.abs(X[ends]).max(axis=1).min(initial=np.inf))
        in_range = ~(np.abs(variance) > np.finfo(dtype).max / 8) & ~ends
        bad = ~np.isfinite(K) & in_range[:, None] & in_range[None, :]
        if bad.any():
            i, j = first_pair(bad)
            raise CheckFailedError(
                f"k(x, y) = {K[i, j]}",
                "a finite number",
                "keep overflowing intermediate values out of products, for instance by jnp.minimum "
                "on a distance before it multiplies an exponential",
                **_pair(X, i, j, dtype),
            )
    return float(least)


def _ends(variances: HostArray, spread: float) -> HostArray:
    """Points so far away that a formula may end there: an exponential of x overflows, say."""
    return np.isnan(variances) & (spread > 30)


def _check_rounding(m: Matrices, reference: Matrices, factor: float) -> None:
    for X, low, high, spread, own in zip(
        m.X, m.formula, reference.formula, m.spread, m.variances, strict=True
    ):
        scale = np.abs(high).max()
        tolerance = (factor + 4 * spread) * np.finfo(np.float32).eps * scale
        if spread > 1e3 or not 1e-30 < scale < 1e30:
            continue
        judged = ~_ends(own, spread)
        bad = ~(np.abs(low - high) <= tolerance) & judged[:, None] & judged[None, :]
        if bad.any():
            i, j = first_pair(bad)
            raise CheckFailedError(
                f"k(x, y) = {show(low[i, j])} in 32 bits and {show(high[i, j])} in 64",
                f"the same to within {tolerance:.2g}",
                "take differences of the points before squares, and use expm1, log1p or hypot "
                "where digits cancel",
                **_pair(X, i, j, np.float32),
            )


# --- helpers ------------------------------------------------------------------------------------


def first_pair(bad: HostArray) -> tuple[int, int]:
    """The wrong entry whose points come first: those are the simplest ones."""
    i, j = np.nonzero(bad)
    best = np.argmin(np.maximum(i, j))
    return int(i[best]), int(j[best])


def _pair(X: HostArray, i: int, j: int, dtype: Any) -> dict[str, Any]:
    return {"x": X[i], "y": X[j], "dtype": np.dtype(dtype).name}

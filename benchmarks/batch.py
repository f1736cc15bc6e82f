"""What does a batch of kernels cost: 250 sets of 100 points, each with its own hyperparameters?

Beside one ``jnp.exp`` of an equal array, beside hyperparameters that are shared, beside the same
written by hand with ``jax.vmap``, and with a fifth of the rows padded, by NaN or by a mask.

    python benchmarks/batch.py [--n 100] [--batch 250] [--rounds 50]
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernax as kx
from protocol import check, exp_floor, medians, options, report, row, timed

GOALS = {1: (1.25, 1.1), 4: (1.8, 1.4)}


@jax.jit
def by_hand(scales, X):
    """The formula under three vmaps, as one would write it without the library."""
    pair = lambda scale, x, y: jnp.exp(-0.5 * jnp.sum((x - y) ** 2) / scale**2)
    row = jax.vmap(pair, (None, None, 0))
    return jax.vmap(lambda scale, X: jax.vmap(row, (None, 0, None))(scale, X, X))(scales, X)


@jax.jit
def mapped(scales, X):
    """A plain kernel under `jax.vmap`."""
    return jax.vmap(lambda scale, X: kx.SEKernel(scale).gram(X))(scales, X)


jitted = jax.jit(lambda kernel, X: kernel.gram(X))


def rows_for(batch: int, n: int, d: int, rounds: int) -> list[dict[str, Any]]:
    X = np.random.default_rng(0).uniform(0, 10, size=(batch, n, d))
    scales = jnp.linspace(0.5, 3.0, batch) * d**0.5
    shared = kx.BatchKernel(kx.SEKernel(scales[0]), batch)
    distinct = kx.BatchKernel(kx.SEKernel(1.0), batch, batch_in_axes=0)
    distinct = distinct.replace(length_scale=scales)
    differences = X[:, :, None] - X[:, None]
    s = np.einsum("bijk,bijk->bij", differences, differences)
    exponents = -0.5 * s / np.asarray(scales)[:, None, None] ** 2
    X = jnp.asarray(X)
    for K in (distinct.gram(X), jitted(distinct, X), mapped(scales, X), by_hand(scales, X)):
        check(K, np.exp(exponents))
    check(shared.gram(X), np.exp(-0.5 * s / float(scales[0]) ** 2))
    times = medians(
        {
            "distinct": lambda: distinct.gram(X),
            "shared": lambda: shared.gram(X),
            "exp": exp_floor(exponents),
            "distinct, in jit": lambda: jitted(distinct, X),
            "vmap of a kernel, in jit": lambda: mapped(scales, X),
            "formula by hand": lambda: by_hand(scales, X),
        },
        rounds,
    )
    size = f"batch {batch}, n = {n}, d = {d}"
    rows = []
    for name, unit, goals in (
        ("distinct", "exp", GOALS[d]),
        ("distinct", "shared", (1.05,)),
        ("distinct, in jit", "vmap of a kernel, in jit", (1.03,)),
        ("distinct", "formula by hand", (1.03,)),
    ):
        both = {key: times[key] for key in (name, unit)}
        ratio, what = times[name] / times[unit], f"BatchKernel, {name} / {unit}"
        rows.append(row(what, ratio, *goals, size=size, times=both))
    return rows + padded(distinct, X, np.exp(exponents), size, rounds)


def padded(kernel: Any, X: Any, K: Any, size: str, rounds: int) -> list[dict[str, Any]]:
    """A fifth of the rows padded, others in each set."""
    real = np.random.default_rng(1).permuted(
        np.broadcast_to(np.arange(X.shape[1]) >= X.shape[1] // 5, X.shape[:2]), axis=1
    )
    inside = real[:, :, None] & real[:, None, :]
    marked, mask = jnp.where(real[..., None], X, jnp.nan), jnp.asarray(real)
    functions = {
        "dense": lambda: kernel.gram(X),
        "NaN": lambda: kernel.gram(marked),
        "mask": lambda: kernel.gram(X, mask=mask),
    }
    check(functions["NaN"](), np.where(inside, K, np.nan))
    check(functions["mask"](), np.where(inside, K, np.eye(X.shape[1])))
    times = timed(functions, rounds)
    return [
        row(
            f"BatchKernel, padded by {name} / dense",
            times[name] / times["dense"],
            1.3,
            1.1,
            size=size,
            times={key: times[key] for key in (name, "dense")},
        )
        for name in ("NaN", "mask")
    ]


def main() -> None:
    parsed = options(__doc__, rounds=50, n=100, small={"n": 10, "batch": 5}, batch=250)
    rows = [e for d in GOALS for e in rows_for(parsed.batch, parsed.n, d, parsed.rounds)]
    report("batch", rows, parsed)


if __name__ == "__main__":
    main()

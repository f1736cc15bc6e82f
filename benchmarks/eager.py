"""What does an eager call ``kernel(x, y)`` cost, beside a bare ``jax.jit`` of the same formula?

The bare function takes the hyperparameters as arguments. Also: what is compiled in 100 calls with
new hyperparameter values, and how long the first call of a composite of 20 terms takes.

    python benchmarks/eager.py [--rounds 300]
"""

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernax as kx
from protocol import check, medians, options, report, row

TERMS = (
    kx.SEKernel(0.7),
    kx.Matern12Kernel(0.8),
    kx.Matern32Kernel(0.9),
    kx.Matern52Kernel(1.1),
    kx.RationalQuadraticKernel(1.2, 0.5),
    kx.PeriodicKernel(1.3, 0.8),
    kx.LinearKernel(0.1, 0.5),
)


def calls(rounds: int) -> list[dict[str, Any]]:
    x, y = jnp.asarray([0.3, 1.0]), jnp.asarray([0.9, -0.5])

    @jax.jit
    def one(scale, x, y):
        return jnp.exp(-0.5 * jnp.sum(((x - y) / scale) ** 2))

    @jax.jit
    def five(values, x, y):
        s = jnp.sum((x - y) ** 2)
        return sum(jnp.exp(-0.5 * s / scale**2) * c for c, scale in values)

    scales = [0.5, 1.0, 1.5, 2.0, 2.5]
    small = kx.SEKernel(0.7)
    large = sum((c * kx.SEKernel(scale) for c, scale in enumerate(scales, 1)), start=0)
    scale = jnp.asarray(0.7)
    values = [(jnp.asarray(float(c)), jnp.asarray(s)) for c, s in enumerate(scales, 1)]
    rows = []
    for leaves, kernel, bare in (
        (1, small, lambda: one(scale, x, y)),
        (10, large, lambda: five(values, x, y)),
    ):
        check(kernel(x, y), bare())
        times = medians({"call": lambda k=kernel: k(x, y), "bare": bare}, rounds, calls=50)
        what = f"eager call, {leaves} hyperparameters / bare jit"
        rows.append(row(what, times["call"] / times["bare"], 1.5, 1.2, size="a pair", times=times))

    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event) if "backend_compile" in event else None
    )
    fresh = [small.replace(length_scale=0.1 + 0.01 * i) for i in range(100)]
    before = len(compiled)
    for kernel in fresh:
        kernel(x, y).block_until_ready()
    what = "compilations in 100 calls with new hyperparameters"
    rows.append(row(what, len(compiled) - before, 0, size="a pair", unit=""))
    return rows


def first_call(n: int) -> dict[str, Any]:
    """The first Gram matrix of composites of 20 terms, each of another structure."""
    X = jnp.linspace(0.0, 5.0, n)
    jax.block_until_ready(TERMS[0].gram(X[:2]))  # JAX itself is ready
    seconds = []
    for shift in range(3):
        terms = [float(i) * TERMS[(i + shift) % len(TERMS)] for i in range(1, 21)]
        composite = sum(terms, start=0)
        start = time.perf_counter()
        K = composite.gram(X).block_until_ready()
        seconds.append(time.perf_counter() - start)
        check(K, sum(np.asarray(term.gram(X)) for term in terms))
    return row(
        "first call of a composite of 20 terms",
        statistics.median(seconds),
        3.0,
        size=f"n = {n}, d = 1",
        unit="s",
    )


def main() -> None:
    parsed = options(__doc__, rounds=300)
    report("eager", [first_call(100), *calls(parsed.rounds)], parsed)


if __name__ == "__main__":
    main()

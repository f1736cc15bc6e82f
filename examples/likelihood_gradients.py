"""The Gaussian log density of data and its gradient: automatic differentiation, by hand, Kernax.

For n points between 0 and 1, observations y = x, and a squared exponential kernel with noise:
the three ways give the same numbers, and take the time that the table and the picture show. Then
the case without noise that fails in 32 bits, where the determinant of the matrix underflows.

    python examples/likelihood_gradients.py [--small] [--out FILE.png]
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernax

jax.config.update("jax_enable_x64", True)

LENGTH_SCALE, VARIANCE, NOISE = 0.3, 1.0, 0.01
HYPERPARAMETERS = jnp.asarray([LENGTH_SCALE, VARIANCE])


def covariance(hyperparameters: Any, x: Any) -> Any:
    length_scale, variance = hyperparameters
    squares = jnp.square((x[:, None] - x[None, :]) / length_scale)
    return variance * jnp.exp(-0.5 * squares)


def log_density(hyperparameters: Any, x: Any, noise: Any) -> Any:
    """log N(y; 0, K + noise I) for y = x, through JAX's own factorisation."""
    K = covariance(hyperparameters, x) + noise * jnp.eye(len(x))
    L = jnp.linalg.cholesky(K)
    z = jax.scipy.linalg.solve_triangular(L, x, lower=True)
    # A sum of logarithms: the determinant itself underflows from a few hundred points on.
    half_log_det = jnp.sum(jnp.log(jnp.diag(L)))
    return -0.5 * jnp.sum(z * z) - half_log_det - 0.5 * len(x) * jnp.log(2 * jnp.pi)


automatic = jax.jit(jax.value_and_grad(log_density))


@jax.jit
def by_hand(hyperparameters: Any, x: Any, noise: Any) -> Any:
    """The same, and its gradient tr((a a' - K^-1) dK) / 2 with a = K^-1 y, each dK written out."""
    length_scale, variance = hyperparameters
    signal = covariance(hyperparameters, x)
    L = jax.scipy.linalg.cho_factor(signal + noise * jnp.eye(len(x)), lower=True)
    a, inverse = (jax.scipy.linalg.cho_solve(L, right) for right in (x, jnp.eye(len(x))))
    W = 0.5 * (a[:, None] * a[None, :] - inverse)
    in_length_scale = signal * jnp.square(x[:, None] - x[None, :]) / length_scale**3
    half_log_det = jnp.sum(jnp.log(jnp.diag(L[0])))
    value = -0.5 * x @ a - half_log_det - 0.5 * len(x) * jnp.log(2 * jnp.pi)
    return value, jnp.stack([jnp.sum(W * in_length_scale), jnp.sum(W * signal / variance)])


@jax.jit
def with_kernax(hyperparameters: Any, x: Any, noise: Any) -> Any:
    def likelihood(hyperparameters: Any) -> Any:
        length_scale, variance = hyperparameters
        gp = kernax.GaussianProcess(variance * kernax.SEKernel(length_scale), noise)
        return gp.log_marginal_likelihood(x, x)

    return jax.value_and_grad(likelihood)(hyperparameters)


WAYS: dict[str, Callable[..., Any]] = {
    "automatic": automatic,
    "by hand": by_hand,
    "Kernax": with_kernax,
}


def milliseconds(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The median over rounds in which the functions take turns."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(found) for name, found in times.items()}


def compare(n: int, rounds: int) -> dict[str, float]:
    x = jax.random.uniform(jax.random.key(0), (n,))
    arguments = HYPERPARAMETERS, x, NOISE
    results = {name: way(*arguments) for name, way in WAYS.items()}
    for found in results.values():
        for one, other in zip(found, results["Kernax"], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)
    times = milliseconds(
        {name: lambda way=way: way(*arguments) for name, way in WAYS.items()}, rounds
    )
    value, slopes = results["Kernax"]
    cells = "".join(f"{times[name]:12.3f}" for name in WAYS)
    print(f"{n:6d}{value:14.4f}{slopes[0]:14.4f}{slopes[1]:14.4f}{cells}")
    return times


def in_32_bits(n: int) -> None:
    """log(det K) of n points without noise, as a number of 32 bits, and what Kernax says."""
    x = np.asarray(jax.random.uniform(jax.random.key(0), (n,)), np.float32)
    K = np.asarray(covariance(HYPERPARAMETERS, x), np.float32)
    with np.errstate(divide="ignore"):
        print(f"{n} points in 32 bits, no noise: log(det K) = {np.log(np.linalg.det(K))}, ", end="")
    likelihood = lambda gp: gp.log_marginal_likelihood(x, x)
    with jax.enable_x64(False), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gp = kernax.GaussianProcess(kernax.SEKernel(LENGTH_SCALE), 0.0)
        jitter = float(gp.condition(x, x).jitter)
        value, slope = float(likelihood(gp)), float(jax.grad(likelihood)(gp).kernel.length_scale)
    print(f"Kernax: {value:.6g}, with the derivative {slope:.6g} in the length-scale")
    for text in sorted({str(warning.message) for warning in caught}):
        print(f"  and it says: {text}")
    gp = kernax.GaussianProcess(kernax.SEKernel(LENGTH_SCALE), jitter)
    exact, steep = float(likelihood(gp)), float(jax.grad(likelihood)(gp).kernel.length_scale)
    print(f"  in 64 bits, with as much jitter as noise: {exact:.6g} and {steep:.6g}")
    np.testing.assert_allclose([value, slope], [exact, steep], rtol=0.05)


def draw(times: dict[int, dict[str, float]], out: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name in WAYS:
        axes.loglog(list(times), [found[name] for found in times.values()], "o-", label=name)
    axes.set(xlabel="points", ylabel="milliseconds", title="Log density and gradient")
    axes.legend()
    figure.savefig(out)
    plt.close(figure)
    print(f"wrote {out}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Log densities and their gradients, three ways.")
    parser.add_argument("--small", action="store_true", help="few points, one round")
    parser.add_argument("--out", type=Path, help="draw the times into this file")
    options = parser.parse_args()
    print(f"{'points':>6}{'log density':>14}{'d/d scale':>14}{'d/d variance':>14}", end="")
    print("".join(f"{name:>12}" for name in WAYS) + "   ms")
    sizes, rounds = ((3, 40), 1) if options.small else ((3, 100, 1000, 2000), 15)
    times = {n: compare(n, rounds) for n in sizes}
    in_32_bits(200 if options.small else 1000)
    if options.out:
        draw(times, options.out)


if __name__ == "__main__":
    main()

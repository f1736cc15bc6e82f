"""What do the likelihoods of many small processes, and their fits, cost?

1,000 processes of 64 points with their gradient beside a loop of LAPACK's `potrf` and `potri` and
the Gram matrices; 20,000 of 16 points beside `jax.vmap` of `jnp.linalg.cholesky`; the route in JAX
alone on two devices beside one; and 200 data sets of 5 to 60 points fitted from four starts each,
compiling included, beside a loop of scikit-learn over the same sets, starts and kernel.

    python benchmarks/many.py [--rounds 10]
"""

import os
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernax as kx
from kernax.linalg._primitive import inverse
from protocol import check, medians, options, report, row
from rivals import imported


@jax.jit
def with_gradient(gp, X, y):
    total = lambda gp: jnp.sum(gp.log_marginal_likelihood(X, y))
    return jax.value_and_grad(total)(gp)


def batch_of(count: int, n: int) -> tuple[Any, Any, Any]:
    """Processes with their own length-scale, variance and noise, and a data set for each."""
    rng = np.random.default_rng(0)
    X = rng.uniform(0, 10, size=(count, n, 1))
    y = np.sin(X[..., 0]) + 0.1 * rng.normal(size=(count, n))
    kernel = kx.BatchKernel(1.0 * kx.SEKernel(1.0), count, 0)
    kernel = kernel.replace(length_scale=np.linspace(0.5, 2.0, count))
    gp = kx.GaussianProcess(kernel, np.linspace(0.1, 0.3, count))
    return gp, jnp.asarray(X), jnp.asarray(y)


def beside_lapack(count: int, n: int, rounds: int) -> dict[str, Any]:
    gp, X, y = batch_of(count, n)
    noisy = np.asarray(gp.kernel.gram(X)) + np.eye(n) * np.asarray(gp.noise_variance)[:, None, None]
    from scipy.linalg import lapack  # of which users of Kernax alone load what it loads

    def loop() -> list[Any]:
        factors = (lapack.dpotrf(K.T, lower=0, clean=0)[0] for K in noisy)
        return [lapack.dpotri(U, lower=0, overwrite_c=1)[0] for U in factors]

    K = np.triu(loop()[0])
    whole = K + np.triu(K, 1).T
    check(whole @ noisy[0], np.eye(n), 1e-6)
    times = medians(
        {
            "kernax": lambda: with_gradient(gp, X, y),
            "gram": lambda: gp.kernel.gram(X),
            "potrf and potri": lambda: loop()[:1],
        },
        rounds,
    )
    ratio = times["kernax"] / (times["gram"] + times["potrf and potri"])
    what = "likelihoods and gradients / a loop of potrf and potri, and the Gram matrices"
    return row(what, ratio, 1.5, 1.2, size=f"batch {count}, n = {n}", times=times)


@jax.jit
def by_hand(logs, X, y):
    """`jax.vmap` of the value and gradient through JAX's own factorisation."""

    def likelihood(logs, x, y):
        variance, scale, noise = jnp.exp(logs)
        squares = jnp.square(x[:, None, 0] - x[None, :, 0])
        K = variance * jnp.exp(-0.5 * squares / scale**2) + noise * jnp.eye(len(y))
        L = jnp.linalg.cholesky(K)
        z = jax.scipy.linalg.solve_triangular(L, y, lower=True)
        constant = 0.5 * len(y) * np.log(2 * np.pi)
        return -0.5 * jnp.sum(z * z) - jnp.sum(jnp.log(jnp.diag(L))) - constant

    values, slopes = jax.vmap(jax.value_and_grad(likelihood))(logs, X, y)
    return jnp.sum(values), slopes


def beside_vmap(count: int, n: int, rounds: int) -> dict[str, Any]:
    gp, X, y = batch_of(count, n)
    scales = gp.hyperparameters["kernel.inner_kernel.right_kernel.length_scale"]
    logs = jnp.log(jnp.stack([jnp.ones(count), scales, gp.noise_variance], axis=-1))
    (ours, slopes), (theirs, expected) = with_gradient(gp, X, y), by_hand(logs, X, y)
    check(ours, theirs)
    check(slopes.noise_variance * gp.noise_variance, expected[:, 2], 1e-7)
    times = medians(
        {"kernax": lambda: with_gradient(gp, X, y), "vmap": lambda: by_hand(logs, X, y)}, rounds
    )
    what = "likelihoods and gradients / vmap through jnp.linalg.cholesky"
    ratio = times["kernax"] / times["vmap"]
    return row(what, ratio, 1 / 2, 1 / 4, size=f"batch {count}, n = {n}", times=times)


# --- two devices --------------------------------------------------------------------------------


def print_devices(count: int, n: int, rounds: int) -> None:
    """Seconds of the route in JAX alone on the first device, and with the batch on all."""
    gp, X, y = batch_of(count, n)
    K = gp.kernel.gram(X) + jnp.eye(n) * gp.noise_variance[:, None, None]
    tries = jnp.full((count, 3), 1e-12)
    run = jax.vmap(partial(inverse, route="library"))
    mesh, own = (
        jax.make_mesh((jax.device_count(),), ("batch",)),
        jax.sharding.PartitionSpec("batch"),
    )
    # As batches of kernels go over devices.
    shared = jax.shard_map(run, mesh=mesh, in_specs=own, out_specs=own, check_vma=False)
    one, spread = (K, y, tries), jax.sharding.NamedSharding(mesh, own)
    all_of_them = jax.device_put(one, spread)
    on_one, on_all = jax.jit(run), jax.jit(shared)
    for found, expected in zip(on_all(*all_of_them), on_one(*one), strict=True):
        check(found, expected)
    times = medians({"one": lambda: on_one(*one), "two": lambda: on_all(*all_of_them)}, rounds)
    print(times["one"], times["two"])


def two_devices(count: int, n: int, rounds: int) -> dict[str, Any]:
    # Two devices whose LAPACK had threads of its own would wait for one another.
    flags = "--xla_force_host_platform_device_count=2"
    settings = os.environ | {"XLA_FLAGS": flags, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__)), "--devices", str(count), str(n), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=settings)
    one, two = map(float, done.stdout.split())
    what, times = "the route in JAX alone, two devices / one", {"one": one, "two": two}
    return row(what, two / one, 1 / 1.6, size=f"batch {count}, n = {n}", times=times)


# --- fits ---------------------------------------------------------------------------------------


def ragged(count: int, shortest: int, longest: int) -> tuple[list[Any], list[Any]]:
    rng = np.random.default_rng(2)
    points, values = [], []
    for n in rng.integers(shortest, longest + 1, size=count):
        x = np.sort(rng.uniform(0, 10, size=(n, 1)), axis=0)
        wave = np.sin(x[:, 0] * rng.uniform(0.5, 2.0) + rng.uniform(0, 6))
        points.append(x)
        values.append(wave * rng.uniform(0.5, 2.0) + 0.2 * rng.normal(size=n))
    return points, values


def fitted_by_sklearn(sklearn: Any, points: list[Any], values: list[Any]) -> Any:
    parts, likelihoods = sklearn.kernels, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, (x, y) in enumerate(zip(points, values, strict=True)):
            kernel = parts.ConstantKernel(1.0, (1e-5, 1e5)) * parts.RBF(1.0, (1e-5, 1e5))
            kernel += parts.WhiteKernel(0.1, (1e-8, 1e5))
            process = sklearn.GaussianProcessRegressor(
                kernel, alpha=0.0, n_restarts_optimizer=3, random_state=number
            )
            likelihoods.append(process.fit(x, y).log_marginal_likelihood_value_)
    return np.array(likelihoods)


def fitted_together(points: list[Any], values: list[Any]) -> Any:
    count = len(points)
    gp = kx.GaussianProcess(kx.BatchKernel(1.0 * kx.SEKernel(1.0), count, 0), np.full(count, 0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return -np.asarray(kx.fit(gp, points, values, restarts=3, progress=False).loss)


def fits(count: int, longest: int) -> list[dict[str, Any]]:
    sklearn = imported("sklearn.gaussian_process")
    if sklearn is None:
        return []
    points, values = ragged(count, 5, longest)
    start = time.perf_counter()
    ours = fitted_together(points, values)
    middle = time.perf_counter()
    theirs = fitted_by_sklearn(sklearn, points, values)
    times = {"kernax": middle - start, "scikit-learn": time.perf_counter() - middle}
    size = f"{count} sets of 5 to {longest} points"
    worse = float(np.mean(ours < theirs - 1e-3))
    ratio = times["kernax"] / times["scikit-learn"]
    return [
        row(
            "fits, compiling included / scikit-learn", ratio, 1 / 8, 1 / 20, size=size, times=times
        ),
        row("fits whose likelihood is below that of scikit-learn", worse, 0.01, size=size),
    ]


def main() -> None:
    small = {"count": 5, "many": 7, "sets": 4}
    parsed = options(__doc__, rounds=10, small=small, count=1000, many=20_000, sets=200)
    rows = fits(parsed.sets, 8 if parsed.small else 60)
    rows += [
        beside_lapack(parsed.count, 64, parsed.rounds),
        beside_vmap(parsed.many, 16, parsed.rounds),
        two_devices(4 if parsed.small else parsed.count, 64, parsed.rounds),
    ]
    report("many", rows, parsed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--devices"]:
        print_devices(*map(int, sys.argv[2:5]))
    else:
        main()

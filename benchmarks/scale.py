"""What does it cost never to form the matrix: products, solves, gradients, fits?

A product by tiles is compared with one ``exp`` of as many numbers, and with many vectors also with
their multiplication; preconditioned conjugate gradients with plain ones; the gradient of a
likelihood with that of a factorisation; warm starts with cold ones; two processes with two that do
not talk to each other; and a step of a fit at n with one at n / 2. ``--large`` measures the largest
gradient and the steps of the largest fit too, which take a quarter of an hour.

    python benchmarks/scale.py [--n 16384] [--rounds 5] [--large]
"""

import argparse
import dataclasses
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import sync_global_devices

import kernax as kx
from kernax.distributed import gather, initialize, local_cluster, row_mesh, shard_rows
from kernax.gp import _fit_iterative as iterative
from kernax.gp._data import as_data
from kernax.gp._problem import Problem
from kernax.matrixfree import conjugate_gradients, preconditioner
from kernax.matrixfree._tiles import tiled_product
from protocol import check, common_options, exp_floor, medians, memory, report, row

TILE = 4096  # an array that `exp` is timed on, so that no more memory is taken than there is


def points(n: int, d: int, seed: int = 0) -> Any:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, d)))


def products(n: int, rounds: int) -> list[dict[str, Any]]:
    """One vector and 64, against `exp` alone and with the multiplication of matrix and vectors."""
    side = min(n, TILE)
    parts = (n / side) ** 2
    exponents = -np.abs(np.random.default_rng(1).normal(size=(side, side)))
    V = points(n, 64, 2)
    times_V = jax.jit(lambda A, V: jnp.matmul(A, V, precision="highest"))
    A, rows = jnp.asarray(exponents), []
    for d in (1, 4, 8):
        X = points(n, d)
        operator = kx.KernelOperator(kx.SEKernel(1.3 * d**0.5), X, 0.1)
        head = slice(0, 200)
        K = np.asarray(operator.kernel.gram(X[head], X))
        check((operator @ V)[head], K @ np.asarray(V) + 0.1 * np.asarray(V)[head], 1e-8)
        times = medians(
            {
                "one vector": lambda operator=operator: operator @ V[:, 0],
                "64 vectors": lambda operator=operator: operator @ V,
                "exp": exp_floor(exponents),
                "multiplication": lambda: times_V(A, V[:side]),
            },
            rounds,
        )
        exp, multiply = times["exp"] * parts, times["multiplication"] * parts
        size = f"n = {n}, d = {d}"
        single = {"ours": times["one vector"], "exp": exp}
        many = {"ours": times["64 vectors"], "bound": exp + multiply}
        # A share of the reference's speed is a multiple of its time.
        rows.append(row("product with a vector / exp", single["ours"] / exp, 1 / 0.7, 1 / 0.85,
                        size=size, times=single))  # fmt: skip
        rows.append(row("product with 64 vectors / exp and multiplication",
                        many["ours"] / many["bound"], 1 / 0.6, 1 / 0.75,
                        size=size, times=many))  # fmt: skip
    temporary, _ = memory(lambda V: operator.product(V), V[:, :1])
    rows.append(row("memory of a product", temporary / 2**20, 256, size=f"n = {n}", unit="MiB"))
    return rows


def solves(n: int) -> list[dict[str, Any]]:
    """Steps with a preconditioner of rank 100 and without, and what they report."""
    X, B = points(n, 2), points(n, 4, 1)
    operator = kx.KernelOperator(kx.Matern32Kernel(1.0), X, 1.0)
    found = {}
    for rank in (0, 100):
        solve = jax.jit(
            lambda operator, rank=rank: conjugate_gradients(
                operator, B, preconditioner(operator, rank, jax.random.key(0)), tolerance=1e-6
            )
        )
        found[rank] = solve(operator)
    residual = np.linalg.norm(B - operator @ found[100].values, axis=0)
    residual /= np.linalg.norm(B, axis=0)
    ratio = int(found[100].steps) / int(found[0].steps)
    honest = float(np.max(residual / np.asarray(found[100].residual)))
    steps = f"{int(found[100].steps)} and {int(found[0].steps)} steps"
    size = f"n = {n}, {steps}"
    return [
        row("steps of rank 100 / plain", ratio, 1 / 3, size=size),
        row("true residual / the reported", honest, 1.1, size=size),
    ]


def regression(n: int, d: int, solver: Any, noise: float = 0.1) -> tuple[Any, Any, Any]:
    X = points(n, d)
    y = jnp.sin(X[:, 0]) + 0.5 * X[:, 1] + noise**0.5 * points(n, 1, 3)[:, 0]
    kernel = 1.0 * kx.Matern32Kernel(jnp.full(d, 2.0))
    return kx.GaussianProcess(kernel, noise, solver=solver), X, y


def gradients(n: int, rounds: int, goal: float | None) -> list[dict[str, Any]]:
    """Of the log likelihood in all hyperparameters, with 64 probes, cold."""
    functions: dict[str, Callable[[], Any]] = {}
    for name, solver in (
        ("ours", kx.Iterative(tolerance=1e-2, probes=64, rank=400)),
        ("exact", kx.Dense()),
    ):
        gp, X, y = regression(n, 4, solver)
        gradient = jax.jit(jax.grad(lambda gp, X, y: gp.log_marginal_likelihood(X, y)))
        functions[name] = lambda gradient=gradient, gp=gp, X=X, y=y: gradient(gp, X, y)
    times = medians(functions, rounds)
    ratio = times["ours"] / times["exact"]
    what = "likelihood gradient with 64 probes and rank 400 / exact"
    return [row(what, ratio, None if goal is None else 1 / goal, size=f"n = {n}", times=times)]


def errors(n: int, seeds: int = 8) -> list[dict[str, Any]]:
    """The gradient's distance from the exact one, in its own standard errors."""
    loss = lambda gp, X, y: gp.log_marginal_likelihood(X, y)
    exact, X, y = regression(n, 4, kx.Dense())
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    want = flat(jax.grad(loss)(exact, X, y))
    found = []
    for seed in range(seeds):
        gp, _, _ = regression(n, 4, kx.Iterative(tolerance=1e-2, probes=64, seed=seed))
        found.append(flat(jax.grad(loss)(gp, X, y)))
    error = np.std(found, axis=0, ddof=1)
    worst = float(np.max(np.abs(np.asarray(found)[0] - want) / error))
    return [row("gradient's distance from the exact / standard error", worst, 3, size=f"n = {n}")]


def warm_starts(n: int, steps: int) -> list[dict[str, Any]]:
    """Products of a fit whose solves start from the last ones, against solves from nothing.

    Of a surface that is rough for its noise: where solves take a hundred products, starts matter.
    """
    X = points(n, 4)
    y = jnp.sin(2 * X[:, 0]) * jnp.cos(2 * X[:, 1]) + jnp.sin(X[:, 2] * X[:, 3])
    y = y + 0.1 * points(n, 1, 3)[:, 0]
    solver = kx.Iterative(tolerance=1e-2, probes=32, rank=100)
    gp = kx.GaussianProcess(kx.Matern32Kernel(jnp.full(4, 2.0)), 1e-2, solver=solver)
    result, cold = None, 0
    for _ in range(steps):
        if result is not None:
            runs = result.runs._replace(solutions=jnp.zeros_like(result.runs.solutions))
            again = steps_of(gp, X, y, 1, dataclasses.replace(result, runs=runs))
            # Less the look at a start where there is nothing to see.
            cold += again.details["products"] - result.details["products"] - 1
        result = steps_of(gp, X, y, 1, result)
        cold = cold or result.details["products"] - 1
    warm = result.details["products"]
    size = f"n = {n}, {steps} steps, {warm} and {cold}"
    return [row("products of warm / cold solves", warm / cold, 1 / 3, 1 / 10, size=size)]


def steps_of(gp: Any, X: Any, y: Any, steps: int, result: Any = None) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", kx.ConvergenceWarning)
        options = {"max_steps": steps, "progress": False, "resume": result}
        return kx.fit(gp, X, y, **options)


def two_processes(n: int, calls: int) -> list[dict[str, Any]]:
    """Products with 16 vectors by two processes that share the rows, against two on their own.

    Each of these makes the rows that it makes of the shared product: one half, of all the columns.
    """
    with tempfile.TemporaryDirectory() as folder:
        local_cluster(
            2, __file__, f"--n={n}", f"--rounds={calls}", "--process", folder, timeout=600.0
        )
        found = [dict(np.load(Path(folder) / f"{i}.npz")) for i in range(2)]
    X, V = points(n, 4), points(n, 16, 2)
    want = kx.KernelOperator(kx.SEKernel(2.6), X, 0.1) @ V
    check(found[0]["shared product"], want, 1e-10)
    check(np.concatenate([own["apart product"] for own in found]), want, 1e-10)
    # A call ends when both have ended.
    times = {
        way: float(np.median(np.maximum(found[0][way], found[1][way])))
        for way in ("shared", "apart")
    }
    what = "product of two processes / of two that do not talk"
    ratio = times["shared"] / times["apart"]
    return [row(what, ratio, 1 / 0.95, size=f"n = {n}, 16 vectors", times=times)]


def one_of_two(n: int, calls: int, folder: Path) -> None:
    """What each of the processes does; they begin each call together."""
    initialize()
    mesh, here = row_mesh(), jax.process_index()
    X, V, kernel = points(n, 4), points(n, 16, 2), kx.SEKernel(2.6)
    half = slice(here * n // 2, (here + 1) * n // 2)
    rows, vectors = shard_rows(mesh, X), shard_rows(mesh, V)
    operator = kx.KernelOperator(kernel, rows, 0.1, mesh=mesh)
    multiply = jax.jit(lambda operator, vectors: operator.product(vectors))
    own = jax.jit(lambda kernel, x, v, X, V: tiled_product(kernel, x, X, V) + 0.1 * v)
    functions: dict[str, Callable[[], Any]] = {
        "shared": lambda: multiply(operator, vectors),
        "apart": lambda: own(kernel, X[half], V[half], X, V),
    }
    products = {way: jax.block_until_ready(function()) for way, function in functions.items()}
    seconds: dict[str, Any] = {way: [] for way in functions}
    for _ in range(calls):
        for way, function in functions.items():
            sync_global_devices("a call begins")
            seconds[way].append(clock(lambda f=function: jax.block_until_ready(f()))[0])
    seconds["shared product"] = gather(products["shared"])
    seconds["apart product"] = products["apart"]
    np.savez(folder / f"{here}.npz", **seconds)


def large_fit(n: int, steps: int) -> list[dict[str, Any]]:
    """Steps of a fit, from which 30 and a prediction are extrapolated, and peak memory."""
    each: dict[int, float] = {}
    key, held = jax.random.key(0), frozenset[str]()
    for size in (n // 2, n):
        gp, X, y = regression(size, 6, kx.Iterative(tolerance=1e-2, probes=32))
        problem = Problem(gp, as_data(gp, X, y, None, "pad").compiled, held, {})
        begin, u = clock(lambda p=problem: iterative.start_of(p, held, key))
        state = iterative.first(problem, gp.solver, u, iterative.NEAR)
        first, state = clock(lambda p=problem, s=state: walked(p, s, 1))
        products = int(state.products)
        later, state = clock(lambda p=problem, s=state: walked(p, s, steps - 1))
        later, count = later / (steps - 1), (int(state.products) - products) / (steps - 1)
        each[size] = later / (count + 1)  # the gradient is one more
        print(
            f"n = {size}: the subset {begin:.1f} s, the first step {first:.1f} s and {products} "
            f"products, {steps - 1} more {later:.1f} s and {count} products each", flush=True,
        )  # fmt: skip
    fitted = problem.fitted(np.asarray(state.u)[None])
    predict = lambda p: jax.block_until_ready((p.mean(X[:5000]), p.variance(X[:5000])))
    prediction, _ = clock(lambda: predict(fitted.condition(X, y)))
    value, _ = clock(lambda: iterative.evaluate(fitted, problem, gp.solver, state))
    print(f"5,000 predictions {prediction:.1f} s, the loss {value:.1f} s", flush=True)
    minutes = (begin + first + 29 * later + prediction + value) / 60
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    size = f"n = {n}, d = 6"
    return [
        row("30 steps, the loss and 5,000 predictions, extrapolated", minutes, 60, 30,
            size=size, unit="min"),
        row("time of a product in a step at n / at n / 2", each[n] / each[n // 2], 4.3, size=size),
        row("peak memory of the process", peak, 4, size=size, unit="GiB"),
    ]  # fmt: skip


def walked(problem: Any, state: Any, steps: int) -> Any:
    report = lambda *_: None
    return iterative.walk(problem, problem.gp.solver, state, steps, None, report)[0]


def clock(function: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    found = function()
    return time.perf_counter() - begin, found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", action="store_true", help="the fit of 50,000 rows too")
    parser.add_argument("--process", type=Path, metavar="FOLDER", help="(internal)")
    common_options(parser)
    parsed = parser.parse_args()
    if parsed.process:
        one_of_two(parsed.n, parsed.rounds, parsed.process)
        return
    small = parsed.small
    n, rounds = (512, 1) if small else (parsed.n, parsed.rounds)
    parsed.rounds = rounds
    rows = products(n, rounds)
    rows += solves(300 if small else 10_000)
    rows += errors(200 if small else 2000, 4 if small else 8)
    rows += two_processes(200 if small else 8192, 2 if small else 31)
    rows += warm_starts(300 if small else 4000, 3 if small else 30)
    rows += gradients(300 if small else 8000, 1, 3.0)
    if parsed.large:
        rows += gradients(600 if small else 20_000, 1, 5.0)
        rows += large_fit(800 if small else 50_000, 5)
    report("scale", rows, parsed)


if __name__ == "__main__":
    main()

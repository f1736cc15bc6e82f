"""What does a Gram matrix cost, in passes of an elementwise function over a matrix of its size?

The squared exponential is compared with ``jnp.exp`` of an equal matrix, Matern 5/2 with its own
profile on a ready matrix, a composite with the transcendental functions in it, each alone, and
``gram(X)`` with ``gram(X, X2)``, which has no symmetry to use. Memory is that of the compiled
function.

    python benchmarks/gram.py [--n 4096] [--rounds 20]
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernax as kx
from protocol import check, exp_floor, medians, memory, options, report, row

GOALS = {1: (1.3, 1.1), 4: (1.7, 1.4), 8: (2.2, 1.7), 32: (5.0, 3.0)}


def points(n: int, d: int) -> Any:
    return jnp.asarray(np.random.default_rng(0).normal(size=(n, d)))


def squares(X: Any) -> Any:
    """Squared distances of all pairs, by a plain sum over the dimensions."""
    total = np.zeros((len(X), len(X)))
    for column in np.asarray(X).T:
        total += (column[:, None] - column) ** 2
    return total


def passes(n: int, d: int, rounds: int) -> list[dict[str, Any]]:
    """SE in units of exp, and Matern 5/2 in units of its profile."""
    X = points(n, d)
    scale = 1.3 * d**0.5
    s = squares(X) / scale**2
    se, matern = kx.SEKernel(scale), kx.Matern52Kernel(scale)
    ready, profile = jnp.asarray(s), jax.jit(matern.profile)
    check(se.gram(X), np.exp(-0.5 * s))
    u = np.sqrt(5 * s)
    check(matern.gram(X), (1 + u + u**2 / 3) * np.exp(-u))
    times = medians(
        {
            "SE": lambda: se.gram(X),
            "exp": exp_floor(-0.5 * s),
            "Matern52": lambda: matern.gram(X),
            "its profile": lambda: profile(ready),
        },
        rounds,
    )
    rows = []
    for name, unit, goals in (("SE", "exp", GOALS[d]), ("Matern52", "its profile", ())):
        ratio, both = times[name] / times[unit], {key: times[key] for key in (name, unit)}
        what = f"gram(X) of {name} / {unit}"
        rows.append(row(what, ratio, *goals, size=f"n = {n}, d = {d}", times=both))
    return rows


def symmetry(n: int, rounds: int) -> list[dict[str, Any]]:
    """gram(X) beside gram(X, X2)."""
    X, rows = points(n, 4), []
    X2 = X + 0.0
    se, matern = kx.SEKernel(1.3), kx.Matern52Kernel(1.1)
    three = se + matern + kx.RationalQuadraticKernel(0.9, 1.5)
    for kernel, name, goal in (
        (three, "SE + Matern52 + RationalQuadratic", (0.75, 0.55)),
        (se, "SE", (1.05,)),
        (matern, "Matern52", (1.05,)),
    ):
        check(kernel.gram(X), kernel.gram(X, X2))
        times = medians(
            {
                "gram(X)": lambda k=kernel: k.gram(X),
                "gram(X, X2)": lambda k=kernel: k.gram(X, X2),
            },
            rounds,
        )
        ratio = times["gram(X)"] / times["gram(X, X2)"]
        what = f"gram(X) / gram(X, X2), {name}"
        rows.append(row(what, ratio, *goal, size=f"n = {n}, d = 4", times=times))
    return rows


def composite(n: int, rounds: int) -> dict[str, Any]:
    """A sum of three products beside what its transcendental functions cost alone."""
    X = points(n, 1)
    kernel = (
        2.0 * kx.SEKernel(1.3) * kx.PeriodicKernel(0.9, 1.7)
        + 0.5 * kx.Matern52Kernel(0.8)
        + 1.5 * kx.RationalQuadraticKernel(1.1, 0.7)
    )
    s, difference = squares(X), np.subtract.outer(np.asarray(X)[:, 0], np.asarray(X)[:, 0])
    angle, u, t = np.pi * difference / 1.7, np.sqrt(5 * s) / 0.8, s / 1.1**2 / 1.4
    expected = (
        2.0 * np.exp(-0.5 * s / 1.3**2 - 2 * np.sin(angle) ** 2 / 0.9**2)
        + 0.5 * (1 + u + u**2 / 3) * np.exp(-u)
        + 1.5 * (1 + t) ** -0.7
    )
    check(kernel.gram(X), expected)
    # What each function is given inside the kernel, ready beforehand.
    alone = {
        "exp (SE)": (jnp.exp, -0.5 * s / 1.3**2),
        "sin (Periodic)": (jnp.sin, angle),
        "exp (Periodic)": (jnp.exp, -2 * np.sin(angle) ** 2 / 0.9**2),
        "sqrt (Matern52)": (jnp.sqrt, 5 * s / 0.8**2),
        "exp (Matern52)": (jnp.exp, -u),
        "log1p (RationalQuadratic)": (jnp.log1p, t),
        "exp (RationalQuadratic)": (jnp.exp, -0.7 * np.log1p(t)),
    }
    functions: dict[str, Any] = {"gram(X)": lambda: kernel.gram(X)}
    for name, (function, ready) in alone.items():
        jitted, argument = jax.jit(function), jnp.asarray(ready)
        functions[name] = lambda jitted=jitted, argument=argument: jitted(argument)
    times = medians(functions, rounds)
    ratio = times["gram(X)"] / sum(seconds for name, seconds in times.items() if name in alone)
    what = "gram(X) of 2 SE Periodic + 0.5 Matern52 + 1.5 RationalQuadratic / its functions alone"
    return row(what, ratio, 1.3, 1.1, size=f"n = {n}, d = 1", times=times)


def memories(n: int) -> list[dict[str, Any]]:
    """Peak memory of the compiled gram(X), in units of the result."""
    X, rows = points(n, 4), []
    three = kx.SEKernel(1.3) + kx.Matern52Kernel(1.1) + kx.RationalQuadraticKernel(0.9, 1.5)
    for kernel, name in (
        (kx.SEKernel(1.3), "SE"),
        (kx.Matern52Kernel(1.1), "Matern52"),
        (three, "SE + Matern52 + RationalQuadratic"),
    ):
        temporary, output = memory(lambda k, X: k.gram(X), kernel, X)
        assert output == n * n * X.dtype.itemsize
        what = f"memory of gram(X) / result, {name}"
        rows.append(row(what, (temporary + output) / output, 1.5, size=f"n = {n}, d = 4"))
    return rows


def main() -> None:
    parsed = options(__doc__, rounds=20, n=4096, small={"n": 600})
    n, rounds = parsed.n, parsed.rounds
    rows = [entry for d in GOALS for entry in passes(n, d, rounds)]
    rows += [*symmetry(n, rounds), composite(n, rounds), *memories(n)]
    report("gram", rows, parsed)


if __name__ == "__main__":
    main()

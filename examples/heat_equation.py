"""Differential equations solved by conditioning on them: the heat equation, and Poisson's.

Heat in a rod, u_t = a u_xx with u(0, t) = u(1, t) = 0 and u(x, 0) given. The left side of
u_t - a u_xx = 0 is a linear operator, the process is observed through it at points inside, and
directly at the start and at the ends. The posterior is a function of (x, t) with its uncertainty.
Errors are against the exact solution, relative to its largest value; those of Crank and Nicolson's
differences with as many steps, which cost far less, stand beside them. The length-scales are chosen
by likelihood.

    python examples/heat_equation.py [--out FILE.png]
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np

import kernax
from kernax import Derivative, Identity

jax.config.update("jax_enable_x64", True)

A = 0.1  # diffusivity
HEAT = Derivative(1) - A * Derivative(0, order=2)  # of u at (x, t)
KERNEL = 300.0 * kernax.SEKernel([0.36, 0.25])  # length-scales in x and in t
SIDES = (8, 12, 16)


def exact(points: Any) -> Any:
    x, t = np.asarray(points).T
    slow, fast = np.sin(np.pi * x), np.sin(3 * np.pi * x)
    return np.exp(-A * np.pi**2 * t) * slow + 0.5 * np.exp(-9 * A * np.pi**2 * t) * fast


def product(x: Any, t: Any) -> Any:
    return np.stack([side.ravel() for side in np.meshgrid(x, t, indexing="ij")], axis=1)


def inside(n: int) -> Any:
    """Chebyshev's points of (0, 1), which are denser near the ends."""
    return 0.5 - 0.5 * np.cos(np.pi * (np.arange(n) + 0.5) / n)


X, T = np.linspace(0.0, 1.0, 61), np.linspace(0.0, 1.0, 51)
GRID = product(X, T)


def observed(n: int) -> list[Any]:
    """Known values at the start and at the ends, and the equation at n x n points inside."""
    start, ends = product(inside(n), [0.0]), product([0.0, 1.0], [0.0, *inside(n)])
    known, equation = np.concatenate([start, ends]), product(inside(n), inside(n))
    return [(Identity(), known, exact(known)), (HEAT, equation, np.zeros(n * n), 1e-10)]


def conditioned(kernel: Any, n: int) -> Any:
    return kernax.GaussianProcess(kernel, noise_variance=1e-12).condition(observed(n))


def crank_nicolson(n: int) -> float:
    """The relative error of finite differences on n x n intervals, at their own nodes."""
    x, step = np.linspace(0.0, 1.0, n + 1), 1.0 / n
    second = (np.eye(n - 1, k=1) - 2 * np.eye(n - 1) + np.eye(n - 1, k=-1)) * n**2
    half, eye = 0.5 * step * A * second, np.eye(n - 1)
    u, worst = exact(product(x[1:-1], [0.0])), 0.0
    for i in range(n):
        u = np.linalg.solve(eye - half, (eye + half) @ u)
        worst = max(worst, np.abs(u - exact(product(x[1:-1], [(i + 1) * step]))).max())
    return float(worst / np.abs(exact(GRID)).max())


def solve_heat() -> Any:
    """Errors and what the posterior says of them, for more and more points; the last posterior."""
    scales = np.asarray(KERNEL.right_kernel.length_scale)
    print(f"heat equation, length-scales {scales[0]:g} in x and {scales[1]:g} in t")
    print(f"{'points':>8}{'numbers':>9}{'relative error':>16}{'largest sd':>12}{'differences':>13}")
    truth, errors = exact(GRID), []
    largest = np.abs(truth).max()
    for n in SIDES:
        posterior = conditioned(KERNEL, n)
        error = np.abs(posterior.mean(GRID) - truth).max() / largest
        deviation = np.sqrt(np.max(posterior.variance(GRID))) / largest
        numbers = sum(len(y) for _, _, y, *_ in observed(n))
        row = f"{error:>16.1e}{deviation:>12.1e}{crank_nicolson(n):>13.1e}"
        print(f"{f'{n} x {n}':>8}{numbers:>9}{row}")
        assert error < 3 * deviation
        errors.append(error)
    assert (np.diff(errors) < 0).all()
    assert errors[-1] < 1e-5
    residual = np.abs(posterior.mean(GRID, operator=HEAT)).max()
    print(f"u_t - a u_xx of the last, on the grid: at most {residual:.1e}")
    likelihoods = {
        factor: float(conditioned(rescaled(factor), SIDES[-1]).log_marginal_likelihood)
        for factor in (0.5, 1.0, 1.5)
    }
    print("log likelihood with the length-scales times", end="")
    print("".join(f" {factor}: {value:.0f};" for factor, value in likelihoods.items())[:-1])
    assert max(likelihoods, key=lambda factor: likelihoods[factor]) == 1.0
    return posterior


def rescaled(factor: float) -> Any:
    path = "right_kernel.length_scale"
    return KERNEL.replace(**{path: factor * KERNEL.right_kernel.length_scale})


def solve_poisson() -> Any:
    """-u'' = f on (0, 1) with u = 0 at the ends, at 40 points."""
    solutions = {
        "sin(pi x)": lambda x: (np.sin(np.pi * x), np.pi**2 * np.sin(np.pi * x)),
        "sin(pi x) + sin(4 pi x) / 4": lambda x: (
            np.sin(np.pi * x) + np.sin(4 * np.pi * x) / 4,
            np.pi**2 * (np.sin(np.pi * x) + 4 * np.sin(4 * np.pi * x)),
        ),
    }
    ends, points, at = np.array([0.0, 1.0]), np.linspace(0.0, 1.0, 40), np.linspace(0.0, 1.0, 401)
    gp = kernax.GaussianProcess(kernax.SEKernel(0.35), noise_variance=1e-14)
    print("Poisson's equation, 40 points, length-scale 0.35")
    for name, solution in solutions.items():
        given = (-Derivative(0, order=2), points, solution(points)[1], 1e-10)
        posterior = gp.condition([(Identity(), ends, np.zeros(2)), given])
        truth = solution(at)[0]
        error = np.abs(posterior.mean(at) - truth).max() / np.abs(truth).max()
        print(f"  u = {name:<28} relative error {error:.1e}")
        assert error < 1e-6
    return at, np.asarray(posterior.mean(at)), truth, points


def draw(heat: Any, poisson: Any, out: Path) -> None:
    import matplotlib.pyplot as plt
    from matplotlib.colors import LogNorm

    figure, axes = plt.subplots(2, 2, figsize=(12, 8.6), layout="constrained")
    mean, shape = np.asarray(heat.mean(GRID)), (len(X), len(T))
    (_, known, *_), (_, equation, *_) = observed(SIDES[-1])
    image = axes[0, 0].pcolormesh(T, X, mean.reshape(shape), cmap="inferno", shading="gouraud")
    figure.colorbar(image, ax=axes[0, 0], label="u")
    axes[0, 0].plot(equation[:, 1], equation[:, 0], "w.", ms=2.5, label="the equation")
    axes[0, 0].plot(known[:, 1], known[:, 0], "cs", ms=5, clip_on=False, label="known values")
    axes[0, 0].set(title="Heat in a rod: posterior mean", xlabel="t", ylabel="x")
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "ncols": 2}
    axes[0, 0].legend(**below, facecolor="0.5", labelcolor="w")
    error = np.abs(mean - exact(GRID)).reshape(shape)
    shades = {"norm": LogNorm(1e-9, 1e-5), "shading": "gouraud", "cmap": "viridis"}
    image = axes[0, 1].pcolormesh(T, X, error, **shades)
    figure.colorbar(image, ax=axes[0, 1], label="|error|", extend="min")
    axes[0, 1].set(title="Its error", xlabel="t", ylabel="x")
    for i, t in enumerate((0.0, 0.1, 0.3, 1.0)):
        at = product(X, [t])
        axes[1, 0].plot(X, heat.mean(at), f"C{i}", label=f"t = {t:g}")
        axes[1, 0].plot(X[::3], exact(at)[::3], f"C{i}o", ms=4)
    axes[1, 0].set(title="Posterior mean (lines), exact (dots)", xlabel="x", ylabel="u")
    axes[1, 0].legend(ncols=2)
    at, mean, truth, points = poisson
    axes[1, 1].plot(at, mean, label="posterior mean")
    axes[1, 1].plot(at[::10], truth[::10], "C0o", ms=4, label="exact")
    axes[1, 1].plot(points, np.full(len(points), -0.15), "k|", ms=9, label="points of the equation")
    axes[1, 1].set(title="Poisson's equation", xlabel="x", ylabel="u")
    axes[1, 1].legend(loc=(0.25, 0.2))
    figure.savefig(out, dpi=120)
    plt.close(figure)
    print(f"wrote {out}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Differential equations as observations.")
    parser.add_argument("--out", type=Path, help="draw the solutions into this file")
    options = parser.parse_args()
    heat = solve_heat()
    poisson = solve_poisson()
    if options.out:
        draw(heat, poisson, options.out)


if __name__ == "__main__":
    main()

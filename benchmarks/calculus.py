"""What do derivatives of a kernel cost, beside writing as many numbers and beside autodiff of it?

The matrix of mixed second derivatives is compared with one ``exp`` per pair written d^2 times, and
with the Jacobian of a Jacobian of ``pairwise``; gradients with a vmapped ``grad``; the Laplacian on
both sides with the Hessian of a Hessian; the likelihood of values and gradients with a process of
as many values; and Poisson's equation, solved at 40 points, with its exact solution.

    python benchmarks/calculus.py [--n 500] [--rounds 15]
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernax as kx
from protocol import check, medians, options, report, row

KERNELS = {"SE": kx.SEKernel(1.3), "Matern52": kx.Matern52Kernel(1.3)}


def points(n: int, d: int, seed: int = 0) -> Any:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, d)))


def over_pairs(kernel: Any, derivative: Callable[..., Any]) -> Callable[..., Any]:
    """A derivative of ``pairwise`` for all pairs, compiled for any hyperparameters, as ours is."""

    @jax.jit
    def matrix(kernel: Any, X: Any, Y: Any) -> Any:
        rows = jax.vmap(derivative(kernel.pairwise), in_axes=(None, 0))
        return jax.vmap(rows, in_axes=(0, None))(X, Y)

    return lambda X, Y: matrix(kernel, X, Y)


def second_derivatives(n: int, d: int, rounds: int) -> list[dict[str, Any]]:
    X, Y = points(n, d), points(n, d, 1)
    squares = jnp.sum((X[:, None] - Y[None]) ** 2, axis=-1)
    shares = jnp.linspace(0.5, 1.0, d * d).reshape(d, d)
    writing = jax.jit(lambda s: jnp.exp(-0.5 * s)[..., None, None] * shares[None, None])
    rows = []
    for name, kernel in KERNELS.items():
        nested = over_pairs(kernel, lambda k: jax.jacfwd(jax.jacrev(k), argnums=1))
        slopes = over_pairs(kernel, jax.grad)
        check(kernel.mixed_hessian(X, Y), nested(X, Y))
        check(kernel.gradient(X, Y), slopes(X, Y))
        times = medians(
            {
                "mixed_hessian": lambda kernel=kernel: kernel.mixed_hessian(X, Y),
                "exp": lambda: writing(squares),
                "nested": lambda nested=nested: nested(X, Y),
                "gradient": lambda kernel=kernel: kernel.gradient(X, Y),
                "vmap of grad": lambda slopes=slopes: slopes(X, Y),
            },
            rounds,
        )
        size = f"n = m = {n}, d = {d}"
        for what, unit, goal, stretch in (
            ("mixed_hessian", "exp", 2.0, 1.4),
            ("mixed_hessian", "nested", 0.6, None),
            ("gradient", "vmap of grad", 1.0 if name == "SE" else 0.25, None),
        ):
            both = {key: times[key] for key in (what, unit)}
            ratio, title = times[what] / times[unit], f"{what} of {name} / {unit}"
            rows.append(row(title, ratio, goal, stretch, size=size, times=both))
    return rows


def laplacians(n: int, d: int, rounds: int) -> list[dict[str, Any]]:
    X, kernel = points(n, d), kx.SEKernel(1.3)

    def trace(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x: jnp.trace(jax.hessian(function)(x))

    twice = lambda k: lambda x, y: trace(lambda w: trace(lambda u: k(u, w))(x))(y)
    nested = over_pairs(kernel, twice)
    both = kx.apply(kernel, kx.Laplacian(), kx.Laplacian())
    check(both.gram(X, X), nested(X, X))
    times = medians({"ours": lambda: both.gram(X, X), "nested": lambda: nested(X, X)}, rounds)
    ratio = times["ours"] / times["nested"]
    what = "Laplacian on both sides / Hessian of a Hessian, SE"
    return [row(what, ratio, 1 / 30, 1 / 100, size=f"n = {n}, d = {d}", times=times)]


def with_gradients(n: int, rounds: int) -> list[dict[str, Any]]:
    """Likelihood with gradient: n values and n gradients in 2-D, against 3 n values."""
    X, Z = points(n, 2), points(3 * n, 2, 1)
    f = lambda X: jnp.sin(X[:, 0]) * X[:, 1]
    slopes = jnp.stack([jnp.cos(X[:, 0]) * X[:, 1], jnp.sin(X[:, 0])], axis=1)
    gp = kx.GaussianProcess(2.0 * kx.SEKernel([1.1, 0.9]), 0.01)
    blocks = [(kx.Identity(), X, f(X)), (kx.Gradient(), X, slopes)]
    joint = jax.jit(jax.value_and_grad(lambda gp: gp.log_marginal_likelihood(blocks)))
    plain = jax.jit(jax.value_and_grad(lambda gp: gp.log_marginal_likelihood(Z, f(Z))))
    times = medians({"blocks": lambda: joint(gp), "values": lambda: plain(gp)}, rounds)
    ratio, size = times["blocks"] / times["values"], f"n = {n} + {2 * n}, d = 2"
    what = "likelihood and gradient, values and slopes / as many values"
    return [row(what, ratio, 1.5, size=size, times=times)]


def poisson(n: int) -> list[dict[str, Any]]:
    """-u'' = f with u = 0 at both ends: the relative error where it was not looked at."""
    inside, at = np.linspace(0.0, 1.0, n), np.linspace(0.0, 1.0, 1001)
    force = np.pi**2 * np.sin(np.pi * inside)
    gp = kx.GaussianProcess(kx.SEKernel(0.35), noise_variance=1e-14)
    ends = (kx.Identity(), np.array([0.0, 1.0]), np.zeros(2))
    u = gp.condition([ends, (-kx.Derivative(0, order=2), inside, force, 1e-10)])
    error = float(np.abs(u.mean(at) - np.sin(np.pi * at)).max())
    return [row("Poisson's equation, relative error", error, 1e-6, size=f"{n} points", unit="")]


def main() -> None:
    small = {"n": 20, "values": 10, "laplacian": 8}
    parsed = options(__doc__, rounds=15, small=small, n=500, values=300, laplacian=200)
    rows = second_derivatives(parsed.n, 3, parsed.rounds)
    rows += laplacians(parsed.laplacian, 6, min(parsed.rounds, 5))
    rows += with_gradients(parsed.values, parsed.rounds)
    rows += poisson(40)
    report("calculus", rows, parsed)


if __name__ == "__main__":
    main()

"""What does the gradient in all hyperparameters of sum(W * K(X, X2)) cost, beside K(X, X2)?

That is the pull-back which every likelihood goes through. Also how it grows with the number of
hyperparameters, and what memory it needs beside W, in matrices of that size.

    python benchmarks/pull_back.py [--n 4096] [--rounds 10]
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernax as kx
from protocol import check, medians, memory, options, report, row

gram = jax.jit(lambda kernel, X, X2: kernel.gram(X, X2))
total = jax.jit(lambda kernel, X, X2, W: jnp.vdot(W, kernel.gram(X, X2), precision="highest"))
gradient = jax.jit(jax.grad(total))

SCALES = 1.5 * np.linspace(0.8, 1.2, 4)
COMPOSITE = (
    2.0 * kx.SEKernel(1.3) * kx.PeriodicKernel(0.9, 1.7)
    + 0.5 * kx.Matern52Kernel(0.8)
    + 1.5 * kx.RationalQuadraticKernel(1.1, 0.7)
    + 0.1
)


def data(n: int, d: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=size)) for size in ((n, d), (n, d), (n, n)))


def check_gradient(kernel: Any, found: Any, arrays: tuple[Any, Any, Any]) -> None:
    """Each hyperparameter's derivative against a central difference of fourth order."""
    leaves, structure = jax.tree.flatten(kernel)
    for i, (leaf, slope) in enumerate(zip(leaves, jax.tree.leaves(found), strict=True)):
        h = 1e-3 * jnp.max(leaf)

        def moved(k: int, i: int = i, leaf: Any = leaf, h: Any = h) -> float:
            there = [*leaves[:i], leaf + k * h, *leaves[i + 1 :]]
            return float(total(jax.tree.unflatten(structure, there), *arrays))

        expected = (8 * (moved(1) - moved(-1)) - (moved(2) - moved(-2))) / (12 * h)
        # Along ones, the sum over the entries of a vector; W has weights of both signs.
        size = float(jnp.linalg.norm(arrays[2])) * 1e-6
        np.testing.assert_allclose(jnp.sum(slope), expected, rtol=1e-6, atol=size)


def beside_the_gram(
    what: str, kernel: Any, n: int, d: int, goals: tuple[float, ...], rounds: int
) -> list[dict[str, Any]]:
    arrays = X, X2, W = data(n, d)
    check_gradient(kernel, gradient(kernel, *arrays), arrays)
    times = medians(
        {
            "gradient": lambda: gradient(kernel, X, X2, W),
            "gram": lambda: gram(kernel, X, X2),
        },
        rounds,
    )
    ratio, size = times["gradient"] / times["gram"], f"n = {n}, d = {d}"
    temporary, _ = memory(gradient, kernel, *arrays)
    return [
        row(f"gradient / gram(X, X2), {what}", ratio, *goals, size=size, times=times),
        row(f"memory of the gradient / one matrix, {what}", temporary / W.nbytes, size=size),
    ]


def many_beside_one(n: int, rounds: int) -> dict[str, Any]:
    """16 length-scales beside one, on the same points."""
    arrays = data(n, 16)
    one, many = kx.SEKernel(4.0), kx.SEKernel(4.0 * np.linspace(0.8, 1.2, 16))
    for kernel in (one, many):
        check_gradient(kernel, gradient(kernel, *arrays), arrays)
    equal = gradient(one.replace(length_scale=jnp.full(16, 4.0)), *arrays)
    check(jnp.sum(equal.length_scale), gradient(one, *arrays).length_scale, 1e-8)
    times = medians(
        {
            "16 length-scales": lambda: gradient(many, *arrays),
            "one": lambda: gradient(one, *arrays),
        },
        rounds,
    )
    ratio = times["16 length-scales"] / times["one"]
    what = "gradient in 16 length-scales / in one, SE"
    return row(what, ratio, 1.3, size=f"n = {n}, d = 16", times=times)


def main() -> None:
    parsed = options(__doc__, rounds=10, n=4096, small={"n": 60})
    n, rounds = parsed.n, parsed.rounds
    assert len(jax.tree.leaves(COMPOSITE)) == 10
    rows = [
        *beside_the_gram("SE ARD", kx.SEKernel(SCALES), n, 4, (1.6, 1.3), rounds),
        *beside_the_gram("a composite of 10 hyperparameters", COMPOSITE, n, 1, (2.5, 2.0), rounds),
        many_beside_one(n, rounds),
    ]
    report("pull_back", rows, parsed)


if __name__ == "__main__":
    main()

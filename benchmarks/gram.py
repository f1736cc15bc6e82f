"""What does a Gram matrix cost, beside one elementwise pass over a matrix of its size?

The squared exponential is compared with ``jnp.exp`` of an equal matrix, and Matern 5/2 with its
own profile on a ready matrix of squared distances.

    python benchmarks/gram.py [--n 1000] [--rounds 200]
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import kernax as kx
from protocol import check, medians, save

GOALS = {1: 1.5, 4: 2.2, 8: 2.6}


def rows_for(n: int, d: int, rounds: int) -> list[dict[str, object]]:
    X = jnp.asarray(np.random.default_rng(0).normal(size=(n, d)))
    squares = jnp.sum((X[:, None] - X[None]) ** 2, axis=-1)
    rows = []
    for kernel, label in ((kx.SEKernel(1.3), "SE"), (kx.Matern52Kernel(1.3), "Matern52")):
        scaled = squares / 1.3**2
        if label == "SE":
            ready, unit = -0.5 * scaled, jax.jit(jnp.exp)
        else:
            ready, unit = scaled, jax.jit(kernel.profile)
        check(kernel.gram(X), unit(ready))
        times = medians(
            {"gram": lambda k=kernel: k.gram(X), "unit": lambda r=ready, u=unit: u(r)}, rounds
        )
        rows.append(
            {
                "kernel": label,
                "n": n,
                "d": d,
                "dtype": str(X.dtype),
                "gram_ms": 1e3 * times["gram"],
                "unit_ms": 1e3 * times["unit"],
                "ratio": times["gram"] / times["unit"],
                "goal": GOALS.get(d),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = [row for d in (1, 4, 8) for row in rows_for(options.n, d, options.rounds)]
    for row in rows:
        print(
            f"{row['kernel']:<9} n={row['n']} d={row['d']}: {row['gram_ms']:.2f} ms, one pass "
            f"{row['unit_ms']:.2f} ms, ratio {row['ratio']:.2f} (goal {row['goal']})"
        )
    save("gram", rows)


if __name__ == "__main__":
    main()

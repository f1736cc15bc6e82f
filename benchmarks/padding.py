"""What does padding cost in a call of one kernel, by NaN or by a mask, beside the rows all real?

python benchmarks/padding.py [--n 1000] [--rounds 100]
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

import kernax as kx
from protocol import check, options, report, row, timed


def rows_for(n: int, d: int, rounds: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d))
    real = rng.permutation(n) >= n // 5
    inside = real[:, None] & real[None, :]
    kernels = {
        "SE": kx.SEKernel(1.3),
        "SE + Matern52": kx.SEKernel(1.3) + kx.Matern52Kernel(0.9),
    }
    r = np.sqrt(sum((column[:, None] - column) ** 2 for column in X.T))
    u = np.sqrt(5) * r / 0.9
    se = np.exp(-0.5 * r**2 / 1.3**2)
    expected = {"SE": se, "SE + Matern52": se + (1 + u + u**2 / 3) * np.exp(-u)}
    dense, mask = jnp.asarray(X), jnp.asarray(real)
    marked = jnp.where(mask[:, None], dense, jnp.nan)
    rows = []
    for name, kernel in kernels.items():
        functions = {
            "dense": lambda k=kernel: k(dense),
            "NaN": lambda k=kernel: k(marked),
            "mask": lambda k=kernel: k.gram(dense, mask=mask),
        }
        check(functions["dense"](), expected[name])
        check(functions["NaN"](), np.where(inside, expected[name], np.nan))
        check(functions["mask"](), np.where(inside, expected[name], np.eye(n)))
        times = timed(functions, rounds)
        for way in ("NaN", "mask"):
            both = {key: times[key] for key in (way, "dense")}
            ratio, what = times[way] / times["dense"], f"padded by {way} / dense, {name}"
            rows.append(row(what, ratio, 1.3, 1.1, size=f"n = {n}, d = {d}", times=both))
    return rows


def main() -> None:
    parsed = options(__doc__, rounds=100, n=1000, small={"n": 20})
    sizes = [(parsed.n // 10, 1), (parsed.n, 1), (parsed.n, 4)]
    rows = [entry for n, d in sizes for entry in rows_for(n, d, parsed.rounds)]
    report("padding", rows, parsed)


if __name__ == "__main__":
    main()

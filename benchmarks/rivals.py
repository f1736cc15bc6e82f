"""What does the same Gram matrix cost in tinygp and in scikit-learn?

All results are equal before anything is timed. Without one of the libraries the other is still
compared.

    python benchmarks/rivals.py [--rounds 10]
"""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernax as kx
from protocol import check, medians, options, report, row

D = 4
SCALES = np.array([1.0, 1.5, 2.0, 0.7])


def imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"{name} is not installed, and left out ({error}). Fix: pip install -e '.[bench]'.")
        return None


def compared(
    what: str, own: Callable[[], Any], rivals: dict[str, Any], rounds: int, **about: Any
) -> list[dict[str, Any]]:
    """A row per rival, where the results are equal."""
    for function in rivals.values():
        for found, expected in zip(
            jax.tree.leaves(own()), jax.tree.leaves(function()), strict=True
        ):
            check(found, expected, 1e-6)
    times = medians({"kernax": own, **rivals}, rounds)
    return [
        row(
            f"{what}, kernax / {name}",
            times["kernax"] / times[name],
            times={key: times[key] for key in ("kernax", name)},
            **about,
        )
        for name in rivals
    ]


def points(n: int) -> Any:
    return jnp.asarray(np.random.default_rng(0).normal(size=(n, D)))


def grams(n: int, rounds: int, libraries: dict[str, Any]) -> list[dict[str, Any]]:
    X = points(n)
    kernel, rivals = kx.SEKernel(SCALES), {}
    if tinygp := libraries["tinygp"]:
        squared = tinygp.transforms.Linear(jnp.asarray(1 / SCALES), tinygp.kernels.ExpSquared())
        compiled = jax.jit(lambda X: squared(X, X))
        rivals["tinygp"] = lambda: compiled(X)
    if sklearn := libraries["sklearn.gaussian_process"]:
        squared_exponential, host = sklearn.kernels.RBF(SCALES), np.asarray(X)
        rivals["scikit-learn"] = lambda: squared_exponential(host)
    size = f"n = {n}, d = {D}"
    return compared("gram(X) of SE ARD", lambda: kernel.gram(X), rivals, rounds, size=size)


def main() -> None:
    parsed = options(__doc__, rounds=10)
    names = ("tinygp", "sklearn.gaussian_process")
    libraries = {name: imported(name) for name in names}
    rows: list[dict[str, Any]] = []
    for n in (50,) if parsed.small else (1000, 2000):
        rows += grams(n, parsed.rounds, libraries)
    report("rivals", rows, parsed)


if __name__ == "__main__":
    main()

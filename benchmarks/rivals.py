"""What do the same Gram matrix and likelihood cost in tinygp, scikit-learn and gpflash?

The likelihood is that of a squared exponential with four length-scales, a variance and noise, with
its gradient in all six. All results are equal before anything is timed. Without one of the
libraries the others are still compared.

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

D, VARIANCE, NOISE = 4, 1.3, 0.1
SCALES = np.array([1.0, 1.5, 2.0, 0.7])

# A library's name, and the function of (X, y) that makes its likelihood ready to be timed: it
# returns the value, and the derivatives in the logarithms of variance, length-scales and noise.
Likelihood = Callable[[], tuple[Any, Any]]


def imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"{name} is not installed, and left out ({error}). Fix: pip install -e '.[bench]'.")
        return None


def ours(X: Any, y: Any) -> Likelihood:
    @jax.jit
    def value_and_slopes(logs):
        def likelihood(logs):
            variance, scales, noise = jnp.exp(logs[0]), jnp.exp(logs[1:5]), jnp.exp(logs[5])
            gp = kx.GaussianProcess(variance * kx.SEKernel(scales), noise)
            return gp.log_marginal_likelihood(X, y)

        return jax.value_and_grad(likelihood)(logs)

    logs = jnp.log(jnp.asarray([VARIANCE, *SCALES, NOISE]))
    return lambda: value_and_slopes(logs)


def with_tinygp(tinygp: Any, X: Any, y: Any) -> Likelihood:
    @jax.jit
    def value_and_slopes(logs):
        def likelihood(logs):
            squared = tinygp.transforms.Linear(jnp.exp(-logs[1:5]), tinygp.kernels.ExpSquared())
            gp = tinygp.GaussianProcess(jnp.exp(logs[0]) * squared, X, diag=jnp.exp(logs[5]))
            return gp.log_probability(y)

        return jax.value_and_grad(likelihood)(logs)

    logs = jnp.log(jnp.asarray([VARIANCE, *SCALES, NOISE]))
    return lambda: value_and_slopes(logs)


def with_sklearn(sklearn: Any, X: Any, y: Any) -> Likelihood:
    parts = sklearn.kernels
    kernel = parts.ConstantKernel(VARIANCE) * parts.RBF(SCALES) + parts.WhiteKernel(NOISE)
    process = sklearn.GaussianProcessRegressor(kernel, alpha=0.0, optimizer=None)
    process.fit(np.asarray(X), np.asarray(y))
    theta = process.kernel_.theta
    return lambda: process.log_marginal_likelihood(theta, eval_gradient=True, clone_kernel=False)


def with_gpflash(gpflash: Any, X: Any, y: Any) -> Likelihood:
    model = gpflash.ModelOptions()
    model.kernel_id, model.has_mean_model_constant = gpflash.KernelId.SqExp, False
    # It adds a nugget that keeps the condition number below this.
    model.cond_max = gpflash.COND_MAX_LIMIT
    data, at = gpflash.TrainingData(), gpflash.HpVal()
    data.X_ndim_ntrain_mat, data.f_train_vec = np.asarray(X).T, np.asarray(y)
    data.sig2_f_val = -1.0  # a hyperparameter
    at.hp_gamma_vec, at.hp_sig2_k, at.hp_sig2_f_val = 1 / SCALES, VARIANCE, NOISE

    def likelihood() -> tuple[Any, Any]:
        found = gpflash.eval_mll(data, at, model, True)
        slopes = found.mll_hp_grad_struct
        logs = [
            slopes.d_mll_d_hp_sig2_k * VARIANCE,
            *(-slopes.d_mll_d_hp_gamma_vec / SCALES),
            slopes.d_mll_d_hp_sig2_f_val * NOISE,
        ]
        return found.mll, np.array(logs)

    return likelihood


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


def likelihoods(n: int, rounds: int, libraries: dict[str, Any]) -> list[dict[str, Any]]:
    X = points(n)
    y = jnp.sin(X.sum(axis=1)) + 0.1 * jnp.asarray(np.random.default_rng(1).normal(size=n))
    makers = (with_tinygp, with_sklearn, with_gpflash)
    rivals = {
        name: make(library, X, y)
        for name, make, library in zip(
            ("tinygp", "scikit-learn", "gpflash"), makers, libraries.values(), strict=True
        )
        if library
    }
    what, size = "log marginal likelihood of SE ARD and its gradient", f"n = {n}, d = {D}"
    return compared(what, ours(X, y), rivals, rounds, size=size)


def main() -> None:
    parsed = options(__doc__, rounds=10)
    names = ("tinygp", "sklearn.gaussian_process", "gpflash")
    libraries = {name: imported(name) for name in names}
    rows: list[dict[str, Any]] = []
    for n in (50,) if parsed.small else (1000, 2000):
        rows += grams(n, parsed.rounds, libraries)
    for n in (50,) if parsed.small else (500, 1000):
        rows += likelihoods(n, parsed.rounds, libraries)
    report("rivals", rows, parsed)


if __name__ == "__main__":
    main()

"""What do the likelihood of one process, its gradient, its memory and an update cost?

The likelihood of a squared exponential with four length-scales, and its gradient in all six
hyperparameters, beside gpflash, tinygp and scikit-learn, each library in a process of its own, the
fastest of interleaved runs; a composite of ten hyperparameters beside it; the value alone beside
LAPACK's `dpotrf` and the Gram matrix; the memory of value and gradient; and ten further points
beside conditioning on all of them.

    python benchmarks/likelihood.py [--n 2000] [--rounds 15]
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernax as kx
from protocol import check, medians, options, report, row
from rivals import imported

COMPOSITE = (
    2.0 * kx.SEKernel(1.3) * kx.PeriodicKernel(0.9, 1.7)
    + 0.5 * kx.Matern52Kernel(0.8)
    + 1.5 * kx.RationalQuadraticKernel(1.1, 0.7)
    + 0.1
)
D, VARIANCE, NOISE = 4, 1.3, 0.1
SCALES = np.array([1.0, 1.5, 2.0, 0.7])
likelihood = jax.jit(lambda gp, X, y: gp.log_marginal_likelihood(X, y))
with_gradient = jax.jit(jax.value_and_grad(lambda gp, X, y: gp.log_marginal_likelihood(X, y)))

# What is timed of a library: the value, and the derivatives in the logarithms of variance,
# length-scales and noise.
Likelihood = Callable[[], tuple[Any, Any]]


def data(n: int, d: int = D) -> tuple[Any, Any]:
    X = np.random.default_rng(0).normal(size=(n, d))
    y = np.sin(X.sum(axis=1)) + 0.1 * np.random.default_rng(1).normal(size=n)
    return jnp.asarray(X), jnp.asarray(y)


# --- each library in a process of its own -------------------------------------------------------


def with_kernax(kx: Any, X: Any, y: Any) -> Likelihood:
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


LIBRARIES = {
    "kernax": ("kernax", with_kernax),
    "gpflash": ("gpflash", with_gpflash),
    "tinygp": ("tinygp", with_tinygp),
    "scikit-learn": ("sklearn.gaussian_process", with_sklearn),
}
GOALS = {"gpflash": (1.5, 1.2), "tinygp": (1 / 3.7, 1 / 5), "scikit-learn": ()}


def serve(library: str, n: int) -> None:
    """Print the results, then the seconds of one run for each line that comes in."""
    X, y = data(n)
    name, make = LIBRARIES[library]
    if (module := imported(name)) is None:
        return
    function = make(module, X, y)
    value, slopes = jax.block_until_ready(function())
    print(json.dumps([float(value), *np.asarray(slopes).tolist()]), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        jax.block_until_ready(function())
        print(time.perf_counter() - start, flush=True)


def side_by_side(n: int, rounds: int) -> dict[str, float]:
    """The least seconds of each library, which take turns."""
    command = [sys.executable, str(Path(__file__)), "--serve"]
    processes = {
        library: subprocess.Popen(
            [*command, library, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for library in LIBRARIES
    }
    found = {library: process.stdout.readline() for library, process in processes.items()}
    results = {library: json.loads(text) for library, text in found.items() if text.startswith("[")}
    for values in results.values():
        check(values, results["kernax"], 1e-6)
    times: dict[str, list[float]] = {library: [] for library in results}
    for _ in range(rounds):
        for library, seconds in times.items():
            process = processes[library]
            time.sleep(0.2)  # for which threads of the one before may wait in a loop
            process.stdin.write("\n")
            process.stdin.flush()
            seconds.append(float(process.stdout.readline()))
    for process in processes.values():
        process.stdin.close()
        process.wait(30)
    return {library: min(seconds) for library, seconds in times.items()}


def beside_others(n: int, rounds: int) -> list[dict[str, Any]]:
    times = side_by_side(n, rounds)
    size, rows = f"n = {n}, d = {D}", []
    for library, goals in GOALS.items():
        if library in times:
            both = {name: times[name] for name in ("kernax", library)}
            what = f"likelihood and gradient of SE ARD, kernax / {library}"
            rows.append(row(what, times["kernax"] / times[library], *goals, size=size, times=both))
    return rows


# --- Kernax beside itself and LAPACK ------------------------------------------------------------


def composite(n: int, rounds: int) -> dict[str, Any]:
    (X, y), (X1, _) = data(n), data(n, 1)
    plain = kx.GaussianProcess(1.3 * kx.SEKernel(SCALES), 0.1)
    gp = kx.GaussianProcess(COMPOSITE, 0.1)
    times = medians(
        {
            "composite": lambda: with_gradient(gp, X1, y),
            "SE ARD": lambda: with_gradient(plain, X, y),
        },
        rounds,
    )
    what = "likelihood and gradient, a composite of 10 hyperparameters / SE ARD"
    ratio = times["composite"] / times["SE ARD"]
    return row(what, ratio, 1.7, 1.4, size=f"n = {n}", times=times)


def value_alone(n: int, rounds: int) -> dict[str, Any]:
    X, y = data(n)
    kernel = 1.3 * kx.SEKernel(SCALES)
    gp = kx.GaussianProcess(kernel, 0.1)
    K = np.asarray(kernel.gram(X)) + 0.1 * np.eye(n)
    whole = np.asfortranarray(K)
    check(likelihood(gp, X, y), _density(whole, np.asarray(y)))
    from scipy.linalg import lapack  # of which users of Kernax alone load what it loads

    def potrf() -> Any:
        return lapack.dpotrf(whole.copy(order="F"), lower=1, clean=0, overwrite_a=1)[0]

    times = medians(
        {
            "value": lambda: likelihood(gp, X, y),
            "gram": lambda: kernel.gram(X),
            "dpotrf": potrf,
            "copy": lambda: whole.copy(order="F"),
        },
        rounds,
    )
    floor = times["gram"] + times["dpotrf"] - times["copy"]
    what = "the likelihood alone / dpotrf and the Gram matrix"
    return row(what, times["value"] / floor, 1.25, size=f"n = {n}", times=times)


def _density(K: Any, y: Any) -> float:
    L = np.linalg.cholesky(K)
    z = np.linalg.solve(L, y)
    return float(-0.5 * z @ z - np.log(np.diag(L)).sum() - 0.5 * len(y) * np.log(2 * np.pi))


def memory_of_gradient(n: int) -> list[dict[str, Any]]:
    """The most that a fresh process takes for value and gradient, beyond what it had before."""
    script = Path(__file__)
    done = subprocess.run(
        [sys.executable, str(script), "--peak", str(n)], capture_output=True, text=True, check=True
    )
    if not done.stdout.strip():
        return []
    peak = float(done.stdout) / (8 * n * n)
    what = "peak memory of likelihood and gradient / one matrix"
    return [row(what, peak, 4.2, 3.2, size=f"n = {n}, d = {D}")]


def print_peak(n: int) -> None:
    """Bytes by which the high-water mark of this process rises (Linux)."""
    X, y = data(n)
    gp = kx.GaussianProcess(1.3 * kx.SEKernel(SCALES), 0.1)
    jax.block_until_ready(with_gradient(gp, *data(100)))
    compiled = with_gradient.lower(gp, X, y).compile()
    status = Path("/proc/self/status")
    if not status.exists():
        return
    kilobytes = lambda key: int(status.read_text().partition(f"{key}:")[2].split()[0])
    Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    jax.block_until_ready(compiled(gp, X, y))
    print(1024 * (kilobytes("VmHWM") - before))


def update(n: int, rounds: int) -> dict[str, Any]:
    X, y = data(n + 10)
    gp = kx.GaussianProcess(1.3 * kx.SEKernel(SCALES), 0.1)
    known = gp.condition(X[:n], y[:n])
    run: dict[str, Callable[[], Any]] = {
        "update": lambda: known.update(X[n:], y[n:]).log_marginal_likelihood,
        "condition": lambda: gp.condition(X, y).log_marginal_likelihood,
    }
    check(run["update"](), run["condition"]())
    times = medians(run, rounds)
    ratio = times["update"] / times["condition"]
    what = "update with 10 points / conditioning on all"
    return row(what, ratio, 0.05, size=f"n = {n}", times=times)


def main() -> None:
    parsed = options(__doc__, rounds=15, n=2000, small={"n": 60})
    n, rounds = parsed.n, parsed.rounds
    rows = [entry for size in (n // 2, n) for entry in beside_others(size, rounds)]
    rows += [composite(n, rounds), value_alone(n, rounds), update(n, rounds)]
    report("likelihood", rows + memory_of_gradient(2 * n), parsed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1:2] == ["--peak"]:
        print_peak(int(sys.argv[2]))
    else:
        main()

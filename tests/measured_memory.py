"""A program: what computations are estimated to take, and how much this process grew by them.

Each runs once before, so that what is compiled is there already; and matrices are of more than
32 MB, which glibc gives back.
"""

import gc
import re
import statistics
import warnings
from pathlib import Path

import jax
import numpy as np

import kernax as kx
from kernax import _memory
from kernax.gp import _choice, _iterative_posterior
from kernax.kernels import _gram
from kernax.matrixfree import _contract

jax.config.update("jax_enable_x64", True)
STATUS, PEAK_AGAIN = Path("/proc/self/status"), Path("/proc/self/clear_refs")
asked: list[int] = []


def recorded(what, need, fix=""):
    asked.append(need)


def status(name):
    """Bytes, of a line of the process' status."""
    return int(re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())[1]) * 1024


def measure(name, function, need=None, times=1):
    """The median of so many times: whether one array is gone when the next comes may be chance."""
    jax.block_until_ready(function())
    gc.collect()
    asked.clear()
    peaks = []
    for _ in range(times):
        PEAK_AGAIN.write_text("5")  # the peak is what there is now
        before = status("VmRSS")
        jax.block_until_ready(function())
        peaks.append(status("VmHWM") - before)
    print(f"{name}: {need or asked[0]} {statistics.median_low(peaks)}")


for module in (_gram, _choice, _contract, _iterative_posterior):
    module.check_memory = recorded
_gram.LARGE = _choice.FEW = 0  # so that small matrices count too
n, rng = 2200, np.random.default_rng(0)
X = rng.normal(size=(n, 3))
y = np.sin(X[:, 0]) + 0.1 * rng.normal(size=n)
kernel = 1.3 * kx.Matern52Kernel([1.0, 2.0, 1.5])
gp = kx.GaussianProcess(kernel, 0.1, solver=kx.Dense())
gradient = jax.value_and_grad(lambda gp: gp.log_marginal_likelihood(X, y))
compiled = jax.jit(gradient)
operator = kx.KernelOperator(kernel, X, 0.1)
assert _memory.available() > 2**30

measure("gram", lambda: kernel.gram(X))
measure("likelihood and gradient", lambda: gradient(gp), times=9)
measure("the same compiled", lambda: compiled(gp), _choice.dense_need(n, 8))
measure("posterior", lambda: gp.condition(X, y).mean(X[:5]))
measure("dense", lambda: operator.dense())

solver = kx.Iterative(memory=0, max_steps=3, probes=4, rank=20, features=64)
warnings.simplefilter("ignore", kx.ConvergenceWarning)  # three steps are enough for that
posterior = kx.GaussianProcess(kernel, 0.1, solver=solver).condition(X, y)
Xs = rng.normal(size=(n // 4, 3))
measure("covariance by iteration", lambda: posterior.covariance(Xs))

"""The conditions of the suite: float64, strict promotion, checked shapes, warnings as errors."""

import os

# Each of the workers of pytest-xdist gets its share of the cores, and no more.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

with install_import_hook("kernax", "beartype.beartype"):
    import kernax  # noqa: F401


@pytest.fixture
def float32():
    """A process without x64: what most users of JAX run."""
    with jax.enable_x64(False):
        yield

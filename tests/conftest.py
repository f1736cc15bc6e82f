"""The conditions of the suite: float64, strict promotion, checked shapes, warnings as errors."""

import gc

import numpy as np
import pytest

from tests import typechecking


def pytest_configure(config):
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return  # only the workers of xdist run tests, and wait until this returns

    import jax
    from jaxtyping import install_import_hook

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")

    with install_import_hook("kernax", f"{typechecking.__name__}.checked"):
        import kernax  # noqa: F401  (under the hook, before any test imports it)


# A seventh of the suite's time would go into looking for garbage among what JAX keeps.
gc.set_threshold(100_000, 50, 1000)


def pytest_collection_finish(session):
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def nothing_compiled_is_kept():
    """Hardly a program serves another module, and gigabytes of them make everything slower."""
    yield
    import jax

    jax.clear_caches()


@pytest.fixture
def x64_off():
    """The default precision of JAX: what most users run."""
    import jax

    with jax.enable_x64(False):
        yield


@pytest.fixture
def points():
    """A fixed set of 2-D points, two of which coincide."""
    X = np.random.default_rng(7).normal(size=(6, 2))
    X[4] = X[1]
    return X

"""Programs that are run once or twice, and so had better be compiled in little time."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Slower code, in a sixth of the time. They are no part of JAX, so that one day they may be gone.
_OPTIONS: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


@functools.cache
def _options() -> dict[str, Any] | None:
    try:
        jax.jit(lambda: jnp.zeros(()), compiler_options=_OPTIONS)()
    except Exception:
        return None
    return _OPTIONS


def quick_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` with these options; the first argument is static where it is a ``structure``."""
    static = ("structure",) if "structure" in function.__annotations__ else ()

    @functools.cache
    def jitted() -> Callable[..., Any]:
        return jax.jit(function, static_argnames=static, compiler_options=_options())

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return jitted()(*arguments)

    return call

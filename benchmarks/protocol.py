"""How every timing here is taken.

Functions are compiled and warmed up, their results checked to be finite and right, and then timed
in turn, round after round in one process, so that a slow moment of the machine hits all of them.
A figure is the median over the rounds; a comparison is the ratio of two medians of one run.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

RESULTS = Path(__file__).parent / "results"


def medians(functions: dict[str, Callable[[], Any]], rounds: int, calls: int = 1) -> dict[str, Any]:
    """Seconds for one call of each function: median over ``rounds`` of the mean of ``calls``."""
    for name, function in functions.items():
        for _ in range(3):
            result = np.asarray(jax.block_until_ready(function()))
        assert np.isfinite(result).all(), f"{name} is not finite"
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            for _ in range(calls):
                jax.block_until_ready(function())
            times[name].append((time.perf_counter() - start) / calls)
    return {name: statistics.median(values) for name, values in times.items()}


def check(result: Any, expected: Any, tolerance: float = 1e-9) -> None:
    """A time is worth nothing where the number is wrong."""
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


def save(name: str, rows: list[dict[str, Any]]) -> None:
    """Rows with what they were measured on, as JSON."""
    import kernax

    machine = {
        "date": time.strftime("%Y-%m-%d"),
        "processor": platform.processor() or platform.machine(),
        "devices": [str(device) for device in jax.devices()],
        "python": platform.python_version(),
        "jax": jax.__version__,
        "kernax": kernax.__version__,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))

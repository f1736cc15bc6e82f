"""What does ``import kernax`` cost, beside ``import jax, equinox`` alone?

Fresh processes, in turn; each imports compiled files from a warm cache, as an installed package.

    python benchmarks/import_time.py [--rounds 11]
"""

import os
import statistics
import subprocess
import sys
import tempfile

from protocol import options, report, row

TIMED = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def main() -> None:
    parsed = options(__doc__, rounds=11)
    times: dict[str, list[float]] = {"jax, equinox": [], "kernax": []}
    with tempfile.TemporaryDirectory() as compiled:
        settings = os.environ | {"PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
        for number in range(parsed.rounds + 1):
            for modules, seconds in times.items():
                run = subprocess.run(
                    [sys.executable, "-c", TIMED.format(modules)],
                    capture_output=True,
                    text=True,
                    check=True,
                    env=settings,
                )
                if number:  # the first fills the cache
                    seconds.append(float(run.stdout))
    middle = {modules: statistics.median(seconds) for modules, seconds in times.items()}
    ratio = middle["kernax"] / middle["jax, equinox"]
    found = row("import kernax / import jax, equinox", ratio, 1.25, size="-", times=middle)
    report("import_time", [found], parsed)


if __name__ == "__main__":
    main()

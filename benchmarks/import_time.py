"""What does ``import kernax`` cost, beside ``import jax, equinox`` alone?

Fresh processes, in turn; each imports from a warm file cache.

    python benchmarks/import_time.py [--rounds 11]
"""

import argparse
import statistics
import subprocess
import sys

from protocol import save

TIMED = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    times: dict[str, list[float]] = {"jax, equinox": [], "kernax": []}
    for number in range(options.rounds + 1):
        for modules, seconds in times.items():
            run = subprocess.run(
                [sys.executable, "-c", TIMED.format(modules)],
                capture_output=True,
                text=True,
                check=True,
            )
            if number:  # the first fills the file cache
                seconds.append(float(run.stdout))
    middle = {modules: statistics.median(seconds) for modules, seconds in times.items()}
    ratio = middle["kernax"] / middle["jax, equinox"]
    for modules, seconds in middle.items():
        print(f"import {modules}: {seconds:.3f} s")
    print(f"ratio {ratio:.2f} (goal 1.25)")
    save("import_time", [{"seconds": middle, "ratio": ratio}])


if __name__ == "__main__":
    main()

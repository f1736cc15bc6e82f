"""The fit in several processes of this machine: python examples/cluster/local.py --processes=2

What else is given goes to fit_sharded.py; a second run with the same --folder goes on.
"""

import argparse
import tempfile
from pathlib import Path

from kernax.distributed import local_cluster


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=600.0)
    parser.add_argument("--folder", help="for checkpoints; by default one that is removed")
    given, others = parser.parse_known_args()
    script = Path(__file__).with_name("fit_sharded.py")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or temporary
        run = local_cluster(
            given.processes, script, f"--folder={folder}", *others, timeout=given.timeout
        )
    print(run.stdout[0], end="")
    print(f"{run.seconds:.1f} s")


if __name__ == "__main__":
    main()

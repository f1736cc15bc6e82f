"""The example in one process; in two of which one is killed; and in two that go on from there."""

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.distributed import EXAMPLE, QUICK, run

FIT = ("--rows=101", "--steps=10")


def path_of(output):
    """The loss by step."""
    steps = re.findall(r"^step (\d+): loss (\S+)$", output, re.MULTILINE)
    return {int(step): float(loss) for step, loss in steps}


def scales_of(output):
    """The fitted length-scales."""
    found = re.search(r"length_scales +\[(\S+), (\S+), (\S+)\]", output)
    return [float(scale) for scale in found.groups()]


def test_killed_and_started_again(tmp_path):
    output = run(1, EXAMPLE, f"--folder={tmp_path / 'whole'}", *FIT).stdout[0]
    whole = path_of(output)
    assert [*whole] == [2, 4, 6, 8, 10]
    assert whole[10] < whole[2] - 10
    assert "1 processes, 1 devices, 101 rows with padding" in output
    scales = scales_of(output)
    assert scales[2] > scales[1] > 2 * scales[0]

    folder = tmp_path / "parts"
    # What the first two compile is there for the next.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}
    cache |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
    options = {"grace": 10.0, "check": False, "environment": cache}
    killed = run(2, "killed.py", EXAMPLE, folder, *FIT, **options)
    # The first ended by itself, within the time that a silent process has.
    assert killed.failed == (1, 0)
    assert killed.returncodes[1] == -signal.SIGKILL
    assert killed.returncodes[0] not in (0, -signal.SIGTERM, -signal.SIGKILL)
    assert re.search("Gloo|heartbeat|lost the others|another task died", killed.stderr[0])

    again = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLE.with_name("local.py"), "--timeout=90",
         f"--folder={folder}", *FIT],
        capture_output=True, text=True, timeout=120, env=os.environ | QUICK | cache,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "2 processes, 2 devices, 102 rows with padding" in again.stdout
    resumed = int(re.search(r"resumed at step (\d+)", again.stdout)[1])
    before, after = path_of(killed.stdout[0]), path_of(again.stdout)
    assert max(before) <= resumed <= max(before) + 2  # no step was lost
    assert [*after] == [*range(resumed + 2, 11, 2)]
    # On the same path as one process that was never stopped.
    merged = before | after
    assert set(whole) - set(merged) <= {resumed}  # what it came to before it could say so
    assert merged == pytest.approx({step: whole[step] for step in merged}, rel=1e-8)
    assert scales_of(again.stdout) == pytest.approx(scales, rel=1e-9)

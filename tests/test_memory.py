"""What is said of memory before it is taken, against what a process then grew by."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no peaks to be set back")
def test_estimates_are_near_the_peaks():
    program = Path(__file__).with_name("measured_memory.py")
    run = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    found = {}
    for line in run.stdout.splitlines():
        name, estimate, peak = line.rsplit(maxsplit=2)
        found[name] = float(peak) / float(estimate)
    assert len(found) == 6
    for name, ratio in found.items():
        assert 0.75 < ratio < 1.25, (name, ratio)

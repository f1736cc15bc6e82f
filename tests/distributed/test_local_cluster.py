"""Clusters on one machine: what their processes print, and that nothing of them is left."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import pytest

import kernax as kx
from kernax.distributed import _local_cluster, initialize, local_cluster

# Leaves its number in a file, and waits.
WAIT = """
import os, pathlib, signal, sys, time
i = os.environ["KERNAX_PROCESS_ID"]
folder = pathlib.Path(sys.argv[1])
(folder / f"{i}.part").write_text(str(os.getpid()))
os.replace(folder / f"{i}.part", folder / i)
"""


@pytest.fixture
def script(tmp_path):
    def write(text):
        path = tmp_path / "script.py"
        path.write_text(WAIT + text)
        return path

    return write


def started(folder):
    return [int(path.read_text()) for path in folder.iterdir() if path.name.isdigit()]


def ended(folder, count):
    """Whether that many processes have left their numbers, and are gone."""
    found = started(folder)
    assert len(found) == count
    for number in found:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)
    return True


def test_arguments_environment_and_output(script, tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--a=1 --xla_force_host_platform_device_count=8")
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "elsewhere:1")
    path = script(
        "print(*sys.argv[2:], os.environ['KERNAX_PROCESSES'], os.environ['MORE'])\n"
        "names = ('XLA_FLAGS', 'JAX_NUM_CPU_DEVICES', 'JAX_PLATFORMS', 'JAX_COORDINATOR_ADDRESS')\n"
        "print(*map(os.environ.get, names), file=sys.stderr)"
    )
    found = local_cluster(
        3, path, tmp_path, 1.5, "b c", devices_per_process=2, environment={"MORE": "of it"}
    )
    assert found.ok
    assert found.returncodes == (0, 0, 0)
    assert found.stdout == ("1.5 b c 3 of it\n",) * 3
    assert found.stderr == ("--a=1 2 cpu None\n",) * 3
    assert 0 < found.seconds < 60
    assert ended(tmp_path, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds processes")
def test_each_has_its_share_of_the_cores(script, tmp_path):
    path = script("print(*os.sched_getaffinity(0))")
    cores = os.sched_getaffinity(0)
    for processes in (2, len(cores) + 1):
        printed = local_cluster(processes, path, tmp_path).stdout
        shares = [set(map(int, line.split())) for line in printed]
        if processes <= len(cores):
            assert len(set.union(*shares)) == sum(map(len, shares))
            assert {len(share) for share in shares} == {len(cores) // processes}
        else:
            assert shares == [cores] * processes


def test_one_fails_and_all_end(script, tmp_path):
    path = script(
        "if i == '1':\n"
        "    while not {'0', '2'} <= {*os.listdir(folder)}: time.sleep(0.01)\n"
        "    raise ValueError('the reason')\n"
        "time.sleep(60)"
    )
    with pytest.raises(
        kx.ClusterError, match="3 processes: process 1 ended with 1, expected 0"
    ) as caught:
        local_cluster(3, path, tmp_path, grace=0.1)
    assert "-- process 1:" in str(caught.value)
    assert str(caught.value).endswith("ValueError: the reason")
    assert caught.value.result.failed == (1,)
    assert caught.value.result.returncodes == (-signal.SIGTERM, 1, -signal.SIGTERM)
    assert not caught.value.result.ok
    assert ended(tmp_path, 3)


def test_too_long(script, tmp_path):
    path = script("signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here'); time.sleep(60)")
    with pytest.raises(kx.ClusterError, match="ran longer than 1 s in 2 processes") as caught:
        local_cluster(2, path, tmp_path, timeout=1.0)
    assert caught.value.result.returncodes == (-signal.SIGKILL,) * 2
    assert str(caught.value).endswith("-- process 0:\nhere\n-- process 1:\nhere")
    assert ended(tmp_path, 2)


def test_interrupted(script, tmp_path, monkeypatch):
    def sleep(seconds):
        time.sleep(seconds)
        if len(started(tmp_path)) == 2:
            raise KeyboardInterrupt

    fake = SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr(_local_cluster, "time", fake)
    with pytest.raises(KeyboardInterrupt):
        local_cluster(2, script("time.sleep(60)"), tmp_path)
    assert ended(tmp_path, 2)


def test_killed_with_its_parent(script, tmp_path):
    path = script(
        "import jax, kernax\n"
        "kernax.distributed.initialize()\n"
        "(folder / 'joined').touch()\n"
        "time.sleep(60)"
    )
    call = f"from kernax.distributed import *; local_cluster(1, {str(path)!r}, {str(tmp_path)!r})"
    # Killed, it leaves its folder of logs.
    folder = {"TMPDIR": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", call], env=os.environ | folder)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "joined").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait()
    child, deadline = int((tmp_path / "0").read_text()), time.monotonic() + 10
    try:
        while True:
            os.kill(child, 0)
            assert time.monotonic() < deadline
            time.sleep(0.1)
    except ProcessLookupError:
        pass


def test_refused(tmp_path):
    with pytest.raises(kx.ParameterError, match=r"`script` is '.*nowhere.py', and no file"):
        local_cluster(2, tmp_path / "nowhere.py")
    with pytest.raises(kx.ParameterError, match="`processes` is 0 and `devices_per_process` 1"):
        local_cluster(0, __file__)
    with pytest.raises(kx.ParameterError, match="`processes` got True, expected a whole number"):
        local_cluster(True, __file__)


SLURM = {f"SLURM_{name}": "2" for name in ("JOB_ID", "STEP_NODELIST", "PROCID", "LOCALID")}
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "2"}
OWN = {"KERNAX_PROCESSES": "4", "KERNAX_PROCESS_ID": "3"}


@pytest.mark.parametrize(
    ("environment", "flags"),
    [
        ({}, None),
        (SLURM, None),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        (SLURM | {"SLURM_NTASKS": "8"}, {}),
        (OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": "1"}, {}),
        (OPEN_MPI, {"cluster_detection_method": "mpi4py"}),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
        (KUBERNETES, {}),
        (
            OWN | {"KERNAX_COORDINATOR": "node:81"},
            {
                "coordinator_address": "node:81", "num_processes": 4, "process_id": 3,
                "cluster_detection_method": "deactivate",
            },
        ),
        (
            OWN | {"KERNAX_COORDINATOR": "127.0.0.1:81"},
            {
                "coordinator_address": "127.0.0.1:81", "num_processes": 4, "process_id": 3,
                "cluster_detection_method": "deactivate",
                "coordinator_bind_address": "127.0.0.1:81",
                "initialization_timeout": 60, "heartbeat_timeout_seconds": 10,
            },
        ),
    ],
)  # fmt: skip
def test_what_a_launcher_says(environment, flags, monkeypatch):
    for name in {*SLURM, "SLURM_NTASKS", *KUBERNETES, *OPEN_MPI, "KERNAX_COORDINATOR", *OWN}:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = []

    # As in JAX 0.7: without a limit for the shutdown.
    def fake(
        coordinator_address=None, num_processes=None, process_id=None,
        cluster_detection_method=None, initialization_timeout=300, heartbeat_timeout_seconds=100,
        coordinator_bind_address=None,
    ):  # fmt: skip
        own = {name: value for name, value in locals().items() if name != "found"}
        usual = {"initialization_timeout": 300, "heartbeat_timeout_seconds": 100}
        found.append({k: v for k, v in own.items() if v is not None and usual.get(k) != v})

    monkeypatch.setattr(jax.distributed, "initialize", fake)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    initialize()
    assert found == ([] if flags is None else [flags])
    if flags is not None:
        initialize(heartbeat=7)
        assert found[1] == flags | {"heartbeat_timeout_seconds": 7}


@pytest.mark.parametrize(
    "given", [{}, OWN | {"KERNAX_PROCESS_ID": "4"}, OWN | {"KERNAX_PROCESSES": "x"}]
)
def test_a_launcher_that_says_too_little(given, monkeypatch):
    for name, value in ({"KERNAX_COORDINATOR": "node:81"} | given).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(kx.ParameterError, match=r"the environment has .* Fix: set all three"):
        initialize()

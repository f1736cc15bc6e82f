"""The example, whose last process is killed once there is a checkpoint of step 4."""

import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

script, folder = sys.argv[1], Path(sys.argv[2])


def kill():
    fourth = [folder / f"checkpoint-000000004.{kind}" for kind in ("npz", "orbax")]
    while not any(path.exists() for path in fourth):
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGKILL)


if os.environ["KERNAX_PROCESS_ID"] == "1":
    threading.Thread(target=kill, daemon=True).start()
sys.argv = [script, f"--folder={folder}", *sys.argv[3:]]
runpy.run_path(script, run_name="__main__")

"""The fit on a Ray cluster: python examples/cluster/ray_train.py --processes=4 --folder=/shared/fit

What else is given goes to fit_sharded.py. Needs `pip install 'ray[train]>=2.50'` on every node.
"""

import argparse
from pathlib import Path


def worker(config):
    """What each worker runs: fit_sharded.py, as any other launcher would."""
    import os
    import runpy
    import socket
    import sys

    from ray import train, util
    from ray.train.collective import broadcast_from_rank_zero

    rank, address = train.get_context().get_world_rank(), None
    if rank == 0:
        with socket.socket() as free:
            free.bind(("", 0))
            address = f"{util.get_node_ip_address()}:{free.getsockname()[1]}"
    # On TPUs and GPUs JaxTrainer joins the workers itself, and initialize() then does nothing.
    os.environ |= {
        "KERNAX_COORDINATOR": broadcast_from_rank_zero(address),
        "KERNAX_PROCESSES": str(train.get_context().get_world_size()),
        "KERNAX_PROCESS_ID": str(rank),
    }
    sys.argv = [config["script"], *config["arguments"]]
    runpy.run_path(config["script"], run_name="__main__")


def main():
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.jax import JaxTrainer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", required=True, help="for checkpoints; all nodes see it")
    parser.add_argument("--use-gpu", action="store_true")
    given, others = parser.parse_known_args()
    script = Path(__file__).resolve().with_name("fit_sharded.py")
    JaxTrainer(
        worker,
        train_loop_config={
            "script": str(script),
            "arguments": [f"--folder={given.folder}", *others],
        },
        scaling_config=ScalingConfig(num_workers=given.processes, use_gpu=given.use_gpu),
        # All workers start again when one fails, and go on from the newest checkpoint.
        run_config=RunConfig(name="kernax", failure_config=FailureConfig(max_failures=3)),
    ).fit()


if __name__ == "__main__":
    main()

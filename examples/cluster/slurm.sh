#!/bin/bash
# The fit under Slurm: sbatch examples/cluster/slurm.sh
# One process per node, which JAX finds by itself; with GPUs, one task per GPU.
#SBATCH --job-name=kernax
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append

# On a file system that all nodes share. A job that was requeued goes on from it.
FOLDER="${FOLDER:-$SLURM_SUBMIT_DIR/checkpoints-$SLURM_JOB_NAME}"

# Proxies would answer where processes look for each other.
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY

# When one process fails, the others wait for nothing; the job then starts again, three times at most.
srun --kill-on-bad-exit=1 python examples/cluster/fit_sharded.py --folder="$FOLDER" "$@"
CODE=$?
if [ "$CODE" -ne 0 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 3 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$CODE"

"""Many processes as one: rows shared out over devices, checkpoints, and clusters on one machine.

The processes are those of `jax.distributed`, which this package starts in `initialize` only. Every
process calls the functions that take arrays, in one order; with one process they do the same.
"""

from ._checkpoint import load_checkpoint, save_checkpoint
from ._initialize import initialize
from ._local_cluster import ClusterResult, local_cluster
from ._rows import gather, local_rows, row_mesh, shard_rows

__all__ = [
    "ClusterResult",
    "gather",
    "initialize",
    "load_checkpoint",
    "local_cluster",
    "local_rows",
    "row_mesh",
    "save_checkpoint",
    "shard_rows",
]

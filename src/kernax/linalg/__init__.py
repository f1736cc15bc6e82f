"""Linear algebra of covariance matrices: factorise once, with jitter only where needed."""

from ._dense import Dense, Status, cholesky, log_density, solve, status_of, whiten
from ._factor import DenseFactor, factorise
from ._mvn import mvn_log_density

__all__ = [
    "Dense",
    "DenseFactor",
    "Status",
    "cholesky",
    "factorise",
    "log_density",
    "mvn_log_density",
    "solve",
    "status_of",
    "whiten",
]

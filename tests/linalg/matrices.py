"""Matrices and yardsticks of the tests of factorisations."""

import jax
import jax.numpy as jnp
import numpy as np

from kernax.linalg import log_density

ROUTES = ("lapack", "small", "library")


def with_condition(n, condition, dtype=float, seed=0):
    """A symmetric matrix with eigenvalues spread evenly, on a log scale, from 1 down."""
    Q = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]
    values = np.logspace(0, -np.log10(condition), n) if n > 1 else np.ones(n)
    A = (Q * values) @ Q.T
    return ((A + A.T) / 2).astype(dtype)


def ratio(L, A):
    """LAPACK's test ratio: it passes below 30."""
    n, eps = len(A), np.finfo(A.dtype).eps
    L, A = L.astype(np.longdouble), A.astype(np.longdouble)
    norm = np.abs(A).sum(axis=0).max()
    return np.abs(L @ L.T - A).sum(axis=0).max() / (n * eps * norm)


def hard(n, dtype):
    """LAPACK's own matrices: diagonal, conditions from 2 to near 1 / eps, rows of zeros."""
    eps = np.finfo(dtype).eps
    found = [np.diag(np.arange(1, n + 1).astype(dtype))]
    found += [with_condition(n, c, dtype) for c in (2.0, np.sqrt(0.1 / eps), 0.1 / eps)]
    for zeroed in {0, n // 2, n - 1} if n > 1 else ():
        A = with_condition(n, 2.0, dtype)
        A[zeroed], A[:, zeroed] = 0.0, 0.0
        found.append(A)
    return np.stack(found)


def pair(n, seed=0, size=None, dtype=float):
    """A well-conditioned matrix and a vector, or ``size`` of them."""
    rng = np.random.default_rng(seed)
    R = rng.normal(size=(size or 1, n, n))
    K = np.einsum("bij,bkj->bik", R, R) + n * np.eye(n)
    K = np.tril(K) + np.tril(K, -1).swapaxes(1, 2)
    K, y = jnp.asarray(K.astype(dtype)), jnp.asarray(rng.normal(size=(size or 1, n)).astype(dtype))
    return (K, y) if size else (K[0], y[0])


def amounts(A):
    """The jitter that the callers in the package would try."""
    eps = np.finfo(A.dtype).eps
    unit = A.shape[-1] * eps
    steps = np.minimum(np.array([1, 10, 100]) * unit, max(eps**0.5, 10 * unit))
    scale = np.diagonal(A, axis1=-2, axis2=-1).mean(axis=-1)
    return jnp.asarray((steps * scale[..., None]).astype(A.dtype))


def value(K, y, route="auto"):
    """The log density as the package computes it."""
    return log_density(K, y, jnp.asarray(len(K), K.dtype), jnp.ones((), K.dtype), route)[0]


def plain(K, y):
    """The same by JAX alone, for its derivatives."""
    L = jnp.linalg.cholesky(K)
    z = jax.scipy.linalg.solve_triangular(L, y, lower=True)
    half = jnp.sum(jnp.log(jnp.diagonal(L)))
    return -0.5 * jnp.sum(z**2) - half - 0.5 * len(K) * np.log(2 * np.pi)

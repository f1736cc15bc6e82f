"""Simulation-based calibration: among draws of the posterior the truth has any rank alike."""

import jax
import numpy as np
from scipy import stats

import kernax as kx

GP = kx.GaussianProcess(1.3 * kx.Matern32Kernel(0.8) + 0.4 * kx.PeriodicKernel(1.0, 0.7), 0.2)
X, XS = np.array([0.1, 0.4, 0.9, 1.6, 1.7]), np.array([0.5, 1.2, 2.6])
DRAWS, BINS = 63, 8


def test_ranks_are_uniform():
    # 800 truths, all of one process: targets that share a factorisation.
    keys = jax.random.split(jax.random.key(5), 3)
    both = np.asarray(GP.sample(keys[0], np.concatenate([X, XS]), (800,))).T
    noise = np.sqrt(0.2) * np.asarray(jax.random.normal(keys[1], (5, 800)))
    posterior = GP.condition(X, both[:5] + noise)
    draws = np.asarray(posterior.sample(keys[2], XS, (DRAWS,)))
    assert draws.shape == (DRAWS, 3, 800)
    for point in range(3):
        ranks = np.sum(draws[:, point] < both[5 + point], axis=0)
        counts = np.bincount(ranks * BINS // (DRAWS + 1), minlength=BINS)
        assert stats.chisquare(counts).pvalue > 1e-3
        # Draws of half the spread would not pass.
        middle = draws[:, point].mean(axis=0)
        narrow = middle + 0.5 * (draws[:, point] - middle)
        ranks = np.sum(narrow < both[5 + point], axis=0)
        counts = np.bincount(ranks * BINS // (DRAWS + 1), minlength=BINS)
        assert stats.chisquare(counts).pvalue < 1e-6

"""What properties are tried on: trees of kernels, sets of points, masks.

Compiling takes longer than all else, so that most examples are values inside few structures and
shapes; ``HYPOTHESIS_PROFILE=long`` draws the trees, too, and many more examples.
"""

import os

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import kernax as kx
from kernax._module import named_leaves
from kernax._parameters import Positive

_COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("ci", max_examples=20, derandomize=True, database=None, **_COMMON)
settings.register_profile("long", max_examples=400, print_blob=True, **_COMMON)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")
settings.load_profile(PROFILE)

N, M, D = 6, 3, 2  # the shape of most examples

SE, M12, M32, M52 = kx.SEKernel, kx.Matern12Kernel, kx.Matern32Kernel, kx.Matern52Kernel
RQ, PER, LIN = kx.RationalQuadraticKernel, kx.PeriodicKernel, kx.LinearKernel
ARD, DIMS = kx.ARDKernel, kx.ActiveDimsKernel

# One of each leaf and of each way to combine them; which values they have is drawn.
STATIONARY = {
    "per dimension": SE([1.0, 1.0]),
    "sum": 2.0 * M52() + RQ(),
    "periodic": PER() * M12(),
    "ard": ARD(SE() * (M32() + 0.5), [1.0, 1.0]) ** 2,
}
STRUCTURES = STATIONARY | {
    "linear": LIN() + SE() * LIN(1.0, [0.0, 0.0]),
    "noise": (SE() + kx.WhiteNoiseKernel()) ** 2,
    "active dims": DIMS(M32() + kx.WhiteNoiseKernel(), [1]) * (DIMS(LIN(), [0]) + 1.0),
}

# Not so small or large that rounding is all that there is, and exact in 32 bits.
lengths = st.integers(3, 400).map(lambda k: k / 32)
reals = st.integers(-64, 64).map(lambda k: k / 32)


@st.composite
def values_of(draw, kernel):
    """The same kernel with other hyperparameters."""
    drawn = {}
    for entry in named_leaves(kernel):
        single = lengths if isinstance(entry.constraint, Positive) else reals
        flat = [draw(single) for _ in range(entry.value.size)]
        drawn[entry.path] = np.reshape(flat, entry.value.shape)
    return kernel.replace(**drawn)


def structures(names=tuple(STRUCTURES)):
    """A kernel of one of few structures, with drawn hyperparameters."""
    few = st.sampled_from(names).flatmap(lambda name: values_of(STRUCTURES[name]))
    return few if PROFILE == "ci" or set(names) < set(STRUCTURES) else few | trees(D)


@st.composite
def leaves(draw, d):
    """A kernel without others inside, for points of dimension d."""
    per_dimension = st.lists(lengths, min_size=d, max_size=d)
    scale = lengths | per_dimension
    make = draw(st.sampled_from([SE, M12, M32, M52, RQ, PER, LIN, "constant", "noise"]))
    if make == "constant":
        return kx.ConstantKernel(draw(lengths))
    if make == "noise":
        return kx.WhiteNoiseKernel(draw(lengths))
    if make is LIN:
        return LIN(draw(lengths), draw(reals))
    return make(*(draw(scale), draw(lengths)) if make in (RQ, PER) else (draw(scale),))


@st.composite
def trees(draw, d, depth=3):
    """Any tree of kernels that is positive semi-definite, of at most that depth."""
    if depth == 0:
        return draw(leaves(d))
    part = trees(d, depth - 1)
    match draw(st.sampled_from(["leaf", "+", "*", "**", "scalar", "ard", "active dims"])):
        case "+":
            return draw(part) + draw(part)
        case "*":
            return draw(part) * draw(part)
        case "**":
            return draw(part) ** draw(st.integers(1, 3))
        case "scalar":
            return draw(lengths) * draw(part)
        case "ard":
            # Whatever is per dimension inside it has as many values.
            return ARD(draw(part), draw(st.lists(lengths, min_size=d, max_size=d)))
        case "active dims":
            dims = draw(st.lists(st.integers(0, d - 1), min_size=1, max_size=d, unique=True))
            return DIMS(draw(trees(len(dims), depth - 1)), dims)
    return draw(leaves(d))


@st.composite
def points(draw, n=N, d=D, offset=True):
    """(n, d) multiples of 1/64, maybe with rows twice, stretched, and far from the origin."""
    coordinates = st.integers(-192, 192).map(lambda k: k / 64)
    X = np.array([[draw(coordinates) for _ in range(d)] for _ in range(n)]).reshape(n, d)
    for copy in draw(st.lists(st.integers(0, n - 1), max_size=2)) if n else ():
        X[copy] = X[0]
    X = X * draw(st.sampled_from([1.0, 1.0, 2.0**-10, 8.0]))
    return X + draw(st.sampled_from([0.0, 0.0, 16.0, -1024.0])) if offset else X


def masks(n=N):
    """Which rows are real."""
    return st.lists(st.booleans(), min_size=n, max_size=n).map(np.array)

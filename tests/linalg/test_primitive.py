"""The factorisations as an operation of JAX: derivatives, batches, programs, and no waiting."""

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernax.linalg import _host
from kernax.linalg._primitive import SMALL, factor, inverse
from tests.linalg.matrices import ROUTES, pair, plain, value

CALL = "custom_call @kernax_"


def along(function, n=3):
    """The function of three numbers that move K and y."""
    K, y = pair(n)
    K1, K2 = (0.1 * (D + D.T) for D in np.random.default_rng(1).normal(size=(2, n, n)))
    return lambda t: function(K + t[0] * K1 + t[1] * K2, y * (1.0 + t[2]) + t[2] ** 2)


POINTS = np.array([[0.3, -0.2, 0.4], [0.0, 0.0, 0.0], [-0.1, 0.2, -0.3]])
thrice = lambda f: jax.jacfwd(jax.jacrev(jax.jacfwd(f)))


@cache
def by_jax(derivative):
    return jax.jit(jax.vmap(derivative(along(plain))))(POINTS)


@pytest.mark.parametrize(
    ("route", "derivative"),
    [("lapack", jax.hessian), ("lapack", thrice), ("small", jax.grad), ("small", jax.hessian)],
)
def test_derivatives_to_third_order_and_batches_of_them(route, derivative):
    ours, expected = along(partial(value, route=route)), by_jax(derivative)
    found = jax.jit(jax.vmap(derivative(ours)))(POINTS)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
    one = jax.jit(derivative(ours))(POINTS[0])
    np.testing.assert_allclose(one, expected[0], rtol=1e-11, atol=1e-12)


def test_the_gradient_of_a_sum_over_a_batch():
    total = lambda f: lambda p: jnp.sum(jax.vmap(f)(p) ** 2)
    found, expected = (jax.jit(jax.grad(total(along(f))))(POINTS[:2]) for f in (value, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_reverse_mode_is_the_transpose_of_forward_mode():
    K, y = pair(4)
    rng = np.random.default_rng(3)
    D = rng.normal(size=(4, 4))
    tangents = D + D.T, rng.normal(size=4)
    _, forward = jax.jit(lambda *at: jax.jvp(value, at, tangents))(K, y)
    W, slope = map(np.asarray, jax.jit(jax.grad(value, (0, 1)))(K, y))
    np.testing.assert_array_equal(W, W.T)
    backward = np.sum(W * tangents[0]) + np.sum(slope * tangents[1])
    np.testing.assert_allclose(forward, backward, rtol=1e-13)


def test_several_columns_are_their_sum():
    K, Y = pair(4)[0], jnp.asarray(np.random.default_rng(4).normal(size=(4, 3)))
    both = jax.jit(jax.value_and_grad(value, (0, 1)))
    total, (W, slopes) = both(K, Y)
    values, parts = zip(*(both(K, Y[:, j]) for j in range(3)), strict=True)
    np.testing.assert_allclose(total, np.sum(values), rtol=1e-13)
    np.testing.assert_allclose(W, np.sum([dK for dK, _ in parts], axis=0), rtol=1e-13)
    np.testing.assert_allclose(slopes, np.stack([dy for _, dy in parts], axis=1), rtol=1e-13)
    hessian = jax.jit(jax.hessian(value, 1))(K, Y)
    expected = -np.einsum("ik,jl->ijkl", np.linalg.inv(K), np.eye(3))
    np.testing.assert_allclose(hessian, expected, atol=1e-15)


def calls(function, *arguments):
    return jax.jit(function).lower(*arguments).as_text().count(CALL)


def test_each_derivative_is_one_call_to_the_host():
    K, y = pair(40)
    Ks, ys = jnp.stack([K, K]), jnp.stack([y, y])
    vectors = jnp.ones((40, 2))
    assert calls(value, K, y) == 1
    assert "potri" not in str(jax.make_jaxpr(value)(K, y))
    for function in (jax.value_and_grad(value), jax.grad(value, (0, 1)), jax.jacfwd(value, 1)):
        assert calls(function, K, y) == 1
    assert calls(jax.value_and_grad(lambda Y: value(K, Y)), vectors) == 1
    product = lambda K, y: jax.jvp(jax.grad(value), (K, y), (K, y))
    assert calls(product, K, y) == 1
    assert calls(jax.vmap(jax.value_and_grad(value)), Ks, ys) == 1
    assert calls(jax.vmap(jax.vmap(value)), Ks[None], ys[None]) == 1
    # The value alone asks for no inverse; small matrices ask for nothing.
    assert "wanted=density" in str(jax.make_jaxpr(value)(K, y))
    assert "wanted=inverse" not in str(jax.make_jaxpr(value)(K, y))
    assert calls(value, *pair(SMALL)) == 0


# --- batches -----------------------------------------------------------------------------------


@pytest.mark.optimised
@pytest.mark.parametrize(
    ("n", "dtype"), [(40, float), (7, float), (7, np.float32), (SMALL, np.float32)]
)
def test_a_batch_is_a_loop_to_the_bit(n, dtype):
    """Whatever its size, and with an element that fails: the others do not notice."""
    Ks, ys = pair(n, size=7, dtype=dtype)
    Ks = Ks.at[4].set(-Ks[4])
    both = jax.value_and_grad(value, (0, 1))
    together = jax.jit(jax.vmap(both))(Ks, ys)
    one = jax.jit(both)
    apart = [one(K, y) for K, y in zip(Ks, ys, strict=True)]
    for whole, *parts in zip(*map(jax.tree.leaves, (together, *apart)), strict=True):
        np.testing.assert_array_equal(whole, jnp.stack(parts))
        assert (np.isnan(whole).reshape(7, -1).all(axis=1) == (np.arange(7) == 4)).all()
    three = jax.jit(jax.vmap(both))(Ks[:3], ys[:3])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:3]), three, together)


def test_pieces_of_a_large_batch_of_small_matrices(monkeypatch):
    monkeypatch.setattr("kernax.linalg._portable.AT_ONCE", 200)
    Ks, ys = pair(3, size=50)
    assert 50 * 3 * 7 > 5 * 200
    pieces = jax.jit(jax.vmap(partial(inverse, route="small")))(Ks, ys, np.zeros((50, 3)))
    alone = jax.jit(partial(inverse, route="lapack"))
    for i in (0, 28, 29, 49):
        one = alone(np.asarray(Ks)[i], np.asarray(ys)[i], np.zeros(3))
        for whole, part in zip(pieces, one, strict=True):
            np.testing.assert_allclose(whole[i], part, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("route", ROUTES)
def test_nested_batches_and_shared_operands(route):
    """(2, 3) batches in which the matrix, y, or the jitter to try lacks one axis or both."""
    Ks, ys = pair(4, size=6)
    Ks, ys = np.reshape(Ks, (2, 3, 4, 4)), np.reshape(ys, (2, 3, 4))
    run = partial(inverse, route=route)
    tries = np.zeros((2, 3, 3))
    N, turned = None, Ks[0].swapaxes(0, 1)
    first = slice(None), 0
    cases = [  # axes of the inner and the outer batch, operands, and element i, j of K and y
        ((0, 0, 0), (0, 0, 0), (Ks, ys, tries), lambda i, j: (Ks[i, j], ys[i, j])),
        ((N, 0, N), (0, 0, 0), (Ks[first], ys, tries[first]), lambda i, j: (Ks[i, 0], ys[i, j])),
        ((0, 0, N), (N, 0, N), (Ks[0], ys, tries[0, 0]), lambda i, j: (Ks[0, j], ys[i, j])),
        ((N, 0, N), (N, 0, N), (Ks[0, 0], ys, tries[0, 0]), lambda i, j: (Ks[0, 0], ys[i, j])),
        ((0, N, N), (0, N, N), (Ks, ys[0, 0], tries[0, 0]), lambda i, j: (Ks[i, j], ys[0, 0])),
        ((N, N, 0), (N, N, 0), (Ks[0, 0], ys[0, 0], tries), lambda i, j: (Ks[0, 0], ys[0, 0])),
        ((1, 0, N), (N, 0, N), (turned, ys, tries[0, 0]), lambda i, j: (Ks[0, j], ys[i, j])),
    ]
    for inner, outer, operands, element in cases:
        found = [*map(np.asarray, jax.jit(jax.vmap(jax.vmap(run, inner), outer))(*operands))]
        assert [x.shape for x in found] == [(2, 3)] * 3 + [(2, 3, 4), (2, 3, 4, 4)]
        for i, j in ((0, 0), (0, 2), (1, 1)):
            K, y = element(i, j)
            a = np.linalg.solve(K, y)
            np.testing.assert_allclose(found[1][i, j], y @ a, rtol=1e-13)
            np.testing.assert_allclose(found[3][i, j], a, rtol=1e-12)
            np.testing.assert_allclose(found[4][i, j], np.linalg.inv(K), rtol=1e-12, atol=1e-15)


def test_a_matrix_shared_by_many_vectors_is_factorised_once():
    Ks, ys = pair(40, size=5)
    function = jax.jit(jax.vmap(jax.value_and_grad(value), (None, 0)))
    (call,) = [line for line in function.lower(Ks[0], ys).as_text().splitlines() if CALL in line]
    shapes = re.findall(r"tensor<([0-9x]*?)x?f64>", call)
    assert shapes == ["40x40", "1x3", "1x5x40", "40x40", "1", "1x5", "1", "1x5x40"]


@pytest.mark.parametrize("n", [0, 3, 40])
def test_empty_batches_and_empty_matrices(n):
    both = jax.jit(jax.vmap(jax.value_and_grad(value)))
    found, W = both(np.zeros((0, n, n)), np.zeros((0, n)))
    assert (found.shape, W.shape) == ((0,), (0, n, n))
    shared = jax.jit(jax.vmap(jax.value_and_grad(value), (None, 0)))
    found, W = shared(np.eye(n), np.zeros((0, n)))
    assert (found.shape, W.shape) == ((0,), (0, n, n))
    if n == 0:
        found, W = both(np.zeros((2, 0, 0)), np.zeros((2, 0)))
        assert (found.tolist(), W.shape) == ([0.0, 0.0], (2, 0, 0))
        assert [x.shape for x in factor(jnp.zeros((0, 0)), jnp.zeros(3))] == [(0, 0), ()]
    assert jax.jit(value)(np.eye(n), np.zeros((n, 0))) == 0.0


# --- places -----------------------------------------------------------------------------------


def test_inside_loops_branches_and_checkpoints():
    K, y = pair(40)
    slope = jax.jit(jax.grad(value, 1))(K, y)

    def descend(y, _):
        y = y + 0.1 * jax.grad(value, 1)(K, y)
        return y, value(K, y)

    end, values = jax.jit(lambda y: jax.lax.scan(descend, y, None, length=3))(y)
    textbook = jax.jit(plain)
    np.testing.assert_allclose(values[-1], textbook(K, end), rtol=1e-13)
    np.testing.assert_allclose(end, np.asarray(y) + 0.3 * np.asarray(slope), atol=0.1)
    again = lambda s: (s[0] + 1, descend(s[1], 0)[0])
    steps = jax.jit(lambda y: jax.lax.while_loop(lambda s: s[0] < 3, again, (0, y)))(y)
    np.testing.assert_array_equal(steps[1], end)
    np.testing.assert_array_equal(jax.jit(jax.grad(jax.checkpoint(value), 1))(K, y), slope)
    either = jax.jit(lambda c: jax.lax.cond(c, lambda: value(K, y), lambda: 0.0))
    assert either(True) == jax.jit(value)(K, y)
    several = jax.jit(lambda Ks: sum(jax.value_and_grad(value)(K, y)[0] for K in Ks))
    Ks = [np.asarray(K) * s for s in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)]
    np.testing.assert_allclose(several(Ks), sum(textbook(K, y) for K in Ks), rtol=1e-12)


@pytest.mark.parametrize("n", [3, 40])
def test_second_derivatives_of_a_loop_of_gradient_steps(n):
    """JAX takes the loop's program apart, and differentiates what it finds there once more."""
    K, y = pair(n)

    def end(value):
        step = lambda y, _: (y + rate * jax.grad(value, 1)(K, y), None)
        return lambda r: value(K, jax.lax.scan(step, y + r, None, length=2)[0])

    rate = 0.1
    for derivative in (jax.hessian, lambda f: jax.grad(jax.grad(f))):
        found, expected = (jax.jit(derivative(end(f)))(0.3) for f in (value, plain))
        np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_threads_may_share_a_compiled_function():
    both = jax.jit(jax.value_and_grad(value))
    Ks, ys = pair(60, size=4)
    expected = [both(K, y) for K, y in zip(Ks, ys, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: both(Ks[i % 4], ys[i % 4]), range(40)))
    for i, (one, W) in enumerate(found):
        assert one == expected[i % 4][0]
        np.testing.assert_array_equal(W, expected[i % 4][1])


@pytest.mark.parametrize("platforms", [("cuda",), ("cpu",), ("cpu", "tpu")])
def test_programs_for_elsewhere_stay_in_jax(platforms):
    K, y = pair(40)
    exported = jax.export.export(jax.jit(jax.value_and_grad(value)), platforms=platforms)(K, y)
    assert CALL not in exported.mlir_module()
    if platforms == ("cpu",):
        np.testing.assert_allclose(exported.call(K, y)[0], value(K, y), rtol=1e-13)


def test_without_the_interface_the_work_stays_in_jax(monkeypatch):
    K, y = pair(40)
    expected = jax.jit(jax.value_and_grad(value))(K, y)
    monkeypatch.setattr(_host, "AVAILABLE", False)
    elsewhere = jax.jit(jax.value_and_grad(lambda K, y: 1.0 * value(K, y)))
    assert CALL not in elsewhere.lower(K, y).as_text()
    for one, other in zip(elsewhere(K, y), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-14)


def test_what_goes_wrong_on_the_host_is_said(monkeypatch):
    def wrong(*_):
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr("kernax.linalg._lapack.factorise", wrong)
    with pytest.raises((RuntimeError, ValueError), match="ZeroDivisionError: of all things"):
        jax.block_until_ready(jax.jit(value)(*pair(41)))


SCRIPT = """
import os
flags = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = flags + " --xla_force_host_platform_device_count=2"
from functools import partial
import jax, jax.numpy as jnp, numpy as np
from kernax.linalg import log_density
from jax.sharding import Mesh, PartitionSpec as P

def value(K, y):
    return log_density(K, y, jnp.asarray(len(K), K.dtype), jnp.ones((), K.dtype))[0]

R = np.random.default_rng(0).normal(size=(6, 50, 50)).astype(np.float32)
Ks = jnp.asarray(np.einsum("bij,bkj->bik", R, R) + 50 * np.eye(50, dtype=np.float32))
ys = jnp.asarray(R[:, 0])
both = jax.value_and_grad(value)
expected = jax.jit(jax.vmap(both))(Ks, ys)
sum_of = lambda K: jnp.sum(jax.vmap(value, (None, 0))(K, ys))
alone = jax.jit(jax.grad(sum_of))(Ks[0])
close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7)
same = lambda found: jax.tree.map(close, found, expected)
apart = jax.jit(lambda Ks, ys: [both(K, y) for K, y in zip(Ks, ys)])
for _ in range(20):
    found = apart(list(Ks), list(ys))
same(jax.tree.map(lambda *x: np.stack(x), *found))
mesh = Mesh(np.array(jax.devices()), ("i",))
for check in (True, False):
    over = partial(jax.shard_map, mesh=mesh, check_vma=check)
    spread = over(jax.vmap(both), in_specs=(P("i"), P("i")), out_specs=P("i"))
    for _ in range(20):
        found = jax.jit(spread)(Ks, ys)
    same(found)
    # A matrix that the devices share, with the gradient of the sum over both.
    part = lambda K, ys: jax.lax.psum(jnp.sum(jax.vmap(value, (None, 0))(K, ys)), "i")
    total = over(part, in_specs=(P(), P("i")), out_specs=P())
    close(jax.jit(jax.grad(total))(Ks[0], ys), alone)
small = jax.jit(spread)(Ks[:, :5, :5], ys[:, :5])
assert np.isfinite(small[0]).all()
with jax.enable_x64(True):
    found = jax.jit(both)(jnp.asarray(np.float64(Ks[0])), jnp.asarray(np.float64(ys[0])))
    assert found[0].dtype == found[1].dtype == jnp.float64
# A batch of processes that both devices share, as the types of its arrays say: each has its own
# elements, and is sent none of the others.
import kernax as kx
mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Explicit,))
kernel = kx.BatchKernel(2.0 * kx.SEKernel(1.0), 6, {"length_scale": 0, "value": None})
gp = kx.GaussianProcess(kernel.replace(length_scale=np.linspace(0.5, 2.0, 6)), np.full(6, 0.1))
place = jax.sharding.NamedSharding(mesh, P("batch"))
spread = lambda x: jax.device_put(x, place) if np.shape(x)[:1] == (6,) else x
# Of squares: a sum of values of both signs loses digits, which would depend on the devices.
total = lambda gp, X, y: jnp.sum(gp.log_marginal_likelihood(X, y) ** 2)
both = jax.jit(jax.value_and_grad(total, (0, 1, 2)))
mean = jax.jit(lambda gp, X, y: gp.condition(X, y).mean(jnp.ones((3, 2))))
one = gp, jnp.asarray(R[:, :40, :2]), ys[:, :40]
two = jax.tree.map(spread, one)
jax.tree.map(close, (both(*two), mean(*two)), (both(*one), mean(*one)))
for found in (both(*two)[1][1], mean(*two), two[0].kernel.gram(two[1])):
    assert found.sharding.spec[0] == "batch"
assert "all-gather" not in both.lower(*two).compile().as_text()
# The same on a mesh that leaves it to the compiler.
place = jax.sharding.NamedSharding(Mesh(np.array(jax.devices()), ("batch",)), P("batch"))
auto = jax.tree.map(spread, one)
jax.tree.map(close, both(*auto), both(*one))
assert "all-gather" not in both.lower(*auto).compile().as_text()
# Hyperparameters that the devices share, and data that they do not, in a `shard_map` that keeps
# account of it; with loops and branches from some size on.
with jax.enable_x64(True):
    gp = kx.GaussianProcess(1.2 * kx.SEKernel(np.float64(0.7)), np.float64(0.1))
    single = lambda gp, X, y: jnp.sum(
        jax.vmap(lambda X, y: gp.log_marginal_likelihood(X, y))(X, y)
    )
    shared = jax.shard_map(
        lambda *all: jax.lax.psum(single(*all), "i"),
        mesh=Mesh(np.array(jax.devices()), ("i",)), in_specs=(P(), P("i"), P("i")), out_specs=P(),
    )
    for n in (40, 740):
        X = np.random.default_rng(1).uniform(0, 10, size=(2, n, 1))
        found, one_device = (
            jax.jit(jax.value_and_grad(f))(gp, X, np.sin(X[..., 0])) for f in (shared, single)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7), found, one_device)
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore", kx.ConvergenceWarning)
    close(*(kx.fit(*each, max_steps=1, progress=False).loss for each in (two, one)))
print("done", flush=True)
both(*auto)[0].shape  # what is still computed when the process ends is not waited for
"""


@pytest.mark.skipif(shutil.which("taskset") is None, reason="needs `taskset`")
def test_nothing_waits_for_itself_on_one_core():
    """Six likelihoods in one program, and two devices that share out a batch: a callback that
    asked JAX would hang."""
    run = subprocess.run(
        ["taskset", "-c", "0", sys.executable, "-c", SCRIPT],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (run.returncode, run.stdout.strip()) == (0, "done"), run.stderr

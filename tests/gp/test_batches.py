"""Batches of processes: each element is the process of its own, whatever the others do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx

RNG = np.random.default_rng(3)
B, N, D, M = 3, 7, 2, 4
X, Y = RNG.normal(size=(B, N, D)), RNG.normal(size=(B, N))
X[1, 5:] = np.nan  # the second set is shorter
XS = RNG.normal(size=(B, M, D))
KERNEL = kx.BatchKernel(2.0 * kx.SEKernel(1.0) + kx.WhiteNoiseKernel(0.1), B, 0)
KERNEL = KERNEL.replace(length_scale=[0.5, 1.0, 2.0])
GP = kx.GaussianProcess(KERNEL, [0.1, 0.2, 0.3], mean=kx.ConstantMean([0.0, 1.0, 2.0]))
TOL = {"rtol": 1e-11, "atol": 1e-12}


def single(i, gp=GP):
    """Element i by itself, without its padding."""
    real = ~np.isnan(X[i]).any(axis=1)
    level = gp.mean.value[i] if isinstance(gp.mean, kx.ConstantMean) else 0.0
    own = kx.GaussianProcess(gp.kernel[i], gp.noise_variance[i], mean=kx.ConstantMean(level))
    return own, X[i][real], Y[i][real], real


@jax.jit
def alone(gp, x, y, at):
    """What is compared of one element, in one program for each number of points."""
    one = gp.condition(x, y)
    slopes = jax.grad(lambda gp: gp.log_marginal_likelihood(x, y))(gp)
    variances = [one.variance(at, observation=observation) for observation in (False, True)]
    return {
        "likelihood": one.log_marginal_likelihood,
        "variances": variances,
        "mean": one.mean(at),
        "covariance": one.covariance(at),
        "mean at shared points": one.mean(XS[0]),
        "left out": one.leave_one_out(),
        "slopes": list(slopes.hyperparameters.values()),
    }


def test_every_result_of_an_element_is_that_of_its_own_process():
    batch, likelihood = GP.condition(X, Y), GP.log_marginal_likelihood(X, Y)
    assert batch.status.shape == batch.jitter.shape == likelihood.shape == (B,)
    left_out = batch.leave_one_out()
    for i in range(B):
        gp, x, y, real = single(i)
        one = alone(gp, x, y, XS[i])
        np.testing.assert_allclose(likelihood[i], one["likelihood"], **TOL)
        np.testing.assert_allclose(batch.log_marginal_likelihood[i], likelihood[i], **TOL)
        for observation in (False, True):
            found = batch.variance(XS, observation=observation)[i]
            np.testing.assert_allclose(found, one["variances"][observation], **TOL)
        np.testing.assert_allclose(batch.mean(XS)[i], one["mean"], **TOL)
        np.testing.assert_allclose(batch.covariance(XS)[i], one["covariance"], **TOL)
        np.testing.assert_allclose(batch.mean(XS[0])[i], one["mean at shared points"], **TOL)
        for found, expected in zip(left_out, one["left out"], strict=True):
            np.testing.assert_allclose(found[i][real], expected, **TOL)
            assert np.isnan(found[i][~real]).all()
    assert GP.sample(jax.random.key(0), X, (5,)).shape == (B, 5, N)
    draws = batch.sample(jax.random.key(0), XS, (5,))
    assert draws.shape == (B, 5, M)
    assert np.isfinite(draws).all()


def test_shared_points_and_one_noise_per_point():
    kernel = kx.BatchKernel(kx.SEKernel(), B, 0, batch_over_inputs=False)
    kernel = kernel.replace(length_scale=[0.5, 1.0, 2.0])
    noise = RNG.uniform(0.1, 0.5, size=(B, N))
    gp, x = kx.GaussianProcess(kernel, noise), X[0]
    both = gp.log_marginal_likelihood(x, Y)
    same_y = gp.log_marginal_likelihood(x, Y[0])
    for i in range(B):
        one = kx.GaussianProcess(kernel[i], noise[i])
        np.testing.assert_allclose(both[i], one.log_marginal_likelihood(x, Y[i]), **TOL)
        np.testing.assert_allclose(same_y[i], one.log_marginal_likelihood(x, Y[0]), **TOL)


def test_nested_batches():
    inner = kx.BatchKernel(kx.Matern32Kernel(), 2, 0).replace(length_scale=[0.5, 1.5])
    outer = kx.BatchKernel(inner, B, 0)
    outer = outer.replace(length_scale=RNG.uniform(0.5, 2.0, size=(B, 2)))
    noise = RNG.uniform(0.1, 0.5, size=(B, 2))
    x, y = RNG.normal(size=(B, 2, N, D)), RNG.normal(size=(B, 2, N))
    gp = kx.GaussianProcess(outer, noise)
    found, mean = gp.log_marginal_likelihood(x, y), gp.condition(x, y).mean(x[0, 0])
    for i in range(B):
        for j in range(2):
            one = kx.GaussianProcess(outer[i][j], noise[i, j])
            posterior = one.condition(x[i, j], y[i, j])
            np.testing.assert_allclose(found[i, j], posterior.log_marginal_likelihood)
            np.testing.assert_allclose(mean[i, j], posterior.mean(x[0, 0]), **TOL)


def test_gradients_of_an_element_are_its_own():
    slopes = jax.jit(jax.grad(lambda gp: jnp.sum(gp.log_marginal_likelihood(X, Y))))(GP)
    for i in range(B):
        gp, x, y, _ = single(i)
        one = alone(gp, x, y, XS[i])["slopes"]
        for batch, own in zip(slopes.hyperparameters.values(), one, strict=True):
            np.testing.assert_allclose(batch[i], own, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("at_once", [1, 2 * N * N, 2**20])
def test_derivatives_do_not_depend_on_how_many_are_worked_on_together(monkeypatch, at_once):
    """Chunks of one, of two with the last one filled up, and all in one: first derivatives in
    everything, with weights of their own and hyperparameters that are shared, and second ones."""
    monkeypatch.setattr("kernax.gp._one_pass.AT_ONCE", at_once)
    shared = kx.BatchKernel(2.0 * kx.SEKernel(1.0), B, {"length_scale": 0, "value": None})
    shared = shared.replace(length_scale=[0.5, 1.0, 2.0])
    gp = kx.GaussianProcess(shared, [0.1, 0.2, 0.3], mean=kx.LinearMean([0.3, -0.2], 0.1))
    weights = jnp.asarray([1.0, 2.0, 3.0])

    def together(gp, x, y):
        return jnp.sum(weights * gp.log_marginal_likelihood(x, y))

    def apart(gp, x, y):
        singles = [
            kx.GaussianProcess(gp.kernel[i], gp.noise_variance[i], mean=gp.mean) for i in range(B)
        ]
        values = [one.log_marginal_likelihood(x[i], y[i]) for i, one in enumerate(singles)]
        return jnp.sum(weights * jnp.stack(values))

    def everything(function):
        slopes = jax.value_and_grad(function, (0, 1, 2))
        level = lambda c: function(gp.replace(bias=c * gp.mean.bias), X, c * Y)
        return jax.jit(
            lambda gp: (slopes(gp, X, Y), jax.hessian(level)(1.0), jax.jvp(level, (1.0,), (1.0,)))
        )

    found, expected = everything(together)(gp), everything(apart)(gp)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), found, expected
    )
    assert len(jax.tree.leaves(found)) == 11


def test_what_a_mean_closes_over_has_derivatives():
    kernel = kx.BatchKernel(kx.SEKernel(1.0), B, 0)

    def value(a):
        gp = kx.GaussianProcess(kernel, 0.1, mean=lambda X: a * X[:, 0])
        return jnp.sum(gp.log_marginal_likelihood(X, Y))

    slope = (value(0.3 + 1e-5) - value(0.3 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(value)(0.3), slope, rtol=1e-7)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.vmap], ids=["jit", "vmap"])
def test_what_a_mean_closes_over_may_be_no_float(wrap):
    """A number of a table, a choice and a key, all traced."""
    kernel = kx.BatchKernel(kx.SEKernel(1.0), B, 0)
    table = jnp.asarray([0.3, -0.2, 0.9])

    def likelihood(kernel, x, y):
        def value(a, number, yes, key):
            def mean(X):
                level = jnp.where(yes, table[number], 0.0) + jax.random.normal(key)
                return a * level * X[:, 0]

            gp = kx.GaussianProcess(kernel, 0.1, mean=mean)
            return jnp.sum(gp.log_marginal_likelihood(x, y))

        return value

    given = (jnp.asarray([0.3, 0.4]), jnp.asarray([0, 2]), jnp.asarray([True, False]))
    given = (*given, jax.random.split(jax.random.key(0)))
    if wrap is not jax.vmap:
        given = jax.tree.map(lambda x: x[0], given)
    found = jax.jit(wrap(jax.value_and_grad(likelihood(kernel, X, Y))))(*given)
    singles = [wrap(jax.value_and_grad(likelihood(kernel[i], X[i], Y[i]))) for i in range(B)]
    expected = jax.jit(lambda *a: [sum(x) for x in zip(*(one(*a) for one in singles), strict=True)])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), found, tuple(expected(*given))
    )


def test_a_batch_without_elements():
    gp = kx.GaussianProcess(kx.BatchKernel(kx.SEKernel(1.0), 0, 0), 0.1)
    total = lambda gp: jnp.sum(gp.log_marginal_likelihood(X[:0], Y[:0]))
    assert gp.log_marginal_likelihood(X[:0], Y[:0]).shape == (0,)
    assert jax.grad(total)(gp).noise_variance == 0.0


def test_inputs_of_the_outer_batch_alone():
    """Two sets of points, for each of them three processes with values of their own."""
    kernel = kx.BatchKernel(kx.SEKernel(1.0), 3, {"length_scale": 0}, batch_over_inputs=False)
    gp = kx.GaussianProcess(
        kx.BatchKernel(kernel.replace(length_scale=[0.5, 1.0, 2.0]), 2, None), 0.1
    )
    x, y = X[:2], jnp.stack([Y, Y[::-1]])
    found, mean = gp.log_marginal_likelihood(x, y), gp.condition(x, y).mean(x)
    for i in range(2):
        for j, scale in enumerate([0.5, 1.0, 2.0]):
            one = kx.GaussianProcess(kx.SEKernel(scale), 0.1).condition(x[i], y[i, j])
            np.testing.assert_allclose(found[i, j], one.log_marginal_likelihood, rtol=1e-12)
            np.testing.assert_allclose(mean[i, j], one.mean(x[i]), **TOL)
    with pytest.raises(kx.InputError, match="the first at element 1, 2, row 3"):
        gp.condition(x, y.at[1, 2, 3].set(jnp.nan))


class Pair(kx.AbstractKernel):
    """1 on the diagonal and c elsewhere, which is indefinite as soon as c > 1."""

    c: jax.Array = kx.real(0.3)

    def pairwise(self, x, y):
        return jnp.where(jnp.all(x == y), 1.0, self.c)


def test_a_failure_stays_its_own():
    """One element without a factorisation, and one without points."""
    kernel = kx.BatchKernel(Pair(), 3, 0).replace(c=[0.3, 1.5, 0.4])
    gp = kx.GaussianProcess(kernel, 0.0)
    x = np.broadcast_to(np.arange(4.0)[:, None], (3, 4, 1)).copy()
    x[2] = np.nan
    with pytest.warns(kx.NumericalWarning, match="1 of 3 elements have no positive def.*NaN: 1"):
        found = gp.condition(x, np.ones((3, 4)))
    assert found.status.tolist() == [kx.Status.OK, kx.Status.NOT_PSD, kx.Status.EMPTY]
    good = kx.GaussianProcess(kernel[0], 0.0).condition(x[0], np.ones(4))
    np.testing.assert_array_equal(found.mean([[0.5]])[0], good.mean([[0.5]]))
    assert np.isnan(found.mean([[0.5]])[1]).all()
    assert found.log_marginal_likelihood[2] == 0.0
    assert np.isnan(found.log_marginal_likelihood[1])


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda: kx.GaussianProcess(KERNEL, [0.1, 0.2]), kx.ParameterError, r"expected a scalar or "
         r"\(3,\), one per element, or \(3, n\)"),
        (lambda: kx.GaussianProcess(KERNEL, 0.1, kx.ConstantMean([1.0, 2.0])), kx.ShapeError,
         r"`value` has shape \(2,\), expected \(\) or \(3,\)"),
        (lambda: GP.condition(X[0], Y[0]), kx.ShapeError, r"`X` has shape \(7, 2\).*\(3, n"),
        (lambda: GP.condition(X[:2], Y[:2]), kx.ShapeError, r"`X` has shape \(2, 7, 2\)"),
        (lambda: GP.condition(X, Y[0]), kx.ShapeError, r"`y` has shape \(7,\), expected \(3, 7\)"),
        (lambda: GP.condition(X, Y).mean(XS[:2]), kx.ShapeError, r"`Xs` has shape \(2, 4, 2\)"),
        (lambda: GP.condition(X, np.where(X[..., 0] == X[2, 3, 0], np.nan, Y)), kx.InputError,
         "the first at element 2, row 3"),
    ],
)  # fmt: skip
def test_what_does_not_fit(build, error, text):
    with pytest.raises(error, match=text):
        build()


@pytest.fixture(scope="module")
def ragged():
    """Sets of different lengths, the last of them empty, all padded to one shape."""
    rng = np.random.default_rng(5)
    lengths, sets = [9, 13, 11, 0], []
    x, y = np.full((4, 14, 1), np.nan), np.zeros((4, 14))
    for i, n in enumerate(lengths):
        x[i, :n, 0] = np.sort(rng.uniform(-3, 3, n))
        y[i, :n] = np.sin((1 + 0.4 * i) * x[i, :n, 0]) + 0.1 * rng.normal(size=n)
        sets.append((x[i, :n], y[i, :n]))
    kernel = kx.BatchKernel(1.0 * kx.SEKernel(0.7), 4, 0)
    return kx.GaussianProcess(kernel, np.full(4, 0.1)), x, y, sets


def test_a_batch_is_fitted_element_by_element(ragged):
    gp, x, y, _ = ragged
    fitted = kx.fit(gp, x, y, restarts=2, progress=False)
    assert fitted.converged.shape == fitted.loss.shape == fitted.message.shape == (4,)
    assert fitted.losses.shape == (3, 4)
    assert fitted.converged[:3].all()
    for i in range(3):
        one = kx.GaussianProcess(gp.kernel[i], 0.1)
        own = kx.fit(one, x[i], y[i], restarts=2, progress=False)
        assert fitted.loss[i] <= own.loss + 1e-6
        np.testing.assert_allclose(
            fitted.gp.kernel[i].hyperparameters["right_kernel.length_scale"],
            own.gp.hyperparameters["kernel.right_kernel.length_scale"],
            rtol=2e-2,
        )
        given = -gp.log_marginal_likelihood(x, y)[i]
        np.testing.assert_allclose(fitted.runs.history[i][0], given, rtol=1e-12)
    np.testing.assert_allclose(
        fitted.loss, -fitted.gp.log_marginal_likelihood(x, y), rtol=1e-12, atol=1e-14
    )
    assert "4 of 4 elements converged" in repr(fitted)
    assert fitted.plot().axes[0].lines


def test_what_is_shared_is_fitted_together(ragged):
    gp, x, y, _ = ragged
    shared = kx.GaussianProcess(gp.kernel, 0.1)
    fitted = kx.fit(shared, x, y, progress=False, max_steps=60)
    assert fitted.gp.noise_variance.shape == ()
    assert fitted.converged.shape == (4,)
    total = lambda noise: (
        -jnp.sum(fitted.gp.replace(noise_variance=noise).log_marginal_likelihood(x, y))
    )
    best = float(fitted.gp.noise_variance)
    assert total(best) < min(total(0.9 * best), total(1.1 * best))


def test_an_element_that_fails_keeps_its_values():
    kernel = kx.BatchKernel(Pair(), 2, 0).replace(c=[0.3, 1.5])
    gp = kx.GaussianProcess(kernel, np.full(2, 0.0))
    x, y = np.broadcast_to(np.arange(2.0)[:, None], (2, 2, 1)), np.array([[1.5, 1.3], [1.0, 1.0]])
    with pytest.warns(
        kx.ConvergenceWarning, match="1 of 2 elements did not converge, the first is 1"
    ):
        fitted = kx.fit(gp, x, y, fixed="noise_variance", progress=False)
    assert fitted.gp.kernel.hyperparameters["inner_kernel.c"][1] == 1.5
    assert np.isnan(fitted.loss[1])
    assert fitted.converged.tolist() == [True, False]


def test_lists_of_different_lengths_are_padded(ragged):
    gp, x, y, sets = ragged
    points, values = [s[0] for s in sets], [s[1] for s in sets]
    listed, padded = gp.condition(points, values), gp.condition(x, y)
    np.testing.assert_allclose(
        listed.log_marginal_likelihood, padded.log_marginal_likelihood, rtol=1e-12
    )
    np.testing.assert_allclose(listed.mean([[0.2]]), padded.mean([[0.2]]), rtol=1e-12)

"""The free space where hyperparameters are fitted: there, back, and how fast."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from kernax._parameters import Constraint, Interval, NonNegative, Positive, Real
from kernax.gp import _free_space
from kernax.gp._free_space import bounds, free_space
from kernax.gp._priors import resolve_fixed

natural = jax.jit(_free_space.natural, static_argnums=0)
coordinate = jax.jit(_free_space.coordinate, static_argnums=0)
STARTS = np.logspace(-30, 30, 61)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("constraint", [Positive(), NonNegative()])
def test_positive_round_trips_over_sixty_decades(constraint, dtype):
    start = jnp.asarray(STARTS.astype(dtype))
    np.testing.assert_array_equal(natural(constraint, jnp.zeros_like(start), start), start)
    np.testing.assert_array_equal(coordinate(constraint, start, start), jnp.zeros_like(start))
    eps = np.finfo(dtype).eps
    for factor in (1e-2, 0.5, 3.0, 1e2):
        value = start * jnp.asarray(factor, dtype)
        u = coordinate(constraint, value, start)
        assert u.dtype == dtype
        np.testing.assert_allclose(natural(constraint, u, start), value, rtol=8 * eps)


def test_positive_stops_ten_decades_away():
    start = jnp.asarray([1e-3, 5.0])
    far = natural(Positive(), jnp.asarray([-100.0, 100.0]), start)
    np.testing.assert_allclose(far, [1e-13, 5e10], rtol=1e-13)
    np.testing.assert_allclose(
        coordinate(Positive(), jnp.asarray([1e-30, 1e30]), start), np.log([1e-10, 1e10])
    )
    assert bounds(Positive(), 5.0) == (-np.log(1e10), np.log(1e10))


def test_interval_round_trips_and_stays_inside():
    inside = Interval(-2.0, 3.0)
    start = jnp.asarray([-2 + 1e-9, -1.9, 0.1, 2.5, 3 - 1e-9])
    np.testing.assert_array_equal(natural(inside, jnp.zeros(5), start), start)
    value, origin = jnp.asarray([-1.99, -0.3, 2.9]), jnp.asarray([0.1, 2.5, -1.9])
    u = coordinate(inside, value, origin)
    logit = lambda v: np.log((v + 2) / (3 - v))
    np.testing.assert_allclose(u, logit(value) - logit(origin), rtol=1e-13)
    np.testing.assert_allclose(natural(inside, u, origin), value, rtol=1e-13)
    ends = natural(inside, jnp.asarray([-1e3, 1e3, 0.1]), origin)
    np.testing.assert_allclose(ends[:2], [-2 + 5e-6, 3 - 5e-6], rtol=1e-7)
    assert inside.contains(np.asarray(ends)).all()
    low, high = bounds(inside, 0.1)
    np.testing.assert_allclose(
        natural(inside, jnp.asarray([low, high]), jnp.full(2, 0.1)), ends[:2]
    )


def test_interval_has_a_slope_where_it_starts():
    """dv/du = (v - lower)(upper - v) / width, at u = 0 as elsewhere."""
    inside = Interval(-2.0, 3.0)
    for u in (0.0, 0.7, -1.3):
        value, slope = jax.value_and_grad(lambda u: natural(inside, u, jnp.asarray(0.4)))(u)
        np.testing.assert_allclose(slope, (value + 2) * (3 - value) / 5, rtol=1e-12)


def test_real_is_a_shift():
    start = jnp.asarray([-3.0, 0.0, 2.5])
    np.testing.assert_array_equal(natural(Real(), jnp.zeros(3), start), start)
    np.testing.assert_array_equal(natural(Real(), jnp.ones(3), start), [-2.0, 1.0, 3.5])
    np.testing.assert_array_equal(coordinate(Real(), start + 1.0, start), np.ones(3))
    assert bounds(Real(), 1.0) == (-np.inf, np.inf)


def test_an_unknown_constraint_has_no_transformation():
    for function in (natural, coordinate):
        with pytest.raises(TypeError, match="no transformation is known for"):
            function(Constraint(), jnp.ones(()), jnp.ones(()))


class Bump(kx.AbstractKernel):
    weight: jax.Array = kx.interval(0.0, 1.0, 0.25)
    scale: jax.Array = kx.positive(2.0)

    def pairwise(self, x, y):
        return self.weight * jnp.exp(-jnp.sum((x - y) ** 2) / self.scale)


GP = kx.GaussianProcess(Bump(), [0.1, 0.2], mean=0.5)


def test_order_shapes_and_values():
    space, start = free_space(GP, frozenset())
    assert space.paths == ("kernel.weight", "kernel.scale", "noise_variance", "mean.value")
    assert space.shapes == ((), (), (2,), ())
    assert space.size == 5
    values = space.values(jnp.asarray([0.0, 1.0, 0.0, -1.0, 2.0]), start)
    np.testing.assert_array_equal(values["kernel.weight"], 0.25)
    np.testing.assert_allclose(values["kernel.scale"], 2 * np.e, rtol=1e-15)
    np.testing.assert_allclose(values["noise_variance"], [0.1, 0.2 / np.e], rtol=1e-15)
    np.testing.assert_array_equal(values["mean.value"], 2.5)
    fewer, _ = free_space(GP, frozenset({"noise_variance", "kernel.weight"}))
    assert fewer.paths == ("kernel.scale", "mean.value")


def test_log_jacobian():
    """log v for a positive value, log (v - lower)(upper - v) / width in an interval, 0 else."""
    space, start = free_space(GP, frozenset())
    for u in (np.zeros(5), np.array([0.3, -0.2, 0.5, 1.0, 2.0])):
        v = space.values(jnp.asarray(u), start)
        w = v["kernel.weight"]
        parts = {
            "kernel.weight": np.log(w * (1 - w)),
            "kernel.scale": np.log(v["kernel.scale"]),
            "noise_variance": np.log(v["noise_variance"]).sum(),
            "mean.value": 0.0,
        }
        for paths in (set(parts), {"kernel.weight"}, {"noise_variance", "mean.value"}, set()):
            total = space.log_jacobian(jnp.asarray(u), start, frozenset(paths))
            np.testing.assert_allclose(total, sum(parts[p] for p in paths), rtol=1e-13, atol=1e-15)


def test_what_is_at_the_end_of_its_range_is_named():
    space, start = free_space(GP, frozenset())
    assert space.at_bounds(np.zeros(5), start) == []
    far = np.log(1e10)
    assert space.at_bounds(np.array([0.0, -far, 0.0, far, 1e9]), start) == [
        "'kernel.scale' = 2e-10 is at the bound 2e-10",
        "'noise_variance' = 2e+09 is at the bound 2e+09",
    ]
    found = space.at_bounds(np.array([1e3, 0.0, 0.0, 0.0, 0.0]), start)
    assert found == ["'kernel.weight' = 0.999999 is at the bound 0.999999"]


def test_zero_is_never_free():
    gp = kx.GaussianProcess(kx.SEKernel(), 0.0)
    text = r"'noise_variance' is 0 .* never move. Fix: .* or pass fixed=\('noise_variance',\)"
    with pytest.raises(kx.ParameterError, match=text):
        free_space(gp, frozenset())
    with pytest.raises(kx.ParameterError, match=text):
        free_space(kx.GaussianProcess(kx.SEKernel(), [0.1, 0.0]), frozenset())
    assert free_space(gp, frozenset({"noise_variance"}))[0].paths == ("kernel.length_scale",)


# --- names and priors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("priors", "text"),
    [
        ({"sclae": ("LogNormal", 0, 1)}, "no hyperparameter 'sclae'; did you mean 'scale'"),
        (
            {"scale": ("Normal", 0, 1)},
            r"'kernel.scale', Normal, allows -1, but .* > 0. Fix: .*LogN",
        ),
        ({"noise_variance": ("Uniform", -0.1, 1)}, "Uniform, allows -0.001, but .* >= 0. Fix: use"),
        (
            {"weight": ("Uniform", -0.1, 0.5)},
            r"allows -0.001, .* between 0 and 1. .*Uniform\(0, 1\)",
        ),
        ({"weight": ("Uniform", 0.5, 2)}, r"allows 2, but .* a value between 0 and 1"),
        (
            {"scale": ("LogNormal", 0, 1), "kernel.scale": ("LogNormal", 0, 1)},
            "two priors for 'ker",
        ),
    ],
)
def test_wrong_priors(priors, text):
    dist = pytest.importorskip("numpyro.distributions")
    made = {name: getattr(dist, family)(*numbers) for name, (family, *numbers) in priors.items()}
    with pytest.raises(kx.ParameterError, match=text):
        kx.fit(GP, [0.0, 1.0], [0.0, 1.0], priors=made)


def test_what_is_not_a_prior_and_what_is_not_a_path():
    data = [0.0, 1.0], [0.0, 1.0]
    with pytest.raises(kx.ParameterError, match=r"'kernel.scale' is 1.0, expected .* `log_prob`"):
        kx.fit(GP, *data, priors={"scale": 1.0})
    text = "no hyperparameter 'noise_varience'; did you mean 'noise_variance'"
    with pytest.raises(kx.ParameterError, match=text):
        kx.fit(GP, *data, fixed=("noise_varience",))


def test_fixed_names_are_paths_or_parts_of_the_tree():
    assert resolve_fixed(GP, ("kernel", "value")) == {"kernel.weight", "kernel.scale", "mean.value"}
    assert resolve_fixed(GP, "scale") == {"kernel.scale"}
    assert resolve_fixed(GP, ()) == frozenset()

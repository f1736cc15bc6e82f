"""Kernel and prior expressions: the same kernels as in Python, and nothing but them."""

import math

import numpy as np
import numpyro.distributions as dist
import pytest

import kernax as kx
from kernax.cli._expression import LONGEST, PRIORS, parse_kernel, parse_prior, short_names
from kernax.kernels._catalogue import CATALOGUE

SE, LIN, PER, RQ = kx.SEKernel, kx.LinearKernel, kx.PeriodicKernel, kx.RationalQuadraticKernel
WN, ARD, DIMS = kx.WhiteNoiseKernel, kx.ARDKernel, kx.ActiveDimsKernel


@pytest.mark.parametrize(
    ("text", "kernel"),
    [
        ("SE(1.5)", SE(1.5)),
        ("SE()", SE()),
        ("  SE( 1.5 )  ", SE(1.5)),
        ("SE(length_scale=1.5)", SE(1.5)),
        ("RQ(0.5, alpha=2)", RQ(0.5, 2.0)),
        ("RQ(alpha=2, length_scale=0.5)", RQ(0.5, 2.0)),
        ("SE(1e-3)", SE(1e-3)),
        ("SE(+1_000)", SE(1000)),
        ("SE([1, 2.5])", SE([1.0, 2.5])),
        ("SE((1, 2.5))", SE([1.0, 2.5])),
        ("Linear(1, offset=-0.5)", LIN(1.0, -0.5)),
        ("Linear(1, [-0.5, 1/4])", LIN(1.0, [-0.5, 0.25])),
        ("SE(1) + Linear() * WN(0.1)", SE(1.0) + LIN() * WN(0.1)),
        ("(SE(1) + Linear()) * WN(0.1)", (SE(1.0) + LIN()) * WN(0.1)),
        ("SE(1) - SE(2) - SE(3)", SE(1.0) - SE(2.0) - SE(3.0)),
        ("SE(1) - (SE(2) - SE(3))", SE(1.0) - (SE(2.0) - SE(3.0))),
        ("-SE(1)", -SE(1.0)),
        ("+SE(1)", SE(1.0)),
        ("(" * 50 + "SE(1)" + ")" * 50, SE(1.0)),
        ("2 * -SE(1)", 2.0 * -SE(1.0)),
        ("-2 * SE(1)", -2.0 * SE(1.0)),
        ("SE(1) * 2", SE(1.0) * 2.0),
        ("2 + SE(1)", 2.0 + SE(1.0)),
        ("SE(1)**2", SE(1.0) ** 2),
        ("SE(1)**(4/2)", SE(1.0) ** 2),
        ("2**3**2 * SE(1)", 512.0 * SE(1.0)),
        ("-2**2 * SE(1)", -4.0 * SE(1.0)),
        ("(1 + 2) / 4 * SE(1)", 0.75 * SE(1.0)),
        ("66**2*SE(67)", 66**2 * SE(67.0)),
        ("exp(1) * SE(sqrt(2))", math.e * SE(math.sqrt(2))),
        ("log(8, 2) * SE(log(10))", 3.0 * SE(math.log(10))),
        ("ARD(SE(1) + RQ(1, 2), [1, 2])", ARD(SE(1.0) + RQ(1.0, 2.0), [1.0, 2.0])),
        ("ActiveDims(SE(1), [0, -1])", DIMS(SE(1.0), [0, -1])),
        ("ActiveDims(Periodic(1.3, period=1), 0)", DIMS(PER(1.3, 1.0), [0])),
        (
            "66**2*SE(67) + 2.4**2*SE(90)*Periodic(1.3, period=1) + 0.66**2*RQ(1.2, 0.78)",
            66.0**2 * SE(67.0) + 2.4**2 * SE(90.0) * PER(1.3, 1.0) + 0.66**2 * RQ(1.2, 0.78),
        ),
    ],
)
def test_the_same_kernel_as_in_python(text, kernel):
    parsed = parse_kernel(text)
    assert parsed.equals(kernel), f"{parsed!r} is not {kernel!r}"


ARGUMENTS = {
    kx.ChangePointKernel: "SE(1), SE(2), 0.5, 2",
    kx.ARDKernel: "SE(1), [1, 2]",
    kx.ActiveDimsKernel: "SE(1), [1]",
}


@pytest.mark.parametrize("cls", CATALOGUE)
def test_every_kernel_of_the_catalogue_under_each_of_its_names(cls):
    arguments = ARGUMENTS.get(cls, "")
    first, *others = (parse_kernel(f"{name}({arguments})") for name in short_names(cls))
    assert type(first) is cls
    assert all(other.equals(first) for other in others)
    assert short_names(cls)[:2] == (cls.__name__.removesuffix("Kernel"), cls.__name__)


def test_customary_abbreviations():
    assert parse_kernel("RBF(2)").equals(SE(2.0))
    assert parse_kernel("RQ(2)").equals(RQ(2.0))
    assert parse_kernel("WN(2)").equals(WN(2.0))


NOT_CODE = [
    ("SE(1).gram", "Attribute"),
    ("SE.__class__", "Attribute"),
    ("SE.__class__(1)", "Call"),
    ("SE(1)(2)", "Call"),
    ("__import__('os').system('touch {proof}')", "Call"),
    ("SE(__import__('os').system('touch {proof}'))", "Call"),
    ("SE[1]", "Subscript"),
    ("[1, 2][0] * SE(1)", "Subscript"),
    ("lambda: SE(1)", "Lambda"),
    ("[SE(x) for x in [1]]", "ListComp"),
    ("SE({{1: 2}})", "Dict"),
    ("SE({{1}})", "Set"),
    ("SE(x for x in [1])", "GeneratorExp"),
    ("(k := SE(1))", "NamedExpr"),
    ("SE(*[1])", "Starred"),
    ("SE(**{{'length_scale': 1}})", r"'\*\*' inside SE\(...\)"),
    ("SE(1) if 1 else SE(2)", "IfExp"),
    ("SE(1) and SE(2)", "BoolOp"),
    ("not SE(1)", "UnaryOp"),
    ("~SE(1)", "UnaryOp"),
    ("SE(1) < SE(2)", "Compare"),
    ("SE(1) // 2", "BinOp"),
    ("SE(1) @ SE(2)", "BinOp"),
    ("SE(1 << 99999999)", "BinOp"),
    ("f'{{1}}'", "JoinedStr"),
    ("SE('1')", "'1'"),
    ("SE(b'1')", "b'1'"),
    ("SE(True)", "True"),
    ("True * SE(1)", "True"),
    ("SE(None)", "None"),
    ("SE(...)", "Ellipsis"),
    ("SE(1j)", "1j"),
    ("await SE(1)", "Await"),
]


@pytest.mark.parametrize(("text", "what"), NOT_CODE)
def test_everything_else_is_refused_by_its_name(text, what, tmp_path):
    proof = tmp_path / "proof"
    text = text.format(proof=proof)
    with pytest.raises(kx.InputError, match=f"^{what} is not allowed in a kernel expression. Fix"):
        parse_kernel(text)
    with pytest.raises(kx.InputError, match=f"^{what.replace('SE', 'Normal')} is not allowed in a"):
        parse_prior("a=" + text.replace("SE(1)", "Normal()").replace("SE", "Normal"))
    assert not proof.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("SE(1) SE(2)", "cannot be read: invalid syntax at character"),
        ("SE(1", r"cannot be read: '\(' was never closed at character 3"),
        ("import os", "cannot be read"),
        ("SE(1); SE(2)", "cannot be read"),
        ("SE(1)\n+ SE(2)", "cannot be read"),
        ("k = SE(1)", "cannot be read"),
        ("SE(1)\0", "null bytes"),
        ("(" * 3000 + "1" + ")" * 3000, "cannot be read: too many nested|is nested too deeply"),
        ("-" * 9000 + "SE(1)", "is nested too deeply. Fix: use fewer terms"),
        ("SE(1)+" * 1600 + "SE(1)", "is nested too deeply. Fix: use fewer terms"),
        (" " * LONGEST + "SE(1)", f"has {LONGEST + 5} characters, at most {LONGEST} are allowed"),
        ("1.5", "'1.5' is 1.5, expected a kernel. Fix: write for instance"),
        ("[SE(1)]", "expected a kernel"),
        ("SE", r"'SE' stands alone .* Fix: write it with its hyperparameters, .* SE\(1.0\)"),
        ("SE(x)", "'x' stands alone"),
        ("Squared(1)", "unknown name 'Squared' in a kernel expression. Fix: use one of ARD, "),
        ("open('f')", "unknown name 'open'"),
        ("print()", "unknown name 'print'"),
        ("LogNormal(0, 1)", "unknown name 'LogNormal'"),
        ("Sum(SE(1), SE(2))", "unknown name 'Sum'"),
        ("9**9**9**9 * SE(1)", "has a number that is too large. Fix: use smaller numbers"),
        ("SE(9**9**9**9)", "has a number that is too large"),
        ("1e400 * SE(1)", "has a number that is too large"),
        ("1e300 * 1e300 * SE(1)", "has a number that is too large"),
        ("SE(" + "9" * 400 + ")", "has a number that is too large"),
        ("exp(1000) * SE(1)", "has a number that is too large"),
        ("1 / 0 * SE(1)", "division by zero. Fix: see `kernax kernels`"),
        ("0**-1 * SE(1)", "0.0 cannot be raised to a negative power"),
        ("(-8)**(1/3) * SE(1)", "-8 .* is not a real number"),
        ("sqrt(-1) * SE(1)", "math domain error"),
        ("exp(SE(1))", "must be real number, not SEKernel"),
        ("SE(1, 2)", "positional arguments"),
        ("SE(foo=1)", "unexpected keyword argument 'foo'"),
        ("SE(length_scale=1, length_scale=2)", r"SE\(...\) is given one keyword twice"),
        ("SE(1, length_scale=2)", "multiple values for argument 'length_scale'"),
        ("SE(1) / 2", "unsupported operand type"),
        ("2**SE(1)", "unsupported operand type"),
        ("SE(1) + [1]", "a list in brackets cannot be added or multiplied"),
        ("ARD(SE(1), [1] * 3)", "a list in brackets cannot be added or multiplied"),
        ("ARD(SE(1), [1] * 99999999999)", "a list in brackets cannot be added or multiplied"),
        ("ARD(SE(1), [1] + [2])", "a list in brackets cannot be added or multiplied"),
    ],
)
def test_what_is_no_kernel_is_refused_in_words(text, message):
    with pytest.raises(kx.InputError, match=message) as caught:
        parse_kernel(text)
    assert "Fix: " in str(caught.value)
    # A long expression is not repeated as a whole.
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("SE(-1)", kx.ParameterError, "`length_scale` is -1.0, expected a finite value > 0"),
        ("SE(0)", kx.ParameterError, "`length_scale` is 0.0"),
        ("0 * SE(1)", kx.ParameterError, "`value` is 0.0"),
        ("SE(1)**0", kx.ParameterError, "got 0 where an int >= 1 is expected"),
        ("SE(1)**-1", kx.ParameterError, "got -1 where an int >= 1 is expected"),
        # Their type is checked first where annotations are, as in this suite.
        ("SE(1)**2.5", (kx.ParameterError, kx.InputError), "2.5(.|\n)* int"),
        ("SE(1)**SE(1)", (kx.ParameterError, kx.InputError), "SE(.|\n)* int"),
        ("ARD(SE(1), 2)", kx.ShapeError, r"`length_scales` has shape \(\), expected \(d,\)"),
        ("SE([1, [2, 3]])", kx.ShapeError, "`length_scale` got a ragged list"),
        ("ActiveDims(SE(1), [])", kx.ParameterError, "`active_dims` is empty"),
        ("ActiveDims(SE(1), [0.5])", kx.ParameterError, "`active_dims` got"),
    ],
)
def test_errors_of_the_kernel_itself_are_kept(text, error, message):
    with pytest.raises(error, match=message):
        parse_kernel(text)


# --- priors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "prior"),
    [
        ("noise_variance=LogNormal(-2, 0.5)", "noise_variance", dist.LogNormal(-2.0, 0.5)),
        (" kernel.length_scale = Gamma(2, rate=3) ", "kernel.length_scale", dist.Gamma(2.0, 3.0)),
        ("a=LogNormal(log(66**2), 0.5)", "a", dist.LogNormal(math.log(66**2), 0.5)),
        ("a=LogNormal(loc=-2, scale=1/4)", "a", dist.LogNormal(-2.0, 0.25)),
        ("a=HalfNormal(2)", "a", dist.HalfNormal(2.0)),
        ("a=Uniform(0.1, 3)", "a", dist.Uniform(0.1, 3.0)),
        ("a=InverseGamma(2, 3)", "a", dist.InverseGamma(2.0, 3.0)),
    ],
)
def test_the_same_prior_as_in_python(text, path, prior):
    found_path, found = parse_prior(text)
    assert found_path == path
    assert type(found) is type(prior)
    for value in (0.2, 1.0, 2.5):
        assert float(found.log_prob(value)) == pytest.approx(float(prior.log_prob(value)), rel=1e-6)


@pytest.mark.parametrize("name", PRIORS)
def test_every_prior_that_is_offered(name):
    arguments = {"Beta": "2, 3", "Gamma": "2", "InverseGamma": "2"}.get(name, "")
    prior = parse_prior(f"a={name}({arguments})")[1]
    assert type(prior).__name__ == name
    assert np.isfinite(float(prior.log_prob(0.5)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("LogNormal(0, 1)", r"prior 'LogNormal\(0, 1\)' is not of the form path=Distribution"),
        ("=LogNormal(0, 1)", "is not of the form path=Distribution"),
        ("noise_variance=", "is not of the form path=Distribution"),
        ("", "is not of the form path=Distribution"),
        ("a=2", "prior 'a=2' is 2, expected a distribution. Fix: use one of Beta, Exponential"),
        ("a=[1, 2]", r"is \[1, 2\], expected a distribution"),
        ("a=exp(1)", "expected a distribution"),
        ("a=LogNormal", "'LogNormal' stands alone"),
        ("a=SE(1)", "unknown name 'SE' in a prior expression. Fix: use one of Beta"),
        ("a=Delta(1)", "unknown name 'Delta'"),
        ("a=2 * LogNormal(0, 1)", "unsupported operand"),
        ("a=-LogNormal(0, 1)", "bad operand type"),
        ("a=LogNormal(0, 1", "cannot be read"),
        ("a=LogNormal(0, -1)", "invalid scale parameter. Fix: write for instance LogNormal"),
        ("a=LogNormal(0, 0)", "invalid scale parameter"),
        ("a=Normal(0, 0)", "invalid scale parameter"),
        ("a=HalfNormal(-1)", "invalid scale parameter"),
        ("a=HalfCauchy(0)", "invalid scale parameter"),
        ("a=Gamma(-1, 1)", "invalid concentration parameter"),
        ("a=InverseGamma(1, -1)", "invalid rate parameter"),
        ("a=Exponential(0)", "invalid rate parameter"),
        ("a=Beta(0, 1)", "invalid concentration1 parameter"),
        ("a=Uniform(1, 0)", r"Uniform\(low, high\) needs low < high"),
        ("a=Uniform(1, 1)", r"Uniform\(low, high\) needs low < high"),
        ("a=LogNormal(0, 1e400)", "has a number that is too large"),
        ("a=LogNormal([0, 1], 1)", r"LogNormal\(...\) takes numbers, not lists"),
        ("a=LogNormal(LogNormal(0, 1), 1)", "prior expression"),
        ("a=LogNormal(0, 1, 2, 3)", "positional argument"),
        ("a=LogNormal(0, scal=1)", "unexpected keyword argument 'scal'"),
        ("a=LogNormal(0, scale=1, scale=2)", "is given one keyword twice"),
        ("a=LogNormal(0, 1, validate_args=0)", "multiple values for keyword argument"),
    ],
)
def test_what_is_no_prior_is_refused_in_words(text, message):
    with pytest.raises(kx.InputError, match=message) as caught:
        parse_prior(text)
    assert "Fix: " in str(caught.value)


@pytest.mark.parametrize("text", ["SE(SE(1))", "Constant(SE(1))"])
def test_a_kernel_is_no_number(text):
    with pytest.raises(kx.DTypeError, match=r"is SE\(length_scale=1\), expected a number"):
        parse_kernel(text)

"""The examples, each run as a user would run it; and the table that the benchmarks fill."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
EXAMPLES = sorted((PROJECT / "examples").glob("*.py"))
BENCHMARKS = PROJECT / "benchmarks"


def printed(script, *arguments):
    run = subprocess.run(
        [sys.executable, "-W", "error", str(PROJECT / script), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def losses(output):
    return [float(loss) for loss in re.findall(r"step +\d+: loss (\S+)", output)]


def test_every_example_is_tested():
    tested = {"kernels_notebook", "equinox_model", "flax_model"}
    tested |= {"likelihood_gradients", "prior_to_posterior"}
    tested |= {"kernel_derivatives", "slopes_only", "values_and_gradients"}
    tested |= {"heat_equation", "binned_counts", "weather"}
    assert {path.stem for path in EXAMPLES} == tested
    for path in EXAMPLES:
        assert re.match(rf'""".*python examples/{path.name}.*?"""', path.read_text(), re.DOTALL)


def test_the_notebook_of_kernels():
    head, names, *rows = printed("examples/kernels_notebook.py", "--small").splitlines()
    assert "every case agrees with NumPy" in head
    assert re.split(r"  +", names.strip()) == ["case", "ours, us", "exp, us", "ratio"]
    table = {row[:58].strip(): [float(cell) for cell in row[58:].split()] for row in rows}
    assert len(table) == len(rows) >= 35
    assert all(len(times) == 3 and min(times) > 0 for times in table.values())
    for case in (
        "a pair, 4-D, ARD",
        "Gram, padded 1-D grid",
        "Gram, 4-D, ARD",
        "Gram, 4-D, active dims 0 and 3",
        "batch, shared hyperparameters, padded 4-D grids",
        "batch, distinct hyperparameters, irregular 4-D grids",
        "batch, distinct hyperparameters, one regular 1-D grid",
    ):
        assert case in table


def test_gradients_of_the_likelihood(tmp_path):
    picture = tmp_path / "times.png"
    output = printed("examples/likelihood_gradients.py", "--small", f"--out={picture}")
    rows = [line.split() for line in output.splitlines()[1:3]]
    assert [row[0] for row in rows] == ["3", "40"]
    # That the three ways agree the script checks itself.
    assert "log(det K) = -inf, Kernax: 836" in output
    assert "2.38e-05 was added to its diagonal" in output
    assert picture.stat().st_size > 10_000


def test_from_the_prior_to_the_posterior(tmp_path):
    picture = tmp_path / "functions.png"
    output = printed("examples/prior_to_posterior.py", f"--out={picture}")
    assert re.search(r"least eigenvalue \S+e-1[4-6], singular", output)
    assert float(re.search(r"covariance within (\S+) standard errors", output)[1]) < 5
    before, after, wrong = map(float, re.search(
        r"(\S+) before the data, (\S+) after, (\S+) with the wrong sign", output
    ).groups())  # fmt: skip
    assert after < before < wrong
    assert picture.stat().st_size > 50_000


def numbers(pattern, output):
    """What the groups of a pattern hold, as numbers."""
    return [float(number) for number in re.search(pattern, output).groups()]


def test_derivatives_of_a_kernel(tmp_path):
    picture = tmp_path / "covariances.png"
    output = printed("examples/kernel_derivatives.py", f"--out={picture}")
    shapes = {}
    for name, shape, worst in re.findall(r"^  (.+?)  +(\(.+\)) +(\S+e[+-]\d+)$", output, re.M):
        shapes[name.strip()] = shape
        assert float(worst) < (1e-6 if "differences" in name else 1e-12), name
    assert len(shapes) == 21
    assert shapes["Gram matrix, scikit-learn"] == "(10, 10)"
    assert shapes["K_fg, apply(k, right=Gradient()), all pairs, 2-D"] == "(10, 20)"
    assert shapes["K_gg, (2 g delta - 4 g^2 d_j d_l) k"] == "(10, 10, 2, 2)"
    assert "K_gf.all() == K_fg.all(): True; np.allclose(K_gf, K_fg): False" in output
    # Without the delta wrong where j = l, with the wrong sign where j != l, too.
    wrong = re.findall(
        r"(-?)4 g\^2 d_j d_l k for the (\S+): .*, (\d+) where .* (\d+) where", output
    )
    assert wrong == [
        ("", "hessian", "56", "0"), ("", "K_gg", "56", "36"), ("-", "K_gg", "56", "0")
    ]  # fmt: skip
    pairs = re.findall(r"g = \S+: (\S+); with .* for K_gg: (\S+)", output)
    assert len(pairs) == 2
    assert all(float(least) > 0.05 and float(negative) < -0.1 for least, negative in pairs)
    assert picture.stat().st_size > 50_000


def test_a_function_from_slopes_only(tmp_path):
    picture = tmp_path / "slopes.png"
    output = printed("examples/slopes_only.py", f"--out={picture}")
    assert "d log likelihood / d constant: 0.0, so it was not fitted" in output
    assert "variance of the constant: 25.0 before the slopes, 25 after" in output
    mean, deviation, true = numbers(r"rise .*: (\S+) \+- (\S+) m, in truth (\S+)", output)
    assert abs(mean - true) < 3 * deviation < 1
    rows = {
        name: [float(number) for number in row]
        for name, *row in re.findall(r"^(.+?)  +(\S+) +(\S+) +(\d+)%$", output, re.M)
    }
    assert rows["height, m"][0] > 1
    assert rows["height, m"][1] > 5
    for name in ("slope, m/km", "height above the mean, m", "height, one known, m"):
        error, deviation, inside = rows[name]
        assert error < 0.2
        assert abs(error / deviation - 1) < 0.2
        assert inside > 85
    assert picture.stat().st_size > 50_000


def test_values_and_gradients(tmp_path):
    picture = tmp_path / "surfaces.png"
    output = printed("examples/values_and_gradients.py", f"--out={picture}")
    shares = [int(share) for share in re.findall(r"\( *(\d+)%\)", output)]
    assert len(shares) == 36
    assert all(abs(share - 95) <= 7 for share in shares)
    assert abs(sum(shares) / 36 - 95) < 2
    ratios = {
        name: [[float(ratio) for ratio in row.split(", ")] for row in rows]
        for name, *rows in re.findall(r"^  (.+?)  +n values (.*); 3n values (.*)$", output, re.M)
    }
    assert all(min(runs) > 1 for runs, _ in ratios.values())
    assert max(ratios["smooth, all precise"][0]) > 4
    won = {name: [ratio > 1 for ratio in cost] for name, (_, cost) in ratios.items()}
    assert won["smooth, all precise"] == [False, False, True]
    assert won["smooth, all noisy"][::2] == [False, True]
    assert won["smooth, noisy slopes"] == won["rough, all precise"] == [False] * 3
    assert picture.stat().st_size > 100_000


def test_the_heat_equation(tmp_path):
    picture = tmp_path / "heat.png"
    output = printed("examples/heat_equation.py", f"--out={picture}")
    rows = re.findall(r"^ *(\d+) x \1 +(\d+) +(\S+) +(\S+) +(\S+)$", output, re.M)
    assert [row[:2] for row in rows] == [("8", "90"), ("12", "182"), ("16", "306")]
    errors, deviations, differences = zip(*[map(float, row[2:]) for row in rows], strict=True)
    assert errors[0] < 0.05
    assert errors[1] < 1e-3
    assert errors[2] < 1e-5 < differences[2]
    assert all(e < 3 * deviation for e, deviation in zip(errors, deviations, strict=True))
    half, own, more = numbers(r"times 0.5: (\S+); 1.0: (\S+); 1.5: (\S+)", output)
    assert own > max(half, more)
    poisson = [float(error) for error in re.findall(r"u = .* relative error (\S+)", output)]
    assert len(poisson) == 2
    assert max(poisson) < 1e-7
    assert picture.stat().st_size > 100_000


def test_counts_in_bins(tmp_path):
    picture = tmp_path / "rate.png"
    output = printed("examples/binned_counts.py", f"--out={picture}")
    ours, short_cut = (
        numbers(rf"(?m)^{name} +(\S+) +(\S+)% +(\S+) +(\S+)$", output)
        for name in ("integrals", "values")
    )
    assert ours[0] < 0.75 * short_cut[0]
    assert abs(ours[1] - 95) < 4
    assert ours[2] < 0.5 * short_cut[2]
    assert ours[3] < 2 < short_cut[3]
    total, deviation, true = numbers(r"integrals (\S+) \+- (\S+);.* in truth (\S+)", output)
    assert abs(total - true) < 3 * deviation
    assert picture.stat().st_size > 50_000


def test_a_year_of_weather(tmp_path):
    picture = tmp_path / "week.png"
    output = printed("examples/weather.py", "--small", "--processes=2", f"--out={picture}")
    rows = [line.split() for line in output.splitlines()[1:4]]
    assert [row[:3] for row in rows] == [
        ["dense", "1", "150"], ["iterative", "1", "400"], ["iterative", "2", "400"]
    ]  # fmt: skip
    errors, densities, _, residuals, _, gigabytes = zip(
        *([float(cell.rstrip("%")) for cell in row[3:]] for row in rows), strict=True
    )
    assert errors[1] < 0.9 * errors[0] < 5
    assert 2 < min(densities) <= max(densities) < 5
    assert max(residuals) < 1.1e-3
    assert max(gigabytes) < 4
    assert numbers(r"and of one differ by (\S+) ", output)[0] < 1e-6
    assert picture.stat().st_size > 50_000


def test_the_equinox_model():
    output = printed("examples/equinox_model.py")
    found = losses(output)
    assert len(found) == 6
    assert found[-1] < 0.5 * found[0]
    rows = dict(re.findall(r"^(\S+) +(\d\.\d+ +\d\.\d+)$", output, re.MULTILINE))
    assert set(rows) == {
        "left_kernel.value", "right_kernel.length_scale", "noise", "slope"
    }  # fmt: skip
    for name, row in rows.items():
        true, fitted = map(float, row.split())
        assert abs(fitted / true - 1) < 0.2, name
    error, noise = re.search(r"half of the points: (\S+), noise (\S+)", output).groups()
    assert float(error) < 1.5 * float(noise)


def test_the_flax_model():
    output = printed("examples/flax_model.py")
    gaussian, wendland = output.split("Wendland:")
    for text in (gaussian, wendland):
        found = losses(text)
        assert len(found) == 5
        assert found[-1] < 0.5 * found[0]
        (true, true_scale), (fitted, scale) = (
            [float(number) for number in pair]
            for pair in re.findall(r"([\d.]+) \* \w+\(.*?length_scale=([\d.]+)\)", "true" + text)
        )
        assert abs(fitted / true - 1) < 0.3
        assert abs(scale / true_scale - 1) < 0.15
        assert float(re.search(r"within (\S+) of JAX's", text)[1]) < 1e-10


@pytest.fixture
def benchmarks(monkeypatch):
    """The modules of the benchmarks, which import each other as scripts do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield lambda name: runpy.run_path(str(BENCHMARKS / f"{name}.py"))
    sys.modules.pop("protocol", None)


def test_a_benchmark_runs_and_fills_the_table(benchmarks, tmp_path):
    printed("benchmarks/batch.py", "--small", f"--results={tmp_path}")
    document = json.loads((tmp_path / "small" / "batch.json").read_text())
    assert {"what", "value", "goal", "stretch", "met", "size", "dtype"} <= set(document["rows"][0])
    assert {row["dtype"] for row in document["rows"]} == {"float64"}
    assert document["machine"]["versions"]["jax"]
    entry = document["rows"][0] | {"what": "one", "value": 1.2, "goal": 1.25, "stretch": 1.1}
    rows = [
        entry | {"met": True},
        entry | {"met": True, "value": 1.05},
        entry | {"met": False, "value": 1.3},
        entry | {"met": None, "goal": None, "stretch": None},
    ]
    text = benchmarks("run")["table"]({"batch": document | {"rows": rows}})
    found = re.findall(r"^\| batch \| one \|.*\| float64 \| (.*) \|$", text, re.MULTILINE)
    assert found == [
        "1.2 | 1.25 | 1.1 | met",
        "1.05 | 1.25 | 1.1 | met, and the stretch",
        "1.3 | 1.25 | 1.1 | not met",
        "1.2 |  |  | ",
    ]
    assert f"jax {document['machine']['versions']['jax']}" in text


def test_every_benchmark_asks_one_question(benchmarks):
    scripts = benchmarks("run")["SCRIPTS"]
    assert {"batch", "gram", "likelihood", "many", "rivals"} < {*scripts}
    for name in scripts:
        question = (BENCHMARKS / f"{name}.py").read_text().splitlines()[0]
        assert re.fullmatch(r'"""What do(es)? .* cost.*[?,]', question)

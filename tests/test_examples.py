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

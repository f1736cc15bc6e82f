"""``kernax fit``, ``predict`` and ``kernels``: from arguments to the right numbers in files."""

import contextlib
import csv
import io
import re

import numpy as np
import pytest

import kernax as kx
from kernax.cli import main
from kernax.cli._expression import parse_kernel
from kernax.cli._table import CALENDAR, read_numbers, read_table
from kernax.io import load_with_extra
from kernax.kernels._catalogue import CATALOGUE, formula, parameters

T = 0.5 * np.arange(12)
U = np.arange(12.0) % 3
Y = np.round(np.sin(T) + 0.1 * np.cos(7 * T), 4)
DAYS = [f"200{i % 10}-0{1 + i // 10}-01" for i in range(12)]
PNG = b"\x89PNG\r\n\x1a\n"
FIT = ["fit", "data.csv", "--input", "t", "--output", "y", "--max-steps", "3", "--kernel"]
SHORT = [*FIT[:-2], "0", "--kernel"]


def write_data(path):
    rows = [f"{t},{u:.0f},{y},{d}\n" for t, u, y, d in zip(T, U, Y, DAYS, strict=True)]
    path.write_text("t,u,y,day\n" + "".join(rows))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A fitted model, and what was said while it was fitted."""
    folder = tmp_path_factory.mktemp("model")
    write_data(folder / "data.csv")
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        assert main([*FIT, "SE(1)", "--save", "model.json"]) == 0
    return folder / "model.json", out.getvalue(), err.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data.csv")
    (tmp_path / "model.json").write_bytes(model[0].read_bytes())
    (tmp_path / "new.csv").write_text("t\n0.25\n4\n-7\n")
    return tmp_path


def columns(text):
    header, *rows = csv.reader(io.StringIO(text))
    return header, np.array([[float(c) if c else np.nan for c in row] for row in rows])


# --- fit ----------------------------------------------------------------------------------------


def test_fit_finds_what_python_finds(model):
    path, out, err = model
    posterior, extra = load_with_extra(path)
    gp = kx.GaussianProcess(kx.SEKernel(1.0), 0.1 * np.var(Y), kx.ConstantMean(np.mean(Y)))
    with pytest.warns(kx.ConvergenceWarning, match="stopped after 3 steps"):
        result = kx.fit(gp, T[:, None], Y, max_steps=3, progress=False)
    assert posterior.gp.equals(result.gp)
    np.testing.assert_array_equal(posterior.data.X, T[:, None])
    np.testing.assert_array_equal(posterior.data.y, Y)
    assert extra == {"input": ["t"], "output": "y", "dates": [False]}
    lines = out.splitlines()
    assert lines[0] == f"12 points; kernel {result.gp.kernel!r}"
    assert lines[1] == f"log marginal likelihood {-result.loss:.6f}"
    assert lines[2] == f"loss {result.loss:.6f} after 3 steps, not converged: stopped after 3 steps"
    assert lines[3:-1] == result.gp.summary().splitlines()
    assert lines[-1] == "model written to model.json"
    assert err == "kernax: warning: fit: stopped after 3 steps.\n"


def test_fit_of_two_inputs_with_a_linear_mean(folder, run):
    held = ["--fix", "kernel", "--fix", "mean", "--fix", "noise_variance", "--noise", "0.25"]
    code, out, err = run(
        *SHORT, "ARD(SE(1), [1, 2])", "--input", "u", "--mean", "linear", *held, "--save", "m.json"
    )
    assert (code, err) == (0, "")
    assert "nothing was free to fit" in out
    posterior, extra = load_with_extra("m.json")
    assert extra == {"input": ["t", "u"], "output": "y", "dates": [False, False]}
    np.testing.assert_array_equal(posterior.data.X, np.stack([T, U], axis=1))
    assert posterior.gp.kernel.equals(kx.ARDKernel(kx.SEKernel(1.0), [1.0, 2.0]))
    assert float(posterior.gp.noise_variance) == 0.25
    weights = np.linalg.lstsq(np.stack([T, U, np.ones(12)], axis=1), Y, rcond=None)[0]
    np.testing.assert_allclose([*posterior.gp.mean.weights, posterior.gp.mean.bias], weights)
    # In the order of the model, whatever that of the table.
    (folder / "new.csv").write_text("u,t\n1,0.25\n")
    code, out, err = run("predict", "model.json", "new.csv")
    assert out.startswith("t,mean,std,lower,upper\n0.25,")
    code, out, err = run("predict", "m.json", "new.csv")
    header, values = columns(out)
    assert header == ["t", "u", "mean", "std", "lower", "upper"]
    np.testing.assert_allclose(values[0, :2], [0.25, 1.0])
    np.testing.assert_allclose(values[0, 2], posterior.mean([[0.25, 1.0]])[0], rtol=1e-9)
    assert run("predict", "m.json", "new.csv", "--plot", "p.png")[2] == (
        "kernax: error: --plot needs one input column, the model has 2. Fix: leave out --plot.\n"
    )


def test_fit_says_what_it_makes_of_dates(folder, run):
    code, out, _ = run(*SHORT, "SE(1)", "--input", "day", "--save", "m.json")
    assert code == 0
    assert out.splitlines()[0] == f"column 'day' holds dates, read as {CALENDAR}"
    posterior, extra = load_with_extra("m.json")
    assert extra["dates"] == [False, True]
    years = read_numbers(read_table("data.csv"), "day", dates=True, drop_bad=False).values
    np.testing.assert_array_equal(posterior.data.X[:, 1], years)
    code, out, _ = run("predict", "m.json", "data.csv")
    assert [line.split(",")[1] for line in out.splitlines()[1:]] == DAYS
    (folder / "new.csv").write_text("t,day\n1,2001.5\n")
    code, out, err = run("predict", "m.json", "new.csv")
    assert (code, out) == (2, "")
    assert "row 2, column 'day': '2001.5' is not an ISO date (YYYY-MM-DD)" in err


def test_fit_with_a_prior_counts_it_in_free_space(folder, run):
    prior = "noise_variance=LogNormal(-2, 0.5)"
    code, out, _ = run(*SHORT, "SE(1)", "--noise", "0.2", "--prior", prior)
    assert code == 0
    likelihood = float(re.search(r"log marginal likelihood (\S+)", out)[1])
    gp = kx.GaussianProcess(kx.SEKernel(1.0), 0.2, kx.ConstantMean(np.mean(Y)))
    assert likelihood == pytest.approx(float(gp.log_marginal_likelihood(T, Y)), abs=1e-6)
    # On the logarithm of the noise, where the Jacobian makes a normal density of it.
    density = -0.5 * ((np.log(0.2) + 2) / 0.5) ** 2 - np.log(0.5 * np.sqrt(2 * np.pi))
    assert float(re.search(r"^loss (\S+)", out, re.M)[1]) == pytest.approx(
        -likelihood - density, abs=2e-6
    )


def test_fit_leaves_out_rows_and_counts_them(folder, run):
    with open("data.csv", "a") as file:
        file.write("6,0,,2010-01-01\n,0,1,2010-01-01\nabc,0,NA,2010-01-01\n7,0,x,2010-01-01\n")
    code, out, err = run(*FIT, "SE(1)", "--bad-rows=drop", "--save", "m.json")
    assert code == 0
    assert err.splitlines()[:2] == [
        "data.csv: dropped 2 rows with cells that are not numbers",
        "data.csv: dropped 2 rows with missing values",
    ]
    assert out.startswith("12 points; ")
    assert kx.load("m.json").gp.equals(kx.load("model.json").gp)


def test_restarts_are_repeatable(folder, run):
    first, second = (run(*FIT, "SE(1)", "--restarts", "2", "--seed", "5") for _ in range(2))
    assert first == second
    assert first[0] == 0


# --- predict ------------------------------------------------------------------------------------


def test_predict_writes_what_the_posterior_says(folder, run):
    code, out, err = run("predict", "model.json", "new.csv")
    assert (code, err) == (0, "")
    header, values = columns(out)
    assert header == ["t", "mean", "std", "lower", "upper"]
    Xs = [0.25, 4.0, -7.0]
    posterior = kx.load("model.json")
    mean, std = posterior.mean(Xs), np.sqrt(posterior.variance(Xs, observation=True))
    expected = [Xs, mean, std, mean - 1.959963985 * std, mean + 1.959963985 * std]
    np.testing.assert_allclose(values, np.stack(expected, axis=1), rtol=1e-6)
    # To a file: the same text.
    code, said, err = run("predict", "model.json", "new.csv", "--out", "forecast.csv")
    assert (code, said, err) == (0, "3 forecasts written to forecast.csv\n", "")
    assert (folder / "forecast.csv").read_text() == out


def test_predict_leaves_cells_empty_where_the_input_is_unknown(folder, run):
    (folder / "new.csv").write_text("t;note\n0,25;a\nNA;b\n\nx;c\n")
    code, out, err = run("predict", "model.json", "new.csv")
    assert (code, out) == (2, "")
    assert "new.csv: row 5, column 't': 'x' is not a number" in err
    code, out, err = run("predict", "model.json", "new.csv", "--bad-rows=drop")
    assert code == 0
    mean = float(kx.load("model.json").mean([0.25])[0])
    assert out.splitlines()[1].startswith(f"0.25,{mean:.6g}"[:10])
    assert out.splitlines()[2:] == ["NA,,,,", "x,,,,"]
    assert err.splitlines() == [
        "new.csv: no forecast for 1 row with cells that are not numbers",
        "new.csv: no forecast for 1 row with missing values",
    ]


def test_predict_draws_a_picture(folder, run, contents):
    code, out, err = run("predict", "model.json", "new.csv", "--plot", "p.png", "--out", "f.csv")
    assert (code, err) == (0, "picture written to p.png\n")
    picture = (folder / "p.png").read_bytes()
    assert picture.startswith(PNG)
    assert len(picture) > 5000
    # Not over files that are there, unless told to.
    (folder / "f.csv").write_text("mine")
    before = contents(folder)
    code, out, err = run("predict", "model.json", "new.csv", "--plot", "q.png", "--out", "f.csv")
    assert (code, out) == (2, "")
    assert contents(folder) == before
    code, out, err = run("predict", "model.json", "new.csv", "--out", "f.csv", "--force")
    assert (code, err) == (0, "")
    assert (folder / "f.csv").read_text().startswith("t,mean")


# --- kernels ------------------------------------------------------------------------------------


def test_the_catalogue_lists_every_kernel_as_it_is_written(run):
    code, out, err = run("kernels")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    for index, cls in enumerate(CATALOGUE):
        title, text, summary = lines[3 * index : 3 * index + 3]
        name = cls.__name__.removesuffix("Kernel")
        assert title == f"{name}({', '.join(parameters(cls))})"
        assert text == f"    {formula(cls)}"
        assert text.startswith("    k(x, y) = ")
        assert summary == "    " + cls.__doc__.splitlines()[0]
        if "_kernel" not in title:
            assert parse_kernel(title).equals(cls())
    assert lines[0] == "SE(length_scale=1.0)"
    assert lines[1] == "    k(x, y) = exp(-r^2 / 2)"
    assert "Periodic(length_scale=1.0, period=1.0)" in lines
    assert "    k(x, y) = exp(-2 sum_j sin^2(pi (x_j - y_j) / period) / length_scale^2)" in lines
    assert "ARD(inner_kernel, length_scales)" in lines
    assert "    k(x, y) = inner(x / length_scales, y / length_scales)" in lines
    example = lines[-1].rsplit(": ", 1)[1]
    assert parse_kernel(example).equals(2.0 * kx.SEKernel(1.5) + kx.WhiteNoiseKernel(0.1))

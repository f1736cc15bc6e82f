"""What goes wrong is said in one line on stderr, with exit code 2, and no file is touched."""

import errno
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

import kernax as kx
from kernax import io
from kernax.cli import _commands
from kernax.gp._problem import Problem

FIT = ["fit", "data.csv", "--input", "t", "--output", "y", "--max-steps", "3", "--kernel"]


@pytest.fixture(scope="module")
def posterior():
    return kx.GaussianProcess(kx.SEKernel(1.0), 0.1).condition(np.arange(4.0), np.ones(4))


@pytest.fixture
def folder(tmp_path, monkeypatch, posterior):
    monkeypatch.chdir(tmp_path)
    # As many rows as in the tests of the commands, so that nothing is compiled again.
    rows = [f"{t},{t % 3},{t % 5 - 2},20{t:02}-01-01\n" for t in range(12)]
    (tmp_path / "data.csv").write_text("t,u,y,day\n" + "".join(rows))
    (tmp_path / "new.csv").write_text("t\n0.25\n")
    io.save(tmp_path / "model.json", posterior, {"input": ["t"], "output": "y", "dates": [False]})
    return tmp_path


EVIL = {"type": "os.system", "fields": {"command": "touch proof"}}
HEAD = {"format": "kernax", "version": 1, "model": EVIL, "extra": {}}
PREDICT = ["predict", "model.json", "new.csv"]

REFUSED = [
    ([], "the following arguments are required: COMMAND. Fix: see `kernax --help`."),
    (["train"], "invalid choice: 'train'"),
    (["fit"], "the following arguments are required: data, --input, --output, --kernel"),
    (["kernels", "more"], "unrecognized arguments: more"),
    ([*FIT], "argument --kernel: expected one argument"),
    ([*FIT, "SE(1)", "--max-steps", "-1"], "'-1' is not a whole number from 0 to"),
    ([*FIT, "SE(1)", "--seed", "9999999999"], "'9999999999' is not a whole number from 0 to"),
    ([*FIT, "SE(1)", "--noise", "much"], "invalid float value: 'much'"),
    ([*FIT, "SE(1)", "--noise", "-1"], "`noise_variance` is -1.0, expected a finite value >= 0"),
    ([*FIT, "SE(1)", "--noise", "nan"], "`noise_variance` is nan, but must be finite"),
    ([*FIT, "SE(1)", "--noise", "0"], "'noise_variance' is 0 and would be fitted"),
    ([*FIT, "SE(1)", "--mean", "odd"], "invalid choice: 'odd'"),
    ([*FIT, "SE(1)", "--fix", "scale"], "no hyperparameter 'scale'"),
    ([*FIT, "SE(1)", "--prior", "scale=LogNormal(0, 1)"], "no hyperparameter 'scale'"),
    ([*FIT, "SE(1)", "--prior", "LogNormal(0, 1)"], "is not of the form path=Distribution"),
    ([*FIT, "SE(1)", "--prior", "length_scale=Normal(0, 1)"], "Normal, allows -1, but"),
    ([*FIT, "SE(1)", *["--prior", "mean.value=Normal(0, 1)"] * 2], "two priors for 'mean.value'"),
    ([*FIT, "SE(1)", "--input", "t"], "--input names a column twice: t, t. Fix"),
    ([*FIT, "SE(1)", "--input", "std"], "the input column 'std' has the name of a forecast"),
    ([*FIT, "SE(1)", "--input", "y"], "column 'y' is both --input and --output. Fix"),
    ([*FIT, "SE(1)", "--input", "x"], "data.csv has no column 'x'. Fix: choose from t, u, y, day"),
    ([*FIT, "SE(1)", "--output", "day"], "row 2, column 'day': '2000-01-01' is not a number"),
    ([*FIT, "SE(1)", "--save", "model.json"], "exists. Fix: choose another name, or pass --force"),
    ([*FIT, "SE(1)", "--save", "none/m.json"], "the folder of none/m.json does not exist. Fix"),
    ([*FIT, "SE(1)", "--save", "."], "is not a file. Fix: choose another name"),
    ([*FIT, "-1 * SE(1)", "--save", "m.json"], "is not a covariance: NegKernel in"),
    ([*FIT, "-SE(1)"], "argument --kernel: expected one argument"),
    ([*FIT, "SE(1) - SE(2)", "--save", "m.json"], "is not a covariance: NegKernel in"),
    ([*FIT, "ActiveDims(SE(1), [3])"], "`active_dims` names dimension 3"),
    ([*FIT, "SE([1, 2])"], "`length_scale` has shape (2,), but"),
    ([*FIT, "__import__('os').system('touch proof')"], "Call is not allowed in a kernel"),
    ([*FIT, "\x1b[2J"], "kernel expression '\\x1b[2J' cannot be read"),
    (["fit", "none.csv", *FIT[2:], "SE(1)"], "none.csv: No such file or directory"),
    (["fit", ".", *FIT[2:], "SE(1)"], ".: Is a directory"),
    (["fit", "empty.csv", *FIT[2:], "SE(1)"], "empty.csv has no row with all of its values. Fix"),
    (["fit", "bad.csv", *FIT[2:], "SE(1)"], "bad.csv: row 3, column 'y': '\\x1b[31m' is not a"),
    (["predict", "none.json", "new.csv"], "none.json: No such file or directory"),
    (["predict", "data.csv", "new.csv"], "data.csv is not a whole JSON file"),
    (["predict", "kernel.json", "new.csv"], "does not hold a model written by `kernax fit --save`"),
    (["predict", "evil.json", "new.csv"], "model has the unknown type 'os.system'"),
    (["predict", "model.json", "bad.csv", "--out", "f.csv"], "has no column 't'"),
    ([*PREDICT, "--out", "data.csv"], "data.csv exists. Fix: choose another name, or pass --force"),
    ([*PREDICT, "--out", "f", "--plot", "./f"], "two outputs go to"),
    ([*PREDICT, "--plot", "none/p.png"], "the folder of none/p.png does not exist"),
    (["demo", "--out", "data.csv"], "data.csv is not a folder. Fix: choose another name"),
    (["demo", "--out", "data.csv/deep/er"], "data.csv is not a folder"),
    (["demo", "--out", "old"], "forecast.png exists. Fix: choose another name, or pass --force"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_is_wrong_is_said_in_one_line(arguments, message, folder, run, contents):
    (folder / "empty.csv").write_text("t,y\n1,\n,2\n")
    (folder / "bad.csv").write_text("t,y\n1,2\n2,\x1b[31m\n" if "fit" in arguments else "x\n1\n")
    (folder / "evil.json").write_text(json.dumps(HEAD))
    (folder / "old").mkdir()
    (folder / "old" / "forecast.png").write_text("mine")
    kx.save(folder / "kernel.json", kx.SEKernel(1.0))
    before = contents(folder)
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert re.fullmatch(r"kernax( fit)?: error: [^\n]+\n", err)
    assert contents(folder) == before
    assert os.listdir("old") == ["forecast.png"]


def test_a_folder_that_cannot_be_written_to(folder, run, monkeypatch):
    monkeypatch.setattr(_commands.os, "access", lambda path, mode: False)
    for arguments in (
        [*FIT, "SE(1)", "--save", "m.json"],
        [*PREDICT, "--out", "f.csv"],
        ["demo", "--out", "new/demo"],
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert "cannot be written to. Fix: choose another.\n" in err
    assert not (folder / "new").exists()


@pytest.mark.parametrize(
    ("package", "arguments", "message"),
    [
        ("matplotlib", [*PREDICT, "--plot", "p.png"], "--plot needs the package `matplotlib`"),
        ("matplotlib", ["demo", "--out", "demo"], "--plot needs the package `matplotlib`"),
        (
            "numpyro",
            [*FIT, "SE(1)", "--prior", "length_scale=LogNormal(0, 1)"],
            "priors needs the package `numpyro`, which is not installed. "
            "Fix: pip install 'kernax-gp[mcmc]'.",
        ),
    ],
)
def test_a_package_that_is_not_installed(
    package, arguments, message, folder, run, monkeypatch, contents
):
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    before = contents(folder)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"kernax: error: {message}")
    assert err.count("\n") == 1
    assert contents(folder) == before


# --- faults -------------------------------------------------------------------------------------


def fails(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_full_disk_leaves_the_old_file(folder, run, monkeypatch, contents):
    before = contents(folder)
    monkeypatch.setattr(io.os, "fsync", fails(OSError(errno.ENOSPC, "No space left on device")))
    code, _, err = run(*PREDICT, "--out", "data.csv", "--force")
    assert (code, err) == (2, "kernax: error: No space left on device\n")
    assert contents(folder) == before


def test_an_unexpected_error_in_one_line_and_with_debug_whole(folder, run, monkeypatch):
    monkeypatch.setattr(_commands, "read_table", fails(RuntimeError("boom\nand more")))
    code, out, err = run(*PREDICT)
    assert (code, out) == (2, "")
    assert err == "kernax: error: unexpected RuntimeError: boom and more (--debug shows where)\n"
    code, out, err = run(*PREDICT, "--debug")
    assert (code, out) == (2, "")
    assert err.startswith("Traceback (most recent call last):\n")
    assert "in run_predict" in err
    assert err.endswith("boom and more (--debug shows where)\n")


def test_ctrl_c_while_fitting_keeps_the_best_so_far(folder, run, monkeypatch):
    evaluate, count = Problem.evaluate, iter(range(20))

    def interrupted(*arguments):
        if next(count) == 4:
            signal.raise_signal(signal.SIGINT)
        return evaluate(*arguments)

    monkeypatch.setattr(Problem, "evaluate", interrupted)
    code, out, err = run(*FIT, "SE(1)", "--save", "m.json")
    assert code == 130
    assert re.search("after [1-3] steps, not converged: interrupted: this is the best so far", out)
    assert "model written to m.json" in out
    assert err == "kernax: warning: fit: interrupted: this is the best so far.\n"
    saved = kx.load("m.json")
    likelihood = float(saved.log_marginal_likelihood)
    assert f"log marginal likelihood {likelihood:.6f}" in out
    start = kx.GaussianProcess(
        kx.SEKernel(1.0), 0.1 * np.var(saved.data.y), kx.ConstantMean(np.mean(saved.data.y))
    )
    assert likelihood > start.log_marginal_likelihood(saved.data.X, saved.data.y)


@pytest.mark.parametrize("where", ["read_table", "fit"])
def test_ctrl_c_elsewhere_writes_nothing(where, folder, run, monkeypatch, contents):
    before = contents(folder)
    monkeypatch.setattr(_commands, where, fails(KeyboardInterrupt()))
    code, out, err = run(*FIT, "SE(1)", "--save", "m.json")
    assert (code, out, err) == (130, "", "kernax: interrupted\n")
    assert contents(folder) == before


# --- as a process of its own --------------------------------------------------------------------


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "kernax", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_process(folder, run):
    wrong = ["fit", "none.csv", *FIT[2:], "SE(1)"]
    with start("kernels") as listing, start("kernels") as closed:
        # As in `kernax kernels | head`: nobody reads any more.
        closed.stdout.close()
        out, err = listing.communicate(timeout=60)
        assert closed.wait(timeout=60) == 1
        assert closed.stderr.read() == ""
    assert (listing.returncode, err) == (0, "")
    assert out.startswith("SE(length_scale=1.0)\n")
    with start(*wrong) as error:
        out, err = error.communicate(timeout=60)
    assert (error.returncode, out) == (2, "")
    assert err == "kernax: error: none.csv: No such file or directory\n"
    code, out, traced = run(*wrong, "--debug")
    assert (code, out) == (2, "")
    assert traced.startswith("Traceback (most recent call last):\n")
    assert traced.endswith(err)

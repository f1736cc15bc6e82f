"""The documents: every example runs as written, and every stated formula is the kernel's."""

import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernax as kx
from kernax.cli import main
from kernax.kernels._catalogue import CATALOGUE, formula, parameters

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text()
PAGES = sorted((PROJECT / "docs").glob("*.md"))


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_readme_example_runs(capsys):
    example, more, own, calculus = blocks(README, "python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    names = {}
    exec(example, names)
    printed = capsys.readouterr().out
    assert "converged" in printed
    assert "period" in printed
    # It learns the period, pi, and forecasts the curve it was made from.
    assert abs(float(names["result"].gp.kernel.right_kernel.period) - np.pi) < 0.05
    truth = np.sin(2 * names["ahead"]) + 0.3 * names["ahead"]
    mean = np.asarray(names["posterior"].mean(names["ahead"]))
    std = np.sqrt(np.asarray(names["posterior"].variance(names["ahead"], observation=True)))
    assert np.all(np.abs(mean - truth) < 3 * std)
    exec(more, names)
    assert capsys.readouterr().out.startswith("4 * SE(length_scale=5) + Periodic(")
    exec(own, names)
    assert names["batch"].gram(np.zeros((3, 60, 2))).shape == (3, 60, 60)
    np.testing.assert_allclose(names["laplace"](rate=2.0)(0.0, 1.0), np.exp(-2.0), rtol=1e-15)
    exec(calculus, names)
    x, wave = names["x"], names["wave"]
    np.testing.assert_allclose(wave.mean(x), np.sin(x), atol=1e-3)
    area = wave.mean(x[:1], operator=kx.Integral(0.0, 3.0))
    np.testing.assert_allclose(area, 1.0 - np.cos(3.0), atol=1e-3)


def test_the_readme_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = Path(kx.__file__).parent / "data" / "mauna_loa_co2_weekly.csv"
    lines = source.read_text().splitlines()
    Path("co2.csv").write_text("\n".join([lines[0], *lines[1200:1500:20]]) + "\n")
    Path("ahead.csv").write_text("date\n1990-01-06\n1990-07-07\n")
    commands = [
        line
        for block in blocks(README, "console")
        for line in block.strip().splitlines()
        if line.startswith("kernax ")
    ]
    assert [line.split()[1] for line in commands] == ["fit", "predict", "kernels"]
    for line in commands:
        assert main([*shlex.split(line)[1:]]) == 0, capsys.readouterr().err
    rows = Path("forecast.csv").read_text().splitlines()
    assert rows[0] == "date,mean,std,lower,upper"
    assert len(rows) == 3
    assert Path("forecast.png").read_bytes().startswith(b"\x89PNG")
    assert "decimal years" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = blocks(page.read_text(), "python")
    assert code
    names = {"__name__": page.stem}
    for block in code:
        exec(compile(block, page.name, "exec"), names)
    for block in blocks(page.read_text(), "console"):
        for line in block.splitlines():
            if line.startswith("kernax "):
                assert main([*shlex.split(line)[1:]]) == 0, line


def test_three_ways_to_write_a_kernel_are_short():
    page = PROJECT / "docs" / "write_your_own_kernel.md"
    code = "".join(blocks(page.read_text(), "python"))
    assert len([line for line in code.splitlines() if line.strip()]) < 40
    names = {}
    exec(code.partition("x, noise = ")[0], names)
    x, y = np.array([0.2, 1.0]), np.array([0.5, -0.4])
    kernels = names["Laplace"](0.8), names["cauchy"](length_scale=0.8), names["Cosine"](0.8)
    d = x - y
    values = np.exp(-abs(d).sum() / 0.8), 1 / (1 + d @ d / 0.64), np.cos(d / 0.8).prod()
    np.testing.assert_allclose([k(x, y) for k in kernels], values, rtol=1e-14)


def test_the_example_of_contributing_is_a_kernel():
    (example,) = blocks((PROJECT / "CONTRIBUTING.md").read_text(), "python")
    names = {}
    exec(example, names)
    k = 2.0 * names["CauchyKernel"](0.5) + kx.WhiteNoiseKernel(0.1)
    X = np.array([0.0, 0.3, 2.0])
    expected = 2.0 / (1.0 + ((X[:, None] - X) / 0.5) ** 2) + 0.1 * np.eye(3)
    np.testing.assert_allclose(k.gram(X), expected, rtol=1e-14)
    assert "Cauchy(length_scale=0.5)" in repr(k)
    second = jax.grad(jax.grad(names["CauchyKernel"](0.5), 0), 1)(1.0, 1.0)
    np.testing.assert_allclose(second, 2 / 0.5**2, rtol=1e-12)


def test_the_readme_lists_the_catalogue():
    rows = re.findall(r"^\| `(\w+)\((.*?)\)`.*? \| (.*) \|$", README, re.MULTILINE)
    stated = {name: (arguments, text) for name, arguments, text in rows}
    assert set(stated) == {cls.__name__ for cls in CATALOGUE}
    for cls in CATALOGUE:
        arguments, text = stated[cls.__name__]
        assert [a for a in arguments.split(", ") if a] == [
            name.split("=")[0] for name in parameters(cls)
        ]
        assert f"k(x, y) = {text}" == formula(cls)


def evaluable(text):
    """A stated formula as Python: ``2 r`` is a product, ``^`` a power, ``sum_j`` has one term."""
    text = text.removeprefix("k(x, y) = ").removesuffix(", > 0")
    text = text.replace("sum_j sin^2(", "sin2(").replace("x_j", "x").replace("y_j", "y")
    text = text.replace(" . ", " * ").replace("^", "**")
    return re.sub(r"(?<=[\w)]) (?=[\w(])", " * ", text)


@pytest.mark.parametrize("cls", CATALOGUE[:8], ids=lambda cls: cls.__name__)
def test_the_formula_of_a_docstring_is_right(cls):
    values = dict(zip(("a", "b"), (0.7, 1.6), strict=True))
    names = [name.split("=")[0] for name in parameters(cls)]
    given = dict(zip(names, values.values(), strict=False))
    kernel, (x, y) = cls(**given), (0.4, 1.5)
    scope = {"exp": np.exp, "sqrt": np.sqrt, "pi": np.pi, "sin2": lambda t: np.sin(t) ** 2}
    scope |= given | {"x": x, "y": y, "r": abs(x - y) / given.get("length_scale", 1.0)}
    expected = eval(evaluable(formula(cls)), scope)
    np.testing.assert_allclose(kernel(x, y), expected, rtol=1e-14)
    np.testing.assert_allclose(kernel(jnp.asarray([x]), jnp.asarray([y])), expected, rtol=1e-14)

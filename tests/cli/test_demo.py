"""``kernax demo``, with the two fits replaced by known answers."""

import csv
import re
import sys
import types

import numpy as np
import pytest

from kernax.cli import _demo, main
from kernax.cli._table import CALENDAR


@pytest.fixture
def fits(monkeypatch):
    """What the demo asks `fit` for; the answer is the start with another noise."""
    asked = []

    def quick(gp, X, y, priors, fixed, progress):
        asked.append(types.SimpleNamespace(gp=gp, n=len(X), priors=priors, fixed=fixed))
        assert not progress
        gp = gp.replace(noise_variance=0.5**2 if priors else 1e-3)
        return types.SimpleNamespace(gp=gp, interrupted=quick.interrupted)

    quick.interrupted = False
    monkeypatch.setattr(_demo, "fit", quick)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    return quick, asked


def test_demo(fits, tmp_path, capsys):
    quick, asked = fits
    out = tmp_path / "new" / "demo"
    assert main(["demo", "--quiet", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    lines = said.out.splitlines()
    assert lines[0] == f"weekly CO2 at Mauna Loa: 2225 values, time as {CALENDAR}"
    assert "478 points; held out: the 313 weeks from 1996 on" in lines[1]

    found = {}
    for line in lines:
        row = re.fullmatch(
            r"(published values|maximum likelihood|with priors)(( +-?[\d.]+){5})", line
        )
        if row:
            found[row[1]] = [float(number) for number in row[2].split()]
    # Computed with SciPy, and printed in the tutorial of george.
    assert found["published values"][0] == pytest.approx(-608.938634, abs=1e-5)
    assert found["published values"][1:3] == pytest.approx([0.70, 0.971], abs=5e-3)

    # The fits start from the published values; priors sit around them, on what is fitted.
    flat, informed = asked
    assert flat.n == informed.n == 478
    assert flat.priors == {}
    assert flat.fixed == informed.fixed == ("mean", "period")
    values = informed.gp.hyperparameters
    free = {p for p in values if not p.startswith("mean") and not p.endswith("period")}
    assert set(informed.priors) == free
    assert len(free) == 11
    for path, prior in informed.priors.items():
        assert np.exp(float(prior.loc)) == pytest.approx(float(values[path]), rel=1e-6)
        assert float(prior.scale) == (0.25 if path.endswith("length_scale") else 0.5)

    # The table and the picture are of the last of the three.
    with open(out / "forecast.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["date", "co2", "mean", "std", "lower", "upper"]
    assert rows[0][0] == "1996-01-06"
    assert rows[-1][0] == "2001-12-29"
    known = np.array([[float(cell) for cell in row[1:]] for row in rows if row[1]])
    assert len(known) == 313
    co2, mean, std, lower, upper = known.T
    lml, rmse, coverage = found["with priors"][:3]
    assert lml != found["published values"][0]
    assert np.sqrt(np.mean((co2 - mean) ** 2)) == pytest.approx(rmse, abs=6e-4)
    assert np.mean((lower <= co2) & (co2 <= upper)) == pytest.approx(coverage, abs=6e-4)
    assert std.min() > 0.5
    np.testing.assert_allclose(upper - lower, 2 * 1.959963985 * std, rtol=1e-6)
    picture = (out / "forecast.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(picture[16:20], "big") > 1000
    assert len(picture) > 50_000
    assert {path.name for path in out.iterdir()} == {"forecast.csv", "forecast.png"}

    # Ctrl-C in a fit: what is there stays, and nothing new is written.
    quick.interrupted = True
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main(["demo", "--quiet", "--force", "--out", str(out)]) == 130
    assert main(["demo", "--quiet", "--out", str(tmp_path / "other")]) == 130
    assert capsys.readouterr().err == "kernax: interrupted\n" * 2
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert not (tmp_path / "other").exists()


def test_demo_without_numpyro(fits, tmp_path, monkeypatch, capsys):
    for name in ["numpyro", "numpyro.distributions"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["demo", "--quiet", "--out", str(tmp_path / "demo")]) == 2
    assert "kernax demo needs the package `numpyro`" in capsys.readouterr().err
    assert fits[1] == []
    assert not (tmp_path / "demo").exists()

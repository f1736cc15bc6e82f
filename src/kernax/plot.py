"""Pictures of Gaussian processes, drawn with matplotlib (the ``plot`` extra)."""

import io
from typing import Any

import numpy as np

from ._errors import MissingExtraError
from .gp import Posterior
from .kernels import AbstractKernel, SumKernel

# A palette that stays apart for colour-blind readers, and in grey.
DATA, HELD_OUT, MEAN, BAND = "#333333", "#d55e00", "#0072b2", "#56b4e9"


def figure(width: float, height: float) -> Any:
    """An empty figure, without the global state of pyplot."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("drawing", "matplotlib", "plot") from error
    return Figure(figsize=(width, height), layout="constrained")


def as_png(fig: Any) -> bytes:
    """The figure as the content of a PNG file."""
    content = io.BytesIO()
    fig.savefig(content, dpi=130, format="png")
    return content.getvalue()


def summands(kernel: AbstractKernel) -> list[AbstractKernel]:
    """The terms of a sum, in order; of any other kernel, itself."""
    if isinstance(kernel, SumKernel):
        return summands(kernel.left_kernel) + summands(kernel.right_kernel)
    return [kernel]


def draw_forecast(
    axes: Any, t: Any, mean: Any, std: Any, *, label: str = "mean and 95 % interval"
) -> None:
    """A mean with its 95 % band, over one input."""
    order = np.argsort(t)
    t, mean, std = (np.asarray(value)[order] for value in (t, mean, std))
    axes.fill_between(
        t, mean - 1.96 * std, mean + 1.96 * std, color=BAND, alpha=0.45, linewidth=0, label=label
    )
    axes.plot(t, mean, color=MEAN, linewidth=1.2)


def forecast_figure(
    posterior: Posterior,
    train: tuple[Any, Any],
    held_out: tuple[Any, Any] | None,
    t: Any,
    *,
    labels: tuple[str, str],
    title: str,
) -> Any:
    """Data, held-out data, mean and band; a close-up of the end; and each term of the kernel."""
    terms = summands(posterior.gp.kernel)
    fig = figure(11, 4.2 + 1.7 * ((len(terms) + 1) // 2))
    rows = (len(terms) + 1) // 2
    grid = fig.add_gridspec(rows + 2, 2, height_ratios=[1.25, 1.25] + [0.85] * rows)
    mean = np.asarray(posterior.mean(t)).ravel()
    std = np.sqrt(np.asarray(posterior.variance(t, observation=True)).ravel())
    main, close = fig.add_subplot(grid[:2, 0]), fig.add_subplot(grid[:2, 1])
    for axes in (main, close):
        draw_forecast(axes, t, mean, std)
        axes.plot(*train, ".", color=DATA, markersize=2.5, label="training data")
        if held_out is not None:
            axes.plot(*held_out, ".", color=HELD_OUT, markersize=2.5, label="held-out data")
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
    main.set_title(title, loc="left", fontsize=11)
    main.legend(loc="upper left", fontsize=8, frameon=False)
    _zoom(close, np.asarray(train[0]), np.asarray(t), mean, std)
    for index, term in enumerate(terms):
        axes = fig.add_subplot(grid[2 + index // 2, index % 2])
        part = np.asarray(posterior.mean(t, kernel=term)).ravel()
        spread = np.sqrt(np.asarray(posterior.variance(t, kernel=term)).ravel())
        draw_forecast(axes, t, part, spread)
        axes.set_title(f"{term:.3g}", loc="left", fontsize=8)
        axes.tick_params(labelsize=8)
    return fig


def _zoom(axes: Any, train: Any, t: Any, mean: Any, std: Any) -> None:
    """The part where the forecast begins."""
    last, end = train.max(), t.max()
    start = last - 0.6 * (end - last) if end > last else train.min()
    inside = t >= start
    low = (mean - 2.5 * std)[inside].min()
    high = (mean + 2.5 * std)[inside].max()
    axes.set_xlim(start, end)
    axes.set_ylim(low, high)
    if end > last:
        axes.axvline(last, color=DATA, linewidth=0.8, linestyle=":")
        axes.set_title("from the last training point on", loc="left", fontsize=11)


def prediction_figure(
    train: tuple[Any, Any], t: Any, mean: Any, std: Any, labels: tuple[str, str]
) -> Any:
    """Data, mean and band over one input."""
    fig = figure(9, 4.5)
    axes = fig.add_subplot()
    draw_forecast(axes, t, mean, std)
    axes.plot(*train, ".", color=DATA, markersize=3, label="training data")
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.legend(fontsize=8, frameon=False)
    return fig

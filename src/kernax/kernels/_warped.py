"""A kernel of what a map makes of its inputs."""

from typing import Any

import equinox as eqx
from jaxtyping import Array

from .._typing import OtherPointOrPoints, PointOrPoints
from ._compose import Call, WrapperKernel
from ._maps import as_map, evaluate


class WarpedKernel(WrapperKernel):
    """``inner_kernel`` on the images of the inputs.

    k(x, y) = inner(warp(x), warp(y))

    ``warp`` maps a point (d,) to a vector (q,), or to a number: a module with hyperparameters of
    its own (one of `kernax.transforms`, any `equinox.Module`), or a plain function. Positive
    definite for any map; as smooth as the inner kernel where the map is smooth, which is taken
    for granted. In a matrix it is evaluated once per point. Around it, `ARDKernel` scales what
    the map sees. Raises `ShapeError` where a map returns neither a vector nor a number.

    MacKay (1998), Introduction to Gaussian processes, section 4.3; Snoek et al. (2014), Input
    warping for Bayesian optimization of non-stationary functions.
    """

    warp: Any = eqx.field(converter=lambda value: as_map(value, "warp"))

    def __check_init__(self) -> None:
        as_map(self.warp, "warp")  # what comes from a file has met no converter

    @property
    def differentiability(self) -> float:  # type: ignore[override]
        return float(self.inner_kernel.differentiability)

    def compose(self, call: Call, x: PointOrPoints, y: OtherPointOrPoints) -> Array:
        image = self._image(x)
        return call(self.inner_kernel, image, image if y is x else self._image(y))

    def _image(self, x: Array) -> Array:
        z = evaluate(self.warp, x, "warp")
        return z if z.ndim == x.ndim else z[..., None]

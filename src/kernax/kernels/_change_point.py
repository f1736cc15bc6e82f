"""Another kernel on either side of a change point."""

import equinox as eqx
import jax
from jaxtyping import Array

from .._errors import ShapeError
from .._inputs import as_whole
from .._module import with_fields
from .._parameters import positive, real
from .._typing import OtherPointOrPoints, Parameter, PointOrPoints
from ._base import AbstractKernel
from ._compose import Call, CompositeKernel, as_kernel
from ._pairs import in_one_dtype


class ChangePointKernel(CompositeKernel):
    """One function before a change point, an independent one after it.

    k(x, y) = (1 - s(x)) left(x, y) (1 - s(y)) + s(x) right(x, y) s(y),
    s(x) = 1 / (1 + exp(-steepness (x[dim] - location)))

    The change happens along the dimension ``dim``, counted from 0 or from the end where negative;
    `ShapeError` where the points do not have it. ``location`` is in units of that dimension and
    ``steepness`` > 0 in their inverse: most of the change lies within 5 / steepness of it. Both
    are single numbers. For several changes, nest. Saatci, Turner and Rasmussen (2010), Gaussian
    process change point models; Lloyd et al. (2014), Automatic construction and natural-language
    description of nonparametric regression models.
    """

    left_kernel: AbstractKernel = eqx.field(converter=lambda value: as_kernel(value))
    right_kernel: AbstractKernel = eqx.field(converter=lambda value: as_kernel(value))
    location: Parameter = real()
    steepness: Parameter = positive()
    dim: int = eqx.field(static=True, default=0, converter=lambda value: as_whole(value, "dim"))

    @property
    def differentiability(self) -> float:  # type: ignore[override]
        parts = (self.left_kernel, self.right_kernel)
        return float(min(part.differentiability for part in parts))

    def compose(self, call: Call, x: PointOrPoints, y: OtherPointOrPoints) -> Array:
        (before, after), (before_too, after_too) = self._weights(x), self._weights(y)
        if x.ndim == 2:
            before, after = before[:, None], after[:, None]
            before_too, after_too = before_too[None, :], after_too[None, :]
        return (
            before * call(self.left_kernel, x, y) * before_too
            + after * call(self.right_kernel, x, y) * after_too
        )

    def rescaled(self, length_scales: Array) -> AbstractKernel:
        self._check(length_scales.shape[-1])
        scale = length_scales[self.dim]
        return with_fields(
            self,
            left_kernel=self.left_kernel.rescaled(length_scales),
            right_kernel=self.right_kernel.rescaled(length_scales),
            location=self.location * scale,
            steepness=self.steepness / scale,
        )

    def sign(self) -> int:
        left, right = self.left_kernel.sign(), self.right_kernel.sign()
        return left if left == right else 0

    def _weights(self, x: Array) -> tuple[Array, Array]:
        """1 - s and s, each without cancellation."""
        self._check(x.shape[-1])
        x, location, steepness = in_one_dtype(x, self.location, self.steepness)
        for value, name in ((location, "location"), (steepness, "steepness")):
            if value.ndim:
                raise ShapeError(
                    f"`{name}` has shape {value.shape}, expected (). Fix: pass one number."
                )
        z = steepness * (x[..., self.dim] - location)
        return jax.nn.sigmoid(-z), jax.nn.sigmoid(z)

    def _check(self, d: int) -> None:
        if not -d <= self.dim < d:
            raise ShapeError(
                f"`dim` names dimension {self.dim}, but the points have dimension {d}. "
                f"Fix: use a dimension from {-d} to {d - 1}."
            )

"""Shapes used all over Kernax, defined once.

Letters: ``n`` and ``m`` count points, ``d`` dimensions, ``b`` batch elements. Public functions
take anything NumPy understands (`ArrayLike`) and check it themselves, so that a wrong shape gets
a `ShapeError`; the annotations with letters are for what is inside, and the tests check them.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jax.typing import ArrayLike as JaxArrayLike
from jaxtyping import Array, Bool, Float, Num

if TYPE_CHECKING:
    from collections.abc import Sequence

    ArrayLike = JaxArrayLike | Sequence[Any]
    Parameter = Any
    HostArray = np.ndarray[Any, Any]
    Key = Array
    Shape = int | tuple[int, ...]
    NanOption = Literal["pad", "raise"]
else:
    # Public functions check these themselves, with errors that say more.
    ArrayLike = Key = Shape = NanOption = Any
    # An array once the kernel is built; numbers, lists and NumPy arrays may be passed.
    Parameter = Array
    HostArray = np.ndarray

Scalar = Float[Array, ""]
Vector = Float[Array, "n"]
Mask = Bool[Array, "n"]
OtherMask = Bool[Array, "m"]
Matrix = Float[Array, "n m"]
Square = Float[Array, "n n"]
# Floating inside a call; whoever calls `pairwise` directly may pass integers.
Point = Num[Array, "d"]
Points = Float[Array, "n d"]
OtherPoints = Float[Array, "m d"]
PointOrPoints = Num[Array, "*n d"]
OtherPointOrPoints = Num[Array, "*m d"]
HostPoints = Float[np.ndarray, "n d"]

"""From a model to plain data."""

import dataclasses
import inspect
from typing import Any

import equinox as eqx
import jax
import numpy as np

from .. import gp as _gp
from .. import kernels as _kernels
from .. import transforms as _transforms
from .._errors import FormatError
from .._nodes import Stacked, Tied, Unit
from ..linalg import Dense
from ..matrixfree import Iterative
from ._posterior import posterior_fields

MOST_DEPTH = 200
DTYPES = ("float64", "float32", "int64", "int32", "bool")
SEQUENCES: dict[str, Any] = {"tuple": tuple, "list": list}

# The classes that a file may name.
REGISTRY: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        *vars(_kernels).values(),
        *vars(_transforms).values(),
        *vars(_gp).values(),
        Dense,
        Iterative,
    )
    if isinstance(cls, type) and issubclass(cls, eqx.Module) and not inspect.isabstract(cls)
}


def encode(value: Any, path: str, depth: int) -> Any:
    if depth > MOST_DEPTH:
        raise FormatError(f"{path} is nested too deeply. Fix: build the sum as a balanced tree.")
    if isinstance(value, Unit):
        return {"type": "unit"}
    if isinstance(value, Tied):
        return {"type": "tied", "source": value.source}
    if isinstance(value, Stacked):
        values = encode(value.values, path, depth + 1)
        return {"type": "stacked", "axes": list(value.axes), "values": values}
    if isinstance(value, _gp.Posterior):
        fields = {
            name: encode(item, f"{path}.{name}", depth + 1)
            for name, item in posterior_fields(value).items()
        }
        return {"type": "Posterior", "fields": fields}
    if isinstance(value, eqx.Module):
        if REGISTRY.get(type(value).__name__, type(value)) is not type(value):
            raise FormatError(
                f"{path} is of a class {type(value)!r} with the name of one of Kernax. Fix: rename "
                "it, since a file knows classes by name."
            )
        fields = {
            field.name: encode(getattr(value, field.name), f"{path}.{field.name}", depth + 1)
            for field in dataclasses.fields(value)
        }
        return {"type": type(value).__name__, "fields": fields}
    if isinstance(value, jax.Array | np.ndarray):
        if str(value.dtype) not in DTYPES:
            raise FormatError(f"{path} has dtype {value.dtype}. Fix: use one of {DTYPES}.")
        array = np.asarray(value)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise FormatError(f"{path} is not finite. Fix: save a model with finite values.")
        return {
            "type": "array",
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "data": array.ravel().tolist(),
        }
    if isinstance(value, float) and not np.isfinite(value):
        raise FormatError(f"{path} is {value}. Fix: save a model with finite values.")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value) in SEQUENCES.values():
        items = [encode(item, f"{path}.{i}", depth + 1) for i, item in enumerate(value)]
        return {"type": type(value).__name__, "items": items}
    raise FormatError(
        f"{path} is a {type(value).__name__}, which cannot be saved as data. "
        "Fix: use a class with fields in its place."
    )

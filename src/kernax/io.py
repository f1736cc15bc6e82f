"""Saving and loading: data, never code.

A file is JSON: a header with the format's name and version, then a tree of objects, each with the
name of its class and its fields; arrays are written as decimal numbers that read back to the same
bits. Loading looks class names up in a registry and fills in fields: it imports nothing, runs no
constructor, and refuses what does not fit with a `FormatError` that names the path.
"""

import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from . import gp as _gp
from . import kernels as _kernels
from ._errors import FormatError, KernaxError, ParameterError, PrecisionWarning
from ._module import Parameterised, Unit, check_value, rebuild_fields
from ._parameters import constraint_of
from ._typing import HostArray
from .gp._data import Data
from .gp._posterior import condition
from .kernels import AbstractKernel
from .linalg import Dense

FORMAT, VERSION = "kernax", 1
MOST_BYTES = 1 << 30
MOST_DEPTH = 200

_CLASSES: tuple[type, ...] = (
    *(c for c in vars(_kernels).values() if isinstance(c, type)),
    *(c for c in vars(_gp).values() if isinstance(c, type)),
    Dense,
)


def save(path: str | os.PathLike[str], model: Any, extra: dict[str, Any] | None = None) -> None:
    """Write a kernel, Gaussian process or posterior to a file.

    A posterior is saved with its observations, so that it predicts the same after loading.
    ``extra``: plain values kept beside it. The file appears whole or not at all. Raises
    `FormatError` for a function or an unknown class inside the model.
    """
    document = {
        "format": FORMAT,
        "version": VERSION,
        "model": _encode(model, "model"),
        "extra": extra or {},
    }
    write_text(path, json.dumps(document, indent=1, allow_nan=False))


def load(path: str | os.PathLike[str], classes: tuple[type, ...] = ()) -> Any:
    """Read what `save` wrote. ``classes``: your own kernel or mean classes that the file may name.

    Raises `FormatError` for anything that is not exactly such a file; warns `PrecisionWarning`
    where it holds float64 and this process computes in float32.
    """
    return load_with_extra(path, classes)[0]


def load_with_extra(
    path: str | os.PathLike[str], classes: tuple[type, ...] = ()
) -> tuple[Any, dict[str, Any]]:
    """The model and the plain values that were saved beside it."""
    document = _read(path)
    registry = {cls.__name__: cls for cls in (*_CLASSES, *classes)}
    return _decode(document.get("model"), "model", registry, 0), document.get("extra", {})


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file whole or not at all: a temporary one beside it, then renamed."""
    path = Path(path)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent or ".", prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    size = os.path.getsize(path)
    if size > MOST_BYTES:
        raise FormatError(
            f"{path} has {size} bytes, more than the {MOST_BYTES} a model may have. "
            "Fix: check that it is a model file."
        )
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{path} is not a whole JSON file: {error}. Fix: save the model again."
        ) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise FormatError(f"{path} is not a Kernax model. Fix: pass a file written by save().")
    version = document.get("version")
    if not isinstance(version, int) or version < 1:
        raise FormatError(f"{path} has no valid version ({version!r}). Fix: save it again.")
    if version > VERSION:
        raise FormatError(
            f"{path} was written in format {version}, this is format {VERSION}. "
            "Fix: update kernax-gp."
        )
    return document


def _encode(value: Any, path: str) -> Any:
    if isinstance(value, Unit):
        return {"type": "unit"}
    if isinstance(value, _gp.Posterior):
        return {"type": "Posterior", "fields": _posterior_fields(value, path)}
    if isinstance(value, eqx.Module):
        fields = {
            field.name: _encode(getattr(value, field.name), f"{path}.{field.name}")
            for field in dataclasses.fields(value)
        }
        return {"type": type(value).__name__, "fields": fields}
    if isinstance(value, jax.Array | np.ndarray):
        array = np.asarray(value)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise FormatError(f"{path} is not finite. Fix: save a model with finite values.")
        return {
            "type": "array",
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "data": array.ravel().tolist(),
        }
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return {"type": "tuple", "items": [_encode(v, f"{path}.{i}") for i, v in enumerate(value)]}
    raise FormatError(
        f"{path} is a {type(value).__name__}, which cannot be saved as data. "
        "Fix: use a class with fields in its place."
    )


def _posterior_fields(posterior: Any, path: str) -> dict[str, Any]:
    data = posterior.data
    real = np.ones(len(data.X), bool) if data.mask is None else np.asarray(data.mask)
    real = real & ~np.isnan(np.asarray(data.X)).any(axis=1)
    # Padding is left out: it does not change the posterior, and NaN is not JSON.
    kept = {"X": np.asarray(data.X)[real], "y": np.asarray(data.y)[real]}
    gp = posterior.gp
    if gp.noise_variance.ndim:
        gp = gp.replace() if real.all() else _with_noise(gp, np.asarray(gp.noise_variance)[real])
    fields = {name: _encode(value, f"{path}.{name}") for name, value in kept.items()}
    return fields | {
        "gp": _encode(gp, f"{path}.gp"),
        "column": data.column,
        "shift": _encode(data.shift, f"{path}.shift"),
    }


def _with_noise(gp: Any, noise: HostArray) -> Any:
    return eqx.tree_at(lambda g: g.noise_variance, gp, jnp.asarray(noise))


def _decode(node: Any, path: str, registry: dict[str, type], depth: int) -> Any:
    if depth > MOST_DEPTH:
        raise FormatError(f"{path} is nested too deeply. Fix: save the model again.")
    if node is None or isinstance(node, bool | int | float | str):
        return node
    kind = node.get("type") if isinstance(node, dict) else None
    if kind == "array":
        return _decode_array(node, path)
    if kind == "unit":
        return Unit(1.0)
    if kind == "tuple" and isinstance(node.get("items"), list):
        return tuple(
            _decode(item, f"{path}.{i}", registry, depth + 1)
            for i, item in enumerate(node["items"])
        )
    cls = registry.get(kind) if isinstance(kind, str) else None
    if cls is None or not isinstance(node.get("fields"), dict):
        raise FormatError(
            f"{path} has the unknown type {kind!r}. Fix: pass classes=(YourClass,) to load() if "
            "it is your own."
        )
    values = {
        name: _decode(item, f"{path}.{name}", registry, depth + 1)
        for name, item in node["fields"].items()
    }
    if cls is _gp.Posterior:
        return _decode_posterior(values, path)
    return _build(cls, values, path)


def _build(cls: type, values: dict[str, Any], path: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    _same_names(set(values), set(fields), path)
    module = rebuild_fields(cls, values)
    for name, field in fields.items():
        value, label = values[name], f"{path}.{name}"
        expected = field.type if isinstance(field.type, type) else None
        strict = expected is not None and issubclass(expected, AbstractKernel | int | tuple)
        if expected is not None and strict and not isinstance(value, expected):
            raise FormatError(
                f"{label} is a {type(value).__name__}, expected {expected.__name__}. "
                "Fix: save the model again."
            )
        for leaf in jax.tree.leaves(value) if not isinstance(value, eqx.Module) else ():
            try:
                check_value(leaf, constraint_of(field), label)
            except ParameterError as error:
                raise FormatError(f"{path}: {error}") from error
        plain = isinstance(value, bool | int | float | str) and not isinstance(value, Unit)
        if plain and not field.metadata.get("static", False):
            raise FormatError(f"{label} is {value!r}, expected an array. Fix: save it again.")
    try:
        for parent in cls.__mro__ if isinstance(module, Parameterised) else ():
            if "__check_init__" in parent.__dict__:
                parent.__dict__["__check_init__"](module)
    except (KernaxError, AttributeError, TypeError) as error:
        raise FormatError(f"{path}: {error}") from error
    return module


def _same_names(found: set[str], expected: set[str], path: str) -> None:
    if found != expected:
        missing, extra = sorted(expected - found), sorted(found - expected)
        raise FormatError(
            f"{path} lacks the fields {missing} and has the unknown fields {extra}. "
            "Fix: save the model again with this version."
        )


def _decode_array(node: dict[str, Any], path: str) -> Any:
    try:
        dtype = np.dtype(node["dtype"])
        shape = tuple(int(size) for size in node["shape"])
        data = node["data"]
        if dtype.kind not in "fib" or min(shape, default=0) < 0:
            raise ValueError(f"dtype {dtype}, shape {shape}")
        if not isinstance(data, list) or len(data) != int(np.prod(shape, dtype=object)):
            raise ValueError(f"{len(data)} numbers for shape {shape}")
        array = np.asarray(data, dtype).reshape(shape)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"{path} is not an array: {error}. Fix: save it again.") from error
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise FormatError(f"{path} is not finite. Fix: save a model with finite values.")
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        import warnings

        warnings.warn(
            f"{path} was saved as {dtype} and is loaded in 32 bits. Fix: "
            'jax.config.update("jax_enable_x64", True) before loading.',
            PrecisionWarning,
            stacklevel=2,
        )
    return jnp.asarray(array, jax.dtypes.canonicalize_dtype(dtype))


def _decode_posterior(values: dict[str, Any], path: str) -> Any:
    _same_names(set(values), {"X", "y", "gp", "column", "shift"}, path)
    X, y, gp = values["X"], values["y"], values["gp"]
    if not isinstance(gp, _gp.GaussianProcess) or np.ndim(X) != 2 or np.shape(y) != np.shape(X)[:1]:
        raise FormatError(
            f"{path}: X has shape {np.shape(X)} and y {np.shape(y)}, expected (n, d) and (n,). "
            "Fix: save the model again."
        )
    return condition(gp, Data(X, y, None, True, bool(values["column"]), values["shift"]))

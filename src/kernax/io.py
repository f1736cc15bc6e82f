"""Saving and loading: data, never code.

A file is JSON: a header with the format's name and version, then a tree of objects, each with the
name of its class and its fields; arrays are written as decimal numbers that read back to the same
bits. Loading looks class names up in a registry and fills in fields: it imports nothing, runs no
constructor, and refuses what does not fit with a `FormatError` that names the path.
"""

import dataclasses
import inspect
import json
import os
import secrets
import warnings
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from . import gp as _gp
from . import kernels as _kernels
from ._errors import FormatError, KernaxError, PrecisionWarning
from ._module import Parameterised, check_value, rebuild_fields
from ._nodes import Stacked, Unit
from ._parameters import constraint_of
from .gp._data import Data
from .gp._posterior import condition
from .kernels import AbstractKernel
from .linalg import Dense

FORMAT, VERSION = "kernax", 1
MOST_BYTES = 1 << 28
MOST_DEPTH = 200
DTYPES = ("float64", "float32", "int64", "int32", "bool")
_NUMBERS: dict[str, set[type]] = {"b": {bool}, "i": {int}, "f": {int, float}}
_SEQUENCES: dict[str, Any] = {"tuple": tuple, "list": list}

_CLASSES: tuple[type, ...] = tuple(
    cls
    for cls in (*vars(_kernels).values(), *vars(_gp).values(), Dense)
    if isinstance(cls, type) and issubclass(cls, eqx.Module) and not inspect.isabstract(cls)
)


def save(path: str | os.PathLike[str], model: Any, extra: dict[str, Any] | None = None) -> None:
    """Write a kernel, Gaussian process or posterior to a file.

    A posterior is saved with its observations, so that it predicts the same after loading.
    ``extra``: plain values kept beside it. The file appears whole or not at all. Raises
    `FormatError` for a function or an unknown class inside the model.
    """
    if not isinstance(model, eqx.Module):
        raise FormatError(
            f"`model` is a {type(model).__name__}, expected a kernel, Gaussian process or "
            "posterior. Fix: pass one of these."
        )
    document = {
        "format": FORMAT,
        "version": VERSION,
        "model": _encode(model, "model", 0),
        "extra": extra or {},
    }
    try:
        text = json.dumps(document, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise FormatError(f"`extra` is not plain data: {error}. Fix: leave that out.") from error
    write_text(path, text)


def load(
    path: str | os.PathLike[str], classes: tuple[type, ...] = (), *, strict: bool = False
) -> Any:
    """Read what `save` wrote. ``classes``: your own kernel or mean classes that the file may name.

    Raises `FormatError` for anything that is not exactly such a file. Where it holds 64-bit
    arrays and this process computes in 32 bits, warns `PrecisionWarning` with their paths, or
    raises `FormatError` where ``strict``.
    """
    model, _, narrowed = _load(path, classes)
    if narrowed:
        text = (
            f"{path} was saved in 64 bits, and this process computes in 32: {', '.join(narrowed)}. "
            'Fix: jax.config.update("jax_enable_x64", True) before loading.'
        )
        if strict:
            raise FormatError(text)
        warnings.warn(text, PrecisionWarning, stacklevel=2)
    return model


def load_with_extra(
    path: str | os.PathLike[str], classes: tuple[type, ...] = ()
) -> tuple[Any, dict[str, Any]]:
    """The model and the plain values that were saved beside it."""
    return _load(path, classes)[:2]


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file whole or not at all, in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole or not at all: a temporary one beside it, then renamed."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        # Exclusively: what is there already, or a link planted there, is not ours to write to.
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if not isinstance(error, FileExistsError):
            temporary.unlink(missing_ok=True)
        raise


def _load(
    path: str | os.PathLike[str], classes: tuple[type, ...]
) -> tuple[Any, dict[str, Any], list[str]]:
    """The model, what was saved beside it, and the paths of the arrays that lost digits."""
    document = _read(path)
    if set(document) != {"format", "version", "model", "extra"}:
        raise FormatError(f"{path} has the parts {sorted(document)}. Fix: save the model again.")
    model, extra = document["model"], document["extra"]
    if not isinstance(model, dict) or not isinstance(extra, dict):
        raise FormatError(f"{path} holds no model. Fix: save the model again.")
    reader = _Reader({cls.__name__: cls for cls in (*_CLASSES, *classes)}, [])
    decoded = reader.decode(model, "model", 0)
    if not isinstance(decoded, eqx.Module):
        raise FormatError(f"{path} holds no model. Fix: save the model again.")
    return decoded, extra, reader.narrowed


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    with open(path, "rb") as file:
        # The size first; and a device has none, so that the reading is bounded too.
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > MOST_BYTES else file.read(MOST_BYTES + 1)
    if max(size, len(content)) > MOST_BYTES:
        raise FormatError(
            f"{path} has more than the {MOST_BYTES} bytes that a model may have. "
            "Fix: check that it is a model file."
        )
    try:
        document = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{path} is not a whole JSON file: {error}. Fix: save the model again."
        ) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise FormatError(f"{path} is not a Kernax model. Fix: pass a file written by save().")
    version = document.get("version")
    if type(version) is not int or version < 1:
        raise FormatError(f"{path} has no valid version ({version!r}). Fix: save it again.")
    if version > VERSION:
        raise FormatError(
            f"{path} was written in format {version}, this is format {VERSION}. "
            "Fix: update kernax-gp."
        )
    return document


def _encode(value: Any, path: str, depth: int) -> Any:
    if depth > MOST_DEPTH:
        raise FormatError(f"{path} is nested too deeply. Fix: build the sum as a balanced tree.")
    if isinstance(value, Unit):
        return {"type": "unit"}
    if isinstance(value, Stacked):
        values = _encode(value.values, path, depth + 1)
        return {"type": "stacked", "axes": list(value.axes), "values": values}
    if isinstance(value, _gp.Posterior):
        return {"type": "Posterior", "fields": _posterior_fields(value, path, depth)}
    if isinstance(value, eqx.Module):
        fields = {
            field.name: _encode(getattr(value, field.name), f"{path}.{field.name}", depth + 1)
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
    if type(value) in _SEQUENCES.values():
        items = [_encode(item, f"{path}.{i}", depth + 1) for i, item in enumerate(value)]
        return {"type": type(value).__name__, "items": items}
    raise FormatError(
        f"{path} is a {type(value).__name__}, which cannot be saved as data. "
        "Fix: use a class with fields in its place."
    )


def _posterior_fields(posterior: Any, path: str, depth: int) -> dict[str, Any]:
    data = posterior.data
    X, y, mask = np.asarray(data.X), np.asarray(data.y), None
    if not data.finite:
        mask = ~np.isnan(X).any(axis=1)
        mask = mask if data.mask is None else mask & np.asarray(data.mask)
        # The padded rows stay, for the same sums in the same order; NaN in them is not JSON.
        X, y = np.where(mask[:, None], X, X.dtype.type(0)), np.where(mask, y, y.dtype.type(0))
    kept = {"X": X, "y": y, "mask": mask}
    kept |= {"gp": posterior.gp, "column": data.column, "shift": data.shift}
    return {name: _encode(value, f"{path}.{name}", depth + 1) for name, value in kept.items()}


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Decodes a tree with the classes it may name; ``narrowed`` collects what lost digits."""

    registry: dict[str, type]
    narrowed: list[str]

    def decode(self, node: Any, path: str, depth: int) -> Any:
        if depth > MOST_DEPTH:
            raise FormatError(f"{path} is nested too deeply. Fix: save the model again.")
        if node is None or isinstance(node, bool | int | float | str):
            return node
        kind = node.get("type") if isinstance(node, dict) else None
        if kind == "array":
            return self._array(node, path)
        if kind == "unit":
            return Unit(1.0)
        if kind == "stacked":
            return self._stacked(node, path, depth)
        if kind in ("tuple", "list") and isinstance(node.get("items"), list):
            return _SEQUENCES[kind](
                self.decode(item, f"{path}.{i}", depth + 1) for i, item in enumerate(node["items"])
            )
        cls = self.registry.get(kind) if isinstance(kind, str) else None
        if cls is None or not isinstance(node.get("fields"), dict):
            raise FormatError(
                f"{path} has the unknown type {kind!r}. Fix: pass classes=(YourClass,) to load() "
                "if it is your own."
            )
        values = {
            name: self.decode(item, f"{path}.{name}", depth + 1)
            for name, item in node["fields"].items()
        }
        try:
            if cls is _gp.Posterior:
                return _build_posterior(values, path)
            return _build(cls, values, path)
        except FormatError:
            raise
        except KernaxError as error:
            raise FormatError(f"{path}: {error}") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise FormatError(f"{path}: {error}. Fix: save the model again.") from error

    def _stacked(self, node: dict[str, Any], path: str, depth: int) -> Any:
        axes, values = node.get("axes"), self.decode(node.get("values"), path, depth + 1)
        flags = isinstance(axes, list) and all(isinstance(axis, bool) for axis in axes)
        if not flags or not axes or not eqx.is_array(values) or values.ndim < sum(axes):
            raise FormatError(f"{path} is not a hyperparameter of a batch. Fix: save it again.")
        return Stacked(values, tuple(axes))

    def _array(self, node: dict[str, Any], path: str) -> Any:
        name, shape, data = (node.get(key) for key in ("dtype", "shape", "data"))
        try:
            if name not in DTYPES:
                raise ValueError(f"its dtype is {name!r}")
            dtype = np.dtype(name)
            # Exactly: NumPy would also take the text "1.5", and cut 1.5 to the integer 1.
            numbers = _NUMBERS[dtype.kind]
            if not isinstance(shape, list) or any(type(n) is not int or n < 0 for n in shape):
                raise ValueError(f"its shape is {shape!r}")
            if not isinstance(data, list) or not set(map(type, data)) <= numbers:
                raise ValueError(f"its data are not all numbers of {dtype}")
            if len(data) != int(np.prod(shape, dtype=object)):
                raise ValueError(f"it has {len(data)} numbers for shape {tuple(shape)}")
            array = np.asarray(data, dtype).reshape(shape)
            target = jax.dtypes.canonicalize_dtype(dtype)
            with np.errstate(over="ignore"):
                rounded = array.astype(target)
            if dtype.kind == "i" and not np.array_equal(rounded, array):
                raise ValueError(f"its integers do not fit into {target}")
        except (TypeError, ValueError, OverflowError) as error:
            raise FormatError(f"{path} is not an array: {error}. Fix: save it again.") from error
        if dtype.kind == "f" and not np.isfinite(rounded).all():
            raise FormatError(f"{path} is not finite. Fix: save a model with finite values.")
        if target != dtype:
            self.narrowed.append(path)
        return jnp.asarray(rounded)


def _build(cls: type, values: dict[str, Any], path: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    _same_names(set(values), set(fields), path)
    for name, field in fields.items():
        label = f"{path}.{name}"
        if field.metadata.get("static", False):
            values[name] = _static(field, values[name], label)
        else:
            _check_dynamic(cls, field, values[name], label)
    module = rebuild_fields(cls, values)
    for parent in cls.__mro__ if isinstance(module, Parameterised) else ():
        if "__check_init__" in parent.__dict__:
            parent.__dict__["__check_init__"](module)
    if isinstance(module, _gp.GaussianProcess) and (
        not callable(module.mean) or isinstance(module.mean, AbstractKernel)
    ):
        raise FormatError(f"{path}.mean is {module.mean!r}, expected a mean. Fix: save it again.")
    return module


def _static(field: "dataclasses.Field[Any]", value: Any, label: str) -> Any:
    """A static field's value, through the converter that the constructor would have used."""
    converter = field.metadata.get("converter")
    if any(eqx.is_array(leaf) for leaf in jax.tree.leaves(value)):
        raise FormatError(f"{label} is an array, which it cannot be. Fix: save the model again.")
    return value if converter is None else converter(value)


def _check_dynamic(cls: type, field: "dataclasses.Field[Any]", value: Any, label: str) -> None:
    # `Any` is a class, but not one to ask about.
    expected = field.type if isinstance(field.type, type) and field.type is not Any else object
    value = value.values if isinstance(value, Stacked) else value
    if isinstance(value, Unit):
        # What `ARDKernel` leaves behind of a length-scale.
        fits = field.name == "length_scale"
    elif issubclass(expected, AbstractKernel | jax.Array):
        fits = isinstance(value, expected)
    else:
        # A module of Equinox may hold numbers; one of ours has made arrays of them.
        plain = isinstance(value, bool | int | float | str)
        fits = not plain or (not issubclass(cls, Parameterised) and _holds(expected, value))
    if not fits:
        wanted = {object: "module or array", jax.Array: "array"}.get(expected, expected.__name__)
        raise FormatError(
            f"{label} is {type(value).__name__}, expected {wanted}. Fix: save the model again."
        )
    for leaf in jax.tree.leaves(value) if not isinstance(value, eqx.Module) else ():
        check_value(leaf, constraint_of(field), label)


def _holds(expected: type, value: Any) -> bool:
    return isinstance(value, expected) or (expected is float and isinstance(value, int))


def _same_names(found: set[str], expected: set[str], path: str) -> None:
    if found != expected:
        missing, extra = sorted(expected - found), sorted(found - expected)
        raise FormatError(
            f"{path} lacks the fields {missing} and has the unknown fields {extra}. "
            "Fix: save the model again with this version."
        )


def _build_posterior(values: dict[str, Any], path: str) -> Any:
    names = ("X", "y", "mask", "gp", "column", "shift")
    _same_names(set(values), set(names), path)
    X, y, mask, gp, column, shift = (values[name] for name in names)
    if not isinstance(gp, _gp.GaussianProcess):
        raise FormatError(f"{path}.gp is not a Gaussian process. Fix: save the model again.")
    arrays = isinstance(X, jax.Array) and isinstance(y, jax.Array)
    if not arrays or X.ndim != 2 or X.shape[1] == 0 or y.shape != X.shape[:1]:
        raise FormatError(
            f"{path}: X has shape {np.shape(X)} and y {np.shape(y)}, expected (n, d) and (n,). "
            "Fix: save the model again."
        )
    marks = isinstance(mask, jax.Array) and mask.dtype == bool and mask.shape == y.shape
    if not (mask is None or marks):
        raise FormatError(
            f"{path}.mask is not an array of {len(y)} booleans. Fix: save the model again."
        )
    if gp.noise_variance.shape not in ((), y.shape):
        raise FormatError(
            f"{path}.gp.noise_variance has shape {gp.noise_variance.shape} for {len(y)} points. "
            "Fix: save the model again."
        )
    numbers = isinstance(shift, tuple) and all(isinstance(s, float | int) for s in shift)
    if not isinstance(column, bool) or not (
        shift is None or (numbers and len(shift) == X.shape[1] and np.isfinite(shift).all())
    ):
        raise FormatError(
            f"{path} has column {column!r} and shift {shift!r}. Fix: save the model again."
        )
    return condition(gp, Data(X, y, mask, mask is None, column, shift))

"""From plain data to a model: class names are looked up in a registry, fields filled in."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .. import gp as _gp
from .._errors import FormatError, KernaxError
from .._module import Parameterised, check_value, rebuild_fields
from .._nodes import Stacked, Tied, Unit
from .._parameters import constraint_of
from ..kernels import AbstractKernel
from ._encode import DTYPES, MOST_DEPTH, REGISTRY, SEQUENCES
from ._posterior import build_posterior, same_names

_NUMBERS: dict[str, set[type]] = {"b": {bool}, "i": {int}, "f": {int, float}}


@dataclasses.dataclass(frozen=True)
class Reader:
    """Decodes a tree with the classes it may name; ``narrowed`` collects what lost digits."""

    registry: dict[str, type]
    narrowed: list[str]

    @classmethod
    def of(cls, classes: tuple[type, ...]) -> "Reader":
        """A reader of the classes of Kernax, and of these, which must not share a name."""
        registry = dict(REGISTRY)
        for own in classes:
            if registry.setdefault(own.__name__, own) is not own:
                raise FormatError(
                    f"`classes` holds {own!r}, and there is another class of the name "
                    f"'{own.__name__}'. Fix: rename it, since a file knows classes by name."
                )
        return cls(registry, [])

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
        if kind == "tied" and isinstance(node.get("source"), str):
            return Tied(node["source"])
        if kind == "stacked":
            return self._stacked(node, path, depth)
        if kind in ("tuple", "list") and isinstance(node.get("items"), list):
            return SEQUENCES[kind](
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
                return build_posterior(values, path)
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
    # What may be left out, a file of an earlier version may lack.
    values = {name: None for name, field in fields.items() if field.default is None} | values
    same_names(set(values), set(fields), path)
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
    if isinstance(value, Tied):
        return  # a `TiedKernel` around it looks where it is read from
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

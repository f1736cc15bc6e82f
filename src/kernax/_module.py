"""`Parameterised`: a frozen pytree whose array leaves are named, checked hyperparameters.

Kernels, means and Gaussian processes derive from it. It adds to an Equinox module: conversion
and checking of hyperparameters when built, dotted paths, `replace`, and a flattening that is
remembered, so that an eager call of a nested module costs no more than one of its leaves.
"""

import copy
import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array

from ._errors import DTypeError, ParameterError, ShapeError
from ._inputs import holds_tracer
from ._nodes import Stacked, Tied, Unit, path_name, untied, with_ones
from ._parameters import Constraint, Real, constraint_of, guard, is_constrained

_M = TypeVar("_M", bound="Parameterised")
_T = TypeVar("_T")


class Structure:
    """What a module is apart from its arrays: hashable, one object for equal structures."""

    __slots__ = ("_fixed", "_treedef")
    _interned: ClassVar[dict[Any, "Structure"]] = {}

    def __init__(self, treedef: Any, fixed: tuple[Any, ...]):
        self._treedef, self._fixed = treedef, fixed

    @classmethod
    def intern(cls, treedef: Any, fixed: tuple[Any, ...]) -> "Structure":
        # Identity then decides equality, which costs jit nothing at each call.
        key = (treedef, fixed)
        return cls._interned.setdefault(key, cls(*key))

    def rebuild(self, leaves: tuple[Array, ...]) -> Any:
        arrays = iter(leaves)
        return jtu.tree_unflatten(
            self._treedef, [next(arrays) if leaf is _ARRAY else leaf for leaf in self._fixed]
        )


class _ArrayMark:
    def __repr__(self) -> str:
        return "array"


_ARRAY = _ArrayMark()


class Hyperparameter(NamedTuple):
    """One array leaf of a module: its dotted path, value, constraint, and number of batch axes."""

    path: str
    value: Array
    constraint: Constraint
    batches: int = 0


class Parameterised(eqx.Module):
    """A frozen module whose array leaves are hyperparameters in natural scale."""

    # Where `flatten` remembers its answer; Equinox takes entries of __dict__ for part of the type.
    __slots__ = ("_flat",)

    # Equinox wraps each bound method into a module, at 80 us per access; a plain method is
    # free, and hashable by identity, so that `jax.jit(kernel.gram)` works.
    __getattribute__ = object.__getattribute__

    def __check_init__(self) -> None:
        owner = type(self).__name__
        for field in dataclasses.fields(self):
            if field.metadata.get("static", False):
                continue
            value = getattr(self, field.name)
            left_out = value is None and field.default is None
            if is_constrained(field) and not isinstance(value, Unit) and not left_out:
                _check_number(value, f"{owner}: `{field.name}`")
            constraint = constraint_of(field)
            value = _converted(value, f"{owner}: `{field.name}`", constraint)
            object.__setattr__(self, field.name, value)
            if isinstance(value, Stacked):
                check_value(value.values, constraint, f"{owner}: `{field.name}`")

    @property
    def hyperparameters(self) -> dict[str, Array]:
        """Dotted path -> array, for every hyperparameter, in a fixed order."""
        return {entry.path: entry.value for entry in named_leaves(self)}

    def replace(self: _M, **hyperparameters: Any) -> _M:
        """A copy with other hyperparameters.

        Names are dotted paths (``replace(**{"left_kernel.length_scale": 2.0})``) or their last
        part where only one path ends so. A scalar fills an array; else shapes must agree,
        except that a scalar may become one value per dimension.

        Raises `ParameterError` for an unknown or ambiguous name or a value outside its
        constraint, `ShapeError` for a wrong shape.
        """
        entries = named_leaves(self)
        paths = [entry.path for entry in entries]
        new: dict[str, Array] = {}
        for name, value in hyperparameters.items():
            entry = entries[paths.index(resolve(name, paths, "hyperparameter"))]
            new[entry.path] = _replacement(entry, value)
        replaced: _M = with_leaves(self, new)
        return replaced

    @property
    def structure(self) -> Structure:
        """What this object is apart from its hyperparameters; hashable."""
        return flatten(self)[0]

    def equals(self, other: object) -> bool:
        """True where ``other`` has the same structure and exactly equal hyperparameters."""
        if not isinstance(other, Parameterised) or self.structure is not other.structure:
            return False
        pairs = zip(flatten(self)[1], flatten(other)[1], strict=True)
        same = lambda a, b: a.shape == b.shape and a.dtype == b.dtype and bool((a == b).all())
        return all(same(a, b) for a, b in pairs)

    def __delattr__(self, name: str) -> None:
        # Equinox guards only assignment.
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def __hash__(self) -> int:
        raise TypeError(
            f"{type(self).__name__} holds arrays and is not hashable. Fix: pass it to a jitted "
            "function as an argument, not as static; its `.structure` is hashable."
        )

    def __reduce__(self) -> Any:
        return rebuild_fields, (type(self), field_values(self))

    def __deepcopy__(self: _M, memo: dict[int, Any]) -> _M:
        result: _M = rebuild_fields(type(self), copy.deepcopy(field_values(self), memo))
        return result


def field_values(module: Any) -> dict[str, Any]:
    return {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}


def rebuild_fields(cls: type, values: dict[str, Any]) -> Any:
    """An instance of ``cls`` from its field values, without calling its ``__init__``."""
    module: Any = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(module, name, value)
    return module


def with_fields(module: _T, **values: Any) -> _T:
    """A copy with other values in some fields, unchecked."""
    copied: _T = rebuild_fields(type(module), field_values(module) | values)
    return copied


def flatten(module: Any) -> tuple[Structure, tuple[Array, ...]]:
    """The structure and array leaves of a module, remembered on the (frozen) instance."""
    try:
        found: tuple[Structure, tuple[Array, ...]] = module._flat
        return found
    except AttributeError:
        leaves, treedef = jtu.tree_flatten(module)
        # A Python number, put there by a tree operation, would be compiled in.
        leaves = [as_parameter(x, "a leaf") if type(x) in (int, float) else x for x in leaves]
        fixed = tuple(_ARRAY if eqx.is_array(leaf) else leaf for leaf in leaves)
        arrays = tuple(leaf for leaf in leaves if eqx.is_array(leaf))
        flat = (Structure.intern(treedef, fixed), arrays)
        object.__setattr__(module, "_flat", flat)
        return flat


def named_leaves(module: Any) -> list[Hyperparameter]:
    """Every floating array leaf of a tree, with its dotted path and its constraint."""
    is_stacked = lambda node: isinstance(node, Stacked)
    found = []
    for path, node in jtu.tree_flatten_with_path(module, is_leaf=is_stacked)[0]:
        value, batches = (node.values, sum(node.axes)) if is_stacked(node) else (node, 0)
        if eqx.is_inexact_array(value):
            constraint = _constraint_at(module, path)
            found.append(Hyperparameter(path_name(path), value, constraint, batches))
    return found


def with_leaves(module: Any, values: dict[str, Any]) -> Any:
    """A copy of the tree with the leaves at the given exact paths exchanged, unchecked."""
    return jtu.tree_map_with_path(lambda path, leaf: values.get(path_name(path), leaf), module)


def prepared(module: Any, dtype: Any) -> Any:
    """The tree as arithmetic wants it: without ties and units, leaves of one dtype, guarded."""
    module = with_ones(untied(module), dtype)
    return jtu.tree_map_with_path(
        lambda path, leaf: (
            guard(leaf.astype(dtype), _constraint_at(module, path))
            if eqx.is_inexact_array(leaf)
            else leaf
        ),
        module,
    )


def resolve(name: str, paths: list[str], kind: str) -> str:
    """The one path that ``name`` is, or ends; else a `ParameterError` with a suggestion."""
    if name in paths:
        return name
    found = [path for path in paths if path.endswith("." + name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ParameterError(
            f"{kind} '{name}' is ambiguous: it may be any of {', '.join(found)}. "
            f"Fix: write the whole path, for instance '{found[0]}'."
        )
    raise ParameterError(f"no {kind} '{name}'{suggestion(name, paths)}")


def suggestion(name: str, paths: Sequence[str]) -> str:
    """The end of a message on an unknown name: the nearest known one, and all there are."""
    last = {path.rsplit(".", 1)[-1]: path for path in paths}
    close = difflib.get_close_matches(name, [*paths, *last], n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else "."
    return f"{hint} Fix: choose from {', '.join(paths) or '(there are none)'}."


def as_parameter(value: Any, label: str, constraint: Constraint | None = None) -> Array:
    """A hyperparameter as an array of a floating dtype; Python numbers take the default one."""
    if isinstance(value, int | float | complex) or not hasattr(value, "dtype"):
        try:
            value = jnp.asarray(value) if holds_tracer(value) else np.asarray(value)
        except ValueError as error:
            raise ShapeError(
                f"{label} got a ragged list, expected numbers of one shape. Fix: pass an array."
            ) from error
    whole = isinstance(value.dtype, np.dtype) and value.dtype.kind in "iu"
    if not whole and value.dtype not in (jnp.float32, jnp.float64):
        raise DTypeError(
            f"{label} has dtype {value.dtype}, expected float32 or float64. "
            "Fix: convert it, for instance with numpy.float64(value)."
        )
    dtype = jnp.result_type(float) if whole else jax.dtypes.canonicalize_dtype(value.dtype)
    if value.dtype != dtype:
        with np.errstate(over="ignore"):
            value = value.astype(dtype)
    if constraint is not None:
        # Now, since inside a trace no value of an array of JAX can be seen.
        check_value(value, constraint, label)
    # On the CPU an array of NumPy would be shared with its owner; copied here, nothing is compiled.
    return jnp.asarray(np.array(value) if isinstance(value, np.ndarray) else value, dtype)


def check_value(value: Any, constraint: Constraint, label: str) -> None:
    """`ParameterError` where a concrete value is outside its constraint; a traced one passes."""
    if isinstance(value, jax.core.Tracer) or not eqx.is_inexact_array(value):
        return
    host = np.asarray(value)
    # Arithmetic may flush subnormal numbers to 0.
    host = np.where(np.abs(host) < np.finfo(host.dtype).tiny, np.zeros_like(host), host)
    allowed = np.asarray(constraint.contains(host))
    if not allowed.all():
        bad = host[~allowed].ravel()[0] if host.ndim else host
        raise ParameterError(
            f"{label} is {float(bad)!r}, but must be finite: expected {constraint}. "
            "Fix: pass a value in that range."
            if not np.isfinite(bad)
            else f"{label} is {float(bad)!r}, expected {constraint}. "
            "Fix: pass a value in that range."
        )


def short(value: Any, digits: str = ".10g") -> str:
    """A hyperparameter as text: ``67``, ``[1, 2]``, or its shape where it is long or traced."""
    if isinstance(value, Unit):
        return "1"
    value = value.values if isinstance(value, Stacked) else value
    if not hasattr(value, "dtype"):
        return repr(value)  # what stands for an array in a tree, as an axis or None
    known = isinstance(value, jax.Array | np.ndarray) and not isinstance(value, jax.core.Tracer)
    if not known or np.size(value) > 8 or np.ndim(value) > 1:
        return f"{value.dtype.name}[{','.join(map(str, value.shape))}]"
    digits = ".7g" if digits == ".10g" and value.dtype == np.float32 else digits
    numbers = [format(float(item), digits) for item in np.atleast_1d(np.asarray(value))]
    return f"[{', '.join(numbers)}]" if np.ndim(value) else numbers[0]


def _converted(value: Any, label: str, constraint: Constraint) -> Any:
    if isinstance(value, Unit | Stacked | Tied | eqx.Module) or callable(value) or value is None:
        return value
    if isinstance(value, dict) or (
        isinstance(value, list | tuple) and any(np.ndim(leaf) for leaf in jtu.tree_leaves(value))
    ):
        return jtu.tree_map(
            lambda leaf: _converted(leaf, label, constraint),
            value,
            is_leaf=lambda leaf: leaf is not value,
        )
    return as_parameter(value, label, constraint)


def _check_number(value: Any, label: str) -> None:
    if value is None or callable(value) or isinstance(value, str | dict | set):
        raise DTypeError(
            f"{label} is {value!r}, expected a number or an array of numbers. "
            "Fix: pass a number, for instance 1.0."
        )


def _replacement(entry: Hyperparameter, value: Any) -> Array:
    label = f"hyperparameter '{entry.path}'"
    array = as_parameter(value, label, entry.constraint)
    plain = isinstance(value, int | float) or not hasattr(value, "dtype")
    if plain and array.dtype != entry.value.dtype:
        array = array.astype(entry.value.dtype)
        check_value(array, entry.constraint, label)
    batch = entry.value.shape[: entry.batches]
    if array.shape == entry.value.shape:
        return array
    if entry.value.ndim == entry.batches and array.ndim and array.shape[: entry.batches] == batch:
        return array
    if array.ndim == 0:
        return jnp.broadcast_to(array, entry.value.shape)
    raise ShapeError(
        f"{label} got shape {array.shape}, expected {entry.value.shape}. "
        "Fix: pass one value, or as many as it has now."
    )


def _constraint_at(module: Any, path: tuple[Any, ...]) -> Constraint:
    constraint: Constraint = Real()
    for node, field in _fields_along(module, path):
        constraint = constraint_of(field) if isinstance(node, Parameterised) else constraint
    return constraint


def _fields_along(
    node: Any, path: tuple[Any, ...]
) -> Iterator[tuple[Any, "dataclasses.Field[Any]"]]:
    for key in path:
        if isinstance(key, jtu.GetAttrKey):
            if isinstance(node, Parameterised):
                yield node, type(node).__dataclass_fields__[key.name]
            node = getattr(node, key.name)
        elif isinstance(key, jtu.DictKey | jtu.SequenceKey):
            node = node[key.key if isinstance(key, jtu.DictKey) else key.idx]
        else:
            return

"""Trees as plain data: a description of each leaf, and arrays of NumPy."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import FormatError

KEY = "key of "
_NUMBERS: dict[str, type] = {"bool": bool, "int": int, "float": float}


class Leaf(NamedTuple):
    """What a file says of a leaf."""

    path: str
    kind: str  # "array", "key of <implementation>", or the type of a number of Python
    dtype: str
    shape: list[int]
    spread: bool  # over several processes, each with a part

    def __str__(self) -> str:
        form = f" {self.dtype} {tuple(self.shape)}" if self.dtype else ""
        return f"{self.kind}{form}"


def leaves_of(tree: Any) -> tuple[list[Leaf], list[Any]]:
    """The description of each leaf, and what is to be stored of it: arrays, and Python numbers."""
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    found = [_described(leaf, f"tree{jax.tree_util.keystr(path)}") for path, leaf in pairs]
    return [leaf for leaf, _ in found], [value for _, value in found]


def _described(leaf: Any, path: str) -> tuple[Leaf, Any]:
    for kind, cls in _NUMBERS.items():
        if type(leaf) is cls:
            return Leaf(path, kind, "", [], False), leaf
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
        raise FormatError(
            f"`{path}` is a {type(leaf).__name__}, expected an array, a key or a number. Fix: keep "
            "arrays only, for instance by equinox.filter(tree, equinox.is_array)."
        )
    sharding = getattr(leaf, "sharding", None)
    spread = sharding is not None and not (
        sharding.is_fully_addressable or sharding.is_fully_replicated
    )
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        kinds: list[str] = []
        jax.eval_shape(lambda key: kinds.append(f"{KEY}{jax.random.key_impl(key)}"), leaf)
        data = jax.eval_shape(jax.random.key_data, leaf)
        value = jax.random.key_data(leaf) if isinstance(leaf, jax.Array) else leaf
        return Leaf(path, kinds[0], data.dtype.name, list(data.shape), spread), value
    if leaf.dtype.kind not in "biufc" and not jnp.issubdtype(leaf.dtype, np.number):
        raise FormatError(f"`{path}` has dtype {leaf.dtype}. Fix: pass numbers.")
    return Leaf(path, "array", leaf.dtype.name, list(leaf.shape), spread), leaf


def check_alike(found: list[Leaf], expected: list[Leaf], where: str, other: str) -> None:
    """`FormatError` that names the first leaf of which two trees do not agree."""
    for mine, theirs, here, there in (
        (expected, found, other, where),
        (found, expected, where, other),
    ):
        known = {leaf.path for leaf in theirs}
        missing = [leaf.path for leaf in mine if leaf.path not in known]
        if missing:
            raise FormatError(
                f"`{missing[0]}` is in {here} and not in {there}, expected the same leaves. "
                "Fix: build both trees alike."
            )
    for one, two in zip(found, expected, strict=True):
        if one[:4] != two[:4]:
            raise FormatError(
                f"`{one.path}` is {one} in {where} and {two} in {other}, expected the same. "
                "Fix: build both trees alike."
            )


def skeleton(tree: Any) -> Any:
    """The dictionaries, lists and tuples of a tree as plain data; None where it has other nodes."""
    try:
        return _skeleton(tree, iter(range(1 << 60)))
    except TypeError:
        return None


def _skeleton(node: Any, count: Iterator[int]) -> Any:
    if node is None:
        return {"type": "none"}
    if type(node) is dict and all(type(key) is str for key in node):
        # In the order of JAX.
        return {"type": "dict", "items": {key: _skeleton(node[key], count) for key in sorted(node)}}
    if type(node) in (list, tuple):
        return {"type": type(node).__name__, "items": [_skeleton(item, count) for item in node]}
    if not jax.tree_util.treedef_is_leaf(jax.tree.structure(node)):
        raise TypeError
    return {"type": "leaf", "number": next(count)}


def plain_tree(node: Any, values: list[Any]) -> Any:
    """The tree of a skeleton."""
    kind = node["type"]
    if kind == "none":
        return None
    if kind == "leaf":
        return values[node["number"]]
    if kind == "dict":
        return {key: plain_tree(item, values) for key, item in node["items"].items()}
    items = [plain_tree(item, values) for item in node["items"]]
    return items if kind == "list" else tuple(items)


def restored(leaf: Leaf, value: Any, like: Any) -> Any:
    """A leaf from what was stored: as ``like`` has it, on its devices; of NumPy without one."""
    if leaf.kind in _NUMBERS or isinstance(value, jax.Array):
        return value
    sharding = getattr(like, "sharding", None) if getattr(like, "committed", True) else None
    if leaf.kind.startswith(KEY):
        wrap = partial(jax.random.wrap_key_data, impl=leaf.kind.removeprefix(KEY))
        return (
            wrap(jnp.asarray(value))
            if sharding is None
            else jax.jit(wrap, out_shardings=sharding)(value)
        )
    if not isinstance(like, jax.Array | jax.ShapeDtypeStruct):
        return value[()] if isinstance(like, np.generic) else value
    if sharding is None:
        return jnp.asarray(value)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

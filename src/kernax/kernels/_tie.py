"""Hyperparameters that are one: a kernel in which some are read from others."""

import dataclasses
from typing import Any

import equinox as eqx
import jax.tree_util as jtu
from jaxtyping import Array

from .._errors import ParameterError, ShapeError
from .._module import Hyperparameter, named_leaves, resolve, with_leaves
from .._nodes import Stacked, Tied, Tying, Unit, path_name
from .._typing import OtherPointOrPoints, PointOrPoints
from ._base import AbstractKernel
from ._compose import Call, TransparentKernel, WrapperKernel


class TiedKernel(TransparentKernel, WrapperKernel, Tying):
    """What `tie` makes: ``inner_kernel`` with some hyperparameters read from others.

    k(x, y) = inner(x, y)

    ``ties`` holds pairs of paths in ``inner_kernel``: the one that is read, and where from.
    """

    ties: tuple[tuple[str, str], ...] = eqx.field(static=True)

    def __check_init__(self) -> None:
        nodes = _nodes(self.inner_kernel)
        for target, source in self.ties:
            read, value = nodes.get(target), nodes.get(source)
            there = isinstance(value, Stacked | Unit) or eqx.is_inexact_array(value)
            if not there or not isinstance(read, Tied | Unit):
                raise ParameterError(
                    f"TiedKernel: '{target}' and '{source}' are not tied in {self.inner_kernel!r}. "
                    "Fix: use kernax.tie(kernel, {...})."
                )

    def untied(self) -> AbstractKernel:
        """The inner kernel with a value of its own in each place."""
        nodes = _nodes(self.inner_kernel)
        values = {target: nodes[source] for target, source in self.ties}

        def fill(path: tuple[Any, ...], node: Any) -> Any:
            return values.get(path_name(path), node) if isinstance(node, Tied) else node

        kernel: AbstractKernel = jtu.tree_map_with_path(fill, self.inner_kernel, is_leaf=_is_node)
        return kernel

    def compose(self, call: Call, x: PointOrPoints, y: OtherPointOrPoints) -> Any:
        return call(self.untied(), x, y)

    def rescaled(self, length_scales: Array) -> AbstractKernel:
        return self.untied().rescaled(length_scales)


def tie(kernel: AbstractKernel, ties: dict[str, str]) -> TiedKernel:
    """The kernel with some hyperparameters read from others, so that they are one::

        k = kernax.SEKernel(2.0) + kernax.LinearKernel() * kernax.SEKernel()
        tied = kernax.tie(k, {"right_kernel.right_kernel.length_scale": "left_kernel.length_scale"})

    In ``k + k`` the two are copies, each with hyperparameters of its own. ``ties`` says which one
    is read from which other one, by the names that `replace` takes. The first has no value and no
    path any more; `replace`, fitting and gradients act on the second, for both. In a batch, tie
    inside it: ``BatchKernel(tie(kernel, ...), ...)``.

    Raises `ParameterError` for an unknown name, for one that is read and read from, and where
    constraints differ; `ShapeError` where shapes do.
    """
    if kernel.levels():
        raise ParameterError(
            f"`kernel` = {kernel!r} is a batch. Fix: tie the kernel inside it, "
            "BatchKernel(kernax.tie(kernel, ...), ...)."
        )
    entries = {entry.path: entry for entry in named_leaves(kernel)}
    full = lambda name: resolve(name, list(entries), "hyperparameter")
    pairs = {full(target): full(source) for target, source in ties.items()}
    for target, source in pairs.items():
        _check(entries[target], entries[source], target in pairs.values() or source in pairs)
    inner = with_leaves(kernel, {target: Tied(source) for target, source in pairs.items()})
    return TiedKernel(inner, tuple(sorted(pairs.items())))


def _check(target: Hyperparameter, source: Hyperparameter, chained: bool) -> None:
    if chained:
        raise ParameterError(
            f"'{target.path}' is tied to '{source.path}', and one of them is at the other end of a "
            "tie too. Fix: tie all to one that is tied to nothing."
        )
    # Whether a traced value is guarded makes no difference to which values are allowed.
    allowed = [dataclasses.replace(e.constraint, guarded=True) for e in (target, source)]
    if allowed[0] != allowed[1]:
        raise ParameterError(
            f"'{target.path}' is {allowed[0]} and '{source.path}' {allowed[1]}, expected the same. "
            "Fix: tie hyperparameters with one constraint."
        )
    if target.value.shape != source.value.shape:
        raise ShapeError(
            f"'{target.path}' has shape {target.value.shape} and '{source.path}' "
            f"{source.value.shape}, expected the same. Fix: replace one of them first."
        )


def _is_node(node: Any) -> bool:
    return isinstance(node, Tied | Unit | Stacked)


def _nodes(kernel: AbstractKernel) -> dict[str, Any]:
    found = jtu.tree_flatten_with_path(kernel, is_leaf=_is_node)[0]
    return {path_name(path): node for path, node in found}

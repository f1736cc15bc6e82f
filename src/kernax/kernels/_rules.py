"""What is known of a kernel by its class: spectral densities, spectral samples."""

from collections.abc import Callable
from typing import Any, TypeVar

from ._base import AbstractKernel

_F = TypeVar("_F", bound=Callable[..., Any])
_FORMULA = ("pairwise", "profile", "compose", "static_class")


class Rules:
    """One function per kernel class, and a method by which a user's class brings its own.

    A subclass with another formula is another kernel, of which nothing is known.
    """

    def __init__(self, method: str):
        self.method = method
        self._by_class: dict[type, Callable[..., Any]] = {}

    def of(self, *classes: type) -> Callable[[_F], _F]:
        """Decorates the function for these classes."""

        def register(function: _F) -> _F:
            self._by_class.update(dict.fromkeys(classes, function))
            return function

        return register

    def find(self, kernel: AbstractKernel) -> Callable[..., Any] | None:
        """The function for a kernel, which gets it as its first argument; None where none is."""
        cls = type(kernel)
        for parent in cls.__mro__:
            known = self._by_class.get(parent) or parent.__dict__.get(self.method)
            if known is not None:
                same = all(getattr(cls, n, None) is getattr(parent, n, None) for n in _FORMULA)
                return known if same else None
        return None

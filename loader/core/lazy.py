"""Lazy: import the public names of a package when they are first used, not with the package."""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # instead of typing.TYPE_CHECKING: typing takes a while to load
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def load_on_use(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return the functions ``__getattr__`` and ``__dir__`` of a package.

    ``package`` is the name of the package, and ``homes`` has the module of each public name,
    relative to the package.
    """

    def load(name: str) -> object:
        if name in homes:
            return getattr(importlib.import_module(f".{homes[name]}", package), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return load, lambda: sorted(homes)

"""Lazy: public names of a package load on first use, so that importing the package is fast."""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # instead of typing.TYPE_CHECKING: typing takes a while to load
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def load_on_use(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` for ``package``; ``homes`` maps names to modules."""

    def load(name: str) -> object:
        if name in homes:
            return getattr(importlib.import_module(f".{homes[name]}", package), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return load, lambda: sorted(homes)

"""Versions: the versions of packages on which the bytes that tasks write depend."""

import importlib.metadata
import platform
import re
from collections.abc import Mapping

_OTHERS = ("docs", "test")
"""Extras whose packages do not change the bytes that tasks write."""


def versions_here() -> dict[str, str]:
    """Return the versions of Python, of climbstream and of its installed dependencies, by name.

    The result also has the type of the machine's processor, by the name ``machine``.
    """
    found = {"Python": platform.python_version(), "machine": platform.machine()}
    for requirement in ["climbstream", *(importlib.metadata.requires("climbstream") or ())]:
        name, _, marker = requirement.partition(";")
        if not any(f'"{extra}"' in marker.replace("'", '"') for extra in _OTHERS):
            package = re.split(r"[^\w.-]", name)[0]
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
    return found


def version_differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """Return a text for each package whose versions differ; [] if none differ.

    >>> version_differences({"numpy": "2.1", "ray": "2.40"}, {"numpy": "2.2"})
    ['numpy 2.1 and 2.2', 'ray 2.40 and none']
    """
    return [
        f"{name} {ours.get(name, 'none')} and {theirs.get(name, 'none')}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]

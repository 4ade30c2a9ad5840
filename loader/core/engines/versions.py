"""Versions of the packages that determine the bytes that tasks write."""

import importlib.metadata
import platform
import re
from collections.abc import Mapping

_OTHERS = ("docs", "test")
"""Extras whose packages have no influence on the bytes that tasks write."""


def versions_here() -> dict[str, str]:
    """Return the versions of Python, climbstream and its installed dependencies, by name.

    The result also has the type of the machine, under the name ``machine``.
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
    """Return one text per name whose versions differ; [] if none differ.

    >>> version_differences({"numpy": "2.1", "ray": "2.40"}, {"numpy": "2.2"})
    ['numpy 2.1 and 2.2', 'ray 2.40 and none']
    """
    return [
        f"{name} {ours.get(name, 'none')} and {theirs.get(name, 'none')}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]

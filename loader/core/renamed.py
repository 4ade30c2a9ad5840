"""Renamed: old names of parameters and attributes work for one more release, with a warning."""

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def renamed_parameters(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator: the function then also accepts old names of parameters, and warns.

    ``names`` are the new names by old name, as in ``old="new"``.

    >>> @renamed_parameters(part="fraction")
    ... def take(*, fraction=1.0):
    ...     return fraction
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     take(part=0.5), str(caught[0].message)
    (0.5, 'take: part is called fraction now; the next release will not accept the old name')

    Raises:
        TypeError: A call passes a parameter by both its old and its new name.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in names.keys() & kwargs.keys():
                new = names[old]
                if new in kwargs:
                    raise TypeError(f"{name}: {old} is called {new} now; give only {new}")
                warnings.warn(
                    f"{name}: {old} is called {new} now; the next release will not accept the old "
                    "name",
                    DeprecationWarning,
                    stacklevel=2,
                )
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate


def renamed_attribute(old: str, new: str) -> property:
    """Return a property for the name ``old``; it warns, and returns the attribute ``new``."""

    def read(owner: object) -> object:
        warnings.warn(
            f"{type(owner).__name__}.{old} is called {new} now; the old name goes with the next "
            "release",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(owner, new)

    return property(read, doc=f"Old name of ``{new}``.")

"""What commands have in common: the option ``--json``, NAME=NUMBER, results on stdout."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from climbstream.loader.core.visible_text import visible, visible_json

F = TypeVar("F", bound=Callable[..., Any])


def split_number(word: str) -> tuple[str, float]:
    """Read ``NAME=NUMBER``; a name may hold a ``=`` too.

    Raises:
        ValueError: It is nothing of that.
    """
    name, _, number = word.rpartition("=")
    if not name:
        raise ValueError(word)
    return name, float(number)


def json_option(command: F) -> F:
    """Give ``command`` the option ``--json``, as its argument ``as_json``."""
    decorate: Callable[[F], F] = click.option(
        "--json", "as_json", is_flag=True, help="Write the result as JSON."
    )
    return decorate(command)


def show(value: Any, text: str, *, as_json: bool) -> None:
    """Write a result to stdout: ``value`` as JSON, or ``text``."""
    click.echo(visible_json(value) if as_json else visible(text))

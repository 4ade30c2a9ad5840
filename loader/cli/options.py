"""Options: parts that commands share, such as the option ``--json``, types of arguments, output."""

import functools
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import click

from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.files import COPY_AFTER, COPY_FIRST, refuse_url
from climbstream.loader.core.visible_text import visible, visible_json

_PREFIXES = dict(zip("kmgt", range(1, 5), strict=True))
_UNITS = {
    "": 1,
    "b": 10**9,
    **{f"{name}{end}": 1000**power for name, power in _PREFIXES.items() for end in ("", "b")},
    **{f"{name}ib": 1024**power for name, power in _PREFIXES.items()},
}
"""The number that each unit stands for; units are in lower case, and ``b`` alone means billion."""
_NUMBER = re.compile(r"([+-]?[\d_,]*\.?\d*(?:e[+-]?\d+)?)\s*([a-z]*)", re.IGNORECASE)

F = TypeVar("F", bound=Callable[..., Any])


class Fraction(click.ParamType):  # type: ignore[type-arg] # generic only in later releases
    """A number, which may be written in percent: ``0.1`` or ``10%``."""

    name = "fraction"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return ``value`` as a number; fail if it is none."""
        try:
            return to_number(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a number; write 0.1 or 10%", param, ctx)


def to_number(word: str) -> float:
    """Return the number in ``word``, which may be in percent.

    Raises:
        ValueError: ``word`` is no number.

    >>> to_number("0.4"), to_number("40%")
    (0.4, 0.4)
    """
    percent = word.removesuffix("%")
    return float(word) if percent == word else float(percent) / 100


class Count(click.ParamType):  # type: ignore[type-arg] # generic only in later releases
    """A whole number as people write it: ``1000000``, ``1_000_000``, ``1e6``, ``10M``, ``4GiB``."""

    name = "count"

    def __init__(self, least: int = 1) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return ``value`` as an integer; fail if it is no whole number, or too small."""
        if isinstance(value, int):
            number = Decimal(value)
        else:
            match = _NUMBER.fullmatch(str(value).strip())
            digits, unit = match.groups() if match else ("", "")
            try:
                number = Decimal(re.sub("[_,]", "", digits)) * _UNITS[unit.lower()]
            except (ArithmeticError, KeyError):
                self.fail(f"{value!r} is not a number; write 1000000, 1e6, 10M or 4GiB", param, ctx)
        if number != number.to_integral_value():
            self.fail(
                f"{value!r} is not a whole number; write 1000000, 1e6, 10M or 4GiB", param, ctx
            )
        if number < self.least:
            self.fail(f"{value} is not in the range x>={self.least}.", param, ctx)
        return int(number)


COUNT = Count()


class LocalPath(click.Path):
    """The type of an argument that is a path of this machine, and no URL."""

    def __init__(self, remedy: str) -> None:
        """Make the type; ``remedy`` tells the user what to do instead of giving a URL."""
        super().__init__(path_type=Path)
        self.remedy = remedy

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return ``value`` as a `Path`; fail if it is a URL."""
        try:
            refuse_url(value, self.remedy)
        except UsageError as error:
            self.fail(str(error), param, ctx)
        return super().convert(value, param, ctx)


INPUT, OUTPUT = LocalPath(COPY_FIRST), LocalPath(COPY_AFTER)


class GroupedCommand(click.Command):
    """A command whose help lists its options in groups, each under a heading."""

    def __init__(self, *args: Any, groups: dict[str, str], **kwargs: Any) -> None:
        """Make a command of click.

        ``groups`` has, for each heading, the names of the parameters below it, in one text and
        separated by spaces.
        """
        super().__init__(*args, **kwargs)
        self.groups = {heading: names.split() for heading, names in groups.items()}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of each group, and then those that are in no group."""
        options = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        records = {option.name: option.get_help_record(ctx) for option in options}
        grouped = {name for names in self.groups.values() for name in names}
        others = [name for name in records if name not in grouped]
        for heading, names in {**self.groups, "Other options": others}.items():
            if rows := [record for name in names if (record := records[name]) is not None]:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def split_number(word: str) -> tuple[str, float]:
    """Return the name and the number in ``word``, which is ``NAME=NUMBER``.

    The name may contain ``=``.

    Raises:
        ValueError: ``word`` has another form.
    """
    name, _, number = word.rpartition("=")
    if not name:
        raise ValueError(word)
    return name, to_number(number)


def json_option(command: F) -> F:
    """Add the option ``--json`` to ``command``, which gets it as the argument ``as_json``."""
    decorate: Callable[[F], F] = click.option(
        "--json", "as_json", is_flag=True, help="Write the result as JSON."
    )
    return decorate(command)


def grouping_option(command: F) -> F:
    """Add the option ``--grouping`` to ``command``.

    If the option is used, the argument ``directory`` becomes the folder of the grouping.
    """

    @functools.wraps(command)
    def grouped(*, directory: Any, grouping: str | None, **others: Any) -> Any:
        # Imported here, so that ``--help`` is fast.
        from climbstream.loader.formats.grouping import folder_of

        place = directory if grouping is None else folder_of(directory, grouping)
        return command(directory=place, **others)

    decorate = click.option(
        "--grouping",
        metavar="NAME",
        help="Use the groups that climb regroup wrote to DIRECTORY/groupings/NAME as clusters.",
    )
    return decorate(grouped)  # type: ignore[return-value] # the same parameters but for one


def show(value: Any, text: str, *, as_json: bool) -> None:
    """Write a result to stdout: ``value`` as JSON if ``as_json``, else ``text``."""
    click.echo(visible_json(value) if as_json else visible(text))

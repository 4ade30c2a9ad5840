"""What mkdocs calls: pages of the reference, which are made from the commands and public names."""

import importlib
import inspect
import types
from collections.abc import Iterator

import click

from climbstream.loader.cli.main import COMMANDS, root

PACKAGES = ("loader", "builder", "search")


def on_page_markdown(markdown: str, page: object, **_: object) -> str:
    """Put what is generated where a page asks for it."""
    del page
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", commands())
    if "<!-- names -->" in markdown:
        markdown = markdown.replace("<!-- names -->", names())
    return markdown


def commands() -> str:
    """Return the help of every command."""
    context = click.Context(root, info_name="climb")
    parts = []
    for name in COMMANDS:
        command = root.get_command(context, name)
        assert command is not None
        help_ = click.Context(command, info_name=f"climb {name}", max_content_width=100)
        parts.append(f"## climb {name}\n\n```text\n{command.get_help(help_)}\n```\n")
    return "\n".join(parts)


def names() -> str:
    """Return the documentation of every public name.

    Raises:
        LookupError: A public name says nothing of itself.
    """
    parts = []
    for package in PACKAGES:
        module = importlib.import_module(f"climbstream.{package}")
        if silent := list(undocumented(module)):
            raise LookupError(f"{module.__name__}: no docstring of {', '.join(silent)}")
        parts.append(
            f"::: climbstream.{package}\n    options: {{members: false, heading_level: 2}}\n"
        )
        for name in sorted(module.__all__):
            thing = getattr(module, name)
            where = (
                f"{thing.__module__}.{thing.__qualname__}" if hasattr(thing, "__module__") else ""
            )
            parts.append(f"::: {where or f'climbstream.{package}.{name}'}\n")
    return "\n".join(parts)


def undocumented(module: types.ModuleType) -> Iterator[str]:
    """Yield the public names of ``module``, and their methods, that have no docstring."""
    for name in module.__all__:
        thing = getattr(module, name)
        # A dataclass without a docstring is given its signature.
        if (thing.__doc__ or f"{name}(").startswith(f"{name}("):
            yield name
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                called = isinstance(value, property | classmethod | staticmethod) or callable(value)
                if called and not member.startswith("_") and not value.__doc__:
                    yield f"{name}.{member}"

"""Completion: what the Tab key completes in a shell: folders, names of clusters, and targets.

If a file cannot be read, nothing is completed, and no message is shown, because a message would
break the line that the user is typing.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from climbstream.loader.formats.clusters import load_clusters
from climbstream.loader.formats.manifest import Manifest
from climbstream.loader.weights.request import open_weights_log, read_clusters

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


class Place(click.ParamType):  # type: ignore[type-arg] # generic only in later releases
    """The type of an argument that is a URL or a path of this machine; paths are completed.

    ``kind`` says what the shell completes: "dir" for folders only, or "file".
    """

    name = "text"

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def convert(self, value: Any, param: Any, ctx: Any) -> str:  # noqa: ARG002 - click names them
        """Return ``value`` as a text, unchanged."""
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return an item that tells the shell to complete a path."""
        del ctx, param
        return [CompletionItem(incomplete, type=self.kind)]


PLACE = Place("dir")
SOURCE = Place("file")


def complete_weights(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return completions ``CLUSTER=`` for the shards or the run that the command line names."""
    return _matching([f"{name}=" for name in _clusters(ctx)], incomplete)


def complete_targets(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return completions ``label=NAME`` and ``cluster=NAME`` with names from the shards.

    If none fits, the shell completes a path.
    """
    found = [f"cluster={name}" for name in _clusters(ctx)]
    with suppress(Exception):
        described = load_clusters(_directory(ctx))
        found += [f"label={label}" for label in sorted({k for c in described for k in c.labels})]
    return _matching(found, incomplete) or [CompletionItem(incomplete, type="file")]


def _clusters(ctx: click.Context) -> list[str]:
    with suppress(Exception):
        if run := ctx.params.get("run"):
            known = read_clusters(Path(run)) or open_weights_log(Path(run)).records[0].weights
            return sorted(known)
        return Manifest.load(_directory(ctx)).names
    return []


def _directory(ctx: click.Context) -> str:
    """Return the shard directory that the command line names before the word to be completed.

    If the word is the value of an option, click has not parsed the arguments yet. In that case the
    result is the first argument that is a folder.
    """
    return str(ctx.params.get("directory") or next(a for a in ctx.args if Path(a).is_dir()))


def _matching(words: list[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]

"""Leaks: check whether the shards of a search contain items of the targets.

An item is a question of a task, or a document of a text. If the shards contain items of a target,
the mixture with the best score may simply be the mixture that contains the most of these items.
"""

import contextlib
import io
import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from climbstream.loader.cli.main import call
from climbstream.loader.core.console import counted
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import default_cache, hash_json, read_json, write_json
from climbstream.loader.core.log import get_logger
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.manifest import HELDOUT
from climbstream.search.evaluation.questions import Question
from climbstream.search.evaluation.targets import Target, load_target

logger = get_logger(__name__)


def check_targets(directory: Path, specs: Sequence[str], *, strict: bool) -> list[str]:
    """Return a warning for each target that has items in the shards; it says how many items.

    The warnings are also logged, so that they are seen before proxies are trained.

    The result for each pair of shards and target is kept in the cache. So a later search on the
    same shards does not look for the items of this target again. If a package that is needed to
    look for the items is not installed, a warning says so.

    Raises:
        InvalidDataError: ``strict`` is set, and the shards contain items of a target.
        UsageError: A target does not exist; or ``strict`` is set, and a package that the check
            needs is not installed.
    """
    targets = [load_target(directory, spec) for spec in dict.fromkeys(specs)]
    shards = ShardDirectory(directory).manifest.fingerprint
    kept = [
        default_cache() / "contamination" / f"{hash_json([shards, target.fingerprint])}.json"
        for target in targets
    ]
    if missing := [pair for pair in zip(targets, kept, strict=True) if not pair[1].exists()]:
        try:
            _look(directory, missing)
        except ModuleNotFoundError as error:
            message = (
                f"the targets were not looked for in the shards: {error.name} is not installed; "
                "run pip install 'climbstream[build]'"
            )
            if strict:
                raise UsageError(f"{message}, or leave out --strict") from None
            logger.warning(message)
            return [message]
    parts = [read_json(path) for path in kept]
    leaks = {t.name: _leak(t.name, p) for t, p in zip(targets, parts, strict=True) if p["found"]}
    if leaks and strict:
        raise InvalidDataError(
            f"{'; '.join(leaks.values())}. {_remedy(leaks)}. Or take another target, or "
            "leave out --strict"
        )
    warnings = [
        f"{leak}. The search may prefer a mixture only because it contains these items; climb "
        f"contamination lists them. {_remedy([name])}"
        for name, leak in leaks.items()
    ]
    for warning in warnings:
        logger.warning(warning)
    return warnings


def _remedy(names: Iterable[str]) -> str:
    """Return how to build shards without the items of the targets ``names``.

    The text names no folder, because a published mixture repeats it.
    """
    if not any(name.startswith(("label=", "cluster=")) for name in names):
        return "Build new shards without these items: climb build --decontaminate TASK"
    return (
        "Build new shards without these items: copy the lines of the target from "
        f"{HELDOUT}, which is beside the shards, to FILE, and run climb build --decontaminate "
        "FILE, then climb search --target FILE"
    )


def _leak(name: str, part: dict[str, Any]) -> str:
    clusters = ", ".join(f"{cluster} {count:,}" for cluster, count in part["clusters"].items())
    return (
        f"target {name}: {part['found']:,} of its {counted(part['items'], 'item')} are contained "
        f"in {counted(part['documents'], 'document')} of the shards ({clusters})"
    )


def _look(directory: Path, targets: Sequence[tuple[Target, Path]]) -> None:
    """Run ``climb contamination`` on the items of ``targets``.

    ``targets`` are pairs of a target and the path to which the report on this target is written.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, (target, _) in enumerate(targets):
            lines = [json.dumps(_record(item)) for item in (*target.validation, *target.test)]
            files.append(Path(folder) / f"{number}.jsonl")
            files[-1].write_text("\n".join(lines), encoding="utf-8")
        report = Path(folder) / "report.json"
        with contextlib.redirect_stdout(io.StringIO()):
            call(["contamination", str(directory), *map(str, files), "--out", str(report)])
        for (_, kept), part in zip(targets, read_json(report)["tasks"], strict=True):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(kept, part)


def _record(item: str | Question) -> dict[str, Any]:
    """Return an item as the JSON object of one line in a task file."""
    if isinstance(item, str):
        return {"text": item}
    return {"query": item.query, "choices": list(item.choices), "gold": item.gold}

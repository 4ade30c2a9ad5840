"""Check shards: find the documents of a shard directory that contain items of tasks.

An item is a question of a task, or a text.
"""

import heapq
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from climbstream.builder.features.words import code_points, find_words, fold, opening
from climbstream.loader.core.console import Progress, counted, text_table
from climbstream.loader.core.engines.engine import open_engine
from climbstream.loader.formats.catalogue import look_up
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.tokenizer import read_tokenizer

from .index import ItemIndex, Match, load_index
from .tasks import Task

_PLACES = 20
"""Largest number of documents per item that a report names: the first documents in the shards."""
_SHOWN = 5
"""Largest number of items per task that are shown in a terminal."""
_LITTLE = 2_000_000
"""Shards with fewer tokens are read by this process alone, because other processes would take
longer to start."""
_BATCH = 256
"""Number of documents that are decoded at a time."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """An item of a task that a document of the shards contains."""

    cluster: str
    shard: int
    row: int
    item: int
    share: float
    answer: bool
    tokens: int
    """Number of tokens of the document."""
    text: str
    """Text of the document from the item's first word on, cut to one line."""


@dataclass(frozen=True, slots=True)
class CheckTask:
    """Input of `check_shard`: one shard of a cluster; ``index`` is the file of the `ItemIndex`."""

    shards: ShardDirectory
    cluster: str
    shard: int
    index: Path

    @property
    def name(self) -> str:
        """Name of the shard in messages."""
        return f"{self.cluster} {self.shard}"


@dataclass(frozen=True, slots=True)
class CheckedShard:
    """Result for one shard: numbers of documents and tokens that were read, and the items found."""

    documents: int
    tokens: int
    findings: list[Finding]


@dataclass(slots=True)
class _TaskCount:
    """Counts of the documents that contain an item of one task."""

    documents: int = 0
    tokens: int = 0
    clusters: Counter[str] = field(default_factory=Counter)


def check_shards(
    directory: str | Path, tasks: Sequence[Task], *, workers: int | None = None
) -> dict[str, Any]:
    """Search for the items of ``tasks`` in the documents of a shard directory; return a report.

    The report has these keys:

    - ``shards``: fingerprint of the manifest
    - ``documents``, ``tokens``: numbers of documents and tokens that were read
    - ``contaminated``: number of documents that contain an item, and number of their tokens
    - ``tasks``: a report on each task

    The report on a task has these keys:

    - ``items``: number of items
    - ``too_short``: number of items that are too short to be searched for
    - ``found``: number of items that at least one document contains
    - ``with_answer``: number of items that at least one document contains with their answer
    - ``share``: mean over the found items; the value of an item is the largest share of it that one
      document contains
    - ``documents``, ``tokens``: number of documents that contain an item of the task, and the
      number of their tokens
    - ``clusters``: number of these documents by cluster
    - ``matches``: each found item, with the first documents that contain it

    Raises:
        InvalidDataError: ``directory`` is no shard directory, or cannot be read.
        IntegrityError: The bytes of a shard do not match its index.
        UsageError: The directory has no tokenizer, so there is no text to read.
    """
    shards = ShardDirectory(directory)
    shards.check_pulled(shards.names)
    shards.tokenizer()  # check the tokenizer once here, not in each process
    index = ItemIndex.of(tasks)
    checked = _Checked(index)
    with (
        tempfile.TemporaryDirectory() as folder,
        Progress("look for test questions", None, "documents") as progress,
    ):
        path = Path(folder) / "index.npz"
        index.save(path)
        for result in _check_all(shards, path, workers):
            checked.add(result)
            progress.add(result.documents)
    return checked.report(shards, tasks)


def _check_all(shards: ShardDirectory, index: Path, workers: int | None) -> Iterator[CheckedShard]:
    jobs = (
        CheckTask(shards, name, number, index)
        for name in shards.names
        for number in range(len(shards.index(name).shards))
    )
    if shards.manifest.tokens < _LITTLE:
        yield from map(check_shard, jobs)
        return
    with open_engine("local", workers, index) as engine:
        for _, result in engine.run(check_shard, jobs):
            yield result


def check_shard(task: CheckTask) -> CheckedShard:
    """Search for items in the documents of one shard; return the counts and the found items."""
    index, shards = load_index(task.index), task.shards
    tokenizer = _tokenizer(shards.address)
    (documents,) = shards.documents(task.cluster, [task.shard])
    findings: list[Finding] = []
    for start in range(0, len(documents), _BATCH):
        batch = documents[start : start + _BATCH]
        texts = tokenizer.decode_batch([document.tolist() for document in batch])
        found = index.find_all(texts)
        for row, (text, document, matches) in enumerate(
            zip(texts, batch, found, strict=True), start
        ):
            findings += [_finding(task, row, len(document), text, match) for match in matches]
    return CheckedShard(len(documents), sum(map(len, documents)), findings)


_tokenizer = lru_cache(maxsize=1)(read_tokenizer)


def _finding(task: CheckTask, row: int, tokens: int, text: str, match: Match) -> Finding:
    _, begins, _, _ = find_words(code_points(text))
    shown = opening(fold(text)[int(begins[match.at]) :], 200)
    share = round(match.share, 3)
    return Finding(task.cluster, task.shard, row, match.item, share, match.answer, tokens, shown)


class _Checked:
    """Collects findings; its memory grows with the number of items, not with that of documents."""

    def __init__(self, index: ItemIndex) -> None:
        self._index = index
        self._documents = self._tokens = 0
        self._contaminated = [0, 0]
        self._tasks = [_TaskCount() for _ in index.tasks]
        self._holders: Counter[int] = Counter()
        """By item, the number of documents that contain it."""
        self._best: dict[int, tuple[float, bool]] = {}
        """For each item: its largest share in one document; whether any document has its answer."""
        self._places: dict[int, list[Finding]] = {}

    def add(self, result: CheckedShard) -> None:
        """Add the findings of a shard."""
        self._documents += result.documents
        self._tokens += result.tokens
        sizes = {finding.row: finding.tokens for finding in result.findings}
        self._contaminated[0] += len(sizes)
        self._contaminated[1] += sum(sizes.values())
        pairs = {(int(self._index.task[f.item]), f.row): f for f in result.findings}
        for (task, _), finding in pairs.items():
            count = self._tasks[task]
            count.documents += 1
            count.tokens += finding.tokens
            count.clusters[finding.cluster] += 1
        for finding in result.findings:
            share, answer = self._best.get(finding.item, (0.0, False))
            self._best[finding.item] = max(share, finding.share), answer or finding.answer
            self._holders[finding.item] += 1
            places = [*self._places.get(finding.item, []), finding]
            self._places[finding.item] = heapq.nsmallest(_PLACES, places)

    def report(self, shards: ShardDirectory, tasks: Sequence[Task]) -> dict[str, Any]:
        """Return the report of `check_shards`, with tasks and items in the order of ``tasks``."""
        names = self._names(shards)
        first, parts = 0, []
        for task, count in zip(tasks, self._tasks, strict=True):
            items = range(first, first + len(task.items))
            matched = [n for n in items if n in self._best]
            shares = [self._best[n][0] for n in matched]
            parts.append(
                {
                    "task": task.name,
                    "fingerprint": task.fingerprint,
                    "items": len(task.items),
                    "too_short": int(self._index.missing[items.start : items.stop].sum()),
                    "found": len(matched),
                    "with_answer": sum(self._best[n][1] for n in matched),
                    "share": round(sum(shares) / len(shares), 3) if shares else 0.0,
                    "documents": count.documents,
                    "tokens": count.tokens,
                    "clusters": {n: count.clusters[n] for n in shards.names if n in count.clusters},
                    "matches": [self._match(n, names) for n in matched],
                }
            )
            first = items.stop
        documents, tokens = self._contaminated
        return {
            "shards": shards.manifest.fingerprint,
            "documents": self._documents,
            "tokens": self._tokens,
            "contaminated": {"documents": documents, "tokens": tokens},
            "tasks": parts,
        }

    def _match(self, item: int, names: dict[Any, Any]) -> dict[str, Any]:
        places = []
        for finding in self._places[item]:
            place = asdict(finding)
            del place["item"]
            key = (finding.cluster, finding.shard, finding.row)
            document, origin = names.get(key, (None, None))
            places.append({"id": document, "origin": origin, **place})
        share, answer = self._best[item]
        return {
            "item": self._index.ids[item],
            "share": share,
            "answer": answer,
            "documents": self._holders[item],
            "places": places,
        }

    def _names(self, shards: ShardDirectory) -> dict[Any, Any]:
        """Return identifier and origin of each document in the report; {} for shards at a URL."""
        if shards.local is None:
            return {}
        findings = [finding for some in self._places.values() for finding in some]
        places = {(finding.cluster, finding.shard, finding.row) for finding in findings}
        return look_up(shards.local, places) if places else {}


def report_text(report: dict[str, Any]) -> str:
    """Return a report as text for a terminal: a table of the tasks, and some items of each task."""
    rows = [
        (
            part["task"],
            f"{part['items']:,}",
            f"{part['found']:,}",
            f"{part['with_answer']:,}",
            f"{part['share']:.0%}" if part["found"] else "",
            f"{part['documents']:,}",
            f"{part['tokens']:,}",
            ", ".join(f"{name} {count:,}" for name, count in list(part["clusters"].items())[:6]),
        )
        for part in report["tasks"]
    ]
    heads = ("task", "items", "found", "with answer", "share", "documents", "tokens", "clusters")
    lines = [text_table(heads, rows)]
    for part in report["tasks"]:
        for match in part["matches"][:_SHOWN]:
            lines += _match_lines(part["task"], match)
        if len(part["matches"]) > _SHOWN:
            lines.append(
                f"{part['task']}: {len(part['matches']) - _SHOWN:,} more; --json lists all"
            )
        if short := part["too_short"]:
            lines.append(f"{part['task']}: too short to look for: {counted(short, 'item')}")
    bad = report["contaminated"]
    lines.append(
        f"{bad['documents']:,} of {counted(report['documents'], 'document')} contain an item of a "
        f"task ({bad['tokens']:,} of {counted(report['tokens'], 'token')})"
    )
    return "\n".join(lines)


def _match_lines(task: str, match: dict[str, Any]) -> list[str]:
    place = match["places"][0]
    name = place["id"] or f"document {place['row']} of shard {place['shard']}"
    answer = ", with its answer" if match["answer"] else ""
    more = f" and {match['documents'] - 1:,} more" if match["documents"] > 1 else ""
    return [
        f"{task}, {match['item']}: {match['share']:.0%}{answer} in {name} "
        f"({place['cluster']}){more}",
        f"    {place['text']}",
    ]

"""SideBySide: a comparison of several searches, runs or shard directories, in tables."""

import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any

from climbstream.loader import Manifest
from climbstream.loader.core.console import counted, decimals, text_table, with_error
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.files import read_json
from climbstream.loader.core.html_page import (
    ROUNDS,
    Series,
    page,
    paragraph,
    scatter_plot,
    section,
    table,
)
from climbstream.loader.core.typed import located
from climbstream.loader.core.workdir import is_hash, setting_name
from climbstream.loader.formats.clusters import ClusterInfo, load_clusters, reason_title
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.manifest import MANIFEST
from climbstream.loader.formats.mixture import some_names
from climbstream.loader.formats.outputs import FIT, SEARCH, TRAIN, TRIALS, is_shard_directory
from climbstream.loader.monitoring.run_status import RunStatus
from climbstream.loader.weights.request import has_begun
from climbstream.search.optimizer.answer import BASE, Answer
from climbstream.search.optimizer.outcome import contender
from climbstream.search.optimizer.trials import TrialLog

from .report import CHOICES

_ALIKE = 0.1
"""Least fraction of shared words at which two clusters are shown as counterparts."""
_SHOWN = 30
"""Largest number of rows of a table that a terminal shows."""
_OF_OTHER = (
    "If the answer is the token shares, best is the score of the best other mixture, whose weights "
    "are below."
)
_LAST_LINE = "Numbers are those of the last line of metrics.jsonl; the run may have more steps."
Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A table with a title, which can be shown in a terminal, on an HTML page or as JSON."""

    title: str
    heads: Row
    rows: Sequence[Row]
    left: int = 1
    """Number of columns, from the left, that contain words and are aligned to the left."""
    note: str = ""
    """Text about the table; "" if there is none. It is below the table in a terminal, and below the
    title on a page."""


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Several folders of one kind, compared in tables."""

    kind: str
    """``searches``, ``runs`` or ``shards``."""
    names: Row
    """Names of the folders."""
    parts: list[Part]
    pictures: list[str] = field(default_factory=list)
    """Plots as HTML, which only the page shows."""

    def text(self) -> str:
        """Return the tables as text for a terminal; of long tables, only the first rows."""
        return "\n\n".join(_part_text(part) for part in self.parts if part.rows or part.note)

    def to_json(self) -> dict[str, Any]:
        """Return the tables as JSON values, each as a list of rows."""
        tables = {
            part.title: [dict(zip(part.heads, row, strict=True)) for row in part.rows]
            for part in self.parts
        }
        return {"kind": self.kind, "names": list(self.names), "tables": tables}

    def page(self) -> bytes:
        """Return the tables and plots as an HTML page."""
        sections = [
            section(
                part.title,
                *([paragraph(part.note)] if part.note else []),
                *(self.pictures if not number else []),
                *([_part_table(part)] if part.rows else []),
            )
            for number, part in enumerate(part for part in self.parts if part.rows or part.note)
        ]
        return page(f"Comparison of {self.kind}", " · ".join(self.names), sections)


def _part_table(part: Part) -> str:
    rows = [[escape(cell) for cell in row] for row in part.rows]
    texts = [i for i, head in enumerate(part.heads[: part.left]) if head == "words"]
    return table(part.heads, rows, numbers=range(part.left, len(part.heads)), texts=texts)


def _part_text(part: Part) -> str:
    text = f"{part.title}\n"
    if part.rows:
        text += text_table(part.heads, part.rows[:_SHOWN], left=part.left)
    if part.note:
        text += "\n" * bool(part.rows) + textwrap.fill(part.note, 100)
    if (more := len(part.rows) - _SHOWN) > 0:
        text += f"\nand {more:,} more; --out writes a page of all, --json lists them"
    return text


def side_by_side(folders: Sequence[Path]) -> SideBySide:
    """Compare two or more searches, runs or shard directories.

    Raises:
        UsageError: The folders are of different kinds, or one is neither a search, nor a run, nor
            a shard directory.
        InvalidDataError: A file in one of them cannot be read.
    """
    if len(folders) < 2:
        raise UsageError(f"{len(folders)} folder cannot be compared; name two or more")
    kinds = {folder: _kind(folder) for folder in folders}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{folder} holds {kind}" for folder, kind in kinds.items())
        raise UsageError(f"only folders of one kind are compared; {listed}")
    names = _names(folders)
    compare = {"searches": _searches, "runs": _runs, "shards": _shards}
    return compare[kinds[folders[0]]](dict(zip(names, folders, strict=True)))


def _kind(folder: Path) -> str:
    """Return the kind of ``folder``: ``searches``, ``runs`` or ``shards``.

    Raises:
        UsageError: ``folder`` holds nothing that can be compared.
    """
    if is_shard_directory(folder):
        return "shards"
    if SEARCH.has(folder) or FIT.has(folder):
        return "searches"
    if TRAIN.has(folder) or has_begun(folder):
        return "runs"
    what = "there is no folder" if not folder.is_dir() else "no search, run or shards in"
    raise UsageError(
        f"{what} {folder}; name folders that climb search, fit, train or build has filled"
    )


def _names(folders: Sequence[Path]) -> Row:
    """Return short names of folders: the ends of their paths. Equal ends get different numbers."""
    paths = [folder.absolute().parts for folder in folders]
    longest = max(map(len, paths))
    names = ["/".join(path[-1:]) for path in paths]
    for depth in range(2, longest + 1):
        if len(set(names)) == len(set(paths)):
            break
        names = ["/".join(path[-depth:]) for path in paths]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({number})"
        for number, name in enumerate(names, start=1)
    )


def _searches(folders: Mapping[str, Path]) -> SideBySide:
    """Compare answers, mixtures and settings of searches."""
    answers = {}
    for name, folder in folders.items():
        path = folder / "answer.json"
        if not path.exists():
            raise UsageError(
                f"the search in {folder} has not ended; run its command again until it ends"
            )
        value = read_json(path)
        if isinstance(value, dict):
            value.pop("notes", None)  # only answers of climb fit have this key
        answers[name] = located(Answer.from_json, value, str(path))
    results = [row for name, answer in answers.items() for row in _result_rows(name, answer)]
    heads = ("search", "target", "unit", "best", "token shares", "better by", "answer", "confirmed")
    warnings = [(name, warning) for name, answer in answers.items() for warning in answer.warnings]
    weights = {}
    for name, answer in answers.items():
        weights[name] = answer.mixture.weights
        best = contender(answer)
        if best is not None and answer.choice == BASE:
            weights[f"{name}, best other"] = best.mixture.weights
    words = {n: w for answer in reversed(answers.values()) for n, w in answer.words.items() if w}
    return SideBySide(
        "searches",
        tuple(folders),
        [
            Part(
                "Results",
                heads,
                results,
                left=3,
                note=_OF_OTHER if len(weights) > len(answers) else "",
            ),
            Part("Warnings", ("search", "warning"), warnings, left=2),
            _weights("Mixtures", weights, words=words),
            _settings(
                {n: folder / SEARCH.plan for n, folder in folders.items()},
                {"--retarget": [_reuse(folder / TRIALS) for folder in folders.values()]},
            ),
        ],
    )


def _reuse(trials: Path) -> str:
    """Say whether the search with this log began with the kept proxies of another search."""
    if trials.exists() and "retargeted" in TrialLog.open(trials).begun_with:
        return "given: --budget counts its kept proxies"
    return ""


def _result_rows(name: str, answer: Answer) -> list[Row]:
    """Return a table row for each target of a search.

    Some cells are empty if an early version wrote the answer.
    """
    choice, runs = CHOICES.get(answer.choice, answer.choice), answer.confirmation
    confirmed = counted(len(runs.seeds), "seed") if runs else "no"
    rows = []
    for outcome in answer.outcomes:
        pairs = (
            (outcome.best, outcome.best_sd),
            (outcome.baseline, outcome.baseline_sd),
            (outcome.gain, outcome.gain_sd),
        )
        digits = decimals([sd for _, sd in pairs if sd], [v for v, _ in pairs if v is not None])
        cells = ["" if v is None else with_error(v, sd, digits) for v, sd in pairs]
        rows.append((name, outcome.target, outcome.unit, *cells, choice, confirmed))
    if rows:
        return rows
    base = answer.baseline.scores if answer.baseline else {}
    return [
        (
            name,
            target,
            "",
            f"{score:.4f}",
            f"{base[target]:.4f}" if target in base else "",
            "",
            choice,
            confirmed,
        )
        for target, score in answer.measured_best.scores.items()
    ]


def _runs(folders: Mapping[str, Path]) -> SideBySide:
    """Compare losses, shares and settings of runs."""
    states = {name: RunStatus(folder).look() for name, folder in folders.items()}
    results = [
        (
            name,
            f"{state['step']:,}",
            f"{state['tokens']:,}",
            f"{loss[-1][1]:.4f}" if (loss := state["curves"]["loss"]) else "",
        )
        for name, state in states.items()
    ]
    clusters = {
        name: {cluster["name"]: cluster for cluster in state["clusters"]}
        for name, state in states.items()
    }
    served = {
        name: {n: c["target"] if c["served"] is None else c["served"] for n, c in of.items()}
        for name, of in clusters.items()
    }
    losses, heldout = (
        {
            name: {n: c[field] for n, c in of.items() if c[field] is not None}
            for name, of in clusters.items()
        }
        for field in ("loss", "heldout_loss")
    )
    words = {n: c["words"] for of in clusters.values() for n, c in of.items() if c["words"]}
    series = [
        Series(name=name, color=f"r{number % ROUNDS}", points=state["curves"]["loss"])
        for number, (name, state) in enumerate(states.items())
    ]
    return SideBySide(
        "runs",
        tuple(folders),
        [
            Part(
                "Results",
                ("run", "at step", "tokens", "loss of the last step, nats per token"),
                results,
                note=_LAST_LINE,
            ),
            _weights("Shares of tokens served", served, words=words),
            _by_cluster("Loss by cluster", losses, words),
            _by_cluster("Loss on held-out text by cluster", heldout, words),
            _settings(
                {n: folder / TRAIN.plan for n, folder in folders.items()},
                {"changes of weights": [_changes(state) for state in states.values()]},
            ),
        ],
        [scatter_plot(series, "step", "loss of the step, nats per token")],
    )


def _changes(state: Mapping[str, Any]) -> str:
    """Return the steps at which the weights of a run changed while it ran."""
    steps = [f"{record['at_step']:,}" for record in reversed(state["records"]) if record["v"]]
    return f"at step {', '.join(steps)}" if steps else "none"


def _shards(folders: Mapping[str, Path]) -> SideBySide:
    """Compare shard directories: sizes, documents left out, known domains, and clusters."""
    opened = {name: ShardDirectory(folder) for name, folder in folders.items()}
    manifests = {name: shards.manifest for name, shards in opened.items()}
    infos = {name: _descriptions(shards) for name, shards in opened.items()}
    results = [
        (
            name,
            textwrap.shorten(manifest.license, 48, placeholder=" …"),
            f"{len(manifest.clusters):,}",
            f"{sum(cluster.documents for cluster in manifest.clusters):,}",
            f"{manifest.tokens:,}",
            f"{manifest.vocab_size:,}",
        )
        for name, manifest in manifests.items()
    ]
    heads = ("shards", "licence", "clusters", "documents", "tokens", "vocabulary")
    dropped: dict[str, dict[str, int]] = {name: {} for name in folders}
    for name, manifest in manifests.items():
        for stage in manifest.conservation:
            for reason, size in stage["dropped"].items():
                dropped[name][reason] = dropped[name].get(reason, 0) + size["documents"]
    reasons = sorted({reason for counts in dropped.values() for reason in counts})
    lost = [
        (reason_title(reason), *(f"{dropped[name].get(reason, 0):,}" for name in folders))
        for reason in reasons
    ]
    domains = {name: _domains(some) for name, some in infos.items()}
    return SideBySide(
        "shards",
        tuple(folders),
        [
            Part("Results", heads, results, left=2),
            Part("Left out", ("documents, by reason", *folders), lost),
            _weights("Known domains", domains, what="domain", of="documents"),
            _counterparts(infos),
            _settings(
                {n: Path(str(shards.base)) / MANIFEST for n, shards in opened.items()},
                {"groups of clusters": [_groups(manifest) for manifest in manifests.values()]},
            ),
        ],
    )


def _descriptions(shards: ShardDirectory) -> list[ClusterInfo]:
    """Return the descriptions of the clusters; that of a group joins those of its clusters."""
    infos = load_clusters(shards.base)
    if not shards.manifest.members:
        return infos
    by_name = {info.name: info for info in infos}
    return [
        _joined(group, [by_name[entry.name] for entry in entries if entry.name in by_name])
        for group, entries in shards.manifest.members.items()
    ]


def _joined(name: str, infos: Sequence[ClusterInfo]) -> ClusterInfo:
    """Return the description of a group: sizes, domains, and the words of its clusters in turn."""
    words = (word for row in zip_longest(*(info.terms for info in infos)) for word in row if word)
    domains: Counter[str] = Counter()
    for info in infos:
        domains.update(info.labels)
    return ClusterInfo(
        name=name,
        terms=tuple(dict.fromkeys(words)),
        documents=sum(info.documents for info in infos),
        tokens=sum(info.tokens for info in infos),
        bytes=sum(info.bytes for info in infos),
        quality={},
        labels=dict(domains),
        samples=(),
        micro=(),
    )


def _groups(manifest: Manifest) -> str:
    """Return which clusters each group joins, as text; "" if the clusters are not grouped."""
    return "; ".join(
        f"{group}: {some_names([entry.name for entry in entries])}"
        for group, entries in manifest.members.items()
    )


def _domains(clusters: Sequence[ClusterInfo]) -> dict[str, float]:
    """Return the fraction of documents in each known domain."""
    counts: dict[str, int] = {}
    for info in clusters:
        for domain, count in info.labels.items():
            counts[domain] = counts.get(domain, 0) + count
    total = sum(counts.values()) or 1
    return {domain: count / total for domain, count in counts.items()}


def _counterparts(infos: Mapping[str, Sequence[ClusterInfo]]) -> Part:
    """Return a table of the clusters of the first directory with their counterparts.

    The counterpart of a cluster in another directory is the cluster with the largest fraction of
    shared words.
    """
    (first, ours), *others = infos.items()
    rows = []
    for info in ours:
        cells = []
        for _, theirs in others:
            shared = [
                (len({*info.terms} & {*t.terms}) / max(len({*info.terms} | {*t.terms}), 1), t)
                for t in theirs
            ]
            part, best = max(shared, key=lambda pair: pair[0], default=(0.0, None))
            named = best is not None and part >= _ALIKE
            cells += [f"{best.name} {best.words} ({part:.0%})" if named and best else "none"]
        rows.append((info.name, info.words, *cells))
    heads = ("cluster", f"words in {first}", *(f"most like it in {name}" for name, _ in others))
    note = (
        "The number in brackets is the fraction of words that two clusters share; none: no "
        f"cluster shares {_ALIKE:.0%} of the words."
    )
    return Part("Clusters", heads, rows, left=len(heads), note=note)


def _weights(
    title: str,
    weights: Mapping[str, Mapping[str, float]],
    *,
    what: str = "cluster",
    of: str = "tokens",
    words: Mapping[str, str] | None = None,
) -> Part:
    """Return a table of shares; those that differ most between the folders come first.

    A note below the table says how much the shares of each folder differ, in total, from those of
    the first folder.

    Args:
        title: Title of the table.
        weights: Shares by folder, then by name of the cluster or domain.
        what: Noun in the singular for the names, such as ``cluster``.
        of: Noun in the plural for the unit of the shares, such as ``tokens``.
        words: Words that an additional column shows beside the names.
    """
    rows = []
    names = dict.fromkeys(name for shares in weights.values() for name in shares)
    for name in names:
        values = [shares.get(name, 0.0) for shares in weights.values()]
        head = (name, words.get(name, "")) if words else (name,)
        rows.append((max(values) - min(values), (*head, *(f"{value:.2%}" for value in values))))
    rows.sort(key=lambda row: -row[0])
    cells = [(*row, f"{100 * apart:.2f}") for apart, row in rows]
    (first, ours), *others = weights.items()
    note = ""
    if not set(ours).intersection(*(theirs for _, theirs in others)):
        note = f"They have no {what} in common, so their shares cannot be compared."
    elif all(weights.values()):  # if a folder has no shares, there is nothing to compare
        parts = "; ".join(
            f"{sum(abs(ours.get(n, 0.0) - theirs.get(n, 0.0)) for n in names) / 2:.1%} with {name}"
            for name, theirs in others
        )
        note = f"Share of {of} that would be of another {what} than with {first}: {parts}."
    heads = (what, "words") if words else (what,)
    return Part(title, (*heads, *weights, "points apart"), cells, left=len(heads), note=note)


def _by_cluster(
    title: str, values: Mapping[str, Mapping[str, float]], words: Mapping[str, str]
) -> Part:
    """Return a table of losses by cluster; ``values`` has losses by folder and cluster."""
    names = dict.fromkeys(name for of in values.values() for name in of)
    heads = ("cluster", "words") if words else ("cluster",)
    rows = [
        (
            *((name, words.get(name, "")) if words else (name,)),
            *("" if name not in of else f"{of[name]:.4f}" for of in values.values()),
        )
        for name in names
    ]
    note = "Nats per token, at the last measurement." if rows else ""
    return Part(title, (*heads, *values), rows, left=len(heads), note=note)


def _settings(paths: Mapping[str, Path], more: Mapping[str, Sequence[str]] | None = None) -> Part:
    """Return a table of the settings that differ between the plans or manifests in ``paths``.

    ``more`` has further values by name, one value for each of ``paths``.
    """
    plans = {name: dict(_flat(_plan(path))) for name, path in paths.items()}
    keys_of_all = dict.fromkeys(keys for plan in plans.values() for keys in plan)
    named: list[tuple[str, Sequence[str]]] = [
        (setting_name(keys), [plan.get(keys, "") for plan in plans.values()])
        for keys in keys_of_all
    ]
    named += (more or {}).items()
    rows = [(name, *values) for name, values in named if len(set(values)) > 1]
    note = "" if rows else "No setting differs."
    if unknown := [name for name, plan in plans.items() if not plan]:
        note = f"There is no record of the settings of {', '.join(unknown)}."
    return Part("Settings that differ", ("setting", *paths), rows, left=1 + len(paths), note=note)


def _plan(path: Path) -> Any:
    """Return the settings in a plan or a manifest; {} if the file is missing."""
    if not path.exists():
        return {}
    value = read_json(path)
    provenance = value.get("provenance") if isinstance(value, dict) else None
    return provenance if isinstance(provenance, dict) else value


def _flat(value: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each value inside of ``value`` as text, with the keys that lead to it.

    Of a hash, only the beginning is yielded, because that is enough to see a difference.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, (*keys, key))
    elif is_hash(value):
        yield keys, f"hash {value[:8]}"
    else:
        yield keys, "" if value is None else json.dumps(value, ensure_ascii=False)[:80]

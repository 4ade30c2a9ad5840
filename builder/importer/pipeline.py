"""Import a corpus that is already clustered: make a shard directory with the same clusters.

Work in progress is kept in partitions in ``OUT/.build``, as in a build. A file that exists there is
complete. So an import that was killed continues where it stopped, and gives the same bytes as an
import that was never interrupted.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from climbstream.builder.cluster_names import cluster_names
from climbstream.builder.corpus.ingest import BAD_RECORDS
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.passes import each
from climbstream.builder.corpus.sample import SAMPLE
from climbstream.builder.corpus.sources import Places, as_places, hash_sources
from climbstream.builder.dataset_card import CARD, Card, read_beside
from climbstream.builder.destination.destination import Destination, open_destination
from climbstream.builder.end_token import (
    EOS,
    EndToken,
    find_end_token,
    parse_configs,
    read_configs,
    trained_end_token,
)
from climbstream.builder.report.report import report_page, write_report
from climbstream.builder.selection.selection import Selection
from climbstream.builder.settings import BuildSettings
from climbstream.builder.workdir import (
    PRELOAD,
    begin_work,
    bind,
    engine_in,
    remove_work,
    unbound_by_error,
)
from climbstream.builder.writers.catalogue import write_catalogue
from climbstream.builder.writers.license_counts import with_licenses
from climbstream.builder.writers.shards import write_clusters
from climbstream.builder.writers.tokenization import count_tokens, tokenize_all
from climbstream.builder.writers.tokenizer import fit_tokenizer, load_tokenizer, token_dtype
from climbstream.loader.core.console import Progress, counted
from climbstream.loader.core.engines.engine import Engine, open_engine
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import (
    hash_bytes,
    hash_file,
    hash_json,
    lock,
    write_bytes,
    write_json,
)
from climbstream.loader.core.log import get_logger
from climbstream.loader.formats.clusters import save_clusters
from climbstream.loader.formats.licenses import UNKNOWN, split_licenses
from climbstream.loader.formats.manifest import TOKENIZER, Manifest, hash_files
from climbstream.loader.formats.outputs import WORK

from .describe import describe_imported
from .ingest import COUNT, IntakeReport, IntakeTask, columns_of, ingest_file
from .layouts import ClusteredFile, card_folders, find_files
from .settings import GPT2, NO_TOKEN, ImportSettings, Vocabulary

logger = get_logger(__name__)

_SHOWN = 40
"""Maximum number of characters of a label that a message shows."""


def import_corpus(
    sources: Places,
    out: str | Path,
    settings: ImportSettings | None = None,
    *,
    workers: int | None = None,
    engine: str = "local",
    scratch: str | Path | None = None,
) -> Manifest:
    """Make a shard directory of a corpus that is already clustered, and return the manifest.

    A row of the corpus is a document, as tokens or as text. Its cluster is named in a column or by
    the folder of its file. An import that was interrupted continues when the same call is made
    again; the files have the same bytes as without the interruption.

    Args:
        sources: Files, folders, globs, URLs, ``hub:NAME`` or ``hub:NAME@CONFIG``.
        out: Folder of the shard directory, which need not exist, or ``s3://BUCKET/NAME``.
        settings: Settings that decide the result; default: `ImportSettings()`.
        workers: Maximum number of tasks at a time; default: one per core. With ``slurm``, there is
            no default: the number must be given.
        engine: Where tasks run: ``local`` (processes of this machine), ``ray`` or ``slurm``. The
            files have the same bytes with each engine.
        scratch: If ``out`` is a URL, the folder in which the directory is made first, as in
            `build`.

    Example::

        import_corpus(["hub:nvidia/ClimbMix"], Path("shards"))

    Raises:
        UsageError: A source does not exist, or the vocabulary of its tokens is not known.
        InvalidDataError: ``out`` has other files or another import, which the message names. Or no
            column or folder names the clusters of the rows, or no row can be used.
        LockedError: Another process works in ``out``.
        RemoteError: A bucket cannot be written; this is detected before anything is imported.
    """
    settings = settings or ImportSettings()
    with open_destination(out, scratch) as destination:
        _import(as_places(sources), destination, settings, workers, engine)
        return destination.finish()


def _import(
    sources: Sequence[str],
    destination: Destination,
    settings: ImportSettings,
    workers: int | None,
    engine: str,
) -> None:
    """Import ``sources`` into the folder of ``destination``."""
    files = find_files(sources, settings.cluster, folders=settings.folders)
    cards = _cards(sources)
    tokenizer, configs = _tokenizer(sources, settings)
    vocabulary, end = _vocabulary(files, settings, cards, tokenizer, configs)
    out, place = destination.folder, destination.finished_at()
    work = out / WORK
    with lock(out):
        with engine_in(work, partial(open_engine, engine, workers, preload=PRELOAD)) as opened:
            hashed = hash_sources([file.source for file in files], opened)
            plan = {
                "importer": 1,
                "settings": settings.to_json(),
                "sources": {source.place: source.fingerprint for source in hashed},
                "vocabulary": None if vocabulary is None else asdict(vocabulary),
                "tokenizer": "" if tokenizer is None else hash_bytes(tokenizer),
                "end": end.to_json(),
                "licenses": [name for card in cards for name in card.licenses],
            }
            if place is None:
                destination.claim(plan, lambda _there, _here: "")
            if begin_work(out, WORK, plan, partial(_finished_plan, destination), place):
                end.tell()
                _Import(opened, out, work, settings, vocabulary).run(files, cards, tokenizer, plan)
        # The folder is removed only now, because jobs of the engine may write to it until they end.
        remove_work(work)


def _finished_plan(destination: Destination) -> object | None:
    """Return the plan of a finished import; None if the import is not finished."""
    place = destination.finished_at()
    return None if place is None else Manifest.load(place).provenance


class _Import:
    """An import whose files and vocabulary are known."""

    def __init__(
        self,
        engine: Engine,
        out: Path,
        work: Path,
        settings: ImportSettings,
        vocabulary: Vocabulary | None,
    ) -> None:
        self._engine, self._out, self._work = engine, out, work
        self._settings, self._vocabulary = settings, vocabulary

    def run(
        self,
        files: Sequence[ClusteredFile],
        cards: Sequence[Card],
        tokenizer: bytes | None,
        plan: dict[str, Any],
    ) -> None:
        """Run all stages, and write the manifest last."""
        with unbound_by_error(self._work):
            report = self._read(files)
        bind(self._work)
        partitions = [Partition(self._work / "units" / name) for name in report.units]
        names = cluster_names(report.clusters)
        _say_names(names)
        sizes = self._number(partitions, list(names))
        if tokenizer is not None:
            write_bytes(self._out / TOKENIZER, tokenizer)
        selection, vocabulary = self._tokens(partitions, report, plan["end"]["id"])
        dtype = token_dtype(vocabulary.size)
        written = write_clusters(self._engine, partitions, self._out, [*names.values()], dtype)
        parts = write_catalogue(self._engine, self._out, selection, written)
        path = self._out / TOKENIZER
        manifest = Manifest(
            clusters=tuple(with_licenses(self._engine, partitions, [w.entry for w in written])),
            dtype=dtype,
            vocab_size=vocabulary.size,
            eos_id=vocabulary.eos_id,
            tokenizer_hash=hash_file(path) if path.exists() else "",
            build=hash_json(plan),
            license=_license(cards, self._settings.license, report),
            provenance=plan,
            conservation=(report.stage(), *selection.stages),
            parts=len(parts),
        )
        self._describe(manifest, names, sizes)
        if report.listed:
            write_json(self._out / BAD_RECORDS, report.listed)
        replace(manifest, files=hash_files(self._out) | parts).save(self._out)

    def _tokens(
        self, partitions: Sequence[Partition], report: IntakeReport, end: int | None
    ) -> tuple[Selection, Vocabulary]:
        """Tokenise the text of the rows; if the rows have tokens, only count the tokens.

        Returns all documents as a selection, and the vocabulary.
        """
        selection = Selection(self._engine, partitions, self._work)
        if self._vocabulary is None:
            return selection, self._tokenize(selection, end)
        count = sum(selection.each(count_tokens))
        read = report.stage()["out"]
        stage = {"stage": "shard", "in": read, "out": {**read, "tokens": count}, "dropped": {}}
        selection.stages.append(stage)
        return selection, self._vocabulary

    def _describe(self, manifest: Manifest, names: Mapping[str, str], sizes: Sequence[int]) -> None:
        """Write the description of the clusters, and the report."""
        micro = _micro(list(names))
        infos = describe_imported(
            self._engine, self._out, manifest, micro, sizes, self._settings.seed
        )
        save_clusters(self._out, infos, source={name: label for label, name in names.items()})
        write_report(self._out, report_page(manifest, infos, None))

    def _read(self, files: Sequence[ClusteredFile]) -> IntakeReport:
        """Write the rows of all files to partitions; return one report on them."""
        tasks = [
            IntakeTask(
                number=number,
                file=file,
                directory=self._work / "units",
                settings=self._settings,
                vocabulary=self._vocabulary,
            )
            for number, file in enumerate(files)
        ]
        reports: dict[int, IntakeReport] = {}
        with Progress("read", len(tasks), "files") as progress:
            for task, report in self._engine.run(ingest_file, tasks):
                reports[task.number] = report
                progress.add(1)
        total = IntakeReport()
        for _, report in sorted(reports.items()):
            total.add(report)
        _say_losses(total)
        if not total.documents:
            raise InvalidDataError(
                f"no row of {counted(len(files), 'file')} can be used"
                + "".join(f"; {n:,}: {reason}" for reason, n in total.bad.most_common(3))
            )
        return total

    def _number(self, partitions: Sequence[Partition], labels: Sequence[str]) -> list[int]:
        """Write the cluster of each document to the partitions; return bytes of text by cluster.

        Each partition gets two arrays, int32 ``[n]``: ``clusters`` is the index of the document's
        cluster in ``labels``, and ``micro`` is the number of this cluster in the corpus.
        """
        number = {label: k for k, label in enumerate(labels)}
        micro = np.array(_micro(labels), np.int32)
        function = partial(_number_clusters, number=number, micro=micro)
        sizes = sum(each(self._engine, partitions, function), np.zeros(len(labels), np.int64))
        return [int(size) for size in sizes]

    def _tokenize(self, selection: Selection, end: int | None) -> Vocabulary:
        """Tokenise text with the tokenizer of the corpus, or with one that is trained on it."""
        settings = BuildSettings(seed=self._settings.seed)
        if self._settings.vocab_size is not None:
            settings = replace(settings, vocab_size=self._settings.vocab_size)
        tokenizer = fit_tokenizer(
            self._engine,
            selection.partitions,
            self._out / TOKENIZER,
            self._work / SAMPLE,
            settings,
        )
        tokenize_all(self._engine, selection, self._out / TOKENIZER, end)
        return Vocabulary(size=tokenizer.get_vocab_size(), eos_id=end)


def _number_clusters(
    partition: Partition, number: Mapping[str, int], micro: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Write the arrays of `_Import._number` to a partition; return bytes by cluster, ``[K]``."""
    clusters = np.array([number[label] for label in partition.column("label")], np.int32)
    partition.write_arrays({"clusters": clusters, "micro": micro[clusters]})
    sizes = np.zeros(len(micro), np.int64)
    if partition.has("sizes"):
        np.add.at(sizes, clusters, partition.read("sizes"))
    return sizes


def _micro(labels: Sequence[str]) -> list[int]:
    """Return the labels as numbers; if not all labels are numbers, return their indexes."""
    if all(re.fullmatch("[0-9]{1,9}", label) for label in labels):
        return [int(label) for label in labels]
    return list(range(len(labels)))


def _say_losses(report: IntakeReport) -> None:
    """Log how many documents were read, and what was left out."""
    clusters = counted(len(report.clusters), "cluster")
    logger.info(f"  read {counted(report.documents, 'document')} of {clusters}")
    first = {row["reason"]: row["origin"] for row in reversed(report.listed)}
    for reason, count in report.bad.most_common():
        where = f"; the first is {first[reason]}" if reason in first else ""
        logger.warning(f"  left out {counted(count, 'row')}: {reason}{where}")
    for reason, count in report.files.most_common():
        logger.warning(f"  left out {counted(count, 'file')}: {reason} ({report.examples[reason]})")
    if report.miscounted:
        logger.warning(
            f"  used {counted(report.miscounted, 'row')} although {COUNT} there is not the number "
            "of tokens"
        )


def _say_names(names: Mapping[str, str]) -> None:
    """Log how many labels cannot name a folder, so that their clusters have other names."""
    others = [(label, name) for label, name in names.items() if name != label]
    if others and not all(re.fullmatch("c[0-9]+", name) for name in names.values()):
        label, name = others[0]
        label = label if len(label) <= _SHOWN else f"{label[:_SHOWN]}…"
        logger.info(
            f"  {counted(len(others), 'label')} cannot name a folder, so other names are used: "
            f"the cluster of {label!r} is called {name!r}; clusters.json lists all names"
        )


def _cards(sources: Sequence[str]) -> list[Card]:
    """Return the nearest data set card of each source that has one; each card only once."""
    cards: dict[str, Card] = {}
    for name in sources:
        for folder in card_folders(name):
            if (data := read_beside(folder, CARD)) is not None:
                path = f"{folder}/{CARD}"
                cards[path] = Card.parse(data.decode(errors="replace"), path)
                break
    return list(cards.values())


def _tokenizer(
    sources: Sequence[str], settings: ImportSettings
) -> tuple[bytes | None, dict[str, Any]]:
    """Return a tokenizer and its `CONFIGS`: the one in the settings, or the one beside the rows.

    The tokenizer is the content of ``tokenizer.json``; None if there is no tokenizer.
    """
    if settings.tokenizer:
        tokenizer = load_tokenizer(settings.tokenizer)
        return tokenizer.to_str(pretty=True).encode(), read_configs(settings.tokenizer)
    for name in sources:
        for folder in card_folders(name):
            if (data := read_beside(folder, TOKENIZER)) is not None:
                logger.info(f"the tokenizer is {folder}/{TOKENIZER}")
                return data, parse_configs(partial(read_beside, folder), folder)
    return None, {}


def _vocabulary(
    files: Sequence[ClusteredFile],
    settings: ImportSettings,
    cards: Sequence[Card],
    tokenizer: bytes | None,
    configs: Mapping[str, Any],
) -> tuple[Vocabulary | None, EndToken]:
    """Return the vocabulary of the rows' tokens (None if the rows have text), and the end token."""
    columns = next(filter(None, (columns_of(file.source) for file in files)), [])
    names = {"tokens": settings.tokens, "text": settings.text}
    use = settings.use or next((kind for kind, name in names.items() if name in columns), None)
    if use == "text":
        if tokenizer is None:
            return None, trained_end_token(settings.end)
        return None, _end_of(tokenizer, settings, configs)
    if use is None:
        raise UsageError(
            f"the rows of {files[0].source.name} have the columns {', '.join(columns)}, and "
            f"neither {settings.tokens!r} nor {settings.text!r}; name the right column with "
            "--tokens or --text"
        )
    size, end = settings.vocab_size, _stated_end(settings, cards)
    for card in cards:
        size = card.ours.get("vocab_size") if size is None else size
    if tokenizer is not None:
        size = Tokenizer.from_str(tokenizer.decode()).get_vocab_size() if size is None else size
        end = end or _end_of(tokenizer, settings, configs)
    if all(file.tokenized for file in files) and (size is None or end is None):
        logger.info(
            f"tokens are assumed to be those of GPT-2: a vocabulary of {GPT2.size:,}, and token "
            f"{GPT2.eos_id} ends a document"
        )
        size = GPT2.size if size is None else size
        end = end or EndToken(GPT2.eos_id, EOS, "GPT-2's tokenizer")
    if size is None or end is None:
        raise UsageError(
            f"nothing says what the tokens of {files[0].source.name} mean; name their --tokenizer, "
            f"or its --vocab-size and --eos-id ({NO_TOKEN}: none)"
        )
    return Vocabulary(size=size, eos_id=end.id), end


def _stated_end(settings: ImportSettings, cards: Sequence[Card]) -> EndToken | None:
    """Return the end token whose number an option, or a card by climbstream, states; or None."""
    if settings.end.no_eos:
        return EndToken(None, "", "--no-eos")
    if settings.eos_id is not None:
        return EndToken(settings.eos_id, "", "--eos-id")
    if settings.eos_token is not None:
        return None
    stated = [card.ours["eos_id"] for card in cards if "eos_id" in card.ours]
    if not stated:
        return None
    return EndToken(None if stated[0] == NO_TOKEN else stated[0], "", "the card")


def _end_of(tokenizer: bytes, settings: ImportSettings, configs: Mapping[str, Any]) -> EndToken:
    """Return the end token of ``tokenizer``, the tokenizer of the rows."""
    return find_end_token(
        Tokenizer.from_str(tokenizer.decode()), settings.end, configs, "the tokenizer"
    )


def _license(cards: Sequence[Card], stated: str | None, report: IntakeReport) -> str:
    """Return on one line all licences that cards, the user and rows state.

    ``unknown`` is among them if a card names it, if some rows state a licence and others none, or
    if nothing states a licence.
    """
    rows = [name for name, _ in report.licenses.most_common()]
    if rows == [UNKNOWN]:
        rows = []  # the card, or the user, states the licence of all rows
    of_cards = [name for card in cards for name in card.licenses]
    licenses: dict[str, str] = {}
    for line in [*of_cards, *([stated] if stated else []), *rows]:
        for name in split_licenses(line):
            licenses.setdefault(name.casefold(), name)
    if stated and any(name.casefold() != stated.casefold() for name in of_cards):
        logger.warning(
            f"the card states the licence {', '.join(of_cards)}; {stated} is added, and does not "
            "replace it"
        )
    if not licenses:
        logger.warning(
            "the corpus states no licence, and no card names one; state the licence with --license"
        )
    return ", ".join(licenses.values()) or UNKNOWN

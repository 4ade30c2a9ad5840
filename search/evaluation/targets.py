"""Target: the text or the task on which a search improves the score."""

import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import zstandard

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import COPY_FIRST, hash_json, read_regular, refuse_url
from climbstream.loader.core.permutation import derive_key
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.heldout import HeldOutDocument
from climbstream.loader.formats.mixture import some_names
from climbstream.loader.formats.outputs import is_shard_directory
from climbstream.loader.formats.tokenizer import read_tokenizer

from .lm_eval_tasks import read_task
from .questions import SPLITS, Question

_COLUMNS = "text (for texts), or query, choices and gold (for questions)"
"""The columns that a file of JSON lines must have, as text for messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The items of a text or task in two disjoint halves: one for a search, one for comparisons."""

    name: str
    validation: tuple[Any, ...]
    """Items of the half that the search uses: all of them texts, or all `Question` objects."""
    test: tuple[Any, ...]
    """Items of the half for comparisons of trained models; no search uses them. They are of the
    same type as the items of ``validation``."""
    measure: Literal["bits", "error"] = "bits"
    """Kind of score: ``bits`` is bits per byte, ``error`` is the fraction of wrong answers."""

    @property
    def fingerprint(self) -> str:
        """Hash of the items. It differs if a target with the same name has other items."""
        return hash_json([[_value(item) for item in half] for half in (self.validation, self.test)])


def scored_texts(items: Sequence[Any]) -> list[str]:
    """Return the scored text of each item: the document, or the right answer of the question."""
    return [item if isinstance(item, str) else item.answer(item.gold) for item in items]


def load_target(directory: Path, spec: str) -> Target:
    """Load a target: held-out text, a file, or a task.

    ``spec`` is one of the following:

    - ``label=NAME`` or ``cluster=NAME``: the held-out text of that label or cluster.
    - ``FILE``, a text: plain text, in which each paragraph is a document, or JSON lines with a
      column ``text``. The file may be compressed (.zst).
    - ``FILE``, a task: JSON lines with ``query``, ``choices`` and ``gold``, the number (from 0) or
      letter of the right choice. The score is the bits per byte of the right answers.
    - ``lm-eval=TASK``: a task of lm-eval, scored in the same way.
    - ``error=`` before one of these tasks: the score is the fraction of wrong answers.

    Questions may have a ``split``: ``validation`` or ``test``. If one question has a split,
    all must have one, and the two splits are the halves of the target.

    Raises:
        UsageError: The text, file or task does not exist. Or ``error=`` is before a text, or before
            a task in which a question has only one choice.
        InvalidDataError: A line of the file has neither a text nor a valid question, only some
            questions have a ``split``, or a half of the target is empty.
    """
    asked = spec.removeprefix("error=")
    items = _items(directory, spec, asked)
    _check_characters(spec, items)
    measure: Literal["bits", "error"] = "bits" if asked == spec else "error"
    if measure == "error":
        if not (items and isinstance(items[0], Question)):
            raise UsageError(
                f"target {spec}: {asked} has text and no questions, so no answer can be wrong; "
                "leave out error="
            )
        if min(len(question.choices) for question in items) < 2:
            raise UsageError(
                f"target {spec}: a question has only one choice, so no answer can be wrong; give "
                f"{asked} without error= to score answers in bits per byte"
            )
    validation, test = _halves(spec, items)
    return Target(name=spec, validation=validation, test=test, measure=measure)


def _check_characters(spec: str, items: Sequence[Any]) -> None:
    """Raise `InvalidDataError` if an item cannot be written as UTF-8."""
    for number, item in enumerate(items, start=1):
        try:
            _text(item).encode()
        except UnicodeEncodeError:
            raise InvalidDataError(
                f"target {spec}: item {number} holds half of a character (a lone surrogate), "
                "which no tokenizer reads; leave it out, or write its text anew as UTF-8"
            ) from None


def _items(directory: Path, spec: str, asked: str) -> list[Any]:
    """Return the texts or questions of ``asked``, which is ``spec`` without ``error=``."""
    kind, _, name = asked.partition("=")
    if kind in ("label", "cluster") and name:
        documents = _heldout(directory)
        texts = [d.text for d in documents if getattr(d, kind) == name]
        if not texts:
            others = sorted({getattr(d, kind) for d in documents} - {""})
            raise UsageError(
                f"no held-out document has {kind} {name!r}; the held-out text has "
                f"{', '.join(others) or 'none'}"
            )
        return texts
    if kind == "lm-eval" and name:
        return list(read_task(name))
    refuse_url(asked, COPY_FIRST)
    if not Path(asked).is_file():
        near = _heldout_target(directory, spec)
        raise UsageError(
            f"target {spec}: there is no file {asked}; "
            + (f"did you mean {near}, held-out text? Or " if near else "")
            + "give label=NAME, cluster=NAME, the name of a file, lm-eval=TASK, or error= before "
            "a file or task"
        )
    return _read_file(Path(asked))


def _heldout_target(directory: Path, name: str) -> str:
    """Return the target of held-out text with the label or cluster ``name``; "" if none has it."""
    if not is_shard_directory(directory):
        return ""
    documents = list(ShardDirectory(directory).heldout())
    kinds = ("label", "cluster")
    has = (kind for kind in kinds if any(getattr(d, kind) == name for d in documents))
    return next((f"{kind}={name}" for kind in has), "")


def target_hashes(directory: Path, specs: Iterable[str]) -> dict[str, str]:
    """Return the fingerprint of each target; check that ``directory`` has a tokenizer.

    Raises:
        UsageError: A target does not exist, or ``directory`` has no tokenizer.
        InvalidDataError: A target or the tokenizer cannot be read.
    """
    read_tokenizer(directory)  # report a missing tokenizer before a model is trained
    return {spec: load_target(directory, spec).fingerprint for spec in sorted(specs)}


def _halves(spec: str, texts: list[Any]) -> tuple[tuple[Any, ...], ...]:
    """Split items into the validation half and the test half, always in the same way.

    Questions with splits go to the half of their split. Other items are deduplicated, and ordered
    by a hash of their text. In this order, each item goes to the half that has fewer characters so
    far.
    """
    splits = [text.split if isinstance(text, Question) else "" for text in texts]
    if any(splits):
        parts = tuple(tuple(t for t in texts if t.split == split) for split in SPLITS)
        if not all(parts) or "" in splits:
            validation, test, none = (splits.count(split) for split in (*SPLITS, ""))
            raise InvalidDataError(
                f"target {spec} has this number of questions by split: validation {validation}, "
                f"test {test}, without a split {none}; give each question a split, and use both "
                "splits"
            )
        return parts
    # Keep each text once; else, the same text could be in both halves.
    unique = {_text(item): item for item in texts if _text(item).strip()}
    texts = [
        unique[text] for text in sorted(unique, key=lambda text: (derive_key("target", text), text))
    ]
    if len(texts) < 2:
        raise InvalidDataError(
            f"target {spec} has too few different documents, {len(texts)}; at least two are "
            "needed, one for each half"
        )
    halves: tuple[list[Any], list[Any]] = ([], [])
    sizes = [0, 0]
    for text in texts:
        # Balance the sizes of the halves, because one document may be as long as many others.
        smaller = int(sizes[1] < sizes[0])
        halves[smaller].append(text)
        sizes[smaller] += len(_text(text))
    return tuple(map(tuple, halves))


def choose_target(directory: Path, least_characters: int = 100_000) -> str:
    """Choose a target for a demonstration: the label or cluster with held-out text of median size.

    If the corpus has labels, a label is chosen, else a cluster. Labels or clusters with fewer than
    ``least_characters`` characters of held-out text are skipped. If all of them have fewer, the
    largest is chosen.

    Returns:
        The target as ``label=NAME`` or ``cluster=NAME``.

    Raises:
        UsageError: There is no held-out text.
    """
    documents = _heldout(directory)
    kind = "label" if any(d.label for d in documents) else "cluster"
    sizes: Counter[str] = Counter()
    for document in documents:
        sizes[getattr(document, kind)] += len(document.text)
    kinds = sorted((size, name) for name, size in sizes.items() if name)
    large = [pair for pair in kinds if pair[0] >= least_characters] or kinds[-1:]
    return f"{kind}={large[len(large) // 2][1]}"


def _heldout(directory: Path) -> list[HeldOutDocument]:
    """Return the held-out documents of a shard directory; raise `UsageError` if it has none."""
    documents = list(ShardDirectory(directory).heldout())
    if not documents:
        raise UsageError(
            f"{directory} has no held-out text; build it with --holdout 0.05, or name a file"
        )
    return documents


def _text(item: Any) -> str:
    """Return text that identifies an item: the document, or the query and choices of a question."""
    return item if isinstance(item, str) else "\n".join((item.query, *item.choices))


def _value(item: Any) -> Any:
    """Return an item as JSON: a string for a text, a list for a question."""
    return item if isinstance(item, str) else item.to_json()


def _read_file(path: Path) -> list[Any]:
    """Read the texts or questions of a file: JSON lines, or paragraphs of plain text."""
    if tables := {".json", ".csv", ".tsv", ".parquet", ".arrow"} & set(path.suffixes):
        raise UsageError(
            f"target {path}: a target is JSON lines (.jsonl) or text, and cannot be "
            f"{tables.pop()}; write its records as JSON lines with {_COLUMNS}"
        )
    data = read_regular(path)
    if path.suffix == ".zst":
        reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
        data = io.BufferedReader(reader).read()
    if ".jsonl" not in path.suffixes:
        try:
            return [part for part in data.decode().split("\n\n") if part.strip()]
        except UnicodeDecodeError:
            raise InvalidDataError(
                f"target {path} is not text in UTF-8, plain or compressed with .zst"
            ) from None
    records = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            records.append((f"{path}, line {number}", record if isinstance(record, dict) else {}))
    if records and "choices" in records[0][1]:
        return [Question.from_json(record, where) for where, record in records]
    for where, record in records:
        if not isinstance(record.get("text"), str):
            if "text" in record:
                raise InvalidDataError(f"{where}, has no text: its field text is not a string")
            raise InvalidDataError(
                f"{where}, has no text, and no question with choices: its columns are "
                f"{some_names([*record]) or 'none'}, and should be {_COLUMNS}"
            )
    return [record["text"] for _, record in records]

"""Tasks: tests for models, as questions with their answers, read from files.

The format of a file decides what an item is:

- JSON lines: each line is a question.
- JSON: each element of the array is a question.
- CSV, Parquet and Arrow: each row is a question.
- Any other file is text: each block between empty lines is an item.

The fields of a question may have the names that common data sets use, or those of files of
``lm-eval --log_samples``. Compressed files are decompressed.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from climbstream.builder.corpus.read_report import BadFile, BadRecord
from climbstream.builder.corpus.records import Columns, read_records
from climbstream.builder.corpus.sources import Source, format_of
from climbstream.builder.corpus.unpack import BYTE_ORDER_MARK, DAMAGE, unpacked
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import COPY_FIRST, hash_json, refuse_url
from climbstream.loader.formats.directory import ShardDirectory

from .lm_eval_task import read_lm_eval

LM_EVAL = "lm-eval="
_FORMATS = "JSON lines, JSON, CSV, Parquet, Arrow or text"
_LABELS = re.compile(
    r"^\s*(question|q|goal|problem)\s*:\s+|\s+(answer|a|solution)\s*:\s*$", re.IGNORECASE
)
"""Words that prompts put around a question. They are removed, because a document may have the
question without these words."""
_BEFORE = ("passage", "context", "article", "story", "support", "premise")
"""Fields with a text to which a question refers. If a record has no question, this text counts as
its question."""
_QUESTION = (
    "query question question_stem ctx goal problem prompt sentence sentence1 input inputs "
    "instruction text"
).split()
_CHOICES = ("choices", "endings", "options", "mc1_targets", "candidates")
_NUMBERED = (("sol1", "sol2"), ("option1", "option2"), ("choice1", "choice2"), tuple("ABCD"))
_RIGHT = ("gold", "label", "answerKey", "answer_idx", "target", "answer", "correct")
_ANSWER = (
    "answer answers target targets output solution canonical_solution correct_answer best_answer "
    "hypothesis ending completion"
).split()


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a task, or one text."""

    id: str
    question: str
    answer: str = ""
    """The right answer; "" if it is unknown."""


@dataclass(frozen=True, slots=True)
class Task:
    """The items of one task; ``name`` is the name that the user gave."""

    name: str
    items: tuple[Item, ...]

    @property
    def fingerprint(self) -> str:
        """Hash of the questions and answers."""
        return hash_json([[item.id, item.question, item.answer] for item in self.items])


def read_tasks(specs: Sequence[str], directory: str | Path | None = None) -> list[Task]:
    """Return the tasks that ``specs`` name; each of ``specs`` is a file, or ``lm-eval=NAME``.

    If a shard ``directory`` is given, ``label=NAME`` or ``cluster=NAME`` is also allowed. It means
    the held-out documents of that label or cluster in the directory.

    Raises:
        UsageError: A file does not exist, lm-eval has no such task, or no document of the label or
            cluster is held out.
        InvalidDataError: A file cannot be read, a line is not a question, or there is no question.
    """
    return [Task(spec, tuple(_read(spec, directory))) for spec in dict.fromkeys(specs)]


def _read(spec: str, directory: str | Path | None) -> list[Item]:
    kind, _, name = spec.partition("=")
    if directory is not None and kind in ("label", "cluster") and name:
        return _heldout(directory, kind, name)
    if directory is None and kind in ("label", "cluster") and name and not Path(spec).exists():
        raise UsageError(
            f"task {spec}: label= and cluster= name held-out documents of finished shards, and a "
            "build has none yet; name a file of the documents to leave out, such as "
            "heldout.jsonl.zst of other shards"
        )
    items = list(_file_items(spec) if not spec.startswith(LM_EVAL) else _lm_eval_items(spec))
    if not items:
        raise InvalidDataError(
            f"task {spec} has no item to look for; give a file with a question or paragraph"
        )
    return items


def _heldout(directory: str | Path, kind: str, name: str) -> list[Item]:
    """Return the held-out documents of a label or cluster as items."""
    documents = list(ShardDirectory(directory).heldout())
    items = [Item(d.id, d.text) for d in documents if getattr(d, kind) == name]
    if not items:
        others = ", ".join(sorted({getattr(d, kind) for d in documents} - {""})) or "none"
        raise UsageError(
            f"no held-out document has {kind} {name!r}; the held-out text has {others}"
        )
    return items


def _lm_eval_items(spec: str) -> Iterator[Item]:
    records = read_lm_eval(spec.removeprefix(LM_EVAL))
    return _items(spec, ((f"question {n}", record) for n, record in enumerate(records)))


def _file_items(spec: str) -> Iterator[Item]:
    """Return the items of the file ``spec``, whose name or first character states its format."""
    refuse_url(spec, COPY_FIRST)
    if not Path(spec).is_file():
        raise UsageError(
            f"task {spec}: there is no such file; name a file of {_FORMATS}, or {LM_EVAL}TASK"
        )
    form = format_of(spec)
    if form in ("csv", "parquet", "arrow"):
        return _items(spec, _rows(spec, form))
    try:
        with unpacked(spec) as stream:
            data = stream.read().removeprefix(BYTE_ORDER_MARK)
    except DAMAGE as error:
        raise InvalidDataError(f"task {spec} cannot be read: {error}") from None
    if form == "jsonl" or data[:1] in (b"{", b"["):
        return _items(spec, _json_records(data, spec))
    return _text_items(data, spec)


def _items(spec: str, records: Iterable[tuple[str, Any]]) -> Iterator[Item]:
    """Yield the item of each of ``records``, which are pairs of a place in the task and a value."""
    for place, record in records:
        try:
            yield item_of(record, place)
        except InvalidDataError as error:
            raise InvalidDataError(f"task {spec}, {error}") from None


def _text_items(data: bytes, spec: str) -> Iterator[Item]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = None
    if text is None or "\0" in text:
        raise InvalidDataError(f"task {spec} is not text in UTF-8; a task is a file of {_FORMATS}")
    blocks = [block.strip() for block in text.replace("\r\n", "\n").split("\n\n") if block.strip()]
    for number, block in enumerate(blocks, start=1):
        yield Item(f"block {number}", block)


def _rows(spec: str, form: str) -> Iterator[tuple[str, Any]]:
    """Yield the place and the record of each row of a table; ``form`` is its format."""
    for origin, row in read_records(Source(spec, "row", form, ""), None, Columns()):
        place = origin.replace(":", " ", 1)
        if isinstance(row, BadRecord | BadFile):
            raise InvalidDataError(f"task {spec}, {row.origin}: {row.reason}")
        try:
            "".join(value for value in row.values() if isinstance(value, str)).encode()
        except UnicodeEncodeError:
            raise InvalidDataError(f"task {spec}, {place} is not UTF-8") from None
        yield place, row


def _json_records(data: bytes, spec: str) -> Iterator[tuple[str, Any]]:
    """Yield the place and the value of each JSON line, or of each element of a JSON array."""
    if data.lstrip()[:1] == b"[":
        for number, value in enumerate(_parsed(data, f"task {spec}"), start=1):
            yield f"record {number}", value
        return
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            place = f"line {number}"
            yield place, _parsed(line, f"task {spec}, {place}")


def _parsed(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidDataError(f"{where} is not JSON: {error}") from None


def item_of(record: Any, where: str) -> Item:
    """Return the item in a record that has the format of any common data set of questions.

    >>> item_of({"question": "Who?", "choices": ["She.", "He."], "answer": 1}, "line 1").answer
    'He.'

    Raises:
        InvalidDataError: The record contains no question; the message begins with ``where``.
    """
    if not isinstance(record, dict):
        raise InvalidDataError(f"{where} must be an object with a question")
    sample = record
    if isinstance(record.get("doc"), dict):  # lm-eval --log_samples
        record = record["doc"]
    choices = _choices(record)
    question, answer = _question(record), _answer(record, choices)
    if not question and sample is not record:
        question, answer = _prompt(sample), answer or _text(sample.get("target"))
    is_asked = "arguments" in sample or any(key in record for key in _QUESTION)
    if not question and is_asked:  # the question is empty: the choices are whole sentences
        question, answer = answer or (choices[0] if choices else ""), ""
    if not question:
        raise InvalidDataError(
            f"{where} has no question: none of the fields {', '.join(_QUESTION[:8])} has a text; "
            f"its fields are {', '.join(map(str, list(record)[:12])) or 'none'}"
        )
    question = _LABELS.sub("", question) or question
    name = next((record[key] for key in ("id", "doc_id", "idx", "ind") if key in record), None)
    return Item(str(where if name is None else name), question, answer)


def _question(record: dict[str, Any]) -> str:
    """Return the text to which a question refers, and the question; "" if a record has neither."""
    asked = next((_text(record.get(key)) for key in _QUESTION if _text(record.get(key))), "")
    about = [_text(record.get(key)) for key in _BEFORE]
    return "\n".join(part for part in (*about, asked) if part)


def _choices(record: dict[str, Any]) -> list[str]:
    stem = record.get("question")
    for holder in (record, stem if isinstance(stem, dict) else {}):
        for key in _CHOICES:
            value = holder.get(key)
            if isinstance(value, dict):  # {"text": [...], "label": [...]}
                value = value.get("text") or value.get("choices")
            if isinstance(value, list) and value:
                return [_text(choice) for choice in value]
    for names in _NUMBERED:
        if all(isinstance(record.get(name), str) for name in names):
            return [record[name] for name in names]
    return []


def _answer(record: dict[str, Any], choices: list[str]) -> str:
    """Return the text of the right answer; "" if the record has none."""
    if choices:
        keys = [record[key] for key in _RIGHT if key in record]
        for key in keys:
            place = _place(key, record, choices)
            if place is not None and 0 <= place < len(choices):
                return choices[place]
    return next((_text(record[key]) for key in _ANSWER if _text(record.get(key))), "")


def _place(key: Any, record: dict[str, Any], choices: list[str]) -> int | None:
    """Return the index of the choice that ``key`` names (number, letter, label, text), or None."""
    labels = record["choices"].get("label") if isinstance(record.get("choices"), dict) else None
    if isinstance(key, str):
        if isinstance(labels, list) and key in labels:
            return labels.index(key)
        if key in choices:
            return choices.index(key)
        if key.isdecimal():
            # The key counts from 1 if the names of the fields of the choices do.
            one_based = any(isinstance(record.get(names[0]), str) for names in _NUMBERED[1:2])
            return int(key) - one_based
        if len(key) == 1 and key.isascii() and key.isalpha():
            return ord(key.upper()) - ord("A")
    return int(key) if isinstance(key, int) and not isinstance(key, bool) else None


def _prompt(sample: dict[str, Any]) -> str:
    """Return the prompt of a model from a line that lm-eval logged."""
    arguments = sample.get("arguments")
    if isinstance(arguments, dict):
        arguments = [list(a.values()) if isinstance(a, dict) else a for a in arguments.values()]
    first = arguments[0] if isinstance(arguments, list) and arguments else ""
    return _text(first)


def _text(value: Any) -> str:
    """Return the text in ``value``: itself, its first item, or its field stem, text or value."""
    if isinstance(value, dict):
        value = value.get("stem") or value.get("text") or value.get("value") or ""
    if isinstance(value, list):
        value = value[0] if value else ""
        return _text(value)
    return value.strip() if isinstance(value, str) else ""

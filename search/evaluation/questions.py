"""Question: one item of a multiple-choice task."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Self

from climbstream.loader.core.errors import InvalidDataError

SPLITS = ("validation", "test")
_LETTERS = ascii_uppercase
"""Letters of choices, first to last."""


@dataclass(frozen=True, slots=True)
class Question:
    """A query and the answers to choose from; if the query is empty, answers are whole texts."""

    query: str
    choices: tuple[str, ...]
    gold: int
    """Index of the right choice, from 0."""
    split: str = ""
    """One of `SPLITS`; empty if the task has no splits."""
    between: str = " "
    """Text that joins the query and an answer."""

    @classmethod
    def from_json(cls, record: Any, where: str) -> Self:
        """Make a question from a JSON object.

        Its keys are ``query``, ``choices`` and ``gold``, and optionally ``split`` and ``between``.
        ``gold`` is the number of the right choice, from 0, or its letter: A is the first choice.

        Raises:
            InvalidDataError: A value is missing or invalid; the message begins with ``where``.
        """
        query, choices = record.get("query"), record.get("choices")
        split, between = record.get("split", ""), record.get("between", " ")
        if not isinstance(query, str):
            raise InvalidDataError(f"{where}: {_said(record, 'query')}, and must be text")
        if not (
            isinstance(choices, list)
            and choices
            and all(isinstance(choice, str) and choice.strip() for choice in choices)
        ):
            raise InvalidDataError(
                f"{where}: {_said(record, 'choices', 'are')}, and must be one text or more"
            )
        gold = _place(record.get("gold"), choices)
        if gold is None:
            last = len(choices) - 1
            letters = f", or a letter, A to {_LETTERS[last]}" if last < len(_LETTERS) else ""
            raise InvalidDataError(
                f"{where}: {_said(record, 'gold')}, and must be the number of a choice, 0 to "
                f"{last}{letters}"
            )
        if split not in ("", *SPLITS):
            raise InvalidDataError(
                f"{where}: {_said(record, 'split')}, and may be {' or '.join(SPLITS)}; a target "
                "has no training split"
            )
        if not isinstance(between, str):
            raise InvalidDataError(f"{where}: {_said(record, 'between')}, and must be text")
        return cls(query, tuple(choices), gold, split, between)

    def to_json(self) -> list[Any]:
        """Return the values of all fields in their order, as a list for JSON."""
        return [self.query, list(self.choices), self.gold, self.split, self.between]

    def answer(self, choice: int) -> str:
        """Return the text of answer number ``choice`` (from 0), to be appended to the query.

        The text begins with ``between``, unless the query is empty.
        """
        return self.between + self.choices[choice] if self.query else self.choices[choice]


def _said(record: Mapping[str, Any], key: str, verb: str = "is") -> str:
    """Return the value of ``key`` for a message, or that the key is missing."""
    return f"{key} {verb} {json.dumps(record[key])[:80] if key in record else 'missing'}"


def _place(gold: Any, choices: Sequence[str]) -> int | None:
    """Return the index of the right choice, which ``gold`` states as a number or a letter.

    The result is None if there is no such choice.
    """
    if isinstance(gold, str):
        # One letter may also be the whole text of a choice, as in ["B", "A"].
        letters = choices if gold in choices else [*_LETTERS[: len(choices)]]
        gold = letters.index(gold) if gold in letters else None
    whole = isinstance(gold, int) and not isinstance(gold, bool)
    return gold if whole and 0 <= gold < len(choices) else None

"""Question: one item of a multiple-choice task."""

import json
from dataclasses import dataclass
from typing import Any, Self

from climbstream.loader.core.errors import InvalidDataError

SPLITS = ("validation", "test")


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

        Raises:
            InvalidDataError: A value is missing or invalid; the message begins with ``where``.
        """
        query, choices = record.get("query"), record.get("choices")
        gold, split = record.get("gold"), record.get("split", "")
        between = record.get("between", " ")
        if not isinstance(query, str):
            raise InvalidDataError(f"{where}: query is {json.dumps(query)}, and must be text")
        if not (
            isinstance(choices, list)
            and choices
            and all(isinstance(choice, str) and choice.strip() for choice in choices)
        ):
            raise InvalidDataError(
                f"{where}: choices are {json.dumps(choices)[:80]}, and must be one text or more"
            )
        if not isinstance(gold, int) or isinstance(gold, bool) or not 0 <= gold < len(choices):
            raise InvalidDataError(
                f"{where}: gold is {json.dumps(gold)}, and must be the number of a choice, "
                f"0 to {len(choices) - 1}"
            )
        if split not in ("", *SPLITS):
            raise InvalidDataError(
                f"{where}: split is {json.dumps(split)}, and may be {' or '.join(SPLITS)}; "
                "a target has no training split"
            )
        if not isinstance(between, str):
            raise InvalidDataError(f"{where}: between is {json.dumps(between)}, and must be text")
        return cls(query, tuple(choices), gold, split, between)

    def to_json(self) -> list[Any]:
        """Return the values of all fields in their order, as a list for JSON."""
        return [self.query, list(self.choices), self.gold, self.split, self.between]

    def answer(self, choice: int) -> str:
        """Return the text of answer number ``choice`` (from 0), to be appended to the query.

        The text begins with ``between``, unless the query is empty.
        """
        return self.between + self.choices[choice] if self.query else self.choices[choice]

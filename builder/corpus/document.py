"""Document: one text of the corpus, with its identifier, its label, its licence and its origin."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.settings import BuildSettings

from .records import MISSING, look_up


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraColumns:
    """Values of one document in columns that a build reads only if its settings name them."""

    kept: tuple[str | None, ...] = ()
    """Values of the columns in the setting ``keep``; a value that is not text is written as
    JSON."""
    scores: tuple[float, ...] = ()
    """Scores that columns of the corpus contain."""
    vector: NDArray[np.float32] | None = None
    """Embedding of the document in a column, ``[dims]``, not scaled to length 1; None if there is
    no such column."""


NOTHING = ExtraColumns()


def take_given(record: dict[str, Any], settings: BuildSettings) -> ExtraColumns | str:
    """Return the values of ``record`` in the columns that ``settings`` name.

    If a value has the wrong type, the result is a text that names the column and the problem.
    """
    scores = []
    for column in settings.score_columns.values():
        score = _number(_value(record, column))
        if score is None:
            return f"{column} is not a number"
        scores.append(score)
    vector = None
    if settings.vector_column is not None:
        vector = _vector(_value(record, settings.vector_column))
        if vector is None:
            return f"{settings.vector_column} is not a list of numbers"
    return ExtraColumns(
        kept=tuple(_text(_value(record, column)) for column in settings.keep),
        scores=tuple(scores),
        vector=vector,
    )


def _value(record: dict[str, Any], path: str) -> Any:
    value = look_up(record, path)
    return None if value is MISSING else value


def _number(value: Any) -> float | None:
    """Return ``value``, a number or the text of one, as a float; None if it is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if np.isfinite(number) else None


def _vector(value: Any) -> NDArray[np.float32] | None:
    try:
        value = json.loads(value) if isinstance(value, str) else value
        vector = np.asarray(value if isinstance(value, list | np.ndarray) else None, np.float32)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    usable = vector.ndim == 1 and len(vector) > 1 and bool(np.isfinite(vector).all())
    return vector if usable else None


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode(errors="replace").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text of the corpus."""

    id: str
    """Identifier that the corpus states; if it states none, ``origin``."""
    text: str
    label: str = ""
    """Domain that the corpus states, "" if none; used in reports, never for clustering."""
    license: str = ""
    origin: str = ""
    """File or URL that the document was read from, and the document's place in it."""
    extra: ExtraColumns = NOTHING

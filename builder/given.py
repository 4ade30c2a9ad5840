"""Given: what the corpus brings in columns of its own: scores, vectors, and what is to be kept."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .settings import BuildSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What columns say of a document."""

    kept: tuple[str | None, ...] = ()
    """Values of the columns to keep, as text; what is no text, as JSON."""
    scores: tuple[float, ...] = ()
    """Values of the columns that are scores."""
    vector: NDArray[np.float32] | None = None
    """Its embedding, ``[dims]``, of any length."""


NOTHING = Given()


def take_given(record: Mapping[str, Any], settings: BuildSettings) -> Given | str:
    """Take what ``settings`` ask for from ``record``, or say why that cannot be."""
    scores = []
    for column in settings.score_columns.values():
        value = record.get(column)
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            return f"{column} is no number"
        scores.append(float(value))
    vector = None
    if settings.vector_column is not None:
        vector = _vector(record.get(settings.vector_column))
        if vector is None:
            return f"{settings.vector_column} is no list of numbers"
    return Given(
        kept=tuple(_text(record.get(column)) for column in settings.keep),
        scores=tuple(scores),
        vector=vector,
    )


def _vector(value: Any) -> NDArray[np.float32] | None:
    try:
        found = np.asarray(value if isinstance(value, list | np.ndarray) else None, np.float32)
    except (ValueError, TypeError):
        return None
    usable = found.ndim == 1 and len(found) > 1 and bool(np.isfinite(found).all())
    return found if usable else None


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode(errors="replace").decode()

"""fastText scorer: scores documents with a fastText model, such as the classifiers of CLIMB.

The labels of the model are numbers, for example ``__label__0`` to ``__label__5``. The score of a
document is its most likely label. Texts are changed first, as in NVIDIA's recipe
(NVIDIA-NeMo/Curator, nemotron-climb-data-curation): to lower case, with spaces around punctuation
marks, and with ``<newline>`` between lines.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.errors import ClimbError, InvalidDataError
from climbstream.loader.core.files import COPY_FIRST, refuse_url

_LABEL = "__label__"
_MARKS = re.compile(r"([.!?,'/()])")


def classify(place: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the scores of ``texts`` by the model in the file ``place``, float32 ``[n]``.

    Raises:
        InvalidDataError: The file is missing, the file is not a model, or the labels are not
            numbers.
        ClimbError: The library is not installed.
    """
    model = _load(place)
    predictions = [model.predict(prepared(text))[0] for text in texts]
    # The model returns no label for a text without a known word; such a text gets the lowest score.
    return np.array(
        [_number(labels[0], place) if labels else 0.0 for labels in predictions], np.float32
    )


def prepared(text: str) -> str:
    """Return ``text`` in the form that the classifiers were trained on.

    >>> prepared("So (it) ends. Yes!")
    'so ( it ) ends . yes !'
    """
    spaced = _MARKS.sub(r" \1 ", text.replace("\n", "<newline>"))
    return " ".join(spaced.lower().split())


@lru_cache(maxsize=4)
def _load(place: str) -> Any:
    """Return the model in the file ``place``; a process loads it only once."""
    try:
        import fasttext  # noqa: PLC0415 - an optional library
    except ModuleNotFoundError:
        raise ClimbError(
            f"{place} needs fasttext; run pip install 'climbstream[fasttext]'"
        ) from None
    refuse_url(place, COPY_FIRST)
    if not Path(place).is_file():
        raise InvalidDataError(f"there is no file {place}; name a fastText model (.bin or .ftz)")
    try:
        return fasttext.load_model(place)
    except (ValueError, RuntimeError, MemoryError) as error:
        raise InvalidDataError(f"{place} is not a fastText model: {error}") from None


def _number(label: str, place: str) -> float:
    try:
        return float(label.removeprefix(_LABEL))
    except ValueError:
        raise InvalidDataError(
            f"{place} has the label {label}; the labels of a model that scores must be numbers, "
            "such as __label__0 to __label__5"
        ) from None

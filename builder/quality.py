"""Four quality scores of a document, 0 to 5, higher is better, by counting; no model is needed.

CLIMB scores with fastText models (arXiv 2504.13161, section 3.1). These stand-ins look at the first
`HEAD` characters and add up what good text has and what junk has:

* overall: running text or code, not digits, symbols, repeated lines, lists or mangled characters;
* educational: words that explain, define, exemplify;
* informational: many different words, with names and numbers among them;
* advertisement: 5 without calls to buy, click, subscribe or consent, without prices and shouting.
"""

import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .settings import SCORES

HEAD = 8_000
"""Characters that are looked at."""

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?")
_COMMON = frozenset(
    "the of and to in a is that for it as was with be by on not he this are or his from at "
    "which but have an had they you were their one all we can her has there been if more when "
    "will would who so no she other its may these what them than some him out into up do "
    "about any your only de la el en que les des le et der die und das il di che no se por "
    "con para una un def return import self if else class int const void static function var "
    "let public new null true false none struct include endif define fn use impl type string "
    "str print".split()
)
_EXPLAIN = frozenset(
    "because therefore thus hence example mean means called define defined definition "
    "consider suppose explain explains explained explanation understand understanding why how "
    "theorem equation figure chapter exercise solution answer problem question method theory "
    "result cause causes effect process function structure study research evidence history "
    "learn learning return returns raise raises".split()
)
_SELL = frozenset(
    "buy click subscribe unsubscribe free offer offers discount sale deal deals shipping "
    "cheap guarantee guaranteed winner casino viagra cookie cookies consent newsletter".split()
)
_PITCH = re.compile(
    r"order now|limited time|act now|best price|save up|money back|privacy policy|terms of use|"
    r"terms of service|sign up|log ?in|all rights reserved|follow us|share this|read more|"
    r"learn more|[€£] ?\d|\$ ?\d[\d,]*\.\d\d|!!|\d ?% off"
)


def score_documents(texts: Sequence[str]) -> NDArray[np.float32]:
    """Score ``texts``: float32 ``[n, 4]``, columns as in `SCORES`."""
    scores = np.array([score_text(text) for text in texts], np.float32)
    return scores.reshape(len(texts), len(SCORES))


def score_text(text: str) -> tuple[float, float, float, float]:
    """Score one text: overall, educational, informational, advertisement, each 0 to 5."""
    text = text[:HEAD]
    length = max(len(text), 1)
    lower = text.lower()
    words = _WORD.findall(lower)
    n = max(len(words), 1)
    letters = sum(map(len, words)) / length
    common = sum(word in _COMMON for word in words) / n
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    repeated = 1 - len(set(lines)) / len(lines)
    # Text packs to 35-60 % of its bytes; templates and tables to less, noise to more.
    raw = text.encode("utf-8", "replace")
    packed = len(zlib.compress(raw, 1)) / max(len(raw), 1)
    mangled = (text.count("\ufffd") + text.count("\u00c3")) / length
    short = min(1.0, n / 60)
    plain = (
        _ramp(letters, 0.25, 0.55)
        * _ramp(common, 0.0, 0.09)
        * _ramp(packed, 0.10, 0.24)
        * (1 - min(1.0, 8 * mangled))
        * (1 - _ramp(repeated, 0.25, 0.8))
    )
    overall = 5 * plain * (0.4 + 0.6 * short)
    explain = sum(word in _EXPLAIN for word in words) / n
    sell = (sum(word in _SELL for word in words) + len(_PITCH.findall(lower))) / n
    diverse = len(set(words)) / n**0.8
    named = sum(map(str.isdigit, text)) / length + sum(map(str.isupper, text)) / length
    return (
        overall,
        5 * plain * _ramp(explain, 0, 0.025),
        5 * plain * _ramp(diverse, 0.4, 1.6) * (0.5 + 0.5 * _ramp(named, 0, 0.06)),
        5 * (1 - _ramp(sell, 0.004, 0.05)),
    )


def _ramp(value: float, low: float, high: float) -> float:
    """0 up to ``low``, 1 from ``high`` on, straight between."""
    return min(1.0, max(0.0, (value - low) / (high - low)))

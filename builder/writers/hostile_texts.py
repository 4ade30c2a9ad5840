"""Hostile texts: unusual texts, which show best whether two encoders return the same ids.

Some texts contain the special tokens of the tokenizer. All other texts are the same in every build.
"""

import sys
from itertools import product

from tokenizers import Tokenizer

_MARKS = (
    "",
    " ",
    "  ",
    "\0",
    "a\0b",
    "\x1b[31m",
    "\x7f\x80\x85\x9f",
    "\t\v\f\x1c\x1d\x1e\x1f",
    "\ufeff\ufffd\ufffe\uffff\U0010ffff",
    "\u00a0\u1680\u180e\u2003\u2028\u2029\u202f\u205f\u3000",
    "\u00ad\u200b\u200c\u200d\u200e\u2060\u202eabc\u202c",
    "\u0301",
    "e\u0301\u0323 \u0301\u0302",
    "a" + "\u0300\u0316" * 200,
    "\u1100\u1161\u11a8 \uac01 \u212b \u2126 \ufb01 \ufdfa \uff21 \u00b2 \u2167 \U0001d7d9",
    "\u0130 \u0131 \u017f \u1e9e \u01c5 \u03a3\u03c2 STRASSE Straße",
    "👩\u200d👩\u200d👧 👍🏽 🏳️\u200d🌈 🇩🇪🇫🇷🇩 1️⃣ \U000e0067",
    "👩\u200d" * 50,
    "I'll DON'T 'S'll've're'd'm't '\u017f it\u2019s ''''",
    "1234567890 3.14e-10,000 ½¼ १२३४५٣٤٥〇一二三",
    "CamelCaseHTTPServer snake_case__x x1y2Z3",
    "\n\n\n \n\t\n   x\n",
    " \r\n \r\na\r\nb\rc\n\rd\r",
    "x   \n",
    "trailing   ",
    "\t\tif x:\n\t\t\treturn\n",
    "https://example.com/a?b=c&d=%20#f me@host.tld C:\\x\\n",
    "<p class='x'>&nbsp;</p> {\"a\": [1, 2.5e3, null]}",
    "E=mc², ∑_{i=0}^{∞} ∫√≠≤ «„“»",
    "Z͑ͫ̓ͪ̂A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈O",
    "日本語テキスト、カタカナ。 中文\uff0c標點\uff01 한국어 조선말",
    "ภาษาไทยไม่มีช่องว่าง ខ្មែរ မြန်မာ བོད་ཡིག",
    "العربية مع تَشْكِيل עברית נִקּוּד",
    "हिन्दी क्षत्रिय தமிழ் తెలుగు ಕನ್ನಡ മലയാളം",
    "ქართული ՀԱՅԵՐԵՆ አማርኛ Ελληνικά Русский Ёё 𐎀𒀀𓀀",
    "▁ ▁▁a Ġ Ċ ##ing <0x0A><0xFF> <unk>",
    "<|endoftext|> <s></s>[INST]<|im_start|>",
)
_RUNS = (
    "a",
    "A",
    "Ab",
    " ",
    "\n",
    " \n",
    "\r\n",
    "7",
    "=",
    "-=",
    "(",
    '[{"',
    "'s",
    "é",
    "中",
    "ก",
    "🙂",
)
"""Strings that make long texts: each is repeated until the text has `_RUN` characters."""
_RUN = 5_000
_LONGEST = 1_000_000
"""Number of characters of the longest text, which is one character that is repeated."""
_BLOCK = 50
"""Number of consecutive code points in each text of `_all_scripts`."""
_NAMES = 100
"""Maximum number of the tokenizer's added tokens whose names occur in texts."""


def hostile_texts(tokenizer: Tokenizer) -> list[str]:
    """Return the hostile texts; the last of them contain names of tokens of ``tokenizer``."""
    runs = [run * (_RUN // len(run)) for run in _RUNS]
    nested = ["(" * _RUN + ")" * _RUN, "x" + " " * _RUN + "y", "word " * _RUN]
    joined = [one + other for one, other in product(_MARKS[:20], repeat=2)]
    texts = [*_MARKS, *runs, *nested, *joined, *_all_scripts(), "a" * _LONGEST]
    added = sorted(token.content for token in tokenizer.get_added_tokens_decoder().values())
    return texts + [f"{name} a{name}{name}\n {name}b {name[:-1]}" for name in added[:_NAMES]]


def _all_scripts() -> list[str]:
    """Return texts with characters of all scripts: in a row, and with "x " between them."""
    texts = []
    for first in range(0, sys.maxunicode + 1, _BLOCK):
        # Ideographs, syllables and unassigned characters are many and similar, so a part of them
        # is enough.
        if first >= 0x3400 and first // _BLOCK % 32:
            continue
        block = [chr(c) for c in range(first, first + _BLOCK) if not 0xD800 <= c < 0xE000]
        texts += ["".join(block), "x ".join(block) + "'s"]
    return texts

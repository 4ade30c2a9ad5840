"""Extract good text from unpacked packages, in all languages that the packages contain.

A package is a folder that was made by ``dpkg -x``, ``tar -x`` or a checkout. These files are read
as text: manuals (``help/LANGUAGE``), man pages (``man/LANGUAGE``), messages (``locale/LANGUAGE``),
HTML pages with a ``lang``, files of the program ``fortune``, and plain text. Files of programs are
read as code, unchanged.
"""

import gettext
import gzip
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

LEAST, MOST = 300, 4_000
"""Fewest and most characters of a document; longer text is cut at the ends of paragraphs."""
EACH = 30
"""Most documents per package and language (or programming language)."""
_OF_FILE = 6
"""Most documents per file."""
_SENTENCE = 60
"""Least number of characters of a message of a program that counts as prose."""
_LOCALE = r"[a-z]{2,3}(?:[-_][A-Za-z]{2,4})?(?:@[a-z]+)?"
_PARENTS = re.compile(rf"(?:help|man|locale)/({_LOCALE})/")
_SUFFIX = re.compile(rf"[._]({_LOCALE})\.(?:html|txt|xml)$")
_HTML_LANGUAGE = re.compile(r'<html[^>]*\slang="([^"]+)"')
_TEXT = {".txt", ".md", ".rst", ""}
_DATA = set(".png .jpg .svg .gif .ico .pdf .dat .so .o .a .pyc .ttf .json .csv .pot".split())
_NO_PROGRAM = _TEXT | set(".html .info .log .output .crt .key .pem .3tcl .Debian".split())


@dataclass(frozen=True, slots=True)
class GoodText:
    """One document of a package."""

    name: str
    text: str
    group: str
    """Language of a text; for code, the suffix of the file."""


def read_package(folder: Path, *, code: bool) -> Iterator[GoodText]:
    """Yield the documents of a package, at most `EACH` per language, from many of its files.

    With ``code``, yield files of programs, else text.
    """
    counts: Counter[str] = Counter()
    seen = set()
    # Do not read files in the order of their names, in which one subject could fill a language.
    files = sorted(
        (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()),
        key=lambda path: (len(path.name), path.name[::-1], path),
    )
    for path in files:
        name = path.name.removesuffix(".gz")
        suffix = name[name.rfind(".") :] if "." in name else ""
        group = suffix if code else _language(path, folder)
        if suffix in _DATA or (code and suffix in _NO_PROGRAM) or counts[group] >= EACH:
            continue
        text = _read(path, code=code)
        if not code and path.suffix == ".html" and group == folder.name:
            named = _HTML_LANGUAGE.search(path.read_bytes()[:2000].decode("utf-8", "ignore"))
            group = named[1] if named else group
        pieces = [text[:MOST]] if code else list(cut(text))
        for number, piece in enumerate(pieces[:_OF_FILE]):
            if len(piece.strip()) >= LEAST and piece not in seen and counts[group] < EACH:
                seen.add(piece)
                counts[group] += 1
                yield GoodText(f"{path.relative_to(folder)}#{number}", piece.strip(), group)


def _language(path: Path, folder: Path) -> str:
    """Return the language in the path of a file; the name of ``folder`` if the path has none."""
    named = _PARENTS.search(str(path)) or _SUFFIX.search(path.name)
    return named[1] if named else folder.name


def _read(path: Path, *, code: bool) -> str:
    """Return the text of a file; "" if the file is not UTF-8 or of a kind that is not read."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if code:
        return _decode(data)
    if path.suffix == ".mo":
        try:
            with path.open("rb") as file:
                messages = gettext.GNUTranslations(file)._catalog.items()
        except UnicodeDecodeError:
            return ""
        # Leave out messages that are not translated, as they are in another language.
        prose = [t for m, t in messages if len(t) >= _SENTENCE and t != m and isinstance(m, str)]
        return "\n\n".join(prose)
    if path.suffix == ".gz" and "/man/" in str(path):
        command = ["man", "--nh", "--nj", "-l", str(path)]
        done = subprocess.run(command, capture_output=True, check=False, env=_MAN)
        return _decode(done.stdout)
    if path.suffix in (".html", ".htm", ".xhtml", ".page"):
        return _strip(_decode(data))
    if path.suffix in _TEXT:
        return _decode(data)
    return ""


_MAN = {"MANWIDTH": "78", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}


def _decode(data: bytes) -> str:
    """Return ``data`` decoded as UTF-8; "" if it is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return ""


def cut(text: str) -> Iterator[str]:
    """Yield documents of ``text``, cut at the ends of paragraphs, or of fortunes, near `MOST`."""
    if text.count("\n%\n") > 5:
        text = text.replace("\n%\n", "\n\n")
    piece = ""
    for paragraph in re.split(r"\n\s*\n", text):
        if piece and len(piece) + len(paragraph) > MOST:
            yield piece[:MOST]
            piece = ""
        piece += paragraph + "\n\n"
    if piece:
        yield piece[:MOST]


_BLOCKS = set("p div li h1 h2 h3 h4 h5 tr title article section item dt dd pre page note".split())
_HIDDEN = set("script style head info guideitem".split())


class _Text(HTMLParser):
    """Parser that collects the text of an HTML page, with blank lines between blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, _: object) -> None:
        self.hidden += tag in _HIDDEN
        if tag in _BLOCKS:
            self.parts.append("\n\n")

    def handle_startendtag(self, tag: str, _: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in _HIDDEN
        if tag in _BLOCKS:
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(re.sub(r"\s+", " ", data))


def _strip(page: str) -> str:
    """Return the text of a page without its HTML tags."""
    parser = _Text()
    parser.feed(page)
    parser.close()
    lines = (line.strip() for line in "".join(parser.parts).splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()

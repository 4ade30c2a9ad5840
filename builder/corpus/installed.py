"""Installed corpus: texts that every machine with Python has, by kind.

The kinds are library code, docstrings, licences, headers, tables, lists of files and so on. The
name of a kind is the label of its documents. Nothing is downloaded, imported or run: files are read
as text.

Nothing is cleaned: lists of files with their hashes are junk, generated headers are nearly equal,
and licences and vendored modules occur many times. A build must cope with all of these.

    every file -> its kind -> random order -> cut into documents, up to the kind's budget -> mixed

The kind of a file is the first kind whose pattern matches the origin of the file (see
`Kind.pattern`). A file that matches no pattern is not used. Drawing a sample of 30 MB takes about 5
s. Only the chosen documents are in memory.
"""

import ast
import inspect
import os
import re
import sys
import sysconfig
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.permutation import derive_key

from .document import Document

MIN_CHARS = 200
"""Minimum number of characters of a document; shorter texts, such as empty ``__init__`` files, are
dropped."""

MAX_BYTES = 20_000
"""Maximum number of bytes of UTF-8 in a document; longer texts are cut at ends of lines."""

_MAX_LINE = MAX_BYTES // 4
"""Maximum number of characters of a line; longer lines (minified scripts) are broken. A character
has at most 4 bytes, so a line fits into a document."""

_CAPS = ((0.4, 0.1), (1.0, 1.0))
"""Limits for the first and for the second pass over the files: the largest part of a kind's budget
that one distribution may fill, and the part that one file may fill. The second pass fills what the
first pass leaves of the budget."""

_MAX_LICENSE = 60

_OWN = "climbstream"


def _whole(text: str) -> str:
    return text


def _description(text: str) -> str:
    """Return the long description of a METADATA file, which follows its headers."""
    return text.partition("\n\n")[2]


def _docstrings(text: str) -> str:
    """Return the docstrings in the Python source ``text``, the outermost first."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in ast.walk(_parsed(text)) if isinstance(node, documented))
    return "\n\n".join(filter(None, map(ast.get_docstring, nodes)))


def _long_strings(text: str) -> str:
    """Return the long strings in the Python source ``text``, such as pages of documentation."""
    nodes = (node for node in ast.walk(_parsed(text)) if isinstance(node, ast.Constant))
    values = (node.value for node in nodes if isinstance(node.value, str))
    return "\n\n".join(inspect.cleandoc(value) for value in values if len(value) >= MIN_CHARS)


def _parsed(text: str) -> ast.Module:
    """Parse Python source; return an empty module if it does not parse (test data, templates)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in the code of others
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError):
            return ast.Module(body=[], type_ignores=[])


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of text, and the files that it is read from."""

    name: str
    about: str
    share: float
    """Share of the budget, relative to the other kinds."""
    pattern: str
    """Regular expression for the origins of the kind's files. An origin is
    ``<distribution>/<path>``; for the standard library, the distribution is "python"."""
    read: Callable[[str], str] = _whole
    """Function that takes the text of a file, and returns the part of it that is used."""


# Narrow and scarce kinds come first: their patterns are tried first, and what they leave of their
# budget goes to the kinds after them.
KINDS = (
    Kind(
        "licences",
        "licence texts; the same few, many times over",
        0.6,
        r"/licenses/|/(LICEN[CS]E|COPYING|NOTICE|AUTHORS)[^/]*$",
    ),
    Kind("readmes", "long descriptions of distributions", 1, r"-info/METADATA$", _description),
    Kind("file lists", "lists of installed files with hashes: junk", 1, r"-info/RECORD$"),
    Kind("language reference", "pages of pydoc", 1, r"^python/pydoc_data/topics", _long_strings),
    Kind("notes", "change logs, data cards", 1, r"\.(rst|md)$|/(NEWS|README|ChangeLog)[^/]*$"),
    Kind(
        "character tables",
        "code pages, and tables of Unicode",
        1,
        r"^python/encodings/|^idna/.*data\.py$|/_?unicode[^/]*\.py$|/unistring\.py$",
    ),
    Kind("web", "pages, scripts and style sheets", 0.6, r"\.(html?|js|css|svg)$"),
    Kind("yaml", "declarations of operators, settings", 1, r"\.ya?ml$"),
    Kind("json", "bills of materials, registries, settings", 1, r"\.jsonl?$"),
    Kind("decimal cases", "cases of decimal arithmetic, one a line", 0.8, r"\.dec[Tt]est$"),
    Kind(
        "number tables",
        "data sets and expected results, in columns",
        1,
        r"\.(csv|tsv|dat|arff)$|^scipy/.*/tests/data/.*\.txt$",
    ),
    Kind("cython", "code in Cython", 1, r"\.(pyx|pxd|pxi)$"),
    Kind("stubs", "types of Python interfaces", 1, r"\.pyi$"),
    Kind("generated headers", "alike, for each operator", 0.6, r"^torch/torch/include/ATen/ops/"),
    Kind("c", "C, C++ and CUDA, mostly headers", 1.5, r"\.(h|hpp|cuh|c|cc|cpp|cu)$"),
    Kind("tests", "tests in Python", 1.5, r"/tests?/.*\.py$|/(test_[^/]*|[^/]*_test)\.py$"),
    Kind(
        "neural networks",
        "code of models and layers",
        1.5,
        r"^transformers/transformers/models/.*\.py$|^torch/torch/(nn|optim|ao)/.*\.py$",
    ),
    Kind(
        "docstrings",
        "technical prose: what numerical modules say of themselves",
        2,
        r"^(numpy|scipy|scikit-learn|pandas|sympy|networkx)/.*\.py$",
        _docstrings,
    ),
    Kind("code", "library code in Python, docstrings and all", 2, r"\.py$"),
)


@dataclass(frozen=True, slots=True)
class _Source:
    """One installed file."""

    origin: str
    distribution: str
    license: str
    path: Path

    def documents(self, kind: Kind) -> Iterator[Document]:
        """Yield the documents of the file; none if it is not UTF-8, or was removed meanwhile."""
        try:
            text = kind.read(self.path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, OSError):
            return
        for number, piece in enumerate(_pieces(text), start=1):
            if len(piece) >= MIN_CHARS:
                yield Document(
                    id=self.origin if number == 1 else f"{self.origin}#{number}",
                    text=piece,
                    label=kind.name,
                    license=self.license,
                    origin=self.origin,
                )


def installed_documents(*, megabytes: float = 30.0, seed: int = 17) -> Iterator[Document]:
    """Return a random sample of the installed texts; their labels are the names of `KINDS`.

    On one machine, equal arguments always give the same documents in the same order. On another
    machine the documents differ, because other files are installed there. Duplicates and junk are
    not removed. The project itself and editable installs are left out.

    Args:
        megabytes: Size of the sample in 10^6 bytes of UTF-8; smaller if less text is installed.
        seed: Chooses the sample and its order.

    Raises:
        UsageError: ``megabytes`` is not above 0.
    """
    if not megabytes > 0:
        raise UsageError(f"megabytes is {megabytes}; it must be above 0, such as 30")
    sources: dict[str, list[tuple[int, _Source]]] = {kind.name: [] for kind in KINDS}
    for source in _sources():
        kind = next((kind for kind in KINDS if re.search(kind.pattern, source.origin)), None)
        if kind is not None:
            sources[kind.name].append((derive_key(seed, source.origin), source))
    documents: list[Document] = []
    left, shares = megabytes * 1e6, sum(kind.share for kind in KINDS)
    for kind in KINDS:
        ordered = [source for _, source in sorted(sources[kind.name], key=lambda item: item[0])]
        taken = _take(kind, ordered, budget=left * kind.share / shares)
        left -= sum(_size(document) for document in taken)
        shares -= kind.share
        documents += taken
    return iter(sorted(documents, key=lambda document: derive_key(seed, "mixed", document.id)))


def _take(kind: Kind, sources: list[_Source], *, budget: float) -> list[Document]:
    """Return documents of ``kind`` from ``sources``, with about ``budget`` bytes in total."""
    taken: dict[str, Document] = {}
    sizes: Counter[str] = Counter()  # bytes taken so far: in all, by distribution and by file
    for of_distribution, of_file in _CAPS:
        for source in sources:
            limits = {
                "": budget,
                source.distribution: budget * of_distribution,
                source.origin: budget * of_file,
            }
            documents = source.documents(kind)
            # A file is opened by the first `next`; most files are never opened.
            while all(sizes[name] < limit for name, limit in limits.items()):
                document = next(documents, None)
                if document is None:
                    break
                if document.id not in taken:
                    taken[document.id] = document
                    sizes.update(dict.fromkeys(limits, _size(document)))
    return list(taken.values())


def _pieces(text: str) -> Iterator[str]:
    """Cut ``text`` at ends of lines into pieces of `MAX_BYTES` at most."""
    piece: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        for start in range(0, len(line), _MAX_LINE):
            part = line[start : start + _MAX_LINE]
            part_size = len(part.encode())
            if size + part_size > MAX_BYTES:
                yield "".join(piece)
                piece, size = [], 0
            piece.append(part)
            size += part_size
    yield "".join(piece)


def _size(document: Document) -> int:
    return len(document.text.encode())


def _sources() -> Iterator[_Source]:
    """Yield the files of the standard library, and of every distribution except climbstream."""
    for folder, prefix in (("stdlib", "python"), ("include", "python/include")):
        root = Path(sysconfig.get_path(folder))
        for directory, folders, names in os.walk(root):
            folders[:] = set(folders) - {"site-packages", "dist-packages", "__pycache__"}
            for name in names:
                path = Path(directory, name)
                origin = f"{prefix}/{path.relative_to(root).as_posix()}"
                yield _Source(origin, "python", "PSF-2.0", path)
    seen = {_OWN}
    # Other folders of sys.path may contain sources under development.
    places = [place for place in sys.path if place.endswith(("site-packages", "dist-packages"))]
    for distribution in distributions(path=places):
        name = re.sub(r"[-_.]+", "-", "".join(distribution.metadata.get_all("Name", []))).lower()
        installed_from = distribution.read_text("direct_url.json") or ""
        # Of two distributions with the same name, the first is used, as Python does.
        if name in seen or re.search(r'"editable":\s*true', installed_from):
            continue
        seen.add(name)
        stated_license = _license(distribution)
        for file in distribution.files or ():
            if ".." not in file.parts and not file.is_absolute():  # scripts are in other folders
                path = Path(str(distribution.locate_file(file)))
                yield _Source(f"{name}/{file.as_posix()}", name, stated_license, path)


def _license(distribution: Distribution) -> str:
    """Return the licence that ``distribution`` states, on one short line; "" if none."""
    metadata = distribution.metadata
    stated = metadata.get_all("License-Expression", [])
    # Some distributions put the whole text of their licence into this header, and name the licence
    # in a classifier.
    stated += [text for text in metadata.get_all("License", []) if len(text) <= _MAX_LICENSE]
    for classifier in metadata.get_all("Classifier", []):
        if classifier.startswith("License ::"):
            stated.append(classifier.rpartition(" :: ")[2])
    return textwrap.shorten((*stated, "")[0], _MAX_LICENSE, placeholder=" ...")

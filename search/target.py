"""Target: the text that a mixture shall make a model good at."""

import io
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import zstandard

from climbstream.loader.errors import InvalidDataError, UsageError
from climbstream.loader.heldout import HeldOutDocument, read_heldout
from climbstream.loader.order import key
from climbstream.loader.storage import hash_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Text to be predicted, in two halves that never meet: one to search on, one to report on."""

    name: str
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """Hash of the text, so that another text under the same name is seen."""
        return hash_json([self.validation, self.test])


def load_target(directory: Path, spec: str) -> Target:
    """Load a target: ``label=NAME`` or ``cluster=NAME`` of the held-out text, or a file.

    A file is text, a document a paragraph, or JSON lines with a column ``text``; also .zst.

    Raises:
        UsageError: There is no such text.
        InvalidDataError: A line of the file has no text, or there are not two documents.
    """
    kind, _, name = spec.partition("=")
    if kind in ("label", "cluster") and name:
        documents = _heldout(directory)
        texts = [d.text for d in documents if getattr(d, kind) == name]
        if not texts:
            there = sorted({getattr(d, kind) for d in documents} - {""})
            raise UsageError(
                f"no held-out document has {kind} {name!r}; there are {', '.join(there) or 'none'}"
            )
    else:
        path = Path(spec)
        if not path.is_file():
            raise UsageError(f"target {spec}: say label=NAME, cluster=NAME or the name of a file")
        texts = _read_texts(path)
    # Each text once: the halves would share what is there twice.
    texts = sorted({t for t in texts if t.strip()}, key=lambda text: (key("target", text), text))
    if len(texts) < 2:
        raise InvalidDataError(
            f"target {spec} has {len(texts)} different documents; two are needed to split it"
        )
    halves: tuple[list[str], list[str]] = ([], [])
    sizes = [0, 0]
    for text in texts:
        # Kept equal in size, so that one long document does not empty the other half.
        smaller = int(sizes[1] < sizes[0])
        halves[smaller].append(text)
        sizes[smaller] += len(text)
    return Target(name=spec, validation=tuple(halves[0]), test=tuple(halves[1]))


def choose_target(directory: Path, least_bytes: int = 100_000) -> str:
    """Choose a target for a demonstration: the kind of middle size among the held-out text.

    Kinds are the known domains, or the clusters where the corpus knows none; those with less than
    ``least_bytes`` are passed over, unless all are.

    Raises:
        UsageError: There is no held-out text.
    """
    documents = _heldout(directory)
    kind = "label" if any(d.label for d in documents) else "cluster"
    sizes: Counter[str] = Counter()
    for document in documents:
        sizes[getattr(document, kind)] += len(document.text)
    kinds = sorted((size, name) for name, size in sizes.items() if name)
    large = [pair for pair in kinds if pair[0] >= least_bytes] or kinds[-1:]
    return f"{kind}={large[len(large) // 2][1]}"


def _heldout(directory: Path) -> list[HeldOutDocument]:
    """Read the held-out documents of a shard directory that must have some."""
    documents = list(read_heldout(directory))
    if not documents:
        raise UsageError(
            f"{directory} holds no held-out text; build it with --holdout 0.05, or name a file"
        )
    return documents


def _read_texts(path: Path) -> list[str]:
    """Read the texts of a file: JSON lines, or one text."""
    data = path.read_bytes()
    if path.suffix == ".zst":
        reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
        data = io.BufferedReader(reader).read()
    if ".jsonl" not in path.suffixes:
        return [part for part in data.decode(errors="replace").split("\n\n") if part.strip()]
    texts = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            try:
                text = json.loads(line)["text"]
            except (ValueError, KeyError, TypeError):
                text = None
            if not isinstance(text, str):
                raise InvalidDataError(f"{path}, line {number}, holds no text")
            texts.append(text)
    return texts

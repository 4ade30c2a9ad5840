"""Sources: the files that a user's names stand for, and why files beside them are left out."""

import glob
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.engines.local import cores
from climbstream.loader.core.errors import ClimbError, InvalidDataError, RemoteError, UsageError
from climbstream.loader.core.files import hash_json
from climbstream.loader.core.visible_text import visible_cell
from climbstream.loader.formats.outputs import is_shard_directory, writer_of
from climbstream.loader.storage.hub import check_contact
from climbstream.loader.storage.s3_files import file_system

from .fingerprints import (
    Facts,
    FileHashes,
    hash_files,
    remote_fingerprint,
    unopened,
    version_of,
)
from .hub_files import hub_files
from .published import SHARDS, without_documents
from .read_report import BadFile

_FORMATS = {
    "jsonl": "jsonl",
    "json": "jsonl",
    "ndjson": "jsonl",
    "txt": "txt",
    "csv": "csv",
    "tsv": "csv",
    "parquet": "parquet",
    "arrow": "arrow",
}
_PACKED = ("gz", "gzip", "zst", "zstd", "bz2", "bzip2", "xz")
FORMATS = f"{', '.join(sorted(_FORMATS))} files (also packed: .gz, .zst, .bz2, .xz)"

UNKNOWN_FORMAT = "of an unknown format"
"""Reason for leaving out a file whose name has no known ending."""
_BESIDE_DATA = {
    "_committed",
    "_started",
    "_temporary",
    "__MACOSX",
    "__pycache__",
    "config.json",
    "dataset_dict.json",
    "dataset_info.json",
    "dataset_infos.json",
    "export.json",
    "generation_config.json",
    "license.txt",
    "manifest.json",
    "package.json",
    "readme.txt",
    "requirements.txt",
    "robots.txt",
    "special_tokens_map.json",
    "state.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
}
"""Names of files and folders that contain no documents, though some end like names of data
files."""


_FEW_BYTES = 256 << 20
"""Largest total size in bytes of files that `survey` hashes itself, because starting workers would
take longer."""
_REVISION = re.compile(r"(^hf://datasets/[^/@]+/[^/@]+)@[0-9a-f]{40}(?=/)")

Info = Mapping[str, Any]
"""What a file system of `fsspec` states about a file, such as its size."""

_OUTPUT = "a shard directory, written by climb"


@dataclass(frozen=True, slots=True)
class Source:
    """A source of documents: a file, a data set of the Hub, or the installed packages."""

    name: str
    """Path, URL or name of the source."""
    place: str
    """The last parts of the path: those below the folder or glob that was named;
    and more of them if needed, so that all sources have different places."""
    format: str
    """``jsonl``, ``txt``, ``csv``, ``parquet``, ``arrow``, ``hub`` or ``python``."""
    fingerprint: str
    """Hash of the content or, if the source is not a local file, of facts that change with the
    content. "": the hash is not computed yet, see `hash_sources`."""
    size: int | None = None
    """Size in bytes; None if the source is no file or its server states no size."""

    @property
    def shown(self) -> str:
        """Return `place` for a message: on one line, although a file name may have line breaks."""
        return visible_cell(self.place)

    @property
    def is_remote(self) -> bool:
        """Whether the source is read over a network."""
        return self.format == "hub" or "://" in self.name


def find_sources(names: Sequence[str]) -> list[Source]:
    """Return the sources that ``names`` stand for, all of them with fingerprints."""
    return hash_sources(survey(names)[0])


def hash_sources(sources: Sequence[Source], engine: Engine | None = None) -> list[Source]:
    """Return ``sources``; compute the fingerprints that `survey` did not compute.

    Tasks of ``engine`` read the files; without an engine, this process does.

    Raises:
        InvalidDataError: A file cannot be opened.
    """
    names = [source.name for source in sources if not source.fingerprint]
    found = hash_files(names, engine) if names else {}
    return [
        replace(source, fingerprint=found[source.name]) if source.name in found else source
        for source in sources
    ]


def survey(names: Sequence[str]) -> tuple[list[Source], list[BadFile]]:
    """Return the sources that ``names`` stand for, and the files and folders that are left out.

    Sources are sorted by place. A file to which several links lead is one source. Local files
    without a stored hash are hashed here if they are small in total; if not, their fingerprints are
    "", and `hash_sources` computes them.

    Raises:
        UsageError: A name matches no data, or a file has an unknown format.
        InvalidDataError: A file cannot be opened.
        RemoteError: A server does not list its files, or does not describe one of them.
    """
    files: dict[str, Info] = {}
    depths: dict[str, int] = {}
    unused: dict[str, BadFile] = {}
    for name in names:
        if name.startswith(("python:", "hub:")) and not os.path.lexists(name):
            parts = hub_files(name) if name.startswith("hub:") else []
            files |= {part: {} for part in parts or [name]}
            continue
        if name.startswith("hf://"):
            check_contact()
        matches, others = _documents(name)
        files.update(matches)
        depths.update((file, _depth(file, name)) for file in matches)
        for bad in others:
            unused[_real(bad.origin)] = BadFile(_below_named(bad.origin, name), bad.reason)
        if not matches:
            _refuse_shards(name, others)
            examples = "".join(f"; {visible_cell(bad.origin)}: {bad.reason}" for bad in others[:3])
            raise UsageError(
                f"{name} is not a file, folder or glob with {FORMATS}; name one, or hub:DATASET, "
                f"or python:{examples}"
            )
    # Of several names of a file, the shortest path stays.
    longest_first = sorted(files, key=lambda name: (name.count("/"), name), reverse=True)
    unique = {_real(name): name for name in longest_first}
    sources = _sources({name: files[name] for name in unique.values()}, depths)
    if sum(source.size or 0 for source in sources if not source.fingerprint) <= _FEW_BYTES:
        sources = hash_sources(sources)
    others = [bad for path, bad in unused.items() if path not in unique]
    return sorted(sources, key=lambda s: s.place), sorted(others, key=lambda bad: bad.origin)


Places = str | Path | Sequence[str | Path]
"""One source or several: files, folders, globs, URLs, ``hub:NAME`` or ``python:``."""


def as_places(sources: Places) -> list[str]:
    """Return ``sources`` as a list of strings; a single source becomes a list of one string."""
    several = [sources] if isinstance(sources, str | Path) else sources
    return [str(source) for source in several]


def left_out(path: str, below: str, *, folder: bool = False) -> str:
    """Return why the file ``path`` is left out; "" if it contains data.

    With ``folder``, ``path`` is a folder. ``below`` is its path, relative to the folder that the
    user named.

    >>> left_out("/x/.git", ".git", folder=True)
    'hidden'
    >>> left_out("/x/a.jsonl.7z", "a.jsonl.7z")
    'packed in an unknown way'
    """
    parts = PurePosixPath(below).parts
    if any(part.startswith(".") for part in parts):
        return "hidden"
    if any(part in _BESIDE_DATA or part.lower() in _BESIDE_DATA for part in parts):
        return "no data by its name"
    if folder and is_shard_directory(Path(path)):
        return _OUTPUT
    if "://" not in path and (command := writer_of(Path(path))):
        return f"written by {command}"
    if not folder and not is_table(below):
        endings = ["", *_endings(below)]
        if not endings[-1]:
            return "no ending that says its format"
        return "packed in an unknown way" if endings[-2] in _FORMATS else UNKNOWN_FORMAT
    if "://" in path or (folder and os.access(path, os.R_OK | os.X_OK)):
        return ""
    if os.path.lexists(path) and not os.path.exists(path):  # noqa: PTH110
        return "a link that leads nowhere"
    if not folder and not Path(path).is_file():
        return "no regular file"
    return "" if os.access(path, os.R_OK) and not folder else "not to be opened"


def unreadable(source: Source, error: BaseException) -> ClimbError | None:
    """Return the error to raise for ``error``; None if it only means that bytes are damaged."""
    if source.is_remote:
        return RemoteError(f"{source.name} cannot be read: {error}")
    if isinstance(error, OSError) and error.errno:
        return InvalidDataError(f"{source.name} cannot be read: {error.strerror}")
    return None


def format_of(path: str) -> str | None:
    """Return the format, as in `Source`, that a file's name states; None if it states none.

    >>> format_of("a.csv.gz"), format_of("a.md")
    ('csv', None)
    """
    return _FORMATS.get(_ending(path))


def is_table(path: str) -> bool:
    """Whether ``path`` has the name of a file from which documents can be read."""
    return format_of(path) is not None


def delimiter_of(source: Source) -> str:
    """Return the delimiter that the name of a text table states."""
    return "\t" if _ending(source.name) == "tsv" else ","


def megabytes_of(name: str) -> float:
    """Return the number of megabytes in ``python:MEGABYTES``; the default is 30."""
    try:
        return float(name.removeprefix("python:") or 30)
    except ValueError:
        raise UsageError(f"{name}: write python: or python:MEGABYTES, such as python:30") from None


def _documents(name: str) -> tuple[dict[str, Info], list[BadFile]]:
    """Return what `_files` returns, without files of ``climb publish`` that have no documents."""
    files, others = _files(name)
    reasons = without_documents([*files, *(bad.origin for bad in others)])
    bad = [BadFile(file, reason) for file, reason in sorted(reasons.items()) if file in files]
    others = [BadFile(one.origin, reasons.get(one.origin, one.reason)) for one in others]
    return {file: info for file, info in files.items() if file not in reasons}, [*others, *bad]


def _refuse_shards(name: str, others: Sequence[BadFile]) -> None:
    """Raise `UsageError` if ``others``, the files at ``name``, are those of a shard directory."""
    if any(bad.reason == SHARDS for bad in others):
        place = name.removeprefix("hf://datasets/")
        raise UsageError(
            f"{name} is {_OUTPUT}, and not a source; `climb pull {place} DIR` copies it, and then "
            "all commands that read shards can use DIR"
        )


def _files(name: str) -> tuple[dict[str, Info], list[BadFile]]:
    """Return the data files that ``name`` (file, folder or glob) stands for, and files left out.

    For each data file, the value is what the file system of its server states; {} for a local file.

    Raises:
        UsageError: ``name`` is no file, folder or glob, or is in a shard directory.
        RemoteError: The Hub has no such data set.
    """
    try:
        system, path = file_system(name)
    except (ValueError, ImportError) as error:
        raise UsageError(f"{name}: {error}") from None
    if isinstance(system, LocalFileSystem):
        local, others = _local_files(path)
        return {file: {} for file in local}, others
    exists = system.exists(path)
    if exists and [*system.find(path)] == [path]:
        return {system.unstrip_protocol(path): {}}, []
    below: dict[str, str] = {}
    infos: dict[str, Info] = {}
    try:
        tops = [path] if exists else system.glob(path)
    except FileNotFoundError as error:  # the Hub has no such data set
        raise RemoteError(f"{name} cannot be read: {error}") from None
    for top in tops:
        for file, info in system.find(top, detail=True).items():
            url = system.unstrip_protocol(file)
            below[url], infos[url] = _below(file, top), info
    files, others = _sorted_out(below.items())
    return {file: infos[file] for file in files}, others


def _below(file: str, top: str) -> str:
    """Return the path of ``file`` relative to ``top``; the file's name if it is ``top`` itself."""
    return file.removeprefix(top).strip("/") or PurePosixPath(file).name


def _output_of(path: str) -> Path | None:
    """Return the shard directory that ``path`` is, or is in (also through a link), or None."""
    places = (Path(path).absolute(), Path(path).resolve())
    ways = (way for place in places for way in (place, *place.parents))
    return next((way for way in ways if is_shard_directory(way)), None)


def _refuse_output(path: str) -> None:
    """Raise `UsageError` if ``path`` is the output of a command, or is in a shard directory."""
    if output := _output_of(path):
        raise UsageError(f"{output} is {_OUTPUT}, and not a source; keep sources outside of it")
    if command := writer_of(Path(path).absolute()) or writer_of(Path(path).resolve()):
        raise UsageError(
            f"{path} was written by {command}, and is not a source; name files or folders of "
            "documents"
        )


def _local_files(path: str) -> tuple[list[str], list[BadFile]]:
    if os.path.lexists(path):
        _refuse_output(path)
        if Path(path).is_dir():
            return _walk(path)
        if not Path(path).is_file():
            raise UsageError(f"{path} is not a regular file or folder")
        return [path], []
    if "**" not in path:
        matches = sorted(glob.glob(path))  # noqa: PTH207
        files: list[str] = []
        others: list[BadFile] = []
        for match in matches:
            below, folder = Path(match).name, Path(match).is_dir()
            reason = _OUTPUT if _output_of(match) else ""
            if folder and not reason:
                reason = left_out(match, below, folder=True)
            if reason:
                others.append(BadFile(match, reason))
                continue
            data, rest = _walk(match) if folder else _sorted_out([(match, below)])
            files += data
            others += rest
        return files, others
    matching = re.compile(glob_translate(path))
    top = path[: re.search(r"[*?\[]", path).start()].rpartition("/")[0]  # type: ignore[union-attr]
    _refuse_output(top or "/")
    files, others = _walk(top or "/")
    return (
        [file for file in files if matching.match(file)],
        [bad for bad in others if matching.match(bad.origin)],
    )


def _walk(top: str) -> tuple[list[str], list[BadFile]]:
    """Return the data files below the folder ``top``, and the files and folders left out.

    Links to folders are followed; the files of each folder are listed once.
    """
    files: list[str] = []
    others: list[BadFile] = []
    seen: set[str] = set()
    for folder, folders, names in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        folders.sort()
        for name in folders.copy():
            path = f"{folder.rstrip('/')}/{name}"
            if reason := left_out(path, name, folder=True):
                others.append(BadFile(path, reason))
            if reason or real in seen:
                folders.remove(name)
        if real not in seen:
            paths = [f"{folder.rstrip('/')}/{name}" for name in sorted(names)]
            data, rest = _sorted_out(zip(paths, sorted(names), strict=True))
            files += data
            others += rest
        seen.add(real)
    return files, others


def _sorted_out(places: Iterable[tuple[str, str]]) -> tuple[list[str], list[BadFile]]:
    """Return the data files of ``places``, and the files that are left out.

    A place is the path of a file, and the same path relative to the folder that the user named.
    """
    files: list[str] = []
    others: list[BadFile] = []
    for path, below in places:
        if reason := left_out(path, below):
            others.append(BadFile(path, reason))
        else:
            files.append(path)
    return files, others


def _real(name: str) -> str:
    """Return the real path of ``name`` if it is a local file; else ``name`` itself."""
    if not os.path.lexists(name):
        return name
    # A link that leads nowhere stands for itself: only the folder that it is in is resolved.
    folder, last = os.path.split(name)
    exists = os.path.exists(name)  # noqa: PTH110
    return os.path.realpath(name) if exists else f"{os.path.realpath(folder)}/{last}"


def _below_named(path: str, name: str) -> str:
    """Return ``path`` relative to the folder or glob ``name``, for messages."""
    return _printable(path.removeprefix(_top(name)).strip("/"))


def _depth(path: str, name: str) -> int:
    """Return how many parts ``path`` has below the folder or glob ``name``; 1 if it is not below.

    >>> _depth("/data/2024/a.csv", "/data"), _depth("s3://b/a.csv", "s3://b/a.csv")
    (2, 1)
    """
    # The path of a file of the Hub has a revision, also if ``name`` has none.
    path, top = (_REVISION.sub(r"\1", place) for place in (path, _top(name)))
    below = path.removeprefix(f"{top}/")
    return 1 if below == path else below.count("/") + 1


def _top(name: str) -> str:
    """Return the folder ``name``, or the folder in which a glob begins: a URL or absolute path."""
    top = re.split(r"[*?\[]", name)[0].rpartition("/")[0] if glob.has_magic(name) else name
    return top.rstrip("/") if "://" in name else os.path.abspath(top)  # noqa: PTH100


def _printable(name: str) -> str:
    """Return the file name ``name``, with escapes in place of bytes that are not UTF-8."""
    return name.encode(errors="backslashreplace").decode()


def _places(names: Sequence[str], depths: Mapping[str, int]) -> list[str]:
    """Return the last parts of ``names``: as few parts as needed for different results.

    ``depths`` has the least number of parts by name; 1 if a name is missing.

    >>> _places(["/data/2024/a.csv", "/data/2025/a.csv"], {}), _places(["/data/a.csv"], {})
    (['2024/a.csv', '2025/a.csv'], ['a.csv'])
    """
    # Without its revision, a file of the Hub has the same place in all revisions.
    unpinned = [_REVISION.sub(r"\1", name) for name in names]
    unique = unpinned if len({*unpinned}) == len(names) else names
    parts = [_printable(name).split("/") for name in unique]
    least = [depths.get(name, 1) for name in names]
    places: dict[str, None] = {}
    for count in range(1, max(map(len, parts), default=0) + 1):
        lengths = (max(count, depth) for depth in least)
        places = {"/".join(p[-n:]): None for p, n in zip(parts, lengths, strict=True)}
        if len(places) == len(names):
            break
    return list(places)


def _sources(infos: Mapping[str, Info], depths: Mapping[str, int]) -> list[Source]:
    """Return a source for each file in ``infos``, which has what its file system states, or {}.

    ``depths`` is as in `_places`.

    Raises:
        UsageError: A file has an unknown format.
        InvalidDataError: A file cannot be opened.
        RemoteError: A server does not state the facts of a file.
    """
    make = partial(_source, FileHashes())
    threads = ThreadPoolExecutor(cores())  # each waits for a disk or a server
    try:
        return list(threads.map(make, infos, _places([*infos], depths), infos.values()))
    finally:
        threads.shutdown(cancel_futures=True)


def _source(hashes: FileHashes, name: str, place: str, info: Info) -> Source:
    if name.startswith("python:"):
        return Source(name, place, "python", hash_json([megabytes_of(name), _installed()]))
    if name.startswith("hub:"):
        return Source(name, place, "hub", hash_json(name))
    form = format_of(name)
    if form is None:
        raise UsageError(f"{name} has an unknown format; a build reads {FORMATS}")
    local = Path(name)
    try:
        if local.exists():
            facts = Facts.of(local)
            return Source(name, place, form, hashes.known(local, facts), facts.size)
        if version_of(info) is None:
            system, path = file_system(name)
            info = system.info(path)
    except OSError as error:
        if "://" in name:
            raise RemoteError(f"{name} cannot be read: {error}") from None
        raise unopened(name, error) from None
    size = info.get("size")
    size = size if isinstance(size, int) else None
    return Source(name, place, form, remote_fingerprint(name, info), size)


def _endings(path: str) -> list[str]:
    return [suffix.lstrip(".").lower() for suffix in PurePosixPath(path).suffixes]


def _ending(path: str) -> str:
    """Return the ending of ``path`` that names the format, not the compression; "" without one."""
    endings = ["", "", *_endings(path)]
    return endings[-2] if endings[-1] in _PACKED else endings[-1]


def _installed() -> list[str]:
    """Return the versions of Python and of the packages that `installed_documents` reads."""
    versions = {f"{d.name}=={d.version}" for d in importlib.metadata.distributions()}
    return [platform.python_version(), *sorted(versions)]

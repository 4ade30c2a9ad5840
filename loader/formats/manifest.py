"""Manifest: the list of what a shard directory contains.

A build writes the manifest last. So a directory with a manifest is complete.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NotRequired, Self, TypedDict, TypeVar

from climbstream.loader.core.console import counted
from climbstream.loader.core.errors import IntegrityError, InvalidDataError, UsageError
from climbstream.loader.core.files import hash_bytes, hash_file, hash_json, write_json
from climbstream.loader.core.typed import Count, check_version, convert, parse_json, short
from climbstream.loader.formats.mds.index import DTYPES, Index
from climbstream.loader.storage.hub import pin
from climbstream.loader.storage.store import Store

from .grouping import GROUPING, GROUPINGS, Grouping, base_of
from .licenses import UNKNOWN, license_name, split_licenses
from .mixture import MIXTURE, Mixture, some_names
from .outputs import MANIFEST as MANIFEST
from .outputs import PULL as PULL
from .outputs import contents_of, is_shard_directory
from .shard_folders import ShardFolder, check_division, find_folder, folder_path

TOKENIZER = "tokenizer.json"
INDEX = "index.json"
NEXT_INDEX = "index.next.json"
"""Name of the new index of a cluster after an append of documents, until it replaces the old one.
If the append is killed before that, readers use the new index."""
NEXT_FILES = ".build/aside"
"""Folder of the other new files after an append of documents, until they replace the old ones."""
COLUMNS = "shards.columns"
"""Name of the file with the indexes of all clusters, in columns."""
DOCUMENTS = "documents"
"""Name of the folder of the catalogue, which lists all documents."""
CLUSTERS = "clusters.json"
CENTROIDS = "centroids.npy"
HELDOUT = "heldout.jsonl.zst"
BAD_RECORDS = "bad_records.json"
CONTAMINATION = "contamination.npz"
"""Name of the file with hashes of the test questions that a build kept out of its shards."""
BESIDE = (
    COLUMNS,
    TOKENIZER,
    CLUSTERS,
    CENTROIDS,
    "model.npz",
    CONTAMINATION,
    "report.html",
    HELDOUT,
    BAD_RECORDS,
)
"""Files beside the shards and the catalogue of a shard directory; some may be missing."""
KEPT_BACK = (HELDOUT, BAD_RECORDS)
"""Files in `BESIDE` that a publisher may keep private."""
AXES = ("topic", "micro", "language", "tier")
"""Axes on which cells (clusters by topic, language and quality tier) may differ."""
Folder = TypeVar("Folder", Path, Store)
MOST_BYTES = 1 << 26
"""Largest size in bytes of a manifest, a grouping or an index that is read. An index of this size
lists about 60,000 shards."""
_NAME = re.compile(r"[\w-][\w .-]*")
_GROUPING = re.compile(rf"{GROUPINGS}/({_NAME.pattern})/{re.escape(GROUPING)}")
_PART = re.compile(rf"{DOCUMENTS}/part-[0-9]{{5,}}\.parquet")


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a part of a cluster: its number of documents and its number of tokens."""

    documents: Count
    tokens: Count

    def __add__(self, other: "Size") -> "Size":
        return Size(self.documents + other.documents, self.tokens + other.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterEntry:
    """One cluster of a shard directory."""

    name: str
    tokens: Count
    documents: Count
    index_hash: str
    """Hash of the cluster's ``index.json``; this file has the hashes of the cluster's shards."""
    axes: dict[str, str] = field(default_factory=dict)
    """If the cluster is a cell (a cluster by topic, language and quality tier): its value on each
    of its axes, which are some of `AXES`. The lowest tier is ``t0``. Empty: it is no cell."""
    licenses: dict[str, Size] = field(default_factory=dict)
    """Number of documents and tokens under each licence, by its name. Documents that state no
    licence count as ``unknown``. Empty: no document of the directory states a licence, or licences
    were not counted."""

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON values, without ``axes`` and ``licenses`` if they are empty."""
        return {k: v for k, v in asdict(self).items() if v or k not in ("axes", "licenses")}


class _Append(TypedDict):
    """One append of documents, as `Manifest.provenance` lists it."""

    before: str
    """Fingerprint of the directory before the append."""
    sources: dict[str, Any]
    tokens: NotRequired[Count]
    """Number of tokens that were added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The list of what a shard directory contains."""

    clusters: tuple[ClusterEntry, ...]
    dtype: str
    """Type of a token: ``uint16`` or ``uint32``."""
    vocab_size: Count
    eos_id: Count | None
    """Token that ends every document; None: the tokenizer has no such token."""
    tokenizer_hash: str
    """Hash of ``tokenizer.json``; empty: there is no tokenizer, as after an import of tokens."""
    build: str
    """Fingerprint of the sources and settings that the directory was built from."""
    license: str
    """Names of the licences on one line, the most frequent first. ``unknown`` is among them if
    documents state none."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Settings and sources of the build; `build` is their hash."""
    conservation: tuple[dict[str, Any], ...] = ()
    """For each stage of the build: how many documents, bytes and tokens went in, came out, and were
    dropped, by reason."""
    parts: Count | None = None
    """Number of parts of the catalogue, ``documents/part-*.parquet``. If the folder has more parts,
    they belong to an append that has not ended. None: all parts in the folder count."""
    files: dict[str, str] = field(default_factory=dict)
    """Hashes, by path in the directory, of the files in `BESIDE`, the parts of the catalogue, and
    the groupings that were published with the shards. Empty in directories that older versions
    made."""
    shard_folders: dict[str, tuple[ShardFolder, ...]] = field(default_factory=dict)
    """Folders of each cluster whose shards are not all in ``clusters/NAME`` of this directory. Only
    divided publications have such clusters."""
    data_sets: tuple[str, ...] = ()
    """URL, with its commit, of each further data set of a divided publication."""
    members: dict[str, tuple[ClusterEntry, ...]] = field(default_factory=dict)
    """Only in the manifest of a `Grouping`: the clusters of each group, by name of the group. Then
    `clusters` are the groups, and all files are in the directory that is grouped, two folders up.
    No file stores this field. Empty: not a grouping."""

    version = 1

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InvalidDataError(f"tokens are {' or '.join(DTYPES)}, not {self.dtype!r}")
        for name, times in Counter(self.names).items():
            check_name(name, "cluster", times)
        for cluster in self.clusters:
            if unknown := cluster.axes.keys() - {*AXES}:
                raise InvalidDataError(
                    f"cluster {cluster.name} has an axis {short(min(unknown))}; the axes are "
                    f"{', '.join(AXES)}"
                )
            for value in cluster.axes.values():
                check_name(value, "group")  # regroup makes names of groups from these values
        for name in self.files:
            if name not in BESIDE and not (_PART.fullmatch(name) or _GROUPING.fullmatch(name)):
                raise InvalidDataError(
                    f"{name!r} is not a file of a shard directory; these are {', '.join(BESIDE)}, "
                    f"{grouping_file('NAME')} and {part_name(0)}, …"
                )
        cells = {cell.name for group in self.members.values() for cell in group}
        check_division(cells or {*self.names}, self.shard_folders, self.data_sets)
        if not self.clusters:
            raise InvalidDataError("a shard directory holds at least one cluster; this has none")

    def __repr__(self) -> str:
        return (
            f"Manifest({len(self.clusters)} clusters, {self.tokens:,} tokens of {self.dtype}, "
            f"fingerprint={self.fingerprint:.8})"
        )

    @property
    def names(self) -> list[str]:
        """Names of the clusters, in their order in the manifest."""
        return [cluster.name for cluster in self.clusters]

    @property
    def tokens(self) -> int:
        """Number of tokens in all clusters."""
        return sum(cluster.tokens for cluster in self.clusters)

    @property
    def token_shares(self) -> Mixture:
        """The mixture in which the weight of each cluster is its share of all tokens."""
        return Mixture.of({c.name: c.tokens for c in self.clusters}, {"kind": "token shares"})

    @property
    def fingerprint(self) -> str:
        """Hash of the names and bytes of the clusters, and of the type of a token.

        Shards with the same fingerprint are the same for any reader.
        """
        return hash_json([[c.name, c.index_hash] for c in self.clusters] + [self.dtype])

    @property
    def found_on(self) -> dict[str, Any]:
        """Facts about these clusters, as JSON values, for the field ``about`` of a mixture.

        `misfit` later compares them with the clusters for which the mixture is used.
        """
        hashes = {c.name: c.index_hash for c in self.clusters}
        return {"shards": self.fingerprint, "clusters": hashes}

    def misfit(self, mixture: Mixture) -> str:
        """Say how these clusters differ from those for which ``mixture`` was made.

        Returns "" in three cases: the clusters are the same; documents were only appended since; or
        the mixture does not say for which clusters it was made.
        """
        shards = mixture.about.get("shards", self.fingerprint)
        if shards in (self.fingerprint, *self.earlier):
            return ""
        said = f"the mixture was found on the shards {shards}, and these are {self.fingerprint}"
        clusters = mixture.about.get("clusters")
        if not isinstance(clusters, dict):
            return said
        here = self.found_on["clusters"]
        kinds = {
            "have other content": [n for n in here if clusters.get(n, here[n]) != here[n]],
            "no longer exist": [n for n in clusters if n not in here],
            "are new": [n for n in here if n not in clusters],
        }
        differences = [f"{some_names(names)} {kind}" for kind, names in kinds.items() if names]
        return f"{said}: {', '.join(differences)}" if differences else said

    def growth(self, mixture: Mixture) -> str:
        """Return a sentence on the documents that were appended since ``mixture`` was made.

        It states the fingerprint and the number of tokens, before and after. It is "" if nothing
        was appended, or if the mixture does not say for which clusters it was made.
        """
        shards = mixture.about.get("shards")
        if shards not in self.earlier:
            return ""
        appends = self.provenance["appended"][self.earlier.index(shards) :]
        added = sum(append.get("tokens", 0) for append in appends)
        return (
            f"The mixture was found on the shards {shards} ({self.tokens - added:,} tokens); after "
            f"{counted(len(appends), 'append')} they are {self.fingerprint} ({self.tokens:,} "
            "tokens), and token shares are those of the latter."
        )

    @property
    def earlier(self) -> list[str]:
        """Fingerprints that the directory had before each append of documents."""
        return [append["before"] for append in self.provenance.get("appended", ())]

    def hash_of(self, name: str) -> str | None:
        """Return the hash of file ``name``; None if the manifest lacks it.

        The hash is None for shards and for indexes of clusters, which `files` does not list.
        """
        return self.files.get(name) or (self.tokenizer_hash if name == TOKENIZER else "") or None

    @property
    def undivided(self) -> Self:
        """This manifest, as if all shards of each cluster were in the folder ``clusters/NAME``."""
        return replace(self, shard_folders={}, data_sets=())

    def place_of(self, cluster: str, shard: int) -> tuple[str, str]:
        """Return where shard number ``shard`` of a cluster is, as (data set, folder).

        The data set is the URL of the data set that has the shard, or "" for the directory of the
        manifest.

        Raises:
            IntegrityError: The folders of the cluster do not have this shard.
        """
        if (folders := self.shard_folders.get(cluster)) is None:
            return "", folder_path(cluster, 0, 1)
        number = find_folder(cluster, folders, shard)
        path = folder_path(cluster, number, len(folders))
        data_set = folders[number].data_set
        return self.data_sets[data_set - 1] if data_set else "", path

    def spread(self, mixture: Mixture) -> Mixture:
        """Return a mixture of clusters for ``mixture``, which has weights of groups.

        The weight of a group is divided among its clusters in proportion to their tokens. If this
        is not the manifest of a grouping, the weights stay the same.

        Raises:
            InvalidDataError: The mixture has weights of clusters that are not in this manifest.
        """
        weights = dict(zip(self.names, mixture.array(self.names).tolist(), strict=True))
        if not self.members:
            return Mixture(weights, mixture.about)
        totals = {group.name: max(1, group.tokens) for group in self.clusters}
        return Mixture.of(
            {
                cell.name: weights[name] * cell.tokens / totals[name]
                for name, cells in self.members.items()
                for cell in cells
            },
            mixture.about,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as JSON values.

        Only the manifest of a grouping has ``members``. Only the manifest of a divided publication
        has ``shard_folders`` and ``data_sets``.
        """
        fields = asdict(self)
        fields["clusters"] = [cluster.to_json() for cluster in self.clusters]
        fields["members"] = {k: [m.to_json() for m in v] for k, v in self.members.items()}
        for name in ("members", "shard_folders", "data_sets"):
            if not fields[name]:
                del fields[name]
        return {"version": self.version, "fingerprint": self.fingerprint, **fields}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the value that `to_json` returned.

        Raises:
            InvalidDataError: ``value`` is no manifest, has an unknown version, or its fingerprint
                is not that of its clusters.
        """
        fields = check_version(value, cls.version, "manifest")
        if "fingerprint" not in fields:
            raise InvalidDataError("this is not a valid manifest: it has no fingerprint")
        fingerprint = fields.pop("fingerprint")
        manifest = convert(fields, cls, "manifest")
        if manifest.fingerprint != fingerprint:
            raise InvalidDataError(
                f"the manifest states the fingerprint {short(fingerprint)}, but that of its "
                f"clusters is {manifest.fingerprint}"
            )
        convert(manifest.provenance.get("appended", []), list[_Append], "record of appends")
        return replace(manifest, license=manifest._with_unknown())

    def _with_unknown(self) -> str:
        """Return `license` with ``unknown`` in it if documents state no licence.

        Earlier versions named only the licences that documents state, such as ``NOASSERTION``.
        """
        names = split_licenses(self.license)
        sizes = join_licenses(cluster.licenses for cluster in self.clusters)
        if UNKNOWN not in sizes or UNKNOWN in names:
            return self.license
        return ", ".join([UNKNOWN, *(name for name in names if license_name(name) != UNKNOWN)])

    def grouped(self, grouping: Grouping) -> Self:
        """Return a manifest of the same shards, in which the groups of ``grouping`` are clusters.

        Raises:
            InvalidDataError: A cluster of the shards is not in exactly one group, a group names an
                unknown cluster, or a group is empty.
        """
        grouping.check(self.names)
        cells = {cluster.name: cluster for cluster in self.clusters}
        members = {g: tuple(cells[name] for name in names) for g, names in grouping.groups.items()}
        clusters = tuple(
            ClusterEntry(
                name=name,
                tokens=sum(cluster.tokens for cluster in group),
                documents=sum(cluster.documents for cluster in group),
                index_hash=hash_json([[cluster.name, cluster.index_hash] for cluster in group]),
                axes=_common_axes(group),
                licenses=join_licenses(cell.licenses for cell in group),
            )
            for name, group in members.items()
        )
        return replace(self, clusters=clusters, members=members)

    @property
    def groupings(self) -> list[str]:
        """Names of the groupings that were published with the shards."""
        return [match[1] for name in self.files if (match := _GROUPING.fullmatch(name))]

    def by_grouping(self, name: str, data: bytes, place: str) -> Self:
        """Return a manifest of the same shards, in which the groups of a grouping are clusters.

        Args:
            name: Name of the grouping.
            data: Content of the grouping's file.
            place: Folder of the grouping's file, for messages.

        Raises:
            IntegrityError: The hash of ``data`` differs from the one in this manifest.
            InvalidDataError: ``data`` is no grouping, or a grouping of other clusters.
        """
        path = f"{place}/{GROUPING}"
        expected = self.files.get(grouping_file(name))
        if expected is not None and (got := hash_bytes(data)) != expected:
            raise IntegrityError(f"{path}: expected hash {expected}, got {got}")
        grouping = Grouping.from_bytes(data, path)
        try:
            return self.grouped(grouping)
        except InvalidDataError as error:
            raise InvalidDataError(f"{path}: {error}") from None

    def save(self, directory: Path) -> None:
        """Write the manifest to ``directory``, which is then a complete shard directory."""
        write_json(directory / MANIFEST, self.to_json())

    @classmethod
    def load(cls, directory: str | Path | Store) -> Self:
        """Return the manifest of ``directory``: the folder or URL of shards or of a grouping.

        Raises:
            InvalidDataError: There is no manifest, or it cannot be read.
            RemoteError: The manifest could not be read from the store.
        """
        store = Store.of(directory)
        try:
            data = store.read(MANIFEST, MOST_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            if (groups := _read_grouping(store)) is not None:
                return cls.load(base_of(store)).by_grouping(store.folder_name, groups, str(store))
            pin(str(directory))  # raises if the Hub has no such data set or revision
            remedy = "check the address"
            if str(store).startswith("hf://") and _has_mixture(store):
                remedy = (
                    f"but it has a mixture, {MIXTURE}: name the shards in its place, and use the "
                    f"mixture as --mixture {directory}"
                )
            elif store.folder is not None:
                _check_there(store.folder, directory)
                _check_kind(store.folder, directory)
                remedy = (
                    "if a build was interrupted, run the same `climb build` again; it continues"
                )
            raise InvalidDataError(
                f"{directory} is not a shard directory: it has no {MANIFEST}; {remedy}"
            ) from None
        path = store / MANIFEST
        value = parse_json(data, str(path))
        try:
            return cls.from_json(value)
        except InvalidDataError as error:
            raise InvalidDataError(f"{path}: {error}") from None


def _common_axes(cells: Sequence[ClusterEntry]) -> dict[str, str]:
    """Return the values that all ``cells`` share, by axis."""
    first, *others = (cell.axes for cell in cells)
    return {k: v for k, v in first.items() if all(other.get(k) == v for other in others)}


def join_licenses(parts: Iterable[Mapping[str, Size]]) -> dict[str, Size]:
    """Return the sum of the sizes over all ``parts``, by licence."""
    joined: dict[str, Size] = {}
    for part in parts:
        for stated, size in part.items():
            name = license_name(stated)
            joined[name] = joined.get(name, Size(0, 0)) + size
    return joined


def single_licenses(sizes: Mapping[str, Size], spellings: Iterable[str] = ()) -> dict[str, Size]:
    """Return the numbers of documents and tokens of each single licence, whatever its letter case.

    The keys of ``sizes`` are the licences as documents state them. A document may state several
    licences, joined by commas. It counts for each of them. A licence is spelled as in
    ``spellings``; if it is not there, it gets its most frequent spelling.

    >>> sizes = {"MIT": Size(2, 20), "mit, CC0-1.0": Size(1, 5)}
    >>> {name: size.documents for name, size in single_licenses(sizes).items()}
    {'MIT': 3, 'CC0-1.0': 1}
    """
    preferred = {name.casefold(): name for name in spellings}
    found: dict[str, dict[str, Size]] = {}
    for stated, size in sizes.items():
        names = split_licenses(license_name(stated))
        for folded, name in {name.casefold(): name for name in names}.items():
            known = found.setdefault(folded, {})
            known[name] = known.get(name, Size(0, 0)) + size
    return {
        preferred.get(folded) or max(known, key=lambda name: (known[name].documents, name)): sum(
            known.values(), Size(0, 0)
        )
        for folded, known in found.items()
    }


def _read_grouping(store: Store) -> bytes | None:
    """Return the content of the grouping's file in ``store``; None if ``store`` is no grouping."""
    if base_of(store) is store:
        return None
    try:
        return store.read(GROUPING, MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None


def check_name(name: str, what: str, times: int = 1) -> None:
    """Raise `InvalidDataError` unless ``name`` is a valid name, and is used only once.

    A folder gets this name, so it must not be a path to another place. ``what`` says what has the
    name, such as "cluster", and ``times`` is how often it is used.
    """
    if not _NAME.fullmatch(name) or times > 1:
        raise InvalidDataError(
            f"{name!r} cannot name a {what}: names are unique, and of letters, digits, "
            "spaces, '_', '-' and '.', the first not a '.' or a space"
        )


def refuse_grouping(manifest: Manifest, place: object, what: str) -> None:
    """Raise `UsageError` if ``manifest`` is of a grouping, which has no shards of its own.

    ``place`` is the folder of the manifest. ``what`` is a verb for the message, such as "verify" in
    "verify the directory that it groups".
    """
    if manifest.members:
        raise UsageError(
            f"{place} is a grouping, and has no shards; {what} the directory that it groups"
        )


def _has_mixture(store: Store) -> bool:
    """Whether ``store`` has a mixture, as a data set of the Hub with only a mixture has."""
    try:
        return bool(store.read(MIXTURE, MOST_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _check_there(directory: Path, name: object) -> None:
    """Raise `InvalidDataError` if ``directory`` does not exist; ``name`` is what the user wrote."""
    if not directory.exists():
        raise InvalidDataError(
            f"{name} is not a shard directory: nothing is there (looked in "
            f"{directory.absolute().parent}); name a folder that climb build, import or pull made"
        )


def _check_kind(directory: Path, name: object) -> None:
    """Raise `InvalidDataError` if another command than one that writes shards wrote ``directory``.

    ``name`` is what the user wrote.
    """
    what = "" if is_shard_directory(directory) else contents_of(directory)
    if what:
        raise InvalidDataError(
            f"{name} is not a shard directory, but {what}. Name here a folder that climb build, "
            "import or pull made"
        )


def cluster_folder(directory: Folder, name: str) -> Folder:
    """Return the folder in ``directory`` that has the shards of cluster ``name``."""
    return directory / "clusters" / name


def shard_folder(base: Store, manifest: Manifest, cluster: str, shard: int) -> Store:
    """Return the folder that has shard number ``shard`` of ``cluster``.

    ``base`` is the folder of ``manifest``.

    Raises:
        IntegrityError: The manifest of a divided publication lists no such shard.
    """
    data_set, path = manifest.place_of(cluster, shard)
    return (base.elsewhere(data_set) if data_set else base) / path


def refuse_divided(manifest: Manifest, place: object, what: str) -> None:
    """Raise `UsageError` if ``manifest`` is that of a divided publication.

    A folder has such a manifest only if the data set was copied without `climb pull`. ``what`` is
    a verb for the end of the message, such as "append to".
    """
    if manifest.shard_folders:
        raise UsageError(
            f"{place} is a copy of a data set whose shards are divided among folders; fetch the "
            f"data set by climb pull OWNER/NAME DIR, and {what} DIR"
        )


def load_index(directory: Path | Store, manifest: Manifest, cluster: ClusterEntry) -> Index:
    """Return the index of one cluster, checked against the manifest.

    Raises:
        IntegrityError: The index is missing, or its bytes or counts differ from the manifest.
        InvalidDataError: The file is no index of token shards.
        RemoteError: The index could not be read from the store.
    """
    folder = cluster_folder(Store.of(directory), cluster.name)
    path = folder / INDEX
    try:
        data = folder.read(INDEX, MOST_BYTES)
    except FileNotFoundError:
        raise IntegrityError(
            f"{path} is missing; build, pull or copy the directory again"
        ) from None
    if (got := hash_bytes(data)) != cluster.index_hash:
        data = _read_next(folder, cluster, got)
    try:
        index = Index.from_bytes(data, manifest.dtype)
    except InvalidDataError as error:
        raise InvalidDataError(f"{path}: {error}") from None
    check_counts(index, cluster, path)
    return index


def check_counts(index: Index, cluster: ClusterEntry, path: object) -> None:
    """Raise `IntegrityError` if ``index`` counts other tokens or documents than ``cluster``.

    ``path`` is the file of the index, for the message.
    """
    if (index.tokens, index.samples) != (cluster.tokens, cluster.documents):
        raise IntegrityError(
            f"{path} counts {index.tokens} tokens in {index.samples} documents, "
            f"and the manifest counts {cluster.tokens} in {cluster.documents}"
        )


def grouping_file(name: str) -> str:
    """Return the path of the file of grouping ``name``, relative to the shard directory."""
    return f"{GROUPINGS}/{name}/{GROUPING}"


def list_groupings(directory: Path | None, manifest: Manifest) -> list[str]:
    """Return the sorted names of the groupings that ``manifest`` lists or ``directory`` has.

    ``directory`` is None for a remote store, which cannot list files. Folders in ``directory``
    whose name is no valid name of a grouping are left out.
    """
    folders = [] if directory is None else (directory / GROUPINGS).glob(f"*/{GROUPING}")
    here = {path.parent.name for path in folders if _NAME.fullmatch(path.parent.name)}
    return sorted(here | {*manifest.groupings})


def grouping_of(
    mixture: Mixture, manifest: Manifest, groupings: Mapping[str, Manifest]
) -> str | None:
    """Return the name of the grouping for whose groups ``mixture`` has weights.

    None: the mixture has weights for the clusters of ``manifest``, or fits neither these clusters
    nor any grouping. ``groupings`` has the manifests of the groupings to choose from, by name.
    """
    ours: list[tuple[str | None, Manifest]] = [(None, manifest), *groupings.items()]
    weighed = {name for name, weight in mixture.weights.items() if weight}
    fitting = [(name, each) for name, each in ours if weighed <= {*each.names}]
    found_on = mixture.about.get("shards")
    exact = [name for name, each in fitting if each.fingerprint == found_on]
    return next(iter([*exact, *(name for name, _ in fitting)]), None)


def part_name(number: int) -> str:
    """Return the path of part ``number`` of the catalogue, relative to the shard directory."""
    return f"{DOCUMENTS}/part-{number:05d}.parquet"


def part_paths(directory: Path) -> list[Path]:
    """Return the paths of all parts of the catalogue, in the order of their numbers."""
    # Sorted by length first, because numbers from 100,000 on have more than five digits.
    parts = (directory / DOCUMENTS).glob("part-*.parquet")
    return sorted(parts, key=lambda path: (len(path.name), path.name))


def is_partial(folder: Path | None) -> bool:
    """Whether a pull with a mixture filled ``folder``; such a folder has no catalogue."""
    return folder is not None and (folder / PULL).is_file() and not part_paths(folder)


def left_out_by_pull(place: str | Path | Store, manifest: Manifest) -> list[str]:
    """Return the names of the clusters that a pull with a mixture left out.

    ``place`` is a directory with ``manifest``, or one of its groupings. The check looks for one
    file per cluster. Of shards at a URL, nothing was left out.
    """
    folder = base_of(Store.of(place)).folder
    if folder is None or not is_partial(folder):
        return []
    members = [entry for entries in manifest.members.values() for entry in entries]
    return [
        entry.name
        for entry in members or manifest.clusters
        if entry.tokens and not _has_shards(folder / "clusters" / entry.name)
    ]


def _has_shards(folder: Path) -> bool:
    """Whether the folder of a cluster has any file besides the index."""
    with suppress(FileNotFoundError), os.scandir(folder) as files:
        return any(file.name != INDEX for file in files)
    return False


def hash_files(directory: Path, parts: Iterable[int] = ()) -> dict[str, str]:
    """Return the hashes of files in ``directory``, by path.

    The files are those in `BESIDE` that exist, and the parts of the catalogue with the numbers
    ``parts``.
    """
    names = [name for name in BESIDE if (directory / name).exists()]
    return {name: hash_file(directory / name) for name in (*names, *map(part_name, parts))}


def read_file(directory: str | Path | Store, manifest: Manifest, name: str) -> bytes:
    """Return the content of file ``name`` of a shard directory.

    If ``manifest`` has the hash of the file, the content is checked.

    Raises:
        FileNotFoundError: There is no such file.
        IntegrityError: The hash of the file differs from the one in the manifest.
        RemoteError: The file could not be read from the store.
    """
    store = Store.of(directory)
    if manifest.members:
        store = base_of(store)
    data = store.read(name)
    expected = manifest.hash_of(name)
    if expected is None or (got := hash_bytes(data)) == expected:
        return data
    with suppress(FileNotFoundError, NotADirectoryError):
        if hash_bytes(later := store.read(f"{NEXT_FILES}/{name}")) == expected:
            return later
    raise IntegrityError(
        f"{store / name}: expected hash {expected}, got {got}; build, pull or copy it again"
    )


def _read_next(folder: Path | Store, cluster: ClusterEntry, got: str) -> bytes:
    """Return the new index of a cluster that an append wrote, but did not yet move into place.

    ``got`` is the hash of the index that is in place, for the message.

    Raises:
        IntegrityError: There is no new index that fits the manifest.
    """
    with suppress(FileNotFoundError):
        if hash_bytes(data := Store.of(folder).read(NEXT_INDEX, MOST_BYTES)) == cluster.index_hash:
            return data
    raise IntegrityError(
        f"{folder / INDEX}: expected hash {cluster.index_hash}, got {got}; if documents were "
        "appended meanwhile, open the directory again; else the file is damaged: build, pull or "
        "copy the directory again"
    )

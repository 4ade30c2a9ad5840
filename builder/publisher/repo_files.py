"""The files that make a shard directory a data set of the Hugging Face Hub.

There are three forms:

- ``shards``: the directory as it is, for climbstream and mosaicml-streaming.
- ``parquet``: the same documents as tables, for `datasets` and the viewer of the Hub. There is one
  configuration per cluster, and a shuffled configuration of all clusters.
- ``drawn``: only the shuffled configuration. Its documents are drawn by a mixture, up to a number
  of tokens.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

from climbstream.builder.cluster_names import cluster_labels, table_folder
from climbstream.builder.dataset_card import CARD, license_metadata, unlicensed_note
from climbstream.builder.exporter.job import ExportJob
from climbstream.builder.exporter.mixture import export_mixture
from climbstream.builder.exporter.shards import export_shards
from climbstream.builder.report.report import REPORT
from climbstream.builder.workdir import is_work
from climbstream.builder.writers.catalogue_parts import join_again
from climbstream.loader.core.errors import IntegrityError, InvalidDataError, UsageError
from climbstream.loader.core.files import (
    check_regular,
    hash_bytes,
    hash_file,
    hash_json,
    json_bytes,
    write_bytes,
)
from climbstream.loader.core.workdir import begin_or_resume
from climbstream.loader.formats.clusters import load_clusters
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.grouping import GROUPINGS
from climbstream.loader.formats.licenses import UNKNOWN, license_name, split_licenses
from climbstream.loader.formats.listing import list_files
from climbstream.loader.formats.manifest import (
    BESIDE,
    CLUSTERS,
    DOCUMENTS,
    HELDOUT,
    INDEX,
    KEPT_BACK,
    MANIFEST,
    TOKENIZER,
    Manifest,
    grouping_file,
    grouping_of,
    list_groupings,
    load_index,
    read_file,
    refuse_divided,
    refuse_grouping,
)
from climbstream.loader.formats.mixture import MIXTURE, Mixture
from climbstream.loader.formats.outputs import TRIALS, WORK

from .card import RepoCard
from .division import FOLDER_FILES, Files, divide, further_name, with_commits
from .mixture_chart import CHART, mixture_chart
from .public_files import public_files

WHAT = {
    "shards": ("clusters", DOCUMENTS, GROUPINGS),
    "parquet": ("parquet", "shuffled", GROUPINGS),
    "drawn": ("shuffled", GROUPINGS),
    "mixture": (GROUPINGS,),
    "all": ("clusters", DOCUMENTS, GROUPINGS, "parquet", "shuffled"),
}
"""For each form: the folders of the data set that it fills."""

MOST_FILES, MOST_IN_FOLDER = 100_000, 10_000
"""Maximum numbers of files in a data set, and in one of its folders, that the Hub recommends."""
_OF_SEARCH = (TRIALS, "answer.json", "report.html")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishSettings:
    """Which parts of a shard directory are published, and in which form."""

    what: str = "shards"
    """Form of the publication: a key of `WHAT`."""
    mixture: Path | None = None
    """File of a mixture for these clusters, or the folder of a search."""
    tokens: int | None = None
    """Number of tokens to draw by the mixture for the shuffled tables; None: these tables contain
    each document once."""
    text: bool = False
    """Whether tables contain text instead of tokens."""
    heldout: bool = False
    """Whether the held-out text is published; others may then include it in their training text."""
    license: str | None = None
    """Licence of documents that state none, or of a mixture that is published alone. A licence that
    documents state is never changed."""

    def __post_init__(self) -> None:
        if self.what == "mixture" and self.mixture is None:
            raise UsageError(
                "to publish only a mixture, name it: --mixture FILE, or the folder of a search"
            )
        if self.what == "drawn" and self.mixture is not None and self.tokens is None:
            raise UsageError(
                "--what drawn draws by --mixture only up to a number of tokens; add --tokens N, or "
                "leave out --mixture to publish each document once"
            )
        if self.license is not None and license_name(self.license) == UNKNOWN:
            raise UsageError(
                f"--license {self.license!r} names no licence; name the licence, or leave out "
                "--license"
            )

    @property
    def sampled(self) -> bool:
        """Whether documents are drawn by the mixture for the shuffled tables.

        Otherwise the shuffled tables contain each document once.
        """
        return self.tokens is not None or self.what == "drawn"


_Contents = Mapping[str, Path | bytes]
"""Content of files, as bytes or a local file, by path in a data set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """The files to publish, and the folders that they fill."""

    files: _Contents
    """Content of each file, as bytes or a local file, by path in the repository."""
    folders: tuple[str, ...]
    """Folders of this publication. All files in these folders that are not in ``files`` are deleted
    from the data set."""
    others: tuple[str, ...]
    """Folders that only other forms fill. The data set must not have them, because the card does
    not describe them."""
    license: str
    notes: tuple[str, ...] = ()
    """Sentences for the publisher, on contents that the publisher may not expect."""
    further: tuple[_Contents, ...] = ()
    """Files of each further data set, if the publication has more shards than a data set takes."""
    manifest: Manifest | None = None
    """If there are further data sets: the manifest, without their commits."""

    @property
    def bytes(self) -> int:
        """Total size of the files in bytes."""
        return sum(size_of(content) for files in self.each for content in files.values())

    @property
    def each(self) -> tuple[_Contents, ...]:
        """Files of each data set; the first data set has the manifest."""
        return self.files, *self.further

    def with_commits(self, repo: str, commits: Sequence[str]) -> "Publication":
        """Return the publication of ``repo``, the first data set, without the further data sets.

        The manifest names the ``commits`` of the further data sets.
        """
        if self.manifest is None:
            return self
        manifest = json_bytes(with_commits(self.manifest, repo, commits).to_json())
        return replace(self, files={**self.files, MANIFEST: manifest}, further=())


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSetPlan:
    """What a publication sends to one data set."""

    repo: str
    folders: int
    """Number of folders that have files."""
    files: int
    bytes: int
    largest_folder: str
    """Path of the folder with the most files; "" is the root."""
    largest_files: int
    """Number of files in this folder."""


def plan_of(repo: str, publication: Publication) -> list[DataSetPlan]:
    """Return what ``publication`` sends to each data set."""
    plans = []
    for number, files in enumerate(publication.each):
        folders = Counter(path.rpartition("/")[0] for path in files)
        largest, most = max(folders.items(), key=itemgetter(1))
        plans.append(
            DataSetPlan(
                repo=further_name(repo, number) if number else repo,
                folders=len(folders),
                files=len(files),
                bytes=sum(map(size_of, files.values())),
                largest_folder=largest,
                largest_files=most,
            )
        )
    return plans


def check_limits(files: Iterable[str]) -> None:
    """Check that the number of files, in total and per folder, is within the limits of the Hub.

    Raises:
        UsageError: There are too many files; the message names the folder with the most files.
    """
    folders = Counter(path.rpartition("/")[0] for path in files)
    folder, most = max(folders.items(), key=itemgetter(1))
    if folders.total() > MOST_FILES or most > MOST_IN_FOLDER:
        raise UsageError(
            f"the Hub takes {MOST_FILES:,} files in a data set and {MOST_IN_FOLDER:,} in a folder; "
            f"this would be {folders.total():,} files, {most:,} of them in {folder or 'the root'}. "
            "Publish a part: --what drawn with fewer --tokens makes fewer files"
        )


def size_of(content: Path | bytes) -> int:
    """Return the size in bytes of the content of a file."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def check_ready(directory: Path) -> None:
    """Check that a shard directory is complete and contains no links, without reading shards.

    Raises:
        InvalidDataError: A file or folder that the manifest names is a link, an append to
            ``directory`` is not finished, or there is no manifest.
    """
    for name in (MANIFEST, *BESIDE, DOCUMENTS, "clusters"):
        _refuse_link(directory / name, directory)
    for name in Manifest.load(directory).names:
        _refuse_link(directory / "clusters" / name, directory)
    if is_work(directory / WORK):
        raise InvalidDataError(
            f"a build or append of {directory} is not finished; run its command again, and publish "
            "then"
        )


def _refuse_link(path: Path, directory: Path) -> None:
    if path.is_symlink():
        check_regular(path, directory)


def collect(
    directory: Path, repo: str, work: Path, settings: PublishSettings | None = None
) -> Publication:
    """Make the tables of the data set ``repo`` from ``directory``; return all files to publish.

    Args:
        directory: The shard directory, with its catalogue, report and so on.
        repo: ``OWNER/NAME``; the card says how to load this data set.
        work: Folder for tables. Tables that are already in it are not made again.
        settings: By default `PublishSettings()`, which publishes only the shards.

    Raises:
        UsageError: ``settings`` state another licence than the shards, or no licence is stated.
        InvalidDataError: The mixture is for other clusters, ``work`` has other files, a file to
            publish is a link or no regular file, or an append to ``directory`` is not finished.
        IntegrityError: A file is not the one that the manifest names.
    """
    settings = settings or PublishSettings()
    manifest = Manifest.load(directory)
    refuse_grouping(manifest, directory, "publish")
    check_ready(directory)
    refuse_divided(manifest, directory, "publish")
    folders = WHAT[settings.what]
    license_ = _license(manifest, settings)
    files: Files = {}
    mixture, by_grouping = None, None
    if settings.mixture is not None:
        mixture, by_grouping = _add_mixture(directory, manifest, settings.mixture, files)
    listing = manifest
    groupings: dict[str, tuple[Path, Manifest]] = {}
    if "clusters" in folders:
        listing, groupings = _add_shards(directory, manifest, work, settings, files)
    configs, counts = _add_tables(directory, manifest, work, settings, mixture, files)
    has_tokens = bool(configs and manifest.tokenizer_hash) and not settings.text
    if has_tokens:
        files[TOKENIZER] = read_file(directory, manifest, TOKENIZER)
    card = RepoCard(
        repo=repo,
        manifest=manifest,
        license=license_,
        stated=settings.license,
        configs=configs,
        mixture=mixture,
        grouping=by_grouping,
        counts=counts if settings.tokens is not None else None,
        has_shards="clusters" in folders,
        has_tokens=has_tokens,
        groupings={path.parent.name: groups for path, groups in groupings.values()},
    )
    further: tuple[Files, ...] = ()
    if "clusters" in folders:
        indexes = {c.name: load_index(directory, manifest, c).shards for c in manifest.clusters}
        listing, further = divide(files, listing, indexes, repo, license_)
        if listing != manifest:
            files[MANIFEST] = json_bytes(listing.to_json())
    files[CARD] = card.to_bytes()
    all_folders = {folder for some in WHAT.values() for folder in some}
    return Publication(
        files=files,
        folders=(*folders, "search") if mixture is not None else folders,
        others=tuple(sorted(all_folders - set(folders))),
        license=license_,
        notes=(
            *_license_notes(manifest, settings, license_),
            *_notes(manifest, settings, mixture, has_heldout=HELDOUT in files),
        ),
        further=further,
        manifest=listing if further else None,
    )


def _notes(
    manifest: Manifest, settings: PublishSettings, mixture: Mixture | None, *, has_heldout: bool
) -> Iterator[str]:
    """Yield the `Publication.notes` that are not on licences."""
    if mixture is not None and (growth := manifest.growth(mixture)):
        yield growth
    if settings.heldout and not has_heldout:
        yield "--heldout has no effect: there is no held-out text in what is published."
    if settings.what == "all":
        yield (
            "Use --what all for later versions of this data set too: a version that lacks a folder "
            "of this one is refused."
        )
    if settings.what == "drawn" and settings.tokens is None:
        yield (
            "shuffled/ has each document once. --tokens N draws documents by token shares, and "
            "--tokens N --mixture FILE by a mixture."
        )
    if settings.tokens is not None and "shuffled" not in WHAT[settings.what]:
        yield "--tokens has no effect: only --what drawn, parquet and all make shuffled tables."
    elif settings.tokens is not None and mixture is None:
        yield "Documents are drawn by token shares: only --mixture gives clusters other weights."
    keep = manifest.provenance.get("settings", {}).get("keep")
    if keep and DOCUMENTS in WHAT[settings.what]:
        yield (
            "documents/ has these columns of the corpus (--keep), also for documents that were "
            f"left out: {', '.join(keep)}."
        )


def _license_notes(manifest: Manifest, settings: PublishSettings, license_: str) -> Iterator[str]:
    """Yield the `Publication.notes` on licences."""
    if settings.what == "mixture":
        if license_ == UNKNOWN:
            yield "The card states no licence for the mixture: --license NAME states one."
        return
    unlicensed = unlicensed_note(manifest)
    if UNKNOWN in split_licenses(license_):
        yield (
            f"{unlicensed} So the card says license: other. --license NAME states the licence of "
            "these documents, if you know it."
        )
    elif unlicensed:
        yield f"{unlicensed} The card says that you state {settings.license} for them."
    if settings.license and license_metadata(settings.license).get("license") == "other":
        yield (
            f"The Hub does not know the licence {settings.license}, so the card says license: "
            "other, with this name."
        )
    if settings.text and unlicensed and "shuffled" in WHAT[settings.what]:
        yield (
            "The text of documents without a licence becomes public (--text). To leave them out, "
            "build with --licenses '!unknown'."
        )


def keep_preview(publication: Publication, work: Path) -> Path:
    """Write card, picture and public report to ``work/preview``; return the path of the card.

    Raises:
        InvalidDataError: The folder has files of another program.
    """
    folder = work / "preview"
    folder.mkdir(parents=True, exist_ok=True)
    begin_or_resume(folder, ".preview.json", {"preview": 1})
    for name in (CARD, CHART, REPORT):
        if isinstance(content := publication.files.get(name), bytes):
            write_bytes(folder / name, content)
    return folder / CARD


def _add_mixture(
    directory: Path, manifest: Manifest, place: Path, files: Files
) -> tuple[Mixture, str | None]:
    """Add the mixture in ``place`` and its picture to ``files``; return the mixture.

    The second value is the name of the grouping for whose groups the mixture was made, or None.
    """
    mixture, grouping, found = _mixture(place, manifest, _groupings(directory, manifest))
    words = {info.name: info.words for info in load_clusters(directory)}
    files |= {**found, CHART: mixture_chart(mixture, manifest.token_shares, words)}
    return mixture, grouping


def _add_shards(
    directory: Path, manifest: Manifest, work: Path, settings: PublishSettings, files: Files
) -> tuple[Manifest, dict[str, tuple[Path, Manifest]]]:
    """Add the shards, and the files beside them, to ``files``.

    Returns the manifest that lists the published files, and the groupings (see `_groupings`).
    """
    groupings = _groupings(directory, manifest)
    files |= _shards(directory, manifest, heldout=settings.heldout)
    files |= _public(directory, manifest, files)
    files |= {name: path for name, (path, _) in groupings.items()}
    return _listing(_join_catalogue(manifest, work, files), groupings, files), groupings


def _add_tables(
    directory: Path,
    manifest: Manifest,
    work: Path,
    settings: PublishSettings,
    mixture: Mixture | None,
    files: Files,
) -> tuple[dict[str, str], dict[str, int] | None]:
    """Write the tables that ``settings`` ask for, and add them to ``files``.

    Returns the folder of each configuration of the data set, and the number of tokens of each
    cluster in the shuffled tables, or None if there are none.
    """
    configs: dict[str, str] = {}
    counts = None
    if "shuffled" in WHAT[settings.what]:
        counts = _add_shuffled(directory, work, settings, mixture, files)
        configs["default"] = "shuffled"
    if "parquet" in WHAT[settings.what]:
        configs |= _add_clusters(directory, manifest, work, settings, files)
    return configs, counts


def _add_shuffled(
    directory: Path,
    work: Path,
    settings: PublishSettings,
    mixture: Mixture | None,
    files: Files,
) -> dict[str, int]:
    """Write the shuffled tables, and add them to ``files``; return the tokens by cluster."""
    out = work / "shuffled"
    job = ExportJob(shards=ShardDirectory(directory), out=out, to="parquet", text=settings.text)
    counts = export_mixture(job, mixture if settings.sampled else None, settings.tokens)
    files |= {f"shuffled/{path.name}": path for path in sorted(out.glob("*.parquet"))}
    return counts


def _add_clusters(
    directory: Path,
    manifest: Manifest,
    work: Path,
    settings: PublishSettings,
    files: Files,
) -> dict[str, str]:
    """Write the tables of each cluster, and add them to ``files``; return the folder by cluster."""
    out = work / "parquet"
    export_shards(str(directory), out, "parquet", text=settings.text)
    tables = sorted(out.glob("*/*.parquet"))
    files |= {f"parquet/{path.relative_to(out).as_posix()}": path for path in tables}
    labels = cluster_labels(manifest.names)
    return {
        name: f"parquet/{table_folder(label)}"
        for name, label in zip(manifest.names, labels, strict=True)
    }


def _mixture(
    place: Path, manifest: Manifest, groupings: Mapping[str, tuple[Path, Manifest]]
) -> tuple[Mixture, str | None, Files]:
    """Read a mixture from a file or from the folder of a search.

    Returns (mixture, grouping, files). The mixture has the weights of clusters. If it was made for
    the groups of a grouping, then the second value is the grouping's name; if not, None. The files
    are those to publish with the mixture, including that of the grouping.
    """
    folder = place if place.is_dir() else None
    file = folder / MIXTURE if folder else place
    mixture = Mixture.load(file)
    by_name = {path.parent.name: groups for path, groups in groupings.values()}
    name = grouping_of(mixture, manifest, by_name)
    clusters = manifest if name is None else by_name[name]
    spread = clusters.spread(mixture)
    if said := clusters.misfit(mixture):
        raise InvalidDataError(
            f"{file}: {said}; publish the mixture with the shards it was found on, or search again"
        )
    files: Files = {MIXTURE: file}
    if name is not None:
        files[grouping_file(name)] = groupings[grouping_file(name)][0]
    if folder:
        check_regular(file, folder)
        of_search = _regular(folder, _OF_SEARCH)
        files |= {f"search/{name}": path for name, path in of_search.items()}
    return spread, name, files


def _license(manifest: Manifest, settings: PublishSettings) -> str:
    """Return the licences of what is published, on one line.

    These are the licences of the shards, with the one that the user states in place of `UNKNOWN`. A
    mixture alone has only the licence that the user states.
    """
    stated = settings.license
    if settings.what == "mixture":
        return stated or UNKNOWN
    names = split_licenses(manifest.license or UNKNOWN)
    if names == [UNKNOWN] and stated is None:
        raise UsageError("the sources of these shards state no licence; state it with --license")
    if UNKNOWN in names and stated is not None:
        stated = {name.casefold(): name for name in names}.get(stated.casefold(), stated)
        return ", ".join(dict.fromkeys(stated if name == UNKNOWN else name for name in names))
    if stated not in (None, manifest.license):
        raise UsageError(
            f"the licence of the shards is {manifest.license}, as their sources state, and cannot "
            f"be changed to {stated}; leave out --license"
        )
    return manifest.license


def _shards(directory: Path, manifest: Manifest, *, heldout: bool) -> dict[str, Path]:
    without = [name for name in KEPT_BACK if name != HELDOUT or not heldout]
    files = {}
    for name, expected in list_files(directory, manifest, without=without).items():
        files[name] = directory / name
        check_regular(files[name], directory)
        if not name.startswith("clusters/") or name.endswith(f"/{INDEX}"):
            _check_hash(files[name], expected)  # hashes of shards were checked before
    return files


def _join_catalogue(manifest: Manifest, work: Path, files: Files) -> Manifest:
    """Join the catalogue to fewer parts, if it has more than a folder takes; return the manifest.

    Earlier versions wrote one part per partition of the corpus. The new parts are written to
    ``work``, and replace the others in ``files``.
    """
    parts = [name for name in files if name.startswith(f"{DOCUMENTS}/")]
    if len(parts) <= FOLDER_FILES:
        return manifest
    paths = [path for name in parts if isinstance(path := files.pop(name), Path)]
    out = work / f"catalogue-{hash_json([manifest.fingerprint, manifest.build])}"
    joined = join_again(paths, out, FOLDER_FILES)
    files |= {name: out / name for name in joined}
    others = {k: v for k, v in manifest.files.items() if not k.startswith(f"{DOCUMENTS}/")}
    return replace(manifest, files=others | joined, parts=len(joined))


def _groupings(directory: Path, manifest: Manifest) -> dict[str, tuple[Path, Manifest]]:
    """Return file and manifest of each grouping in ``directory``, by the file's path there.

    Raises:
        InvalidDataError: A file is no grouping of these shards, or is a link.
    """
    names = map(grouping_file, list_groupings(directory, manifest))
    groupings = {}
    for name, path in _regular(directory, names).items():
        folder = path.parent
        groups = manifest.by_grouping(folder.name, path.read_bytes(), str(folder))
        groupings[name] = path, groups
    return groupings


def _public(directory: Path, manifest: Manifest, files: Files) -> dict[str, bytes]:
    """Return the content of those ``files`` whose published content differs from ``directory``.

    The public report is made from the description of clusters. If there is no such description, the
    report is removed from ``files``, because its samples cannot be left out.
    """
    if CLUSTERS not in files:
        files.pop(REPORT, None)
        return {}
    public = public_files(directory, manifest)
    return {name: data for name, data in public.items() if name in files}


def _listing(
    manifest: Manifest,
    groupings: Mapping[str, tuple[Path, Manifest]],
    files: Mapping[str, Path | bytes],
) -> Manifest:
    """Return the manifest with the hashes of published groupings and of files that are changed."""
    gone = {*map(grouping_file, manifest.groupings)}
    hashes = {name: value for name, value in manifest.files.items() if name not in gone}
    made = {name: data for name, data in files.items() if isinstance(data, bytes)}
    changed = {name: hash_bytes(data) for name, data in made.items() if name in hashes}
    added = {name: hash_file(path) for name, (path, _) in groupings.items()}
    return replace(manifest, files=hashes | changed | added)


def _check_hash(path: Path, expected: str | None) -> None:
    """Raise `IntegrityError` if ``path`` does not have the hash ``expected``; None: no check.

    After the commit of an append, some files have their old content until the append ends.
    """
    if expected is not None and (got := hash_file(path)) != expected:
        raise IntegrityError(
            f"{path}: expected hash {expected}, got {got}; if an append was interrupted, run the "
            "same command again and publish then"
        )


def _regular(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Return the paths of those files of ``names`` that exist in ``folder``, by name.

    Raises:
        InvalidDataError: A file is a link or no regular file.
    """
    files = {name: folder / name for name in names if os.path.lexists(folder / name)}
    for path in files.values():
        check_regular(path, folder)
    return files

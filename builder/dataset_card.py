"""The card of a data set: a README whose YAML metadata names the licence.

The format is that of the Hugging Face Hub: the file begins with metadata between two lines ``---``.
Under the key ``climbstream``, the metadata states the size of the vocabulary and the end token. An
import of exported tables needs both, and rows of tokens do not state them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import yaml

from climbstream.loader.core.console import counted
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import write_bytes
from climbstream.loader.formats.cluster_tables import unlicensed_text
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.licenses import UNKNOWN
from climbstream.loader.formats.manifest import (
    TOKENIZER,
    ClusterEntry,
    Manifest,
    Size,
    join_licenses,
    read_file,
    single_licenses,
)
from climbstream.loader.storage.s3_files import file_system

CARD = "README.md"
_OF_THE_HUB = frozenset(
    "agpl-3.0 apache-2.0 bsd-2-clause bsd-3-clause cc-by-3.0 cc-by-4.0 cc-by-nc-3.0 cc-by-nc-4.0 "
    "cc-by-nc-nd-4.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 "
    "cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 gfdl gpl-2.0 gpl-3.0 "
    "lgpl-2.1 lgpl-3.0 mit mpl-2.0 odbl odc-by pddl unlicense".split()
)
"""Common licences of data sets, as the Hub spells them."""
_LONGEST, _MORE = 60, "-and-more"
"""Maximum number of characters of ``license_name``, and what it ends with if it leaves out
licences."""
LICENSES_OF_SHARDS = "Licences of the shards (those of the drawn documents were not counted):"
"""Beginning of a card's sentence on the licences of documents that were drawn from shards."""
_LISTED, _PER_CLUSTER = 20, 2
"""Maximum number of licences in the table of a card, and for each cluster. Those with the most
tokens are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The metadata that an import reads from a card."""

    licenses: tuple[str, ...] = ()
    ours: dict[str, Any] = field(default_factory=dict)
    """Values under the key ``climbstream``; {} if climbstream did not write the card."""
    configs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Patterns of the files of each configuration, by name of the configuration."""

    @classmethod
    def parse(cls, text: str, name: str) -> Self:
        """Return the metadata of the card whose content is ``text``; errors call it ``name``.

        If the card has no metadata, all fields are empty.

        Raises:
            InvalidDataError: The metadata cannot be read.
        """
        opening, *rest = text.removeprefix("\ufeff").split("\n---", 1)
        if not opening.startswith("---") or not rest:
            return cls()
        try:
            value = yaml.safe_load(opening[3:]) or {}
        except yaml.YAMLError as error:
            text = " ".join(str(error).split())
            raise InvalidDataError(
                f"the metadata of {name} is not YAML: {text}; correct it"
            ) from None
        if not isinstance(value, dict):
            raise InvalidDataError(
                f"the metadata of {name} is not a mapping of names to values; correct it"
            )
        ours = value.get("climbstream")
        ours = ours if isinstance(ours, dict) else {}
        names = value.get("license")
        names = names if isinstance(names, list) else [names]
        names = [value.get("license_name", one) if one == "other" else one for one in names]
        words = {key: value[key] for key in ("license", "license_name") if key in value}
        if ours.get("license") and words == license_metadata(str(ours["license"])):
            names = []  # climbstream wrote these names itself, from its own field
        stated = [str(name) for name in [*names, ours.get("license")] if name]
        licenses = {_word(name) or name: name for name in stated}
        return cls(
            licenses=tuple(licenses.values()), ours=ours, configs=_configs(value.get("configs"))
        )


def _configs(value: Any) -> dict[str, tuple[str, ...]]:
    """Return the patterns of each configuration's training files, by name of the configuration.

    >>> _configs([{"config_name": "c00", "data_files": "parquet/cluster_0/*.parquet"}])
    {'c00': ('parquet/cluster_0/*.parquet',)}
    """
    entries = value if isinstance(value, list) else []
    return {
        str(entry["config_name"]): tuple(_patterns(entry["data_files"]))
        for entry in entries
        if isinstance(entry, dict) and {"config_name", "data_files"} <= entry.keys()
    }


def _patterns(files: Any) -> Iterator[str]:
    """Yield the patterns in the value of ``data_files`` in a card: a text, or files by split."""
    for one in files if isinstance(files, list) else [files]:
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict) and one.get("split", "train") == "train":
            yield from _patterns(one.get("path", []))


def license_metadata(name: str) -> dict[str, Any]:
    """Return the metadata of a card for ``name``: a licence, or several separated by commas.

    The name may be written with spaces: ``CC BY 4.0`` is ``cc-by-4.0``. If the Hub does not know
    one of the licences, ``other`` is stated, with a ``license_name``. If no document states a
    licence, there is no metadata.

    >>> license_metadata("CC BY 4.0"), license_metadata("Crown Copyright")
    ({'license': 'cc-by-4.0'}, {'license': 'other', 'license_name': 'crown-copyright'})
    >>> license_metadata("MIT, CC0-1.0"), license_metadata("unknown")
    ({'license': ['mit', 'cc0-1.0']}, {})
    """
    if name == UNKNOWN:
        return {}
    words = [_word(one) for one in name.split(", ")]
    if {*words} <= _OF_THE_HUB:
        return {"license": words if len(words) > 1 else words[0]}
    return {"license": "other", "license_name": _slug(name) or "as-stated-below"}


def _slug(name: str) -> str:
    """Return an identifier for the Hub from ``name``, one or several licences.

    An identifier of more than 60 characters is cut after a whole licence, or after a whole word if
    the first licence is too long. ``-and-more`` at its end stands for licences that were cut off.
    """
    slugs = [_word(one) for one in name.split(", ")]
    *parts, whole = accumulate(slugs, "{}-{}".format)
    if len(whole) <= _LONGEST:
        return whole.strip("-")
    more = _MORE if parts else ""
    room = _LONGEST - len(more)
    if fitting := [part for part in parts if len(part) <= room]:
        return f"{fitting[-1]}{more}"
    return f"{slugs[0][: room + 1].rpartition('-')[0] or slugs[0][:room]}{more}"


def _word(name: str) -> str:
    """Return ``name`` in small letters, with a hyphen in place of spaces and other marks."""
    return re.sub(r"[^a-z0-9.]+", "-", name.casefold()).strip("-")


def unlicensed_note(manifest: Manifest) -> str:
    """Return a sentence on the documents without a licence; "" if all or none have a licence.

    If no document has a licence, the publisher states one licence for all documents.
    """
    text = "" if manifest.license in ("", UNKNOWN) else unlicensed_text(manifest)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def license_rows(manifest: Manifest, head: str = "licence") -> list[str]:
    """Return the lines of a Markdown table: how many documents and tokens each licence has.

    ``head`` is the head of its first column. The licences with the most tokens come first. [] if
    the manifest has no counts by licence.
    """
    totals = sorted(_by_license(manifest).items(), key=lambda item: -item[1].tokens)
    if not totals:
        return []
    rows = [(cell(name), size) for name, size in totals[:_LISTED]]
    unshared = not any(", " in name for c in manifest.clusters for name in c.licenses)
    if rest := [size for _, size in totals[_LISTED:]]:
        rows.append((counted(len(rest), "other"), sum(rest, Size(0, 0))))
    return [
        f"| {head} | documents | tokens | share of tokens |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {size.documents:,} | {size.tokens:,} | "
            f"{size.tokens / max(manifest.tokens, 1):.1%} |"
            for name, size in rows
        ),
        *([] if unshared else ["", "A document with several licences counts for each of them."]),
    ]


def _by_license(manifest: Manifest) -> dict[str, Size]:
    """Return the numbers of documents and tokens of each single licence, over all clusters."""
    return single_licenses(join_licenses(cluster.licenses for cluster in manifest.clusters))


def cell(name: str) -> str:
    """Return ``name`` as the text of a cell of a Markdown table."""
    return " ".join(name.split()).replace("|", "\\|")


def language_metadata(manifest: Manifest) -> dict[str, Any]:
    """Return the metadata with the languages of kept documents; {} if no language is known."""
    counts: dict[str, Any] = next(
        (stage["kept"] for stage in manifest.conservation if "kept" in stage), {}
    )
    names = [
        name
        for name, entry in counts.get("language", {}).items()
        if entry["kept"] and name not in ("code", "und")
    ]
    return {"language": names} if names else {}


def cluster_rows(manifest: Manifest, columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table with ``columns``, and one row per cluster."""
    heads = ("cluster", *columns)
    rows = zip(manifest.names, *columns.values(), strict=True)
    return [f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *rows]]


def license_column(manifest: Manifest) -> dict[str, list[str]]:
    """Return a column for `cluster_rows`: each cluster's main licences; {} without licences."""
    if not any(cluster.licenses for cluster in manifest.clusters):
        return {}
    names = [*_by_license(manifest)]
    return {"licences by tokens": [_largest_licenses(each, names) for each in manifest.clusters]}


def _largest_licenses(cluster: ClusterEntry, names: Sequence[str]) -> str:
    """Return the licences with the most tokens of ``cluster``, each with its share of tokens.

    ``names`` are the licences of all clusters, as the card spells them.
    """
    sizes = single_licenses(cluster.licenses, names)
    ordered = sorted(sizes.items(), key=lambda item: -item[1].tokens)
    shares = [
        f"{cell(name)} {size.tokens / max(cluster.tokens, 1):.0%}"
        for name, size in ordered[:_PER_CLUSTER]
    ]
    more = len(ordered) - _PER_CLUSTER
    return ", ".join([*shares, *([f"{more} more"] if more > 0 else [])])


def our_metadata(manifest: Manifest, license_: str) -> dict[str, Any]:
    """Return the metadata under the key ``climbstream``, which `Card.parse` reads."""
    return {
        "vocab_size": manifest.vocab_size,
        "eos_id": -1 if manifest.eos_id is None else manifest.eos_id,
        "shards": manifest.fingerprint,
        **({} if license_ == UNKNOWN else {"license": license_}),
    }


def read_beside(folder: str, name: str) -> bytes | None:
    """Return the content of the file ``name`` in ``folder``, a path or URL; None if missing."""
    system, place = file_system(f"{folder}/{name}")
    if not system.exists(place):
        return None
    data: bytes = system.cat_file(place)
    return data


def write_card(title: str, metadata: Mapping[str, Any], body: str) -> bytes:
    """Return the bytes of a card: YAML ``metadata``, ``title`` as a heading, and ``body``."""
    head = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n# {title}\n\n{body}\n".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportContents:
    """What the card of an export says about its files."""

    files: str
    """A description of the files, in words."""
    configs: Mapping[str, str] = field(default_factory=dict)
    """Patterns of the tables that `datasets` loads, by the name of their configuration."""
    drawn: Mapping[str, int] | None = None
    """Number of tokens that were drawn from each cluster; None if all tokens were exported."""


def write_beside(shards: ShardDirectory, out: Path, contents: ExportContents) -> None:
    """Write the card of an export to ``out``, and the tokenizer if the shards have one."""
    manifest = shards.manifest
    if manifest.tokenizer_hash:
        store = shards.store.without_links()
        write_bytes(out / TOKENIZER, read_file(store, manifest, TOKENIZER))
    metadata = license_metadata(manifest.license) | language_metadata(manifest)
    if contents.configs:
        metadata["configs"] = [
            {"config_name": name, "data_files": pattern}
            for name, pattern in contents.configs.items()
        ]
    rows = cluster_rows(manifest, _size_columns(manifest, contents.drawn))
    size = f"{counted(manifest.tokens, 'token')} in {counted(len(manifest.clusters), 'cluster')}"
    summary, head = f"{size}. Licence:", "licence"
    if contents.drawn is not None:
        drawn = counted(sum(contents.drawn.values()), "token")
        summary = f"{drawn}, drawn from shards with {size}. {LICENSES_OF_SHARDS}"
        head = "licence in the shards"
    body = (
        f"{summary} {manifest.license}. {unlicensed_note(manifest)}".rstrip()
        + f"\n\nFiles: {contents.files}.\n\n"
        + "\n".join([*rows, "", *license_rows(manifest, head)]).rstrip()
    )
    metadata["climbstream"] = our_metadata(manifest, manifest.license)
    write_bytes(out / CARD, write_card("Clusters of tokens", metadata, body))


def _size_columns(manifest: Manifest, drawn: Mapping[str, int] | None) -> dict[str, list[str]]:
    """Return the columns with the size of each cluster, by head of the column.

    With ``drawn``, there are two columns: the tokens that were drawn, and the tokens of the shards.
    """
    tokens = [f"{cluster.tokens:,}" for cluster in manifest.clusters]
    if drawn is not None:
        return {
            "tokens here": [f"{drawn[name]:,}" for name in manifest.names],
            "tokens of the shards": tokens,
        }
    documents = [f"{cluster.documents:,}" for cluster in manifest.clusters]
    return {"documents": documents, "tokens": tokens, **license_column(manifest)}

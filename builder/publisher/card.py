"""The card of a published data set: licence, how to load it, what is in it, how it was made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from climbstream.builder.dataset_card import (
    LICENSES_OF_SHARDS,
    cluster_rows,
    language_metadata,
    license_column,
    license_metadata,
    license_rows,
    our_metadata,
    unlicensed_note,
    write_card,
)
from climbstream.loader.core.console import counted
from climbstream.loader.formats.grouping import GROUPINGS
from climbstream.loader.formats.licenses import UNKNOWN
from climbstream.loader.formats.manifest import TOKENIZER, Manifest
from climbstream.loader.formats.mixture import Mixture

from .mixture_chart import CHART
from .origin import origin_lines

_SIZES = ((10**6, "1M<n<10M"), (10**5, "100K<n<1M"), (10**4, "10K<n<100K"), (10**3, "1K<n<10K"))
"""Minimum number of documents, and the Hub's name for data sets of this size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoCard:
    """The facts that the card of a data set states."""

    repo: str
    manifest: Manifest
    license: str
    """Licences on one line; `UNKNOWN` if a mixture is published alone, without a licence."""
    stated: str | None
    """Licence that the publisher states for documents that state none; None: none is stated."""
    configs: Mapping[str, str]
    """Folder of each configuration's tables, by name of the configuration."""
    mixture: Mixture | None
    """The published mixture; None if no mixture is published."""
    grouping: str | None
    """Name of the grouping, if the mixture was made for the groups of a grouping; None: it was made
    for the clusters."""
    counts: Mapping[str, int] | None
    """Number of tokens of each cluster in the shuffled tables; None if documents were not drawn by
    the mixture."""
    has_shards: bool
    has_tokens: bool
    """Whether the tables have tokens that the published tokenizer decodes."""
    groupings: Mapping[str, Manifest]
    """Groupings of the clusters that are published with the shards, by name."""

    def to_bytes(self) -> bytes:
        """Return the content of the card's file."""
        manifest = self.manifest
        lines = [
            self._summary(),
            "",
            *self._loading_shards(),
            *self._loading_tables(),
            *self._loading_mixture(),
            *self._chart(),
            *self._table(),
            "",
            *self._licenses(),
            *self._groupings(),
            *([] if self._alone else origin_lines(manifest)),
            f"Shards `{manifest.fingerprint}`, built as `{manifest.build}` by climbstream"
            + ("; the settings are in `manifest.json`." if self.has_shards else "."),
        ]
        if self.mixture and (reason := self.mixture.about.get("reason")):
            lines += ["", f"How the mixture was found: {reason}"]
        if self.mixture and (growth := manifest.growth(self.mixture)):
            lines += ["", growth]
        if self.mixture and isinstance(warnings := self.mixture.about.get("warnings"), list):
            lines += ["", "Warnings of the search:", "", *(f"- {text}" for text in warnings)]
        return write_card(self.repo.partition("/")[2], self._metadata(), "\n".join(lines))

    @property
    def _documents(self) -> int:
        return sum(cluster.documents for cluster in self.manifest.clusters)

    @property
    def _alone(self) -> bool:
        """Whether only a mixture is published, without shards and tables."""
        return not (self.has_shards or self.configs)

    @property
    def _drawn_alone(self) -> bool:
        """Whether only drawn documents are published, not all documents of the shards."""
        return self.counts is not None and not self.has_shards and [*self.configs] == ["default"]

    def _summary(self) -> str:
        """Return a paragraph on the size and the licence of what is published."""
        manifest, clusters = self.manifest, counted(len(self.manifest.clusters), "cluster")
        size = f"{counted(manifest.tokens, 'token')} of {counted(self._documents, 'document')}"
        if self._alone:
            license_ = f"Licence of the mixture: {self.license}, as the publisher states it."
            if self.license == UNKNOWN:
                license_ = "The publisher states no licence for the mixture."
            return (
                f"A mixture: the weights of {clusters}. The shards, {size}, are not in this data "
                f"set, and have their own licences. {license_}"
            )
        note = unlicensed_note(manifest)
        if note and self.stated:
            license_ = f"{self.license}. {note} For these, the publisher states {self.stated}."
        elif manifest.license == self.license:
            license_ = f"{self.license}, as the sources state it. {note}".rstrip()
        else:
            license_ = f"{self.license}, as the publisher states it."
        if self.counts is None:
            return f"{size} in {clusters}. Licence: {license_}"
        rule = "by the mixture" if self.mixture else "by token shares"
        drawn = f"{counted(sum(self.counts.values()), 'token')}, drawn {rule}"
        if self._drawn_alone:
            return f"{drawn} from shards with {size} in {clusters}. {LICENSES_OF_SHARDS} {license_}"
        return f"{size} in {clusters}; the shuffled tables have {drawn}. Licence: {license_}"

    def _metadata(self) -> dict[str, Any]:
        """Return the metadata of the card, which the Hub reads."""
        size = next((name for least, name in _SIZES if self._documents >= least), "n<1K")
        text = language_metadata(self.manifest)
        if not self._drawn_alone:  # the number of drawn documents is not counted
            text["size_categories"] = [size]
        metadata: dict[str, Any] = {
            **(license_metadata(self.license) or {"license": UNKNOWN}),
            "tags": ["climbstream", "pretraining", "data-mixture"],
            **({} if self._alone else text),
            "climbstream": our_metadata(self.manifest, self.license),
        }
        if self.configs:
            metadata["configs"] = [
                {"config_name": name, "data_files": f"{folder}/*.parquet"}
                | ({"default": True} if name == "default" else {})
                for name, folder in self.configs.items()
            ]
        return metadata

    def _loading_shards(self) -> list[str]:
        if not self.has_shards:
            return []
        place = f"hf://{self.repo}"
        if self.grouping:
            place += f"/{GROUPINGS}/{self.grouping}"
        argument = f", Mixture.from_hub({self.repo!r})" if self.mixture else ""
        return [
            "```python",
            f"from climbstream.loader import {'Mixture, ' if self.mixture else ''}MixtureLoader",
            "",
            f'loader = MixtureLoader("{place}"{argument}, seq_len=2048, batch_rows=512)',
            "```",
            f"`climb pull {self.repo} DIR` fetches it; mosaicml-streaming reads each folder of "
            "shards below `clusters/` as a stream (MDS v2, zstd, column `tokens`).",
            "",
        ]

    def _loading_tables(self) -> list[str]:
        if not self.configs:
            return []
        one = [name for name in self.configs if name != "default"][:1]
        return [
            "```python",
            "from datasets import load_dataset",
            "",
            f'load_dataset("{self.repo}", split="train", streaming=True)  # shuffled',
            *(f'load_dataset("{self.repo}", "{n}", split="train", streaming=True)' for n in one),
            "```",
            "",
            *self._decoding(),
        ]

    def _decoding(self) -> list[str]:
        """Return the lines on how to decode the tokens of tables."""
        if not self.has_tokens:
            return []
        return [
            f"The column `tokens` has token ids, without end tokens. `{TOKENIZER}` decodes them:",
            "",
            "```python",
            "from huggingface_hub import hf_hub_download",
            "from tokenizers import Tokenizer",
            "",
            f'path = hf_hub_download("{self.repo}", "{TOKENIZER}", repo_type="dataset")',
            'Tokenizer.from_file(path).decode(row["tokens"])',
            "```",
            "",
        ]

    def _loading_mixture(self) -> list[str]:
        """Return the lines on how to use a mixture that is published alone."""
        if not self._alone:
            return []
        return [
            "```python",
            "from climbstream.loader import Mixture, MixtureLoader",
            "",
            f'loader = MixtureLoader("SHARDS", Mixture.from_hub("{self.repo}"), seq_len=2048, '
            "batch_rows=512)",
            "```",
            f"`SHARDS` is the folder or URL of the shards; commands take `--mixture "
            f"hf://{self.repo}`.",
            "",
        ]

    def _chart(self) -> list[str]:
        """Return the lines that show the picture of the mixture; no lines without a mixture."""
        if self.mixture is None:
            return []
        return [f"![Weights of the mixture and token shares, by cluster]({CHART})", ""]

    def _groupings(self) -> list[str]:
        """Return the lines about groupings: for each, its number of groups and its address."""
        if not self.groupings:
            return []
        rows = [
            f"| {name} | {len(groups.clusters)} | `hf://{self.repo}/{GROUPINGS}/{name}` |"
            for name, groups in self.groupings.items()
        ]
        head = ["| grouping | groups | read as a shard directory |", "| --- | --- | --- |"]
        return ["A grouping merges the clusters into fewer groups.", "", *head, *rows, ""]

    def _licenses(self) -> list[str]:
        """Return the lines of a table of licences; no lines without counts, or without text."""
        of = "licence in the shards" if self._drawn_alone else "licence"
        rows = [] if self._alone else license_rows(self.manifest, of)
        return [*rows, ""] if rows else []

    def _table(self) -> list[str]:
        """Return the lines of a table with one row per cluster."""
        clusters = self.manifest.clusters
        of_shards = " of the shards" if self._drawn_alone else ""
        columns = {
            f"documents{of_shards}": [f"{c.documents:,}" for c in clusters],
            f"tokens{of_shards}": [f"{c.tokens:,}" for c in clusters],
            "share of tokens": [f"{c.tokens / self.manifest.tokens:.6f}" for c in clusters],
        }
        if self.mixture:
            weights = self.mixture.array(self.manifest.names).tolist()
            columns["weight"] = [f"{weight:.6f}" for weight in weights]
        if self.counts:
            columns["tokens drawn"] = [f"{self.counts[c.name]:,}" for c in clusters]
        if not (self._alone or self._drawn_alone):
            columns |= license_column(self.manifest)
        return cluster_rows(self.manifest, columns)

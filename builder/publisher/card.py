"""The card of a published data set: licence, how to load it, what is in it, how it was made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from climbstream.builder.dataset_card import (
    cluster_rows,
    language_metadata,
    license_column,
    license_metadata,
    license_rows,
    our_metadata,
    unlicensed_note,
    write_card,
)
from climbstream.loader.formats.grouping import GROUPINGS
from climbstream.loader.formats.manifest import Manifest
from climbstream.loader.formats.mixture import Mixture

from .mixture_chart import CHART

_SIZES = ((10**6, "1M<n<10M"), (10**5, "100K<n<1M"), (10**4, "10K<n<100K"), (10**3, "1K<n<10K"))
"""Minimum number of documents, and the Hub's name for data sets of this size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoCard:
    """The facts that the card of a data set states."""

    repo: str
    manifest: Manifest
    license: str
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
    groupings: Mapping[str, Manifest]
    """Groupings of the clusters that are published with the shards, by name."""

    def to_bytes(self) -> bytes:
        """Return the content of the card's file."""
        manifest, documents = self.manifest, self._documents
        source = "sources" if manifest.license == self.license else "publisher"
        verb = "state" if source == "sources" else "states"
        lines = [
            f"{manifest.tokens:,} tokens of {documents:,} documents in {len(manifest.clusters)} "
            f"clusters. Licence: {self.license}, as the {source} {verb} it. "
            f"{unlicensed_note(manifest)}".rstrip(),
            "",
            *self._loading_shards(),
            *self._loading_tables(),
            *self._chart(),
            *self._table(),
            "",
            *self._licenses(),
            *self._groupings(),
            f"Shards `{manifest.fingerprint}`, built as `{manifest.build}` by climbstream; the "
            "settings are in `manifest.json`.",
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

    def _metadata(self) -> dict[str, Any]:
        """Return the metadata of the card, which the Hub reads."""
        size = next((name for least, name in _SIZES if self._documents >= least), "n<1K")
        metadata: dict[str, Any] = {
            **license_metadata(self.license),
            **language_metadata(self.manifest),
            "tags": ["climbstream", "pretraining", "data-mixture"],
            "size_categories": [size],
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
        """Return the lines of a table of licences; no lines if no document states a licence."""
        return [*rows, ""] if (rows := license_rows(self.manifest)) else []

    def _table(self) -> list[str]:
        """Return the lines of a table with one row per cluster."""
        clusters = self.manifest.clusters
        columns = {
            "documents": [f"{c.documents:,}" for c in clusters],
            "tokens": [f"{c.tokens:,}" for c in clusters],
            "share of tokens": [f"{c.tokens / self.manifest.tokens:.6f}" for c in clusters],
        }
        if self.mixture:
            weights = self.mixture.array(self.manifest.names).tolist()
            columns["weight"] = [f"{weight:.6f}" for weight in weights]
        if self.counts:
            columns["tokens drawn"] = [f"{self.counts[c.name]:,}" for c in clusters]
        return cluster_rows(self.manifest, columns | license_column(self.manifest))

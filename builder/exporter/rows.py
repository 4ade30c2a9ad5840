"""Rows of tables: write documents as Parquet or JSON lines, in the layout of ClimbLab or ClimbMix.

A row is one document. Its columns are ``tokens`` (or ``text``), ``token_count`` and ``cluster_id``,
and further columns of the catalogue, if they are asked for.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from climbstream.builder.cluster_names import cluster_labels
from climbstream.loader.core.errors import IntegrityError, UsageError
from climbstream.loader.core.files import atomic_path
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.manifest import TOKENIZER
from climbstream.loader.formats.tokenizer import read_tokenizer

_NO_COLUMNS = pa.table({})
OWN = ("tokens", "text", "token_count", "cluster_id")
"""Columns that rows have of themselves."""
Part = tuple[Sequence[int], Sequence[NDArray[Any]]]
"""Some documents: the number of each document's cluster, and each document's tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Writes documents as rows; the fields say what a row contains."""

    eos_id: int | None
    """Token that ends documents, and that rows leave out; None: documents have no end token."""
    labels: tuple[int | str, ...]
    """Value of the column ``cluster_id`` for each cluster."""
    text_of: str | None = None
    """Shard directory whose tokenizer decodes the rows; None: rows contain tokens."""
    more: Any = _NO_COLUMNS.schema
    """Arrow schema of further columns of each row."""

    def write(
        self, path: Path, parts: Iterable[Part], more: Iterable[Any] = repeat(_NO_COLUMNS)
    ) -> int:
        """Write ``parts`` to a ``.parquet`` or ``.jsonl`` file, whole or not at all.

        ``more`` has, for each part, an Arrow table with the further columns of its documents.
        Returns the number of tokens in ``parts``, including end tokens.

        Raises:
            IntegrityError: A document does not end with the end token.
        """
        write = self._write_table if path.suffix == ".parquet" else self._write_lines
        with atomic_path(path) as partial:
            return write(partial, zip(parts, more, strict=False))

    def _write_table(self, path: Path, parts: Iterable[tuple[Part, Any]]) -> int:
        label = pa.int64() if isinstance(self.labels[0], int) else pa.string()
        first = ("tokens", pa.list_(pa.int32())) if self.text_of is None else ("text", "string")
        schema = pa.schema([first, ("token_count", pa.int64()), ("cluster_id", label), *self.more])
        written = 0
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for (clusters, documents), more in parts:
                rows = [self._row(k, d) for k, d in zip(clusters, documents, strict=True)]
                counts = [len(row) for row in rows]
                ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
                tokens = pa.ListArray.from_arrays(
                    ends, np.concatenate([np.empty(0, np.int32), *rows]).astype(np.int32)
                )
                content = tokens if self.text_of is None else pa.array(self._texts(rows))
                labels = pa.array([self.labels[k] for k in clusters], label)
                columns = [content, pa.array(counts), labels, *more.columns]
                writer.write_table(pa.table(columns, schema=schema))
                written += sum(map(len, documents))
        return written

    def _write_lines(self, path: Path, parts: Iterable[tuple[Part, Any]]) -> int:
        written = 0
        with path.open("w", encoding="utf-8") as file:
            for (clusters, documents), more in parts:
                rows = [self._row(k, d) for k, d in zip(clusters, documents, strict=True)]
                facts = more.to_pylist() if self.more.names else repeat({}, len(rows))
                name = "tokens" if self.text_of is None else "text"
                texts = [r.tolist() for r in rows] if self.text_of is None else self._texts(rows)
                for k, row, content, fact in zip(clusters, rows, texts, facts, strict=True):
                    value = {
                        name: content,
                        "token_count": len(row),
                        "cluster_id": self.labels[k],
                        **{n: v.hex() if isinstance(v, bytes) else v for n, v in fact.items()},
                    }
                    file.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")
                written += sum(map(len, documents))
        return written

    def _row(self, k: int, document: NDArray[Any]) -> NDArray[Any]:
        """Return the tokens of ``document`` without its end token.

        An import adds the end token to a row that does not end with it, and leaves out an empty
        row. So the end token stays in two cases: if the rest of the document is empty, or if the
        rest ends with another end token.
        """
        end = self.eos_id
        if end is None:
            return document
        if document[-1] != end:
            raise IntegrityError(
                f"a document of cluster {self.labels[k]} does not end with token {end}, but the "
                "manifest says that all documents do; run climb verify"
            )
        return document if len(document) == 1 or document[-2] == end else document[:-1]

    def _texts(self, rows: Sequence[NDArray[Any]]) -> list[str]:
        assert self.text_of is not None
        decoded: list[str] = _tokenizer(self.text_of).decode_batch(
            [row.tolist() for row in rows], skip_special_tokens=False
        )
        return decoded


_tokenizer = lru_cache(maxsize=1)(read_tokenizer)


def rows_of(shards: ShardDirectory, to: str, *, text: bool) -> Rows:
    """Return the object that writes documents of ``shards`` as rows of the layout ``to``.

    Raises:
        UsageError: The layout cannot contain text, or there is no tokenizer to decode tokens with.
    """
    if text and to not in ("parquet", "jsonl"):
        raise UsageError(f"--to {to} writes tokens, not text; export text to parquet or jsonl")
    if text and not shards.manifest.tokenizer_hash:
        raise UsageError(
            f"{shards} has no {TOKENIZER}, so its tokens cannot be decoded to text; leave out "
            "--text"
        )
    labels = cluster_labels(shards.names)
    text_of = shards.address if text else None
    return Rows(eos_id=shards.manifest.eos_id, labels=labels, text_of=text_of)

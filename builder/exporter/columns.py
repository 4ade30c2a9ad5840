"""Columns of the catalogue in an export: facts about each document, beside its tokens or text."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.formats.catalogue import read_parquet
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.manifest import part_name, read_file

_PLACE = pa.schema([("shard", pa.int32()), ("row", pa.int32())])

Span = tuple[int, int, int]
"""Number of a part of the catalogue, and the first and last shard of a cluster that it lists."""


@dataclass(frozen=True, slots=True)
class CatalogueColumns:
    """Reads columns of the catalogue for the documents of a shard directory."""

    shards: ShardDirectory
    schema: Any
    """Arrow schema of the columns."""
    spans: Mapping[str, Sequence[Span]]
    """Parts of the catalogue that list documents of each cluster."""

    def part(self, name: str, numbers: range) -> "CatalogueColumns":
        """Return a reader for only the shards ``numbers`` of cluster ``name``.

        It is small, so it can be sent with a task.
        """
        spans = {
            place: [s for s in self.spans.get(place, ()) if s[1] <= max(own) and s[2] >= min(own)]
            for place, own in self._places(name, numbers).items()
        }
        return replace(self, spans=spans)

    def read(self, name: str, numbers: range) -> Iterator[Any]:
        """Yield the columns, as an Arrow table, for each of the shards ``numbers`` of ``name``.

        Raises:
            InvalidDataError: The catalogue does not list the documents of a shard.
        """
        counts = self.shards.index(name).shards
        tables = {place: self._rows(place) for place in self._places(name, numbers)}
        for number in numbers:
            place, shard = self.shards.locate(name, number)
            table, count = tables[place], counts[number].samples
            begin, end = np.searchsorted(table["shard"].to_numpy(), [shard, shard + 1]).tolist()
            if end - begin != count:
                raise InvalidDataError(
                    f"the catalogue of {self.shards} lists {end - begin:,} documents of shard "
                    f"{shard} of {place}, which has {count:,}; run climb verify"
                )
            yield table.slice(begin, count).select(self.schema.names)

    def _places(self, name: str, numbers: range) -> dict[str, list[int]]:
        """Return the shards ``numbers`` of ``name``, named and numbered as in the catalogue.

        If ``name`` is a group, the catalogue lists the shards under the clusters of the group.
        """
        places: dict[str, list[int]] = {}
        for number in numbers:
            place, shard = self.shards.locate(name, number)
            places.setdefault(place, []).append(shard)
        return places

    def _rows(self, place: str) -> Any:
        """Return the rows for cluster ``place``, in the order of its shards."""
        columns = pa.unify_schemas([self.schema, _PLACE])
        tables = [columns.empty_table()]
        for number, _, _ in self.spans[place]:
            table = _read_part(self.shards, number, ["cluster", *columns.names])
            ours = table.filter(pc.equal(table["cluster"], place))
            tables.append(ours.select(columns.names).cast(columns))
        return pa.concat_tables(tables).sort_by([("shard", "ascending"), ("row", "ascending")])


def check_columns(shards: ShardDirectory, names: Sequence[str]) -> None:
    """Check the columns ``names`` in the first part of the catalogue.

    Raises:
        UsageError: There is no catalogue, or its first part has no such column.
    """
    if not shards.manifest.parts:
        raise UsageError(
            f"{shards} has no catalogue (the folder documents/), which has these columns; leave "
            "out --columns"
        )
    _schema(io.BytesIO(_part(shards, 0)), shards, 0, names)


def open_columns(engine: Engine, shards: ShardDirectory, names: Sequence[str]) -> CatalogueColumns:
    """Open the columns ``names``; tasks find out which parts list which shards.

    Raises:
        UsageError: A part of the catalogue has no such column.
    """
    numbers = range(shards.manifest.parts or 0)
    schema = None
    spans: dict[str, list[Span]] = {}
    look = partial(_look, shards=shards, names=tuple(names))
    for number, (fields, found) in sorted(engine.run(look, numbers), key=lambda item: item[0]):
        schema = fields if schema is None else schema
        for cluster, first, last in found:
            spans.setdefault(cluster, []).append((number, first, last))
    return CatalogueColumns(shards, schema, spans)


def _look(
    number: int, shards: ShardDirectory, names: Sequence[str]
) -> tuple[Any, list[tuple[str, int, int]]]:
    """Return the schema of the columns, and the first and last shard of each cluster in a part."""
    data = io.BytesIO(_part(shards, number))
    schema = _schema(data, shards, number, names)
    table = read_parquet(data, ["cluster", "shard"])
    table = table.filter(pc.is_valid(table["cluster"]))
    groups = table.group_by("cluster").aggregate([("shard", "min"), ("shard", "max")])
    found = groups.select(["cluster", "shard_min", "shard_max"]).to_pylist()
    return pa.schema([schema.field(name) for name in names]), [tuple(s.values()) for s in found]


def _schema(data: io.BytesIO, shards: ShardDirectory, number: int, names: Sequence[str]) -> Any:
    """Return the schema of part ``number``, whose content is ``data``, if it has all ``names``."""
    schema = pq.read_schema(data)
    if lacking := [name for name in names if name not in schema.names]:
        raise UsageError(
            f"{shards.base / part_name(number)} has no column {', '.join(lacking)}; it has "
            f"{', '.join(schema.names)}"
        )
    return schema


def _part(shards: ShardDirectory, number: int) -> bytes:
    return read_file(shards.base, shards.manifest, part_name(number))


def _read_part(shards: ShardDirectory, number: int, names: Sequence[str]) -> Any:
    return read_parquet(io.BytesIO(_part(shards, number)), names)

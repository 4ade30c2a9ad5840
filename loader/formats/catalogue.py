"""Catalogue: read its Parquet files, without Arrow's own threads, and look up documents in it.

`pyarrow.parquet.read_table` reads ahead in threads. If a thread is still ending when Python ends,
the whole process is aborted. This happened in one of twenty runs of ``climb verify`` on busy cores.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from climbstream.loader.core.errors import IntegrityError, InvalidDataError
from climbstream.loader.core.files import reading
from climbstream.loader.storage.store import Store

from .manifest import Manifest, part_name, part_paths, read_file


def read_parquet(source: Path | BinaryIO, columns: Sequence[str]) -> Any:
    """Read ``columns`` of a Parquet file, as a `pyarrow.Table`.

    Raises:
        LookupError: The file lacks one of the columns.
        OSError: The file is no Parquet file.
    """
    with _opened(source, columns) as file:
        return file.read(list(columns), use_threads=False)


def row_groups(source: Path | BinaryIO, columns: Sequence[str]) -> Iterator[Any]:
    """Yield ``columns`` of each row group of a Parquet file, as a `pyarrow.Table`.

    A part of a catalogue may list more than a million documents, so it is read in row groups.

    Raises the same errors as `read_parquet`.
    """
    with _opened(source, columns) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, list(columns), use_threads=False)


def _opened(source: Path | BinaryIO, columns: Sequence[str]) -> Any:
    """Return an open Parquet file; raise `LookupError` if it lacks one of ``columns``."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - only directories with a catalogue need it

    file = pq.ParquetFile(source, pre_buffer=False)
    if lacking := sorted(set(columns) - set(file.schema_arrow.names)):
        file.close()
        raise LookupError(f"it has no column {', '.join(lacking)}")
    return file


def read_parts(store: Store, manifest: Manifest) -> Iterator[tuple[str, bytes, str]]:
    """Yield the path, bytes and error message of each part of a catalogue.

    The message is "" if the part is as the manifest says. Parts are asked for one number after the
    other, because some stores cannot list their files. If the manifest has the number of parts,
    missing parts are skipped; otherwise the first missing part ends the catalogue.
    """
    store = store.for_large_files()
    for number in count() if manifest.parts is None else range(manifest.parts):
        name = part_name(number)
        try:
            yield name, read_file(store, manifest, name), ""
        except (FileNotFoundError, NotADirectoryError):
            if manifest.parts is None:
                return
        except IntegrityError as error:
            yield name, store.read(name), str(error)
        except InvalidDataError as error:
            yield name, b"", str(error)


Place = tuple[str, int, int]
"""Place of a document: name of the cluster, number of the shard, and position in the shard."""


def look_up(directory: Path, places: set[Place]) -> dict[Place, tuple[str | None, str | None]]:
    """Return (id, origin) of the documents at ``places``, from the catalogue of ``directory``.

    Places that the catalogue does not list are left out of the result.

    Raises:
        InvalidDataError: A part is no Parquet file, lacks a column, or has one of a wrong type.
    """
    origins: dict[Place, tuple[str | None, str | None]] = {}
    if not (parts := part_paths(directory)):
        return origins
    import pyarrow as pa  # noqa: PLC0415 - only directories with a catalogue need it
    import pyarrow.compute as pc  # noqa: PLC0415

    clusters = sorted({cluster for cluster, _, _ in places})
    shards = np.unique([shard for _, shard, _ in places])
    wanted = pc.field("cluster").isin(clusters) & pc.field("shard").isin(shards.tolist())
    text, whole = pa.string(), pa.int64()
    schema = pa.schema({"id": text, "cluster": text, "shard": whole, "row": whole, "origin": text})
    for part in parts:
        with reading(part, "part of a catalogue"):
            rows = [
                row
                for table in row_groups(part, schema.names)
                for row in table.cast(schema).filter(wanted).to_pylist()
            ]
        for row in rows:
            place = (row["cluster"], row["shard"], row["row"])
            if place in places:
                origins[place] = (row["id"], row["origin"])
    return origins

"""Parquet: read a file without threads of Arrow's own.

`pyarrow.parquet.read_table` reads ahead in threads that may still be ending when Python is, and
then the whole process is aborted: seen in one of twenty runs of ``climb verify`` on busy cores.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO


def read_parquet(source: Path | BinaryIO, columns: Sequence[str]) -> Any:
    """Read ``columns`` of a Parquet file, as a `pyarrow.Table`.

    Raises:
        LookupError: It lacks one of them.
        OSError: It is no Parquet file.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415 - only directories with a catalogue need it

    with pq.ParquetFile(source, pre_buffer=False) as file:
        if lacking := sorted(set(columns) - set(file.schema_arrow.names)):
            raise LookupError(f"it has no column {', '.join(lacking)}")
        return file.read(list(columns), use_threads=False)

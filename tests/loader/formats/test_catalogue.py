"""The catalogue of documents: what is looked up in it, and what is no catalogue."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.formats.catalogue import look_up

ROWS = {
    "id": ["a", "b"],
    "cluster": ["c00", "c01"],
    "shard": [0, 1],
    "row": [5, 7],
    "origin": ["x:1", None],
}


def test_documents_are_looked_up_by_their_place(tmp_path):
    pq.write_table(pa.table(ROWS), tmp_path / "part-00000.parquet")
    places = {("c00", 0, 5), ("c01", 1, 7), ("c01", 1, 8)}
    assert look_up(tmp_path, places) == {("c00", 0, 5): ("a", "x:1"), ("c01", 1, 7): ("b", None)}


@pytest.mark.parametrize("column", ["cluster", "shard", "row"])
@pytest.mark.parametrize("value", [[1], {"a": 1}])
def test_a_column_of_lists_or_structs_is_no_catalogue(tmp_path, column, value):
    pq.write_table(pa.table({**ROWS, column: [value] * 2}), tmp_path / "part-00000.parquet")
    with pytest.raises(InvalidDataError, match=r"part-00000\.parquet is no part of a catalogue"):
        look_up(tmp_path, {("c00", 0, 5)})

"""The catalogue of documents: what is looked up in it, and what is no catalogue."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.formats.catalogue import look_up
from climbstream.loader.formats.manifest import part_name, part_paths

ROWS = {
    "id": ["a", "b"],
    "cluster": ["c00", "c01"],
    "shard": [0, 1],
    "row": [5, 7],
    "origin": ["x:1", None],
}


def write_part(directory, rows):
    path = directory / part_name(0)
    path.parent.mkdir()
    pq.write_table(pa.table(rows), path)


def test_parts_come_by_number_also_where_it_has_more_digits(tmp_path):
    numbers = [9, 99_999, 100_000, 2_400_000]
    (tmp_path / part_name(0)).parent.mkdir()
    for number in reversed(numbers):
        (tmp_path / part_name(number)).touch()
    assert part_paths(tmp_path) == [tmp_path / part_name(number) for number in numbers]


def test_documents_are_looked_up_by_their_place(tmp_path):
    write_part(tmp_path, ROWS)
    places = {("c00", 0, 5), ("c01", 1, 7), ("c01", 1, 8)}
    assert look_up(tmp_path, places) == {("c00", 0, 5): ("a", "x:1"), ("c01", 1, 7): ("b", None)}


@pytest.mark.parametrize("column", ["cluster", "shard", "row"])
@pytest.mark.parametrize("value", [[1], {"a": 1}])
def test_a_column_of_lists_or_structs_is_no_catalogue(tmp_path, column, value):
    write_part(tmp_path, {**ROWS, column: [value] * 2})
    with pytest.raises(
        InvalidDataError, match=r"part-00000\.parquet is not a valid part of a catalogue"
    ):
        look_up(tmp_path, {("c00", 0, 5)})

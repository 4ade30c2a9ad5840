"""Parts of the catalogue: the rows of consecutive slices, in files of bounded number."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from climbstream.builder.writers import catalogue_parts
from climbstream.builder.writers.catalogue_parts import Slice, join_slices, slice_path
from climbstream.loader.core.files import hash_file
from climbstream.loader.formats.catalogue import row_groups
from climbstream.loader.formats.manifest import part_name, part_paths


def write_slices(out, counts):
    """Write slices of so many rows; return them."""
    slices, first = [], 0
    for number, count in enumerate(counts):
        path = slice_path(out, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        ids = [f"document {first + i}" for i in range(count)]
        pq.write_table(pa.table({"id": ids, "copy_of": pa.nulls(count, pa.int64())}), path)
        slices.append(Slice(path, count, path.stat().st_size))
        first += count
    return slices


def ids_of(out):
    """Return the identifiers of all parts, in order."""
    parts = [pq.read_table(path)["id"].to_pylist() for path in part_paths(out)]
    return [name for part in parts for name in part]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=12), st.integers(1, 3000), st.integers(1, 2000))
def test_parts_have_the_rows_of_all_slices_in_order(serial, counts, part_bytes, group_bytes):
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue_parts, "PART_BYTES", part_bytes)
        patch.setattr(catalogue_parts, "_GROUP_BYTES", group_bytes)
        out = Path(folder)
        (out / "documents").mkdir()
        slices = write_slices(out, counts)
        hashes = join_slices(serial, out, slices, 0)
        assert ids_of(out) == [f"document {i}" for i in range(sum(counts))]
        assert hashes == {part_name(i): hash_file(out / part_name(i)) for i in range(len(hashes))}
        assert len(hashes) <= sum(part.bytes for part in slices) // part_bytes + 1


def test_small_slices_become_one_file_with_one_row_group(serial, tmp_path):
    assert [*join_slices(serial, tmp_path, write_slices(tmp_path, [3] * 50), 0)] == [part_name(0)]
    (rows,) = row_groups(tmp_path / part_name(0), ["id"])
    assert len(rows) == 150


def test_no_more_than_a_row_group_and_a_slice_is_in_memory(serial, tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue_parts, "_GROUP_BYTES", 1_000)
    join_slices(serial, tmp_path, write_slices(tmp_path, [10] * 30), 0)
    sizes = [len(table) for table in row_groups(tmp_path / part_name(0), ["id"])]
    assert sum(sizes) == 300
    assert max(sizes) < 60


def test_a_join_that_goes_on_writes_only_what_is_missing(serial, tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue_parts, "PART_BYTES", 2_000)
    slices = write_slices(tmp_path, [20] * 8)
    hashes = join_slices(serial, tmp_path, slices, 0)
    assert len(hashes) > 2
    (tmp_path / part_name(1)).unlink()
    before = (tmp_path / part_name(0)).stat().st_mtime_ns
    assert join_slices(serial, tmp_path, slices, 0) == hashes
    assert (tmp_path / part_name(0)).stat().st_mtime_ns == before


def test_parts_of_an_append_stand_after_those_that_were_there(serial, tmp_path):
    slices = write_slices(tmp_path, [20] * 2)
    join_slices(serial, tmp_path, slices[:1], 0)
    assert [*join_slices(serial, tmp_path, slices[1:], 1)] == [part_name(1)]
    assert ids_of(tmp_path) == [f"document {i}" for i in range(40)]


def test_parts_that_an_interrupted_build_of_an_earlier_version_left_are_replaced(serial, tmp_path):
    slices = write_slices(tmp_path, [20] * 3)
    (tmp_path / "documents").mkdir()
    for number in range(3):  # it wrote a part per slice
        (tmp_path / part_name(number)).write_bytes(slices[number].path.read_bytes())
    assert [*join_slices(serial, tmp_path, slices, 0)] == [part_name(0)]
    assert ids_of(tmp_path) == [f"document {i}" for i in range(60)]

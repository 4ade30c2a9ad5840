"""A partition: documents and the arrays that stages add, each there whole or not at all."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from climbstream.builder.corpus.document import Document
from climbstream.builder.corpus.partition import (
    UNIT_BYTES,
    ArrayName,
    Partition,
    PartitionWriter,
    groups_for,
)
from climbstream.loader.core.errors import InvalidDataError

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
documents = st.builds(Document, id=words, text=words, label=words, license=words, origin=words)


@given(st.lists(documents, max_size=8))
def test_documents_come_back_as_they_were(tmp_path_factory, given):
    partition = Partition(tmp_path_factory.mktemp("units") / "00000-00000")
    partition.write_documents(given)
    assert len(partition) == len(given)
    rows = partition.columns("id", "text", "label", "license", "origin").to_pylist()
    assert [Document(**row) for row in rows] == given
    assert partition.column("text") == [document.text for document in given]


@given(
    npst.arrays(
        st.sampled_from([np.float32, np.int32, np.uint64, np.uint16]),
        npst.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=6),
    )
)
def test_an_array_comes_back_as_it_was(tmp_path_factory, array):
    partition = Partition(tmp_path_factory.mktemp("units") / "00000-00000")
    partition.write("scores", array)
    back = partition.read("scores")
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_an_array_can_be_mapped(tmp_path):
    Partition(tmp_path).write("tokens", np.arange(9))
    mapped = Partition(tmp_path).read("tokens", mapped=True)
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, np.arange(9))


def test_what_was_not_written_is_not_there(tmp_path):
    partition = Partition(tmp_path / "00003-00001")
    assert partition.name == "00003-00001"
    assert not partition.has("scores")
    partition.write("scores", np.zeros(2))
    assert partition.has("scores")
    assert not partition.has("tokens")


def test_an_array_that_could_not_be_written_is_not_there(tmp_path):
    partition = Partition(tmp_path)
    with pytest.raises(ValueError, match="Python objects"):
        partition.write("scores", np.array([object()]))
    assert not partition.has("scores")
    assert list(tmp_path.iterdir()) == []


def test_an_array_is_never_code(tmp_path):
    (tmp_path / "documents").write_bytes(b'{"scores": ["|O", [1], 0]}\n' + bytes(64))
    with pytest.raises(InvalidDataError, match="object"):
        Partition(tmp_path).read("scores")


@pytest.mark.parametrize("mapped", [False, True])
def test_a_file_that_was_cut_short_is_named(tmp_path, mapped):
    partition = Partition(tmp_path)
    partition.write_arrays({"lengths": np.arange(3), "tokens": np.arange(900)})
    path = tmp_path / "tokens"
    data = path.read_bytes()
    path.write_bytes(data[:-8])
    assert partition.read("lengths", mapped=mapped).tolist() == [0, 1, 2]
    message = f"{path} is cut short: it has .* bytes, and tokens ends at .*; remove the working"
    with pytest.raises(InvalidDataError, match=message):
        partition.read("tokens", mapped=mapped)


@pytest.mark.parametrize("size", [0, 1, 20])
def test_a_file_without_a_whole_first_line_is_named(tmp_path, size):
    partition = Partition(tmp_path)
    partition.write("scores", np.arange(9))
    path = tmp_path / "documents"
    path.write_bytes(path.read_bytes()[:size])
    for look in (partition.read, partition.has):
        with pytest.raises(InvalidDataError, match=f"{path} is not JSON.*; remove the working"):
            look("scores")


@given(st.data())
def test_a_damaged_file_is_an_array_or_an_error_that_names_it(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    partition, path = Partition(folder), folder / "documents"
    partition.write_arrays({"sizes": np.arange(9), "scores": np.ones((3, 4), np.float32)})
    whole = path.read_bytes()
    at = data.draw(st.integers(0, whole.index(b"}")))
    path.write_bytes(whole[:at] + data.draw(st.binary(min_size=1, max_size=3)) + whole[at + 1 :])
    named = True
    try:
        assert isinstance(partition.read("scores"), np.ndarray)
    except FileNotFoundError:
        assert not partition.has("scores")  # its name is damaged
    except InvalidDataError as error:
        named = str(path) in str(error)
    assert named


def test_all_arrays_of_a_partition_lie_in_three_files(tmp_path):
    partition = Partition(tmp_path)
    partition.write_documents([Document(id="a", text="b")])
    names = get_args(ArrayName)
    for number, name in enumerate(names):
        partition.write(name, np.full(3, number))
    assert {path.name for path in tmp_path.iterdir()} == {
        "text.parquet",
        "documents",
        "decisions",
        "tokens",
    }
    for number, name in enumerate(names):
        assert partition.read(name).tolist() == [number] * 3


def test_an_array_that_is_removed_leaves_the_others_of_its_file(tmp_path):
    partition = Partition(tmp_path)
    partition.write_arrays({"sizes": np.arange(3), "scores": np.arange(4), "why": np.arange(2)})
    partition.remove("scores", "why", "tokens")
    assert not any(map(partition.has, ("scores", "why", "tokens")))
    assert partition.read("sizes").tolist() == [0, 1, 2]


def test_documents_are_read_one_row_group_at_a_time(tmp_path):
    partition = Partition(tmp_path)
    written = [[Document(id=f"{g}-{i}", text=f"text {g} {i}") for i in range(3)] for g in range(4)]
    with PartitionWriter.open(partition) as writer:
        for documents in written:
            writer.write(documents)
    groups = [(rows, table["id"].to_pylist()) for rows, table in partition.row_groups("id")]
    assert groups == [
        (slice(3 * g, 3 * g + 3), [document.id for document in documents])
        for g, documents in enumerate(written)
    ]
    taken = partition.take(np.array([1, 9, 11]), "text")["text"].to_pylist()
    assert taken == ["text 0 1", "text 3 0", "text 3 2"]


@pytest.mark.parametrize(
    ("corpus", "mib"), [(0, 4), (8 << 30, 4), (9 << 30, 8), (10**11, 64), (10**13, 128)]
)
def test_partitions_grow_with_the_corpus(corpus, mib):
    assert groups_for(corpus) * UNIT_BYTES >> 20 == mib

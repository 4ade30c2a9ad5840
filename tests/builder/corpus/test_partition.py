"""A partition: documents and the arrays that stages add, each there whole or not at all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from climbstream.builder.corpus.document import Document
from climbstream.builder.corpus.partition import Partition

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
    with pytest.raises(ValueError, match="allow_pickle"):
        partition.write("scores", np.array([object()]))
    assert not partition.has("scores")
    assert list(tmp_path.iterdir()) == []


def test_an_array_is_never_code(tmp_path):
    with (tmp_path / "scores.npy").open("wb") as file:
        np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        Partition(tmp_path).read("scores")

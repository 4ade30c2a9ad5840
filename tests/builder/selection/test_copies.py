"""Copies that were dropped are counted for their original, whatever blocks a corpus is cut into."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serial_pool import SerialPool

from climbstream.builder.corpus.document import Document
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.selection import copies, exchange
from climbstream.builder.selection.copies import count_copies
from climbstream.builder.selection.exchange import cut_blocks
from climbstream.builder.selection.reasons import LANGUAGE, NEAR, PRUNED, REASONS
from climbstream.builder.settings import EQUAL_TEXT


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch):
    """Leave out the waits for the disk: there are thousands of small files."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@dataclass(frozen=True)
class Made:
    """A document with the decision on it."""

    why: str = ""
    first: int = -1
    original: int = -1
    label: str = ""


@st.composite
def corpora(draw):
    """Draw documents: originals, near copies of originals, exact copies of both, and others."""
    documents = []
    for _ in range(draw(st.integers(1, 25))):
        kind = draw(st.sampled_from(["", PRUNED, LANGUAGE, NEAR, EQUAL_TEXT, EQUAL_TEXT]))
        originals = [i for i, d in enumerate(documents) if d.why in ("", PRUNED)]
        texts = [*originals, *(i for i, d in enumerate(documents) if d.why == NEAR)]
        label = draw(st.sampled_from(["", "", "a", "b"]))
        if kind == NEAR and originals:
            made = Made(NEAR, original=draw(st.sampled_from(originals)), label=label)
        elif kind == EQUAL_TEXT and texts:
            made = Made(EQUAL_TEXT, first=draw(st.sampled_from(texts)), label=label)
        else:
            made = Made(kind if kind in ("", PRUNED, LANGUAGE) else "", label=label)
        documents.append(made)
    return documents


def write(folder, documents, each, files):
    """Write ``documents`` to partitions of ``each``, in turn of some files."""
    partitions = []
    for number, begin in enumerate(range(0, len(documents), each)):
        some = documents[begin : begin + each]
        partition = Partition(folder / f"{number % files:05d}-{number:05d}")
        partition.write_documents([Document(id="x", text="", label=d.label) for d in some])
        partition.write_arrays(
            {
                "why": np.array([REASONS.index(d.why) for d in some], np.uint8),
                "first": np.array([d.first for d in some]),
                "original": np.array([d.original for d in some]),
            }
        )
        partitions.append(partition)
    return partitions


def counted(documents, each, files, size, before=0):
    """Count copies in blocks of ``size`` documents."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        patch.setattr(exchange, "FEWEST", size)
        partitions = write(Path(name) / "units", documents, each, files)
        blocks = cut_blocks(
            partitions, [min(each, len(documents) - i * each) for i in range(len(partitions))]
        )
        count_copies(SerialPool(), blocks, Path(name) / "copies", before)
        assert not (Path(name) / "copies").exists()
        return np.concatenate([p.read("copies") for p in partitions]).tolist()


def expected(documents, each, files):
    """Count copies one document after the other."""
    rows = []
    for number, document in enumerate(documents):
        if document.why in (NEAR, EQUAL_TEXT, LANGUAGE):
            rows.append([-1, -1, -1])
            continue
        near = {i for i, d in enumerate(documents) if d.why == NEAR and d.original == number}
        near |= {i for i, d in enumerate(documents) if d.why == EQUAL_TEXT and d.first in near}
        exact = {i for i, d in enumerate(documents) if d.why == EQUAL_TEXT and d.first == number}
        sources = {documents[i].label or i // each % files for i in [number, *exact, *near]}
        rows.append([len(exact), len(near), len(sources)])
    return rows


@settings(max_examples=60)
@given(corpora(), st.integers(1, 5), st.integers(1, 3), st.integers(1, 30))
def test_each_original_has_the_number_of_its_copies_and_sources(documents, each, files, size):
    assert counted(documents, each, files, size) == expected(documents, each, files)


def test_a_copy_of_a_near_copy_is_a_near_copy_of_the_original():
    made = [
        Made(NEAR, original=3, label="b"),
        Made(EQUAL_TEXT, first=0, label="c"),
        Made(EQUAL_TEXT, first=0, label="c"),
        Made(label="a"),
    ]
    assert counted(made, 1, 1, 1) == [[-1] * 3, [-1] * 3, [-1] * 3, [0, 3, 3]]


def test_copies_of_documents_from_before_an_append_are_not_counted():
    made = [Made(NEAR, original=1), Made(EQUAL_TEXT, first=5), Made(EQUAL_TEXT, first=0), Made()]
    made.append(Made(EQUAL_TEXT, first=8))
    assert counted(made, 2, 1, 2, before=5) == [[-1] * 3] * 3 + [[1, 0, 1], [-1] * 3]


@pytest.mark.parametrize("step", ["deal", "join", "merge", "store"])
def test_a_count_that_was_killed_continues(step, tmp_path, monkeypatch):
    documents = [Made(), Made(EQUAL_TEXT, first=0), Made(NEAR, original=0), Made()] * 3
    partitions = write(tmp_path / "units", documents, 3, 2)
    monkeypatch.setattr(exchange, "FEWEST", 3)
    blocks = cut_blocks(partitions, [3] * 4)
    whole = getattr(copies, step)

    def killed(task):
        if task.block.number == 2:
            raise KeyboardInterrupt
        return whole(task)

    with monkeypatch.context() as patch:
        patch.setattr(copies, step, killed)
        with pytest.raises(KeyboardInterrupt):
            count_copies(SerialPool(), blocks, tmp_path / "copies")
    count_copies(SerialPool(), blocks, tmp_path / "copies")
    found = np.concatenate([partition.read("copies") for partition in partitions]).tolist()
    assert found == expected(documents, 3, 2)

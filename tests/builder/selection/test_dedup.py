"""Exact duplicates: the first one stays, whatever the blocks."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serial_pool import SerialPool

from climbstream.builder.corpus.text_hashes import hash_texts
from climbstream.builder.selection import exchange
from climbstream.builder.selection.dedup import (
    HashTask,
    find_repeated,
    first_places,
    firsts_in,
)
from climbstream.builder.selection.exchange import cut_blocks, starts_of


@given(st.lists(st.sampled_from("abcdefgh")))
def test_the_first_of_each_stays_and_is_the_original_of_all_others(texts):
    places = first_places(hash_texts(texts)).tolist()
    assert places == [
        texts.index(text) if text in texts[:i] else -1 for i, text in enumerate(texts)
    ]


@dataclass(frozen=True)
class Hashed:
    """A source of texts."""

    texts: tuple

    def read(self, _, *, mapped=False):  # noqa: ARG002
        """Return their hashes."""
        return hash_texts(self.texts)


def hashes_of(source, _number):
    hashes = source.read("text_hashes")
    return hashes, np.arange(len(hashes))


@given(st.lists(st.lists(st.sampled_from("abcdefghijklmnop")), min_size=1), st.integers(1, 20))
def test_it_makes_no_difference_how_many_blocks_there_are(parts, documents):
    sources = [Hashed(tuple(part)) for part in parts]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        patch.setattr(exchange, "FEWEST", documents)
        folder = Path(name)
        blocks = cut_blocks(sources, [len(part) for part in parts])
        find_repeated(SerialPool(), blocks, hashes_of, folder)
        tasks = [HashTask(block, folder, hashes_of, starts_of(blocks)) for block in blocks]
        found = np.concatenate([firsts_in(task) for task in tasks])
    assert all(len(block) <= documents + max(map(len, parts)) for block in blocks)
    whole = hash_texts([text for part in parts for text in part])
    np.testing.assert_array_equal(found, first_places(whole))


@given(st.lists(st.text(), unique_by=lambda text: " ".join(text.split())))
def test_different_texts_have_different_hashes(texts):
    hashes = hash_texts(texts)
    assert (hashes.shape, hashes.dtype) == ((len(texts), 2), np.uint64)
    assert len({tuple(row) for row in hashes.tolist()}) == len(texts)


@given(st.lists(st.text("abc", min_size=1), min_size=1), st.sampled_from([" ", "\n\n", "\u2003 "]))
def test_white_space_makes_no_difference(words, space):
    one, other = hash_texts([" ".join(words), f"{space}{space.join(words)}{space}"]).tolist()
    assert one == other


def test_capitals_make_a_difference():
    assert first_places(hash_texts(["The text.", "the text."])).tolist() == [-1, -1]

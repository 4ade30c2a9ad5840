"""Packing: rows are full, made of pieces of documents, and as many as the index foretells."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from climbstream.loader.core.errors import UsageError
from climbstream.loader.formats.mds.writer import count_lengths
from climbstream.loader.reading.packing import PACKS, count_rows, pack_documents

lengths = st.lists(st.integers(1, 90), max_size=60).map(lambda sizes: np.array(sizes, np.int64))
seq_lens = st.integers(1, 40)
KEY = np.uint64(1)
secrets = st.integers(0, (1 << 64) - 1).map(np.uint64)


def pack(how, sizes, seq_len, secret=KEY):
    rows = count_rows(how, int(sizes.sum()), count_lengths(sizes), seq_len)
    return rows, pack_documents(how, sizes, rows, seq_len, secret)


def filled(packed):
    """Tokens of each row."""
    ends = np.concatenate([[0], np.cumsum(packed.pieces[:, 2])])
    return np.diff(ends[packed.ends])


# What holds for all.


@given(st.sampled_from(PACKS), lengths, seq_lens, secrets)
@example("bfd", np.full(9, 21), 40, np.uint64(0))
@example("bos", np.full(9, 21), 40, np.uint64(0))
def test_no_token_is_in_two_rows_and_none_comes_from_nowhere(how, sizes, seq_len, secret):
    rows, packed = pack(how, sizes, seq_len, secret)
    served = [np.zeros(n, np.int64) for n in sizes]
    for document, first, tokens in packed.pieces.tolist():
        assert tokens > 0
        assert first + tokens <= sizes[document]
        served[document][first : first + tokens] += 1
    assert all((times <= 1).all() for times in served)
    assert len(packed.ends) == rows + 1
    assert packed.ends[0] == 0
    assert packed.ends[-1] == len(packed.pieces)
    # What is said of them is so.
    whole = sum(int(times.sum()) for times in served)
    assert packed.dropped == sizes.sum() - whole
    assert packed.padding == rows * seq_len - whole
    parts = {d for d, _, _ in packed.pieces.tolist()} - {
        d for d, _, n in packed.pieces.tolist() if n == sizes[d]
    }
    assert packed.cut == len(parts)


@given(st.sampled_from(PACKS), lengths, seq_lens, secrets)
def test_packing_again_gives_the_same(how, sizes, seq_len, secret):
    one, other = pack(how, sizes, seq_len, secret)[1], pack(how, sizes, seq_len, secret)[1]
    assert np.array_equal(one.ends, other.ends)
    assert np.array_equal(one.pieces, other.pieces)


def test_an_unknown_packing_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="no packing 'best'; choose one of concat, bfd, bos"):
        pack_documents("best", np.array([3]), 1, 2, np.uint64(0))


# concat and bfd.


@given(st.sampled_from(["concat", "bfd"]), lengths, seq_lens, secrets)
def test_every_row_is_full_and_less_than_a_row_is_dropped(how, sizes, seq_len, secret):
    rows, packed = pack(how, sizes, seq_len, secret)
    assert rows == sizes.sum() // seq_len
    assert filled(packed).tolist() == [seq_len] * rows
    assert packed.dropped < seq_len


@pytest.mark.parametrize("how", ["concat", "bfd"])
def test_what_is_dropped_changes_with_the_key(how):
    sizes = np.array([5, 4, 7, 3])
    served = set()
    for secret in range(200):
        for document, first, tokens in pack(how, sizes, 8, np.uint64(secret))[1].pieces.tolist():
            served |= {(document, first + i) for i in range(tokens)}
    assert served == {(d, i) for d, n in enumerate(sizes) for i in range(n)}


@given(lengths, seq_lens, secrets)
def test_concat_keeps_documents_in_order(sizes, seq_len, secret):
    pieces = pack("concat", sizes, seq_len, secret)[1].pieces
    assert sorted(map(tuple, pieces.tolist())) == list(map(tuple, pieces.tolist()))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=40), secrets)
def test_bfd_cuts_no_more_than_what_is_too_long_and_what_fills_the_holes(sizes, secret):
    sizes = np.array(sizes)
    rows, packed = pack("bfd", sizes, 40, secret)
    # One document for a hole at most, and one of which a part was over.
    assert packed.cut <= rows + 1


def test_bfd_fills_rows_with_whole_documents_where_they_fit():
    sizes = np.array([6, 5, 3, 2, 4, 4, 8])
    rows, packed = pack("bfd", sizes, 8)
    assert (rows, packed.cut, packed.dropped) == (4, 0, 0)
    groups = [
        sorted(packed.pieces[a:b, 2].tolist())
        for a, b in zip(packed.ends, packed.ends[1:], strict=False)
    ]
    assert sorted(groups) == [[2, 6], [3, 5], [4, 4], [8]]


def test_bfd_cuts_few_documents_of_a_natural_corpus():
    sizes = np.random.default_rng(0).lognormal(6.4, 1.0, 8000).astype(np.int64) + 1
    cut = {how: pack(how, sizes, 2048)[1].cut / len(sizes) for how in ("concat", "bfd")}
    longer = np.mean(sizes > 2048)
    assert cut["bfd"] < longer + 0.01
    assert cut["concat"] > 3 * cut["bfd"]


# bos.


@given(lengths, seq_lens, secrets)
def test_bos_begins_every_piece_at_the_beginning_of_a_document(sizes, seq_len, secret):
    packed = pack("bos", sizes, seq_len, secret)[1]
    assert not packed.pieces[:, 1].any()
    documents = packed.pieces[:, 0].tolist()
    assert len(set(documents)) == len(documents)


@given(lengths, st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128]))
def test_bos_gives_as_many_rows_as_beginnings_fill(sizes, seq_len):
    assert pack("bos", sizes, seq_len)[0] == np.minimum(sizes, seq_len).sum() // seq_len


@given(lengths, seq_lens)
def test_bos_never_gives_more_rows_than_beginnings_fill(sizes, seq_len):
    most = np.minimum(sizes, seq_len).sum() // seq_len
    least = np.minimum(sizes, 1 << seq_len.bit_length() - 1).sum() // seq_len
    assert least <= pack("bos", sizes, seq_len)[0] <= most


def test_bos_pads_little_of_a_natural_corpus():
    sizes = np.random.default_rng(0).lognormal(6.4, 1.0, 8000).astype(np.int64) + 1
    rows, packed = pack("bos", sizes, 2048)
    assert packed.padding < 0.001 * rows * 2048

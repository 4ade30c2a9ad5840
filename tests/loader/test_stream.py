"""Streams: the n-th row of a lane is a pure function, and an epoch is every row once."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from climbstream.loader.cache import ShardCache
from climbstream.loader.mds import Index, ShardEntry
from climbstream.loader.stream import TokenStream

SEQ_LEN = 8

shard_tokens = st.lists(st.integers(0, 120), min_size=1, max_size=8)
lane_counts = st.sampled_from([1, 2, 3, 4, 8, 12])


def on_paper(tokens, lanes, seed=17, name="c00", seq_len=SEQ_LEN):
    """A stream over shards of so many tokens that need not exist: rows are found, not read."""
    entries = tuple(
        ShardEntry(f"shard.{i:05}.mds", 1, n, 0, "", 0, "") for i, n in enumerate(tokens)
    )
    index = Index("uint16", entries)
    return TokenStream(name, None, index, None, seq_len=seq_len, lanes=lanes, seed=seed)


def epoch(stream, lanes, number):
    """Addresses of all rows of an epoch, lane after lane."""
    rows = stream.lane_rows.tolist()
    return [
        stream.locate(lane, number * rows[lane] + i)
        for lane in range(lanes)
        for i in range(rows[lane])
    ]


# Epochs.


@given(shard_tokens, lane_counts, st.integers(0, 5))
@example([SEQ_LEN - 1, 3 * SEQ_LEN], 3, 0)
def test_every_row_is_served_once(tokens, lanes, number):
    stream = on_paper(tokens, lanes)
    assert stream.rows == sum(n // SEQ_LEN for n in tokens)
    if stream.rows < lanes:
        return
    addresses = epoch(stream, lanes, number)
    assert {a.epoch for a in addresses} == {number}
    for shard, held in enumerate(tokens):
        firsts = sorted(a.first_token for a in addresses if a.shard == shard)
        assert len(firsts) == held // SEQ_LEN
        if firsts:
            # One after the other without a gap, wherever the first begins.
            assert firsts == list(range(firsts[0], firsts[-1] + 1, SEQ_LEN))
            assert firsts[0] >= 0
            assert firsts[-1] + SEQ_LEN <= held


@given(shard_tokens, lane_counts)
def test_lanes_own_equal_parts_within_a_row(tokens, lanes):
    stream = on_paper(tokens, lanes)
    assert stream.lane_rows.shape == (lanes,)
    assert stream.lane_rows.max() - stream.lane_rows.min() <= 1
    assert stream.lane_rows.sum() == (max(stream.rows, lanes) if stream.rows else 0)


@given(st.integers(1, 7), st.integers(0, 3))
def test_where_rows_are_fewer_than_lanes_each_lane_owns_one_and_all_are_served(rows, number):
    stream = on_paper([SEQ_LEN] * rows, lanes=8)
    assert stream.lane_rows.tolist() == [1] * 8
    assert {a.shard for a in epoch(stream, 8, number)} == set(range(rows))


def test_a_cluster_shorter_than_a_row_owns_none():
    stream = on_paper([SEQ_LEN - 1] * 5, lanes=4)
    assert stream.rows == 0
    assert stream.lane_rows.tolist() == [0] * 4


def test_the_next_epoch_comes_in_another_order():
    stream = on_paper([400] * 4, lanes=2)
    orders = [[a[:2] for a in epoch(stream, 2, number)] for number in range(3)]
    assert orders[0] != orders[1]
    assert orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])


def test_the_rows_of_a_shard_come_in_another_order_in_the_next_epoch():
    stream = on_paper([100 * SEQ_LEN], lanes=1)
    orders = [[a.first_token for a in epoch(stream, 1, number)] for number in range(3)]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])


@given(st.integers(1, 7))
def test_a_tail_shorter_than_a_row_is_served_in_another_epoch(tail):
    stream = on_paper([3 * SEQ_LEN + tail], lanes=1)
    served = set()
    for number in range(200):
        addresses = epoch(stream, 1, number)
        assert len(addresses) == 3
        for address in addresses:
            served |= set(range(address.first_token, address.first_token + SEQ_LEN))
    assert served == set(range(3 * SEQ_LEN + tail))


def test_a_lane_reads_shard_after_shard():
    stream = on_paper([80] * 6, lanes=2)
    for number in range(3):
        shards = [stream.locate(0, number * 30 + i).shard for i in range(30)]
        assert np.count_nonzero(np.diff(shards)) == len(set(shards)) - 1


def test_lanes_touch_few_shards():
    stream = on_paper([80] * 64, lanes=8)
    for lane in range(8):
        assert len({stream.locate(lane, i).shard for i in range(80)}) == 8


# A pure function.


@given(shard_tokens.filter(lambda t: max(t) >= SEQ_LEN), lane_counts, st.data())
def test_a_row_does_not_depend_on_what_was_asked_before(tokens, lanes, data):
    asked = on_paper(tokens, lanes)
    places = st.tuples(st.integers(0, lanes - 1), st.integers(0, 10_000))
    for lane, number in data.draw(st.lists(places, min_size=1, max_size=5)):
        fresh = on_paper(tokens, lanes)
        assert asked.locate(lane, number) == fresh.locate(lane, number)


def test_another_seed_or_name_gives_another_order():
    orders = [
        epoch(on_paper([400] * 4, 2, **changes), 2, 0)
        for changes in ({}, {"seed": 18}, {"name": "c01"})
    ]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


def test_the_lanes_of_a_shard_begin_their_rows_at_the_same_shift():
    stream = on_paper([100 * SEQ_LEN + 5], lanes=4)
    for number in range(5):
        assert len({a.first_token % SEQ_LEN for a in epoch(stream, 4, number)}) == 1


# Tokens.


@pytest.fixture(params=["uint16", "uint32"])
def shards(request, tmp_path, make_shards, counted_documents):
    lengths = {"c00": [1, 2, 3, 50, 7, 300, 1, 1, 1, 9, 20], "c01": [40, 41]}
    documents = counted_documents(lengths)
    return make_shards(tmp_path / "shards", documents, dtype=request.param, shard_bytes=100)


@pytest.mark.parametrize("name", ["c00", "c01"])
def test_a_row_is_the_tokens_that_stand_there_across_documents(tmp_path, shards, name):
    index = shards.indexes[name]
    stream = TokenStream(
        name,
        shards.folder(name),
        index,
        ShardCache(tmp_path / "cache"),
        seq_len=SEQ_LEN,
        lanes=2,
        seed=17,
    )
    # Tokens count up through a cluster, so a row is known by its first token.
    begin = int(shards.documents[name][0][0])
    before = np.cumsum([0, *(shard.tokens for shard in index.shards)])
    for address in epoch(stream, 2, 0) + epoch(stream, 2, 1):
        row = np.empty(SEQ_LEN, np.int64)
        stream.read(address, row)
        first = begin + int(before[address.shard]) + address.first_token
        assert row.tolist() == list(range(first, first + SEQ_LEN))


def test_tokens_of_every_value_are_read_unchanged(tmp_path, make_shards):
    for dtype, top in (("uint16", (1 << 16) - 1), ("uint32", (1 << 32) - 1)):
        document = np.array([0, 1, 255, 256, top - 1, top, top // 2, 1 << 15], dtype)
        shards = make_shards(tmp_path / dtype, {"c00": [document]}, dtype=dtype)
        stream = TokenStream(
            "c00",
            shards.folder("c00"),
            shards.indexes["c00"],
            ShardCache(tmp_path / "cache"),
            seq_len=8,
            lanes=1,
            seed=0,
        )
        row = np.empty(8, np.int64)
        stream.read(stream.locate(0, 0), row)
        assert row.tolist() == document.tolist()

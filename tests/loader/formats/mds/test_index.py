"""MDS shards: what the format says, and that nothing else is taken for it."""

import json
import struct

import numpy as np
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from climbstream.loader.core.errors import IntegrityError, InvalidDataError
from climbstream.loader.formats.mds.compression import check_raw, compress, decompress
from climbstream.loader.formats.mds.entry import MOST_BYTES, ShardEntry
from climbstream.loader.formats.mds.index import Index
from climbstream.loader.formats.mds.reader import parse_shard
from climbstream.loader.formats.mds.writer import describe_shard, encode_document, encode_shard

# The config of a uint16 shard, spelled out: keys sorted, separators ", " and ": ".
CONFIG = (
    b'{"column_encodings": ["ndarray:uint16"], "column_names": ["tokens"], '
    b'"column_sizes": [null], "compression": "zstd:3", "format": "mds", '
    b'"hashes": ["xxh3_128"], "size_limit": 16777216, "version": 2}'
)

# Two documents, [1, 2, 770] and [65535], by hand.
SAMPLES = (
    bytes.fromhex("08000000 04 03 0100 0200 0203"),
    bytes.fromhex("04000000 04 01 ffff"),
)
FIRST = 4 + 3 * 4 + len(CONFIG)
GOLDEN = struct.pack("<4I", 2, FIRST, FIRST + 12, FIRST + 20) + CONFIG + b"".join(SAMPLES)

lengths = st.one_of(st.integers(1, 20), st.sampled_from([255, 256, 257, 65_535, 65_536, 65_537]))
dtypes = st.sampled_from(["uint16", "uint32"])


def make_documents(sizes, dtype, seed=0):
    limit = np.iinfo(dtype).max
    draw = np.random.default_rng(seed)
    return [draw.integers(0, limit, n, dtype, endpoint=True) for n in sizes]


def make_shard(documents, dtype="uint16"):
    raw = encode_shard([encode_document(d) for d in documents], dtype)
    packed = compress(raw)
    return raw, packed, describe_shard("shard.00007.mds", list(map(len, documents)), raw, packed)


def parse(raw, entry, dtype="uint16"):
    data = np.frombuffer(raw, np.uint8)
    view = parse_shard(data, entry, dtype)
    again = parse_shard(data, entry, dtype, again=True)
    assert (again.starts == view.starts).all()
    assert (again.lengths == view.lengths).all()
    return view


def with_bytes(raw, at, new):
    return raw[:at] + new + raw[at + len(new) :]


def make_index(**changes):
    """Make the JSON of an index of one shard, with some keys of its entry changed."""
    entry = ShardEntry("shard.00000.mds", 2, ((1, 1), (1, 3)), len(GOLDEN), "a" * 32, 99, "b" * 32)
    value = json.loads(Index.of("uint16", (entry,)).to_bytes())
    value["shards"][0].update(changes)
    return value


# Shards.


@given(st.lists(lengths, max_size=5), dtypes, st.integers(0, 9))
@example([1, 255, 256, 65_535, 65_536], "uint16", 0)
@example([1, 255, 256, 65_535, 65_536], "uint32", 0)
def test_documents_come_back_as_they_were(sizes, dtype, seed):
    documents = make_documents(sizes, dtype, seed)
    raw, packed, entry = make_shard(documents, dtype)
    view = parse(decompress(packed, entry), entry, dtype)
    assert decompress(packed, entry) == raw
    assert view.lengths.tolist() == list(sizes)
    assert view.tokens == sum(sizes)
    for number, document in enumerate(documents):
        got = view.document(number, dtype)
        assert got.dtype == document.dtype
        assert got.tolist() == document.tolist()


def test_a_shard_is_the_bytes_that_the_format_says():
    documents = [np.array([1, 2, 770], "uint16"), np.array([65_535], "uint16")]
    assert tuple(encode_document(d) for d in documents) == SAMPLES
    assert encode_shard(SAMPLES, "uint16") == GOLDEN


def test_bytes_by_hand_are_read():
    entry = describe_shard("shard.00000.mds", [3, 1], GOLDEN, b"")
    view = parse(GOLDEN, entry)
    assert [view.document(i, "uint16").tolist() for i in range(2)] == [[1, 2, 770], [65_535]]


@pytest.mark.parametrize(
    ("length", "head"),
    [
        (1, "04000000 04 01"),
        (255, "00020000 04 ff"),
        (256, "03020000 05 0001"),
        (65_535, "01000200 05 ffff"),
        (65_536, "05000200 06 00000100"),
    ],
)
def test_a_length_takes_as_few_bytes_as_hold_it(length, head):
    sample = encode_document(np.zeros(length, "uint16"))
    assert sample[: len(bytes.fromhex(head))] == bytes.fromhex(head)
    assert len(sample) == len(bytes.fromhex(head)) + 2 * length


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
@pytest.mark.parametrize("wide", range(4))
@pytest.mark.parametrize("length", [1, 2, 254, 255, 256, 300, 65_535, 65_536])
def test_a_length_that_takes_more_bytes_than_it_needs_is_read(length, wide, dtype):
    document = make_documents([length], dtype)[0]
    if length >> min(8 << wide, 63):
        pytest.skip("so few bytes do not hold it")
    head = bytes([4 + wide]) + length.to_bytes(1 << wide, "little")
    values = document.tobytes()
    sample = (len(head) - 1 + len(values)).to_bytes(4, "little") + head + values
    others = [encode_document(d) for d in make_documents([3, 700], dtype)]
    raw = encode_shard([others[0], sample, others[1]], dtype)
    view = parse(raw, describe_shard("shard.00000.mds", [3, length, 700], raw, b""), dtype)
    assert view.document(1, dtype).tolist() == document.tolist()


def test_tokens_of_four_bytes_are_little_endian():
    sample = encode_document(np.array([70_000], "uint32"))
    assert sample == bytes.fromhex("06000000 04 01 70110100")


def test_values_at_odd_addresses_are_read():
    # The second document begins 2 + 7 bytes after the first, whatever the first begins at.
    documents = [np.array([7], "uint32"), np.array([8, 1 << 31], "uint32")] * 3
    raw, _, entry = make_shard(documents, "uint32")
    view = parse(raw, entry, "uint32")
    assert (view.starts % 4 != 0).any()
    assert [view.document(i, "uint32").tolist() for i in range(6)] == [[7], [8, 1 << 31]] * 3


def test_a_document_is_a_copy():
    raw, _, entry = make_shard(make_documents([3], "uint16"))
    data = np.frombuffer(bytearray(raw), np.uint8)
    document = parse_shard(data, entry, "uint16").document(0, "uint16")
    before = document.tolist()
    data[:] = 0
    assert document.tolist() == before


def test_a_shard_may_hold_no_documents():
    raw, packed, entry = make_shard([])
    assert len(parse(decompress(packed, entry), entry).lengths) == 0
    assert raw[:8] == struct.pack("<2I", 0, len(raw))


def test_an_empty_document_is_refused():
    with pytest.raises(InvalidDataError, match="0 tokens cannot be stored; leave it out"):
        encode_document(np.zeros(0, "uint16"))


# Damage.


@given(st.data())
def test_a_flipped_bit_of_a_compressed_shard_is_found(data):
    _, packed, entry = make_shard(make_documents([5, 300], "uint16"))
    at = data.draw(st.integers(0, len(packed) - 1))
    bit = data.draw(st.integers(0, 7))
    bad = with_bytes(packed, at, bytes([packed[at] ^ 1 << bit]))
    with pytest.raises(IntegrityError, match=r"shard\.00007\.mds\.zstd: expected") as error:
        decompress(bad, entry)
    assert entry.zip_hash in str(error.value)


@given(st.data())
def test_a_flipped_bit_of_a_raw_shard_is_found(data):
    raw, _, entry = make_shard(make_documents([5, 300], "uint16"))
    at = data.draw(st.integers(0, len(raw) - 1))
    bit = data.draw(st.integers(0, 7))
    bad = with_bytes(raw, at, bytes([raw[at] ^ 1 << bit]))
    with pytest.raises(IntegrityError, match=f"{entry.raw_hash} xxh3_128, got"):
        check_raw(bad, entry)


@given(st.data())
def test_a_shard_cut_short_is_found(data):
    raw, packed, entry = make_shard(make_documents([5, 300], "uint16"))
    kept = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(IntegrityError, match=f"expected {len(packed)} bytes, got {kept}$"):
        decompress(packed[:kept], entry)
    kept = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(IntegrityError, match=f"expected {len(raw)} bytes, got {kept}$"):
        check_raw(raw[:kept], entry)


def test_other_content_than_the_index_says_is_found_after_decompression():
    raw, packed, _ = make_shard(make_documents([5], "uint16"))
    other = bytes(len(raw))
    entry = describe_shard("shard.00007.mds", [5], other, packed)
    with pytest.raises(IntegrityError, match=r"shard\.00007\.mds: expected .* xxh3_128, got"):
        decompress(packed, entry)


def test_a_frame_that_declares_more_than_the_index_says_is_never_decompressed():
    # Magic, single segment with 8 bytes of content size, 2**60 bytes, one empty last block.
    bomb = bytes.fromhex("28b52ffd e0 0000000000000010 010000")
    assert zstandard.get_frame_parameters(bomb).content_size == 1 << 60
    entry = describe_shard("shard.00007.mds", [5], b"x" * 100, bomb)
    with pytest.raises(
        IntegrityError,
        match=rf"zstd: expected 100 bytes when decompressed, got {1 << 60}",
    ):
        decompress(bomb, entry)


def test_a_frame_that_holds_more_than_it_declares_is_refused():
    # Declares 1 byte; its block repeats a byte 65,536 times.
    liar = bytes.fromhex("28b52ffd 20 01") + (65_536 << 3 | 0b011).to_bytes(3, "little") + b"x"
    entry = describe_shard("shard.00007.mds", [5], b"x", liar)
    with pytest.raises(IntegrityError, match=r"shard\.00007\.mds\.zstd cannot be decompressed"):
        decompress(liar, entry)


def test_a_frame_that_declares_no_size_is_refused():
    raw = bytes(100)
    packed = zstandard.ZstdCompressor(write_content_size=False).compress(raw)
    entry = describe_shard("shard.00007.mds", [5], raw, packed)
    with pytest.raises(IntegrityError, match="expected 100 bytes when decompressed"):
        decompress(packed, entry)


@pytest.mark.parametrize("junk", [b"", b"no zstd frame, whatever the index says"])
def test_what_is_no_frame_is_refused_though_its_hash_fits(junk):
    entry = describe_shard("shard.00007.mds", [5], b"x", junk)
    with pytest.raises(IntegrityError, match=r"shard\.00007\.mds\.zstd"):
        decompress(junk, entry)


def test_another_number_of_documents_than_the_index_says_is_found():
    entry = describe_shard("shard.00000.mds", [2, 1, 1], GOLDEN, b"")
    with pytest.raises(IntegrityError, match=r"mds: expected 3 documents, got 2"):
        parse(GOLDEN, entry)


def test_another_number_of_tokens_than_the_index_says_is_found():
    entry = describe_shard("shard.00000.mds", [4, 1], GOLDEN, b"")
    with pytest.raises(IntegrityError, match=r"mds: expected 5 tokens, got 4"):
        parse(GOLDEN, entry)


@pytest.mark.parametrize(
    ("at", "offset"),
    [
        pytest.param(12, FIRST + 19, id="last offset before the end"),
        pytest.param(12, 1 << 31, id="last offset after the end"),
        pytest.param(8, FIRST, id="a document without bytes"),
        pytest.param(8, FIRST - 1, id="offsets that fall"),
        pytest.param(4, 1 << 31, id="first offset after the end"),
    ],
)
def test_a_damaged_table_of_offsets_is_found(at, offset):
    bad = with_bytes(GOLDEN, at, struct.pack("<I", offset))
    entry = describe_shard("shard.00000.mds", [3, 1], bad, b"")
    with pytest.raises(IntegrityError, match=r"shard\.00000\.mds: the table of offsets"):
        parse(bad, entry)


def test_a_document_of_two_dimensions_is_refused():
    bad = with_bytes(GOLDEN, FIRST + 4, b"\x08")
    entry = describe_shard("shard.00000.mds", [3, 1], bad, b"")
    with pytest.raises(IntegrityError, match="not a one-dimensional array"):
        parse(bad, entry)


def test_a_document_of_another_type_is_refused():
    entry = describe_shard("shard.00000.mds", [3, 1], GOLDEN, b"")
    with pytest.raises(IntegrityError, match="a document is no array of uint32"):
        parse(GOLDEN, entry, "uint32")


@given(st.integers(0, 15), st.binary(min_size=1, max_size=8))
def test_whatever_the_head_says_no_document_reaches_out_of_the_shard(at, junk):
    bad = with_bytes(GOLDEN, at, junk)
    entry = describe_shard("shard.00000.mds", [3, 1], bad, b"")
    try:
        view = parse(bad, entry)
    except IntegrityError:
        return
    sizes = view.lengths
    assert (sizes > 0).all()
    assert (view.starts >= 0).all()
    assert (view.starts + 2 * sizes <= len(bad)).all()


@given(st.integers(0, len(GOLDEN) - 1))
@example(5)
def test_a_shard_cut_anywhere_is_refused_by_its_own_table(kept):
    bad = GOLDEN[:kept]
    entry = describe_shard("shard.00000.mds", [3, 1], bad, b"")
    with pytest.raises(IntegrityError, match=r"shard\.00000\.mds"):
        parse(bad, entry)


# The index.


def test_an_index_is_the_bytes_that_the_format_says():
    entries = (
        ShardEntry("shard.00000.mds", 2, ((1, 1), (1, 3)), 248, "a" * 32, 180, "b" * 32),
        ShardEntry("shard.00001.mds", 1, ((0, 0), (1, 3)), 240, "c" * 32, 170, "d" * 32),
    )
    assert Index.of("uint16", entries).to_bytes() == (
        b'{"climbstream": {"lengths": [[[1, 1], [1, 3]], [[0, 0], [1, 3]]]}, "shards": ['
        b'{"column_encodings": ["ndarray:uint16"], "column_names": ["tokens"], '
        b'"column_sizes": [null], "compression": "zstd:3", "format": "mds", '
        b'"hashes": ["xxh3_128"], "raw_data": {"basename": "shard.00000.mds", "bytes": 248, '
        b'"hashes": {"xxh3_128": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}}, "samples": 2, '
        b'"size_limit": 16777216, "version": 2, '
        b'"zip_data": {"basename": "shard.00000.mds.zstd", "bytes": 180, '
        b'"hashes": {"xxh3_128": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"}}}, '
        b'{"column_encodings": ["ndarray:uint16"], "column_names": ["tokens"], '
        b'"column_sizes": [null], "compression": "zstd:3", "format": "mds", '
        b'"hashes": ["xxh3_128"], "raw_data": {"basename": "shard.00001.mds", "bytes": 240, '
        b'"hashes": {"xxh3_128": "cccccccccccccccccccccccccccccccc"}}, "samples": 1, '
        b'"size_limit": 16777216, "version": 2, '
        b'"zip_data": {"basename": "shard.00001.mds.zstd", "bytes": 170, '
        b'"hashes": {"xxh3_128": "dddddddddddddddddddddddddddddddd"}}}], "version": 2}'
    )


hashes = st.text("0123456789abcdef", min_size=32, max_size=32)
entries = st.builds(
    lambda name, lengths, *rest: ShardEntry(name, sum(n for n, _ in lengths), lengths, *rest),
    st.integers(0, 99_999).map("shard.{:05}.mds".format),
    st.lists(st.tuples(st.integers(0, 1 << 28), st.integers(0, 1 << 28)), max_size=4).map(tuple),
    st.integers(8, MOST_BYTES),
    hashes,
    st.integers(0, MOST_BYTES),
    hashes,
)


@given(st.lists(entries, max_size=4, unique_by=lambda entry: entry.basename), dtypes)
def test_an_index_comes_back_as_it_was(entries, dtype):
    index = Index.of(dtype, entries)
    assert Index.from_bytes(index.to_bytes(), dtype) == index
    assert index.tokens == sum(e.tokens for e in entries)
    assert index.samples == sum(e.samples for e in entries)


@pytest.mark.parametrize("basename", ["../x", "/etc/passwd", "a/b.mds", "..", ".", "", "x/", "./x"])
def test_a_basename_that_leads_elsewhere_is_refused(basename):
    value = make_index()
    value["shards"][0]["raw_data"]["basename"] = basename
    value["shards"][0]["zip_data"]["basename"] = f"{basename}.zstd"
    with pytest.raises(InvalidDataError, match="the name must be a plain file name"):
        Index.from_bytes(json.dumps(value).encode(), "uint16")


def test_a_compressed_basename_that_leads_elsewhere_is_refused():
    value = make_index()
    value["shards"][0]["zip_data"]["basename"] = "../x.zstd"
    with pytest.raises(InvalidDataError, match=r"shard\.00000\.mds is packed as '\.\./x"):
        Index.from_bytes(json.dumps(value).encode(), "uint16")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"column_names": ["text"]}, r"holds \['text'\]"),
        ({"column_names": ["tokens", "text"]}, "not 'tokens' as ndarray:uint16"),
        ({"column_encodings": ["pkl"]}, r"as \['pkl'\], not 'tokens' as ndarray:uint16"),
        ({"column_encodings": ["ndarray:uint32"]}, "not 'tokens' as ndarray:uint16"),
    ],
)
def test_other_columns_are_refused(changes, message):
    with pytest.raises(InvalidDataError, match=message):
        Index.from_bytes(json.dumps(make_index(**changes)).encode(), "uint16")


@pytest.mark.parametrize("count", [-1, 2.5, "2", True, None])
def test_counts_that_are_no_counts_are_refused(count):
    with pytest.raises(InvalidDataError, match=r"shards\[0\]\.samples: expected int"):
        Index.from_bytes(json.dumps(make_index(samples=count)).encode(), "uint16")


@pytest.mark.parametrize("size", [0, 7])
def test_a_shard_of_fewer_bytes_than_an_empty_one_is_refused(size):
    value = make_index()
    value["shards"][0]["raw_data"]["bytes"] = size
    with pytest.raises(InvalidDataError, match=rf"said to have {size} bytes; .* has 8"):
        Index.from_bytes(json.dumps(value).encode(), "uint16")


def test_lengths_of_another_number_of_documents_are_refused():
    value = make_index()
    value["climbstream"]["lengths"] = [[[1, 1], [2, 3]]]
    with pytest.raises(InvalidDataError, match="counts 2 documents, but lists the lengths of 3"):
        Index.from_bytes(json.dumps(value).encode(), "uint16")


def test_documents_of_other_lengths_than_the_index_says_are_found():
    documents = make_documents([2, 2], "uint16")
    raw, packed, _ = make_shard(documents)
    entry = describe_shard("shard.00007.mds", [1, 3], raw, packed)
    with pytest.raises(IntegrityError, match="documents and tokens by length"):
        parse(raw, entry)


@pytest.mark.parametrize(
    "data",
    [b"", b"no JSON", b"\xff", b"[]", b"{}", b"null", b'{"shards": [], "version": 2}'],
)
def test_what_is_no_index_of_ours_is_refused(data):
    with pytest.raises(InvalidDataError, match="not a valid index of token shards"):
        Index.from_bytes(data, "uint16")


def test_an_index_that_leaves_out_a_count_is_refused():
    value = make_index()
    value["climbstream"]["lengths"] = []
    with pytest.raises(InvalidDataError, match="not a valid index of token shards"):
        Index.from_bytes(json.dumps(value).encode(), "uint16")


@pytest.mark.parametrize("key", ["raw_data", "zip_data", "samples", "column_names"])
def test_an_entry_that_leaves_something_out_is_refused(key):
    value = make_index()
    del value["shards"][0][key]
    with pytest.raises(InvalidDataError, match=f"not a valid index of token shards: .*{key}"):
        Index.from_bytes(json.dumps(value).encode(), "uint16")


def test_a_shard_larger_than_readers_take_is_not_written(monkeypatch):
    monkeypatch.setattr("climbstream.loader.formats.mds.writer.MOST_BYTES", 50)
    with pytest.raises(InvalidDataError, match=r"would have 51 bytes, .* at most 50; .* 9 tokens"):
        describe_shard("shard.00000.mds", [4, 9], b"x" * 51, b"y")

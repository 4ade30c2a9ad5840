"""The file shards.columns: it says what the indexes say, and nothing else is taken for it."""

import json
import pickle
import shutil
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.loader import MixtureLoader
from climbstream.loader.core.errors import ClimbError, IntegrityError, InvalidDataError
from climbstream.loader.core.files import hash_bytes
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.grouping import Grouping
from climbstream.loader.formats.manifest import COLUMNS, NEXT_FILES
from climbstream.loader.formats.mds.entry import MOST_BYTES, ShardColumns, ShardEntry, shard_name
from climbstream.loader.formats.mds.index import Index
from climbstream.loader.formats.shard_columns import pack_columns, parse_columns, save_columns
from climbstream.loader.reading.packing import PACKS, count_shard_rows
from climbstream.loader.tools.regroup import regroup

hashes = st.text("0123456789abcdef", min_size=32, max_size=32)
bins = st.integers(0, 40).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(n, 3 * n) if n else st.just(0))
)
shard_lists = st.lists(
    st.builds(
        lambda counts, *rest: ShardEntry(
            "",
            sum(n for n, _ in counts),
            tuple((n, size << i) for i, (n, size) in enumerate(counts)),
            *rest,
        ),
        st.lists(bins, max_size=12),
        st.integers(8, MOST_BYTES),
        hashes,
        st.integers(0, MOST_BYTES),
        hashes,
    ),
    max_size=5,
).map(lambda some: [replace(entry, basename=shard_name(i)) for i, entry in enumerate(some)])
directories = st.lists(shard_lists, min_size=1, max_size=4)


def columns_of(clusters):
    return {f"c{k:02d}": ShardColumns.of(shards) for k, shards in enumerate(clusters)}


def pack(clusters):
    return pack_columns(columns_of(clusters))


def parse(data):
    return parse_columns(memoryview(data), "D/shards.columns")


@pytest.fixture
def shards(make_shards, counted_documents, tmp_path):
    lengths = {"c00": [40] * 30, "c01": [25, 3, 70] * 10}
    made = make_shards(tmp_path / "shards", counted_documents(lengths))
    return list_columns(made)


def list_columns(shards, data=None):
    """Write shards.columns, and its hash to the manifest; ``data`` is another content of it."""
    save_columns(shards.directory, {name: i.parts[0] for name, i in shards.indexes.items()})
    path = shards.directory / COLUMNS
    if data is not None:
        path.write_bytes(data)
    manifest = replace(shards.manifest, files={COLUMNS: hash_bytes(path.read_bytes())})
    manifest.save(shards.directory)
    return replace(shards, manifest=manifest)


# The format.


def test_a_file_is_the_bytes_that_the_format_says():
    first = [
        ShardEntry("shard.00000.mds", 2, ((1, 1), (1, 3)), 248, "a" * 32, 180, "b" * 32),
        ShardEntry("shard.00001.mds", 1, ((1, 1),), 240, "c" * 32, 170, "d" * 32),
    ]
    second = [ShardEntry("shard.00000.mds", 0, (), 9, "e" * 32, 8, "f" * 32)]
    header = b'{"clusters": {"c00": 2, "c01": 1}, "lengths": 3}'
    assert pack([first, second]) == b"".join(
        (
            b"climbcol" + struct.pack("<II", 1, 48) + header,
            b"\xaa" * 16 + b"\xbb" * 16 + b"\xcc" * 16 + b"\xdd" * 16 + b"\xee" * 16 + b"\xff" * 16,
            struct.pack("<6I", 1, 1, 1, 3, 1, 1),
            struct.pack("<4I", 0, 2, 3, 3),
            struct.pack("<3I", 2, 1, 0),
            struct.pack("<3I", 4, 1, 0),
            struct.pack("<3I", 248, 240, 9),
            struct.pack("<3I", 180, 170, 8),
        )
    )


@given(directories)
def test_shards_come_back_as_they_were(clusters):
    parsed = parse(pack(clusters))
    assert parsed == columns_of(clusters)
    assert [list(columns) for columns in parsed.values()] == clusters
    for columns, shards in zip(parsed.values(), clusters, strict=True):
        assert [columns[i] for i in range(-len(shards), len(shards))] == [*shards, *shards]
        assert columns[1:] == tuple(shards[1:])
        assert columns[::-2] == tuple(shards[::-2])
        with pytest.raises(IndexError):
            columns[len(shards)]


@given(directories)
def test_an_index_in_columns_is_written_as_the_same_json(clusters):
    for columns, shards in zip(parse(pack(clusters)).values(), clusters, strict=True):
        assert Index("uint16", (columns,)).to_bytes() == Index.of("uint16", shards).to_bytes()


def rows_by_shard(pack, shard, seq_len):
    """Count rows as it was done for each entry, before there were columns."""
    tokens = shard.tokens
    if pack == "bos":
        tokens = 0
        for bits, (documents, theirs) in enumerate(shard.lengths):
            least = 1 << bits
            if seq_len >= 2 * least - 1:
                tokens += theirs
            elif seq_len <= least:
                tokens += documents * seq_len
            else:
                long = (theirs - documents * least) // (least - 1)
                tokens += (documents - long) * least + long * seq_len
    return tokens // seq_len


@given(directories, st.sampled_from(PACKS), st.integers(1, 5000))
def test_sums_over_columns_are_those_over_entries(clusters, packing, seq_len):
    parts = tuple(parse(pack(clusters)).values())
    shards = [shard for cluster in clusters for shard in cluster]
    index = Index("uint16", parts)
    assert list(index.shards) == shards
    assert len(index.shards) == len(shards)
    assert [index.shards[i] for i in range(len(shards))] == shards
    assert index.shards[1:-1] == tuple(shards[1:-1])
    assert index.tokens == sum(shard.tokens for shard in shards)
    assert index.samples == sum(shard.samples for shard in shards)
    assert index.shard_tokens.tolist() == [shard.tokens for shard in shards]
    rows = count_shard_rows(packing, index, seq_len)
    assert rows.tolist() == [rows_by_shard(packing, shard, seq_len) for shard in shards]


def test_shards_with_other_names_are_read_and_not_written_in_columns(tmp_path):
    entry = ShardEntry("mine.mds", 0, (), 9, "e" * 32, 8, "f" * 32)
    columns = ShardColumns.of([entry])
    assert list(columns) == [entry]
    save_columns(tmp_path, {"c00": columns})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": MOST_BYTES + 1}, "1,073,741,825 documents"),
        ({"lengths": ((1, MOST_BYTES + 1),)}, "1,073,741,825 tokens"),
        ({"lengths": ((0, 0),) * 32}, "has at most"),
        ({"raw_hash": "no hash"}, "each must be 32 hex digits"),
    ],
)
def test_an_entry_that_columns_cannot_hold_is_refused(changes, message):
    entry = ShardEntry("shard.00000.mds", 0, (), 9, "e" * 32, 8, "f" * 32)
    with pytest.raises(InvalidDataError, match=rf"shard\.00000\.mds .*{message}"):
        ShardColumns.of([replace(entry, **changes)])


# Files that lie.

ENTRIES = [
    [
        ShardEntry("shard.00000.mds", 2, ((1, 1), (1, 3)), 248, "a" * 32, 180, "b" * 32),
        ShardEntry("shard.00001.mds", 1, ((0, 0), (1, 3)), 240, "c" * 32, 170, "d" * 32),
    ]
]
GOOD = pack(ENTRIES)
BODY = 64


def with_numbers(at, *numbers):
    return GOOD[:at] + struct.pack(f"<{len(numbers)}I", *numbers) + GOOD[at + 4 * len(numbers) :]


def with_header(value):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    text += b" " * (-(16 + len(text)) % 32)
    return b"climbcol" + struct.pack("<II", 1, len(text)) + text + GOOD[BODY:]


ENDS, SAMPLES, TOKENS = BODY + 64 + 32, BODY + 64 + 32 + 12, BODY + 64 + 32 + 12 + 8


def test_the_tests_of_wrong_files_change_what_they_mean_to():
    assert with_numbers(ENDS, 0, 2, 4) == GOOD
    assert with_numbers(SAMPLES, 2, 1) == GOOD
    assert with_numbers(TOKENS, 4, 3) == GOOD
    assert with_header({"clusters": {"c00": 2}, "lengths": 4}) == GOOD


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a valid index in columns"),
        (GOOD[:15], "is not a valid index in columns"),
        (b"x" + GOOD[1:], "is not a valid index in columns"),
        (with_numbers(8, 2), "has version 2, and this climbstream reads version 1"),
        (with_numbers(12, 1 << 31), "bytes of columns|a wrong header"),
        (with_numbers(12, 47), "a wrong header|misaligned"),
        (with_header(b"\xff"), "a wrong header"),
        (with_header([]), "a wrong header"),
        (with_header({"clusters": {"c00": -2}, "lengths": 4}), "a wrong header"),
        (with_header({"clusters": {"c00": 3}, "lengths": 4}), "its header asks for 192"),
        (with_header({"clusters": {"c00": (1 << 63) - 1}, "lengths": 4}), "header asks for"),
        (with_header({"clusters": {"c00": 2}, "lengths": 1 << 62}), "header asks for"),
        (GOOD[:-1], "and its header asks for"),
        (GOOD + b"\0", "and its header asks for"),
        (with_numbers(ENDS, 1, 2, 4), "is wrong about where histograms end"),
        (with_numbers(ENDS, 0, 5, 4), "is wrong about where histograms end"),
        (with_numbers(ENDS, 0, 2, 3), "is wrong about where histograms end"),
        (with_numbers(SAMPLES, 1 << 31), "a shard with 2,147,483,648 documents, tokens or bytes"),
        (with_numbers(TOKENS + 8, 7), "a shard of 7 bytes"),
        (with_numbers(TOKENS + 16, MOST_BYTES + 1), "a shard with 1,073,741,825"),
    ],
)
def test_a_file_that_lies_is_refused_with_the_remedy(data, message):
    with pytest.raises(InvalidDataError, match=rf"D/shards\.columns .*({message})"):
        parse(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (with_numbers(SAMPLES, 1), "expected 1 documents by their lengths, got 2"),
        (with_numbers(TOKENS, 9), "expected 9 tokens by the lengths of documents, got 4"),
    ],
)
def test_a_histogram_with_other_sums_is_refused_when_its_shard_is_asked_for(data, message):
    (columns,) = parse(data).values()
    assert columns[1] == ENTRIES[0][1]
    with pytest.raises(IntegrityError, match=rf"shard\.00000\.mds: {message}"):
        columns[0]


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8))
def test_whatever_the_bytes_are_only_our_errors_are_raised(at, junk):
    data = GOOD[:at] + junk + GOOD[at + len(junk) :]
    try:
        for columns in parse(data).values():
            index = Index("uint16", (columns,))
            for packing in PACKS:
                rows = count_shard_rows(packing, index, 2)
                assert (rows >= 0).all()
                assert (2 * rows <= index.shard_tokens).all()
            tuple(columns)
    except ClimbError:
        return


# A directory.


def test_a_directory_with_columns_needs_no_other_index(shards):
    for folder in (shards.directory / "clusters").iterdir():
        (folder / "index.json").unlink()
    directory = ShardDirectory(shards.directory)
    assert {name: directory.index(name) for name in directory.names} == shards.indexes
    for name, documents in shards.documents.items():
        read = [d.tolist() for shard in directory.documents(name) for d in shard]
        assert read == [d.tolist() for d in documents]


@pytest.mark.parametrize("pack", PACKS)
def test_a_loader_serves_the_same_batches_with_and_without_columns(shards, tmp_path, pack):
    def batches():
        loader = MixtureLoader(
            shards.directory, seq_len=16, batch_rows=4, pack=pack, cache_dir=tmp_path / "cache"
        )
        return [next(loader)["input_ids"].tolist() for _ in range(40)], loader.state_dict()

    with_columns = batches()
    (shards.directory / COLUMNS).unlink()
    assert batches() == with_columns


def test_a_grouping_serves_the_same_batches_with_and_without_columns(shards, tmp_path):
    regroup(shards.directory, "all", Grouping({"both": ("c01", "c00")}))

    def batches():
        directory = ShardDirectory(shards.directory / "groupings" / "all")
        loader = MixtureLoader(directory, seq_len=16, batch_rows=4, cache_dir=tmp_path / "cache")
        places = [directory.locate("both", i) for i in range(len(directory.index("both").shards))]
        return [next(loader)["input_ids"].tolist() for _ in range(40)], places

    with_columns = batches()
    (shards.directory / COLUMNS).unlink()
    assert batches() == with_columns
    sizes = {name: len(index.shards) for name, index in shards.indexes.items()}
    assert with_columns[1] == [(name, i) for name in ("c01", "c00") for i in range(sizes[name])]


def test_a_directory_that_is_sent_to_another_process_maps_the_file_there(shards):
    directory = ShardDirectory(shards.directory)
    directory.load_indexes(directory.names)
    sent = pickle.loads(pickle.dumps(directory))
    assert sent.index("c01") == directory.index("c01")


def test_a_directory_that_lacks_the_file_is_read_from_the_indexes(shards):
    (shards.directory / COLUMNS).unlink()
    directory = ShardDirectory(shards.directory)
    assert {name: directory.index(name) for name in directory.names} == shards.indexes


def test_a_file_that_the_manifest_does_not_list_is_not_read(shards):
    replace(shards.manifest, files={}).save(shards.directory)
    (shards.directory / COLUMNS).write_bytes(b"of somebody else")
    directory = ShardDirectory(shards.directory)
    assert {name: directory.index(name) for name in directory.names} == shards.indexes


def test_a_damaged_file_is_refused_and_removing_it_helps(shards):
    path = shards.directory / COLUMNS
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(IntegrityError, match=r"shards\.columns: expected hash .*; else remove it"):
        ShardDirectory(shards.directory).index("c00")
    path.unlink()
    assert ShardDirectory(shards.directory).index("c00") == shards.indexes["c00"]


def test_a_file_of_other_shards_is_refused_though_its_hash_fits(shards):
    other = dict(zip(shards.indexes, reversed(shards.indexes.values()), strict=True))
    list_columns(shards, pack_columns({name: index.parts[0] for name, index in other.items()}))
    with pytest.raises(IntegrityError, match=r"shards\.columns, cluster c00, counts 980 tokens"):
        ShardDirectory(shards.directory).index("c00")


def test_a_file_that_lacks_a_cluster_is_refused_though_its_hash_fits(shards):
    list_columns(shards, pack_columns({"c00": shards.indexes["c00"].parts[0]}))
    directory = ShardDirectory(shards.directory)
    assert directory.index("c00") == shards.indexes["c00"]
    with pytest.raises(IntegrityError, match=r"shards\.columns lacks cluster c01"):
        directory.index("c01")


def test_the_file_of_an_append_that_was_killed_after_its_commit_is_found(shards):
    aside = shards.directory / NEXT_FILES / COLUMNS
    aside.parent.mkdir(parents=True)
    (shards.directory / COLUMNS).rename(aside)
    (shards.directory / COLUMNS).write_bytes(GOOD)
    for folder in (shards.directory / "clusters").iterdir():
        (folder / "index.json").unlink()
    assert ShardDirectory(shards.directory).index("c01") == shards.indexes["c01"]


def test_a_directory_whose_file_is_replaced_goes_on_with_the_old_one(shards):
    directory = ShardDirectory(shards.directory)
    directory.load_indexes(directory.names)
    (shards.directory / COLUMNS).unlink()
    (shards.directory / COLUMNS).write_bytes(GOOD)
    assert directory.index("c00") == shards.indexes["c00"]


def test_behind_a_url_one_request_replaces_those_for_the_indexes(shards, serve):
    site = serve(shards.directory)
    directory = ShardDirectory(site.url)
    directory.load_indexes(directory.names)
    assert {name: directory.index(name) for name in directory.names} == shards.indexes
    assert site.asked == ["manifest.json", COLUMNS]


def test_behind_a_url_a_directory_without_the_file_is_read_from_the_indexes(shards, serve):
    (shards.directory / COLUMNS).unlink()
    directory = ShardDirectory(serve(shards.directory).url)
    directory.load_indexes(directory.names)
    assert {name: directory.index(name) for name in directory.names} == shards.indexes


def test_behind_a_url_a_large_file_is_fetched_once_per_node(shards, serve, tmp_path, monkeypatch):
    monkeypatch.setattr("climbstream.loader.formats.shard_columns._KEPT", 1)
    site, cache = serve(shards.directory), tmp_path / "cache"
    for _ in range(2):
        directory = ShardDirectory(site.url)
        directory.load_indexes(directory.names, cache)
        assert directory.index("c01") == shards.indexes["c01"]
    assert site.asked.count(COLUMNS) == 1
    (kept,) = (cache / "columns").iterdir()
    kept.write_bytes(b"damaged")
    ShardDirectory(site.url).load_indexes(["c00"], cache)
    assert site.asked.count(COLUMNS) == 2
    assert hash_bytes(kept.read_bytes()) == kept.name


def test_without_room_in_the_cache_a_remote_file_stays_in_memory(
    shards, serve, tmp_path, monkeypatch
):
    monkeypatch.setattr("climbstream.loader.formats.shard_columns._KEPT", 1)
    (tmp_path / "cache").write_text("no folder")
    directory = ShardDirectory(serve(shards.directory).url)
    directory.load_indexes(directory.names, tmp_path / "cache")
    assert directory.index("c01") == shards.indexes["c01"]


def test_a_link_or_a_pipe_in_place_of_the_file_is_refused(shards, tmp_path):
    path = shards.directory / COLUMNS
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    store = ShardDirectory(shards.directory).store.without_links()
    with pytest.raises(InvalidDataError, match="is a link to"):
        ShardDirectory(store).index("c00")


def test_columns_are_mapped_and_cannot_be_changed(shards):
    (columns,) = ShardDirectory(shards.directory).index("c00").parts
    for column in (columns.samples, columns.hashes, columns.lengths):
        assert not column.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            column[0] = np.uint32(1)

"""MixtureLoader: the same batches for every world size, from every step, under any weights."""

import json
import struct
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from climbstream.loader import LoaderState, Mixture, MixtureLoader, WeightsLog
from climbstream.loader.core.errors import IntegrityError, InvalidDataError, UsageError
from climbstream.loader.core.files import append_line, hash_bytes
from climbstream.loader.formats.mixture import integer_weights
from climbstream.loader.reading.row_source import RowSource
from climbstream.loader.weights.log import WeightsRecord

SEQ_LEN = 8
ROWS = 16
WORLD_SIZES = (1, 2, 4, 8)
WEIGHTS = {"c00": 0.55, "c01": 0.3, "c02": 0.1, "c03": 0.05}
STEPS = 14
# Weights that are set while it runs: by the step after which they are.
CHANGES = {3: {"c00": 1, "c01": 1}, 4: {"c00": 1, "c02": 3}, 9: WEIGHTS, 11: {"c03": 1}}


@pytest.fixture(scope="session")
def shards(tmp_path_factory, make_shards, counted_documents):
    """Four clusters; c03 has fewer rows than there are lanes. Each token occurs once."""
    draw = np.random.default_rng(11)
    lengths = {
        "c00": draw.integers(1, 60, 60).tolist(),
        "c01": draw.integers(1, 60, 30).tolist(),
        "c02": draw.integers(1, 60, 20).tolist(),
        "c03": [30, 3],
    }
    return make_shards(tmp_path_factory.mktemp("shards"), counted_documents(lengths))


@pytest.fixture
def open_loader(shards):
    """Return a function that opens a loader with the settings of these tests, or others."""

    def open_(**changes):
        kwargs = {"weights": WEIGHTS, "seq_len": SEQ_LEN, "batch_rows": ROWS, "seed": 17}
        return MixtureLoader(shards.directory, **(kwargs | changes))

    return open_


@pytest.fixture
def open_ranks(open_loader):
    """Return a function that opens the loaders of all ranks of a world."""

    def open_(world_size, **changes):
        return [
            open_loader(rank=rank, world_size=world_size, **changes) for rank in range(world_size)
        ]

    return open_


@pytest.fixture
def serve(batch_digest):
    """Return a function that serves to the ranks up to a step, changing weights on the way."""

    def serve_(ranks, until, changes=CHANGES):
        digests = []
        while ranks[0].step < until:
            if weights := changes.get(ranks[0].step):
                for rank in ranks:
                    rank.set_weights(weights)
            digests.append(batch_digest(*(next(rank) for rank in ranks)))
        return digests

    return serve_


def place(shards):
    """Say for each token the cluster it is in; tokens are numbered through."""
    return np.concatenate(
        [np.full(c.tokens, number) for number, c in enumerate(shards.manifest.clusters)]
    )


def decode_by_hand(folder):
    """Tokens of each shard of a cluster, read by nothing but the description of the format."""
    for shard in json.loads((folder / "index.json").read_bytes())["shards"]:
        packed = (folder / shard["zip_data"]["basename"]).read_bytes()
        raw = zstandard.ZstdDecompressor().decompress(packed)
        (n,) = struct.unpack_from("<I", raw)
        offsets = struct.unpack_from(f"<{n + 1}I", raw, 4)
        size = {"ndarray:uint16": 2, "ndarray:uint32": 4}[shard["column_encodings"][0]]
        tokens = []
        for at in offsets[:-1]:
            bytes_, code = struct.unpack_from("<IB", raw, at)
            width = 1 << (code & 3)
            count = int.from_bytes(raw[at + 5 : at + 5 + width], "little")
            assert bytes_ == 1 + width + count * size
            values = raw[at + 5 + width : at + 4 + bytes_]
            tokens += [
                int.from_bytes(values[i : i + size], "little") for i in range(0, len(values), size)
            ]
        yield tokens


# What a batch is.


def test_a_batch_is_rows_of_tokens_and_the_number_of_their_cluster(open_loader):
    batch = next(open_loader(world_size=2))
    assert set(batch) == {"input_ids", "cluster_ids"}
    assert batch["input_ids"].shape == (ROWS // 2, SEQ_LEN)
    assert batch["cluster_ids"].shape == (ROWS // 2,)
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_a_row_is_tokens_of_its_cluster_alone(open_loader, shards):
    loader, cluster_of = open_loader(), place(shards)
    for _ in range(STEPS):
        batch = next(loader)
        clusters = cluster_of[batch["input_ids"].numpy()]
        assert (clusters == batch["cluster_ids"].numpy()[:, None]).all()


def test_the_rows_of_a_cluster_are_as_many_as_its_weight_asks(open_loader):
    loader = open_loader()
    counts = sum(torch.bincount(next(loader)["cluster_ids"], minlength=4) for _ in range(100))
    due = 100 * ROWS * np.array(list(WEIGHTS.values()))
    assert np.abs(counts.numpy() - due).max() <= 1


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_tokens_are_those_in_the_shards(tmp_path, make_shards, dtype):
    draw = np.random.default_rng(4)
    top = np.iinfo(dtype).max
    documents = {
        name: [draw.integers(0, top, n, dtype, endpoint=True) for n in lengths]
        for name, lengths in {"c00": [3, 400, 70, 1, 1, 256], "c01": [90, 800]}.items()
    }
    shards = make_shards(tmp_path / "shards", documents, dtype=dtype, shard_bytes=500)
    loader = MixtureLoader(shards.directory, seq_len=SEQ_LEN, batch_rows=8)
    windows = [
        {
            tuple(tokens[i : i + SEQ_LEN])
            for tokens in decode_by_hand(shards.folder(name))
            for i in range(len(tokens))
        }
        for name in loader.names
    ]
    for _ in range(60):
        batch = next(loader)
        for cluster, row in zip(batch["cluster_ids"], batch["input_ids"], strict=True):
            assert tuple(row.tolist()) in windows[cluster]


def test_an_epoch_serves_every_row_once(tmp_path, make_shards, counted_documents):
    # 96 rows, 12 for each lane; every third batch ends an epoch.
    shards = make_shards(tmp_path, counted_documents({"c00": [96 * SEQ_LEN]}), shard_bytes=1 << 20)
    loader = MixtureLoader(shards.directory, seq_len=SEQ_LEN, batch_rows=32)
    orders = []
    for _ in range(4):
        firsts = [f for _ in range(3) for f in next(loader)["input_ids"][:, 0].tolist()]
        assert sorted(firsts) == list(range(0, 96 * SEQ_LEN, SEQ_LEN))
        orders.append(firsts)
    assert all(orders[0] != other for other in orders[1:])


def test_a_batch_can_be_kept(open_loader):
    loader = open_loader()
    batch = next(loader)
    before = batch["input_ids"].clone()
    next(loader)
    assert torch.equal(batch["input_ids"], before)
    batch["input_ids"].zero_()


def test_another_seed_serves_other_rows_in_the_same_shares(open_loader):
    one, two = open_loader(seed=17), open_loader(seed=18)
    assert not torch.equal(next(one)["input_ids"], next(two)["input_ids"])
    for _ in range(STEPS):
        next(one), next(two)
    assert one.tokens_served == two.tokens_served


@pytest.mark.slow
def test_another_process_serves_the_same(open_loader, shards):
    script = (
        "import sys\n"
        "from climbstream.loader import MixtureLoader\n"
        "loader = MixtureLoader(sys.argv[1], seq_len=8, batch_rows=16, seed=17)\n"
        "print([next(loader)['input_ids'].tolist() for _ in range(5)])\n"
    )
    command = [sys.executable, "-c", script, str(shards.directory)]
    there = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    loader = open_loader(weights=None)
    assert json.loads(there) == [next(loader)["input_ids"].tolist() for _ in range(5)]


GOLDEN = {
    "concat": "89215b9f39ceaa1c578d152999ae3a0e",
    "bfd": "9fab71bd775cfaed96e6562593f9723e",
    "bos": "fa38ae5eb8299aa19a553d0bfd9cba95",
}


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("pack", GOLDEN)
def test_batches_are_the_same_today_and_tomorrow(open_ranks, serve, pack, world_size):
    # A change here breaks the resuming of old runs: raise the version of the state.
    digests = serve(open_ranks(world_size, pack=pack), 40, changes={})
    assert hash_bytes(repr(digests).encode()) == GOLDEN[pack]


@pytest.mark.slow
def test_many_clusters_are_served_though_few_files_may_be_open(tmp_path, make_shards):
    make_shards(tmp_path / "shards", {f"c{k:03d}": [np.full(9, k)] * 8 for k in range(256)})
    script = (
        "import resource, sys\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))\n"
        "from climbstream.loader import MixtureLoader\n"
        "loader = MixtureLoader(sys.argv[1], seq_len=9, batch_rows=512, cache_dir=sys.argv[2])\n"
        "batches = [next(loader) for _ in range(4)]\n"
        "assert all((b['input_ids'] == b['cluster_ids'][:, None]).all() for b in batches)\n"
        "print(sorted(loader.tokens_served.values())[0], sum(loader.tokens_served.values()))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "shards"), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["72", str(4 * 512 * 9)]


# World sizes.


@pytest.fixture
def alone(open_ranks, serve):
    return serve(open_ranks(1), STEPS)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_the_ranks_together_hold_the_same_batches(open_ranks, serve, alone, world_size):
    assert serve(open_ranks(world_size), STEPS) == alone


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("lanes", [8, 16])
def test_a_rank_holds_every_nth_row(open_loader, open_ranks, world_size, lanes):
    alone, ranks = open_loader(lanes=lanes), open_ranks(world_size, lanes=lanes)
    for _ in range(STEPS):
        whole = next(alone)
        for rank, loader in enumerate(ranks):
            part = next(loader)
            for name, tensor in part.items():
                assert torch.equal(tensor, whole[name][rank::world_size])


@pytest.mark.parametrize("rows", [4, 12, 20])
def test_ranks_have_equal_rows_where_lanes_do_not_divide_the_batch(open_ranks, serve, rows):
    alone = serve(open_ranks(1, batch_rows=rows), STEPS)
    for world_size in (2, 4):
        ranks = open_ranks(world_size, batch_rows=rows)
        assert serve(ranks, STEPS) == alone
        assert {len(next(rank)["input_ids"]) for rank in ranks} == {rows // world_size}


def test_all_ranks_save_the_same_state(open_ranks, serve):
    ranks = open_ranks(8)
    serve(ranks, STEPS)
    assert len({json.dumps(rank.state_dict()) for rank in ranks}) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"world_size": 3},
            "^3 ranks cannot evenly share batches of 16 rows in 8 lanes; world_size may be 1, 2, 4",
        ),
        ({"world_size": 16}, "world_size may be 1, 2, 4, 8, or for 16 ranks use lanes=16$"),
        ({"world_size": 3}, "or for 3 ranks use batch_rows=18 and lanes=9$"),
        ({"world_size": 8, "batch_rows": 12}, "or for 8 ranks use batch_rows=16$"),
        ({"world_size": 6, "lanes": 48}, "world_size may be 1, 2, 4, 8, 16, or"),
        ({"world_size": 8, "batch_rows": 12}, "world_size may be 1, 2, 4, or"),
        ({"world_size": 2, "rank": 2}, "rank is 2, and world_size is 2; ranks are 0 to 1"),
        ({"rank": -1}, "rank is -1, and world_size is 1; ranks are 0 to 0"),
        ({"world_size": 0}, "world_size is 0; it must be a whole number, 1 or more"),
        ({"seq_len": 0}, "seq_len is 0; it must be a whole number, 1 or more"),
        ({"seq_len": "64"}, "seq_len is '64'; it must be a whole number, 1 or more"),
        ({"batch_rows": 8.0}, "batch_rows is 8.0; it must be a whole number, 1 or more"),
        ({"rank": None}, "rank is None, and world_size is 1; ranks are 0 to 0"),
        ({"batch_rows": -4}, "batch_rows is -4; it must be a whole number, 1 or more"),
        ({"lanes": 0}, "lanes is 0; it must be a whole number, 1 or more"),
        ({"pack": "tight"}, "no packing 'tight'; choose one of concat"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_with_those_that_do(open_loader, changes, message):
    with pytest.raises(UsageError, match=message):
        open_loader(**changes)


# Going on after a stop.


@pytest.fixture
def whole(open_ranks, serve):
    """Digests of an uninterrupted run, and the state before each of its steps."""
    (loader,) = ranks = open_ranks(1)
    digests, states = [], [loader.state_dict()]
    for step in range(STEPS):
        digests += serve(ranks, step + 1)
        states.append(loader.state_dict())
    return digests, [json.dumps(state) for state in states]


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_from_every_step_on_any_world_size_the_rest_is_the_same(
    open_ranks, serve, whole, world_size
):
    digests, states = whole
    for step, state in enumerate(states):
        ranks = open_ranks(world_size)
        for rank in ranks:
            rank.load_state_dict(json.loads(state))
        assert ranks[0].step == step
        assert serve(ranks, STEPS) == digests[step:]
        assert json.dumps(ranks[0].state_dict()) == states[-1]


def test_a_state_leads_back_after_iteration_began(open_ranks, serve, whole):
    digests, states = whole
    (loader,) = ranks = open_ranks(1)
    for step in (STEPS, 5, 0, 9, 4):
        loader.load_state_dict(json.loads(states[step]))
        assert serve(ranks, STEPS) == digests[step:]


def test_a_state_is_not_changed_by_what_comes_after(open_loader):
    loader = open_loader()
    next(loader)
    state = loader.state_dict()
    before = json.dumps(state)
    next(loader)
    assert json.dumps(state) == before
    other = open_loader().load_state_dict(state)
    next(other)
    assert json.dumps(state) == before


def test_a_state_that_was_loaded_is_saved_unchanged(open_loader, whole):
    for state in whole[1]:
        loader = open_loader().load_state_dict(json.loads(state))
        assert json.dumps(loader.state_dict()) == state


def test_weights_set_for_a_later_step_are_in_the_state(open_loader, open_ranks, serve):
    (loader,) = ranks = open_ranks(1)
    serve(ranks, 2, {})
    loader.set_weights({"c02": 1}, at_step=5)
    state = loader.state_dict()
    fresh = open_ranks(2)
    for rank in fresh:
        rank.load_state_dict(state)
    assert serve(fresh, 8, {}) == serve(ranks, 8, {})
    assert fresh[0].mixture == Mixture.of({"c02": 1})


def test_a_state_brings_its_weights_along(open_loader, whole):
    loader = open_loader(weights={"c03": 1}).load_state_dict(json.loads(whole[1][5]))
    assert loader.mixture == Mixture.of(CHANGES[4])


@pytest.mark.parametrize("changes", [0, 1])
def test_given_weights_that_a_state_replaces_are_named(open_loader, capsys, changes):
    loader = open_loader()
    next(loader)
    if changes:
        loader.set_weights({"c01": 1})
        next(loader)
    state = loader.state_dict()
    open_loader().load_state_dict(state)
    open_loader(weights=None).load_state_dict(state)
    assert capsys.readouterr().err == ""
    open_loader(weights={"c02": 1}).load_state_dict(state)
    said = capsys.readouterr().err
    assert f"continues with its own weights, {loader.mixture}" in said
    assert "and not with the weights that were given, Mixture(c02 100.0%; " in said


def test_weights_set_on_one_rank_without_agreement_are_warned_of_once(open_loader, capsys):
    for world_size in (1, 2):
        loader = open_loader(rank=0, world_size=world_size)
        capsys.readouterr()
        loader.set_weights({"c00": 1})
        loader.set_weights({"c01": 1})
        said = capsys.readouterr().err
        assert said.count("only. Each of the 2 ranks must call it") == world_size - 1


def test_a_state_of_other_batches_is_accepted_with_a_warning_of_both_sizes(open_loader, capsys):
    loader = open_loader()
    next(loader)
    open_loader(batch_rows=8).load_state_dict(loader.state_dict())
    assert (
        "after step 1, a batch has 8 rows; the state was saved with batch_rows=16"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("rows", [8, 12, 24])
def test_the_batch_may_grow_or_shrink_between_steps(open_loader, open_ranks, serve, rows):
    weights = {"c00": 0.5, "c01": 0.3, "c02": 0.2}
    before = open_loader(weights=weights)
    batches = [next(before) for _ in range(3)]
    state = before.state_dict()
    after = open_loader(weights=weights, batch_rows=rows).load_state_dict(state)
    batches += [next(after) for _ in range(3)]
    assert len(batches[-1]["input_ids"]) == rows
    assert sum(after.tokens_served.values()) == 3 * (ROWS + rows) * SEQ_LEN
    # No cluster has been gone through yet, so no row may come twice.
    assert max(after.epochs.values()) < 1
    firsts = [first for batch in batches for first in batch["input_ids"][:, 0].tolist()]
    assert len(set(firsts)) == len(firsts)
    alone = open_ranks(1, weights=weights, batch_rows=rows)
    ranks = open_ranks(4, weights=weights, batch_rows=rows)
    for loader in alone + ranks:
        loader.load_state_dict(state)
    assert serve(ranks, 5, {}) == serve(alone, 5, {})
    state = ranks[0].state_dict()
    assert state["served"] == 3 * ROWS + 2 * rows
    fresh = [
        rank.load_state_dict(state) for rank in open_ranks(2, weights=weights, batch_rows=rows)
    ]
    assert serve(fresh, 8, {}) == serve(alone, 8, {})


@settings(max_examples=40)
@given(data=st.data())
def test_any_history_goes_on_after_any_stop(shards, data):
    def open_(world_size, batch_rows):
        return [
            MixtureLoader(
                shards.directory,
                WEIGHTS,
                seq_len=SEQ_LEN,
                batch_rows=batch_rows,
                rank=rank,
                world_size=world_size,
            )
            for rank in range(world_size)
        ]

    def step(ranks, weights):
        for rank in ranks:
            if weights is not None:
                rank.set_weights(dict(zip(WEIGHTS, weights, strict=True)))
        return sorted(tuple(row) for rank in ranks for row in next(rank)["input_ids"].tolist())

    weights = st.none() | st.lists(st.integers(0, 5), min_size=4, max_size=4).filter(any)
    history = data.draw(st.lists(weights, min_size=1, max_size=8), label="weights")
    stop = data.draw(st.integers(0, len(history)), label="stop")
    before, after = (data.draw(st.sampled_from(WORLD_SIZES)) for _ in range(2))
    whole = open_(1, ROWS)
    expected = [step(whole, w) for w in history]
    first = open_(before, ROWS)
    got = [step(first, w) for w in history[:stop]]
    state = json.loads(json.dumps(first[-1].state_dict()))
    second = [rank.load_state_dict(state) for rank in open_(after, ROWS)]
    got += [step(second, w) for w in history[stop:]]
    assert got == expected


def test_a_shard_that_another_lane_comes_to_is_not_packed_again(open_loader, monkeypatch):
    opened, packed = Counter(), Counter()
    open_, pack = RowSource.open, RowSource.packed

    def count_open(stream, shard, epoch, pieces=None):
        opened[stream.name, shard, epoch] += 1
        return open_(stream, shard, epoch, pieces)

    def count_pack(stream, shard, epoch):
        packed[stream.name, shard, epoch] += 1
        return pack(stream, shard, epoch)

    monkeypatch.setattr(RowSource, "open", count_open)
    monkeypatch.setattr(RowSource, "packed", count_pack)
    loader = open_loader()
    while min(loader.epochs.values()) < 3:
        next(loader)
    assert max(opened.values()) > 1
    assert set(packed) == set(opened)
    assert set(packed.values()) == {1}


def test_a_batch_that_failed_is_not_counted(tmp_path, make_shards, counted_documents):
    documents = counted_documents({"c00": [100]})
    shards = make_shards(tmp_path / "shards", documents)
    loader = MixtureLoader(
        shards.directory, seq_len=SEQ_LEN, batch_rows=8, cache_dir=tmp_path / "cache"
    )
    before = loader.state_dict()
    hidden = shards.packed("c00").rename(tmp_path / "hidden")
    with pytest.raises(IntegrityError, match="is missing"):
        next(loader)
    assert loader.state_dict() == before
    hidden.rename(shards.packed("c00"))
    fresh = MixtureLoader(shards.directory, seq_len=SEQ_LEN, batch_rows=8)
    assert torch.equal(next(loader)["input_ids"], next(fresh)["input_ids"])


# States that belong elsewhere.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 18}, "the state was saved with seed=17, this loader has seed=18"),
        ({"seq_len": 4}, "the state was saved with seq_len=8, this loader has seq_len=4"),
        ({"lanes": 4}, "the state was saved with lanes=8, this loader has lanes=4"),
        (
            {"fraction": 0.5},
            r"the state was saved with fraction=1\.0, this loader has fraction=0\.5",
        ),
    ],
)
def test_a_state_of_other_settings_is_refused_by_name(open_loader, changes, message):
    state = open_loader().state_dict()
    with pytest.raises(InvalidDataError, match=message):
        open_loader(**changes).load_state_dict(state)


def test_a_state_of_other_shards_is_refused(tmp_path, open_loader, make_shards, counted_documents):
    documents = counted_documents({name: [100] for name in WEIGHTS})
    other = make_shards(tmp_path, documents)
    loader = MixtureLoader(other.directory, WEIGHTS, seq_len=SEQ_LEN, batch_rows=ROWS, seed=17)
    with pytest.raises(InvalidDataError, match=r"the state was saved with data='[0-9a-f]{32}'"):
        loader.load_state_dict(open_loader().state_dict())


def test_a_refused_state_leaves_the_loader_where_it_was(open_loader):
    loader, fresh = open_loader(), open_loader()
    next(loader), next(fresh)
    with pytest.raises(InvalidDataError, match="seed"):
        loader.load_state_dict(open_loader(seed=18).state_dict())
    assert torch.equal(next(loader)["input_ids"], next(fresh)["input_ids"])


def test_a_state_of_another_version_is_refused(open_loader):
    loader = open_loader()
    with pytest.raises(InvalidDataError, match="version 2; this climbstream reads 1"):
        loader.load_state_dict({**loader.state_dict(), "version": 2})


@pytest.mark.parametrize("key", ["step", "consumed", "credit", "weights", "version"])
def test_a_state_that_leaves_something_out_is_refused(open_loader, key):
    loader = open_loader()
    state = loader.state_dict()
    del state[key]
    with pytest.raises(InvalidDataError, match=f"this is not a valid state of a loader: .*{key}"):
        loader.load_state_dict(state)


@pytest.mark.parametrize("state", [None, 5, [1], "state"])
def test_what_is_no_state_is_refused(open_loader, state):
    with pytest.raises(InvalidDataError, match="this is not a valid state of a loader"):
        open_loader().load_state_dict(state)


@pytest.mark.parametrize(
    ("key", "value"),
    [("consumed", [[0]]), ("consumed", [[0] * 8] * 5), ("credit", [0]), ("weights", [])],
)
def test_a_state_whose_parts_do_not_fit_is_refused(open_loader, key, value):
    loader = open_loader()
    with pytest.raises(InvalidDataError):
        loader.load_state_dict({**loader.state_dict(), key: value})


def test_weights_that_were_changed_in_a_state_are_found(open_loader):
    loader = open_loader()
    state = json.loads(json.dumps(loader.state_dict()))
    state["weights"][0]["weights"]["c00"] = 0.1
    with pytest.raises(IntegrityError, match="record 0 of the weights log does not match"):
        loader.load_state_dict(state)


# What a state holds.


def test_a_state_comes_back_from_json_as_it_was(open_ranks, serve):
    (loader,) = ranks = open_ranks(1)
    serve(ranks, STEPS)
    state = loader.state_dict()
    assert json.loads(json.dumps(state)) == state
    assert LoaderState.from_json(state).to_json() == state


def test_a_state_holds_the_weights_in_force_and_those_to_come(open_ranks, serve):
    (loader,) = ranks = open_ranks(1)
    serve(ranks, 10)
    loader.set_weights({"c02": 1}, at_step=20)
    assert [record["v"] for record in loader.state_dict()["weights"]] == [3, 4]


def test_a_state_counts_what_was_served(open_ranks, serve):
    (loader,) = ranks = open_ranks(1)
    serve(ranks, STEPS)
    state = loader.state_dict()
    assert (state["step"], state["served"]) == (STEPS, STEPS * ROWS)
    consumed = LoaderState.from_json(state).consumed
    assert np.shape(consumed) == (4, 8)
    assert np.sum(consumed) == STEPS * ROWS
    assert sum(state["credit"]) == 0


@pytest.mark.parametrize("rows_a_lane", [0, 60_000])
def test_a_state_is_small_with_a_thousand_clusters_even_after_a_trillion_tokens(rows_a_lane):
    clusters, lanes = [f"c{i:03}" for i in range(1000)], 8
    draw = np.random.default_rng(0)
    weights = draw.dirichlet(np.ones(1000))
    log = WeightsLog()
    log.append(Mixture.of(dict(zip(clusters, weights.tolist(), strict=True))), 0, "start")
    # Within a ramp of all clusters, the longest record.
    goal = Mixture.of(dict(zip(clusters, draw.dirichlet(np.ones(1000)).tolist(), strict=True)))
    log.append(goal, 10**6, "anneal", ramp=1000)
    state = LoaderState(
        step=10**6,
        served=rows_a_lane * 8000,
        seed=17,
        seq_len=2048,
        batch_rows=512,
        lanes=lanes,
        pack="concat",
        data="0" * 32,
        clusters=clusters,
        consumed=(rows_a_lane + draw.integers(0, 9, (1000, lanes))).tolist(),
        credit=(integer_weights(weights) - (1 << 39)).tolist(),
        weights=[record.to_json() for record in log.since(10**6)],
    )
    assert len(json.dumps(state.to_json())) < 100_000


# Weights that change while it runs.


def test_a_zero_weight_means_none_from_the_next_step(open_loader):
    loader = open_loader()
    for _ in range(5):
        next(loader)
    loader.set_weights({"c00": 0, "c01": 1, "c02": 1})
    for _ in range(20):
        assert set(next(loader)["cluster_ids"].tolist()) <= {1, 2}


def test_weights_hold_from_the_step_that_is_named(open_loader):
    loader, other = open_loader(), open_loader()
    loader.set_weights({"c01": 1}, at_step=4)
    for _ in range(4):
        assert torch.equal(next(loader)["input_ids"], next(other)["input_ids"])
    assert set(next(loader)["cluster_ids"].tolist()) == {1}


def test_the_mixture_is_that_of_the_next_batch(open_loader):
    loader = open_loader()
    assert loader.mixture == Mixture.of(WEIGHTS)
    loader.set_weights({"c01": 1}, at_step=1)
    assert loader.mixture == Mixture.of(WEIGHTS)
    next(loader)
    assert loader.mixture == Mixture.of({"c01": 1})


def test_a_change_neither_serves_a_row_again_nor_skips_one(
    tmp_path, make_shards, counted_documents
):
    # 64 rows of each cluster, 8 for each lane.
    documents = counted_documents({"c00": [64 * SEQ_LEN], "c01": [64 * SEQ_LEN]})
    shards = make_shards(tmp_path, documents, shard_bytes=1 << 20)
    loader = MixtureLoader(shards.directory, seq_len=SEQ_LEN, batch_rows=8)
    draw = np.random.default_rng(6)
    firsts, lanes = [], np.zeros(8)
    while lanes.min() < 8:
        c00 = float(draw.choice([0, draw.random(), 1]))
        loader.set_weights({"c00": c00, "c01": 1 - c00})
        batch = next(loader)
        firsts += batch["input_ids"][batch["cluster_ids"] == 0, 0].tolist()
        lanes = np.array(LoaderState.from_json(loader.state_dict()).consumed[0])
        if lanes.max() <= 8:
            assert len(set(firsts)) == len(firsts)
    assert set(firsts) == set(range(0, 64 * SEQ_LEN, SEQ_LEN))


def test_what_is_served_after_any_changes_is_due_within_a_few_rows(open_ranks, serve):
    (loader,) = ranks = open_ranks(1)
    due = np.zeros(4)
    for step in range(60):
        if step % 3 == 0:
            weights = np.random.default_rng(step).dirichlet(np.ones(4))
            loader.set_weights(dict(zip(WEIGHTS, weights.tolist(), strict=True)))
        due += loader.mixture.array(loader.names) * ROWS
        serve(ranks, step + 1, {})
    served = np.array(list(loader.tokens_served.values())) / SEQ_LEN
    assert np.abs(served - due).max() < 2


def test_weights_for_a_step_that_is_served_are_refused(open_loader):
    loader = open_loader()
    for _ in range(3):
        next(loader)
    with pytest.raises(
        UsageError, match="asked for step 2, but 3 steps are served; name step 3 or later"
    ):
        loader.set_weights({"c01": 1}, at_step=2)
    assert loader.mixture == Mixture.of(WEIGHTS)


def test_weights_before_a_change_that_is_planned_are_refused(open_loader):
    loader = open_loader()
    loader.set_weights({"c01": 1}, at_step=9)
    with pytest.raises(UsageError, match="weights for step 5 cannot follow weights for step 9"):
        loader.set_weights({"c02": 1}, at_step=5)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"c09": 1}, "the mixture gives weight to c09, but the clusters are c00, c01, c02, c03"),
        ({"c00": -1}, "the weight of cluster 'c00' is -1"),
        ({"c00": 0}, "every weight of the mixture is 0"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(open_loader, weights, message):
    loader = open_loader()
    with pytest.raises(InvalidDataError, match=message):
        loader.set_weights(weights)
    assert loader.mixture == Mixture.of(WEIGHTS)
    next(loader)


# The weights log as a file.


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "weights.jsonl"


def test_a_start_is_logged(open_loader, path):
    open_loader(weights_log=path)
    (record,) = WeightsLog.open(path, write=False).records
    assert (record.at_step, record.weights, record.why) == (0, WEIGHTS, "start")


def test_a_second_start_follows_the_log(open_loader, path):
    first = open_loader(weights_log=path)
    first.set_weights({"c01": 1}, why="only the best", at_step=2)
    second = open_loader(weights_log=path, weights=None)
    for _ in range(5):
        assert torch.equal(next(first)["input_ids"], next(second)["input_ids"])
    assert second.mixture == Mixture.of({"c01": 1})
    assert len(path.read_text().splitlines()) == 2


def test_a_second_start_may_name_the_weights_that_the_log_begins_with(open_loader, path):
    open_loader(weights_log=path).set_weights({"c01": 1}, at_step=2)
    assert open_loader(weights_log=path).mixture == Mixture.of(WEIGHTS)
    assert len(path.read_text().splitlines()) == 2


def test_a_second_start_with_other_weights_is_refused(open_loader, path):
    open_loader(weights_log=path)
    with pytest.raises(
        InvalidDataError, match="begins with other weights than were given; leave weights out"
    ):
        open_loader(weights_log=path, weights={"c01": 1})


def test_only_rank_0_writes(open_ranks, serve, path):
    ranks = open_ranks(4, weights_log=path)
    serve(ranks, STEPS)
    assert len(WeightsLog.open(path, write=False).records) == 1 + len(CHANGES)


@pytest.mark.parametrize("world_size", [1, 4])
def test_a_state_goes_on_beside_its_log(open_ranks, serve, path, world_size):
    (loader,) = ranks = open_ranks(1, weights_log=path)
    serve(ranks, 7)
    state = loader.state_dict()
    rest = serve(ranks, STEPS)
    again = open_ranks(world_size, weights_log=path)
    for rank in again:
        rank.load_state_dict(state)
    # The changes after the state stand in the log already.
    assert serve(again, STEPS, {}) == rest


def test_a_state_of_another_log_is_refused(tmp_path, open_loader, path):
    other = open_loader(weights_log=tmp_path / "other.jsonl")
    other.set_weights({"c01": 1})
    state = other.state_dict()
    with pytest.raises(InvalidDataError, match=r"weights 1 .* which the log .*weights\.jsonl"):
        open_loader(weights_log=path).load_state_dict(state)


def test_a_log_for_other_clusters_is_refused(open_loader, path):
    WeightsLog.open(path, write=True).append(Mixture.of({"web": 1}), 0, "start")
    with pytest.raises(InvalidDataError, match="the mixture gives weight to web, but the clusters"):
        open_loader(weights_log=path, weights=None)


def test_a_log_that_begins_after_the_first_step_is_refused(open_loader, path):
    record = WeightsRecord.after(None, Mixture.of(WEIGHTS), 5, "late")
    append_line(path, record.to_json())
    with pytest.raises(InvalidDataError, match="a log begins with number 0, for step 0"):
        open_loader(weights_log=path, weights=None)


def test_a_state_served_under_weights_that_the_log_has_replaced_is_refused(open_loader, path):
    loader = open_loader(weights_log=path)
    early = loader.state_dict()
    for _ in range(5):
        next(loader)
    late = loader.state_dict()
    loader.load_state_dict(early)
    loader.set_weights({"c01": 1}, at_step=2)
    # In the log steps 2 to 5 now have other weights than those the state has served.
    with pytest.raises(InvalidDataError):
        loader.load_state_dict(late)


def test_a_planned_change_that_the_log_lacks_is_kept_or_refused(open_loader, path):
    loader = open_loader(weights_log=path)
    before = path.read_bytes()
    loader.set_weights({"c01": 1}, at_step=2)
    state = loader.state_dict()
    path.write_bytes(before)
    again = open_loader(weights_log=path)
    try:
        again.load_state_dict(state)
    except InvalidDataError:
        return
    for _ in range(2):
        next(again)
    assert again.mixture == Mixture.of({"c01": 1})


# Opening.


def test_by_default_every_token_is_as_likely(open_loader, shards):
    assert open_loader(weights=None).mixture.weights == pytest.approx(
        shards.manifest.token_shares.weights
    )


def test_by_default_clusters_without_a_row_are_left_out_and_named(tmp_path, make_shards, capsys):
    shards = make_shards(tmp_path, {"c00": [np.arange(50)], "tiny": [np.arange(7)]})
    loader = MixtureLoader(shards.directory, seq_len=SEQ_LEN, batch_rows=2)
    assert loader.mixture.weights == {"c00": 1.0}
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        "clusters left out, because none of their shards has 8 tokens: tiny\n",
    )
    assert next(loader)["cluster_ids"].tolist() == [0, 0]
    MixtureLoader(shards.directory, {"c00": 1}, seq_len=SEQ_LEN, batch_rows=2)
    assert capsys.readouterr().err == ""


def test_weight_on_a_cluster_without_a_row_is_refused(tmp_path, make_shards):
    shards = make_shards(tmp_path, {"c00": [np.arange(50)], "tiny": [np.arange(7)]})
    with pytest.raises(
        InvalidDataError,
        match=r"cluster tiny has weight 0\.5 but no shard of 8 tokens; give it weight 0, or "
        r"choose a smaller seq_len, at most \d$",
    ):
        MixtureLoader(shards.directory, {"c00": 1, "tiny": 1}, seq_len=SEQ_LEN, batch_rows=2)


def test_a_mixture_for_other_clusters_is_refused(open_loader):
    with pytest.raises(
        InvalidDataError,
        match="the mixture gives weight to web, but the clusters are c00, c01, c02, c03",
    ):
        open_loader(weights={"c00": 1, "web": 1})


def test_weights_may_be_a_mixture_an_object_or_a_file(tmp_path, open_loader):
    mixture = Mixture.of(WEIGHTS)
    mixture.save(tmp_path / "mixture.json")
    for weights in (
        mixture,
        WEIGHTS,
        tmp_path / "mixture.json",
        str(tmp_path / "mixture.json"),
    ):
        assert open_loader(weights=weights).mixture == mixture


def test_weights_are_scaled(open_loader):
    assert open_loader(weights={"c00": 30, "c01": 10}).mixture.weights == {
        "c00": 0.75,
        "c01": 0.25,
    }


def test_what_is_no_shard_directory_is_refused(tmp_path):
    with pytest.raises(InvalidDataError, match="is not a shard directory: it has no manifest"):
        MixtureLoader(tmp_path, seq_len=SEQ_LEN, batch_rows=ROWS)


def test_a_changed_index_is_refused_on_opening(tmp_path, make_shards):
    shards = make_shards(tmp_path, {"c00": [np.arange(50)]})
    with (shards.folder("c00") / "index.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(IntegrityError, match="expected hash"):
        MixtureLoader(shards.directory, seq_len=SEQ_LEN, batch_rows=ROWS)


def test_a_flipped_bit_in_a_shard_is_never_served(tmp_path, make_shards):
    shards = make_shards(tmp_path / "shards", {"c00": [np.arange(50)]})
    path = shards.packed("c00")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    loader = MixtureLoader(
        shards.directory, seq_len=SEQ_LEN, batch_rows=ROWS, cache_dir=tmp_path / "cache"
    )
    with pytest.raises(IntegrityError, match=r"shard\.00000\.mds\.zstd: expected"):
        next(loader)


# What was served.


def test_served_tokens_add_up(open_ranks, serve):
    ranks = open_ranks(2)
    serve(ranks, STEPS)
    for rank in ranks:
        assert list(rank.tokens_served) == rank.names
        assert sum(rank.tokens_served.values()) == STEPS * ROWS * SEQ_LEN


def test_epochs_are_rows_served_over_rows_that_there_are(open_ranks, serve, shards):
    (loader,) = ranks = open_ranks(1)
    serve(ranks, STEPS)
    for name, epochs in loader.epochs.items():
        rows = sum(shard.tokens // SEQ_LEN for shard in shards.indexes[name].shards)
        assert epochs == loader.tokens_served[name] / SEQ_LEN / rows
    assert loader.epochs["c03"] > 1


def test_a_cluster_is_gone_through_again_and_again(open_loader):
    loader = open_loader(weights={"c03": 1})
    for _ in range(10):
        next(loader)
    assert loader.epochs["c03"] == 10 * ROWS / 4
    assert loader.tokens_served == {"c00": 0, "c01": 0, "c02": 0, "c03": 10 * ROWS * SEQ_LEN}


# What packing leaves out.


@pytest.mark.parametrize(
    ("pack", "seq_len", "remedy"),
    [
        ("bos", 8, "use a larger seq_len, pack='bfd' or pack='concat'"),
        ("bfd", 200, "use a smaller seq_len"),
        ("concat", 8, ""),
    ],
)
def test_a_packing_that_leaves_out_much_is_told_with_the_remedy(
    tmp_path, make_shards, counted_documents, capsys, pack, seq_len, remedy
):
    shards = make_shards(tmp_path, counted_documents({"c00": [100] * 40}))
    options = {"seq_len": seq_len, "batch_rows": 8, "pack": pack, "world_size": 2}
    MixtureLoader(shards.directory, rank=1, **options)
    assert not capsys.readouterr().err
    loader = MixtureLoader(shards.directory, **options)
    said = capsys.readouterr().err
    assert (f"pack={pack!r} with seq_len={seq_len} leaves out" in said) == bool(remedy)
    assert remedy in said
    if pack == "bos":
        assert "leaves out 92% of the tokens in each epoch, 3,680 of 4,000" in said
        assert loader._epoch_rows["c00"] * seq_len == 320


# A part of each cluster.


@pytest.mark.parametrize("pack", ["concat", "bfd", "bos"])
def test_a_part_of_a_cluster_is_served_again_and_again(open_loader, pack):
    whole = open_loader(weights={"c00": 1}, pack=pack)
    loader = open_loader(weights={"c00": 1}, pack=pack, fraction=0.4)
    epoch = -(-whole._open_shards._sources[0].rows * 4 // 10)
    rows = [tuple(row) for _ in range(12) for row in next(loader)["input_ids"].tolist()]
    assert len(set(rows)) == epoch
    counts = [rows.count(row) for row in set(rows)]
    # Lanes own as many rows as each other, within one, and so come around about as often.
    assert max(counts) - min(counts) <= 3
    assert loader.epochs["c00"] == pytest.approx(12 * ROWS / epoch)


def test_a_part_is_of_few_shards(tmp_path, make_shards, counted_documents):
    shards = make_shards(tmp_path, counted_documents({"c00": [40] * 200}))
    cache = tmp_path / "cache"
    loader = MixtureLoader(
        shards.directory, seq_len=8, batch_rows=16, fraction=0.05, cache_dir=cache
    )
    for _ in range(10):
        next(loader)
    assert len(shards.indexes["c00"].shards) > 20
    assert len([*cache.rglob("*.mds")]) <= 2


@pytest.mark.parametrize("world_size", WORLD_SIZES[1:])
def test_a_part_is_the_same_on_any_number_of_ranks_and_from_every_step(
    open_ranks, serve, world_size
):
    expected = serve(open_ranks(1, fraction=0.3), STEPS)
    assert serve(open_ranks(world_size, fraction=0.3), STEPS) == expected
    for step in range(STEPS):
        (one,) = open_ranks(1, fraction=0.3)
        serve([one], step)
        state = json.loads(json.dumps(one.state_dict()))
        ranks = [rank.load_state_dict(state) for rank in open_ranks(world_size, fraction=0.3)]
        assert serve(ranks, STEPS) == expected[step:]


@pytest.mark.parametrize("part", [0, -0.5, 1.01, float("nan")])
def test_a_part_that_is_none_is_refused(open_loader, part):
    with pytest.raises(UsageError, match=r"above 0 and at most 1"):
        open_loader(fraction=part)


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("log", "weights_log", "weights.jsonl"),
        ("served", "ledger", "served.jsonl"),
        ("cache", "cache_dir", "cache"),
        ("part", "fraction", 0.5),
        ("segments", "max_segments", 2),
        ("exhausted", "on_exhausted", "stop"),
    ],
)
def test_a_parameter_is_taken_by_its_old_name_with_a_warning(shards, tmp_path, old, new, value):
    if isinstance(value, str) and old != "exhausted":
        value = tmp_path / value
    numbers = {"seq_len": SEQ_LEN, "batch_rows": ROWS, "fields": ["cu_seqlens"]}
    with pytest.warns(DeprecationWarning, match=f"MixtureLoader: {old} is called {new} now"):
        one = MixtureLoader(shards.directory, WEIGHTS, **numbers, **{old: value})
    two = MixtureLoader(shards.directory, WEIGHTS, **numbers, **{new: value})
    ours, theirs = next(one), next(two)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("old", "new"),
    [("part", "fraction"), ("served", "tokens_served"), ("exhausted", "on_exhausted")],
)
def test_an_attribute_is_read_by_its_old_name_with_a_warning(open_loader, old, new):
    loader = open_loader()
    with pytest.warns(DeprecationWarning, match=rf"MixtureLoader\.{old} is called {new} now"):
        assert getattr(loader, old) == getattr(loader, new)


def test_a_loader_says_what_it_is(open_loader, shards):
    loader = open_loader()
    next(loader)
    text = f"MixtureLoader(step=1, {len(loader.names)} clusters, {ROWS} rows of {SEQ_LEN} tokens"
    assert repr(loader) == f"{text} a batch, shards={str(shards.directory)!r})"

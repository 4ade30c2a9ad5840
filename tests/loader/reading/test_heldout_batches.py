"""Held-out text comes as batches that are packed as those of training, and ends."""

import pytest

from climbstream.loader import MixtureLoader
from climbstream.loader.core.errors import UsageError
from climbstream.loader.formats.heldout import read_heldout

SEQ_LEN = 16


@pytest.fixture(scope="module")
def directory(built):
    return built.directory


@pytest.fixture
def open_loader(directory):
    def open_(**given):
        return MixtureLoader(directory, **({"seq_len": SEQ_LEN, "batch_rows": 8} | given))

    return open_


def rows(batches):
    """Return cluster and tokens of each row."""
    return [
        (cluster, tuple(row))
        for batch in batches
        for cluster, row in zip(
            batch["cluster_ids"].tolist(), batch["input_ids"].tolist(), strict=True
        )
    ]


def tokens_by_cluster(loader, kept=lambda document: True):
    """Return the tokens of the held-out documents of each cluster, with their ends."""
    tokenizer, end = loader.shards.tokenizer(), loader.manifest.eos_id
    tokens = {name: [] for name in loader.names}
    for document in filter(kept, read_heldout(loader.shards.local)):
        tokens[document.cluster].append([*tokenizer.encode(document.text).ids, end])
    return tokens


@pytest.mark.parametrize("pack", ["concat", "bfd", "bos"])
def test_every_row_of_held_out_text_comes_once_and_again_when_asked_again(open_loader, pack):
    loader = open_loader(pack=pack)
    heldout = loader.heldout()
    first = rows(heldout)
    assert rows(heldout) == first
    assert len(first) * SEQ_LEN == heldout.tokens
    assert len([*heldout]) == len(heldout)
    assert {cluster for cluster, _ in first} == set(range(len(loader.names)))
    assert loader.step == 0


def test_a_row_holds_tokens_of_documents_of_its_cluster(open_loader):
    loader = open_loader()
    documents = {
        number: {token for document in theirs for token in document}
        for number, theirs in enumerate(tokens_by_cluster(loader).values())
    }
    heldout = rows(loader.heldout())
    assert all(set(tokens) <= documents[cluster] for cluster, tokens in heldout)
    # Less than a row of each cluster is over.
    for number, theirs in enumerate(tokens_by_cluster(loader).values()):
        served = sum(cluster == number for cluster, _ in heldout)
        assert served == sum(map(len, theirs)) // SEQ_LEN


def test_fields_are_those_of_training(open_loader):
    loader = open_loader(pack="bfd", fields=["labels", "position_ids", "cu_seqlens"])
    batch = next(iter(loader.heldout()))
    assert {name: tensor.dtype for name, tensor in batch.items()} == {
        name: tensor.dtype for name, tensor in next(loader).items()
    }
    inside = batch["labels"] != -100
    assert (batch["labels"][inside] == batch["input_ids"][inside]).all()


def test_one_cluster_or_label_may_be_asked_for(open_loader):
    loader = open_loader()
    name = loader.names[2]
    assert {cluster for cluster, _ in rows(loader.heldout(name))} == {2}
    sea = tokens_by_cluster(loader, lambda document: document.label == "sea")
    known = {token for documents in sea.values() for document in documents for token in document}
    by_label = rows(loader.heldout(label="sea"))
    assert {token for _, tokens in by_label for token in tokens} <= known
    assert rows(loader.heldout("sea")) == by_label


def test_the_same_rows_are_chosen_for_every_seed_and_mixture_and_evenly(open_loader):
    one = open_loader().heldout(max_tokens=20 * SEQ_LEN)
    other = open_loader(seed=7, weights={"c00": 1}).heldout(max_tokens=20 * SEQ_LEN)
    assert rows(one) == rows(other)
    counts = [cluster for cluster, _ in rows(one)]
    assert len(counts) == 20
    assert all(counts.count(number) in (3, 4) for number in range(6))


def test_ranks_share_the_rows_evenly(open_loader):
    world = [open_loader(rank=rank, world_size=4).heldout() for rank in range(4)]
    assert len({(len(rank), rank.tokens) for rank in world}) == 1
    assert [batch["input_ids"].shape[0] for batch in world[0]][:-1] == [2] * (len(world[0]) - 1)
    alone = rows(open_loader().heldout())
    shared = [row for rank in world for row in rows(rank)]
    assert sorted(shared) == sorted(alone[: len(shared)])
    assert len(alone) - len(shared) < 4


def test_what_is_not_there_is_refused_with_what_is(open_loader, directory):
    loader = open_loader()
    with pytest.raises(UsageError, match=r"no held-out document has cluster or label 'beach'; .*"):
        loader.heldout("beach")
    with pytest.raises(UsageError, match=r"clusters c00, c01, .* labels garden, "):
        loader.heldout(label="beach")
    with pytest.raises(
        UsageError, match="max_tokens is 15; it must be 16 or more: a row of 16 tokens"
    ):
        loader.heldout(max_tokens=15)


def test_text_of_less_than_a_row_is_refused_with_its_size(open_loader):
    with pytest.raises(UsageError, match=r"too little for a row .* take a smaller seq_len"):
        open_loader(seq_len=2000, weights={"c00": 1}).heldout(max_tokens=2000)


def test_shards_without_held_out_text_say_how_to_build_them(
    tmp_path, make_shards, counted_documents
):
    shards = make_shards(tmp_path, counted_documents({"c00": [64] * 8}))
    loader = MixtureLoader(shards.directory, seq_len=8, batch_rows=8)
    with pytest.raises(UsageError, match="no held-out text; build it with --holdout"):
        loader.heldout()


def test_held_out_text_behind_a_url_gives_the_batches_that_it_gives_in_a_folder(
    open_loader, directory, tmp_path, serve
):
    loader = MixtureLoader(serve(directory).url, seq_len=16, batch_rows=8, cache_dir=tmp_path)
    assert rows(loader.heldout()) == rows(open_loader().heldout())
    assert len(rows(loader.heldout(max_tokens=64))) <= 4


def test_a_batch_is_read_back_as_text_by_one_call(open_loader):
    loader = open_loader()
    batch = next(loader)
    texts = loader.decode(batch)
    assert len(texts) == 8
    assert texts == loader.decode(batch["input_ids"])
    assert loader.decode(batch["input_ids"][3]) == texts[3:4]
    encoded = loader.shards.tokenizer().encode(texts[0]).ids
    assert encoded == batch["input_ids"][0].tolist()

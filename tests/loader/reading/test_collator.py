"""Batches: tokens, and where documents begin in them."""

import numpy as np
import pytest
import torch

from climbstream.loader import MixtureLoader
from climbstream.loader.core.errors import UsageError
from climbstream.loader.reading.gather import IGNORED
from climbstream.loader.reading.packing import PACKS

SEQ_LEN = 8
LENGTHS = {"c00": [3, 50, 7, 1, 1, 30, 8, 2, 5, 9] * 6, "c01": [40, 5, 6, 1, 12] * 8}
ALL = ("labels", "position_ids", "cu_seqlens")


@pytest.fixture(scope="module", params=["uint16", "uint32"])
def shards(request, tmp_path_factory, make_shards, counted_documents):
    """Every token occurs once, from 1 on; 0 is the padding."""
    documents = counted_documents(LENGTHS)
    documents = {name: [d + 1 for d in theirs] for name, theirs in documents.items()}
    folder = tmp_path_factory.mktemp("shards")
    return make_shards(folder, documents, dtype=request.param, shard_bytes=500)


@pytest.fixture
def open_loader(shards):
    def open_(**given):
        return MixtureLoader(shards.directory, **({"seq_len": SEQ_LEN, "batch_rows": 8} | given))

    return open_


def document_of(shards):
    """For each token its document, and where in it the token stands."""
    theirs = [d for name in shards.documents for d in shards.documents[name]]
    size = 1 + sum(map(len, theirs))
    number, place = np.full(size, -1), np.zeros(size, np.int64)
    for i, document in enumerate(theirs):
        number[document.astype(np.int64)], place[document.astype(np.int64)] = (
            i,
            range(len(document)),
        )
    return number, place


def pieces(row, number):
    """Lengths of what a row holds of each document, by hand; padding is none."""
    row = row[row > 0]
    ends = [i for i in range(1, len(row)) if number[row[i]] != number[row[i - 1]]]
    return np.diff([0, *ends, len(row)]).tolist() if len(row) else []


@pytest.mark.parametrize("pack", PACKS)
def test_fields_say_where_documents_begin(shards, open_loader, pack):
    number, _ = document_of(shards)
    loader = open_loader(pack=pack, fields=ALL)
    for _ in range(30):
        batch = {name: tensor.numpy() for name, tensor in next(loader).items()}
        bounds = batch["cu_seqlens"]
        assert bounds.dtype == np.int32
        assert len(bounds) == 8 * 64 + 1
        assert (np.diff(bounds) >= 0).all()
        for i, row in enumerate(batch["input_ids"]):
            sizes = pieces(row, number)
            lacking = SEQ_LEN - sum(sizes)
            begins = np.cumsum([0, *sizes])[:-1].tolist()
            expected = row.copy()
            expected[begins[1:]] = IGNORED
            expected[SEQ_LEN - lacking :] = IGNORED
            assert batch["labels"][i].tolist() == expected.tolist()
            positions = [t for size in [*sizes, lacking] for t in range(size)]
            assert batch["position_ids"][i].tolist() == positions
            inside = bounds[(bounds >= i * SEQ_LEN) & (bounds < (i + 1) * SEQ_LEN)] - i * SEQ_LEN
            ends = {*begins, SEQ_LEN - lacking} if lacking else {*begins}
            assert {*inside.tolist()} == ends
        assert bounds[-1] == 8 * SEQ_LEN


@pytest.mark.parametrize("pack", PACKS)
def test_tokens_are_served_as_they_follow_each_other_in_their_documents(shards, open_loader, pack):
    number, place = document_of(shards)
    loader = open_loader(pack=pack)
    for _ in range(30):
        for row in next(loader)["input_ids"].numpy():
            row = row[row > 0]
            same = number[row[1:]] == number[row[:-1]]
            assert (place[row[1:]] == place[row[:-1]] + 1)[same].all()
            if pack == "bos":
                begins = np.concatenate([[True], ~same])[: len(row)]
                assert (place[row[begins]] == 0).all()


@pytest.mark.parametrize("pack", ["concat", "bfd"])
def test_an_epoch_serves_every_token_but_less_than_a_row_of_each_shard(shards, open_loader, pack):
    loader = open_loader(pack=pack, weights={"c00": 1}, batch_rows=1, lanes=1)
    rows = sum(shard.tokens // SEQ_LEN for shard in shards.indexes["c00"].shards)
    tokens = torch.cat([next(loader)["input_ids"].flatten() for _ in range(rows)])
    assert loader.epochs["c00"] == 1
    assert len(tokens.unique()) == len(tokens) == rows * SEQ_LEN


def test_tokens_may_have_four_bytes(open_loader):
    wide, narrow = next(open_loader(fields=ALL)), next(open_loader(fields=ALL, dtype=torch.int32))
    assert {name: tensor.dtype for name, tensor in narrow.items()} == {
        "input_ids": torch.int32,
        "labels": torch.int32,
        "cluster_ids": torch.int64,
        "position_ids": torch.int64,
        "cu_seqlens": torch.int32,
    }
    for name in wide:
        assert torch.equal(wide[name], narrow[name].to(wide[name].dtype))


def test_documents_beyond_the_segments_are_joined_and_counted(shards, open_loader):
    number, _ = document_of(shards)
    loader = open_loader(fields=["cu_seqlens"], max_segments=2)
    joined = 0
    for _ in range(20):
        batch = next(loader)
        bounds = batch["cu_seqlens"].tolist()
        assert len(bounds) == 8 * 2 + 1
        assert bounds[::2] == list(range(0, 9 * SEQ_LEN, SEQ_LEN))
        joined += sum(max(len(pieces(row, number)) - 2, 0) for row in batch["input_ids"].numpy())
    assert loader.joined == joined > 0


def test_tokens_of_every_value_are_read_unchanged(tmp_path, make_shards):
    for dtype, top in (("uint16", (1 << 16) - 1), ("uint32", (1 << 32) - 1)):
        document = np.array([0, 1, 255, 256, top - 1, top, top // 2, 1 << 15], dtype)
        made = make_shards(tmp_path / dtype, {"c00": [document]}, dtype=dtype)
        batch = next(MixtureLoader(made.directory, seq_len=8, batch_rows=1, lanes=1))
        assert batch["input_ids"].tolist() == [document.tolist()]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"fields": ["masks"]},
            "no field masks; beside input_ids and cluster_ids it may have labels",
        ),
        ({"dtype": torch.float32}, r"torch\.int64 or torch\.int32, not torch\.float32"),
        ({"max_segments": 0}, "max_segments is 0; it must be 1 or more"),
        ({"pack": "best"}, "no packing 'best'; choose one of concat, bfd, bos"),
        ({"on_exhausted": "repeat"}, "'repeat'; choose one of renormalise, stop, error"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(open_loader, given, message):
    with pytest.raises(UsageError, match=message):
        open_loader(**given)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_pinned_memory_without_a_gpu_is_refused(open_loader):
    with pytest.raises(UsageError, match="pin_memory needs a GPU, and this machine has none"):
        open_loader(pin_memory=True)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("hold", ["batch", "row", "array"])
def test_a_batch_that_somebody_holds_is_not_written_over(open_loader, hold, dtype):
    take = {
        "batch": lambda batch: batch,
        "row": lambda batch: batch["input_ids"][-1],
        "array": lambda batch: batch["input_ids"].numpy()[2:4],
    }[hold]
    loader, held, copies = open_loader(dtype=dtype), [], []
    for _ in range(20):
        batch = next(loader)
        held.append(take(batch))
        copies.append(batch["input_ids"].clone())
        del batch
    for kept, copy in zip(held, copies, strict=True):
        want = take({"input_ids": copy})
        kept, want = (x["input_ids"] if hold == "batch" else x for x in (kept, want))
        assert (kept == want).all()


def test_the_memory_of_batches_that_nobody_holds_is_used_again(open_loader):
    loader = open_loader()
    places = set()
    for _ in range(50):
        places.add(next(loader)["input_ids"].data_ptr())
    assert len(places) <= 2

"""Selection: what becomes of each document, so that none is lost without a reason."""

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serial_pool import SerialPool

from climbstream.builder.corpus.text_hashes import hash_texts
from climbstream.builder.selection import exchange
from climbstream.builder.selection.dedup import sign_texts
from climbstream.builder.selection.reasons import HELD_OUT, REASONS
from climbstream.builder.selection.stages import identify, select_documents
from climbstream.builder.settings import BuildSettings
from climbstream.loader.core.errors import InvalidDataError

MICROS = 4
CENTROIDS = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 0, 1], [0, 0.6, 0.8]], np.float32)
GOOD, BAD = (4.0, 4.0, 4.0, 4.0), (0.1, 4.0, 4.0, 4.0)


@dataclass
class FakeUnit:
    """A unit that was looked at already."""

    arrays: dict
    source = "00000"

    def columns(self, *names):
        """Return the names of its documents."""
        return pa.table({name: [f"{name} {i}" for i in range(len(self))] for name in names})

    def __len__(self):
        return len(self.arrays["micro"])

    def column(self, name):
        """Return the names of its documents."""
        return self.columns(name)[name].to_pylist()

    def read(self, name, *, mapped=False):  # noqa: ARG002
        """Return what a stage found."""
        return self.arrays[name]

    def has(self, name):
        """Whether a stage found it."""
        return name in self.arrays

    def write(self, name, array):
        """Keep what a stage found."""
        self.arrays[name] = array


def units_of(documents, size=3):
    """Cut (id, text, micro-cluster, good?) into units of ``size``."""
    parts = [documents[i : i + size] for i in range(0, len(documents), size)]
    return [
        FakeUnit(
            {
                "id_hashes": hash_texts([name for name, *_ in part]),
                "text_hashes": hash_texts([text for _, text, *_ in part]),
                "signatures": sign_texts([text for _, text, *_ in part]),
                "alike": np.full(len(part), 0.9, np.float32),
                "micro": np.array([micro for *_, micro, _ in part], np.int32),
                "scores": np.array([GOOD if good else BAD for *_, good in part], np.float32),
                "languages": np.array([("en", "Latn")] * len(part), "U4"),
                "sizes": np.array([len(text) for _, text, *_ in part], np.int64),
            }
        )
        for part in parts
    ]


def decide_on(documents, **given):
    """Decide; give the map, and what became of all documents in their order."""
    given = {"clusters": 2, "min_cluster_score": {}, "min_document_score": {}, **given}
    units = units_of(documents)
    settings = BuildSettings(**given)
    with tempfile.TemporaryDirectory() as folder:
        selection = identify(SerialPool(), units, Path(folder), settings)
        clusters, selection = select_documents(selection, CENTROIDS, settings)
    why = np.array(REASONS)[np.concatenate([unit.read("why") for unit in units])]
    cluster = clusters.cluster[np.concatenate([unit.read("micro") for unit in units])]
    written = np.concatenate([unit.read("clusters") for unit in units])
    np.testing.assert_array_equal(written, np.where(why == "", cluster, -1))
    sizes = np.concatenate([unit.read("sizes") for unit in units])
    whole = SimpleNamespace(
        why=why, stays=why == "", cluster=cluster, sizes=sizes, stages=selection.stages
    )
    return clusters, whole


def corpus(count=40):
    return [(f"id {i}", f"text {i}", i % MICROS, True) for i in range(count)]


def test_without_a_reason_all_stay():
    _, selection = decide_on(corpus())
    assert selection.stays.all()
    assert (selection.cluster >= 0).all()


def test_an_identifier_that_was_seen_before_is_dropped():
    _, selection = decide_on([*corpus(), ("id 3", "another text", 0, True)])
    assert selection.why[-1] == "identifier seen before"
    assert selection.stays[:-1].all()


def test_an_identifier_stands_for_one_document_of_its_source_of_all_or_of_any(tmp_path, serial):
    units = units_of([(f"id {i % 20}", f"text {i}", i % MICROS, True) for i in range(40)], size=10)
    for number, unit in enumerate(units):
        unit.source = f"{number // 2:05d}"
    dropped = {}
    for ids in ("source", "global", "none"):
        identify(serial, units, tmp_path, BuildSettings(ids=ids))
        dropped[ids] = sum(int((unit.read("why") > 0).sum()) for unit in units)
    assert dropped == {"source": 0, "global": 20, "none": 0}


def test_a_text_that_was_seen_before_is_dropped_unless_copies_are_kept():
    documents = [*corpus(), ("another id", "text 3", 3, True)]
    assert decide_on(documents)[1].why[-1] == "text seen before"
    assert decide_on(documents, keep_duplicates=True)[1].stays.all()


def test_a_text_whose_first_copy_was_dropped_for_its_identifier_stays():
    documents = [*corpus(), ("id 3", "a new text", 0, True), ("a new id", "a new text", 0, True)]
    assert decide_on(documents)[1].why[-2:].tolist() == ["identifier seen before", ""]


def test_a_poor_document_is_dropped():
    _, selection = decide_on(
        [*corpus(), ("bad", "bad", 0, False)], min_document_score={"overall": 0.3}
    )
    assert selection.why[-1] == "low overall score"


def test_a_poor_micro_cluster_is_dropped_with_its_good_documents():
    documents = corpus() + [(f"bad {i}", f"bad {i}", 2, False) for i in range(90)]
    clusters, selection = decide_on(documents, min_cluster_score={"overall": 1.5})
    assert list(clusters.why) == [2]
    assert {*selection.why[[i for i, d in enumerate(documents) if d[2] == 2]]} == {"pruned cluster"}
    assert (selection.cluster[selection.why == "pruned cluster"] < 0).all()


def test_copies_do_not_count_in_the_mean_of_a_micro_cluster():
    documents = corpus() + [(f"bad {i}", "the same bad text", 2, False) for i in range(90)]
    clusters, _ = decide_on(documents, min_cluster_score={"overall": 1.5})
    assert clusters.why == {}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_part_that_is_asked_for_is_held_out(share):
    _, selection = decide_on(corpus(2000), holdout=share)
    assert (selection.why == HELD_OUT).mean() == pytest.approx(share, abs=0.04)


def test_another_seed_holds_out_others_and_a_larger_part_the_same_and_more():
    few, more, other = (
        decide_on(corpus(500), holdout=share, seed=seed)[1].why == HELD_OUT
        for share, seed in ((0.2, 17), (0.4, 17), (0.2, 18))
    )
    assert more[few].all()
    assert (few != other).any()


def test_copies_are_held_out_together():
    documents = corpus(400)
    documents += [(f"copy of {name}", *rest) for name, *rest in documents]
    _, selection = decide_on(documents, holdout=0.3, keep_duplicates=True)
    held = selection.why == HELD_OUT
    np.testing.assert_array_equal(held[:400], held[400:])


def near_copies(count):
    """Documents, and a near copy of each, which differs in its last word."""
    words = ["".join(random.Random(i).choices("abcdefgh", k=6)) for i in range(40 * count)]
    texts = [" ".join(words[40 * i : 40 * i + 40]) for i in range(count)]
    documents = [
        (f"id {i}", f"{text} and its end", i % MICROS, True) for i, text in enumerate(texts)
    ]
    return documents + [
        (f"copy of id {i}", f"{text} and", i % MICROS, True) for i, text in enumerate(texts)
    ]


@pytest.mark.parametrize("blocks", ["one block", "many blocks"])
def test_a_near_copy_that_stays_is_held_out_with_its_original(blocks, monkeypatch):
    if blocks == "many blocks":
        monkeypatch.setattr(exchange, "FEWEST", 50)
    documents = near_copies(60)
    every_name = [f"id {i}" for i in range(3)]  # a unit of three documents has these names
    for setting in ({"keep_duplicates": True}, {"keep_ids": every_name}):
        held = decide_on(documents, holdout=0.3, **setting)[1].why == HELD_OUT
        np.testing.assert_array_equal(held[:60], held[60:])
        assert 5 < held[:60].sum() < 35


def test_a_held_out_document_is_of_a_cluster_that_has_documents():
    clusters, selection = decide_on(corpus(12), clusters=MICROS, holdout=0.7, seed=8)
    assert len({*np.flatnonzero(selection.stays) % MICROS}) < MICROS, "no micro-cluster was emptied"
    names = set(selection.cluster[selection.stays].tolist())
    assert names == set(range(clusters.count))
    assert set(selection.cluster[selection.why == HELD_OUT].tolist()) <= names


def test_nothing_left_is_refused():
    with pytest.raises(InvalidDataError, match="left no document"):
        decide_on([("a", "a", 0, False), ("b", "b", 1, False)], min_cluster_score={"overall": 1})


documents = st.lists(
    st.tuples(
        st.sampled_from([f"id {i}" for i in range(20)]),
        st.sampled_from([f"text {i}" for i in range(20)]),
        st.integers(0, MICROS - 1),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60)
@given(documents, st.sampled_from([0.0, 0.3]), st.booleans(), st.integers(0, 1000))
def test_every_stage_gives_what_it_got_but_what_it_dropped_by_reason(
    documents, holdout, keep_duplicates, seed
):
    try:
        clusters, selection = decide_on(
            documents,
            holdout=holdout,
            keep_duplicates=keep_duplicates,
            seed=seed,
            min_cluster_score={"overall": 1.0},
            min_document_score={"overall": 0.3},
        )
    except InvalidDataError:
        return  # nothing was left, or all in one cluster
    size = {"documents": len(documents), "bytes": int(selection.sizes.sum())}
    for stage in selection.stages:
        assert stage["in"] == size
        size = stage["out"]
        for unit in ("documents", "bytes"):
            lost = sum(dropped[unit] for dropped in stage["dropped"].values())
            assert stage["in"][unit] == stage["out"][unit] + lost
    assert size["documents"] == selection.stays.sum()
    reasons = {}
    for stage in selection.stages:
        reasons |= {why: dropped["documents"] for why, dropped in stage["dropped"].items()}
    assert reasons == {why: (selection.why == why).sum() for why in {*selection.why} - {""}}
    stays = [document for document, here in zip(documents, selection.stays, strict=True) if here]
    assert len({name for name, *_ in stays}) == len(stays)
    if not keep_duplicates:
        assert len({text for _, text, *_ in stays}) == len(stays)
    assert set(selection.cluster[selection.stays].tolist()) == set(range(clusters.count))

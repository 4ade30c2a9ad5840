"""Partitions of any size make the same directory, and a build keeps the size that it began with."""

import json

import pytest

from climbstream.builder import BuildSettings, pipeline
from climbstream.builder.corpus import ingest, spans
from climbstream.builder.writers import catalogue_parts, shards
from climbstream.loader.core.errors import UsageError

SETTINGS = BuildSettings(
    clusters=3,
    micro_clusters=9,
    vocab_size=400,
    min_cluster_score={},
    min_document_score={"overall": 1.0},
    holdout=0.1,
    tiers=2,
)
USUAL = 3
"""Row groups of a slice of the catalogue."""


@pytest.fixture(scope="module")
def build(tmp_path_factory, make_records, write_jsonl, serial, all_bytes):
    """Return a function that builds with partitions of some row groups, and gives all bytes."""
    folder = tmp_path_factory.mktemp("sizes")
    records = make_records(each=40)
    for record in records[::11]:  # near copies of others, in other partitions
        text = records[0]["text"] + " and more"
        records.append({**record, "id": record["id"] + "-copy", "text": text})
    records += [{**record, "id": record["id"] + "-again"} for record in records[1::7]]
    sources = [
        str(write_jsonl(folder / f"{n}.jsonl", part))
        for n, part in enumerate((records[:150], records[150:]))
    ]

    def run(groups):
        out = folder / f"shards-{groups}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline, "open_engine", lambda *_, **__: serial)
            patch.setattr(ingest, "UNIT_BYTES", 5_000)
            patch.setattr(spans, "SPAN_BYTES", 60_000)
            patch.setattr(shards, "SHARD_BYTES", 4_000)
            patch.setattr(catalogue_parts, "PART_BYTES", 20_000)
            patch.setattr(catalogue_parts, "_GROUP_BYTES", 10_000)
            patch.setattr(ingest, "_fixed_groups", lambda *_: groups)
            for module in (ingest, pipeline):
                patch.setattr(module, "usual_groups", lambda _: USUAL)
            pipeline.build(sources, out, SETTINGS)
        return all_bytes(out)

    return run


@pytest.fixture(scope="module")
def usual(build):
    return build(USUAL)


@pytest.mark.parametrize("groups", [1, 2, 5, 1000])
def test_the_bytes_do_not_depend_on_the_size_of_partitions(build, usual, groups):
    found = build(groups)
    assert sorted(found) == sorted(usual)
    assert [name for name in usual if found[name] != usual[name]] == []
    assert sum(name.startswith("documents/") for name in usual) > 2


def test_a_build_that_goes_on_keeps_its_partitions(tmp_path, write_jsonl, make_records, caplog):
    source = str(write_jsonl(tmp_path / "a.jsonl", make_records(each=10)))
    settings = BuildSettings(clusters=2, micro_clusters=6, min_cluster_score={})
    pipeline.dry_run([source], tmp_path / "out", settings, workers=1, partition_mib=8)
    note = tmp_path / "out" / ".build" / "units" / "partitions.json"
    assert json.loads(note.read_text()) == {"row_groups": 2}
    pipeline.build([source], tmp_path / "out", settings, workers=1, partition_mib=64)
    assert (
        "partitions have 8 MiB of text, because this work was begun with this size" in caplog.text
    )


@pytest.mark.parametrize("mib", [-1, 3, 4097])
def test_a_size_of_partitions_out_of_range_is_refused(mib, tmp_path):
    with pytest.raises(UsageError, match=f"partition_mib is {mib}; it must be from 4 to 4,096"):
        ingest.read_corpus(None, [], tmp_path, SETTINGS, partition_mib=mib)

"""What is kept of a document between the stages of a build."""

from typing import get_args

from climbstream.builder import BuildSettings, dry_run, pipeline
from climbstream.builder.corpus.partition import ArrayName, Partition

ARRAYS = {
    *("sizes", "id_hashes", "languages", "scores", "text_hashes", "signatures", "alike"),
    *("micro", "why", "first", "original", "copies", "clusters"),
}
"""Each of these is read by a later stage."""


def test_only_arrays_that_a_later_stage_reads_are_kept(
    tmp_path, monkeypatch, make_records, write_jsonl, serial
):
    monkeypatch.setattr(pipeline, "open_engine", lambda *_, **__: serial)
    source = write_jsonl(tmp_path / "topics.jsonl", make_records(each=10))
    settings = BuildSettings(clusters=2, micro_clusters=6, min_cluster_score={})
    dry_run([str(source)], tmp_path / "out", settings)
    [partition] = (tmp_path / "out" / ".build" / "units").glob("00000-*")
    assert {name for name in get_args(ArrayName) if Partition(partition).has(name)} == ARRAYS

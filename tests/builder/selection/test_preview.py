"""A dry run says what would be left out, and the build goes on from there."""

import pytest

from climbstream.builder.pipeline import build, dry_run
from climbstream.builder.selection.preview import preview_text
from climbstream.builder.settings import BuildSettings
from climbstream.loader.core.errors import UsageError


def test_a_dry_run_says_what_falls_and_the_build_then_does_so(tmp_path, make_records, write_jsonl):
    records = make_records(each=10)
    junk = {"id": "junk", "text": "1 2 3 4 5 6 7 8 9 " * 40, "label": "", "license": ""}
    again = {**records[0], "id": "again"}
    source = write_jsonl(tmp_path / "topics.jsonl", [*records, junk, again])
    out = tmp_path / "out"
    settings = BuildSettings(
        clusters=2, micro_clusters=6, vocab_size=300, min_cluster_score={}, near_duplicates=None
    )
    found = dry_run([str(source)], out, settings, workers=1)
    assert not (out / "manifest.json").exists()
    assert [sample["id"] for sample in found["samples"]["text seen before"]] == ["again"]
    assert "junk" in {sample["id"] for sample in found["samples"]["low overall score"]}
    counts = [row["clusters"] for row in found["heights"]]
    assert counts == sorted(counts, reverse=True)
    text = preview_text(found)
    assert "deduplicate: 1 documents" in text
    assert "again: " in text
    manifest = build([str(source)], out, settings, workers=1)
    built = manifest.conservation[1 : 1 + len(found["stages"])]
    assert list(built) == found["stages"]
    with pytest.raises(UsageError, match="is built already; name a new folder"):
        dry_run([str(source)], out, settings, workers=1)

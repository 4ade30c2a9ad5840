"""A build without cells gives what builds gave before there were cells; the hashes are of then."""

import json
from hashlib import sha256

import pytest

from climbstream.builder import build
from climbstream.builder.settings import BuildSettings
from climbstream.loader import Manifest
from climbstream.loader.formats.manifest import cluster_folder

GOLDEN = {
    None: ("9dd29573c167e8e3", "d20c42f2afbfb29c"),
    3: ("d7d3983b4d018bba", "4359f61da837592d"),
}
"""By number of tiers: hashes of the shards, and of where each document is or why it was left out.
Those without tiers were computed by the version before cells, commit e0e66e1."""


def digest(data):
    return sha256(data).hexdigest()[:16]


@pytest.fixture(scope="module")
def source(tmp_path_factory, make_records, write_jsonl):
    """Records of six topics, some that are pruned, and copies."""
    records = make_records(each=20)
    records += [
        {"id": f"junk{i}", "text": f"{i} || 0 0 1 || ==== " * 40, "label": "junk"} for i in range(4)
    ]
    records += [{**record, "id": f"copy of {record['id']}"} for record in records[5:8]]
    return str(write_jsonl(tmp_path_factory.mktemp("golden") / "c.jsonl", records))


@pytest.mark.parametrize("tiers", GOLDEN)
def test_clusters_thresholds_and_shards_are_those_of_before(tiers, source, tmp_path, catalogue):
    settings = BuildSettings(
        clusters=3, micro_clusters=9, dims=16, vocab_size=400, **({"tiers": tiers} if tiers else {})
    )
    out = tmp_path / "shards"
    build([source], out, settings, workers=1)
    shards = [
        path.read_bytes()
        for name in Manifest.load(out).names
        for path in sorted(cluster_folder(out, name).glob("*.mds*"))
    ]
    rows = [[row[key] for key in ("id", "cluster", "why", "tokens")] for row in catalogue(out)]
    assert (digest(b"".join(shards)), digest(json.dumps(rows).encode())) == GOLDEN[tiers]

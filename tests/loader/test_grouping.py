"""Groupings: clusters put together are served as one, and no shard is written anew."""

import json
import os
import shutil
from dataclasses import replace

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.builder import export_shards
from climbstream.loader import Mixture, MixtureLoader
from climbstream.loader.audit.auditor import audit_run
from climbstream.loader.audit.explain import explain_step
from climbstream.loader.audit.replay import Replay
from climbstream.loader.cli.main import root, run
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.formats.cluster_tables import clusters_text
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.grouping import Grouping
from climbstream.loader.formats.manifest import Manifest
from climbstream.loader.formats.tokenizer import read_tokenizer
from climbstream.loader.tools.pull import pull
from climbstream.loader.tools.regroup import read_groups, regroup
from climbstream.loader.tools.verify import verify_directory

GROUPS = {"sea": ("c00", "c03"), "food": ("c01", "c02", "c04")}
LENGTHS = {"c00": [40] * 30, "c01": [24] * 30, "c02": [8] * 50, "c03": [16] * 9, "c04": [8] * 4}


@pytest.fixture
def shards(make_shards, counted_documents, tmp_path):
    return make_shards(tmp_path / "shards", counted_documents(LENGTHS))


@pytest.fixture
def folder(shards):
    return regroup(shards.directory, "topics", Grouping(GROUPS))


def load(place, cache, weights=None, **more):
    return MixtureLoader(place, weights, seq_len=8, batch_rows=8, cache_dir=cache, **more)


def rows(batch):
    return [row.tobytes() for row in batch["input_ids"].numpy()]


def test_groups_of_one_cluster_each_serve_what_the_clusters_do(shards, tmp_path):
    alone = regroup(shards.directory, "alone", Grouping({name: (name,) for name in LENGTHS}))
    one, other = load(shards.directory, tmp_path / "c"), load(alone, tmp_path / "c")
    for _ in range(100):
        first, second = next(one), next(other)
        assert rows(first) == rows(second)
        assert first["cluster_ids"].tolist() == second["cluster_ids"].tolist()


def test_each_group_gets_its_share_to_within_a_row_at_every_step(folder, tmp_path):
    loader = load(folder, tmp_path / "c", {"sea": 0.7, "food": 0.3})
    assert loader.names == ["sea", "food"]
    served = np.zeros(2)
    for step in range(1, 200):
        served += np.bincount(next(loader)["cluster_ids"], minlength=2)
        assert np.abs(served - 8 * step * np.array([0.7, 0.3])).max() <= 1


def test_an_epoch_of_a_group_is_an_epoch_of_each_of_its_clusters(shards, folder, tmp_path):
    loader = load(folder, tmp_path / "c", {"sea": 0, "food": 1})
    members = {
        name: MixtureLoader(
            shards.directory, {name: 1}, seq_len=8, batch_rows=1, lanes=1, cache_dir=tmp_path / "c"
        )
        for name in GROUPS["food"]
    }
    wanted = []
    for name, member in members.items():
        while member.epochs[name] < 1:
            wanted += rows(next(member))
    got = []
    while len(got) < len(wanted):
        got += rows(next(loader))
    assert len(wanted) % 8 == 0
    assert loader.epochs["food"] == 1
    tokens = [np.sort(np.frombuffer(b"".join(each), np.int64)) for each in (got, wanted)]
    assert tokens[0].tolist() == tokens[1].tolist()


def test_a_state_leads_back_at_every_step_and_fits_no_other_grouping(shards, folder, tmp_path):
    loader = load(folder, tmp_path / "c")
    states, batches = [], []
    for _ in range(25):
        states.append(loader.state_dict())
        batches.append(rows(next(loader)))
    for step, state in enumerate(states):
        again = load(folder, tmp_path / "c").load_state_dict(json.loads(json.dumps(state)))
        assert rows(next(again)) == batches[step]
    with pytest.raises(InvalidDataError):
        load(shards.directory, tmp_path / "c").load_state_dict(states[3])


def test_a_run_over_groups_can_be_audited(folder, tmp_path):
    loader = load(
        folder,
        tmp_path / "c",
        weights_log=tmp_path / "weights.jsonl",
        ledger=tmp_path / "served.jsonl",
    )
    for _ in range(20):
        next(loader)
    loader.flush()
    assert audit_run(Replay(tmp_path)).steps == 20
    assert {piece.cluster for piece in explain_step(Replay(tmp_path), 7)} <= GROUPS.keys()


def test_a_grouping_is_read_behind_a_url(shards, folder, serve, tmp_path):
    site = serve(shards.directory)
    far, near = load(f"{site.url}/groupings/topics", tmp_path / "far"), load(folder, tmp_path / "c")
    assert [rows(next(far)) for _ in range(30)] == [rows(next(near)) for _ in range(30)]
    assert f"{ShardDirectory(site.url + '/groupings/topics')}".endswith("/groupings/topics")


def test_documents_of_a_group_are_those_of_its_clusters(shards, folder):
    directory = ShardDirectory(folder)
    read = [d.tolist() for shard in directory.documents("sea") for d in shard]
    assert read == [d.tolist() for name in GROUPS["sea"] for d in shards.documents[name]]
    last = len(directory.index("sea").shards) - 1
    assert directory.locate("sea", last) == ("c03", len(shards.indexes["c03"].shards) - 1)
    assert directory.locate("sea", 0)[1] == 0


@given(st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_any_partition_of_the_clusters_is_a_grouping_and_comes_back_from_json(placed):
    groups: dict[str, tuple[str, ...]] = {}
    for name, group in zip(LENGTHS, placed, strict=True):
        groups[f"g{group}"] = (*groups.get(f"g{group}", ()), name)
    grouping = Grouping(groups)
    grouping.check([*LENGTHS])
    assert Grouping.from_json(json.loads(json.dumps(grouping.to_json()))) == grouping


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"sea": ("c00",)}, "c01, c02, c03, c04: in no group"),
        ({**GROUPS, "more": ("c00",)}, "c00: in several groups"),
        ({**GROUPS, "more": ("c09",)}, "c09: no clusters of these shards"),
        ({**GROUPS, "none": ()}, "none: groups without a cluster"),
        ({"../sea": tuple(LENGTHS)}, "cannot name a cluster"),
    ],
)
def test_a_grouping_that_does_not_fit_is_refused_with_what_is_wrong(shards, groups, said):
    with pytest.raises(InvalidDataError, match=said):
        regroup(shards.directory, "topics", Grouping(groups))
    assert not (shards.directory / "groupings").exists()


def test_a_grouping_is_never_changed_and_nothing_else_is(shards, folder):
    before = {path: path.read_bytes() for path in shards.directory.rglob("*") if path.is_file()}
    assert regroup(shards.directory, "topics", Grouping(GROUPS)) == folder
    with pytest.raises(UsageError, match="groups the clusters in another way"):
        regroup(shards.directory, "topics", Grouping({"all": tuple(LENGTHS)}))
    with pytest.raises(UsageError, match="regroup the directory that it groups"):
        regroup(folder, "again", Grouping({"all": ("sea", "food")}))
    with pytest.raises(InvalidDataError, match="cannot name a grouping"):
        regroup(shards.directory, "../out", Grouping(GROUPS))
    after = {path: path.read_bytes() for path in shards.directory.rglob("*") if path.is_file()}
    assert after == before


def test_what_needs_the_shards_themselves_says_so(folder, tmp_path):
    with pytest.raises(UsageError, match="is a grouping, and has no shards; verify"):
        verify_directory(folder)
    with pytest.raises(UsageError, match="is a grouping, and has no shards; pull"):
        pull(str(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_verify_finds_a_grouping_that_is_broken(shards, folder):
    before = verify_directory(shards.directory).faults
    (folder / "grouping.json").write_text('{"version": 1, "groups": {"a": ["c00"]}}')
    (fault,) = set(verify_directory(shards.directory).faults) - {*before}
    assert fault.startswith("grouping topics: ")
    assert "in no group" in fault


def test_the_command_writes_a_grouping_that_inspect_shows(shards, tmp_path, capsys):
    (tmp_path / "groups.json").write_text(json.dumps(GROUPS))
    asked = ["regroup", os.fspath(shards.directory), "--by", os.fspath(tmp_path / "groups.json")]
    assert run([*asked, "--name", "topics"]) == 0
    assert run(["inspect", os.fspath(shards.directory / "groupings" / "topics")]) == 0
    out = capsys.readouterr().out
    assert out.count("c01, c02, c04") == 2
    (tmp_path / "groups.json").write_text('{"sea": "c00"}')
    assert run([*asked, "--name", "other"]) == 3
    assert "groups.json: this is not a valid grouping: " in capsys.readouterr().err


def test_files_beside_the_shards_are_those_of_the_directory(built, tmp_path):
    names = Manifest.load(built.directory).names
    shutil.copytree(built.directory, tmp_path / "shards")
    folder = regroup(tmp_path / "shards", "all", Grouping({"all": tuple(names)}))
    grouped, shards = ShardDirectory(folder), ShardDirectory(tmp_path / "shards")
    assert grouped.tokenizer().to_str() == shards.tokenizer().to_str()
    assert read_tokenizer(folder).to_str() == shards.tokenizer().to_str()
    heldout = [replace(document, cluster="all") for document in shards.heldout()]
    assert [*grouped.heldout()] == heldout
    assert heldout
    export_shards(grouped, tmp_path / "out", "jsonl", text=True, workers=1)
    export_shards(shards, tmp_path / "same", "jsonl", text=True, workers=1)
    texts = [
        [
            json.loads(line)["text"]
            for path in sorted((tmp_path / out).glob("part_*.jsonl"))
            for line in path.read_text().splitlines()
        ]
        for out in ("out", "same")
    ]
    assert sorted(texts[0]) == sorted(texts[1]) != []


def test_a_mixture_of_groups_knows_its_shards(folder):
    manifest = Manifest.load(folder)
    assert manifest.misfit(Mixture({"sea": 1.0}, manifest.found_on)) == ""
    assert read_groups(folder / "grouping.json") == Grouping(GROUPS)


def test_a_grouping_is_named_beside_its_shards(shards, folder, tmp_path, capsys):
    place = str(shards.directory)
    assert run(["inspect", place, "--grouping", "topics", "--json"]) == 0
    named = json.loads(capsys.readouterr().out)
    assert run(["inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == named
    assert [cluster["name"] for cluster in named["clusters"]] == [*GROUPS]
    weights = {"sea": 0.7, "food": 0.3}
    one = load(folder, tmp_path / "c", weights)
    others = [
        load(directory, tmp_path / "c", weights, grouping="topics")
        for directory in (place, shards.directory, ShardDirectory(place))
    ]
    for _ in range(20):
        expected = rows(next(one))
        assert all(rows(next(other)) == expected for other in others)


def test_a_grouping_that_is_not_there_is_told_with_those_that_are(shards, capsys):
    place = str(shards.directory)
    assert run(["inspect", place, "--grouping", "topics"]) == 2
    assert f"{place} has no grouping 'topics'; it has none" in capsys.readouterr().err
    regroup(shards.directory, "topics", Grouping(GROUPS))
    with pytest.raises(UsageError, match="no grouping 'tiers'; it has topics"):
        load(place, None, grouping="tiers")


@pytest.mark.parametrize("command", ["inspect", "search", "train", "export"])
def test_what_reads_shards_takes_a_grouping(command):
    found = root.get_command(click.Context(root), command)
    assert "grouping" in {parameter.name for parameter in found.params}


def test_of_many_clusters_a_terminal_lists_the_largest_and_counts_the_others(shards, capsys):
    one = shards.manifest.clusters[0]
    many = [replace(one, name=f"c{n:03d}", tokens=100 + n) for n in range(1_000)]
    manifest = replace(shards.manifest, clusters=tuple(many))
    lines = clusters_text(manifest, []).splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == [f"c{n:03d}" for n in range(999, 959, -1)]
    rest = sum(cluster.tokens for cluster in many[:960]) / manifest.tokens
    assert lines[-1] == (
        f"40 of 1,000 are listed, the largest; the other 960 together have {rest:.1%}. "
        "climb inspect --json lists all."
    )
    few = clusters_text(replace(manifest, clusters=tuple(many[:40])), []).splitlines()
    assert [line.split()[0] for line in few[1:]] == [f"c{n:03d}" for n in range(40)]

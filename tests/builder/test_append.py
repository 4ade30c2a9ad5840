"""Append: new documents join the clusters that are there, and what is there stays as it was."""

import random
import re
import shutil
from collections import Counter

import numpy as np
import pytest

from climbstream.builder import append, appender
from climbstream.builder.pipeline import build
from climbstream.builder.publisher.repo_files import collect
from climbstream.builder.selection.few import LEAST
from climbstream.builder.settings import BuildSettings
from climbstream.builder.staging import finish_commit
from climbstream.loader import Manifest, MixtureLoader
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import read_json
from climbstream.loader.formats.clusters import load_clusters
from climbstream.loader.formats.heldout import read_heldout
from climbstream.loader.formats.manifest import COLUMNS, NEXT_FILES, load_index
from climbstream.loader.tools.verify import verify_directory

SETTINGS = {
    "clusters": 3,
    "micro_clusters": 9,
    "vocab_size": 400,
    "holdout": 0.1,
    "min_cluster_score": {},
    "ids": "global",
}


@pytest.fixture(scope="module")
def records(make_records):
    """Records to build of, and records to add: two of those are known by text, one by id."""
    first, more = make_records(each=20), make_records(each=14, seed=5)
    for record in more:
        record["id"] = f"new {record['id']}"
    more += [{**first[0], "id": "a copy"}, {**first[5], "id": "another copy"}]
    more += [{**more[0], "id": first[7]["id"], "text": more[0]["text"] + " and more"}]
    return first, more


def pairs_in(out):
    """Identifiers of the pairs in the report: near copy and original, by title of the section."""
    pairs = {}
    for part in (out / "report.html").read_text().split("<h2")[1:]:
        title = re.sub("<.*", "", part.partition(">")[2].replace("<span>", ""))
        for sides in re.findall(r'<div class="sides">(.*?)</div>', part):
            pairs.setdefault(title, set()).add(tuple(re.findall("<b>(.*?)</b>", sides)))
    return pairs


@pytest.fixture(scope="module")
def sources(tmp_path_factory, records, write_jsonl):
    folder = tmp_path_factory.mktemp("in")
    return [
        str(write_jsonl(folder / f"{name}.jsonl", part))
        for name, part in zip(("first", "more"), records, strict=True)
    ]


@pytest.fixture(scope="module")
def before(tmp_path_factory, sources, engines):
    """A directory before anything was added."""
    out = tmp_path_factory.mktemp("before") / "shards"
    build(sources[:1], out, BuildSettings(**SETTINGS))
    return out


@pytest.fixture(scope="module")
def after(tmp_path_factory, before, sources, engines):
    """A copy of it, and what was added to it."""
    out = shutil.copytree(before, tmp_path_factory.mktemp("after") / "shards")
    append(sources[1:], out)
    return out


def test_a_directory_that_has_grown_is_whole(after):
    assert verify_directory(after).faults == []
    assert {path.name for path in after.rglob("*") if path.name.startswith(".")} == set()
    assert not list(after.rglob("*next*"))


def test_every_new_document_is_listed_once_and_known_ones_are_dropped(
    after, before, catalogue, records
):
    old, rows = catalogue(before), catalogue(after)
    assert rows[: len(old)] == old
    fresh = rows[len(old) :]
    assert [row["id"] for row in fresh] == [record["id"] for record in records[1]]
    assert [row["why"] for row in fresh[-3:]] == [
        "text seen before",
        "text seen before",
        "identifier seen before",
    ]
    assert all(row["why"] in (None, "held out") for row in fresh[:-3])


def test_shards_that_were_there_are_untouched_and_new_ones_come_after(before, after):
    old, new = Manifest.load(before), Manifest.load(after)
    assert old.names == new.names
    for was, now in zip(old.clusters, new.clusters, strict=True):
        first, second = load_index(before, old, was).shards, load_index(after, new, now).shards
        assert second[: len(first)] == tuple(first)
        for shard in first:
            name = f"clusters/{was.name}/{shard.zip_basename}"
            assert (before / name).read_bytes() == (after / name).read_bytes()
    assert new.tokens > old.tokens


def test_a_directory_of_before_shards_columns_gets_the_file_by_an_append(
    before, after, tmp_path, sources, engines
):
    out = shutil.copytree(before, tmp_path / "shards")
    manifest = Manifest.load(out)
    manifest.files.pop(COLUMNS)
    manifest.save(out)
    (out / COLUMNS).unlink()
    append(sources[1:], out)
    assert (out / COLUMNS).read_bytes() == (after / COLUMNS).read_bytes()
    assert Manifest.load(out).files == Manifest.load(after).files
    assert verify_directory(out).faults == []


def test_a_new_document_is_in_the_cluster_of_its_micro_cluster(after, catalogue, read_documents):
    cluster_of = read_json(after / "clusters.json")["map"]["cluster"]
    names = Manifest.load(after).names
    documents = read_documents(after)
    rows = [row for row in catalogue(after) if row["why"] is None]
    assert len(rows) == len(documents)
    for row in rows:
        assert names[cluster_of[row["micro"]]] == row["cluster"]
        assert len(documents[row["cluster"], row["shard"], row["row"]]) == row["tokens"]


def test_the_model_of_the_first_build_stays(before, after):
    for name in ("model.npz", "centroids.npy", "tokenizer.json"):
        assert (before / name).read_bytes() == (after / name).read_bytes()


def test_what_describes_the_directory_counts_old_and_new(after, catalogue):
    rows = [row for row in catalogue(after) if row["why"] is None]
    for info in load_clusters(after):
        mine = [row for row in rows if row["cluster"] == info.name]
        assert (info.documents, info.tokens, info.bytes) == (
            len(mine),
            sum(row["tokens"] for row in mine),
            sum(row["bytes"] for row in mine),
        )
        mean = np.mean([row["overall"] for row in mine])
        assert info.quality["overall"] == pytest.approx(mean, abs=2e-3)
    held = [document.id for document in read_heldout(after)]
    assert held == [row["id"] for row in catalogue(after) if row["why"] == "held out"]


def test_the_append_is_recorded(before, after):
    (record,) = Manifest.load(after).provenance["appended"]
    assert record["before"] == Manifest.load(before).fingerprint
    assert list(record["sources"]) == ["more.jsonl"]
    assert record["tokens"] == Manifest.load(after).tokens - Manifest.load(before).tokens
    assert "Appends</h2>" in (after / "report.html").read_text()
    assert "Appends</h2>" not in (before / "report.html").read_text()


def test_to_append_the_same_again_changes_nothing(after, sources, engines, capsys, all_bytes):
    bytes_before = all_bytes(after)
    append(sources[1:], after)
    assert "have been appended" in capsys.readouterr().err
    build(sources[:1], after, BuildSettings(**SETTINGS))
    assert "is built already" in capsys.readouterr().err
    assert all_bytes(after) == bytes_before


def test_documents_may_be_appended_again_and_again(
    after, tmp_path, write_jsonl, make_records, engines
):
    out = shutil.copytree(after, tmp_path / "shards")
    records = [{**r, "id": f"third {r['id']}"} for r in make_records(each=3, seed=8)]
    append([str(write_jsonl(tmp_path / "third.jsonl", records))], out)
    assert verify_directory(out).faults == []
    assert len(Manifest.load(out).provenance["appended"]) == 2
    assert len({document.id for document in read_heldout(out)}) >= len([*read_heldout(after)])


def test_sources_without_a_new_document_add_none(before, tmp_path, sources, engines):
    out = shutil.copytree(before, tmp_path / "shards")
    copy = shutil.copy(sources[0], tmp_path / "again.jsonl")
    append([str(copy)], out)
    assert verify_directory(out).faults == []
    assert Manifest.load(out).fingerprint == Manifest.load(before).fingerprint


class KilledError(Exception):
    """Stands for the end of the process."""


STEPS = (
    (appender, "look_at"),
    (appender, "tokenize_all"),
    (appender, "write_clusters"),
    (appender, "write_catalogue"),
    (appender, "save_clusters"),
    (appender, "write_report"),
    (Manifest, "save"),
)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("where", "name"), STEPS, ids=[name for _, name in STEPS])
def test_an_append_that_is_killed_leaves_the_directory_valid_and_ends_with_the_same_bytes(
    before, after, tmp_path, sources, engines, monkeypatch, all_bytes, when, where, name
):
    out = shutil.copytree(before, tmp_path / "shards")
    whole = getattr(where, name)

    def killed(*args, **given):
        if when == "after":
            whole(*args, **given)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(where, name, killed)
        with pytest.raises(KilledError):
            append(sources[1:], out)
    committed = (where, when) == (Manifest, "after")
    manifest = Manifest.load(out)
    assert manifest == Manifest.load(after if committed else before)
    for cluster in manifest.clusters:
        load_index(out, manifest, cluster)
    next(MixtureLoader(out, seq_len=32, batch_rows=12, cache_dir=tmp_path / "cache"))
    assert verify_directory(out).faults == []
    append(sources[1:], out)
    assert all_bytes(out) == all_bytes(after)


def test_an_append_that_is_killed_while_files_are_put_into_place_is_ended_by_any_build(
    before, after, tmp_path, sources, engines, monkeypatch, all_bytes
):
    out = shutil.copytree(before, tmp_path / "shards")
    with monkeypatch.context() as patch:
        patch.setattr(appender, "finish_commit", lambda out: (out / NEXT_FILES).exists() and kill())
        with pytest.raises(KilledError):
            append(sources[1:], out)
    (out / "clusters" / "c01" / "index.next.json").replace(out / "clusters" / "c01" / "index.json")
    assert verify_directory(out).faults == []
    build(sources[:1], out, BuildSettings(**SETTINGS))
    assert all_bytes(out) == all_bytes(after)


def kill():
    raise KilledError


def test_another_append_must_wait_for_one_that_was_begun(
    before, tmp_path, sources, engines, monkeypatch
):
    out = shutil.copytree(before, tmp_path / "shards")
    with monkeypatch.context() as patch:
        patch.setattr(appender, "look_at", lambda *_: kill())
        with pytest.raises(KilledError):
            append(sources[1:], out)
    with pytest.raises(InvalidDataError, match=r"the source first\.jsonl is new") as said:
        append(sources[:1], out)
    assert f"to discard it, remove {out / '.build'}" in str(said.value)
    shutil.rmtree(out / ".build")
    append(sources[:1], out)


@pytest.mark.parametrize("strict", [False, True])
def test_an_append_that_fails_by_its_sources_lets_another_follow(
    before, after, tmp_path, sources, engines, all_bytes, write_jsonl, strict
):
    out = shutil.copytree(before, tmp_path / "shards")
    records = [{"text": "Some text with several words."}, 5] if strict else [{"body": "text"}]
    wrong = write_jsonl(tmp_path / "wrong.jsonl", records)
    with pytest.raises(InvalidDataError, match=r"--strict refuses them|no record has the column"):
        append([str(wrong)], out, strict=strict)
    assert (out / ".build").exists() == strict  # only if a document was read
    append(sources[1:], out)
    assert all_bytes(out) == all_bytes(after)


def test_a_loader_that_was_open_goes_on_with_what_it_knows(
    before, after, tmp_path, sources, engines
):
    out = shutil.copytree(before, tmp_path / "shards")
    loaders = [
        MixtureLoader(folder, seq_len=32, batch_rows=12, cache_dir=tmp_path / name)
        for folder, name in ((before, "a"), (out, "b"))
    ]
    append(sources[1:], out)
    for _ in range(20):
        one, other = (next(loader) for loader in loaders)
        assert (one["input_ids"] == other["input_ids"]).all()
    state = loaders[1].state_dict()
    with pytest.raises(InvalidDataError, match="documents were appended since"):
        MixtureLoader(out, seq_len=32, batch_rows=12, cache_dir=tmp_path / "c").load_state_dict(
            state
        )


def test_a_mixture_of_before_is_valid_after(before, after, tmp_path):
    shares = Manifest.load(before).token_shares
    next(MixtureLoader(after, shares, seq_len=32, batch_rows=12, cache_dir=tmp_path))


def test_a_directory_that_lacks_the_model_is_refused(before, tmp_path, sources, engines):
    out = shutil.copytree(before, tmp_path / "shards")
    (out / "model.npz").unlink()
    with pytest.raises(
        InvalidDataError, match=r"nothing can be appended to .*: it lacks model\.npz"
    ):
        append(sources[1:], out)


@pytest.mark.slow
def test_settings_are_those_of_the_directory(before, sources, climb):
    done = climb("build", sources[1], "--out", before, "--append", "--clusters", 7)
    assert done.returncode == 2
    assert "uses the settings that" in done.stderr
    assert done.stderr.strip().endswith("leave out --clusters")


@pytest.mark.slow
def test_the_command_appends(before, sources, climb, tmp_path, after, all_bytes):
    out = shutil.copytree(before, tmp_path / "shards")
    done = climb("build", sources[1], "--out", out, "--append", "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert all_bytes(out) == all_bytes(after)


def test_settling_without_an_append_does_nothing(before, all_bytes):
    bytes_before = all_bytes(before)
    finish_commit(before)
    assert all_bytes(before) == bytes_before


def test_a_near_copy_of_what_was_there_is_dropped_and_says_of_which(
    tmp_path, before, catalogue, engines, write_jsonl
):
    words = [f"word{chr(97 + n % 26)}{n * n % 977}" for n in range(300)]
    first = write_jsonl(tmp_path / "one.jsonl", [{"id": "one", "text": " ".join(words)}])
    other = {"id": "other", "text": "So, " + ", ".join(words).upper()}
    out = shutil.copytree(before, tmp_path / "shards")
    append([str(first)], out)
    append([str(write_jsonl(tmp_path / "other.jsonl", [other, {**other, "id": "again"}]))], out)
    rows = catalogue(out)
    assert [row["why"] for row in rows[-2:]] == ["nearly the same as another", "text seen before"]
    assert rows[rows[-2]["copy_of"]]["id"] == "one"
    assert [row["signature"] is None for row in rows[-3:]] == [False, True, True]
    assert pairs_in(out) == {}  # "one" was left out too, so its text is in no shard
    assert verify_directory(out).faults == []


def russian(name, count):
    """Documents in Russian that differ from each other."""
    things = "лес река гора сад вокзал рынок башня подвал двор город".split()
    deeds = "увидел описал искал любил купил показал".split()
    rng = random.Random(name)
    return [
        {
            "id": f"{name} {n}",
            "text": " ".join(
                f"В этот день учитель снова {rng.choice(deeds)} {rng.choice(things)}, потому что "
                f"его дети тоже хотели посмотреть на {rng.choice(things)}."
                for _ in range(12)
            ),
        }
        for n in range(count)
    ]


def test_an_append_names_new_languages_and_counts_documents_of_the_shards(
    tmp_path, before, engines, write_jsonl, caplog
):
    caplog.set_level("INFO")
    out = shutil.copytree(before, tmp_path / "shards")
    append([str(write_jsonl(tmp_path / "one.jsonl", russian("one", LEAST - 1)))], out)
    kept = appender.kept_in(Manifest.load(out))["language"]["ru"]
    assert "none of these documents is pruned: 19 in ru (Cyrl)" in caplog.text
    assert (
        f"{kept} documents in languages that the shards had no documents of, now in clusters of "
        f"other languages: ru {kept}. If these are many, build again from all sources"
    ) in caplog.text
    caplog.clear()
    append([str(write_jsonl(tmp_path / "two.jsonl", russian("two", LEAST - kept)))], out)
    assert "languages that the shards had no documents of" not in caplog.text
    assert "languages with too few documents" not in caplog.text


def test_pairs_of_build_and_append_stand_side_by_side_and_are_told_apart(
    tmp_path, records, engines, write_jsonl
):
    def near(name, of):
        """A document of the texts of several records, which differs from others in its end."""
        return {"id": name, "text": f"{' '.join(r['text'] for r in of)} The end {name}."}

    first, more = records
    built = [*first, near("a1", first[:6]), near("a2", first[:6])]
    added = [near("a3", first[:6]), near("b1", more[:6]), near("b2", more[:6])]
    out = tmp_path / "shards"
    build([str(write_jsonl(tmp_path / "built.jsonl", built))], out, BuildSettings(**SETTINGS))
    (pair,) = pairs_in(out)["Near copies"]
    assert set(pair) == {"a1", "a2"}
    append([str(write_jsonl(tmp_path / "added.jsonl", added))], out)
    pairs = pairs_in(out)
    assert pairs["Near copies of the first build"] == {pair}
    assert {frozenset(pair) for pair in pairs["Near copies of the last append"]} == {
        frozenset({"a3", pair[1]}),
        frozenset({"b1", "b2"}),
    }
    html = (out / "report.html").read_text()
    assert re.findall("<mark>(a[123][.] ?)</mark>", html)


def test_a_directory_between_commit_and_end_of_an_append_is_not_published(
    before, tmp_path, sources, engines, monkeypatch
):
    out = shutil.copytree(before, tmp_path / "shards")
    with monkeypatch.context() as patch:
        patch.setattr(appender, "finish_commit", lambda out: (out / NEXT_FILES).exists() and kill())
        with pytest.raises(KilledError):
            append(sources[1:], out)
    with pytest.raises(InvalidDataError, match=r"a build or append of .* is not finished; run"):
        collect(out, "someone/web", tmp_path)
    append(sources[1:], out)
    collect(out, "someone/web", tmp_path)


def test_a_near_copy_of_what_was_held_out_is_held_out_if_copies_are_kept(
    tmp_path, make_records, write_jsonl, engines, catalogue, capsys
):
    first = make_records(each=8)
    near = [{**r, "id": f"near {r['id']}", "text": f"{r['text']} Indeed."} for r in first]
    sources = [write_jsonl(tmp_path / f"{i}.jsonl", rows) for i, rows in enumerate((first, near))]
    settings = {**SETTINGS, "holdout": 0.4, "keep_duplicates": True}
    build([str(sources[0])], tmp_path / "out", BuildSettings(**settings), workers=1)
    append([str(sources[1])], tmp_path / "out", workers=1)
    rows = {row["id"]: row for row in catalogue(tmp_path / "out")}
    pairs = [(rows[r["id"]], rows[f"near {r['id']}"]) for r in first]
    pairs = [(old["why"], new["why"]) for old, new in pairs if new["copy_of"] is not None]
    assert len(pairs) > 20
    assert {("held out", "held out"), (None, None)} <= set(pairs)
    assert all((old == "held out") == (new == "held out") for old, new in pairs)
    labels = Counter(row["label"] for row in rows.values() if row["why"] == "held out")
    said = capsys.readouterr().err.split("held-out documents by known domain: ")[-1]
    told = dict(one.rsplit(" ", 1) for one in said.split("\n")[0].split(", "))
    assert {name: int(n) for name, n in told.items()} == labels

"""`climb publish` by the real client, against a double of the Hub that fails in every way."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from html import escape
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from climb_command import ClimbProcess, run_climb
from hub_double import TOKEN, File, Repo
from huggingface_hub import constants
from huggingface_hub.utils import _http
from tokenizers import Tokenizer

from climbstream.builder.dataset_card import Card
from climbstream.builder.publisher import repo_files
from climbstream.builder.publisher.repo_files import (
    Publication,
    PublishSettings,
    check_limits,
    collect,
)
from climbstream.builder.publisher.upload import Publisher
from climbstream.loader import Mixture
from climbstream.loader.cli.main import root
from climbstream.loader.core.errors import IntegrityError, InvalidDataError, RemoteError, UsageError
from climbstream.loader.core.files import write_json
from climbstream.loader.formats.clusters import load_clusters
from climbstream.loader.formats.manifest import Manifest, Size
from climbstream.loader.storage import retry, service
from climbstream.loader.storage.hub import check_repo
from climbstream.loader.tools.pull import pull
from climbstream.loader.tools.verify import verify_directory

REPO = "someone/web"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(retry, "LONGEST_PAUSE", 0.01)
    # The client pauses too, and for longer.
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda _: None, time=time.time))


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Folder where tables are kept, so that they are made once."""
    return tmp_path_factory.mktemp("tables")


@pytest.fixture
def publication(directory, tables):
    """All that may be published."""
    return collect(directory, REPO, tables, PublishSettings(what="all"))


def held(files):
    """Content of files by path."""
    return {p: c if isinstance(c, bytes) else c.read_bytes() for p, c in files.items()}


def on_main(hub, repo=REPO):
    """Content of ``main`` by path."""
    return {p: hub.content(f) for p, f in hub.repos[repo].files().items() if p != ".gitattributes"}


def mains(hub):
    """What ``main`` has held, one after the other: paths."""
    repo = hub.repos[REPO]
    return [sorted(repo.commits[c]) for branch, c in repo.history if branch == "main"]


def before(hub):
    """Make a data set that holds something of its owner's."""
    repo = hub.repos[REPO] = Repo()
    repo.commit("main", {"notes.txt": File(3, b"old"), ".gitattributes": File(3, b"*\n\n")})
    return repo


# What is published.


def test_what_is_published_are_the_files_as_they_are(client, publication):
    published = Publisher(REPO).publish(publication, tag="v1")
    assert on_main(client) == held(publication.files)
    repo = client.repos[REPO]
    assert repo.refs == {"main": published.commit, "v1": published.commit}
    assert (published.files, published.sent) == (len(publication.files),) * 2
    assert published.bytes == sum(map(len, held(publication.files).values()))


@pytest.mark.parametrize(
    "name",
    ["report.html", "tokenizer.json", "manifest.json", "documents", "clusters/c01", "clusters"],
)
def test_a_link_is_refused_and_what_it_leads_to_is_not_sent(client, directory, tmp_path, name):
    copy = shutil.copytree(directory, tmp_path / "linked")
    (copy / name).rename(tmp_path / "elsewhere")
    (copy / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidDataError, match=rf"{name} is a link to"):
        collect(copy, REPO, tmp_path / "tables")
    run = run_climb("publish", copy, REPO)
    assert run.returncode in (3, 4)  # 4 where the verification that comes first finds it
    assert f"{name} is a link to" in run.stderr
    assert not client.put


def test_a_link_to_a_private_file_is_refused_though_it_dangles(directory, tmp_path):
    copy = shutil.copytree(directory, tmp_path / "linked")
    (copy / "report.html").unlink()
    (copy / "report.html").symlink_to(tmp_path / "not yet there")
    with pytest.raises(InvalidDataError, match=r"report\.html is a link to .*not yet there"):
        collect(copy, REPO, tmp_path / "tables")


def test_a_link_in_the_folder_of_a_search_is_refused(directory, tmp_path):
    search = tmp_path / "search"
    search.mkdir()
    Manifest.load(directory).token_shares.save(search / "mixture.json")
    (tmp_path / "key").write_text("private")
    (search / "report.html").symlink_to(tmp_path / "key")
    with pytest.raises(InvalidDataError, match=r"report\.html is a link to .*key"):
        collect(directory, REPO, tmp_path / "tables", PublishSettings(mixture=search))


def test_the_card_has_the_warnings_of_the_search(directory, tmp_path):
    about = {"reason": "Found it.", "warnings": ["1 of 4 items stand in the shards"]}
    Mixture(Manifest.load(directory).token_shares.weights, about).save(tmp_path / "m.json")
    settings = PublishSettings(what="mixture", mixture=tmp_path / "m.json")
    card = collect(directory, REPO, tmp_path / "work", settings).files["README.md"].decode()
    assert "How the mixture was found: Found it.\n\nWarnings of the search:\n\n- 1 of 4" in card


def test_a_mixture_that_was_found_before_an_append_says_so_in_notes_and_card(directory, tmp_path):
    copy = shutil.copytree(directory, tmp_path / "grown")
    manifest = Manifest.load(copy)
    appended = [{"before": "0" * 32, "sources": {}, "documents": 1, "tokens": 5}]
    write_json(
        copy / "manifest.json",
        replace(manifest, provenance={**manifest.provenance, "appended": appended}).to_json(),
    )
    found_on = {**manifest.found_on, "shards": "0" * 32}
    Mixture(manifest.token_shares.weights, found_on).save(tmp_path / "m.json")
    settings = PublishSettings(what="mixture", mixture=tmp_path / "m.json")
    publication = collect(copy, REPO, tmp_path / "work", settings)
    grown = f"({manifest.tokens - 5:,} tokens); after 1 append they are {manifest.fingerprint} ("
    (note,) = (note for note in publication.notes if "append" in note)
    assert note.startswith(f"The mixture was found on the shards {'0' * 32} {grown}")
    assert note in publication.files["README.md"].decode()


def test_large_and_small_files_go_as_the_hub_wants_them(client, publication):
    client.part = 1000  # so some are sent in parts, some at once, and some with the commit
    Publisher(REPO).publish(publication)
    assert on_main(client) == held(publication.files)
    kinds = {kind for (method, kind), _ in client.asked.items() if kind.startswith("lfs")}
    assert len(kinds) > 1
    sizes = [len(client.objects[sha]) for sha in client.put]
    assert min(sizes) < 4000 < max(sizes)
    small = [f for f in client.repos[REPO].files().values() if not f.sha256]
    assert len(small) > 2


def test_nothing_is_sent_twice(client, publication):
    first = Publisher(REPO).publish(publication)
    asked = client.asked.total()
    again = Publisher(REPO).publish(publication)
    assert again.sent == 0
    assert again.commit == first.commit
    assert {*client.put.values()} == {1}
    assert client.asked.total() - asked < 10


def test_main_changes_by_one_commit_and_what_the_owner_keeps_there_stays(client, publication):
    before(client)
    Publisher(REPO).publish(publication)
    old, new = mains(client)
    assert {*new} == {*old} | {*publication.files}
    assert on_main(client)["notes.txt"] == b"old"


def test_what_an_earlier_publication_left_in_our_folders_goes(client, publication):
    repo = before(client)
    repo.commit("main", {**repo.files(), "clusters/c99/shard.00000.mds.zstd": File(1, b"x")})
    Publisher(REPO).publish(publication)
    assert on_main(client).keys() == {*publication.files, "notes.txt"}


def test_a_data_set_that_holds_what_the_card_would_not_speak_of_is_refused(
    client, directory, publication, tables
):
    Publisher(REPO).publish(publication)
    shards = collect(directory, REPO, tables, PublishSettings(what="shards"))
    with pytest.raises(UsageError, match=r"also has parquet/, shuffled/, .*--what all"):
        Publisher(REPO).publish(shards)


def test_a_tag_stays_where_it_is(client, directory, publication, tmp_path):
    Publisher(REPO).publish(publication, tag="v1")
    Publisher(REPO).publish(publication, tag="v1")
    drawn = Mixture.uniform(Manifest.load(directory).names)
    drawn.save(tmp_path / "mixture.json")
    other = collect(
        directory, REPO, tmp_path, PublishSettings(what="all", mixture=tmp_path / "mixture.json")
    )
    with pytest.raises(UsageError, match="the tag v1 of someone/web is set on"):
        Publisher(REPO).publish(other, tag="v1")
    assert "mixture.json" not in on_main(client)
    Publisher(REPO).publish(other, tag="v2")
    assert "mixture.json" in on_main(client)


def test_private_is_private(client, publication):
    published = Publisher(REPO).publish(publication, private=True)
    assert client.repos[REPO].private
    assert published.private
    assert published.url == f"{client.url}/datasets/{REPO}"
    assert Publisher(REPO).publish(publication).private  # it stays so


def test_a_public_data_set_is_not_published_to_as_a_private_one(client, publication):
    before(client)
    with pytest.raises(UsageError, match=r"exists, and is public, so --private does not apply"):
        Publisher(REPO).publish(publication, private=True)
    assert on_main(client) == {"notes.txt": b"old"}
    assert not client.put


def test_what_a_stopped_publication_leaves_on_the_hub_is_told_before(client, publication, capsys):
    client.fail(10**6, 403, *STEPS["preupload"])
    with pytest.raises(RemoteError):
        Publisher(REPO).publish(publication)
    said = capsys.readouterr().err
    (branch,) = (name for name in client.repos[REPO].refs if name != "main")
    assert f"{client.url}/datasets/{REPO} is a public data set" in said
    assert f"files go to the branch {branch}, which stays there if this command is stopped" in said


def test_a_hub_without_xet_storage_is_told_with_the_remedy(client, publication, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(RemoteError, match=r"has no Xet storage, .* HF_HUB_DISABLE_XET=1"):
        Publisher(REPO).publish(publication)


def test_a_data_set_with_only_a_mixture_is_read_as_a_mixture(client, directory):
    Manifest.load(directory).token_shares.push_to_hub(REPO)
    with pytest.raises(InvalidDataError, match=rf"but it has a mixture.* --mixture hf://{REPO}"):
        Manifest.load(f"hf://{REPO}")


# Faults.

STEPS = {
    "create": ("POST", "repos/create"),
    "branch": ("POST", "/branch/"),
    "list": ("GET", "/tree/"),
    "find": ("GET", "/revision/main"),
    "refs": ("GET", "/refs"),
    "preupload": ("POST", "/preupload/"),
    "batch": ("POST", "/info/lfs/"),
    "object": ("PUT", "lfs/"),
    "verify": ("POST", "/verify"),
    "stage": ("POST", "/commit/climbstream-"),
    "main": ("POST", "/commit/main"),
    "drop": ("DELETE", "/branch/"),
    "tag": ("POST", "/tag/"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("what", [503, 429, "lost"])
def test_a_publication_goes_through_what_passes(client, directory, tables, step, what):
    before(client)
    publication = collect(directory, REPO, tables)
    client.fail(1, what, *STEPS[step])
    Publisher(REPO).publish(publication, tag="v1")
    assert on_main(client) == {**held(publication.files), "notes.txt": b"old"}
    assert len(mains(client)) == 2
    assert client.repos[REPO].refs.keys() == {"main", "v1"}
    assert client.failed, "the fault was met"
    # The one thing that nobody can know of is an object that arrived, if the answer did not.
    assert client.put.total() == len(client.put) + (what == "lost" and step == "object")


@pytest.mark.parametrize("step", [step for step in STEPS if step not in ("object", "verify")])
def test_a_hub_that_goes_on_failing_leaves_main_whole_and_the_rerun_ends_right(
    client, directory, tables, step
):
    old = before(client).refs["main"]
    publication = collect(directory, REPO, tables)
    client.fail(10**6, 500, *STEPS[step])
    with pytest.raises(RemoteError, match=r"the Hub did not .* run the same command again later"):
        Publisher(REPO, patience=0.05).publish(publication, tag="v1")
    assert client.repos[REPO].refs["main"] == old or len(mains(client)) == 2
    client.faults.clear()
    Publisher(REPO).publish(publication, tag="v1")
    assert on_main(client) == {**held(publication.files), "notes.txt": b"old"}
    assert len(mains(client)) == 2
    assert client.repos[REPO].refs.keys() == {"main", "v1"}
    assert {*client.put.values()} == {1}


def test_the_pause_that_the_hub_asks_for_is_kept(client, publication, monkeypatch):
    pauses = []
    monkeypatch.setattr(service.time, "sleep", pauses.append)
    client.fail(1, 429, *STEPS["branch"])
    Publisher(REPO).publish(publication)
    assert 1.0 in pauses


def test_who_may_not_write_is_told_how_to_log_in(client, publication, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(RemoteError, match=r"refused to make the data set .*HF_TOKEN"):
        Publisher(REPO).publish(publication)
    assert not client.repos


def test_a_pusher_who_comes_between_is_not_overwritten(client, directory, tables):
    repo = before(client)
    publication = collect(directory, REPO, tables)

    def push():
        repo.commit("main", {**repo.files(), "notes.txt": File(5, b"newer")})

    client.fail(1, push, *STEPS["main"])
    with pytest.raises(RemoteError, match=r"somebody else changed someone/web during"):
        Publisher(REPO).publish(publication)
    assert on_main(client) == {"notes.txt": b"newer"}
    put = client.put.copy()
    Publisher(REPO).publish(publication)
    assert on_main(client) == {**held(publication.files), "notes.txt": b"newer"}
    assert client.put == put


@pytest.mark.parametrize(
    "step", [STEPS["stage"], STEPS["preupload"], STEPS["object"], ("GET", "/tree/climbstream-")]
)
def test_a_publication_whose_twin_ends_before_it_ends_too(client, directory, tables, step):
    repo = before(client)
    publication = collect(directory, REPO, tables)

    def publish_as_well():
        client.faults.clear()
        Publisher(REPO).publish(publication)

    client.fail(1, publish_as_well, *step)
    done = Publisher(REPO).publish(publication)
    assert done.commit == repo.refs["main"]
    assert on_main(client) == {**held(publication.files), "notes.txt": b"old"}
    assert repo.refs.keys() == {"main"}


def test_other_bytes_on_the_hub_never_become_main(client, directory, tables):
    repo = before(client)
    publication = collect(directory, REPO, tables)

    def spoil():
        for branch in [name for name in repo.refs if name.startswith("climbstream-")]:
            if (files := repo.files(branch)).keys() >= publication.files.keys():
                size = files["manifest.json"].size
                repo.commit(branch, {**files, "manifest.json": File(size, b"x" * size)})

    client.fail(10**6, spoil, *STEPS["list"])
    with pytest.raises(
        IntegrityError, match=r"1 of \d+ files have other bytes than were sent .*manifest"
    ):
        Publisher(REPO).publish(publication)
    assert on_main(client) == {"notes.txt": b"old"}
    client.faults.clear()
    Publisher(REPO).publish(publication)
    assert on_main(client) == {**held(publication.files), "notes.txt": b"old"}


@pytest.mark.slow
@pytest.mark.parametrize("step", ["object", "stage", "main", "drop"])
def test_a_publication_that_is_killed_leaves_main_whole_and_goes_on(
    hub, run, environment, directory, step
):
    before(hub)
    command = ["publish", directory, REPO, "--tag", "v1"]
    process = ClimbProcess(*command, env=environment, stderr=subprocess.DEVNULL)
    hub.fail(1, lambda: os.kill(process.pid, signal.SIGKILL), *STEPS[step])
    assert process.wait(60) == -signal.SIGKILL
    assert len(mains(hub)) <= 2
    done = run("publish", directory, REPO, "--tag", "v1")
    assert done.returncode == 0, done.stderr
    expected = held(collect(directory, REPO, directory).files)
    assert on_main(hub) == {**expected, "notes.txt": b"old"}
    assert len(mains(hub)) == 2
    assert hub.repos[REPO].refs.keys() == {"main", "v1"}
    assert {*hub.put.values()} == {1}


@pytest.mark.slow
def test_a_publication_to_a_hub_that_falls_silent_ends_by_its_deadline_and_goes_on(
    hub, run, silence, directory
):
    hub.fail(10**6, silence, "POST", "/commit/")
    begin = time.monotonic()
    done = run("publish", directory, REPO, "--task-timeout", "3")
    assert time.monotonic() - begin < 90
    assert done.returncode == 5
    assert "--task-timeout" in done.stderr.splitlines()[-1]
    hub.faults.clear()
    assert run("publish", directory, REPO).returncode == 0
    assert "manifest.json" in hub.repos[REPO].files()


@pytest.mark.slow
def test_two_publications_at_once_leave_one_whole_data_set(hub, run, environment, directory):
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    command = ["publish", directory, REPO]
    started = [ClimbProcess(*command, env=environment, **pipes) for _ in range(2)]
    said = [process.communicate(timeout=120)[1] for process in started]
    codes = sorted(process.returncode for process in started)
    assert codes in ([0, 0], [0, 5]), said
    assert not any("Traceback" in text for text in said)
    assert codes == [0, 0] or any("publish again" in text for text in said), said
    assert on_main(hub) == held(collect(directory, REPO, directory).files)
    done = run("publish", directory, REPO)
    assert done.returncode == 0, done.stderr
    assert hub.repos[REPO].refs.keys() == {"main"}


@pytest.mark.slow
@pytest.mark.parametrize("call", ["open", "read"])
def test_a_disk_that_fails_in_a_publication_is_named_and_the_same_command_goes_on(
    hub, run, directory, fault_shim, call
):
    place = directory / "clusters"
    fault = {"FAULT_CALL": call, "FAULT_NTH": "3", "FAULT_BELOW": str(place), "FAULT_ERRNO": "5"}
    done = run("publish", directory, REPO, LD_PRELOAD=str(fault_shim), **fault)
    assert done.returncode in (2, 3, 4), done.stderr
    assert "Traceback" not in done.stderr
    assert str(place) in done.stderr
    assert "Input/output error" in done.stderr
    assert not hub.repos or not on_main(hub)
    done = run("publish", directory, REPO)
    assert done.returncode == 0, done.stderr
    assert on_main(hub) == held(collect(directory, REPO, directory).files)


# The command.


@pytest.mark.slow
def test_a_dry_run_says_what_would_be_sent_and_asks_nothing(hub, run, directory):
    done = run("publish", directory, REPO, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert not hub.asked
    files = collect(directory, REPO, directory).files
    size = sum(map(len, held(files).values()))
    about = f"{len(files)} files, {size:,} bytes · licence: CC0-1.0 · nothing was sent"
    assert about in done.stdout
    assert all(path in done.stdout for path in files)


def test_more_tables_than_the_hub_takes_are_refused():
    tables = [f"parquet/c{n % 20:02d}/{n // 20:05d}.parquet" for n in range(100_001)]
    with pytest.raises(
        UsageError, match=r"100,001 files, 5,001 of them in parquet/c00\. Publish a part: --what"
    ):
        check_limits(tables)
    check_limits(tables[:100_000])
    with pytest.raises(UsageError, match="10,001 of them in parquet/c00"):
        check_limits(f"parquet/c00/{n}" for n in range(10_001))


def test_a_publisher_refuses_too_many_files_before_the_hub_is_asked(hub):
    many = {f"clusters/c00/{n}": b"" for n in range(10_001)}
    publication = Publication(files=many, folders=(), others=(), license="CC0-1.0")
    with pytest.raises(UsageError, match="10,001 of them in clusters/c00"):
        Publisher(REPO).publish(publication)
    assert not hub.asked


def test_a_publisher_refuses_what_is_no_name_of_a_data_set():
    with pytest.raises(UsageError, match="'name' is not a data set of the Hub; write OWNER/NAME"):
        Publisher("name")


def test_a_publication_with_too_many_files_is_shown_and_refused(hub, run, directory, monkeypatch):
    monkeypatch.setattr(repo_files, "MOST_IN_FOLDER", 1)
    told = CliRunner().invoke(root, ["publish", str(directory), REPO, "--dry-run"])
    assert "nothing was sent" in told.output
    assert isinstance(told.exception, UsageError)
    assert not hub.asked


@pytest.mark.slow
def test_a_token_is_in_no_output_at_debug_level_and_in_no_file(hub, run, directory, tmp_path):
    hub.fail(2, 503, *STEPS["stage"])
    debug = {"HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug"}
    done = run("publish", directory, REPO, "--work", tmp_path / "work", **debug)
    assert done.returncode == 0, done.stderr
    hub.fail(10**6, 403, *STEPS["list"])
    refused = run("publish", directory, REPO, "--work", tmp_path / "work", "--json", **debug)
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    said = done.stdout + done.stderr + refused.stdout + refused.stderr
    assert "someone/web" in said
    assert TOKEN[3:] not in said
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert TOKEN[3:].encode() not in path.read_bytes()
    assert all(TOKEN.encode() not in data for data in on_main(hub).values())


def dry_run(directory, *options):
    """Run a dry run in this process; return its result."""
    return CliRunner().invoke(
        root, ["publish", str(directory), REPO, "--dry-run", *map(str, options)]
    )


def test_an_unfinished_append_is_published_by_no_command_and_shown_by_no_dry_run(
    hub, directory, tmp_path
):
    copy = shutil.copytree(directory, tmp_path / "shards")
    plan = {"append to": Manifest.load(copy).build, "sources": {}}
    write_json(copy / ".build" / "plan.json", plan)
    refused = dry_run(copy).exception
    assert isinstance(refused, InvalidDataError)
    assert "is not finished; run its command again" in str(refused)
    with pytest.raises(InvalidDataError, match="is not finished"):
        collect(copy, REPO, tmp_path / "tables")


def test_a_link_that_the_manifest_does_not_name_is_named_and_not_sent(hub, directory, tmp_path):
    copy = shutil.copytree(directory, tmp_path / "shards")
    (tmp_path / "private").mkdir()
    (copy / "link.txt").symlink_to(tmp_path / "private")
    (copy / "clusters" / "c99").symlink_to(tmp_path / "private")
    shown = dry_run(copy)
    assert shown.exit_code == 0
    assert (
        "not published, because the manifest does not list them: link.txt/, clusters/c99/"
        in shown.stderr
    )
    assert "link.txt" not in shown.stdout
    assert verify_directory(copy).faults == []


def test_a_dry_run_writes_the_card_where_it_can_be_read(hub, directory, tmp_path):
    search = search_of(directory, tmp_path / "search")
    work = tmp_path / "work"
    shown = dry_run(directory, "--work", work, "--mixture", search)
    assert f"card: {work}/preview/README.md" in shown.stdout
    assert {path.name for path in (work / "preview").glob("[!.]*")} == {
        "README.md",
        "mixture.svg",
        "report.html",
    }
    found = collect(directory, REPO, tmp_path / "tables", PublishSettings(mixture=search))
    assert (work / "preview" / "README.md").read_bytes() == found.files["README.md"]
    (work / "preview" / "README.md").write_text("of an earlier run")
    dry_run(directory, "--work", work, "--mixture", search)
    assert (work / "preview" / "README.md").read_bytes() == found.files["README.md"]
    assert "card: --work DIR writes it" in dry_run(directory).stdout


def test_a_preview_overwrites_no_files_of_others(hub, directory, tmp_path):
    (tmp_path / "preview").mkdir()
    (tmp_path / "preview" / "README.md").write_text("mine")
    refused = dry_run(directory, "--work", tmp_path).exception
    assert isinstance(refused, InvalidDataError)
    assert (tmp_path / "preview" / "README.md").read_text() == "mine"


def test_columns_that_become_public_are_named(hub, directory, tmp_path):
    copy = shutil.copytree(directory, tmp_path / "shards")
    manifest = Manifest.load(copy)
    settings = {**manifest.provenance["settings"], "keep": ["url", "title"]}
    replace(manifest, provenance={**manifest.provenance, "settings": settings}).save(copy)
    said = "columns of the corpus (--keep), also for documents that were left out: url, title."
    assert said in dry_run(copy).stderr
    assert "--keep" not in dry_run(directory).stderr


def test_what_is_published_as_all_says_that_later_versions_need_it_too(directory, tables):
    def notes(what):
        return " ".join(collect(directory, REPO, tables, PublishSettings(what=what)).notes)

    assert "--what all for later versions of this data set too" in notes("all")
    assert "later versions" not in notes("shards")


def test_a_dry_run_says_that_the_login_was_not_checked(hub, directory):
    assert "nothing was sent, and the login was not checked" in dry_run(directory).stdout
    assert not hub.asked


def test_drawn_without_a_number_of_tokens_says_that_nothing_is_drawn(directory, tables):
    said = (
        "shuffled/ has each document once. --tokens N draws documents by token shares, and "
        "--tokens N --mixture FILE by a mixture.",
    )
    whole = collect(directory, REPO, tables, PublishSettings(what="drawn"))
    assert whole.notes == said
    assert "tokens drawn" not in card_of(whole)[1]
    assert said[0] not in collect(directory, REPO, tables, PublishSettings(what="all")).notes


def test_the_card_of_drawn_documents_begins_with_their_size_and_not_that_of_the_shards(
    directory, tmp_path
):
    settings = PublishSettings(what="drawn", tokens=2_000)
    metadata, body = card_of(collect(directory, REPO, tmp_path, settings))
    manifest = Manifest.load(directory)
    first = body.strip().splitlines()[2]
    shards = f"{manifest.tokens:,} tokens of"
    assert re.match(rf"[12],\d{{3}} tokens, drawn by token shares from shards with {shards}", first)
    assert "Licences of the shards (those of the drawn documents were not counted): CC0" in first
    assert "| documents of the shards | tokens of the shards |" in body
    assert "licences by tokens" not in body
    assert "size_categories" not in metadata


def test_a_card_of_shards_and_drawn_documents_states_both_sizes(directory, tmp_path):
    settings = PublishSettings(what="all", tokens=2_000)
    metadata, body = card_of(collect(directory, REPO, tmp_path, settings))
    assert body.strip().splitlines()[2].startswith(f"{Manifest.load(directory).tokens:,} tokens of")
    assert re.search(
        r"; the shuffled tables have [12],\d{3} tokens, drawn by token shares\. Lic", body
    )
    assert metadata["size_categories"] == ["n<1K"]


def test_a_mixture_draws_only_up_to_a_number_of_tokens(tmp_path):
    with pytest.raises(UsageError, match="only up to a number of tokens; add --tokens N, or leave"):
        PublishSettings(what="drawn", mixture=tmp_path / "mixture.json")


@pytest.mark.parametrize("repo", ["web", "a/b/c", "../web", "hf://someone/web", "someone/web@v1"])
def test_a_name_that_is_none_is_refused(repo):
    with pytest.raises(UsageError, match="is not a data set of the Hub; write OWNER/NAME"):
        check_repo(repo)


@pytest.mark.slow
def test_the_command_refuses_a_name_that_is_none(run, directory):
    done = run("publish", directory, "web")
    assert done.returncode == 2
    assert done.stderr.strip() == "error: 'web' is not a data set of the Hub; write OWNER/NAME"


@pytest.mark.slow
def test_a_directory_with_faults_is_not_published(hub, run, directory, tmp_path):
    broken = tmp_path / "broken"
    subprocess.run(["cp", "-r", directory, broken], check=True)
    shard = next(broken.glob("clusters/*/*.zstd"))
    shard.write_bytes(shard.read_bytes()[:-1])
    done = run("publish", broken, REPO)
    assert done.returncode != 0
    assert shard.name in done.stderr
    assert "so it is not published" in done.stderr
    assert not hub.repos


# Card and licence.


def card_of(publication):
    """Metadata and body of the card."""
    _, head, body = publication.files["README.md"].decode().split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_card_says_licence_shares_and_how_to_load(publication, directory):
    manifest = Manifest.load(directory)
    metadata, body = card_of(publication)
    assert metadata["license"] == "cc0-1.0"
    names = [config["config_name"] for config in metadata["configs"]]
    assert names == ["default", *manifest.names]
    assert metadata["configs"][0]["default"] is True
    ours = Card.parse(publication.files["README.md"].decode(), "it")
    assert ours.licenses == ("CC0-1.0",)
    assert ours.ours["vocab_size"] == manifest.vocab_size
    assert ours.ours["eos_id"] == manifest.eos_id
    for cluster in manifest.clusters:
        assert f"| {cluster.tokens:,} | {cluster.tokens / manifest.tokens:.6f} |" in body
    for way in (f'MixtureLoader("hf://{REPO}"', "mosaicml-streaming", f'load_dataset("{REPO}"'):
        assert way in body
    assert manifest.fingerprint in body


def licensed(directory, tmp_path, license_):
    """Return a copy of the shards under another licence."""
    copy = tmp_path / "shards"
    subprocess.run(["cp", "-r", directory, copy], check=True)
    replace(Manifest.load(copy), license=license_).save(copy)
    return copy


def test_a_licence_is_inherited_and_never_changed(directory, tmp_path, tables):
    assert collect(directory, REPO, tables, PublishSettings(license="CC0-1.0")).license == "CC0-1.0"
    with pytest.raises(UsageError, match=r"is CC0-1.0, .* cannot be changed to mit"):
        collect(directory, REPO, tables, PublishSettings(license="mit"))


def test_shards_of_which_nobody_says_a_licence_are_not_published(directory, tmp_path):
    unknown = licensed(directory, tmp_path, "unknown")
    with pytest.raises(UsageError, match="state no licence; state it with --license"):
        collect(unknown, REPO, tmp_path)
    stated = collect(unknown, REPO, tmp_path, PublishSettings(license="My own"))
    metadata, body = card_of(stated)
    assert (metadata["license"], metadata["license_name"]) == ("other", "my-own")
    assert Card.parse(stated.files["README.md"].decode(), "it").licenses == ("My own",)
    assert "as the publisher states it" in body


def with_licenses(directory, tmp_path):
    """Return a copy of the shards in which some documents state no licence, and their number."""
    copy = licensed(directory, tmp_path, "CC0-1.0, MIT")
    manifest = Manifest.load(copy)
    first, *others = manifest.clusters
    mine = {"unknown": Size(first.documents, first.tokens)}
    clusters = [replace(first, licenses=mine)]
    for c in others:
        mit = Size(c.documents - 1, c.tokens - 9)
        clusters.append(replace(c, licenses={"MIT": mit, "CC0-1.0": Size(1, 9)}))
    replace(manifest, clusters=tuple(clusters)).save(copy)
    return copy, first


def test_documents_that_state_no_licence_are_counted_wherever_the_licence_is_said(
    hub, directory, tmp_path
):
    copy, first = with_licenses(directory, tmp_path)
    share = 100 * first.tokens / Manifest.load(copy).tokens
    said = f"{first.documents} documents ({share:.1f} % of tokens) state no licence."
    publication = collect(copy, REPO, tmp_path / "tables")
    _, body = card_of(publication)
    assert f"Licence: unknown, CC0-1.0, MIT, as the sources state it. {said}\n" in body
    (note,) = publication.notes
    assert note.startswith(f"{said} So the card says license: other. --license NAME states")
    assert said in dry_run(copy).stderr


def test_a_publisher_states_the_licence_only_of_documents_that_state_none(directory, tmp_path):
    copy, _ = with_licenses(directory, tmp_path)
    publication = collect(copy, REPO, tmp_path / "tables", PublishSettings(license="CC BY 4.0"))
    metadata, body = card_of(publication)
    assert metadata["license"] == ["cc-by-4.0", "cc0-1.0", "mit"]
    assert "Licence: CC BY 4.0, CC0-1.0, MIT. " in body
    assert "state no licence. For these, the publisher states CC BY 4.0." in body
    assert publication.notes[0].endswith("The card says that you state CC BY 4.0 for them.")


def test_a_stated_licence_is_a_licence_and_is_listed_once(directory, tmp_path):
    copy, _ = with_licenses(directory, tmp_path)
    with pytest.raises(UsageError, match="--license 'NONE' names no licence"):
        PublishSettings(license="NONE")
    publication = collect(copy, REPO, tmp_path / "tables", PublishSettings(license="mit"))
    assert publication.license == "MIT, CC0-1.0"


def test_another_licence_than_that_of_the_present_card_is_told(client, directory, tmp_path, caplog):
    copy = licensed(directory, tmp_path, "unknown")
    for stated, told in (("mit", False), ("mit", False), ("foo", True)):
        caplog.clear()
        settings = PublishSettings(license=stated)
        publication = collect(copy, REPO, tmp_path / "work", settings)
        Publisher(REPO).publish(publication)
        assert ("states the licence mit; the new card states foo" in caplog.text) == told
    assert publication.notes == (
        "The Hub does not know the licence foo, so the card says license: other, with this name.",
    )


def test_text_without_a_licence_is_not_published_without_a_word(directory, tmp_path):
    copy, _ = with_licenses(directory, tmp_path)
    said = "The text of documents without a licence becomes public (--text)."
    for what, text in (("drawn", True), ("drawn", False), ("shards", True)):
        settings = PublishSettings(what=what, text=text)
        notes = " ".join(collect(copy, REPO, tmp_path / f"tables-{text}", settings).notes)
        assert (said in notes) == (what == "drawn" and text)


def test_tables_of_tokens_have_the_tokenizer_that_decodes_them(directory, tmp_path):
    publication = collect(directory, REPO, tmp_path / "tokens", PublishSettings(what="drawn"))
    rows = pq.read_table(next(p for n, p in publication.files.items() if n.endswith(".parquet")))
    tokenizer = Tokenizer.from_str(publication.files["tokenizer.json"].decode())
    settings = PublishSettings(what="drawn", text=True)
    text = collect(directory, REPO, tmp_path / "text", settings)
    path = next(p for n, p in text.files.items() if n.endswith(".parquet"))
    assert tokenizer.decode(rows["tokens"][0].as_py()) == pq.read_table(path)["text"][0].as_py()
    assert "`tokenizer.json` decodes them" in card_of(publication)[1]
    assert "tokenizer.json" not in text.files
    assert "tokenizer.json" not in card_of(text)[1]


def test_the_card_says_where_the_text_came_from_and_what_was_left_out(directory, tables):
    body = card_of(collect(directory, REPO, tables))[1]
    assert "374 documents of 1 source: topics.jsonl." in body
    assert "| label | documents read | documents kept | bytes kept |" in body
    assert re.search(r"\| sea \| 6\d \| 5\d \| [\d,]+ \|", body)
    for reason, count in (("held out", 27), ("low overall score", 4), ("not JSON", 1)):
        assert f"| {reason} | {count} |" in body
    assert str(directory) not in body


def test_the_card_of_a_mixture_alone_speaks_of_no_file_that_is_not_there(directory, tmp_path):
    Manifest.load(directory).token_shares.save(tmp_path / "m.json")
    settings = PublishSettings(what="mixture", mixture=tmp_path / "m.json")
    publication = collect(directory, REPO, tmp_path / "work", settings)
    metadata, body = card_of(publication)
    assert metadata["license"] == "unknown"  # that of the shards is not that of the weights
    assert "The publisher states no licence for the mixture." in body
    assert "manifest.json" not in body
    assert f"`--mixture hf://{REPO}`" in body
    assert "size_categories" not in metadata
    (note,) = publication.notes
    assert note == "The card states no licence for the mixture: --license NAME states one."
    stated = collect(directory, REPO, tmp_path / "work", replace(settings, license="MIT"))
    assert card_of(stated)[0]["license"] == "mit"
    assert "Licence of the mixture: MIT, as the publisher states it." in card_of(stated)[1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"what": "drawn", "tokens": 9000}, "Documents are drawn by token shares: only --mixture"),
        ({"tokens": 9000}, "--tokens has no effect: only --what drawn, parquet and all"),
        ({"what": "drawn", "heldout": True}, "--heldout has no effect: there is no held-out text"),
    ],
)
def test_an_option_without_effect_is_told(directory, tmp_path, settings, said):
    notes = collect(directory, REPO, tmp_path / "tables", PublishSettings(**settings)).notes
    assert any(note.startswith(said) for note in notes)


def test_the_card_has_a_table_of_licences_and_names_few_per_cluster(directory, tmp_path):
    copy, first = with_licenses(directory, tmp_path)
    _, body = card_of(collect(copy, REPO, tmp_path / "tables"))
    manifest = Manifest.load(copy)
    rest = len(manifest.clusters) - 1
    assert "| licence | documents | tokens | share of tokens |" in body
    assert f"| CC0-1.0 | {rest} | {9 * rest} | " in body
    assert f"| unknown | {first.documents} | {first.tokens:,} | " in body
    row = next(line for line in body.splitlines() if line.startswith("| c00 |"))
    assert row.endswith("| unknown 100% |")


def test_held_out_text_stays_here_unless_it_is_asked_for(directory, tables):
    assert "heldout.jsonl.zst" not in collect(directory, REPO, tables).files
    assert (
        "heldout.jsonl.zst" in collect(directory, REPO, tables, PublishSettings(heldout=True)).files
    )


def left_out_texts(directory):
    """Beginnings of left-out documents that the report shows, and no document that stays has."""
    dropped = json.loads((directory / "clusters.json").read_text())["dropped"]
    samples = [*dropped["held out"][:4], *dropped["low overall score"][:4]]
    return [sample["text"][:60] for sample in samples]


@pytest.mark.parametrize("heldout", [False, True])
def test_no_published_file_shows_a_document_that_was_left_out(directory, tables, heldout):
    texts = left_out_texts(directory)
    assert len(texts) == 8
    report = (directory / "report.html").read_text()
    assert all(escape(text) in report for text in texts)
    found = collect(directory, REPO, tables, PublishSettings(heldout=heldout)).files
    for name in ("report.html", "clusters.json"):
        public = held(found)[name].decode()
        assert not any(text in public or escape(text) in public for text in texts)
    assert '<section id="clusters">' in held(found)["report.html"].decode()
    assert load_clusters(directory)[0].samples[0]["text"][:60] in public


def test_the_published_manifest_names_the_hashes_of_what_is_published(client, directory, tmp_path):
    Publisher(REPO).publish(collect(directory, REPO, tmp_path / "tables"))
    pull(REPO, tmp_path / "pulled")
    assert verify_directory(tmp_path / "pulled").faults == []
    pulled, here = Manifest.load(tmp_path / "pulled"), Manifest.load(directory)
    changed = {name for name, of in pulled.files.items() if here.files[name] != of}
    assert changed == {"clusters.json", "report.html"}
    assert pulled.fingerprint == here.fingerprint
    again = collect(tmp_path / "pulled", REPO, tmp_path / "tables")
    assert held(again.files)["report.html"] == (tmp_path / "pulled" / "report.html").read_bytes()


def test_a_report_that_cannot_be_made_again_is_not_published(directory, tmp_path):
    old = shutil.copytree(directory, tmp_path / "old")
    (old / "clusters.json").unlink()
    replace(Manifest.load(old), files={}).save(old)
    assert not {"report.html", "clusters.json"} & collect(old, REPO, tmp_path).files.keys()


# Mixtures.


def search_of(directory, folder):
    """Write what a search leaves."""
    folder.mkdir()
    names = Manifest.load(directory).names
    weights = dict.fromkeys(names, 0.0) | {names[0]: 0.75, names[1]: 0.25}
    about = {"shards": Manifest.load(directory).fingerprint, "reason": "it beat the shares by 0.1"}
    Mixture(weights, about).save(folder / "mixture.json")
    for name in ("trials.jsonl", "answer.json", "report.html"):
        (folder / name).write_text(name)
    return folder


def test_a_search_goes_with_its_trials_and_its_claim(directory, tables, tmp_path):
    found = collect(
        directory, REPO, tables, PublishSettings(mixture=search_of(directory, tmp_path / "search"))
    )
    ours = {p for p in found.files if p.startswith("search/")}
    assert ours == {"search/trials.jsonl", "search/answer.json", "search/report.html"}
    _, body = card_of(found)
    assert "it beat the shares by 0.1" in body
    assert "| 0.750000 |" in body
    assert "Mixture.from_hub('someone/web')" in body


def test_the_card_shows_a_picture_of_the_mixture_that_lies_beside_it(directory, tables, tmp_path):
    search = search_of(directory, tmp_path / "search")
    found = collect(directory, REPO, tables, PublishSettings(mixture=search))
    _, body = card_of(found)
    assert "\n\n![Weights of the mixture and token shares, by cluster](mixture.svg)\n\n|" in body
    assert b"75.0%" in found.files["mixture.svg"]
    _, body = card_of(collect(directory, REPO, tables))
    assert "![" not in body


def test_a_mixture_alone_is_small(client, directory, tables, tmp_path):
    search = search_of(directory, tmp_path / "search")
    alone = collect(
        directory, REPO, tables, PublishSettings(what="mixture", mixture=search / "mixture.json")
    )
    assert alone.files.keys() == {"README.md", "mixture.json", "mixture.svg"}
    Publisher(REPO).publish(alone)
    assert Mixture.from_hub(REPO) == Mixture.load(search / "mixture.json")
    with pytest.raises(UsageError, match="name it: --mixture FILE"):
        collect(directory, REPO, tables, PublishSettings(what="mixture"))


def test_a_mixture_of_other_shards_is_refused(directory, tables, tmp_path):
    names = Manifest.load(directory).names
    Mixture({names[0]: 1.0}, {"shards": "0" * 16}).save(tmp_path / "mixture.json")
    with pytest.raises(InvalidDataError, match=r"was found on the shards 0{16}, and these are"):
        collect(directory, REPO, tables, PublishSettings(mixture=tmp_path / "mixture.json"))
    Mixture({"c77": 1.0}).save(tmp_path / "mixture.json")
    with pytest.raises(InvalidDataError, match=r"gives weight to c77, but the clusters are "):
        collect(directory, REPO, tables, PublishSettings(mixture=tmp_path / "mixture.json"))


def test_a_mixture_that_is_pushed_comes_back_and_no_token_goes_along(client):
    mixture = Mixture.of({"c00": 3, "c01": 1}, {"reason": "because"})
    commit = mixture.push_to_hub("someone/mixtures")
    assert client.repos["someone/mixtures"].refs["main"] == commit
    for place in ("someone/mixtures", f"someone/mixtures@{commit}", "hf://someone/mixtures"):
        back = Mixture.from_hub(place)
        assert (back.weights, back.about) == (mixture.weights, mixture.about)
    assert Mixture.load("hf://someone/mixtures").weights == mixture.weights
    assert mixture.push_to_hub("someone/mixtures") is not None


def test_a_data_set_without_a_mixture_says_so(client, directory, monkeypatch):
    client.upload("someone/bare", directory)
    with pytest.raises(InvalidDataError, match=r"hf://datasets/someone/bare has no mixture.json"):
        Mixture.from_hub("someone/bare")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(RemoteError, match=r"refused to put mixture\.json"):
        Mixture.uniform(["a"]).push_to_hub("someone/bare")


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ("MIT", {"license": "mit"}),
        ("CC BY 4.0", {"license": "cc-by-4.0"}),
        ("MIT, CC0-1.0", {"license": ["mit", "cc0-1.0"]}),
        ("MIT, Crown ©", {"license": "other", "license_name": "mit-crown"}),
        ("a " * 200, {"license": "other", "license_name": "-".join("a" * 30)}),
        (
            "MIT, Crown Copyright of 1988 and later, Open Licence of an Office",
            {"license": "other", "license_name": "mit-crown-copyright-of-1988-and-later-and-more"},
        ),
    ],
)
def test_a_licence_is_said_as_the_hub_reads_it_and_whole(client, directory, tmp_path, stated, said):
    shards = licensed(directory, tmp_path, stated)
    publication = collect(shards, REPO, tmp_path)
    Publisher(REPO).publish(publication)
    metadata, body = card_of(publication)
    assert {key: metadata[key] for key in said} == said
    assert f"Licence: {stated}, as the sources state it." in body


@pytest.mark.parametrize("token", ["hf_other", None])
def test_the_token_is_checked_before_anything_is_read(hub, run, directory, tmp_path, token):
    copy = tmp_path / "shards"
    shutil.copytree(directory, copy)
    next(copy.glob("clusters/*/shard*")).write_bytes(b"damaged")
    environment = {"HF_TOKEN": token or "", "HF_HOME": str(tmp_path)}
    done = run("publish", copy, "someone/web", "--license", "MIT", **environment)
    said = "refused to check the token" if token else "there is no token of the Hub"
    assert said in done.stderr
    assert "hf auth login" in done.stderr
    assert done.returncode == (5 if token else 2)
    assert hub.repos == {}
    # Without a word to the Hub, what is wrong with the shards is said.
    dry = run("publish", copy, "someone/web", "--license", "MIT", "--dry-run", **environment)
    assert dry.returncode == 4

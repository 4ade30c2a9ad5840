"""Groupings travel with the shards: published, pulled, read on the Hub, checked as other files."""

import json
import os
import shutil

import pytest

from climbstream.builder.publisher.repo_files import PublishSettings, collect
from climbstream.loader import Manifest, Mixture, MixtureLoader
from climbstream.loader.core.errors import ClimbError, IntegrityError, InvalidDataError, UsageError
from climbstream.loader.core.files import hash_bytes
from climbstream.loader.formats.grouping import Grouping
from climbstream.loader.tools.pull import pull
from climbstream.loader.tools.regroup import regroup
from climbstream.loader.tools.verify import verify_directory

REPO = "someone/web"
FILE = "groupings/halves/grouping.json"


@pytest.fixture
def shards(directory, tmp_path):
    """A copy of a build with a grouping of two groups."""
    out = shutil.copytree(directory, tmp_path / "shards")
    names = Manifest.load(out).names
    regroup(out, "halves", Grouping({"one": tuple(names[:2]), "two": tuple(names[2:])}))
    return out


@pytest.fixture
def site(shards, tmp_path):
    """The files of the shards as they are published, in a folder."""
    for name, content in collect(shards, REPO, tmp_path / "work").files.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return tmp_path / "site"


def rewritten(site, path, change):
    """Change a JSON file in the site."""
    value = json.loads((site / path).read_text())
    change(value)
    (site / path).write_text(json.dumps(value))


def test_a_grouping_comes_back_from_the_hub_and_is_read_there(client, shards, site, tmp_path):
    client.upload(REPO, site)
    pull(REPO, tmp_path / "pulled")
    assert (tmp_path / "pulled" / FILE).read_bytes() == (shards / FILE).read_bytes()
    places = (shards, tmp_path / "pulled", f"hf://{REPO}")
    groups = [Manifest.load(f"{place}/groupings/halves") for place in places]
    assert groups[0].clusters == groups[1].clusters == groups[2].clusters
    batches = [
        next(MixtureLoader(f"{p}/groupings/halves", seq_len=32, batch_rows=8, cache_dir=tmp_path))
        for p in places
    ]
    assert all(b["input_ids"].tolist() == batches[0]["input_ids"].tolist() for b in batches)
    assert not verify_directory(tmp_path / "pulled").faults
    assert not verify_directory(tmp_path / "pulled").unexpected
    assert Manifest.load(shards).fingerprint == Manifest.load(tmp_path / "pulled").fingerprint


def test_the_card_names_groupings_and_the_manifest_has_their_hashes(shards, site):
    assert (
        "| halves | 2 | `hf://someone/web/groupings/halves` |" in (site / "README.md").read_text()
    )
    manifest = Manifest.load(site)
    assert manifest.files[FILE] == hash_bytes((shards / FILE).read_bytes())
    here = Manifest.load(shards).files
    assert manifest.files.keys() > here.keys()
    public = {"clusters.json", "report.html"}
    assert all(manifest.files[name] == of for name, of in here.items() if name not in public)


def test_what_was_published_is_published_again_the_same(site, tmp_path):
    pull(str(site), tmp_path / "pulled")
    again = collect(tmp_path / "pulled", REPO, tmp_path / "work").files
    for name, content in again.items():
        data = content if isinstance(content, bytes) else content.read_bytes()
        assert data == (site / name).read_bytes()
    shutil.rmtree(tmp_path / "pulled" / "groupings")
    without = collect(tmp_path / "pulled", REPO, tmp_path / "work").files
    assert FILE not in without
    assert FILE not in json.loads(without["manifest.json"])["files"]


def test_a_grouping_of_other_bytes_or_none_is_refused(site, tmp_path):
    path = site / FILE
    data = path.read_bytes()
    path.write_bytes(data.replace(b"one", b"uno"))
    with pytest.raises(IntegrityError, match=r"grouping\.json: expected hash"):
        pull(str(site), tmp_path / "pulled")
    with pytest.raises(IntegrityError, match=r"grouping\.json: expected hash"):
        Manifest.load(site / "groupings" / "halves")
    (fault,) = verify_directory(site).faults
    assert fault.startswith("grouping halves: ")
    path.unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        pull(str(site), tmp_path / "pulled")
    assert not (tmp_path / "pulled" / "manifest.json").exists()
    path.write_bytes(data)
    pull(str(site), tmp_path / "pulled")
    assert not verify_directory(tmp_path / "pulled").faults


@pytest.mark.parametrize(
    "name",
    [
        "groupings/../../evil/grouping.json",
        "groupings/a/b/grouping.json",
        "groupings/.hidden/grouping.json",
        "groupings//grouping.json",
        "groupings/halves/other.json",
        "/groupings/halves/grouping.json",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(site, tmp_path, name):
    rewritten(site, "manifest.json", lambda value: value["files"].update({name: "0" * 32}))
    with pytest.raises(InvalidDataError, match="is not a file of a shard directory"):
        pull(str(site), tmp_path / "a" / "pulled")
    assert not (tmp_path / "a").exists() or not [*(tmp_path / "a").rglob("grouping.json")]


@pytest.mark.parametrize(
    "content",
    [
        b"no json",
        b'{"version": 1, "groups": {"../../evil": ["c00"]}}',
        b'{"version": 1, "groups": {"one": ["c00"]}}',
        b'{"version": 1, "groups": [1]}',
        b'{"version": 2, "groups": {}}',
    ],
)
def test_a_grouping_that_is_none_is_not_brought_though_its_hash_fits(site, tmp_path, content):
    (site / FILE).write_bytes(content)
    rewritten(
        site, "manifest.json", lambda value: value["files"].update({FILE: hash_bytes(content)})
    )
    with pytest.raises(ClimbError, match=r"grouping\.json"):
        pull(str(site), tmp_path / "pulled")
    assert not (tmp_path / "pulled" / "manifest.json").exists()
    assert not (tmp_path / "pulled" / FILE).exists()


@pytest.mark.parametrize("kind", ["link", "folder link", "pipe"])
def test_a_link_or_pipe_in_the_place_of_a_grouping_is_neither_published_nor_pulled(
    shards, site, tmp_path, kind
):
    for folder in (shards, site):
        path = folder / FILE
        aside = tmp_path / f"{folder.name} aside"
        if kind == "folder link":
            shutil.move(path.parent, aside)
            path.parent.symlink_to(aside)
        else:
            shutil.move(path, aside)
            path.symlink_to(aside) if kind == "link" else os.mkfifo(path)
    with pytest.raises(InvalidDataError):
        collect(shards, REPO, tmp_path / "work")
    with pytest.raises(InvalidDataError):
        pull(str(site), tmp_path / "pulled")
    assert not (tmp_path / "pulled" / FILE).exists()


def test_a_grouping_that_is_here_already_is_never_replaced(site, tmp_path):
    pull(str(site), tmp_path / "pulled")
    (tmp_path / "pulled" / FILE).write_text("mine")
    with pytest.raises(InvalidDataError, match="runs may use it"):
        pull(str(site), tmp_path / "pulled")
    assert (tmp_path / "pulled" / FILE).read_text() == "mine"


def test_a_name_that_was_published_stands_for_that_grouping_alone(site, tmp_path):
    pull(str(site), tmp_path / "pulled")
    names = Manifest.load(site).names
    shutil.rmtree(tmp_path / "pulled" / "groupings")
    with pytest.raises(UsageError, match="published with another grouping halves"):
        regroup(tmp_path / "pulled", "halves", Grouping({"all": tuple(names)}))
    regroup(tmp_path / "pulled", "all", Grouping({"all": tuple(names)}))


def test_a_folder_gives_the_groupings_that_its_manifest_does_not_list(shards, tmp_path):
    pull(str(shards), tmp_path / "pulled")
    assert (tmp_path / "pulled" / FILE).read_bytes() == (shards / FILE).read_bytes()


@pytest.fixture
def mixture(shards, tmp_path):
    """A mixture of the groups, of which one has no weight, as a search leaves it."""
    groups = Manifest.load(shards / "groupings" / "halves")
    path = tmp_path / "found" / "mixture.json"
    Mixture({"one": 1.0, "two": 0.0}, groups.found_on).save(path)
    return path


def publish_to(site, shards, work, **settings):
    shutil.rmtree(site, ignore_errors=True)
    files = collect(shards, REPO, work, PublishSettings(**settings)).files
    for name, content in files.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return files


def test_a_mixture_of_groups_is_published_and_pulled_with_its_grouping(
    client, shards, mixture, tmp_path
):
    publish_to(tmp_path / "out", shards, tmp_path / "work", mixture=mixture)
    client.upload(REPO, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert f'MixtureLoader("hf://{REPO}/groupings/halves", Mixture.from_hub({REPO!r})' in card
    pulled = tmp_path / "pulled"
    pull(REPO, pulled)
    assert Mixture.load(pulled / "mixture.json") == Mixture.load(mixture)
    batches = [
        next(
            MixtureLoader(
                f"{place}/groupings/halves",
                Mixture.load(mixture),
                seq_len=32,
                batch_rows=8,
                cache_dir=tmp_path / "c",
            )
        )["input_ids"].tolist()
        for place in (shards, pulled, f"hf://{REPO}")
    ]
    assert batches[0] == batches[1] == batches[2]


def test_a_pull_by_a_mixture_of_groups_fetches_the_clusters_of_those_with_weight(
    client, shards, mixture, tmp_path
):
    publish_to(tmp_path / "out", shards, tmp_path / "work", mixture=mixture)
    client.upload(REPO, tmp_path / "out")
    result = pull(REPO, tmp_path / "pulled", Mixture.from_hub(REPO))
    groups = Manifest.load(shards / "groupings" / "halves").members
    assert result.clusters == tuple(cell.name for cell in groups["one"])


def test_a_mixture_of_groups_alone_brings_its_grouping_and_the_card_its_weights_by_cluster(
    shards, mixture, tmp_path
):
    files = publish_to(tmp_path / "out", shards, tmp_path / "work", mixture=mixture, what="mixture")
    assert {*files} == {"README.md", "mixture.json", "mixture.svg", FILE}
    manifest = Manifest.load(shards)
    one = Manifest.load(shards / "groupings" / "halves").clusters[0]
    card = (tmp_path / "out" / "README.md").read_text()
    for number, cluster in enumerate(manifest.clusters):
        weight = cluster.tokens / one.tokens if number < 2 else 0.0
        (row,) = [line for line in card.splitlines() if line.startswith(f"| {cluster.name}")]
        assert f"{weight:.6f}" in row


def test_tables_drawn_by_a_mixture_of_groups_hold_its_clusters(shards, mixture, tmp_path):
    settings = PublishSettings(what="drawn", mixture=mixture, tokens=2000)
    publication = collect(shards, REPO, tmp_path / "work", settings)
    assert any(name.startswith("shuffled/") for name in publication.files)
    assert FILE in publication.files


def test_a_mixture_of_no_clusters_and_no_groups_is_refused(shards, mixture, tmp_path):
    Mixture({"three": 1.0}).save(mixture)
    with pytest.raises(InvalidDataError, match="the mixture gives weight to three"):
        collect(shards, REPO, tmp_path / "work", PublishSettings(mixture=mixture))

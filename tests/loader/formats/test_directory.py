"""ShardDirectory: what lies in a folder is read once, and by whoever it is sent to."""

import pickle
import threading

import pytest

from climbstream.loader.core.errors import IntegrityError, InvalidDataError, UsageError
from climbstream.loader.formats.directory import ShardDirectory


@pytest.fixture
def shards(make_shards, counted_documents, tmp_path):
    lengths = {"c00": [40] * 30, "c01": [25] * 30}
    return make_shards(tmp_path / "shards", counted_documents(lengths))


def test_documents_come_back_as_they_were_written(shards):
    directory = ShardDirectory(shards.directory)
    for name, documents in shards.documents.items():
        read = [d.tolist() for shard in directory.documents(name) for d in shard]
        assert read == [d.tolist() for d in documents]


def test_documents_of_some_shards_are_those_of_the_shards(shards):
    directory = ShardDirectory(shards.directory)
    whole = [[d.tolist() for d in shard] for shard in directory.documents("c00")]
    assert len(whole) > 2
    some = [[d.tolist() for d in shard] for shard in directory.documents("c00", [2, 0])]
    assert some == [whole[2], whole[0]]


def test_what_was_read_is_not_read_again(shards):
    directory = ShardDirectory.open(shards.directory)
    index = directory.index("c01")
    (shards.folder("c01") / "index.json").unlink()
    (shards.directory / "manifest.json").unlink()
    assert directory.index("c01") is index
    assert ShardDirectory.open(directory) is directory
    with pytest.raises(InvalidDataError, match="is not a shard directory"):
        ShardDirectory.open(shards.directory)


def test_another_process_is_sent_the_manifest_and_reads_the_rest(shards):
    directory = ShardDirectory(str(shards.directory))
    directory.index("c00")
    (shards.directory / "manifest.json").unlink()
    sent = pickle.loads(pickle.dumps(directory))
    assert sent.manifest == directory.manifest
    assert sent.index("c00") == shards.indexes["c00"]
    (shards.folder("c01") / "index.json").unlink()
    with pytest.raises(IntegrityError, match=r"index\.json is missing"):
        sent.index("c01")


def test_indexes_behind_a_url_are_asked_for_together(
    make_shards, counted_documents, serve, tmp_path
):
    names = [f"c{number:02d}" for number in range(12)]
    shards = make_shards(tmp_path / "many", counted_documents({name: [5] for name in names}))
    site, together = serve(shards.directory), threading.Barrier(len(names))

    def answer_when_all_have_asked(path, times):
        if path.endswith("index.json"):
            together.wait(60)

    site.misbehave = answer_when_all_have_asked
    directory = ShardDirectory(site.url)
    directory.load_indexes(names)
    assert {name: directory.index(name) for name in names} == shards.indexes
    assert len(site.asked) == len(set(site.asked)) == 1 + len(names)


def test_a_cluster_that_is_not_there_is_named_with_those_that_are(shards):
    with pytest.raises(UsageError, match="has no cluster 'c07'; it has c00, c01"):
        ShardDirectory(shards.directory).index("c07")


def test_a_directory_without_a_tokenizer_says_so(shards):
    with pytest.raises(UsageError, match=r"has no tokenizer\.json"):
        ShardDirectory(shards.directory).tokenizer()


def test_a_directory_says_what_it_is(shards):
    text = repr(ShardDirectory(shards.directory))
    assert text == f"ShardDirectory({shards.directory}, 2 clusters, 1,950 tokens)"

"""A mixture as streams of mosaicml-streaming; the real library is met in bench/interop.py."""

import sys
import types

import pytest

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.formats.mixture import Mixture
from climbstream.loader.mosaic import as_streams, stream_arguments


@pytest.fixture(scope="module")
def shards(tmp_path_factory, make_shards, counted_documents):
    """Documents of c01 are four times as long as those of c00."""
    lengths = {"c00": [10] * 30, "c01": [40] * 5, "c02": [10] * 3}
    return make_shards(tmp_path_factory.mktemp("shards"), counted_documents(lengths))


def test_a_stream_is_the_folder_of_a_cluster(shards, tmp_path):
    (stream,) = stream_arguments(shards.directory, Mixture.of({"c01": 1}), tmp_path)
    assert stream["remote"] == str(shards.folder("c01"))
    assert stream["local"] == str(tmp_path / "c01")
    assert stream["validate_hash"] == "xxh3_128"


def test_proportions_are_of_documents_so_that_weights_are_of_tokens(shards, tmp_path):
    streams = stream_arguments(shards.directory, Mixture.of({"c00": 1, "c01": 1}), tmp_path)
    c00, c01 = (stream["proportion"] for stream in streams)
    assert c00 / c01 == pytest.approx(4)


def test_a_cluster_of_weight_zero_is_left_out(shards, tmp_path):
    mixture = Mixture.of({"c00": 1, "c01": 0})
    streams = stream_arguments(str(shards.directory), mixture, str(tmp_path))
    assert [stream["local"] for stream in streams] == [str(tmp_path / "c00")]


def test_a_mixture_for_other_clusters_is_refused(shards, tmp_path):
    with pytest.raises(
        InvalidDataError, match="the mixture gives weight to c09, but the clusters are c00"
    ):
        stream_arguments(shards.directory, Mixture.of({"c09": 1}), tmp_path)


@pytest.mark.parametrize("kind", [Mixture.of, dict, str], ids=["mixture", "weights", "file"])
def test_a_mixture_is_given_as_the_loader_takes_it(shards, tmp_path, monkeypatch, kind):
    # As the README calls it; here a stream is the arguments that it is made with.
    monkeypatch.setitem(sys.modules, "streaming", types.SimpleNamespace(Stream=dict))
    weights = {"c00": 0.25, "c01": 0.75}
    given = kind(weights) if kind is not str else str(tmp_path / "mixture.json")
    Mixture.of(weights).save(tmp_path / "mixture.json")
    streams = as_streams(str(shards.directory), given, local=tmp_path / "cache")
    assert streams == stream_arguments(shards.directory, Mixture.of(weights), tmp_path / "cache")


def test_without_the_library_the_extra_is_named(shards, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "streaming", None)
    with pytest.raises(UsageError, match=r"pip install 'climbstream\[mosaic\]'"):
        as_streams(shards.directory, Mixture.of({"c00": 1}), tmp_path)

"""The manifest: no manifest, no data set; and it vouches for the index of each cluster."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.loader import Manifest, Mixture
from climbstream.loader.core.errors import IntegrityError, InvalidDataError
from climbstream.loader.formats.manifest import MANIFEST, ClusterEntry, load_index

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_é", min_size=1, max_size=12)
counts = st.integers(0, 1 << 50)
hashes = st.text("0123456789abcdef", min_size=32, max_size=32)
clusters = st.builds(ClusterEntry, name=names, tokens=counts, documents=counts, index_hash=hashes)
manifests = st.builds(
    Manifest,
    clusters=st.lists(clusters, min_size=1, max_size=5, unique_by=lambda c: c.name).map(tuple),
    dtype=st.sampled_from(["uint16", "uint32"]),
    vocab_size=st.integers(1, 1 << 31),
    eos_id=st.none() | st.integers(0, 1 << 31),
    tokenizer_hash=hashes,
    build=hashes,
    license=st.text(max_size=12),
    provenance=st.dictionaries(names, st.dictionaries(names, counts, max_size=2), max_size=2),
    conservation=st.lists(st.dictionaries(names, counts, max_size=2), max_size=2).map(tuple),
)


@pytest.fixture
def shards(tmp_path, make_shards):
    return make_shards(tmp_path, {"c00": [np.arange(9), np.arange(5)], "c01": [np.arange(7)]})


@given(manifests)
def test_a_manifest_comes_back_as_it_was(manifest):
    value = json.loads(json.dumps(manifest.to_json()))
    assert Manifest.from_json(value) == manifest
    assert Manifest.from_json(value).to_json() == manifest.to_json()


def test_a_manifest_comes_back_from_its_file(shards):
    assert Manifest.load(shards.directory) == shards.manifest


def test_a_manifest_counts_what_was_written(shards):
    assert shards.manifest.names == ["c00", "c01"]
    assert [(c.tokens, c.documents) for c in shards.manifest.clusters] == [(14, 2), (7, 1)]
    assert shards.manifest.tokens == 21


def test_token_shares_weight_every_token_the_same(shards):
    assert shards.manifest.token_shares.weights == {"c00": 14 / 21, "c01": 7 / 21}


def test_a_directory_without_manifest_is_no_data_set(shards):
    (shards.directory / MANIFEST).unlink()
    with pytest.raises(
        InvalidDataError, match="is not a shard directory: it has no manifest"
    ) as error:
        Manifest.load(shards.directory)
    assert str(shards.directory) in str(error.value)
    assert "run the same `climb build` again" in str(error.value)


def test_a_manifest_of_another_version_is_refused(shards):
    path = shards.directory / MANIFEST
    path.write_text(json.dumps({**shards.manifest.to_json(), "version": 2}))
    with pytest.raises(InvalidDataError, match="version 2; this climbstream reads 1") as error:
        Manifest.load(shards.directory)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "7", "{}", '{"version": 1}'])
def test_what_is_no_manifest_is_refused(shards, content):
    path = shards.directory / MANIFEST
    path.write_text(content)
    with pytest.raises(InvalidDataError) as error:
        Manifest.load(shards.directory)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "key", ["clusters", "dtype", "vocab_size", "eos_id", "build", "license", "fingerprint"]
)
def test_a_manifest_that_leaves_something_out_is_refused(shards, key):
    value = shards.manifest.to_json()
    del value[key]
    with pytest.raises(InvalidDataError, match=f"this is not a valid manifest: .*{key}"):
        Manifest.from_json(value)


def test_a_manifest_with_an_unknown_key_is_refused(shards):
    with pytest.raises(InvalidDataError, match=r"this is not a valid manifest: .*colour"):
        Manifest.from_json({**shards.manifest.to_json(), "colour": "red"})


def test_another_type_of_token_is_refused(shards):
    with pytest.raises(InvalidDataError, match="tokens are uint16 or uint32, not 'int8'"):
        dataclasses.replace(shards.manifest, dtype="int8")


# The fingerprint.


def test_the_fingerprint_is_the_same_for_the_same_shards(tmp_path, make_shards):
    documents = {"c00": [np.arange(9)], "c01": [np.arange(7)]}
    one = make_shards(tmp_path / "one", documents)
    two = make_shards(tmp_path / "two", documents)
    assert one.manifest.fingerprint == two.manifest.fingerprint


@pytest.mark.parametrize(
    "documents",
    [
        {"c00": [np.arange(1, 10)], "c01": [np.arange(7)]},
        {"c00": [np.arange(9)], "c02": [np.arange(7)]},
        {"c01": [np.arange(7)], "c00": [np.arange(9)]},
        {"c00": [np.arange(9)]},
        {"c00": [np.arange(4), np.arange(4, 9)], "c01": [np.arange(7)]},
    ],
    ids=["a token", "a name", "the order of clusters", "fewer clusters", "document ends"],
)
def test_the_fingerprint_changes_with_what_a_reader_sees(tmp_path, make_shards, documents):
    one = make_shards(tmp_path / "one", {"c00": [np.arange(9)], "c01": [np.arange(7)]})
    two = make_shards(tmp_path / "two", documents)
    assert one.manifest.fingerprint != two.manifest.fingerprint


def test_the_fingerprint_changes_with_the_type_of_a_token(tmp_path, make_shards):
    one = make_shards(tmp_path / "one", {"c00": [np.arange(9)]}, dtype="uint16")
    two = make_shards(tmp_path / "two", {"c00": [np.arange(9)]}, dtype="uint32")
    assert one.manifest.fingerprint != two.manifest.fingerprint


def test_the_fingerprint_does_not_change_with_what_a_reader_does_not_see(shards):
    other = dataclasses.replace(shards.manifest, license="MIT", build="2" * 32)
    assert other.fingerprint == shards.manifest.fingerprint


# The index.


def test_the_index_of_a_cluster_is_loaded(shards):
    for cluster in shards.manifest.clusters:
        index = load_index(shards.directory, shards.manifest, cluster)
        assert index == shards.indexes[cluster.name]


def test_changed_bytes_of_an_index_are_found(shards):
    cluster = shards.manifest.clusters[1]
    path = shards.folder("c01") / "index.json"
    path.write_bytes(path.read_bytes().replace(b'"samples": 1', b'"samples": 2'))
    with pytest.raises(IntegrityError, match=f"expected hash {cluster.index_hash}") as error:
        load_index(shards.directory, shards.manifest, cluster)
    assert str(path) in str(error.value)


def test_a_missing_index_is_named_with_the_remedy(shards):
    path = shards.folder("c01") / "index.json"
    path.unlink()
    with pytest.raises(IntegrityError, match="is missing; build, pull or copy") as error:
        load_index(shards.directory, shards.manifest, shards.manifest.clusters[1])
    assert str(path) in str(error.value)


@pytest.mark.parametrize("field", ["tokens", "documents"])
def test_other_counts_than_those_of_the_manifest_are_found(shards, field):
    true = shards.manifest.clusters[0]
    cluster = dataclasses.replace(true, **{field: getattr(true, field) + 1})
    with pytest.raises(IntegrityError, match="counts 14 tokens in 2 documents, and the manifest"):
        load_index(shards.directory, shards.manifest, cluster)


# What a mixture was found on.


def test_a_mixture_fits_what_it_was_found_on_and_what_notes_nothing_fits_all(shards):
    manifest = shards.manifest
    assert manifest.misfit(Mixture.of({"c00": 1}, manifest.found_on)) == ""
    assert manifest.misfit(Mixture.of({"c00": 1})) == ""


def test_a_mixture_fits_after_documents_were_appended(shards):
    mixture = Mixture.of({"c00": 1}, shards.manifest.found_on)
    first, *others = shards.manifest.clusters
    grown = dataclasses.replace(
        shards.manifest,
        clusters=(dataclasses.replace(first, index_hash="1" * 32), *others),
        provenance={"appended": [{"before": shards.manifest.fingerprint}]},
    )
    assert grown.misfit(mixture) == ""
    assert grown.growth(mixture)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: {"c00": "1" * 32, "c01": c["c01"]}, "c00 have other content"),
        (lambda c: {**c, "c07": "1" * 32}, "c07 no longer exist"),
        (lambda c: {"c01": c["c01"]}, "c00 are new"),
    ],
)
def test_a_mixture_of_other_shards_is_told_in_what_they_differ(shards, change, said):
    noted = change(shards.manifest.found_on["clusters"])
    mixture = Mixture.of({"c01": 1}, {"shards": "0" * 32, "clusters": noted})
    misfit = shards.manifest.misfit(mixture)
    assert misfit.startswith(f"the mixture was found on the shards {'0' * 32}, and these are ")
    assert misfit.endswith(f": {said}")


def test_a_note_that_is_nonsense_is_a_misfit_and_no_crash(shards):
    for clusters in (None, 3, [], {"c00": [1]}):
        mixture = Mixture.of({"c01": 1}, {"shards": 5, "clusters": clusters})
        assert shards.manifest.misfit(mixture)

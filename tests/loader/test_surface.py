"""What a user of the package imports, and what it shows of itself."""

import numpy as np
import pytest

import climbstream.loader
from climbstream.loader import (
    Agreement,
    ClusterLoss,
    LoaderState,
    Manifest,
    Mixture,
    MixtureDataset,
    MixtureLoader,
    Schedule,
    ShardDirectory,
    TensorBoardWriter,
    WeightsLog,
)

WEIGHTS = {"c00": 3, "c01": 1}


@pytest.fixture(scope="module")
def shards(make_shards, counted_documents, tmp_path_factory):
    lengths = {"c00": [40] * 30, "c01": [25] * 30}
    return make_shards(tmp_path_factory.mktemp("shards"), counted_documents(lengths))


@pytest.fixture
def loader(shards):
    return MixtureLoader(shards.directory, WEIGHTS, seq_len=8, batch_rows=16)


@pytest.mark.parametrize("name", climbstream.loader.__all__)
def test_each_public_name_is_there_and_says_what_it_is(name):
    assert getattr(climbstream.loader, name).__doc__
    assert name in dir(climbstream.loader)


def test_each_public_class_shows_what_it_is(loader, shards, tmp_path):
    next(loader)
    place = str(shards.directory)
    said = f"MixtureLoader(step=1, 2 clusters, 16 rows of 8 tokens a batch, shards={place!r})"
    state = LoaderState.from_json(loader.state_dict())
    shown = {
        said: loader,
        f"MixtureDataset({said})": MixtureDataset(loader),
        "LoaderState(step=1, 2 clusters, 16 rows of 8 tokens a batch)": state,
        f"ShardDirectory({place}, 2 clusters, 1,950 tokens)": ShardDirectory(place),
        "Mixture(c00 75.0%, c01 25.0%; 2 clusters)": Mixture.of(WEIGHTS),
        "Schedule(step 0, step 9 ramp 5)": Schedule.of([(0, WEIGHTS), (9, {"c01": 1}, 5)]),
        "WeightsLog(0 records, in memory)": WeightsLog(),
        "ClusterLoss(2 clusters)": ClusterLoss(["c00", "c01"]),
        "Agreement(rank 0 of 1, every 64 steps)": Agreement(every=64),
        f"TensorBoardWriter({str(tmp_path)!r})": TensorBoardWriter(tmp_path),
    }
    assert [*shown] == [repr(value) for value in shown.values()]
    fingerprint = shards.manifest.fingerprint[:8]
    text = f"Manifest(2 clusters, 1,950 tokens of uint16, fingerprint={fingerprint})"
    assert repr(Manifest.load(place)) == text


def test_a_notebook_shows_the_weights_largest_first_and_names_as_text():
    html = Mixture.of({"small": 1, "<b>large</b>": 3})._repr_html_()
    assert html.index("&lt;b&gt;large&lt;/b&gt;") < html.index("75.00%") < html.index("small")
    assert "<b>" not in html


def test_settings_of_a_loader_stay_plain_numbers(shards):
    loader = MixtureLoader(shards.directory, WEIGHTS, seq_len=np.int64(8), batch_rows=np.int64(16))
    assert type(loader.seq_len) is type(loader.batch_rows) is int

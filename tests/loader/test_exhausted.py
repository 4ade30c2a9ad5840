"""Exhaustion: no cluster is gone through more often than it may be."""

import json

import pytest

from climbstream.loader import MixtureLoader, Schedule
from climbstream.loader.audit.replay import Replay
from climbstream.loader.core.errors import UsageError

SEQ_LEN = 8
ROWS = {"c00": 200, "c01": 40, "c02": 24}
WEIGHTS = {"c00": 0.5, "c01": 0.3, "c02": 0.2}
BATCH = 8


@pytest.fixture(scope="module")
def shards(tmp_path_factory, make_shards, counted_documents):
    lengths = {name: [SEQ_LEN] * rows for name, rows in ROWS.items()}
    return make_shards(tmp_path_factory.mktemp("shards"), counted_documents(lengths))


@pytest.fixture
def open_loader(shards):
    def open_(**given):
        kwargs = {"weights": WEIGHTS, "seq_len": SEQ_LEN, "batch_rows": BATCH, "max_epochs": 1.5}
        return MixtureLoader(shards.directory, **(kwargs | given))

    return open_


def due(name):
    """Most rows that a cluster may serve at 1.5 epochs."""
    return ROWS[name] * 3 // 2


@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_no_cluster_passes_its_epochs_and_all_come_near(open_loader, batch_digest, world_size):
    ranks = [open_loader(rank=r, world_size=world_size) for r in range(world_size)]
    alone = open_loader()
    while (batch := next(alone, None)) is not None:
        assert batch_digest(batch) == batch_digest(*(next(rank) for rank in ranks))
        assert all(alone.tokens_served[name] <= due(name) * SEQ_LEN for name in ROWS)
    assert [next(rank, None) for rank in ranks] == [None] * world_size
    # What is left of each is less than the next batch would have taken.
    assert all(due(name) - alone.tokens_served[name] // SEQ_LEN < BATCH for name in ROWS)


def test_a_cap_is_logged_at_its_step_and_the_others_share_the_weight(open_loader, capsys):
    loader = open_loader()
    # c02 has 36 rows, of which a step takes 1.6.
    for _ in range(23):
        next(loader)
    weights = loader.mixture.weights
    assert weights == pytest.approx({"c00": 0.625, "c01": 0.375})
    said = capsys.readouterr().err
    assert "step 22: no more of c02 after 1.458 epochs; the other clusters share its weight" in said
    assert loader.state_dict()["weights"][0]["at_step"] == 22


def test_a_part_of_an_epoch_is_a_cap_too(open_loader):
    loader = open_loader(max_epochs={"c01": 0.5})
    for _ in range(60):
        next(loader)
    assert 20 - BATCH < loader.tokens_served["c01"] // SEQ_LEN <= 20
    assert loader.epochs["c02"] > 1.5


def test_a_later_change_cannot_bring_a_capped_cluster_back(open_loader):
    loader = open_loader(max_epochs={"c02": 1})
    for _ in range(30):
        next(loader)
    served = loader.tokens_served["c02"]
    loader.set_weights(WEIGHTS)
    for _ in range(30):
        next(loader)
    assert loader.tokens_served["c02"] == served
    assert served <= 24 * SEQ_LEN


def test_it_goes_on_the_same_from_every_step(open_loader, batch_digest):
    loader, states, digests = open_loader(), [], []
    while True:
        states.append(json.dumps(loader.state_dict()))
        if (batch := next(loader, None)) is None:
            break
        digests.append(batch_digest(batch))
    assert len(digests) > 40
    for step, state in enumerate(states):
        again = open_loader().load_state_dict(json.loads(state))
        assert [batch_digest(batch) for batch in again] == digests[step:]


def test_stop_ends_the_iteration_at_the_first_cap(open_loader, capsys):
    loader = open_loader(on_exhausted="stop")
    assert len(list(loader)) == 22
    assert next(loader, None) is None
    assert (
        "step 22: the data ends, because there is no more of c02 after 1.458 epochs"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("on_exhausted", "end"),
    [
        ("stop", "no more of c02 after 1.458 epochs; to go on, raise max_epochs, or set on_exhaus"),
        ("renormalise", "to go on, raise max_epochs, or give weight to other clusters"),
    ],
)
def test_the_end_of_the_data_is_in_the_ledger_and_says_how_to_go_on(
    open_loader, tmp_path, on_exhausted, end
):
    path = tmp_path / "served.jsonl"
    log = tmp_path / "weights.jsonl"
    loader = open_loader(on_exhausted=on_exhausted, ledger=path, weights_log=log)
    steps = len(loader)
    assert len(list(loader)) == steps
    assert Replay(tmp_path).steps == steps
    with pytest.raises(StopIteration) as error:
        next(loader)
    assert f"step {steps}: the data ends" in str(error.value)
    assert end in str(error.value)


def test_an_error_names_the_step_the_cluster_and_the_remedy(open_loader):
    loader = open_loader(on_exhausted="error")
    for _ in range(22):
        next(loader)
    message = (
        r"step 22 would take more than max_epochs of c02 after 1\.458 epochs; raise max_epochs"
    )
    with pytest.raises(UsageError, match=message):
        next(loader)
    assert loader.step == 22


@pytest.mark.parametrize(
    ("most", "message"),
    [
        ({"c09": 1}, "max_epochs names c09; the clusters are c00, c01, c02"),
        (0, r"max_epochs is \{'c00': 0.*it must be above 0"),
        (float("nan"), "it must be above 0 and below 1e9"),
    ],
)
def test_epochs_that_cannot_be_are_refused(open_loader, most, message):
    with pytest.raises(UsageError, match=message):
        open_loader(max_epochs=most)


# Length.


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"on_exhausted": "stop"},
        {"max_epochs": 0.3},
        {"max_epochs": {"c00": 2, "c01": 1, "c02": 3.5}},
        {"max_epochs": {"c01": 1}, "on_exhausted": "stop"},
        {"weights": Schedule.of([(0, {"c00": 1}), (12, {"c01": 0.5, "c00": 0.5}, 7)])},
    ],
)
def test_the_length_is_the_batches_that_come(open_loader, changes):
    loader = open_loader(**changes)
    length = len(loader)
    assert length == len([*loader]) == len(loader) > 0


def test_the_length_is_that_of_the_whole_run_wherever_it_stands(open_loader):
    loader = open_loader()
    length = len(loader)
    for _ in range(30):  # past the end of a cluster
        next(loader)
    assert len(loader) == length
    again = open_loader().load_state_dict(loader.state_dict())
    assert len(again) == length


def test_the_length_follows_a_change_of_weights(open_loader):
    loader = open_loader(on_exhausted="stop")
    before = len(loader)
    next(loader)
    loader.set_weights({"c02": 1})
    assert len(loader) < before
    assert len(loader) == 1 + len([*loader])


@pytest.mark.parametrize("max_epochs", [None, {"c01": 1}])
def test_an_endless_loader_has_no_length_and_is_true(open_loader, max_epochs):
    loader = open_loader(max_epochs=max_epochs)
    assert loader
    with pytest.raises(TypeError, match="no length, because no max_epochs ends it"):
        len(loader)


def test_steps_per_epoch_go_through_the_clusters_with_weight_once(open_loader):
    rows = sum(ROWS.values())
    loader = open_loader(weights={name: n / rows for name, n in ROWS.items()}, max_epochs=None)
    assert loader.steps_per_epoch == rows // BATCH
    for _ in range(loader.steps_per_epoch):
        next(loader)
    assert loader.epochs == pytest.approx(dict.fromkeys(ROWS, 1), abs=0.05)
    assert open_loader(weights={"c01": 1}).steps_per_epoch == ROWS["c01"] // BATCH
    assert open_loader(weights={"c01": 1, "c00": 0}).steps_per_epoch == ROWS["c01"] // BATCH
    assert open_loader(weights={"c01": 1}, batch_rows=1024).steps_per_epoch == 1

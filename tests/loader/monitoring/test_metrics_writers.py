"""Writers: what a loader measures is what TensorBoard and W&B read."""

import sys

import pytest

from climbstream.loader import MixtureLoader
from climbstream.loader.core.errors import UsageError
from climbstream.loader.monitoring.metrics import TensorBoardWriter, flatten, write_metrics


@pytest.fixture(scope="module")
def shards(tmp_path_factory, make_shards, counted_documents):
    lengths = {"c00": [8] * 60, "c01": [8] * 40}
    return make_shards(tmp_path_factory.mktemp("shards"), counted_documents(lengths))


@pytest.fixture
def open_loader(shards):
    return lambda: MixtureLoader(shards.directory, seq_len=8, batch_rows=4, max_epochs=100)


class Kept(list):
    """Keeps what it is given."""

    def log(self, data, step):
        """Keep it."""
        self.append((step, data))


def run(loader, end, *writers):
    for batch in loader:
        loss = float(batch["input_ids"].sum())
        write_metrics({**loader.metrics(), "loss": loss}, *writers)
        if loader.step == end:
            return


def test_tensorboard_reads_what_the_loader_measured(open_loader, tmp_path, scalars):
    kept = Kept()
    with TensorBoardWriter(tmp_path) as writer:
        run(open_loader(), 5, writer, kept)
    assert [step for step, _ in kept] == [1, 2, 3, 4, 5]
    found = scalars(tmp_path)
    assert {"served/c00", "target/c01", "epochs/c00", "used_up_at/c01", "loss"} < set(found)
    for step, numbers in kept:
        assert {name: found[name][step] for name in found} == pytest.approx(numbers)


def test_losses_are_given_as_to_append_metrics(open_loader):
    kept, by_cluster = Kept(), {"c01": 3.0}
    metrics = open_loader().metrics()
    write_metrics(metrics, kept, loss=2.5, cluster_loss=by_cluster, heldout_loss={"c00": 3.5})
    losses = {"loss": 2.5, "cluster_loss/c01": 3.0, "heldout_loss/c00": 3.5}
    assert losses.items() <= kept[0][1].items()


def test_what_was_logged_is_there_before_the_writer_is_closed(open_loader, tmp_path, scalars):
    writer = TensorBoardWriter(tmp_path)
    run(open_loader(), 2, writer)
    assert [*scalars(tmp_path)["loss"]] == [1, 2]
    writer.close()


def test_a_run_that_goes_on_takes_the_place_of_later_steps(open_loader, tmp_path, scalars):
    loader = open_loader()
    with TensorBoardWriter(tmp_path) as writer:
        run(loader, 4, writer)
        state = loader.state_dict()
        run(loader, 9, writer)
    again = open_loader().load_state_dict(state)
    with TensorBoardWriter(tmp_path) as writer:
        run(again, 6, writer)
    assert [*scalars(tmp_path)["served/c00"]] == [1, 2, 3, 4, 5, 6]


def test_each_writer_has_its_own_numbers_of_one_level(open_loader):
    first, second = Kept(), Kept()
    loader = open_loader()
    write_metrics(loader.metrics(), first, second)
    assert first == second
    assert {"step": 0, **first[0][1]} == flatten(loader.metrics())


def test_weights_and_biases_takes_them_offline(open_loader, tmp_path):
    wandb = pytest.importorskip("wandb")
    with wandb.init(mode="offline", dir=tmp_path, project="climbstream") as writer:
        run(open_loader(), 3, writer)
        assert writer.summary["served/c00"] + writer.summary["served/c01"] == pytest.approx(1)
    assert [*tmp_path.rglob("*.wandb")]


def test_without_tensorboard_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"cannot be written to: .*climbstream\[tensorboard\]"):
        TensorBoardWriter(tmp_path)

"""Metrics say where a run stands, and where its data will end."""

import json

import pytest
import torch

from climbstream.loader import MixtureLoader, Schedule
from climbstream.loader.monitoring.cluster_loss import ClusterLoss
from climbstream.loader.monitoring.metrics import append_metrics, flatten, say_ends
from climbstream.loader.weights.log import WeightsLog

SEQ_LEN = 8
ROWS = {"c00": 200, "c01": 40, "c02": 24}
WEIGHTS = {"c00": 0.5, "c01": 0.3, "c02": 0.2}
BATCH = 8


@pytest.fixture(scope="module")
def shards(tmp_path_factory, make_shards, counted_documents):
    lengths = {name: [5, 11] * (rows // 2) for name, rows in ROWS.items()}
    return make_shards(tmp_path_factory.mktemp("shards"), counted_documents(lengths))


@pytest.fixture
def open_loader(shards):
    def open_(**given):
        kwargs = {"weights": WEIGHTS, "seq_len": SEQ_LEN, "batch_rows": BATCH}
        return MixtureLoader(shards.directory, **(kwargs | given))

    return open_


def serve(loader, steps):
    return [next(loader) for _ in range(steps)]


def test_metrics_are_json_and_say_what_was_served(open_loader):
    loader = open_loader()
    serve(loader, 25)
    loader.set_weights({"c00": 1})
    found = loader.metrics()
    assert json.loads(json.dumps(found)) == found
    assert (found["step"], found["tokens"], found["weights"]) == (25, 25 * BATCH * SEQ_LEN, 1)
    assert found["target"] == {"c00": 1, "c01": 0, "c02": 0}
    assert found["served"] == {n: t / found["tokens"] for n, t in loader.tokens_served.items()}
    assert found["epochs"] == loader.epochs
    assert found["wait_seconds"] > 0
    assert found["used_up_at"] == {}


def test_metrics_before_the_first_batch(open_loader):
    found = open_loader().metrics()
    assert (found["step"], found["tokens"], found["wait_seconds"]) == (0, 0, 0)
    assert found["served"] == dict.fromkeys(ROWS, 0)


def test_metrics_change_nothing(open_loader, batch_digest):
    plain, looked_at = open_loader(), open_loader()
    for _ in range(20):
        assert looked_at.metrics()["step"] == plain.step
        assert batch_digest(next(looked_at)) == batch_digest(next(plain))


@pytest.mark.parametrize("pack", ["concat", "bos"])
def test_padding_is_what_rows_lack(open_loader, pack):
    loader = open_loader(pack=pack, fields=("labels",))
    # Tokens of a document are numbered through; padding is the eos, 0, and is not learned.
    padding = 0
    for batch in serve(loader, 30):
        unlearned = (batch["labels"] == -100) & (batch["input_ids"] == 0)
        padding += int(unlearned.sum())
    assert loader.metrics()["padding"] == padding
    assert (padding > 0) == (pack == "bos")


@pytest.mark.parametrize("steps", [0, 7, 15])
def test_the_forecast_is_where_the_data_ends(open_loader, steps):
    most = {"c01": 2, "c02": 1}
    loader = open_loader(max_epochs=most, on_exhausted="stop")
    serve(loader, steps)
    ends = loader.metrics()["used_up_at"]
    assert set(ends) == {"c02"}  # the data ends before c01 is used up
    serve_all = steps + len(list(loader))
    assert abs(min(ends.values()) - serve_all) <= 1


def test_the_forecast_follows_the_weights(open_loader):
    loader = open_loader(max_epochs=1)
    before = loader.metrics()["used_up_at"]
    loader.set_weights({"c00": 0.9, "c01": 0.1})
    after = loader.metrics()["used_up_at"]
    assert after["c01"] > before["c01"]
    assert after["c00"] < before["c00"]
    assert "c02" not in after


@pytest.mark.parametrize("ramp", [0, 9])
@pytest.mark.parametrize("on_exhausted", ["renormalise", "stop"])
def test_the_forecast_follows_the_schedule(open_loader, tmp_path, ramp, on_exhausted):
    later = {"c00": 0.25, "c02": 0.75}
    schedule = Schedule.of([(0, {"c00": 0.75, "c01": 0.25}), (5, later, ramp)])
    path = tmp_path / "weights.jsonl"
    given = {"weights": schedule, "weights_log": path, "on_exhausted": on_exhausted}
    loader = open_loader(max_epochs=0.75, **given)
    ends = loader.metrics()["used_up_at"]
    length = len(loader)
    assert length == len(list(loader))
    log = WeightsLog.open(path)
    used_up = {name: r.at_step for r in reversed(log.records) for name in r.capped}
    last = ends.keys() - used_up
    assert len(last) == 1
    assert all(abs(ends[name] - at) <= 1 for name, at in used_up.items())
    assert abs(ends[last.pop()] - length) <= 1
    if on_exhausted == "renormalise":
        assert "c02" in used_up
        assert "c01" not in ends


@pytest.mark.parametrize("pair", [{"c00": 1}, {"c00": 0.6, "c02": 0.4}])
def test_the_forecast_of_a_loaded_state_is_that_of_its_run(open_loader, pair):
    loader = open_loader(max_epochs=1)
    loader.metrics()
    other = open_loader(weights=pair, max_epochs=1)
    serve(other, 2)
    loader.load_state_dict(other.state_dict())
    assert loader.metrics()["used_up_at"] == other.metrics()["used_up_at"]


def test_what_ends_before_the_run_is_said(open_loader, capsys):
    loader = open_loader(max_epochs={"c02": 1})
    at = loader.metrics()["used_up_at"]["c02"]
    capsys.readouterr()
    say_ends(loader.metrics(), at)
    assert capsys.readouterr().err == ""
    say_ends(loader.metrics(), 1000)
    said = capsys.readouterr().err
    assert f"max_epochs is reached by c02 at step {at}, before the run ends at step 1,000" in said


def test_flat_metrics_are_numbers(open_loader):
    loader = open_loader(max_epochs=1)
    flat = flatten(loader.metrics())
    assert flat["served/c01"] == 0
    assert flat["target/c01"] == pytest.approx(0.3)
    assert all(isinstance(value, int | float) for value in flat.values())


def test_totals_of_a_process_say_from_which_step_they_count(open_loader):
    loader = open_loader(pack="bos")
    serve(loader, 20)
    before = loader.metrics()
    assert before["since"] == 0
    assert before["padding"] > 0
    again = open_loader(pack="bos").load_state_dict(loader.state_dict())
    found = again.metrics()
    totals = ("since", "padding", "wait_seconds", "cut", "dropped")
    assert [found[name] for name in totals] == [20, 0, 0, 0, 0]
    serve(again, 10)
    serve(loader, 10)
    assert again.metrics()["padding"] == loader.metrics()["padding"] - before["padding"]
    # The same object too, when it goes back.
    assert loader.load_state_dict(again.state_dict()).metrics()["since"] == 30


def test_what_a_trainer_reports_stands_beside_the_metrics(open_loader, tmp_path):
    loader = open_loader()
    serve(loader, 3)
    append_metrics(tmp_path / "m.jsonl", loader.metrics())
    append_metrics(tmp_path / "m.jsonl", loader.metrics(), loss=2.5, cluster_loss={"c01": 3.0})
    bare, full = map(json.loads, (tmp_path / "m.jsonl").read_text().splitlines())
    assert loader.metrics() == {k: v for k, v in bare.items() if k != "time"}
    assert (full["loss"], full["cluster_loss"]) == (2.5, {"c01": 3.0})
    assert full["time"] >= bare["time"] > 1e9


def test_losses_by_cluster_are_means_of_rows_since_the_last_time():
    losses = ClusterLoss(["c00", "c01", "c02"])
    assert losses.take() == {}
    losses.add(torch.tensor([0, 2, 0]), torch.tensor([1.0, 5.0, 2.0], requires_grad=True))
    losses.add(torch.tensor([0]), torch.tensor([6.0]))
    assert losses.take() == {"c00": 3.0, "c02": 5.0}
    losses.add(torch.tensor([1]), torch.tensor([0.5], dtype=torch.bfloat16))
    assert losses.take() == {"c01": 0.5}

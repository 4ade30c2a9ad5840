"""A watch tells where a run stands from its files, whole lines only, and reads each line once."""

import json

import pytest

from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.files import append_line
from climbstream.loader.formats.mixture import Mixture
from climbstream.loader.monitoring import run_status as watching
from climbstream.loader.monitoring.run_status import RunStatus
from climbstream.loader.weights.log import WeightsLog
from climbstream.loader.weights.request import write_request
from climbstream.loader.weights.update import WeightsUpdate


@pytest.fixture
def run(tmp_path):
    """Return the folder of a run that has weights and has served nothing."""
    log = WeightsLog.open(tmp_path / "weights.jsonl", write=True)
    log.append(Mixture.of({"a": 3, "b": 1}), 0, "")
    return tmp_path


def write(run, step, a, **more):
    """Write the line of a job that had served ``a`` tokens of cluster a, of 10 tokens a step."""
    tokens = 10 * step
    served = {"a": a / tokens, "b": 1 - a / tokens}
    line = {"step": step, "tokens": tokens, "served": served, "wait_seconds": 0.0, **more}
    append_line(run / "metrics.jsonl", line, sync=False)


def clusters(state, field):
    return {cluster["name"]: cluster[field] for cluster in state["clusters"]}


def test_a_run_that_has_written_no_metrics_is_shown_by_its_weights(run):
    state = RunStatus(run).look()
    assert (state["step"], state["silent_seconds"]) == (0, None)
    assert clusters(state, "target") == {"a": 0.75, "b": 0.25}
    assert clusters(state, "served") == {"a": None, "b": None}


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is not a run"):
        RunStatus(tmp_path)


def test_recent_shares_are_those_since_the_target_is_the_one_of_now(run):
    old, new = ({"a": a, "b": 1 - a} for a in (0.6, 0.3))
    watch, recent = RunStatus(run), []
    for step, a, target in ((10, 60, old), (20, 70, new), (30, 90, new), (40, 130, new)):
        write(run, step, a, target=target)
        recent.append(clusters(watch.look(), "recent")["a"])
    assert clusters(watch.look(), "served") == {"a": 0.325, "b": 0.675}
    assert recent == [None, *(pytest.approx(share) for share in (0.1, 0.2, 0.3))]


def test_recent_shares_are_not_those_of_long_ago(run):
    for step in range(1, 101):
        write(run, step, min(5 * step, 250))
    assert clusters(RunStatus(run).look(), "recent") == {"a": 0, "b": 1}


def test_throughput_needs_the_time_of_two_lines(run):
    watch = RunStatus(run)
    write(run, 10, 60, time=100.0, wait_seconds=1.0)
    assert watch.look()["curves"]["tokens_per_second"] == []
    write(run, 20, 70, time=104.0, wait_seconds=2.0)
    curves = watch.look()["curves"]
    assert curves["tokens_per_second"] == [(20, 25.0)]
    assert curves["waiting"] == [(20, 0.25)]
    write(run, 30, 80, time=105.0, wait_seconds=0.0)  # a new process: it waited anew
    assert watch.look()["curves"]["tokens_per_second"] == [(20, 25.0)]
    write(run, 40, 90, time=200.0, wait_seconds=5.0, since=30)  # and another
    assert watch.look()["curves"]["tokens_per_second"] == [(20, 25.0)]


def test_losses_are_shown_where_the_job_reports_them(run):
    write(run, 10, 60, loss=2.5, cluster_loss={"b": 3.5})
    state = RunStatus(run).look()
    assert state["curves"]["loss"] == [(10, 2.5)]
    assert clusters(state, "loss") == {"a": None, "b": 3.5}


def test_a_line_that_is_not_whole_yet_is_read_when_it_is(run):
    watch = RunStatus(run)
    write(run, 10, 60, loss=2.5)
    path = run / "metrics.jsonl"
    line = path.read_bytes()
    for end in range(len(line)):
        path.write_bytes(line[:end])
        assert watch.look()["step"] == 0
    path.write_bytes(line)
    assert watch.look()["step"] == 10
    assert watch.look()["curves"]["loss"] == [(10, 2.5)]


def test_lines_that_are_no_metrics_are_counted_and_passed_over(run):
    path = run / "metrics.jsonl"
    path.write_text('{"step": 1}\nnot JSON\n[3]\n{"step": "x", "tokens": 1, "served": {}}\n')
    write(run, 10, 60)
    state = RunStatus(run).look()
    assert (state["step"], state["unreadable_lines"]) == (10, 4)


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"step": Infinity, "tokens": 1, "served": {"a": 1}}',
        '{"step": -1, "tokens": 1, "served": {"a": 1}}',
        '{"step": 1e300, "tokens": 1, "served": {"a": 1}}',
        '{"step": 1, "tokens": 1, "served": {}}',
        '{"step": 1, "tokens": 1, "served": {"a": 1}, "epochs": 5}',
        '{"step": 1, "tokens": 1, "served": {"a": 1}, "cluster_loss": {"a": "x"}}',
    ],
)
def test_whatever_stands_in_a_line_the_others_are_read(run, line):
    watch = RunStatus(run)
    (run / "metrics.jsonl").write_text(line + "\n")
    write(run, 10, 60)
    state = watch.look()
    assert (state["step"], state["unreadable_lines"]) == (10, 1)


@pytest.mark.parametrize(("loss", "of_a"), [(float("nan"), float("inf")), (None, None)])
def test_a_loss_that_is_no_number_is_left_out_and_the_state_stays_json(run, loss, of_a):
    write(run, 10, 60, loss=loss, cluster_loss={"a": of_a, "b": 3.5})
    state = RunStatus(run).look()
    assert (state["step"], state["curves"]["loss"]) == (10, [])
    assert clusters(state, "loss") == {"a": None, "b": 3.5}
    json.dumps(state, allow_nan=False)


def test_the_loss_of_a_cluster_stays_until_it_has_rows_again(run):
    write(run, 10, 60, cluster_loss={"a": 2.5, "b": 3.5})
    write(run, 20, 70, cluster_loss={"b": 3.0})
    watch = RunStatus(run)
    assert clusters(watch.look(), "loss") == {"a": 2.5, "b": 3.0}
    assert clusters(watch.look(), "loss_step") == {"a": 10, "b": 20}
    write(run, 15, 70, cluster_loss={"a": 2.4})  # the job went back to a checkpoint
    assert clusters(watch.look(), "loss") == {"a": 2.4, "b": None}


def test_a_line_without_end_is_passed_over(run, monkeypatch):
    monkeypatch.setattr(watching, "_MOST_READ", 200)
    watch = RunStatus(run)
    watch.look()
    write(run, 10, 60)
    watch.look()
    with (run / "metrics.jsonl").open("a") as file:
        file.write("9" * 1000 + "\n")
    write(run, 20, 70)
    for _ in range(5):
        state = watch.look()
    assert state["step"] == 20


def test_a_file_that_was_replaced_by_a_longer_one_is_read_anew(run):
    watch = RunStatus(run)
    write(run, 10, 60)
    watch.look()
    (run / "metrics.jsonl").rename(run / "before.jsonl")
    write(run, 5, 5)
    write(run, 6, 5, loss=1.0, note="x" * 500)
    write(run, 7, 5, loss=2.0)
    assert watch.look()["curves"]["loss"] == [(6, 1.0), (7, 2.0)]


def test_what_followed_a_checkpoint_is_forgotten_when_the_job_goes_back_to_it(run):
    watch = RunStatus(run)
    for step in (10, 20, 30):
        write(run, step, step, loss=float(step))
    watch.look()
    write(run, 20, 150, loss=7.0)
    state = watch.look()
    assert state["curves"]["loss"] == [(10, 10.0), (20, 7.0)]
    assert clusters(state, "recent") == {"a": None, "b": None}


def test_a_file_that_has_become_shorter_is_read_anew(run):
    watch = RunStatus(run)
    for step in (10, 20, 30):
        write(run, step, step)
    watch.look()
    (run / "metrics.jsonl").unlink()
    write(run, 5, 5)
    assert watch.look()["step"] == 5


def test_of_a_long_file_the_end_alone_is_read_at_first(run, monkeypatch):
    for step in range(10, 1000, 10):
        write(run, step, step, loss=1.0)
    line = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)[-1]
    monkeypatch.setattr(watching, "_MOST_READ", 3 * len(line) + 5)
    state = RunStatus(run).look()
    assert [step for step, _ in state["curves"]["loss"]] == [970, 980, 990]


def test_new_weights_are_shown_when_they_are_asked_for_and_when_they_hold(run):
    watch = RunStatus(run)
    write(run, 10, 60)
    mixture = Mixture.of({"a": 1, "b": 3})
    write_request(run, WeightsUpdate(mixture, 0, "try"), watch.log.head)
    state = watch.look()
    assert state["asked"]["weights"] == {"a": 0.25, "b": 0.75}
    assert clusters(state, "goal")["a"] == 0.75
    log = WeightsLog.open(run / "weights.jsonl", write=True)
    log.append(mixture, 50, "try")
    state = watch.look()
    assert state["asked"] is None
    assert (clusters(state, "target")["a"], clusters(state, "goal")["a"]) == (0.75, 0.25)
    assert [state["records"][0][key] for key in ("v", "at_step", "why")] == [1, 50, "try"]
    assert [record["changed"] for record in state["records"]] == [
        [("a", 0.75, 0.25), ("b", 0.25, 0.75)],
        [("a", None, 0.75), ("b", None, 0.25)],
    ]
    assert [record["more_changed"] for record in state["records"]] == [0, 0]
    write(run, 60, 200)
    assert clusters(watch.look(), "target")["a"] == 0.25


def test_a_cap_is_shown_as_a_change_to_weight_0(run):
    log = WeightsLog.open(run / "weights.jsonl", write=True)
    log.cap(["b"], 40, "b is used up")
    log.append(Mixture.of({"a": 0.5, "c": 0.5}), 50, "another")
    another, cap, _ = RunStatus(run).look()["records"]
    assert cap["changed"] == [("a", 0.75, 1.0), ("b", 0.25, 0.0)]
    assert another["changed"] == [("a", 1.0, 0.5), ("c", 0.0, 0.5)]


def test_a_record_says_how_many_more_clusters_changed(run):
    log = WeightsLog.open(run / "weights.jsonl", write=True)
    log.append(Mixture.of({f"c{n}": n + 1 for n in range(8)}), 50, "many")
    record = RunStatus(run).look()["records"][0]
    assert (len(record["changed"]), record["more_changed"]) == (4, 6)


def test_the_state_is_json_and_does_not_grow_with_the_run(run):
    watch = RunStatus(run)
    sizes = []
    for step in range(10, 30_010, 10):
        write(run, step, step, loss=1.0, time=float(step))
        if step in (10_000, 30_000):
            sizes.append(len(json.dumps(watch.look())))
    assert sizes[1] < 1.2 * sizes[0]


@pytest.mark.parametrize("text", ["", "[", '{"settings": 3}', '{"settings": {"tokens": "x"}}', "3"])
def test_files_beside_the_metrics_that_cannot_be_read_leave_the_facts_unknown(run, text):
    write(run, 10, 60)
    for name in ("run.json", "served.jsonl"):
        (run / name).write_text(text)
    state = RunStatus(run).look()
    assert state["end_tokens"] is None
    assert clusters(state, "words") == clusters(state, "max_epochs") == {"a": None, "b": None}


def test_the_end_of_a_run_is_that_of_its_last_whole_step(run):
    plan = {"settings": {"tokens": 1000, "seq_len": 64, "batch_rows": 8}}
    (run / "run.json").write_text(json.dumps(plan))
    assert RunStatus(run).look()["end_tokens"] == 512


def test_a_run_has_ended_when_climb_train_has_left_its_result(run):
    assert not RunStatus(run).look()["ended"]
    plan = {"train": 1, "shards": "", "settings": {}}
    (run / "run.json").write_text(json.dumps(plan))
    assert not RunStatus(run).look()["ended"]
    (run / "result.json").write_text("{}")
    assert RunStatus(run).look()["ended"]


def test_the_loss_of_each_cluster_is_a_curve_that_goes_back_with_the_job(run):
    watch = RunStatus(run)
    for step, loss in ((10, 3.0), (20, 2.5), (10, 2.9)):
        write(run, step, 60, cluster_loss={"a": loss})
    assert watch.look()["loss_curves"] == {"a": [(10, 2.9)]}

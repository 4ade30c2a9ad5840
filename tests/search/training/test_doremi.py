"""Online rules: losses in, weights out; DoReMi raises what lags behind a reference."""

import dataclasses
import json
import signal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from climbstream.loader import Mixture
from climbstream.loader.cli.main import run
from climbstream.loader.core.engines.task_timeout import TIMEOUT
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.weights.log import WeightsLog
from climbstream.search.experiments.doremi_search import run_doremi
from climbstream.search.training.doremi import DoReMi
from climbstream.search.training.model import make_model
from climbstream.search.training.online_mixing import OnlineRule
from climbstream.search.training.settings import TrainSettings
from climbstream.search.training.trainer import train_model

SETTINGS = TrainSettings(tokens=128 * 24, seq_len=32, batch_rows=4)
PRIOR = Mixture.of({"a": 0.5, "b": 0.3, "c": 0.2, "none": 0})


class Stop(Exception):  # noqa: N818
    """Raised in the middle of a run."""


class Hardest(OnlineRule):
    """Half of the weight to the cluster with the largest loss: a rule of one's own."""

    every = 4

    def __init__(self, names):
        self.names = names
        self.heard = []

    def follow(self, losses):
        """Raise the worst."""
        self.heard.append(losses)
        worst = max(losses, key=losses.get)
        return {name: 1.0 + (name == worst) * len(self.names) for name in self.names}


@pytest.fixture(scope="module")
def fresh():
    return make_model("tiny", 600, 32, 9)


def stop_at(step):
    def on_step(done, loss):
        if done == step:
            raise Stop

    return on_step


# The interface of a rule.


def test_weights_of_an_own_rule_hold_from_the_step_after_its_choice(shards, shares, tmp_path):
    rule = Hardest(list(shares.weights))
    log = tmp_path / "weights.jsonl"
    train_model(shards, shares, SETTINGS, 0, rule=rule, weights_log=log)
    assert len(rule.heard) == 6
    records = WeightsLog.open(log, write=False).records
    assert {record.at_step for record in records} <= {0, 4, 8, 12, 16, 20, 24}
    assert len(records) >= 2
    assert [record.why for record in records[1:]] == ["Hardest"] * (len(records) - 1)
    for record in records[1:]:
        worst = max(rule.heard[record.at_step // 4 - 1].items(), key=lambda item: item[1])[0]
        assert max(record.weights, key=record.weights.get) == worst


def test_a_rule_that_lets_weights_be_changes_nothing(shards, shares):
    class Idle(OnlineRule):
        def follow(self, losses):
            del losses

    plain = train_model(shards, shares, SETTINGS, 0)
    idle = train_model(shards, shares, SETTINGS, 0, rule=Idle())
    assert (idle.loss, idle.served) == (plain.loss, plain.served)


def test_a_checkpoint_without_a_rule_is_no_begin_of_a_run_with_one(shards, shares, tmp_path):
    kept = {"checkpoint": tmp_path / "kept.pt", "every": 2}
    with pytest.raises(Stop):
        train_model(shards, shares, SETTINGS, 0, **kept, on_step=stop_at(3))
    with pytest.raises(InvalidDataError, match="rule was not given and is 'Hardest'"):
        train_model(shards, shares, SETTINGS, 0, **kept, rule=Hardest(list(shares.weights)))


# DoReMi.


@given(st.floats(0, 10), st.integers(1, 30))
def test_equal_excess_leaves_weights_at_the_prior(excess, times):
    rule = DoReMi(make_model("tiny", 8, 8, 0), PRIOR)
    for _ in range(times):
        weights = rule.follow(dict.fromkeys("abc", excess))
    assert weights == pytest.approx({"a": 0.5, "b": 0.3, "c": 0.2})
    assert rule.average.weights == pytest.approx(weights)


def test_a_choice_is_the_step_of_the_paper(fresh):
    rule = DoReMi(fresh, Mixture.of({"a": 0.75, "b": 0.25}), rate=2, smoothing=0.1)
    e = float(torch.exp(torch.tensor(1.0, dtype=torch.float64)))
    share = 0.25 * e / (0.25 * e + 0.75)
    assert rule.follow({"a": 0.0, "b": 0.5})["b"] == pytest.approx(0.9 * share + 0.1 * 0.25)


def test_a_cluster_without_rows_lags_as_it_did(fresh):
    one, other = DoReMi(fresh, PRIOR), DoReMi(fresh, PRIOR)
    first = {"a": 0.1, "b": 0.4, "c": 0.2}
    for rule in (one, other):
        rule.follow(first)
    assert one.follow({"a": 0.3}) == other.follow({**first, "a": 0.3})


def test_the_excess_is_clipped_token_by_token(fresh):
    rule = DoReMi(fresh, PRIOR)
    batch = torch.randint(0, 600, (2, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        known = torch.nn.functional.cross_entropy(
            fresh(input_ids=batch).logits[:, :-1].transpose(1, 2), batch[:, 1:], reduction="none"
        )
    losses = torch.zeros(2, 32)
    losses[:, :-1] = known
    losses[0, 0] += 3.1
    losses[0, 1] -= 50
    assert rule.measure(batch, losses).tolist() == pytest.approx([0.1, 0.0], abs=1e-5)


def test_what_a_reference_has_learnt_and_the_follower_has_not_is_raised(shards, shares):
    names = list(shares.weights)
    learnt = names[-1]
    reference = train_model(
        shards,
        Mixture.of({learnt: 1}),
        TrainSettings(tokens=128 * 150, seq_len=32, batch_rows=4),
        0,
    ).model
    rule = DoReMi(reference, shares, every=4)
    trained = train_model(shards, shares, SETTINGS, 1, rule=rule)
    gains = {name: rule.average.weights[name] / shares.weights[name] for name in names}
    assert max(gains, key=gains.get) == learnt
    assert gains[learnt] > 1.5
    plain = train_model(shards, shares, SETTINGS, 1)
    assert trained.served[learnt] > plain.served[learnt]


@pytest.mark.parametrize("every", [1, 3, 5])
def test_a_follower_that_is_interrupted_ends_with_the_same_choices(
    shards, shares, fresh, tmp_path, every
):
    def follow(folder, stops=(), **kept):
        for step in (*stops, None):
            rule = DoReMi(fresh, shares, every=4)
            log = tmp_path / folder
            on_step = None if step is None else stop_at(step)
            try:
                train_model(
                    shards, shares, SETTINGS, 0, rule=rule, weights_log=log, on_step=on_step, **kept
                )
            except Stop:
                assert step is not None
        return rule.state_dict(), log.read_bytes()

    kept = {"checkpoint": tmp_path / "kept.pt", "every": every}
    assert follow("one", stops=(2, 7, 13, 14, 24), **kept) == follow("other")


def test_a_run_leaves_a_mixture_and_what_it_and_the_token_shares_score(
    shards, tmp_path, capsys, shares
):
    found = run_doremi(shards, ["label=sea"], tmp_path, SETTINGS, workers=1)
    mixture = Mixture.load(tmp_path / "mixture.json")
    assert mixture.weights == found["mixture"]["weights"] != shares.weights
    assert {name: list(of) for name, of in found["scores"].items()} == {
        "mixture": ["label=sea"],
        "token_shares": ["label=sea"],
    }
    records = WeightsLog.open(tmp_path / "weights.jsonl", write=False).records
    assert [record.at_step for record in records] == [0, 10, 20]
    # What has ended is not checked again.
    checked = []
    again = run_doremi(shards, ["label=sea"], tmp_path, SETTINGS, check=lambda: checked.append(1))
    assert (again, checked) == (found, [])
    asked = f"search {shards} --preset doremi --target label=sea --proxy-tokens {SETTINGS.tokens} "
    asked += f"--seq-len 32 --batch-rows 4 --average 0 --out {tmp_path} --json"
    capsys.readouterr()
    assert run(asked.split()) == 0
    assert json.loads(capsys.readouterr().out) == found


def test_without_targets_there_is_a_mixture_and_nothing_is_scored(shards, tmp_path):
    found = run_doremi(shards, (), tmp_path, SETTINGS)
    assert found["scores"] == {}
    assert Mixture.load(tmp_path / "mixture.json").weights == found["mixture"]["weights"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "--proxy-tokens 2048",
            "error: 2,048 tokens are only 4 steps, and DoReMi chooses weights ",
        ),
        (
            "--final-tokens 9999 --pin c00=0.5 --engine ray",
            "error: --preset doremi does not use --final-tokens, --pin, --engine",
        ),
    ],
)
def test_what_doremi_cannot_is_one_line(shards, tmp_path, capsys, more, said):
    asked = f"search {shards} --preset doremi --target label=sea --out {tmp_path / 'out'} {more}"
    assert run(asked.split()) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(said)


@pytest.mark.slow
def test_a_run_that_is_killed_ends_with_the_mixture_of_one_that_is_not(shards, tmp_path, commands):
    def asked(out):
        return (
            *("search", shards, "--preset", "doremi", "--target", "label=sea", "--out", out),
            *("--proxy-tokens", 128 * 110, "--seq-len", 32, "--batch-rows", 4, "--workers", 1),
        )

    cut, whole = tmp_path / "cut", tmp_path / "whole"
    assert commands.killed((cut / "follower.begun.pt").exists, *asked(cut))
    said = commands.finish(*asked(cut))
    assert "continuing the search" in said
    assert run([*map(str, asked(whole))]) == 0
    for name in ("mixture.json", "result.json", "weights.jsonl"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
def test_a_model_that_is_stopped_is_trained_on_by_another_process_to_the_same_mixture(
    shards, tmp_path, monkeypatch, capsys, signal_workers
):
    settings = dataclasses.replace(SETTINGS, tokens=128 * 400)
    whole = run_doremi(shards, [], tmp_path / "whole", settings, workers=1)
    monkeypatch.setenv(TIMEOUT, "4")
    with signal_workers(signal.SIGSTOP, 1) as stopped:
        assert run_doremi(shards, [], tmp_path / "stopped", settings, workers=1) == whole
    assert len(stopped) == 1
    assert "the task is tried again" in capsys.readouterr().err

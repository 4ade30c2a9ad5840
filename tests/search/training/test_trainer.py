"""Training counts tokens, ends annealed, and gives the same bits, interrupted or not."""

import json
import re
import signal
import threading
import time

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from climbstream.loader import (
    ClusterLoss,
    Manifest,
    Mixture,
    MixtureLoader,
    TensorBoardWriter,
)
from climbstream.loader.cli.main import run
from climbstream.loader.core.errors import InvalidDataError, LockedError, UsageError
from climbstream.loader.core.files import lock
from climbstream.loader.monitoring.run_status import RunStatus
from climbstream.loader.weights.request import LOG, open_weights_log, write_request
from climbstream.loader.weights.update import WeightsUpdate
from climbstream.search.cli.search import _train_text
from climbstream.search.training.model import make_model
from climbstream.search.training.online_mixing import row_means, token_losses
from climbstream.search.training.run import train_run
from climbstream.search.training.settings import TrainSettings
from climbstream.search.training.trainer import train_model

QUICK = {"seq_len": 32, "batch_rows": 4}
"""A step of 128 tokens."""


class Stop(Exception):  # noqa: N818
    """Raised in the middle of a run."""


def settings(steps=12, **more):
    return TrainSettings(tokens=128 * steps, **{**QUICK, **more})


def stop_at(step):
    def on_step(done, loss):
        if done == step:
            raise Stop

    return on_step


def assert_same(one, other):
    assert (one.loss, one.served, one.epochs) == (other.loss, other.served, other.epochs)
    theirs = other.model.state_dict()
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


# Schedule.


def test_the_rate_rises_stays_and_ends_near_zero():
    rates = [settings(100).rate(step) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert set(rates[4:61]) == {1.0}
    assert rates[60:] == sorted(rates[60:], reverse=True)
    assert rates[-1] == pytest.approx(1 / 40)
    assert settings(100).rate(100) == 0


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_the_rate_of_a_short_run_is_never_zero(steps):
    assert all(0 < settings(steps).rate(step) <= 1 for step in range(steps))


def test_the_last_whole_step_ends_before_the_tokens_do():
    assert TrainSettings(tokens=1000, **QUICK).steps == 7


def test_tokens_for_less_than_a_step_are_refused_with_numbers():
    with pytest.raises(
        UsageError, match="127 tokens are less than one step of 4 rows of 32; give 128 or more"
    ):
        TrainSettings(tokens=127, **QUICK)


@pytest.mark.parametrize("name", ["seq_len", "batch_rows", "learning_rate"])
def test_a_setting_that_cannot_be_is_named(name):
    with pytest.raises(UsageError, match=f"{name} is 0; it must be more than 0"):
        settings(**{name: 0})


# Training.


def test_the_loss_falls(shards, shares):
    losses = []
    trained = train_model(
        shards, shares, settings(60), 0, on_step=lambda _, loss: losses.append(loss)
    )
    assert len(losses) == 60
    assert trained.loss == pytest.approx(sum(losses[-6:]) / 6)
    assert trained.loss < losses[0] - 1


def test_equal_arguments_give_equal_weights(shards, shares):
    one, same = (train_model(shards, shares, settings(), 3) for _ in range(2))
    assert_same(one, same)


def test_a_run_ends_with_the_mean_of_its_last_weights(shards, shares, tmp_path):
    file, kept = tmp_path / "kept.pt", []

    def keep(step, _):
        if step > 8:  # the checkpoint is that of the step before
            kept.append(torch.load(file, weights_only=True)["model"])

    last = settings(10, average=0.3)
    trained = train_model(shards, shares, last, 3, checkpoint=file, every=1, on_step=keep)
    kept.append(torch.load(file, weights_only=True)["model"])
    assert len(kept) == 3
    for name, tensor in trained.model.state_dict().items():
        mean = torch.stack([weights[name] for weights in kept]).mean(dim=0)
        assert torch.allclose(tensor, mean, atol=1e-6), name
    end = train_model(shards, shares, settings(10), 3).model.state_dict()
    assert all(torch.equal(end[name], kept[-1][name]) for name in end)


@pytest.mark.parametrize("part", [-0.1, 1.1])
def test_a_mean_over_no_part_of_the_steps_is_refused(part):
    with pytest.raises(UsageError, match=f"average is {part}; it must be a fraction of the steps"):
        settings(average=part)


def test_seeds_differ_in_weights_and_order(shards, shares):
    one, other = (train_model(shards, shares, settings(), seed) for seed in (0, 1))
    assert one.loss != other.loss


@pytest.mark.parametrize("every", [1, 3, 5])
def test_a_run_that_is_interrupted_ends_with_the_weights_of_one_that_is_not(
    shards, shares, tmp_path, every
):
    whole = settings(average=0.5)
    expected = train_model(shards, shares, whole, 3)
    log = tmp_path / "weights.jsonl"
    kept = {"checkpoint": tmp_path / "kept.pt", "every": every, "weights_log": log}
    for step in (1, 4, 7, 12):
        with pytest.raises(Stop):
            train_model(shards, shares, whole, 3, **kept, on_step=stop_at(step))
    assert kept["checkpoint"].exists()
    assert_same(train_model(shards, shares, whole, 3, **kept), expected)


def test_a_run_goes_on_from_its_checkpoint_and_not_from_the_start(shards, shares, tmp_path):
    kept = {"checkpoint": tmp_path / "kept.pt", "every": 4}
    with pytest.raises(Stop):
        train_model(shards, shares, settings(), 3, **kept, on_step=stop_at(7))
    steps = []
    train_model(shards, shares, settings(), 3, **kept, on_step=lambda step, _: steps.append(step))
    assert steps == list(range(5, 13))


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"seed": 4}, "seed was 3 and is 4"),
        ({"mixture": "uniform"}, "mixture.c00 was"),
        ({"settings": settings(24)}, "--tokens was 1536 and is 3072"),
        ({"settings": settings(model="mini")}, "--model was 'tiny' and is 'mini'"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(shards, shares, tmp_path, other, named):
    mine = {"mixture": shares, "settings": settings(), "seed": 3}
    if "mixture" in other:
        other = {"mixture": Mixture.uniform(list(shares.weights))}
    train_model(shards, **mine, checkpoint=tmp_path / "kept.pt", every=4)
    with pytest.raises(InvalidDataError, match=named):
        train_model(shards, **mine | other, checkpoint=tmp_path / "kept.pt")


def test_a_loss_that_is_no_number_is_an_error_with_step_and_remedy(shards, shares):
    with pytest.raises(
        InvalidDataError,
        match=r"loss is not finite at step \d+ of 12; try a smaller learning rate than 1e\+09",
    ):
        train_model(shards, shares, settings(learning_rate=1e9), 0)


def test_served_tokens_follow_the_mixture(shards, shares):
    first, second, *rest = shares.weights
    mixture = Mixture.of({first: 0.7, second: 0.3})
    trained = train_model(shards, mixture, settings(25), 0)
    assert sum(trained.served.values()) == 25 * 128
    assert trained.served[first] == pytest.approx(0.7 * 25 * 128, abs=32)
    assert trained.served[second] == pytest.approx(0.3 * 25 * 128, abs=32)
    assert not any(trained.served[name] or trained.epochs[name] for name in rest)
    assert trained.epochs[first] > trained.epochs[second] > 0


# A run in a folder.


@pytest.fixture(scope="module")
def trained(shards, shares, tmp_path_factory):
    """Folder and result of a finished run."""
    out = tmp_path_factory.mktemp("train") / "out"
    return out, train_run(shards, shares, settings(), 0, out)


def test_a_run_leaves_its_result_model_and_log(trained):
    out, result = trained
    assert json.loads((out / "result.json").read_text()) == result
    assert (result["steps"], result["tokens"], sum(result["served"].values())) == (12, 1536, 1536)
    there = {path.name for path in out.iterdir()}
    logs = {"weights.jsonl", "weights.clusters.json", "served.jsonl", "metrics.jsonl"}
    assert there == {"run.json", "result.json", "model", *logs}


def test_the_metrics_of_a_run_are_written(trained):
    out, result = trained
    (line,) = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert (line["step"], line["tokens"]) == (12, 1536)
    assert line["served"] == {name: n / 1536 for name, n in result["served"].items()}
    assert line["epochs"] == result["epochs"]
    assert line["loss"] > 0
    assert line["cluster_loss"].keys() == {name for name, n in result["served"].items() if n}


def test_losses_of_rows_are_those_of_the_model_and_sum_up_by_cluster(shards, shares, tmp_path):
    losses, path = [], tmp_path / "metrics.jsonl"
    train_model(
        shards, shares, settings(5), 0, metrics=path, on_step=lambda _, loss: losses.append(loss)
    )
    line = json.loads(path.read_text())
    rows = {name: share * 5 * 4 for name, share in line["served"].items()}
    mean = sum(rows[name] * loss for name, loss in line["cluster_loss"].items()) / (5 * 4)
    assert mean == pytest.approx(sum(losses) / 5)

    manifest = Manifest.load(shards)
    model = make_model("tiny", manifest.vocab_size, 32, 0)
    batch = torch.randint(0, manifest.vocab_size, (4, 32))
    theirs = model(input_ids=batch, labels=batch)
    ours = row_means(token_losses(theirs.logits, batch)).mean()
    assert ours.item() == pytest.approx(theirs.loss.item())


def test_what_will_be_used_up_is_said_and_the_end_of_the_data_is_an_error(
    shards, shares, tmp_path, capsys
):
    with pytest.raises(UsageError, match=r"data ends at step \d of 12: each .* was read 0\.01 ti"):
        train_run(shards, shares, settings(), 0, tmp_path / "run", max_epochs=0.01)
    said = capsys.readouterr().err
    assert "step 0: max_epochs is reached by c0" in said
    assert ", before the run ends at step 12" in said


def test_epochs_are_part_of_what_a_run_was_begun_with(trained, shards, shares):
    out, _ = trained
    with pytest.raises(InvalidDataError, match=r"--max-epochs was not given and is 2\.0"):
        train_run(shards, shares, settings(), 0, out, max_epochs=2.0)


def test_an_audit_of_a_run_finds_what_it_served(trained, capsys):
    out, result = trained
    assert run(["audit", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["steps"], found["again"]) == (12, 0)
    assert {c["name"]: c["tokens"] for c in found["clusters"]} == result["served"]


def test_a_batch_of_a_run_is_explained_by_documents_of_the_corpus(trained, built, capsys):
    out, _ = trained
    assert run(["explain", str(out), "--step", "12", "--json"]) == 0
    pieces = json.loads(capsys.readouterr().out)["pieces"]
    assert {piece["row"] for piece in pieces} == {0, 1, 2, 3}
    ids = {record["id"] for record in built.records}
    assert {piece["id"] for piece in pieces} <= ids
    assert {piece["origin"].split(":")[0] for piece in pieces} != {""}


def test_transformers_loads_the_model(trained, shards, shares):
    out, _ = trained
    model = AutoModelForCausalLM.from_pretrained(out / "model")
    expected = train_model(shards, shares, settings(), 0)
    for name, tensor in expected.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert model.config.eos_token_id == Manifest.load(shards).eos_id


def test_transformers_loads_the_tokenizer(trained, shards, built):
    tokenizer = AutoTokenizer.from_pretrained(trained[0] / "model")
    ours = Tokenizer.from_file(str(shards / "tokenizer.json"))
    for text in (built.records[0]["text"], "  two spaces,\n a line and ünïcode "):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids == ours.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text
    assert tokenizer.eos_token_id == Manifest.load(shards).eos_id


def test_a_finished_run_is_not_trained_again(trained, shards, shares):
    out, result = trained
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert train_run(shards, shares, settings(), 0, out) == result
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_run_takes_up_weights_that_are_asked_for_meanwhile(shards, shares, tmp_path):
    asked = Mixture.of({"c01": 1})

    def ask_soon():
        while not ((tmp_path / LOG).exists() and (tmp_path / LOG).read_text().endswith("\n")):
            time.sleep(0.001)
        write_request(
            tmp_path, WeightsUpdate(asked, why="anneal"), after=open_weights_log(tmp_path).head
        )

    asking = threading.Thread(target=ask_soon)
    asking.start()
    result = train_run(shards, shares, settings(160), 0, tmp_path)
    asking.join()
    (_, record) = open_weights_log(tmp_path).records
    assert record.why == "anneal"
    assert record.at_step % 16 == 0
    assert record.at_step < 160
    served = result["served"].pop("c01")
    left = sum(result["served"].values())
    # Of the steps before, the others had what the shares give them; afterwards nothing.
    before = 128 * record.at_step
    assert left == pytest.approx(before * (1 - shares.weights["c01"]), abs=32 * len(shares.weights))
    assert served + left == result["tokens"]


def test_a_folder_of_another_run_is_refused_by_what_differs(trained, shards, shares):
    with pytest.raises(InvalidDataError, match=r"begun differently: --learning-rate was"):
        train_run(shards, shares, settings(learning_rate=1e-3), 0, trained[0])
    with pytest.raises(InvalidDataError, match="seed was 0 and is 1"):
        train_run(shards, shares, settings(), 1, trained[0])


def test_a_folder_that_another_process_holds_is_refused(shards, shares, tmp_path):
    with lock(tmp_path), pytest.raises(LockedError):
        train_run(shards, shares, settings(), 0, tmp_path)


def test_the_command_writes_its_result_and_nothing_else_to_stdout(
    shards, tmp_path, capsys, scalars
):
    mixture = tmp_path / "mixture.json"
    Mixture.of({Manifest.load(shards).names[0]: 1.0}).save(mixture)
    arguments = f"train {shards} --mixture {mixture} --tokens 1024 --out {tmp_path / 'out'}"
    assert run([*arguments.split(), "--tensorboard", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((tmp_path / "out" / "result.json").read_text())
    assert list(result["served"].values()) == [1024, *[0] * (len(result["served"]) - 1)]
    line = json.loads((tmp_path / "out" / "metrics.jsonl").read_text())
    shown = scalars(tmp_path / "out" / "events")
    assert shown["loss"] == pytest.approx({line["step"]: line["loss"]})
    assert shown[f"cluster_loss/{next(iter(line['cluster_loss']))}"]
    assert run(arguments.split()) == 0
    said = capsys.readouterr().out
    loss = f"mean loss of the last tenth of the steps: {result['loss']:.4f} nats per token\n"
    assert said == f"{loss}1,024 tokens · {tmp_path}/out\n"
    asked = arguments.replace("1024", "1100")
    assert run([*asked.split(), "--dry-run"]) == 0
    assert "measuring the time of a training step" in capsys.readouterr().err


def test_the_command_says_that_fewer_tokens_than_asked_for_are_trained_on():
    said = _train_text({"loss": 2.0, "steps": 976, "tokens": 499_712}, 500_000, "out")
    assert said.endswith("\n499,712 tokens, 976 whole steps of 512, of the 500,000 asked for · out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--seq-len 9999999", "choose a smaller seq_len, at most "),
        ("--max-epochs -1", "max_epochs"),
        ("--mixture OTHER", "the mixture gives weight to c77, but the clusters are"),
    ],
)
def test_settings_that_do_not_fit_the_shards_write_nothing(
    shards, tmp_path, capsys, options, message
):
    other = tmp_path / "other.json"
    other.write_text('{"c77": 1}')
    begin = f"train {shards} --tokens 100000000 --batch-rows 4 --out {tmp_path / 'out'}"
    if "seq-len" in options:
        shares = Manifest.load(shards).token_shares
        other.write_text(json.dumps(shares.weights))
        options += " --mixture OTHER"
    assert run([*begin.split(), *options.replace("OTHER", str(other)).split()]) in (2, 3)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_run_says_truly_where_it_goes_on(shards, tmp_path, capsys):
    out = tmp_path / "out"
    begin = f"train {shards} --tokens 1024 --seq-len 32 --batch-rows 4 --save-every 3 --out {out}"
    assert run(begin.split()) == 0
    whole = (out / "model" / "model.safetensors").read_bytes()
    capsys.readouterr()
    assert run(begin.split()) == 0
    assert f"the run in {out} has ended; its result is shown again" in capsys.readouterr().err
    (out / "result.json").unlink()
    assert run(begin.split()) == 0
    assert "it begins again from step 0; --save-every saves" in capsys.readouterr().err
    assert (out / "model" / "model.safetensors").read_bytes() == whole


def test_a_run_follows_a_schedule_of_mixtures(shards, tmp_path, capsys):
    one, other = Manifest.load(shards).names[:2]
    entries = [{"step": 0, "weights": {one: 1}}, {"step": 3, "weights": {other: 1}}]
    file = tmp_path / "schedule.json"
    file.write_text(json.dumps({"version": 1, "schedule": entries}))
    begin = f"train {shards} --tokens 1024 --seq-len 32 --batch-rows 4 --out {tmp_path / 'out'}"
    assert run([*begin.split(), "--schedule", str(file), "--json"]) == 0
    served = json.loads(capsys.readouterr().out)["served"]
    assert {name: tokens for name, tokens in served.items() if tokens} == {
        one: 3 * 128,
        other: 5 * 128,
    }
    entries[1]["step"] = 4
    file.write_text(json.dumps({"version": 1, "schedule": entries}))
    assert run([*begin.split(), "--schedule", str(file)]) == 3
    assert "was begun differently: schedule" in capsys.readouterr().err
    assert run([*begin.split(), "--schedule", str(file), "--mixture", "m.json"]) == 2
    assert "give one" in capsys.readouterr().err


@pytest.mark.slow
def test_a_command_that_is_killed_and_run_again_gives_the_same_result(shards, tmp_path, commands):
    def arguments(out):
        tokens = f"--tokens={128 * 700}"
        return ["train", shards, tokens, "--seq-len=32", "--batch-rows=4", "--out", out]

    assert run([*map(str, arguments(tmp_path / "whole"))]) == 0
    out = tmp_path / "killed"
    checkpoint = out / "checkpoint.pt"
    seen = []

    def saved_again():
        if checkpoint.exists() and (time := checkpoint.stat().st_mtime_ns) not in seen:
            seen.append(time)
            return True
        return False

    kills = commands.killed(lambda: (out / "weights.jsonl").exists(), *arguments(out))
    kills += commands.killed(saved_again, *arguments(out))
    kills += commands.killed((out / "model" / "config.json").exists, *arguments(out))
    assert kills >= 2
    said = commands.finish(*arguments(out))
    assert re.search(r"continuing the run in .* from its last checkpoint, at step 500", said)
    for name in ("result.json", "model/model.safetensors", "model/tokenizer.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert {path.name for path in out.iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()
    }
    assert commands.orphans() == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_a_checkpoint_and_the_run_goes_on_from_it(
    shards, tmp_path, commands, number
):
    def arguments(out):
        tokens = f"--tokens={128 * 400}"
        return ["train", shards, tokens, "--seq-len=32", "--batch-rows=4", "--out", out]

    out = tmp_path / "stopped"
    with commands.start(*arguments(out)) as process:
        while process.poll() is None and not (out / "metrics.jsonl").exists():
            time.sleep(0.002)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said
    step = int(re.search(r"stopped after step (\d+) of 400, saved in", said)[1])
    assert 100 <= step < 400
    assert torch.load(out / "checkpoint.pt", weights_only=True)["schedule"]["last_epoch"] == step
    said = commands.finish(*arguments(out))
    assert f"continuing the run in {out} from its last checkpoint, at step {step}" in said
    commands.finish(*arguments(tmp_path / "whole"))
    for name in ("result.json", "model/model.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert run(["audit", str(out)]) == 0


# Held-out text.


def metrics_of(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_the_loss_on_held_out_text_is_measured_by_cluster(shards, shares, tmp_path, scalars):
    writer = TensorBoardWriter(tmp_path / "events")
    run = settings(210)
    train_run(shards, shares, run, 0, tmp_path / "run", writers=[writer], heldout_every=200)
    first, second, last = (line.get("heldout_loss") for line in metrics_of(tmp_path / "run"))
    assert first is None
    assert {*second} == {*last} == {*shares.weights}
    assert all(0 < last[name] < 6 for name in last)
    written = scalars(tmp_path / "events")
    assert written["heldout_loss/c00"].keys() == {200, 210}
    assert written["heldout_loss/c00"][210] == pytest.approx(last["c00"])
    status = RunStatus(tmp_path / "run").look()
    assert {c["name"]: c["heldout_loss"] for c in status["clusters"]} == pytest.approx(last)


def test_the_loss_on_held_out_text_is_that_of_the_model_that_is_left(shards, shares, tmp_path):
    train_run(shards, shares, settings(60), 0, tmp_path / "run")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model").eval()
    loader = MixtureLoader(shards, seq_len=32, batch_rows=4)
    losses = ClusterLoss(loader.names)
    # A sixteenth of the tokens between two measurements, 500 steps by default.
    for batch in loader.heldout(max_tokens=500 * 128 // 16):
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"]).logits
        losses.add(batch["cluster_ids"], row_means(token_losses(logits, batch["input_ids"])))
    (line,) = metrics_of(tmp_path / "run")
    assert line["heldout_loss"] == pytest.approx(losses.take(), rel=1e-4)


def test_measuring_changes_no_bit_of_the_training(shards, shares, tmp_path):
    with_, without = (
        train_run(shards, shares, settings(110), 0, tmp_path / str(every), heldout_every=every)
        for every in (50, 0)
    )
    assert with_["loss"] == without["loss"]
    assert not [line for line in metrics_of(tmp_path / "0") if "heldout_loss" in line]


def test_lanes_may_be_chosen_and_their_default_is_not_noted(shards, shares, tmp_path):
    assert "lanes" not in settings().to_json()
    assert settings(lanes=24).to_json()["lanes"] == 24
    train_run(shards, shares, settings(lanes=3), 0, tmp_path / "run")
    log = json.loads((tmp_path / "run" / "served.jsonl").read_text().splitlines()[0])
    assert log["state"]["lanes"] == 3

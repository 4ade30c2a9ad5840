"""The ledger: what was served can be recomputed, each step once, whatever a run went through."""

import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.builder import import_corpus
from climbstream.loader import MixtureLoader, Schedule
from climbstream.loader.audit.auditor import audit_run
from climbstream.loader.audit.explain import explain_step
from climbstream.loader.audit.ledger import read_ledger, segments
from climbstream.loader.audit.replay import Replay
from climbstream.loader.cli.main import call, run
from climbstream.loader.core.errors import IntegrityError, InvalidDataError, UsageError
from climbstream.loader.core.files import hash_json

SEQ_LEN = 8
ROWS = {"c00": 200, "c01": 40, "c02": 24}
WEIGHTS = {"c00": 0.5, "c01": 0.3, "c02": 0.2}
OTHERS = {"c00": 0.1, "c02": 0.9}
BATCH = 8


@pytest.fixture(scope="module")
def shards(tmp_path_factory, make_shards, counted_documents):
    lengths = {name: [5, 11] * (rows // 2) for name, rows in ROWS.items()}
    directory = tmp_path_factory.mktemp("shards")
    return make_shards(directory, counted_documents(lengths), shard_bytes=200)


@pytest.fixture
def open_loader(shards, tmp_path):
    """Return a function that opens a loader that writes its log and ledger to a folder."""

    def open_(run=tmp_path, **given):
        kwargs = {
            "weights": WEIGHTS,
            "seq_len": SEQ_LEN,
            "batch_rows": BATCH,
            "weights_log": run / "weights.jsonl",
            "ledger": run / "served.jsonl",
        }
        return MixtureLoader(shards.directory, **(kwargs | given))

    return open_


def serve(loader, steps):
    return [next(loader) for _ in range(steps)]


def audit(run, **given):
    return audit_run(Replay(run, **given))


def assert_agrees(run, loader):
    """The audit passes, and counts what the loader counted."""
    found = audit(run)
    assert found.steps == loader.step
    assert {c.name: c.tokens for c in found.clusters} == loader.tokens_served
    assert {c.name: c.epochs for c in found.clusters} == loader.epochs
    assert sum(c.target for c in found.clusters) == pytest.approx(1)
    return found


def change(path, number, **fields):
    """Change a line, and make all hashes fit again."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[number] |= fields
    head = ""
    for line in lines:
        line["prev"] = head
        del line["hash"]
        head = line["hash"] = hash_json(line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


# What is written.


def test_the_ledger_begins_with_what_decides_a_run(open_loader, tmp_path, shards):
    loader = open_loader(seed=7, lanes=4, pack="bfd", max_epochs={"c01": 2})
    serve(loader, 3)
    loader.flush()
    opening, block = read_ledger(tmp_path / "served.jsonl")
    assert (opening.shards, opening.max_epochs) == (str(shards.directory), {"c01": 2.0})
    state = opening.state
    assert (state.seed, state.seq_len, state.batch_rows) == (7, SEQ_LEN, BATCH)
    assert (state.lanes, state.pack, state.clusters) == (4, "bfd", list(ROWS))
    assert state.data == shards.manifest.fingerprint
    assert (block.step, block.steps, block.v) == (0, 3, 0)
    assert block.weights == loader.state_dict()["weights"][0]["hash"]
    assert dict(zip(ROWS, block.rows, strict=True)) == {
        name: tokens // SEQ_LEN for name, tokens in loader.tokens_served.items()
    }
    assert block.tokens == 3 * BATCH * SEQ_LEN


def test_blocks_are_written_many_steps_at_a_time(open_loader, tmp_path):
    loader = open_loader()
    serve(loader, 3000)
    blocks = read_ledger(tmp_path / "served.jsonl")[1:]
    assert [b.step for b in blocks] == [0, blocks[0].steps]
    # A block ends with a plan, and that has 256 steps at most.
    assert all(1024 <= b.steps < 1024 + 256 for b in blocks)


def test_a_loader_that_serves_nothing_writes_nothing(open_loader, tmp_path):
    open_loader().state_dict()
    assert not (tmp_path / "served.jsonl").exists()


def test_a_state_that_is_saved_twice_writes_a_step_once(open_loader, tmp_path):
    loader = open_loader()
    for _ in range(5):
        serve(loader, 1)
        assert loader.state_dict() == loader.state_dict()
    blocks = read_ledger(tmp_path / "served.jsonl")[1:]
    assert [(b.step, b.steps) for b in blocks] == [(i, 1) for i in range(5)]


def test_a_block_has_one_record_of_weights(open_loader, tmp_path):
    loader = open_loader(weights=Schedule.of([(0, WEIGHTS), (5, OTHERS, 4)]))
    serve(loader, 7)
    loader.set_weights(WEIGHTS, at_step=12)
    serve(loader, 8)
    loader.flush()
    blocks = read_ledger(tmp_path / "served.jsonl")[1:]
    assert [(b.step, b.steps, b.v) for b in blocks] == [
        (0, 5, 0),
        (5, 7, 1),
        (12, 3, 2),
    ]
    assert_agrees(tmp_path, loader)


@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_the_ledger_is_the_same_on_any_number_of_ranks(open_loader, tmp_path, world_size):
    served = []
    for number in (1, world_size):
        folder = tmp_path / str(number)
        folder.mkdir(exist_ok=True)
        ranks = [open_loader(folder, rank=r, world_size=number) for r in range(number)]
        for loader in ranks:
            serve(loader, 20)
            loader.flush()
        served.append(read_ledger(folder / "served.jsonl")[1:])
    assert served[0][-1] == served[1][-1]


# What an audit finds right.


@pytest.mark.parametrize(
    "settings", [{"pack": "concat"}, {"pack": "bfd"}, {"pack": "bos"}, {"fraction": 0.2}]
)
def test_a_run_is_as_its_log_says(open_loader, tmp_path, settings):
    loader = open_loader(**settings)
    serve(loader, 50)
    loader.set_weights(OTHERS, ramp=10, why="anneal")
    serve(loader, 50)
    loader.flush()
    found = assert_agrees(tmp_path, loader)
    assert (found.first, found.again, found.unwritten) == (0, 0, 0)
    for cluster in found.clusters:
        assert cluster.served == pytest.approx(cluster.target, abs=1.5 / (100 * BATCH))


def test_capped_clusters_are_as_the_log_says(open_loader, tmp_path):
    loader = open_loader(max_epochs=1.5)
    steps = len(list(loader))
    loader.flush()
    assert assert_agrees(tmp_path, loader).steps == steps
    assert len(loader.state_dict()["weights"]) == 1


def test_what_is_served_again_after_a_crash_is_counted_once(open_loader, tmp_path):
    loader = open_loader()
    serve(loader, 10)
    state = loader.state_dict()
    serve(loader, 7)
    loader.flush()  # and then it crashes
    again = open_loader().load_state_dict(state)
    serve(again, 4)
    again.flush()
    found = assert_agrees(tmp_path, again)
    assert (found.steps, found.again, found.abandoned) == (14, 4, 3)
    ends = [(o.state.step, end) for o, end in segments(read_ledger(tmp_path / "served.jsonl"))]
    assert ends == [(0, 10), (10, 14)]


def test_climb_audit_tells_what_was_served_again_from_what_was_abandoned(
    open_loader, tmp_path, capsys
):
    loader = open_loader()
    serve(loader, 50)
    loader.flush()
    again = open_loader()  # its checkpoint is lost
    serve(again, 10)
    again.flush()
    assert run(["audit", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        f"{tmp_path}: 10 steps served as the weights log says",
        "10 steps served again after a restart; 40 later steps served before a restart, "
        "and not served again since",
    ]


def test_climb_audit_says_that_steps_of_a_killed_job_may_be_in_no_count(
    open_loader, tmp_path, capsys
):
    loader = open_loader()
    serve(loader, 10)
    state = loader.state_dict()
    serve(loader, 7)  # and then it is killed, before it writes them
    again = open_loader().load_state_dict(state)
    serve(again, 4)
    again.flush()
    found = assert_agrees(tmp_path, again)
    assert (found.steps, found.again, found.resumed) == (14, 0, (10,))
    assert run(["audit", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        f"{tmp_path}: 14 steps served as the weights log says",
        "resumed 1 time, last at step 10; if a job was killed, the steps that it served after "
        "its last line in the ledger are not counted",
    ]


def test_steps_that_are_served_three_times_were_served_again_twice(open_loader, tmp_path):
    loader = open_loader()
    serve(loader, 10)
    state = loader.state_dict()
    for steps in (10, 5, 20):
        loader.load_state_dict(state)
        serve(loader, steps)
    loader.flush()
    found = assert_agrees(tmp_path, loader)
    assert (found.steps, found.again, found.abandoned) == (30, 5 + 10, 0)


def test_files_of_a_run_whose_state_is_not_loaded_are_warned_of(open_loader, tmp_path, capsys):
    loader = open_loader()
    serve(loader, 30)
    loader.set_weights(OTHERS)
    serve(loader, 10)
    state = loader.state_dict()
    capsys.readouterr()
    serve(open_loader().load_state_dict(state), 1)
    assert capsys.readouterr().err == ""
    again = open_loader()
    assert capsys.readouterr().err == ""  # a state may still be loaded
    serve(again, 2)
    said = capsys.readouterr().err
    assert said.count("no state was loaded, so the run begins at step 0, but ") == 1
    assert f"{tmp_path}/served.jsonl has 40 steps and " in said
    assert f"{tmp_path}/weights.jsonl has a change of weights at step 30. " in said


def test_another_limit_of_epochs_than_before_is_warned_of_if_there_is_a_ledger(
    open_loader, tmp_path, capsys
):
    loader = open_loader(max_epochs={"c00": 8})
    serve(loader, 10)
    state = loader.state_dict()
    open_loader(max_epochs={"c00": 8}).load_state_dict(state)
    assert capsys.readouterr().err == ""
    open_loader().load_state_dict(state)
    assert (
        f"after step 10, max_epochs.c00 was 8.0 and is not given ({tmp_path}/served.jsonl)"
        in capsys.readouterr().err
    )


def test_a_change_of_weights_in_what_is_served_again_is_no_difference(open_loader, tmp_path):
    loader = open_loader()
    serve(loader, 10)
    state = loader.state_dict()
    serve(loader, 20)
    loader.load_state_dict(state)
    serve(loader, 5)
    loader.set_weights(OTHERS)
    serve(loader, 30)
    loader.flush()
    assert assert_agrees(tmp_path, loader).again == 20


def test_a_run_may_go_on_in_the_middle_of_a_block(open_loader, tmp_path):
    plain = open_loader(weights_log=None, ledger=None)
    serve(plain, 6)
    loader = open_loader()
    serve(loader, 10)
    loader.flush()
    loader = open_loader().load_state_dict(
        plain.state_dict() | {"weights": loader.state_dict()["weights"]}
    )
    serve(loader, 10)
    loader.flush()
    assert assert_agrees(tmp_path, loader).again == 4


def test_steps_that_a_crash_took_are_recomputed(open_loader, tmp_path):
    loader = open_loader()
    serve(loader, 10)
    state = loader.state_dict()
    path = tmp_path / "served.jsonl"
    path.write_text(path.read_text()[:-20])  # the line of the block is cut short
    again = open_loader().load_state_dict(state)
    serve(again, 10)
    again.flush()
    assert assert_agrees(tmp_path, again).unwritten == 10


def test_another_number_of_rows_a_batch_is_followed(open_loader, tmp_path):
    loader = open_loader()
    serve(loader, 10)
    larger = open_loader(batch_rows=2 * BATCH).load_state_dict(loader.state_dict())
    serve(larger, 10)
    larger.flush()
    assert_agrees(tmp_path, larger)


def test_a_ledger_may_begin_in_the_middle_of_a_run(open_loader, tmp_path):
    loader = open_loader(ledger=None)
    serve(loader, 10)
    later = open_loader().load_state_dict(loader.state_dict())
    serve(later, 10)
    later.flush()
    found = audit(tmp_path)
    assert (found.first, found.steps) == (10, 10)
    assert sum(c.tokens for c in found.clusters) == 10 * BATCH * SEQ_LEN
    assert {c.name: c.epochs for c in found.clusters} == later.epochs


@given(moves=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), max_size=8))
def test_whatever_a_run_went_through_it_agrees(shards, tmp_path_factory, moves):
    folder = tmp_path_factory.mktemp("run")

    def open_():
        return MixtureLoader(
            shards.directory,
            WEIGHTS,
            seq_len=SEQ_LEN,
            batch_rows=BATCH,
            weights_log=folder / "weights.jsonl",
            ledger=folder / "served.jsonl",
            max_epochs={"c01": 3, "c02": 5},
        )

    loader = open_()
    serve(loader, 1)
    states = [loader.state_dict()]
    for steps, move in moves:
        serve(loader, steps)
        if move == 0:
            states.append(loader.state_dict())
        elif move == 1:
            with suppress(UsageError):  # the log has a later change already
                loader.set_weights(OTHERS if steps % 2 else WEIGHTS, ramp=steps // 4)
        else:
            loader = open_() if move == 2 else loader
            for state in reversed(states):
                try:
                    loader.load_state_dict(state)
                    break
                except InvalidDataError:  # the log went on before it
                    continue
            else:
                return
    serve(loader, 1)  # where a run goes on is written when it has
    loader.flush()
    assert_agrees(folder, loader)


# What an audit finds wrong.


@pytest.fixture
def served(open_loader, tmp_path):
    """A run of 40 steps whose weights change at step 20."""
    loader = open_loader()
    serve(loader, 20)
    loader.set_weights(OTHERS)
    serve(loader, 20)
    loader.flush()
    return tmp_path


def test_the_first_step_that_differs_is_named(served):
    path = served / "served.jsonl"
    marks = read_ledger(path)[2].marks
    change(path, 2, marks=marks[:12] + "0bad" + marks[16:])
    with pytest.raises(IntegrityError, match="step 24: other rows were served than the weights"):
        audit(served)


@pytest.mark.parametrize(
    "fields", [{"rows": [100, 36, 24]}, {"tokens": 1}, {"digest": "0" * 32}], ids=str
)
def test_counts_that_differ_are_found(served, fields):
    change(served / "served.jsonl", 1, **fields)
    with pytest.raises(
        IntegrityError,
        match="step 1: for the 20 steps from this step on, the ledger counts other rows",
    ):
        audit(served)


def test_a_line_that_was_changed_is_named(served):
    path = served / "served.jsonl"
    path.write_text(path.read_text().replace('"v":1', '"v":0'))
    with pytest.raises(IntegrityError, match=r"line 3 \(step 21\): it was changed, or lines"):
        audit(served)


def test_weights_that_the_log_does_not_hold_there_are_found(open_loader, served):
    record = (served / "weights.jsonl").read_text().splitlines()[0]
    (served / "weights.jsonl").write_text(record + "\n")
    with pytest.raises(IntegrityError, match=r"step 21: it was served by weights 1 \(.{8}\)"):
        audit(served)


def test_a_record_that_was_not_followed_is_found(open_loader, tmp_path, served):
    log = MixtureLoader(
        Replay(served).shards,
        seq_len=SEQ_LEN,
        batch_rows=BATCH,
        weights_log=served / "weights.jsonl",
    )._weights.log
    log.append(log.mixture(0), 30, "nobody knew")
    with pytest.raises(
        IntegrityError,
        match="step 31: it was served by weights 1, but by the weights log, weights 2",
    ):
        audit(served)


def test_a_missing_block_is_found(served):
    path = served / "served.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[2])
    change(path, 0)
    with pytest.raises(
        IntegrityError, match="step 1: it is missing in the ledger, which continues"
    ):
        audit(served)


def test_a_state_of_another_run_is_found(open_loader, served):
    state = open_loader(weights_log=None, ledger=None, weights=OTHERS)
    serve(state, 20)
    loader = open_loader()
    records = loader.state_dict()["weights"]
    loader.load_state_dict(state.state_dict() | {"weights": records[-1:]})
    serve(loader, 1)
    loader.flush()
    with pytest.raises(IntegrityError, match="after step 20, the run continued from another"):
        audit(served)


def test_a_ledger_of_another_run_is_not_gone_on_with(open_loader, served):
    with pytest.raises(InvalidDataError, match="seed was 0 and is 1"):
        open_loader(seed=1)


def test_other_shards_are_refused(served, tmp_path_factory, make_shards, counted_documents):
    other = make_shards(tmp_path_factory.mktemp("other"), counted_documents({"c00": [8] * 99}))
    with pytest.raises(InvalidDataError, match="but the run was served from shards"):
        audit(served, shards=other.directory)


def test_a_run_without_a_ledger_is_refused(open_loader, tmp_path):
    serve(open_loader(ledger=None), 1)
    with pytest.raises(InvalidDataError, match=r"lists no step.*as climb train and MixtureLoad"):
        audit(tmp_path)


@pytest.mark.parametrize("line", [b"[]", b"{}", b'{"kind":"steps"}', b"3", b'{"kind":[]}'])
def test_a_line_that_is_none_is_named(served, line):
    path = served / "served.jsonl"
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(InvalidDataError, match="line 4: "):
        read_ledger(path)


# Explain.


@pytest.mark.parametrize("part", [1.0, 0.2])
def test_a_batch_is_made_of_the_documents_that_are_listed(open_loader, tmp_path, shards, part):
    loader = open_loader(pack="bfd", seed=3, fraction=part)
    batches = serve(loader, 60)
    loader.flush()
    starts = {
        (name, number): np.cumsum([0, *(s.samples for s in index.shards)])[number]
        for name, index in shards.indexes.items()
        for number in range(len(index.shards))
    }
    for step in (1, 34, 60):
        pieces = explain_step(Replay(tmp_path), step)
        ids = batches[step - 1]["input_ids"].numpy()
        for row in range(BATCH):
            mine = [p for p in pieces if p.row == row]
            expected = [
                shards.documents[p.cluster][starts[p.cluster, p.shard] + p.document][
                    p.first : p.first + p.tokens
                ]
                for p in mine
            ]
            assert np.concatenate(expected).tolist() == ids[row].tolist()
            cluster = loader.names[batches[step - 1]["cluster_ids"][row]]
            assert {p.cluster for p in mine} == {cluster}
            assert explain_step(Replay(tmp_path), step, row) == mine
        assert {(p.id, p.origin) for p in pieces} == {(None, None)}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Return a run on shards of text with a tokenizer, and the texts of its first batch."""
    run = tmp_path_factory.mktemp("told")
    rows = [{"text": f"story {n} " * 40, "cluster": n % 2} for n in range(20)]
    (run / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    import_corpus([str(run / "rows.jsonl")], run / "shards", workers=1)
    files = {"weights_log": run / "weights.jsonl", "ledger": run / "served.jsonl"}
    loader = MixtureLoader(run / "shards", seq_len=32, batch_rows=4, **files)
    texts = loader.decode(next(loader))
    loader.flush()
    return run, texts


def test_climb_explain_prints_the_text_of_a_row(told, capsys):
    run_folder, texts = told
    pieces = explain_step(Replay(run_folder), 1, text=True)
    assert ["".join(p.text for p in pieces if p.row == row) for row in range(4)] == texts
    assert {p.text for p in explain_step(Replay(run_folder), 1)} == {None}
    command = ["explain", str(run_folder), "--step", "1", "--row", "1", "--text"]
    assert call(command) == 0
    of_row = [p.text for p in pieces if p.row == 1]
    assert capsys.readouterr().out.endswith(f":\n{of_row[-1]}\n")
    assert call([*command, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert "".join(piece["text"] for piece in value["pieces"]) == texts[1]


def test_climb_explain_says_how_to_fill_columns_that_are_empty_at_a_url(told, request, capsys):
    run_folder, _ = told
    url = request.getfixturevalue("serve")(run_folder / "shards").url
    assert run(["explain", str(run_folder), "--step", "1", "--shards", url]) == 0
    assert "with --shards DIR" in capsys.readouterr().err


def test_a_step_is_explained_as_it_was_served_last(open_loader, tmp_path):
    loader = open_loader()
    serve(loader, 5)
    state = loader.state_dict()
    serve(loader, 10)
    loader.load_state_dict(state)
    loader.set_weights({"c01": 1})
    serve(loader, 10)
    loader.flush()
    assert {p.cluster for p in explain_step(Replay(tmp_path), 8)} == {"c01"}


def test_a_row_is_on_the_rank_that_its_lane_says(open_loader, tmp_path):
    ranks = [open_loader(rank=r, world_size=2) for r in range(2)]
    batches = [serve(rank, 10)[-1] for rank in ranks]
    ranks[0].flush()
    pieces = explain_step(Replay(tmp_path), 10)
    for r, batch in enumerate(batches):
        rows = {p.row: p.cluster for p in pieces if p.lane % 2 == r}
        assert [ranks[0].names.index(c) for c in rows.values()] == batch["cluster_ids"].tolist()


def test_step_n_is_the_batch_after_which_the_loader_is_at_step_n(open_loader, tmp_path):
    loader = open_loader()
    for _ in range(20):
        batch = next(loader)
        loader.flush()
        pieces = explain_step(Replay(tmp_path), loader.step)
        clusters = {p.row: loader.names.index(p.cluster) for p in pieces}
        assert [*clusters.values()] == batch["cluster_ids"].tolist()


def test_new_weights_hold_from_the_step_after_the_one_of_their_record(open_loader, tmp_path):
    loader = open_loader(weights={"c00": 1})
    serve(loader, 10)
    assert loader.set_weights({"c01": 1}) == 10
    serve(loader, 10)
    loader.flush()
    replay = Replay(tmp_path)
    assert {p.cluster for p in explain_step(replay, 10)} == {"c00"}
    assert {p.cluster for p in explain_step(replay, 11)} == {"c01"}


@pytest.mark.parametrize("step", [-1, 0, 41])
def test_a_step_that_is_not_there_is_refused(served, step):
    match = f"step {step} is not in the ledger, whose last step is 40; the first batch of a run"
    with pytest.raises(UsageError, match=match):
        explain_step(Replay(served), step)


def test_a_row_that_is_not_there_is_refused(served):
    with pytest.raises(UsageError, match="step 3 has rows 0 to 7, not 8"):
        explain_step(Replay(served), 3, 8)


# The commands.


def test_climb_audit_says_what_was_due_and_what_was_served(served, capsys):
    assert call(["audit", str(served)]) == 0
    said = capsys.readouterr().out
    assert "40 steps served as the weights log says" in said
    assert [line.split()[0] for line in said.splitlines()[-3:]] == list(ROWS)
    assert call(["audit", str(served), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["steps"], value["again"]) == (40, 0)
    assert [c["name"] for c in value["clusters"]] == list(ROWS)


def test_climb_audit_exits_with_4_on_a_difference(served, capsys):
    change(served / "served.jsonl", 1, tokens=1)
    assert run(["audit", str(served)]) == 4
    assert "error: step 1: for the 20 steps from this step on" in capsys.readouterr().err


def test_climb_audit_takes_the_place_of_shards_that_were_moved(served, shards, capsys):
    change(served / "served.jsonl", 0, shards=str(served / "gone"))
    assert run(["audit", str(served)]) == 3
    assert run(["audit", str(served), "--shards", str(shards.directory)]) == 0


def test_climb_explain_lists_the_documents(served, capsys):
    assert call(["explain", str(served), "--step", "3", "--row", "2", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["step"] == 3
    assert {p["row"] for p in value["pieces"]} == {2}
    assert sum(p["tokens"] for p in value["pieces"]) == SEQ_LEN
    assert call(["explain", str(served), "--step", "3"]) == 0
    assert capsys.readouterr().out.count("\n") > BATCH


def test_a_ledger_whose_beginning_is_gone_is_refused(open_loader, tmp_path):
    loader = open_loader()
    serve(loader, 10)
    loader.flush()
    file = tmp_path / "served.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[1:]))
    with pytest.raises(InvalidDataError, match=r"served\.jsonl does not begin as a ledger"):
        open_loader()

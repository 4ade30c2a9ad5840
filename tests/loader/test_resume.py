"""What docs/howto/resume.md says of each parameter holds when a run resumes."""

import inspect
import re
from pathlib import Path

import pytest
import torch

from climbstream.loader import Agreement, MixtureLoader, Schedule
from climbstream.loader.core.errors import InvalidDataError

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "resume.md"
ROWS = dict(re.findall(r"^\| (`.+?) \| (.+) \|$", PAGE.read_text(), re.MULTILINE))
SAID = {
    name: said
    for names, said in ROWS.items()
    for name in re.findall(r"`(\w+)`", names)
    if name != "MixtureLoader"
}
"""What the page says, by parameter."""
SETTINGS = {
    "weights": {"c00": 3, "c01": 1},
    "seq_len": 8,
    "batch_rows": 16,
    "rank": 0,
    "world_size": 1,
    "max_epochs": 8,
}
OTHERS = {
    "seed": 1,
    "seq_len": 4,
    "lanes": 4,
    "pack": "bfd",
    "fraction": 0.5,
    "weights": {"c01": 1},
    "batch_rows": 32,
    "max_epochs": None,
    "on_exhausted": "stop",
    "world_size": 2,
    "rank": 0,
    "fields": ["labels"],
    "max_segments": 8,
    "dtype": torch.int32,
    "weights_function": lambda _step: None,
    "agreement": Agreement(),
    "cache_bytes": 10**6,
}
"""Other values of parameters with which a run may be resumed, or may not."""
SILENT = {*OTHERS} - {"seed", "seq_len", "lanes", "pack", "fraction"}
SILENT -= {"weights", "batch_rows", "max_epochs"}


@pytest.fixture(scope="module")
def shards(make_shards, counted_documents, tmp_path_factory):
    lengths = {"c00": [40] * 40, "c01": [25] * 40}
    return make_shards(tmp_path_factory.mktemp("shards"), counted_documents(lengths))


@pytest.fixture
def resume(shards, tmp_path):
    """Return a function that resumes a run of four steps with other settings than it had."""

    def resume_(*, ledger=True, **changes):
        files = {"ledger": tmp_path / "served.jsonl"} if ledger else {}
        before = MixtureLoader(shards.directory, **SETTINGS, **files)
        for _ in range(4):
            next(before)
        state = before.state_dict()
        directory = changes.pop("directory", shards.directory)
        after = MixtureLoader(directory, **{**SETTINGS, **files, **changes})
        return before, after.load_state_dict(state)

    return resume_


def test_the_page_tells_of_every_parameter_once():
    parameters = [*inspect.signature(MixtureLoader).parameters]
    assert sorted(SAID) == sorted(parameters)


@pytest.mark.parametrize("ledger", [True, False])
@pytest.mark.parametrize("name", ["seed", "seq_len", "lanes", "pack", "fraction"])
def test_what_must_be_equal_is_refused_by_name_if_it_is_not(resume, name, ledger):
    assert SAID[name].startswith("must be equal")
    with pytest.raises(InvalidDataError, match=name):
        resume(ledger=ledger, **{name: OTHERS[name]})


@pytest.mark.parametrize("ledger", [True, False])
def test_other_shards_are_refused(resume, make_shards, counted_documents, tmp_path, ledger):
    assert SAID["directory"].startswith("must be equal")
    other = make_shards(tmp_path / "other", counted_documents({"c00": [9] * 90, "c01": [9] * 90}))
    with pytest.raises(InvalidDataError, match=r"\bdata\b"):
        resume(ledger=ledger, directory=other.directory)


@pytest.mark.parametrize("name", sorted(SILENT))
def test_what_may_differ_is_accepted_in_silence_and_serves_the_same_rows(resume, name, capsys):
    assert SAID[name].startswith("may differ")
    before, after = resume(**{name: OTHERS[name]})
    assert capsys.readouterr().err == ""
    rows = next(before)["input_ids"][:: after.world_size]
    assert torch.equal(next(after)["input_ids"].long(), rows)


@pytest.mark.parametrize("name", ["weights", "batch_rows", "max_epochs"])
def test_what_changes_the_run_is_accepted_with_a_warning_that_names_it(resume, name, capsys):
    assert "a warning" in SAID[name]
    _, after = resume(**{name: OTHERS[name]})
    assert name in capsys.readouterr().err
    assert after.step == 4


def test_the_weights_are_those_of_the_state(resume):
    assert SAID["weights"].startswith("are taken from the state")
    before, after = resume(weights=OTHERS["weights"])
    assert after.mixture == before.mixture


def test_a_schedule_must_be_given_again(resume):
    assert "`Schedule` must be given again" in SAID["weights"]
    schedule = Schedule.of([(0, SETTINGS["weights"]), (6, {"c01": 1})])
    for given, share in ((schedule, 1.0), (None, 0.25)):
        _, after = resume(weights=given)
        for _ in range(3):
            next(after)
        assert after.metrics()["target"]["c01"] == share

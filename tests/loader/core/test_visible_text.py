"""Text of strangers steers no terminal: it is shown, in messages, tables, errors and JSON alike."""

import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.loader.core.console import Progress, say, text_table
from climbstream.loader.core.visible_text import visible, visible_cell, visible_json
from climbstream.loader.formats.cluster_tables import cluster_table
from climbstream.loader.formats.clusters import ClusterInfo
from climbstream.loader.formats.mixture import Mixture
from climbstream.loader.weights.log import WeightsLog

HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\x7f\u202eexe\u2066\u2028\udcff"
STEERING = {*HOSTILE} - {*"]0;owned[2J31mexe"}


def steers(text):
    return any(c in STEERING or (unicodedata.category(c) == "Cc" and c not in "\n\t") for c in text)


@given(st.text(st.characters(exclude_categories=()) | st.sampled_from(HOSTILE)))
def test_no_text_steers_a_terminal_and_json_reads_as_it_was(text):
    assert not steers(visible(text))
    assert "\n" not in visible_cell(text)
    assert "\t" not in visible_cell(text)
    line = visible_json({text: [text]})
    assert not steers(line)
    assert json.loads(line) == {text: [text]}


def test_what_steers_nothing_is_left_as_it_is():
    assert visible("Größe: 3 µs\n\t日本語 👍") == "Größe: 3 µs\n\t日本語 👍"


def test_messages_and_progress_show_what_would_steer(capsys):
    say(f"the label {HOSTILE}")
    stream = io.StringIO()
    with Progress(HOSTILE, 3, "units", stream=stream):
        pass
    assert not steers(capsys.readouterr().err + stream.getvalue())


def test_a_table_keeps_its_columns_whatever_is_in_its_cells():
    cells = [f"a{HOSTILE}", "two\nlines", "a\ttab", "plain"]
    lines = text_table(("name", "n"), [(cell, 1) for cell in cells]).split("\n")
    assert len(lines) == 5
    assert len({len(line) for line in lines}) == 1
    assert not steers("\n".join(lines))


@pytest.fixture
def run(tmp_path):
    log = WeightsLog.open(tmp_path / "weights.jsonl", write=True)
    why = HOSTILE.removesuffix("\udcff")
    log.append(Mixture.of({f"c\x1b[31m{why}": 1.0, "b": 1.0}), 0, why)
    return tmp_path


def test_commands_show_what_would_steer_in_text_json_and_errors(climb, run):
    for arguments in (
        ["weights", run],
        ["weights", run, "--json"],
        ["weights", run, "--only", "\x1b[2J"],
        ["weights", "\x1b[2J"],
        ["\x1b[2J"],
        ["weights", run, "--\x1b[2J"],
        ["weights", run, "--ramp", "\x1b[2J"],
        ["--debug", "inspect", "\x1b[2J"],
    ):
        done = climb(*arguments)
        assert done.stdout + done.stderr
        assert not steers(done.stdout + done.stderr), arguments
    value = json.loads(climb("weights", run, "--json").stdout)
    assert value["records"][0]["why"] == HOSTILE.removesuffix("\udcff")


def test_a_label_cannot_leave_its_cell_in_a_page():
    label = "</td></script><script>alert(1)</script>\"'"
    info = ClusterInfo.from_json(
        {
            "name": label,
            "terms": [label],
            "documents": 1,
            "tokens": 1,
            "quality": {},
            "micro": [],
            "bytes": 1,
            "labels": {label: 1},
            "samples": [{"id": label, "text": label}],
        }
    )
    assert "<script" not in cluster_table([info])

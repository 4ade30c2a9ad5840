"""States: what a run saves is taken, and a state whose counts cannot be is refused."""

import copy
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from climbstream.loader import LoaderState, MixtureLoader
from climbstream.loader.core.errors import InvalidDataError

LANES = 4
WEIGHTS = {"c00": 0.5, "c01": 0.3, "c02": 0.2, "c03": 0.0}


@pytest.fixture(scope="module")
def open_loader(tmp_path_factory, make_shards, counted_documents):
    """Return a function that opens a loader of four clusters; the last has no row."""
    lengths = {"c00": [50, 70] * 9, "c01": [200] * 5, "c02": [30] * 20, "c03": [3]}
    folder = tmp_path_factory.mktemp("shards")
    shards = make_shards(folder, counted_documents(lengths))

    def open_it(batch_rows=8):
        return MixtureLoader(
            shards.directory, WEIGHTS, seq_len=8, batch_rows=batch_rows, lanes=LANES, seed=3
        )

    return open_it


def serve(loader, steps):
    for _ in range(steps):
        next(loader)


@pytest.fixture(scope="module")
def states(open_loader):
    """States of runs: at the start, under the first weights, after changes of weights and size."""
    made = []
    loader = open_loader()
    for steps in (0, 1, 7):
        serve(loader, steps)
        made.append(loader.state_dict())
    loader = open_loader(4).load_state_dict(made[-1])
    made.append(loader.state_dict())
    serve(loader, 3)
    made.append(loader.state_dict())
    loader.set_weights({"c01": 0.9, "c02": 0.1}, ramp=3)
    serve(loader, 6)
    made.append(loader.state_dict())
    loader = open_loader(16).load_state_dict(made[-1])
    serve(loader, 2)
    made.append(loader.state_dict())
    return made


def test_states_of_a_run_are_taken_with_any_size_of_batch(open_loader, states):
    for state in states:
        for rows in (4, 8, 16):
            loader = open_loader(rows).load_state_dict(json.loads(json.dumps(state)))
            serve(loader, 2)
            again = open_loader(rows).load_state_dict(loader.state_dict())
            assert next(again)["input_ids"].equal(next(loader)["input_ids"])


def test_a_state_says_from_which_step_batches_had_how_many_rows(states):
    assert states[2]["batches"] == [[0, 8]]
    assert states[-1]["batches"] == [[0, 8], [8, 4], [17, 16]]


def test_a_state_of_an_earlier_version_is_taken_and_saved_as_one(open_loader, states):
    early = {key: value for key, value in states[-1].items() if key != "batches"}
    loader = open_loader(16).load_state_dict(early)
    serve(loader, 1)
    assert loader.state_dict()["batches"] is None
    open_loader(16).load_state_dict(loader.state_dict())


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_state_with_one_count_changed_is_refused(open_loader, states, data):
    state = copy.deepcopy(json.loads(json.dumps(data.draw(st.sampled_from(states)))))
    key = data.draw(
        st.sampled_from(["step", "served", "batch_rows", "lanes", "consumed", "credit"])
    )
    place, at = state, key
    while isinstance(place[at], list):
        place, at = place[at], data.draw(st.integers(0, len(place[at]) - 1))
    change = data.draw(st.sampled_from([-1, 1, 8, -8, 1 << 40]) | st.integers(-(1 << 62), 1 << 62))
    place[at] += change or 1
    loader = open_loader()
    with pytest.raises(InvalidDataError):
        loader.load_state_dict(state)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "begin at steps"),
        ([[1, 8]], "begin at steps"),
        ([[0, 8], [0, 8]], "begin at steps"),
        ([[0, 8], [9, 8]], "begin at steps"),
        ([[0, 9]], "its last batches have 9 rows, and batch_rows is 8"),
        ([[0, 4], [4, 8]], "its 8 batches had 48 rows, and 64 were served"),
    ],
)
def test_sizes_of_batches_that_do_not_fit_the_rows_served_are_refused(states, batches, message):
    with pytest.raises(InvalidDataError, match=message):
        LoaderState.from_json({**states[2], "batches": batches})


def test_rows_moved_from_one_cluster_to_another_are_seen_under_the_first_weights(states):
    state = json.loads(json.dumps(states[2]))
    consumed = np.cumsum(state["consumed"], axis=1)
    consumed[0, 0] -= 1
    consumed[1, 0] += 1
    state["consumed"] = np.diff(consumed, axis=1, prepend=0).tolist()
    with pytest.raises(InvalidDataError, match=r"cluster c00 was served 31 rows and is owed"):
        LoaderState.from_json(state)


def test_rows_of_a_cluster_that_has_none_are_refused(open_loader, states):
    state = json.loads(json.dumps(states[-1]))
    consumed = np.cumsum(state["consumed"], axis=1)
    consumed[1] -= 1
    consumed[3] += 1
    state["consumed"] = np.diff(consumed, axis=1, prepend=0).tolist()
    with pytest.raises(InvalidDataError, match=r"rows of cluster c03, which has none of 8 tokens"):
        open_loader(16).load_state_dict(state)

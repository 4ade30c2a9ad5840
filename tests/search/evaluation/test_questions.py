"""Questions: what a task's records must hold."""

import pytest

from climbstream.loader.core.errors import InvalidDataError
from climbstream.search.evaluation.questions import Question

GOOD = {"query": "Q?", "choices": ["one", "two"], "gold": 1}


def test_a_record_is_a_question():
    assert Question.from_json({**GOOD, "id": "x"}, "here") == Question("Q?", ("one", "two"), 1)
    assert Question.from_json({**GOOD, "split": "test"}, "here").split == "test"


def test_an_answer_follows_its_query_behind_a_space():
    assert Question.from_json(GOOD, "here").answer(1) == " two"
    assert Question.from_json({**GOOD, "query": ""}, "here").answer(0) == "one"


def test_the_right_choice_may_be_given_by_its_letter():
    for letter, gold in (("A", 0), ("B", 1)):
        assert Question.from_json({**GOOD, "gold": letter}, "here").gold == gold
    swapped = {**GOOD, "choices": ["B", "A"], "gold": "A"}
    assert Question.from_json(swapped, "here").answer(1) == " A"
    assert Question.from_json(swapped, "here").gold == 1


@pytest.mark.parametrize("key", ["query", "choices", "gold"])
def test_a_key_that_is_missing_is_not_said_to_be_null(key):
    record = {name: value for name, value in GOOD.items() if name != key}
    with pytest.raises(InvalidDataError, match=rf"^here: {key} (is|are) missing, and must be"):
        Question.from_json(record, "here")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": None}, "here: query is null, and must be text"),
        ({"choices": []}, "here: choices are [], and must be one text or more"),
        ({"choices": ["one", " "]}, 'here: choices are ["one", " "], and must be one text or mo'),
        ({"choices": "one"}, 'here: choices are "one", and must be one text or more'),
        ({"gold": 2}, "here: gold is 2, and must be the number of a choice, 0 to 1"),
        ({"gold": True}, "here: gold is true, and must be the number of a choice, 0 to 1"),
        ({"gold": "C"}, 'here: gold is "C", and must be the number of a choice, 0 to 1, or a let'),
        ({"gold": None}, "here: gold is null, and must be the number of a choice, 0 to 1, or a "),
        ({"split": "train"}, 'here: split is "train", and may be validation or test; a target has'),
    ],
)
def test_a_record_that_is_no_question_is_refused_with_the_reason(change, message):
    with pytest.raises(InvalidDataError) as error:
        Question.from_json(GOOD | change, "here")
    assert str(error.value).startswith(message)

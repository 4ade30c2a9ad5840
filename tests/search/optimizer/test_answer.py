"""An answer goes through JSON and comes back as it was."""

import json
from dataclasses import replace

import pytest

from climbstream.loader import Mixture
from climbstream.loader.core.errors import InvalidDataError
from climbstream.search.optimizer.answer import Answer, Candidate, Confirmation, Pick
from climbstream.search.predictors.base import Skill

ONE, OTHER = Mixture.of({"a": 1, "b": 3}), Mixture.of({"a": 1, "b": 1})


def pick(mixture, score, sd=0.5, trials=(1, 2)):
    return Pick(mixture=mixture, score=score, sd=sd, scores={"loss": 2.5}, trials=list(trials))


ANSWER = Answer(
    mixture=ONE,
    choice="predicted",
    reason="It is so.",
    measured_best=pick(OTHER, -1.0),
    predicted_best=pick(ONE, -1.5, trials=()),
    baseline=None,
    noise=0.25,
    gain=1.5,
    gain_sd=0.5,
    table=[Skill(predictor="ridge", rows=9, nmse=0.5, spearman=0.75, verdict="useful", target="t")],
    out_of_fold=[(0.5, 0.25), (-1.0, 1.0)],
    candidates=[
        Candidate(choice="measured", mixture=OTHER, gain=1.0, gain_sd=None),
        Candidate(choice="predicted", mixture=ONE, gain=1.5, gain_sd=0.5),
    ],
    front=[pick(OTHER, -1.0), pick(ONE, 0.0)],
    confirmation=Confirmation(seeds=[9, 10], scores={"baseline": {"loss": [1.0, 2.0]}}),
    spread={"a": (0.125, 0.25), "b": (0.75, 0.875)},
)


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER,
        replace(ANSWER, confirmation=None, spread={}, front=[], candidates=[], table=[]),
        replace(ANSWER, baseline=pick(OTHER, 0.0), predicted_best=None, gain=None, gain_sd=None),
    ],
)
def test_an_answer_survives_json(answer):
    value = json.loads(json.dumps(answer.to_json()))
    assert value["version"] == 1
    assert Answer.from_json(value) == answer


def test_mixtures_are_written_as_files_of_mixtures_are():
    value = ANSWER.to_json()
    places = [
        *(value["measured_best"], value["predicted_best"], *value["front"], *value["candidates"]),
        value,
    ]
    expected = [OTHER, ONE, OTHER, ONE, OTHER, ONE, ONE]
    assert [place["mixture"] for place in places] == [mixture.to_json() for mixture in expected]


def test_an_answer_of_before_there_were_confirmations_is_read():
    value = ANSWER.to_json()
    del value["confirmation"], value["spread"]
    assert Answer.from_json(value) == replace(ANSWER, confirmation=None, spread={})


@pytest.mark.parametrize("change", [{"version": 2}, {"gain": "much"}, {"mixture": {"a": -1}}])
def test_what_is_no_answer_is_refused(change):
    with pytest.raises(InvalidDataError):
        Answer.from_json(ANSWER.to_json() | change)

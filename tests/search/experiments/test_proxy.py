"""A proxy is a function of its task, and a failure is a result."""

from dataclasses import replace

import pytest

from climbstream.loader import Mixture
from climbstream.search.experiments.proxy import ProxyTask, run_proxy
from climbstream.search.training.settings import TrainSettings

TARGETS = ("label=sea", "label=law")


@pytest.fixture(scope="module")
def task(shards, shares):
    settings = TrainSettings(tokens=4096)
    return ProxyTask(directory=shards, mixture=shares, seed=0, settings=settings, targets=TARGETS)


@pytest.fixture(scope="module")
def result(task):
    return run_proxy(task)


def test_each_target_has_a_score(result):
    assert tuple(result.scores) == TARGETS
    assert result.why == ""
    assert all(0.5 < score < 8 for score in result.scores.values())


def test_the_same_task_has_the_same_scores(task, result):
    assert run_proxy(task) == result


def test_the_score_of_a_target_does_not_depend_on_the_others(task, result):
    alone = run_proxy(replace(task, targets=TARGETS[1:]))
    assert alone.scores == {TARGETS[1]: result.scores[TARGETS[1]]}


def test_the_halves_of_a_target_have_different_scores(task, result):
    assert run_proxy(replace(task, half="test")).scores != result.scores


def test_a_seed_is_another_proxy(task, result):
    assert run_proxy(replace(task, seed=1)).scores != result.scores


def test_a_training_that_fails_is_a_result_that_says_why(task):
    failing = replace(task, settings=TrainSettings(tokens=4096, learning_rate=1e9))
    failed = run_proxy(failing)
    assert failed.scores is None
    assert "try a smaller learning rate than 1e+09" in failed.why


def test_a_model_that_is_ruined_by_its_last_step_is_a_result_that_says_why(task):
    # One step: the loss of the fresh model is finite, what is left of it scores none.
    failing = replace(task, settings=TrainSettings(tokens=512, learning_rate=1e9))
    failed = run_proxy(failing)
    assert failed.scores is None
    assert "not finite" in failed.why


def test_a_mixture_of_other_clusters_is_a_result_that_says_why(task):
    failed = run_proxy(replace(task, mixture=Mixture.of({"nowhere": 1.0})))
    assert failed.scores is None
    assert "nowhere" in failed.why

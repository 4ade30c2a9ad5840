"""Presets are what they were measured as; two of them are as published."""

import json
from hashlib import sha256

import pytest

from climbstream.search import Search
from climbstream.search.optimizer.presets import ALL, DOREMI, PRESETS, Preset
from climbstream.search.predictors.gaussian_process import GaussianProcess
from climbstream.search.predictors.mixing_law import MixingLaw
from climbstream.search.predictors.ridge import Ridge
from climbstream.search.predictors.trees import LightGBM


def test_the_presets_of_papers_are_as_published():
    shared = {"predictors": (LightGBM,), "concentration": (2, 50), "pool": 50_000, "top": 2}
    assert PRESETS["climb"] == Preset(rounds=(4, 2, 1), answer="predicted", **shared)
    assert PRESETS["regmix"] == Preset(rounds=(1,), answer="average", **shared)
    assert DOREMI not in PRESETS


def test_random_predicts_nothing():
    assert PRESETS["random"] == Preset(
        rounds=(1,),
        predictors=(),
        concentration=(2, 50),
        tempers=(1.0,),
        later="top",
        features=False,
        answer="measured",
    )


def test_robust_is_what_the_decisions_were_measured_with():
    assert PRESETS["robust"] == Preset(
        rounds=(2, 1, 1, 1, 1),
        predictors=(GaussianProcess, MixingLaw, Ridge),
        concentration=(2, 50),
        tempers=(1.0, 0.5, 0.0),
        pool=4000,
        later="explore",
        top=2,
        features=True,
        answer="search",
    )
    assert (GaussianProcess, MixingLaw, Ridge, LightGBM) == ALL


@pytest.mark.parametrize(
    ("preset", "budget", "asked", "predicted"),
    [
        ("climb", 28, "86dfa23b7e94e302", [0.0144, 0.7772, 0.0584, 0.1414, 0.0086]),
        ("regmix", 16, "010e12d8c10bbb0a", [0.2104, 0.3832, 0.0853, 0.2081, 0.113]),
    ],
)
def test_the_presets_of_papers_ask_and_answer_as_before_there_were_cells(
    preset, budget, asked, predicted
):
    """The hashes and weights were computed by the version that had no cells yet."""
    prior = {"c00": 5 / 12, "c01": 2 / 12, "c02": 1 / 12, "c03": 1 / 12, "c04": 3 / 12}
    search = Search([*prior], ["loss"], budget=budget, preset=preset, prior=prior, seed=3)
    rows = []
    while mixtures := search.ask():
        for mixture in mixtures:
            weights = mixture.weights
            rows.append([round(weight, 5) for weight in weights.values()])
            loss = 2 - weights["c01"] ** 0.5 - 0.5 * weights["c03"] ** 0.5 + weights["c04"]
            search.tell(mixture, {"loss": loss})
    assert sha256(json.dumps(rows).encode()).hexdigest()[:16] == asked
    best = search.result().predicted_best
    assert [round(weight, 4) for weight in best.mixture.weights.values()] == predicted

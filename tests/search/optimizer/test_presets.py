"""Presets are what they were measured as; two of them are as published."""

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

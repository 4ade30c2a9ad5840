"""Settings of a build: checked before work begins, and named when they are wrong."""

import json
from dataclasses import asdict

import pytest

from climbstream.builder.settings import DECIDES, BuildSettings
from climbstream.loader.core.errors import InvalidDataError


def test_settings_come_back_as_they_were():
    settings = BuildSettings(clusters=3, holdout=0.1, min_cluster_score={"educational": 1.0})
    assert BuildSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_what_is_left_out_has_its_default():
    assert BuildSettings.from_json({}) == BuildSettings()
    assert BuildSettings.from_json({"seed": 3}) == BuildSettings(seed=3)


def test_two_settings_do_not_share_their_thresholds():
    BuildSettings().min_cluster_score["overall"] = 5.0
    assert BuildSettings().min_cluster_score["overall"] < 5


def test_an_unknown_setting_is_refused_with_those_there_are():
    with pytest.raises(
        InvalidDataError, match=r"unknown build settings: cluster, colour; .* clusters, .* seed$"
    ):
        BuildSettings.from_json({"colour": 1, "cluster": 3, "seed": 1})


@pytest.mark.parametrize("value", [None, [], "clusters", 3])
def test_what_is_no_object_is_refused(value):
    with pytest.raises(InvalidDataError, match=f"unknown build settings: {type(value).__name__}"):
        BuildSettings.from_json(value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clusters": 0}, "clusters is 0; it must be from 1 to 10,000"),
        ({"dims": 1}, "dims is 1; it must be from 2 to 1,024"),
        ({"sample": 5}, "sample is 5; it must be from 100 to 10,000,000"),
        ({"vocab_size": 257}, "vocab_size is 257; it must be from 258"),
        ({"max_bytes": 0}, "max_bytes is 0; it must be from 1"),
        ({"holdout": 1.0}, "holdout is 1.0; it must be from 0 to below 1"),
        ({"holdout": float("nan")}, "holdout is nan"),
        ({"micro_clusters": 5}, "5 micro-clusters cannot be merged into 20; ask for 20 micro"),
        ({"languages": ["german", "EN"]}, "there is no language german, EN; write de,en$"),
        (
            {"holdout": 3.0},
            "must be from 0 to below 1; for a percentage, write 3%",
        ),
        (
            {"min_cluster_score": {"beauty": 1.0}},
            "no score beauty; the scores are overall,",
        ),
        (
            {"min_document_score": {"truth": 1.0}},
            "no score truth; the scores are .*, ad-free$",
        ),
        ({"min_document_score": {"overall": 7}}, "the least score overall is 7; scores are from 0"),
        ({"min_cluster_score": {"overall": float("nan")}}, "the least score overall is nan"),
        (
            {"languages": ["de", "franz"]},
            "there is no language franz; the possible ISO 639 codes are .* de, ",
        ),
    ],
    ids=repr,
)
def test_a_value_that_cannot_be_is_refused_with_those_that_can(values, message):
    with pytest.raises(InvalidDataError, match=message):
        BuildSettings(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"clusters": "20"},
        {"clusters": 2.5},
        {"clusters": True},
        {"micro_clusters": 30.5},
        {"text": 5},
        {"text": None},
        {"keep_duplicates": "yes"},
        {"holdout": "0.1"},
        {"tokenizer": 5},
        {"seed": "a"},
        {"min_cluster_score": ["overall"]},
        {"min_cluster_score": {"overall": "high"}},
        {"min_document_score": None},
    ],
    ids=repr,
)
def test_a_value_of_the_wrong_type_is_refused_by_its_name(values):
    (name,) = values
    with pytest.raises(InvalidDataError, match=f"^{name} is .*; it must be "):
        BuildSettings.from_json(values)


@pytest.mark.parametrize(
    "values",
    [
        {"holdout": 0},
        {"micro_clusters": None},
        {"tokenizer": "gpt2"},
        {"seed": -1},
        {"min_cluster_score": {"overall": 1}},
        {"scores": {"overall": "column:percent"}, "min_cluster_score": {"overall": 70}},
        {"languages": ["de", "code", "und"]},
    ],
    ids=repr,
)
def test_a_value_of_a_right_type_is_taken(values):
    assert asdict(BuildSettings.from_json(values)) == {**asdict(BuildSettings()), **values}


def test_a_score_may_be_called_ad_free():
    settings = BuildSettings.from_json({"min_document_score": {"ad-free": 2}})
    assert settings.min_document_score == {"advertisement": 2}
    assert BuildSettings.from_json({"tier_score": "ad-free"}).tier_score == "advertisement"


def test_every_setting_decides_something_first():
    named = [name for names in DECIDES.values() for name in names]
    assert sorted(named) == sorted(asdict(BuildSettings()))


def test_code_of_a_model_is_trusted_only_where_a_model_may_have_code():
    assert BuildSettings(embed="st:a/b", trust_remote_code=True).to_json()["trust_remote_code"]
    assert "trust_remote_code" not in BuildSettings(embed="st:a/b").to_json()
    with pytest.raises(InvalidDataError, match=r"is for the code of a model st:NAME, and embed is"):
        BuildSettings(embed="m2v:a/b", trust_remote_code=True)

"""The report says what was measured; what comes from data is text and never markup."""

import re
import shutil
from dataclasses import replace

import pytest

from climbstream.loader import Mixture
from climbstream.loader.core.html_page import page
from climbstream.loader.formats.clusters import load_clusters, save_clusters
from climbstream.search import Search
from climbstream.search.evaluation.comparison import Comparison
from climbstream.search.experiments.report import (
    CHOICES,
    comparison_sections,
    search_sections,
    table_sections,
)
from climbstream.search.optimizer.answer import BASE, Outcome
from climbstream.search.optimizer.outcome import contender
from climbstream.search.optimizer.trials import Trial

EVIL = "<script>alert('1')</script><img src=x onerror=\"alert(2)\">&amp;"


@pytest.fixture
def evil(shards, tmp_path):
    """A shard directory with words that would run if they were markup."""
    directory = tmp_path / "<b>shards"
    directory.mkdir()
    shutil.copy(shards / "manifest.json", directory)
    infos = [replace(info, terms=(EVIL, *info.terms)) for info in load_clusters(shards)]
    save_clusters(directory, infos)
    return directory


def searched(shares, target="loss"):
    """A search of eight trials, the last of which failed, and its answer."""
    search = Search(list(shares.weights), {target: "min"}, budget=8, prior=shares)
    while mixtures := search.ask():
        for mixture in mixtures:
            number = mixture.about["trial"]
            score = 1 + mixture.weights["c00"] + number / 1000
            search.tell(mixture, RuntimeError(EVIL) if number == 8 else {target: score})
    return search.result(), search.log.trials


def test_the_search_is_shown_with_its_numbers(shards, shares, read_page):
    answer, trials = searched(shares)
    shown = read_page(page("Search", "", search_sections(shards, answer, trials)))
    assert answer.reason.partition(". ")[0] in shown.text
    assert "token shares" in shown.text
    for trial in trials[:-1]:
        assert f"round {trial.round}: {trial.scores['loss']:.5g}" in shown.text
    for name, share in shares.weights.items():
        weight = answer.mixture.weights[name]
        for value in (name, f"{share:.1%}", f"{weight:.1%}", f"{weight / share:.2f}x"):
            assert value in shown.text


def test_the_report_of_a_fit_speaks_of_runs(shares, read_page):
    answer, trials = searched(shares)
    shown = read_page(page("Fit", "", table_sections(shares.weights, answer, trials)))
    assert "8 runs" in shown.text
    assert "1 run failed" in shown.text
    assert "prox" not in shown.text


def test_a_target_without_a_unit_leaves_no_comma_behind(shards, shares, read_page):
    answer, trials = searched(shares)
    shown = read_page(page("Search", "", search_sections(shards, answer, trials))).text
    assert "by which the " in shown
    assert [words for words in ("better by,", "predicted,", " by which  ") if words in shown] == []


def tiles(shards, answer, trials):
    """The main figures of the page, each with what it is."""
    facts = search_sections(shards, answer, trials)[0]
    return dict(re.findall(r'<div class="fact"><b>(.*?)</b><span>(.*?)</span></div>', facts))


def outcome(target, gain):
    """An outcome with a gain."""
    return Outcome(
        target=target,
        unit="bits per byte",
        best=2.0 - gain,
        best_sd=0.01,
        baseline=2.0,
        baseline_sd=0.01,
        gain=gain,
        gain_sd=0.022,
        item_sd=0.01,
        seeds=2,
        items=40,
        scored_on="40 documents",
    )


def test_the_verdict_is_apart_from_the_gain_on_each_target(shards, shares, read_page):
    answer, trials = confirmed(shares)
    answer = replace(answer, outcomes=[outcome("a", 0.619), outcome("b", -0.055)])
    found = tiles(shards, answer, trials)
    assert found["certain gain"] == "over the token shares"
    assert found[".619 ± .022"] == (
        "bits per byte by which the answer is better than the token shares · a"
    )
    assert found[".055 ± .022"].startswith("bits per byte by which the answer is worse than")
    unsure = tiles(shards, replace(answer, choice=BASE), trials)
    assert unsure["no certain gain"] == "the answer is the token shares"
    assert unsure[".619 ± .022"] == (
        "bits per byte by which the best other mixture is better than the token shares · a"
    )
    both = replace(answer.measured_best, scores={"a": 1.0, "b": 1.0})
    several = replace(answer, measured_best=both, baseline=both, confirmation=None)
    joint = tiles(shards, replace(several, choice=BASE), [])
    assert joint["no certain gain"] == "over all targets together: the answer is the token shares"


def test_a_mixture_that_was_not_trained_is_no_found_one(shards, shares):
    answer, trials = searched(shares)
    sure = search_sections(shards, replace(answer, choice="measured"), trials)
    unsure = replace(answer, choice="predicted", predicted_only=True)
    assert 'class="claim"' in sure[1]
    assert 'class="claim none"' in search_sections(shards, unsure, trials)[1]
    assert tiles(shards, unsure, trials)["predicted only"] == "no model was trained on the answer"


@pytest.mark.parametrize(
    ("missing", "why"),
    [("gain_sd", "no mixture was run twice"), ("baseline", "the token shares have no score")],
)
def test_a_gain_of_unknown_size_is_not_shown_as_certain(shards, shares, missing, why):
    answer, trials = searched(shares)
    unknown = replace(answer, choice="measured", **{missing: None})
    assert tiles(shards, unknown, trials)["unknown gain"] == why
    assert 'class="claim none"' in search_sections(shards, unknown, trials)[1]


def test_mixtures_and_proxies_are_counted_apart(shards, shares):
    answer, trials = confirmed(shares)
    different = len({trial.mixture.fingerprint for trial in trials})
    again = sum(trial.round == trials[-1].round for trial in trials)
    assert tiles(shards, answer, trials)[f"{different}"] == (
        f"different mixtures, measured with {len(trials)} proxies, in "
        f"{trials[-1].round - 1} rounds; {again} of the proxies only confirm the answer"
    )


def test_where_the_token_shares_are_the_answer_the_best_other_mixture_has_its_weights(
    shards, shares, read_page
):
    answer, trials = confirmed(shares)
    answer = replace(answer, choice=BASE, mixture=shares)
    other = contender(answer)
    shown = read_page(page("Search", "", search_sections(shards, answer, trials))).text
    # In the table, in the drawing and in its legend.
    assert shown.count(f"best other ({CHOICES[other.choice]})") == 3
    for weight in other.mixture.weights.values():
        assert f"{weight:.1%}" in shown


def test_a_range_of_weights_is_that_of_the_mixture_predicted_best(shards, shares, read_page):
    answer, trials = confirmed(shares)
    spread = dict.fromkeys(shares.weights, (0.1, 0.2))
    best = answer.predicted_best.mixture
    found = replace(answer, spread=spread, choice="predicted", mixture=best)
    other = replace(found, choice="measured", mixture=answer.measured_best.mixture)
    assert answer.predicted_best.mixture != other.mixture
    own, apart = (
        read_page(page("Search", "", search_sections(shards, one, trials))).text
        for one in (found, other)
    )
    assert "best predicted between" in own
    assert "may be outside these ranges" not in own
    assert "best predicted best predicted between" in apart
    assert "The answer is another mixture; its weights may be outside these ranges." in apart


def test_several_targets_have_a_front_and_the_weights_their_spread(shards, shares, read_page):
    search = Search(list(shares.weights), {"a": "min", "b": "min"}, budget=14, prior=shares)
    while mixtures := search.ask():
        for mixture in mixtures:
            scores = {"a": mixture.weights["c00"], "b": 1 - mixture.weights["c01"]}
            search.tell(mixture, scores)
    answer = replace(search.result(), spread=search.spread())
    shown = read_page(page("", "", search_sections(shards, answer, search.log.trials)))
    assert "Trade-off between targets" in shown.text
    for pick in answer.front:
        assert f"{pick.scores['a']:.5g} {pick.scores['b']:.5g}" in shown.text
    assert len(answer.spread) == len(shares.weights)
    for low, high in answer.spread.values():
        assert f"{low:.1%} to {high:.1%}" in shown.text


def test_the_worth_of_the_predictor_is_shown(shards, shares, read_page):
    search = Search(list(shares.weights), {"loss": "min"}, budget=14, prior=shares)
    while mixtures := search.ask():
        for mixture in mixtures:
            search.tell(mixture, {"loss": mixture.weights["c00"]})
    answer = search.result()
    shown = read_page(page("", "", search_sections(shards, answer, search.log.trials)))
    assert {skill.predictor for skill in answer.table} >= {"gaussian process", "ridge", "stack"}
    for skill in answer.table:
        for value in (skill.predictor, f"{skill.r2:.2f}", f"{skill.spearman:.2f}"):
            assert value in shown.text


def test_failed_proxies_are_counted_and_the_first_are_named(shards, shares, read_page):
    answer, trials = searched(shares)
    failed = [
        Trial(number=n, round=3, mixture=shares, seed=0, scores=None, why=f"reason {n}")
        for n in range(9, 16)
    ]
    sections = search_sections(shards, answer, [*trials[:-1], *failed])
    text = read_page(page("", "", sections)).text
    assert "7 proxies failed: 9: reason 9; 10: reason 10;" in text
    assert "13: reason 13" in text
    assert "reason 14" not in text


def test_the_comparison_is_shown_with_its_claim_and_numbers(read_page):
    comparison = Comparison({"found": [1.0, 1.25], "other": [1.5, 1.625]})
    shown = read_page(page("", "", comparison_sections(comparison, "found")))
    assert comparison.verdict("found")[1] in shown.text
    for value in ("1.125 ± .125", "1.000, 1.250", "1.562 ± .062", ".438 ± .062"):
        assert value in shown.text


@pytest.mark.parametrize(("other", "holds"), [([1.5, 1.6], True), ([1.0, 1.4], False)])
def test_a_claim_that_does_not_hold_looks_so(other, holds):
    (html,) = comparison_sections(Comparison({"found": [1.0, 1.1], "other": other}), "found")
    assert ('class="claim"' in html) == holds
    assert ('class="claim none"' in html) != holds


def test_what_comes_from_data_is_text_and_never_markup(evil, shares, read_page):
    target = f"label={EVIL}"
    answer, trials = searched(shares, target)
    comparison = Comparison({EVIL: [1.0, 1.1], "other": [1.5, 1.6]})
    sections = [*comparison_sections(comparison, EVIL), *search_sections(evil, answer, trials)]
    shown = read_page(page(f"Search in {evil.name}", EVIL, sections))
    assert not {*shown.tags} & {"img", "b shards"}
    assert shown.tags.count("script") == 1
    assert shown.text.count(EVIL) >= 5
    assert f"8: {trials[-1].why}" in shown.text
    assert "<script>" in trials[-1].why
    assert "Search in <b>shards" in shown.text


def test_a_page_loads_nothing(shards, shares, read_page):
    answer, trials = searched(shares)
    data = page("Search", "", search_sections(shards, answer, trials))
    assert not {*read_page(data).tags} & {"link", "img", "iframe"}
    assert b"http:" not in data
    assert b"https:" not in data


def test_a_mixture_without_some_clusters_is_shown(shards, shares, read_page):
    answer, trials = searched(shares)
    first = next(iter(shares.weights))
    answer = replace(answer, mixture=Mixture.of({first: 1.0}))
    text = read_page(page("", "", search_sections(shards, answer, trials))).text
    assert "100.0%" in text
    assert "0.00x" in text


def confirmed(shares):
    """An answer that was confirmed, and its trials."""
    search = Search(list(shares.weights), {"loss": "min"}, budget=14, prior=shares, confirm=2)
    while mixtures := search.ask():
        for mixture in mixtures:
            search.tell(mixture, {"loss": 1 + mixture.weights["c00"] + mixture.about["seed"] / 100})
    return search.result(), search.log.trials


def test_what_was_run_again_is_shown_in_pairs(shards, shares, read_page):
    answer, trials = confirmed(shares)
    shown = read_page(page("", "", search_sections(shards, answer, trials)))
    assert "All mixtures were run with the same 2 new seeds" in shown.text
    scores = answer.confirmation.scores
    for choice, name in (("baseline", "token shares"), ("predicted", "best predicted")):
        assert name in shown.text
        assert f"{sum(scores[choice]['loss']) / 2:.3f} ± " in shown.text
    # A gain is above 0 here as in the answer, where less is better.
    gain = (sum(scores["baseline"]["loss"]) - sum(scores["predicted"]["loss"])) / 2
    assert gain > 0
    assert f"{gain:.3f} ± ".replace("0.", ".", 1) in shown.text
    assert f"-{gain:.3f} ± ".replace("0.", ".", 1) not in shown.text
    assert "better than the token shares by" in shown.text


def test_weights_by_round_and_how_scores_go_with_them_are_shown(shards, shares, read_page):
    answer, trials = confirmed(shares)
    shown = read_page(page("", "", search_sections(shards, answer, trials)))
    first = [t.mixture.weights["c00"] for t in trials if t.round == 1]
    assert f"{sum(first) / len(first):.1%}" in shown.text
    for word in (
        "round 1",
        "run again",
        "rank correlation with loss",
        "predicted from the other proxies",
    ):
        assert word in shown.text

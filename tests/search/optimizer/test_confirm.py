"""Candidates are run again, side by side, before one is believed."""

import math

import numpy as np
import pytest

from climbstream.loader import Mixture
from climbstream.loader.core.errors import UsageError
from climbstream.search import Search

NAMES = ["c00", "c01", "c02", "c03"]
SHARES = {"c00": 0.5, "c01": 0.3, "c02": 0.15, "c03": 0.05}
BUDGET = 16


def search(confirm=3, **settings):
    options = {"budget": BUDGET, "prior": SHARES, "confirm": confirm} | settings
    return Search(NAMES, {"loss": "min"}, **options)


def loss(mixture):
    """Less where c03 has more, and a little less where c02 has."""
    w = mixture.weights
    return 3.0 - math.log1p(w["c03"] / 0.1) - 0.3 * math.log1p(w["c02"] / 0.1)


def noise(mixture, sd, seed=0, own=0.1):
    """Noise that the runs of one seed share but for the part ``own``."""
    about = mixture.about
    shared = np.random.default_rng([seed, about["seed"]]).normal(0, sd)
    own = np.random.default_rng([seed, 1, about["trial"]]).normal(0, sd * own)
    return float(shared + own)


def play(s, score=loss):
    """Tell all that is asked; return it."""
    asked = []
    while mixtures := s.ask():
        for mixture in mixtures:
            asked.append(mixture)
            outcome = score(mixture)
            s.tell(mixture, None if outcome is None else {"loss": outcome})
    return asked


def again(asked):
    """What was run beside the budget."""
    return asked[BUDGET:]


def test_candidates_and_token_shares_run_again_with_the_same_new_seeds():
    s = search(preset="robust")
    asked = play(s)
    runs = again(asked)
    seeds = {}
    for mixture in runs:
        seeds.setdefault(mixture.about["seed"], []).append(mixture.fingerprint)
    assert len(seeds) == 3
    assert len({tuple(of) for of in seeds.values()}) == 1
    assert Mixture.of(SHARES).fingerprint in next(iter(seeds.values()))
    assert not {m.about["seed"] for m in asked[:BUDGET]} & seeds.keys()
    answer = s.result()
    assert answer.confirmation.seeds == sorted(seeds)
    mixtures = {c.mixture.fingerprint for c in answer.candidates}
    assert mixtures | {Mixture.of(SHARES).fingerprint} == {m.fingerprint for m in runs}
    assert answer.mixture.fingerprint in mixtures


def test_a_true_gain_is_confirmed_and_said_with_its_scores():
    s = search()
    play(s, lambda m: loss(m) + noise(m, 0.05))
    answer = s.result()
    assert answer.choice in ("measured", "predicted")
    assert loss(answer.mixture) < loss(Mixture.of(SHARES)) - 0.3
    assert answer.gain > 2.5 * answer.gain_sd
    assert answer.reason.startswith("Run again with 3 seeds, the ")
    assert " better than the token-share mixture (loss " in answer.reason
    by_choice = answer.confirmation.scores
    assert by_choice.keys() >= {"baseline", answer.choice}
    assert {len(of["loss"]) for of in by_choice.values()} == {3}


def test_a_gain_that_was_luck_is_taken_back():
    """The search's own runs say that c03 is good, and the confirmation says that it is not."""
    s = search()
    play(s, lambda m: loss(m) if m.about["trial"] <= BUDGET else 3.0 + noise(m, 0.3))
    assert s.result().choice == "baseline"
    assert s.result().reason.startswith("No gain over the token-share mixture is sure: run again")
    assert s.result().mixture == Mixture.of(SHARES)


def test_pairs_see_what_the_noise_between_seeds_hides():
    def slight(m):
        return -0.2 * m.weights["c03"] + noise(m, 0.2, own=0.01)

    s = search(6, preset="random", seed=3)
    play(s, slight)
    answer = s.result()
    assert answer.gain_sd < answer.noise * math.sqrt(2 / 6) / 2


def test_noise_alone_is_hardly_ever_a_gain():
    claims = {0: 0, 3: 0}
    for seed in range(30):
        for confirm in claims:
            s = search(confirm, preset="random", seed=seed)
            play(
                s,
                lambda m, seed=seed: float(
                    np.random.default_rng([seed, m.about["trial"]]).normal()
                ),
            )
            claims[confirm] += s.result().choice != "baseline"
    assert claims[3] <= max(1, claims[0])


@pytest.mark.parametrize("told", [BUDGET - 1, BUDGET, BUDGET + 1, BUDGET + 5])
def test_a_confirmation_goes_on_after_a_crash(tmp_path, told):
    whole = search(log=tmp_path / "whole.jsonl")
    asked = play(whole)
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "cut.jsonl").write_bytes(b"".join(lines[: told + 1]))
    cut = search(log=tmp_path / "cut.jsonl")
    rest = play(cut)
    assert [(m.weights, m.about) for m in rest] == [(m.weights, m.about) for m in asked[told:]]
    assert cut.result() == whole.result()


def test_a_seed_of_which_a_run_failed_does_not_count_and_without_any_nothing_changes():
    first = BUDGET + 1
    s = search()
    play(s, lambda m: None if m.about["trial"] == first else loss(m))
    assert len(s.result().confirmation.seeds) == 2
    plain, failing = search(0), search()
    play(plain)
    play(failing, lambda m: None if m.about["trial"] >= first else loss(m))
    assert failing.result().mixture == plain.result().mixture
    assert failing.result().reason.endswith(" All runs to confirm that failed.")


def test_where_every_mixture_is_the_token_shares_nothing_is_run_again():
    s = Search(["only"], {"loss": "min"}, budget=4, confirm=3)
    assert len(play(s, lambda _: 1.0)) == s.log.trials[-1].number <= 4


def test_the_answer_is_json_with_what_was_run_again():
    s = search()
    play(s)
    value = s.result().to_json()
    assert value["confirmation"]["seeds"] == s.result().confirmation.seeds
    assert [c["mixture"]["weights"] for c in value["candidates"]]


def test_a_negative_number_of_seeds_is_refused():
    with pytest.raises(UsageError, match="confirm is a number of seeds, 0 or more, not -1"):
        search(-1)

"""Candidates are run again, side by side, before one is believed."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from climbstream.loader import Mixture
from climbstream.loader.core.errors import UsageError
from climbstream.search import Search, Trial
from climbstream.search.optimizer.answer import Answer, Candidate, Pick
from climbstream.search.optimizer.conclude import upper_confidence_sd
from climbstream.search.optimizer.confirm import confirm
from climbstream.search.optimizer.observations import Observations

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


# By hand.


OTHERS = {
    "baseline": Mixture.of(SHARES),
    "measured": Mixture.of({"c00": 0, "c01": 0, "c02": 0, "c03": 1}),
    "predicted": Mixture.of({"c00": 0.1, "c01": 0, "c02": 0.1, "c03": 0.8}),
}


def told(scores, candidates=(), repeats=(-1.0, 1.0)):
    """Answer, trials and evidence of which one unit of the loss is one sd.

    ``scores`` are those of each choice, a seed each; ``candidates`` their gains and sds before;
    ``repeats`` what the token shares scored in the search.
    """
    fill = math.sqrt(max(len(repeats) + 2 - sum(x * x for x in repeats), 0) / 2)
    runs = [(OTHERS["baseline"], x) for x in repeats]
    runs += [(OTHERS["measured"], -fill), (Mixture.uniform(NAMES), fill)]
    first = [
        Trial(number=n, round=1, mixture=m, seed=n, scores={"loss": x})
        for n, (m, x) in enumerate(runs, start=1)
    ]
    known = Observations.of(first, NAMES, {"loss": "min"}, np.ones(1))
    assert known.scale == pytest.approx([1.0])
    again = [
        Trial(number=99, round=2, mixture=OTHERS[choice], seed=seed, scores={"loss": x})
        for choice, column in scores.items()
        for seed, x in enumerate(column, start=50)
    ]
    best = Pick(
        mixture=OTHERS["measured"], score=-fill, sd=None, scores={"loss": -fill}, trials=[3]
    )
    answer = Answer(
        mixture=OTHERS["measured"],
        choice="measured",
        reason="It was so.",
        measured_best=best,
        predicted_best=None,
        baseline=None,
        noise=None,
        gain=None,
        gain_sd=None,
        table=[],
        out_of_fold=[],
        candidates=[
            Candidate(choice=choice, mixture=OTHERS[choice], gain=gain, gain_sd=sd)
            for choice, gain, sd in candidates
        ],
        front=[],
    )
    return answer, OTHERS["baseline"], again, known


def by_hand(scores, repeats):
    """Sd of a difference of two means over seeds, from a two-way table and the search's repeats."""
    table = np.array(list(scores.values()))
    rest = [
        x - table[i].mean() - table[:, j].mean() + table.mean()
        for (i, j), x in np.ndenumerate(table)
    ]
    squares = sum(x * x for x in rest)
    freedom = (len(table) - 1) * (len(table[0]) - 1)
    noise = np.array(repeats) - np.mean(repeats)
    more = len(repeats) - 1
    pooled = math.sqrt((squares + noise @ noise) / (freedom + more))
    sds = [upper_confidence_sd(pooled, freedom + more)]
    if freedom:
        sds.append(upper_confidence_sd(math.sqrt(squares / freedom), freedom))
    return min(sds) * math.sqrt(2 / len(table[0]))


@pytest.mark.parametrize(
    "scores",
    [
        {"baseline": [0.0, 0.5, 0.1], "measured": [-2.0, -1.4, -1.8]},
        {"baseline": [0.0, 0.5], "measured": [-2.0, -1.4], "predicted": [-2.5, 0.3]},
        {"baseline": [0.3], "measured": [-2.0]},
        {"baseline": [0.3, 0.1, 0.2, 0.8], "measured": [-2.0, 2.0, 1.0, 0.0]},
    ],
)
def test_the_gain_is_the_mean_of_pairs_with_the_sd_that_seeds_leave(scores):
    repeats = (-0.5, 0.9, -0.4)
    candidates = [(choice, None, None) for choice in list(scores)[1:]]
    answer = confirm(*told(scores, candidates, repeats))
    error = by_hand(scores, repeats)
    for candidate in answer.candidates:
        gain = np.mean(scores["baseline"]) - np.mean(scores[candidate.choice])
        assert candidate.gain == pytest.approx(gain)
        assert candidate.gain_sd == pytest.approx(error)
    assert answer.confirmation.scores == {c: {"loss": list(x)} for c, x in scores.items()}
    assert answer.gain == max(candidate.gain for candidate in answer.candidates)


def test_one_seed_without_repeats_leaves_the_doubt_unknown():
    scores = {"baseline": [0.3], "measured": [-2.0]}
    answer = confirm(*told(scores, [("measured", 1.0, None)], repeats=(0.0,)))
    assert (answer.gain, answer.gain_sd) == (pytest.approx(2.3), None)
    assert answer.choice == "baseline"
    assert answer.gain_sd is None


SURE = {"baseline": [0.0, 0.2, -0.2], "measured": [0.1, 0.15, -0.25]}
REPEATS = (-0.2, 0.2, 0.0)


@pytest.mark.parametrize(("times", "choice"), [(2.49, "baseline"), (2.51, "measured")])
def test_a_gain_is_sure_from_two_and_a_half_sd_on(times, choice):
    shift = times * by_hand(SURE, REPEATS)
    scores = SURE | {"measured": [x - shift for x in SURE["measured"]]}
    answer = confirm(*told(scores, [("measured", None, None)], REPEATS))
    assert answer.gain == pytest.approx(times * answer.gain_sd)
    assert answer.choice == choice
    assert answer.mixture == OTHERS[choice]


def test_what_the_search_knew_and_the_runs_weigh_by_the_inverse_of_their_variances():
    error = by_hand(SURE, REPEATS)
    for sd in (0.5 * error, 2 * error):
        before = 1.5 * math.hypot(sd, error)
        candidate = confirm(*told(SURE, [("measured", before, sd)], REPEATS)).candidates[0]
        assert candidate.gain == pytest.approx(before * error**2 / (sd**2 + error**2))
        assert candidate.gain_sd == pytest.approx(sd * error / math.hypot(sd, error))


def test_the_gain_on_each_target_is_joined_with_its_runs_as_the_joint_gain_is():
    answer, *rest = told(SURE, [("measured", 0.3, 0.2)], REPEATS)
    (before,) = answer.candidates
    answer = replace(answer, candidates=[replace(before, gains={"loss": (0.3, 0.2)})])
    (candidate,) = confirm(answer, *rest).candidates
    assert candidate.expected == 0.3
    assert candidate.gain != 0.3
    assert candidate.gains["loss"] == pytest.approx((candidate.gain, candidate.gain_sd))


@pytest.mark.parametrize(("times", "alone"), [(2.49, False), (2.51, True)])
@pytest.mark.parametrize("sign", [1, -1])
def test_runs_count_alone_where_the_search_contradicts_them(times, alone, sign):
    error = by_hand(SURE, REPEATS)
    sd = 2 * error
    before = sign * times * math.hypot(sd, error)
    candidate = confirm(*told(SURE, [("measured", before, sd)], REPEATS)).candidates[0]
    assert (candidate.gain == pytest.approx(0.0, abs=1e-9)) == alone
    assert candidate.gain_sd == pytest.approx(
        error if alone else sd * error / math.hypot(sd, error)
    )


def test_equal_runs_leave_the_gain_that_they_show():
    scores = {"baseline": [1.0, 1.0], "measured": [0.0, 0.0]}
    candidate = confirm(*told(scores, [("measured", 1.0, 0.0)], (0.0, 0.0))).candidates[0]
    assert candidate.gain == pytest.approx(1.0)
    assert 0 < candidate.gain_sd < 1e-8


def test_runs_that_are_worse_confirm_nothing_however_sure_the_search_was():
    error = by_hand(SURE, REPEATS)
    scores = SURE | {"measured": [x + 0.1 * error for x in SURE["measured"]]}
    answer = confirm(*told(scores, [("measured", 1.8 * error, 0.1 * error)], REPEATS))
    assert answer.gain > 2.5 * answer.gain_sd
    assert answer.choice == "baseline"


@pytest.mark.parametrize(("one", "other", "choice"), [(3, 4, "predicted"), (4, 3, "measured")])
def test_the_candidate_of_the_larger_gain_is_chosen(one, other, choice):
    scores = {
        "baseline": [0.0, 0.2],
        "measured": [-float(one), 0.2 - one],
        "predicted": [-float(other), 0.2 - other],
    }
    candidates = [("measured", None, None), ("predicted", None, None)]
    answer = confirm(*told(scores, candidates, REPEATS))
    assert answer.choice == choice
    assert answer.gain == pytest.approx(4)
    assert answer.mixture.about == {"choice": choice}


# Whole searches.


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
    (outcome,) = answer.outcomes
    assert outcome.gain == pytest.approx(outcome.baseline - outcome.best)
    assert answer.reason.startswith("Found loss ")
    assert f", better by {outcome.gain:.3f} ± " in answer.reason
    expected = re.search(r"the search had expected a gain in loss of ([\d.]+); in", answer.reason)
    scale = float(
        Observations.of(s.log.trials[:BUDGET], NAMES, {"loss": "min"}, np.ones(1)).scale[0]
    )
    best = next(c for c in answer.candidates if c.choice == answer.choice)
    assert float(expected[1]) == pytest.approx(best.expected * scale, abs=1e-3)
    by_choice = answer.confirmation.scores
    assert by_choice.keys() >= {"baseline", answer.choice}
    assert {len(of["loss"]) for of in by_choice.values()} == {3}


def test_a_gain_that_was_luck_is_taken_back():
    """The search's own runs say that c03 is good, and the confirmation says that it is not."""
    s = search()
    play(s, lambda m: loss(m) if m.about["trial"] <= BUDGET else 3.0 + noise(m, 0.3))
    assert s.result().choice == "baseline"
    assert s.result().reason.startswith(
        "It is not certain that any mixture is better than the token shares: the best other one "
    )
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
        for again in claims:
            s = search(again, preset="random", seed=seed)
            play(
                s,
                lambda m, seed=seed: float(
                    np.random.default_rng([seed, m.about["trial"]]).normal()
                ),
            )
            claims[again] += s.result().choice != "baseline"
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


def moved(path, target, told=None):
    """Copy the log at ``path``, as if a machine that rounds otherwise had predicted another best.

    Return what it is there. Only the first ``told`` trials are copied.
    """
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    measured = {json.dumps(line["mixture"]["weights"]) for line in lines[1 : BUDGET + 1]}
    other = None
    for line in lines[BUDGET + 1 :]:
        weights = line["mixture"]["weights"]
        if json.dumps(weights) not in measured:
            part = min(1e-9, weights["c03"] / 2)
            line["mixture"]["weights"] = weights | {
                "c03": weights["c03"] - part,
                "c02": weights["c02"] + part,
            }
            other = Mixture.from_json(line["mixture"])
    lines = lines[: None if told is None else told + 1]
    target.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return other


@pytest.mark.parametrize("told", [BUDGET + 3, BUDGET + 5, BUDGET + 9])
def test_what_is_being_run_again_is_what_the_log_has_and_not_what_would_be_proposed_now(
    tmp_path, told
):
    whole = search(preset="robust", log=tmp_path / "whole.jsonl")
    asked = play(whole)
    other = moved(tmp_path / "whole.jsonl", tmp_path / "moved.jsonl", told)
    assert other is not None
    assert other not in asked
    s = search(preset="robust", log=tmp_path / "moved.jsonl")
    rest = play(s)
    assert len(rest) == len(asked) - told
    assert {m.fingerprint for m in rest} <= {m.fingerprint for m in [*asked[:BUDGET], other]}
    answer = s.result()
    assert len(answer.confirmation.seeds) == 3
    assert other in [candidate.mixture for candidate in answer.candidates]


def test_rounds_that_have_ended_are_taken_from_the_log(tmp_path, monkeypatch):
    s = search(0, preset="robust", log=tmp_path / "trials.jsonl")
    asked = play(s)
    lines = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    lines[5]["mixture"]["weights"] = {"c00": 0.1, "c01": 0.2, "c02": 0.3, "c03": 0.4}
    (tmp_path / "other.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in lines[:-1]))
    proposed, propose = [], Search._propose
    monkeypatch.setattr(Search, "_propose", lambda s, r: proposed.append(r) or propose(s, r))
    again = search(0, preset="robust", log=tmp_path / "other.jsonl")
    assert [m.about for m in again.ask()] == [asked[-1].about]
    assert proposed == [asked[-1].about["round"]]
    assert again.log.trials[4].mixture == Mixture.of(lines[5]["mixture"]["weights"])


def runs_of(*mixtures, scores=None, seeds=(20, 21)):
    """Trials that confirm: each of ``mixtures`` with each of ``seeds``."""
    pairs = [(seed, mixture) for seed in seeds for mixture in mixtures]
    return [
        Trial(number=n, round=9, mixture=m, seed=seed, scores=scores or {"loss": loss(m)})
        for n, (seed, m) in enumerate(pairs, start=BUDGET + 1)
    ]


def concluded():
    """A search without confirmation: its answer, evidence and token shares."""
    s = search(0, preset="robust")
    play(s)
    return s.result(), s._evidence(s.log.trials), Mixture.of(SHARES)


def test_runs_of_a_mixture_that_is_no_candidate_do_not_count():
    answer, known, base = concluded()
    stranger = Mixture.of({"c02": 1.0, "c00": 0, "c01": 0, "c03": 0})
    first = answer.candidates[0]
    plain = confirm(answer, base, runs_of(base, first.mixture), known)
    assert confirm(answer, base, runs_of(base, first.mixture, stranger), known) == plain
    others = confirm(answer, base, runs_of(base, stranger), known)
    assert others.mixture == answer.mixture
    assert "of 4 runs, 0 failed, and no seed has scores of" in others.reason


def test_a_candidate_without_runs_stays_as_it_was_and_is_not_chosen():
    answer, known, base = concluded()
    first, second = answer.candidates
    confirmed = confirm(answer, base, runs_of(base, first.mixture), known)
    assert confirmed.candidates[1] == second
    assert confirmed.mixture in (base, first.mixture)


def test_a_mixture_that_is_both_candidates_is_confirmed_as_both():
    answer, known, base = concluded()
    first, second = answer.candidates
    both = replace(answer, candidates=[first, replace(second, mixture=first.mixture)])
    confirmed = confirm(both, base, runs_of(base, first.mixture), known)
    assert confirmed.confirmation.seeds == [20, 21]
    scores = confirmed.confirmation.scores
    assert scores["measured"] == scores["predicted"]


def test_an_answer_between_two_runs_does_not_say_that_all_failed():
    s = search()
    asked = s.ask()
    while asked[0].about["trial"] <= BUDGET:
        for mixture in asked:
            s.tell(mixture, {"loss": loss(mixture)})
        asked = s.ask()
    s.tell(asked[0], {"loss": loss(asked[0])})
    assert "of 1 run, 0 failed" in s.result().reason


def test_a_seed_of_which_a_run_failed_does_not_count_and_without_any_nothing_changes():
    first = BUDGET + 1
    s = search()
    play(s, lambda m: None if m.about["trial"] == first else loss(m))
    assert len(s.result().confirmation.seeds) == 2
    plain, failing = search(0), search()
    play(plain)
    play(failing, lambda m: None if m.about["trial"] >= first else loss(m))
    assert failing.result().mixture == plain.result().mixture
    assert failing.result().reason.endswith(" All new runs, which were to confirm that, failed.")


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

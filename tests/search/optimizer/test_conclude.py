"""What is concluded follows from the scores by arithmetic that can be done by hand."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from climbstream.loader import Mixture
from climbstream.search import Trial
from climbstream.search.optimizer.acquisition import Bootstrap
from climbstream.search.optimizer.answer import Pick
from climbstream.search.optimizer.conclude import (
    choose_mixture,
    front_of,
    measured_pick,
    shrink,
    upper_confidence_sd,
)
from climbstream.search.optimizer.observations import Observations

BASE = Mixture.of({"a": 0.5, "b": 0.5})
BEST = Mixture.of({"a": 0.2, "b": 0.8})
OTHER = Mixture.of({"a": 0.9, "b": 0.1})
PREDICTED = Mixture.of({"a": 0.1, "b": 0.9})


def evidence(runs, targets=("loss",), importance=None):
    """Observations of ``runs``: pairs of a mixture and its scores."""
    trials = [
        Trial(number=n, round=1, mixture=m, seed=n, scores=dict(zip(targets, s, strict=True)))
        for n, (m, s) in enumerate(runs, start=1)
    ]
    share = np.full(len(targets), 1 / len(targets)) if importance is None else importance
    return Observations.of(trials, ["a", "b"], dict.fromkeys(targets, "min"), share, {}, BASE)


RUNS = [(BASE, [4.0]), (BASE, [6.0]), (BEST, [1.0]), (OTHER, [9.0])]
KNOWN = evidence(RUNS)
SCALE = float(KNOWN.scale[0])


@dataclass
class Forecast:
    """A surrogate whose predictions are told, by the weight of a."""

    known: Observations
    line: tuple[float, float] = (0.0, 0.0)
    """Predicted total: the first plus the second times the weight of a."""
    error: float = 0.6
    useful: bool = True
    surely_useful: bool = True
    knows_gaps: bool = False
    gain_sd: float = 0.1
    table: list[str] = field(default_factory=list)

    @property
    def expected(self):
        """Predict every trial."""
        return self.total(self.known.weights)

    def total(self, weights):
        """Return totals, ``[m]``."""
        return self.line[0] + self.line[1] * weights[:, 0]

    def scores(self, weights):
        """Return the total as the score of one target."""
        return self.total(weights)[:, None]

    def gain(self, weights, base):
        """Return by how much ``weights`` beats ``base``, and the sd that is told."""
        return float(self.line[1] * (base[0] - weights[0])), self.gain_sd

    def gains(self, weights, base):
        """Return `gain` as that on the only target."""
        gain, sd = self.gain(weights, base)
        return np.array([gain]), np.array([sd])

    def sds(self, weights):
        """Return `error` for each prediction."""
        return np.full((len(weights), 1), self.error)


def copies(predicted=0.0, measured=0.0):
    return Bootstrap(
        best=np.zeros((1, 2)), predicted_optimism=predicted, measured_optimism=measured
    )


# Parts.


def test_a_measurement_is_shrunk_towards_what_is_expected():
    # As much noise as there is doubt about the mixture: half way.
    score, sd = shrink(mean=-2.0, expected=0.0, repeats=1, noise=1.0, error=math.sqrt(2))
    assert (score, sd) == pytest.approx((-1.0, math.sqrt(0.5)))
    # No noise: as measured. All noise: as expected.
    assert shrink(-2.0, 0.0, 1, 0.0, 1.0) == (-2.0, 0.0)
    assert shrink(-2.0, 0.0, 1, 1.0, 1.0) == (0.0, 0.0)
    assert shrink(-2.0, -2.0, 0, 0.6, 1.0) == pytest.approx((-2.0, 0.8))
    # Neither doubt nor noise: what was measured.
    assert shrink(-2.0, 1.0, 3, 0.0, 0.0) == (-2.0, 0.0)


@pytest.mark.parametrize(("repeats", "noise", "error"), [(1, 0.5, 1.3), (4, 1.0, 1.1), (2, 0.3, 2)])
def test_shrinking_is_the_posterior_of_a_normal_with_a_normal_prior(repeats, noise, error):
    prior, likelihood = error**2 - noise**2, noise**2 / repeats
    precision = 1 / prior + 1 / likelihood
    mean = (0.7 / prior - 1.9 / likelihood) / precision
    assert shrink(-1.9, 0.7, repeats, noise, error) == pytest.approx((mean, precision**-0.5))


@pytest.mark.parametrize("freedom", [1, 2, 5, 20])
@pytest.mark.parametrize(("quantile", "part"), [(0.8416, 0.2), (1.6449, 0.05)])
def test_the_upper_end_of_a_noise_is_that_of_chi_squared(freedom, quantile, part):
    from scipy.stats import chi2

    exact = math.sqrt(freedom / chi2.ppf(part, freedom))
    assert upper_confidence_sd(3.0, freedom, quantile) == pytest.approx(3 * exact, rel=0.15)
    assert upper_confidence_sd(3.0, freedom) == upper_confidence_sd(3.0, freedom, 0.8416)
    if freedom > 2:
        assert upper_confidence_sd(1.0, freedom, quantile) == pytest.approx(exact, rel=0.03)


def test_a_measured_pick_is_the_mean_of_its_runs():
    pick = measured_pick(KNOWN, np.array([0, 1]), 0.4)
    assert pick.mixture == BASE
    assert pick.score == pytest.approx(0.0)
    assert pick.sd == pytest.approx(0.4 / math.sqrt(2))
    assert pick.scores == pytest.approx({"loss": 5.0})
    assert pick.trials == [1, 2]
    assert measured_pick(KNOWN, np.array([2]), None).sd is None


def test_the_front_is_what_no_other_beats():
    rng = np.random.default_rng(0)
    picks = [
        Pick(
            mixture=BASE, score=float(s), sd=None, scores={"a": float(a), "b": float(b)}, trials=[]
        )
        for s, a, b in zip(rng.normal(size=40), *rng.integers(0, 30, (2, 40)), strict=True)
    ]

    def beats(one, other):
        losses = [(p.scores["a"], -p.scores["b"]) for p in (one, other)]
        return losses[0] != losses[1] and all(x <= y for x, y in zip(*losses, strict=True))

    expected = [p for p in picks if not any(beats(other, p) for other in picks)]
    front = front_of(picks, {"a": "min", "b": "max"})
    assert front == sorted(expected, key=lambda p: p.score)
    assert 1 < len(front) < 40


# Choices.


def test_without_predictions_the_best_measured_is_shrunk_by_what_repeats_say():
    answer = choose_mixture(KNOWN, BASE, None)
    noise = math.sqrt(((4 - 5) ** 2 + (6 - 5) ** 2) / 1) / SCALE
    assert answer.noise == pytest.approx(noise)
    assert answer.measured_best.mixture == BEST
    # All scores are noise as far as is known: the sd of one run is no more than that of all.
    doubt = min(upper_confidence_sd(noise, 1, 1.6449), 1.0)
    score, sd = shrink(answer.measured_best.score, 0.0, 1, doubt, 1.0)
    assert answer.gain == pytest.approx(0.0 - score)
    assert answer.gain_sd == pytest.approx(math.hypot(sd, doubt / math.sqrt(2)))
    assert answer.choice == "baseline"
    assert answer.mixture == BASE
    assert answer.candidates[0].gain == answer.gain


def many(noise, gain):
    """20 runs of the token shares with noise of sd ``noise``, and one ``gain`` below their mean."""
    signs = [1.0, -1.0] * 10
    runs = [(BASE, [noise * sign]) for sign in signs]
    return evidence([*runs, (BEST, [-gain]), (OTHER, [gain])])


def test_noise_counts_with_its_upper_end_at_95_percent():
    known = many(1.0, 60.0)
    answer = choose_mixture(known, BASE, None)
    noise = math.sqrt(20 / 19) / float(known.scale[0])
    assert answer.noise == pytest.approx(noise)
    doubt = upper_confidence_sd(noise, 19, 1.6449)
    assert doubt < 1
    _, sd = shrink(answer.measured_best.score, 0.0, 1, doubt, 1.0)
    assert answer.gain_sd == pytest.approx(math.hypot(sd, doubt / math.sqrt(20)))


@pytest.mark.parametrize(("factor", "choice"), [(0.98, "baseline"), (1.02, "measured")])
def test_a_raw_gain_counts_from_two_and_a_half_sd_on(factor, choice):
    known = many(1.0, 6.0)

    def bar(known):
        answer = choose_mixture(known, BASE, None)
        return answer.gain - 2.5 * answer.gain_sd

    low, high = 0.1, 60.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if bar(many(1.0, middle)) < 0 else (low, middle)
    known = many(1.0, factor * high)
    assert choose_mixture(known, BASE, None).choice == choice


@pytest.mark.parametrize(
    ("corrected", "sure", "times"),
    [(False, True, 2.5), (True, False, 2.5), (True, True, 1.6449)],
)
def test_a_gain_counts_from_fewer_sd_on_if_it_was_corrected_and_predictions_are_surely_useful(
    corrected, sure, times
):
    for factor, choice in ((0.99, "baseline"), (1.01, "predicted")):
        forecast = Forecast(KNOWN, (0.0, 5.0), knows_gaps=True, surely_useful=sure)
        gain = forecast.gain(np.array([0.1, 0.9]), np.array([0.5, 0.5]))[0]
        forecast.gain_sd = gain / times / factor
        answer = choose_mixture(KNOWN, BASE, forecast, PREDICTED, copies() if corrected else None)
        assert answer.choice == choice
        assert answer.gain == pytest.approx(gain)


def test_the_optimism_is_taken_off_and_half_of_it_is_doubt():
    forecast = Forecast(KNOWN, (0.0, 5.0), knows_gaps=True, gain_sd=0.3)
    answer = choose_mixture(KNOWN, BASE, forecast, PREDICTED, copies(0.8, 0.4))
    by_choice = {each.choice: each for each in answer.candidates}
    assert by_choice["predicted"].gain == pytest.approx(5 * 0.4 - 0.8)
    assert by_choice["predicted"].gain_sd == pytest.approx(0.5)
    assert by_choice["measured"].gain == pytest.approx(5 * 0.3 - 0.4)
    assert by_choice["measured"].gain_sd == pytest.approx(math.hypot(0.3, 0.2))
    assert (answer.gain, answer.gain_sd) == pytest.approx((2 - 0.8, 0.5))


def test_the_token_shares_owe_nothing_to_a_choice():
    worst = evidence([(BASE, [1.0]), (BASE, [1.2]), (BEST, [5.0]), (OTHER, [9.0])])
    answer = choose_mixture(
        worst, BASE, Forecast(worst, (0.0, -5.0), knows_gaps=True), PREDICTED, copies(9.0, 9.0)
    )
    assert (answer.choice, answer.gain) == ("baseline", 0.0)
    assert [each.choice for each in answer.candidates] == ["predicted"]


@pytest.mark.parametrize(
    ("slope", "choice", "word"), [(5, "predicted", "better"), (-5, "measured", "worse")]
)
def test_the_predicted_best_is_taken_if_the_process_says_that_it_beats_the_measured(
    slope, choice, word
):
    forecast = Forecast(KNOWN, (0.0, slope), knows_gaps=True, gain_sd=0.01)
    answer = choose_mixture(KNOWN, BASE, forecast, PREDICTED)
    picks = {each.choice: each.gain for each in answer.candidates}
    assert picks["predicted"] == pytest.approx(0.4 * slope)
    assert picks["measured"] == pytest.approx(0.3 * slope)
    if slope > 0:
        assert answer.choice == choice


def test_without_a_process_the_lead_is_over_what_luck_leaves_of_the_measured():
    forecast = Forecast(KNOWN, (-1.0, 2.0), error=0.9)
    answer = choose_mixture(KNOWN, BASE, forecast, PREDICTED)
    noise = answer.noise
    doubt = min(upper_confidence_sd(noise, 1, 1.6449), 0.9)
    assert answer.predicted_best.score == pytest.approx(-0.8)
    assert answer.predicted_best.sd == 0.9
    assert answer.predicted_best.scores == pytest.approx({"loss": -0.8 * SCALE + 5})
    predicted = next(each for each in answer.candidates if each.choice == "predicted")
    sd = math.sqrt(max(0.9**2 - doubt**2, 0))
    assert predicted.gain == pytest.approx(0.8)
    assert predicted.gain_sd == pytest.approx(math.hypot(sd, doubt / math.sqrt(2)))


@pytest.mark.parametrize(("above", "choice"), [(-0.1, "predicted"), (0.1, "measured")])
def test_without_a_process_the_predicted_best_must_beat_what_luck_leaves(above, choice):
    known = evidence([(OTHER, [4.0]), (OTHER, [4.2]), (OTHER, [3.8]), (BEST, [1.0])])
    best = choose_mixture(known, BASE, None).measured_best.score
    # Where all mixtures are expected to be alike, luck leaves a part of what lies between.
    forecast = Forecast(known, (best + above, 0.0), error=0.9)
    assert choose_mixture(known, BASE, forecast, PREDICTED).choice == choice


def test_a_predicted_best_that_is_just_as_good_is_not_taken():
    known = evidence([(OTHER, [4.0]), (OTHER, [4.2]), (BEST, [1.0])])
    forecast = Forecast(known, (0.0, 0.0), knows_gaps=True)
    assert choose_mixture(known, BASE, forecast, PREDICTED).choice == "measured"
    better = Forecast(known, (0.0, 1e-6), knows_gaps=True)
    assert choose_mixture(known, BASE, better, PREDICTED).choice == "predicted"


def test_without_repeats_the_error_of_predictions_is_the_doubt():
    known = evidence([(BASE, [4.0]), (BEST, [1.0]), (OTHER, [9.0])])
    forecast = Forecast(known, (-1.0, 2.0), error=0.5)
    answer = choose_mixture(known, BASE, forecast, PREDICTED)
    measured = next(each for each in answer.candidates if each.choice == "measured")
    # All that is not predicted is noise, so nothing is left of what was measured beside it.
    assert measured.gain == pytest.approx(answer.baseline.score - (-1 + 2 * 0.2))
    assert measured.gain_sd == pytest.approx(0.5)


def test_useless_predictions_leave_the_scores_to_themselves():
    forecast = Forecast(KNOWN, (-9.0, 2.0), error=0.1, useful=False, knows_gaps=True)
    useless = choose_mixture(KNOWN, BASE, forecast)
    plain = choose_mixture(KNOWN, BASE, None)
    assert (useless.gain, useless.gain_sd) == (plain.gain, plain.gain_sd)
    assert useless.out_of_fold == list(
        zip(forecast.expected.tolist(), KNOWN.total.tolist(), strict=True)
    )
    assert plain.out_of_fold == []


def test_without_scores_of_the_token_shares_the_gain_is_unknown():
    known = evidence([(BEST, [1.0]), (BEST, [2.0]), (OTHER, [9.0])])
    answer = choose_mixture(known, BASE, None)
    assert (answer.choice, answer.gain, answer.baseline) == ("measured", None, None)


def test_several_targets_have_a_front_and_one_has_none():
    two = evidence([(BASE, [1, 2]), (BEST, [5, 1]), (OTHER, [6, 9])], ("x", "y"))
    answer = choose_mixture(two, BASE, None)
    assert {pick.mixture.fingerprint for pick in answer.front} == {
        BASE.fingerprint,
        BEST.fingerprint,
    }
    assert choose_mixture(KNOWN, BASE, None).front == []


def test_a_pick_of_unknown_luck_is_answered_with_its_gain_and_no_sd():
    known = evidence([(BASE, [4.0]), (BEST, [1.0])])
    answer = choose_mixture(known, BASE, None)
    assert (answer.choice, answer.gain_sd) == ("measured", None)
    assert answer.gain == pytest.approx(2.0)
    worse = choose_mixture(evidence([(BASE, [1.0]), (BEST, [4.0])]), BASE, None)
    assert worse.choice == "baseline"
    forecast = replace(Forecast(known), useful=False)
    assert choose_mixture(known, BASE, forecast, PREDICTED).choice == "measured"

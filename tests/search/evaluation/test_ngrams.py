"""What n-grams say of a mixture is what counting them in it would say."""

from collections import Counter

import numpy as np
import pytest

from climbstream.loader import Manifest, Mixture, MixtureLoader
from climbstream.loader.formats.clusters import load_clusters
from climbstream.loader.formats.tokenizer import read_tokenizer
from climbstream.search.evaluation.ngrams import NgramLoss, ngram_losses
from climbstream.search.evaluation.scoring import lay_out
from climbstream.search.evaluation.targets import load_target
from climbstream.search.experiments.proxy import ProxyTask, run_proxy
from climbstream.search.predictors.base import spearman
from climbstream.search.training.settings import TrainSettings

SEA = "label=sea"


@pytest.fixture(scope="module")
def losses(shards):
    return ngram_losses(shards, [SEA, "label=law"], 32)


def counted(shards, name):
    """N-grams that the third to the last token of each row of a cluster end, and how many."""
    manifest = Manifest.load(shards)
    tokens = min(c.tokens for c in manifest.clusters if c.name == name)
    loader = MixtureLoader(shards, {name: 1}, seq_len=32, batch_rows=1)
    found, ends = Counter(), 0
    for _ in range(tokens // 32):
        row = next(loader)["input_ids"][0].tolist()
        for a, b, c in zip(row, row[1:], row[2:], strict=False):
            found.update([("one", c), ("before", b), ("two", b, c)])
            found.update([("before two", a, b), ("three", a, b, c)])
            ends += 1
    return found, ends


def test_counts_of_a_mixture_are_those_of_its_clusters_added_up(shards):
    manifest = Manifest.load(shards)
    names = manifest.names
    rows = lay_out(
        load_target(shards, SEA), "validation", read_tokenizer(shards), manifest.eos_id, 32
    )
    rates = {}
    for name in names:
        found, ends = counted(shards, name)
        rates[name] = {gram: count / ends for gram, count in found.items()}
    weights = np.random.default_rng(3).dirichlet(np.ones(len(names)), 3)
    expected = []
    for mixture in weights:
        shares = Counter()
        for name, weight in zip(names, mixture, strict=True):
            shares.update({gram: weight * rate for gram, rate in rates[name].items()})
        bits = []
        for before, after in zip(rows.inputs.tolist(), rows.targets.tolist(), strict=True):
            for place, c in enumerate(after):
                a, b = before[max(0, place - 1)], before[place]
                if c < 0:
                    continue
                known = (shares["one", c] + 1e-5) / (1 + 1e-5 * manifest.vocab_size)
                known = (shares["two", b, c] + 2e-4 * known) / (shares["before", b] + 2e-4)
                three, two = shares["three", a, b, c], shares["before two", a, b]
                bits.append(-np.log2((three + 2e-4 * known) / (two + 2e-4)))
        expected.append(np.mean(bits))
    assert len(bits) < 2000, "all of the target is asked for"
    found = ngram_losses(shards, [SEA], 32)[SEA](weights)
    # Which rows the samples have differs a little.
    assert found == pytest.approx(expected, rel=0.02)
    assert np.argsort(found).tolist() == np.argsort(expected).tolist()


def test_text_of_a_kind_needs_least_bits_in_its_own_cluster(shards, losses):
    manifest = Manifest.load(shards)
    words = {info.name: info.terms for info in load_clusters(shards)}
    alone = losses[SEA](np.eye(len(manifest.names)))
    assert {"harbour", "anchor", "reef", "vessel"} & set(
        words[manifest.names[int(np.argmin(alone))]]
    )


def test_many_mixtures_are_worked_out_as_one_is(shards, losses):
    weights = np.random.default_rng(0).dirichlet(np.ones(len(Manifest.load(shards).names)), 600)
    together = losses[SEA](weights)
    assert together[[0, 255, 256, 599]] == pytest.approx(
        [float(losses[SEA](weights[i : i + 1])[0]) for i in (0, 255, 256, 599)], rel=1e-6
    )
    assert losses[SEA](weights[:0]).shape == (0,)


def test_equal_shards_and_targets_say_the_same(shards, losses):
    again = ngram_losses(shards, ["label=law", SEA], 32)
    weights = np.full((1, len(Manifest.load(shards).names)), 1 / 6)
    for spec in again:
        assert again[spec](weights) == losses[spec](weights)


def test_a_token_that_is_nowhere_costs_much_and_not_infinitely():
    rates = np.zeros((2, 5), np.float32)
    nothing = NgramLoss(rates, np.arange(5)[:, None], vocab_size=100)
    bits = nothing(np.array([[0.5, 0.5]]))
    assert bits == pytest.approx(np.log2(1.001 / 1e-5))


def test_proxies_rank_mixtures_as_n_grams_do(shards, losses):
    names = Manifest.load(shards).names
    weights = np.random.default_rng(1).dirichlet(np.full(len(names), 0.5), 12)
    scores = []
    for row in weights:
        mixture = Mixture.of(dict(zip(names, row.tolist(), strict=True)))
        settings = TrainSettings(tokens=128 * 100, seq_len=32, batch_rows=4)
        task = ProxyTask(
            directory=shards, mixture=mixture, seed=0, settings=settings, targets=(SEA,)
        )
        scores.append(run_proxy(task).scores[SEA])
    assert spearman(losses[SEA](weights), np.array(scores)) > 0.6

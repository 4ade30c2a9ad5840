"""N-grams: estimate the score of a mixture from counts, before any proxy is trained.

The n-gram counts of a mixture are the weighted sum of the counts of its clusters. So one pass over
a sample of the tokens is enough for all mixtures. From the counts of a mixture, this module
computes how many bits an interpolated trigram model needs for a target. These bits differ from the
bits that a proxy needs, but both rank mixtures in nearly the same order. A Gaussian process that is
given these bits learns only how scores differ from them. So it needs far fewer trials (mixtures
with their scores) than a process without the bits (docs/decisions/predictors.md). A search uses the
bits only if they improve its predictions in cross-validation.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from climbstream.loader import MixtureLoader
from climbstream.loader.core.permutation import mix, sample_indices
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.search.predictors.base import Floats

from .scoring import lay_out
from .targets import load_target

_PLACES = 2_000
"""Number of tokens of a target that are used. With 8,000, mixtures are ranked no better."""
_SAMPLE = 20_000_000
"""Number of tokens that are counted in total; each cluster has an equal part of it."""
_MOST = 1_000_000
"""Largest number of tokens that are counted in one cluster."""
_SHORTER = 2e-4
"""A frequency of contexts, as a share of all tokens. At this frequency, the counts of a context
influence a likelihood as much as the counts of the context that is one token shorter."""
_UNSEEN = 1e-5
"""Share of all tokens that is added to the share of each token of the vocabulary. So no token has
probability 0."""
_KINDS = 5
"""Number of kinds of n-grams: a token alone; a context of one token, without and with the next
token; a context of two tokens, without and with the next token."""
_AT_ONCE = 64
"""Number of mixtures that are computed together. The arrays of 256 mixtures exceed the cache of a
core, and each mixture then takes three times as long."""


class NgramLoss:
    """Computes from counts how many bits per token a trigram model of a mixture needs for a target.

    An object is called with the weights of mixtures, ``[m, K]``, and returns bits, ``[m]``.

    Args:
        rates: For each cluster and n-gram, the share of the cluster's tokens at which the n-gram
            ends, float32 ``[K, n-grams]``.
        ngrams: For each kind of n-gram and each token of the target, the column of ``rates`` for
            the n-gram that ends at this token, ``[kinds, tokens]``.
        vocab_size: Number of different tokens.
    """

    def __init__(
        self, rates: NDArray[np.float32], ngrams: NDArray[np.int64], vocab_size: int
    ) -> None:
        used, places = np.unique(ngrams, return_inverse=True)
        self._rates = rates[:, used]
        self._ngrams = places.reshape(ngrams.shape)
        self._vocab_size = vocab_size

    def __call__(self, weights: Floats) -> Floats:
        """Return the bits per token for each of the mixtures ``weights``: float64 ``[m]``."""
        parts = np.split(weights, range(_AT_ONCE, len(weights), _AT_ONCE))
        return np.concatenate([self._bits(part) for part in parts])

    def _bits(self, weights: Floats) -> Floats:
        shares = weights.astype(np.float32) @ self._rates
        one, before, two, before_two, three = (shares[:, ids] for ids in self._ngrams)
        likelihood = (one + _UNSEEN) / (1 + _UNSEEN * self._vocab_size)
        likelihood = (two + _SHORTER * likelihood) / (before + _SHORTER)
        likelihood = (three + _SHORTER * likelihood) / (before_two + _SHORTER)
        return np.asarray(-np.log2(likelihood).mean(axis=1), np.float64)


def ngram_losses(directory: Path, targets: Sequence[str], seq_len: int) -> dict[str, NgramLoss]:
    """Count n-grams of all clusters of ``directory``; return an `NgramLoss` for each target.

    N-grams are counted within rows of ``seq_len`` tokens, because proxies are trained on such rows.
    Only the validation half of a target is read, because the search scores proxies on that half.
    """
    shards = ShardDirectory(directory)
    manifest = shards.manifest
    tokenizer, end = shards.tokenizer(), manifest.eos_id
    keys = []
    for spec in targets:
        rows = lay_out(load_target(directory, spec), "validation", tokenizer, end, seq_len)
        keys.append(_keys_of(rows.inputs.numpy(), rows.targets.numpy(), spec))
    unique, places = np.unique(np.concatenate([k.ravel() for k in keys]), return_inverse=True)
    rates = _count(shards, unique, seq_len)
    parts = np.split(places, np.cumsum([k.size for k in keys])[:-1])
    return {
        spec: NgramLoss(rates, part.reshape(k.shape), manifest.vocab_size)
        for spec, k, part in zip(targets, keys, parts, strict=True)
    }


def _keys_of(inputs: Any, targets: Any, spec: str) -> NDArray[np.uint64]:
    """Return the keys of all n-grams that end at tokens of a target: uint64 ``[kinds, tokens]``.

    ``inputs`` and ``targets`` are those of a `ScoredText`. At most `_PLACES` of its tokens are
    used.
    """
    rows, columns = np.nonzero(targets >= 0)
    some = sample_indices(len(rows), _PLACES, spec)
    rows, columns = rows[some], columns[some]
    # The token before a row is unknown, so use the first token of the row instead.
    two_before = inputs[rows, np.maximum(columns - 1, 0)]
    tokens = np.stack([two_before, inputs[rows, columns], targets[rows, columns]])
    keys = np.empty((_KINDS, len(some)), np.uint64)
    for place, (a, b, c) in enumerate(tokens.T.astype(np.uint64)):
        for kind in range(_KINDS):
            keys[kind, place] = _key(kind, a, b, c)
    return keys


def _count(shards: ShardDirectory, keys: NDArray[np.uint64], seq_len: int) -> NDArray[np.float32]:
    """Return how often the n-grams ``keys`` (``[n]``) occur per token, by cluster: ``[K, n]``.

    The n-grams are counted in a sample of the rows of each cluster.
    """
    manifest = shards.manifest
    wanted = min(_SAMPLE // len(manifest.clusters), _MOST)
    slots, owners = _make_table(keys, 1 << (4 * len(keys)).bit_length())
    counts = np.zeros((len(manifest.names), len(keys)), np.int64)
    seen = np.zeros(len(manifest.names), np.int64)
    batch_rows = max(1, 65_536 // seq_len)
    loader = MixtureLoader(shards, seq_len=seq_len, batch_rows=batch_rows)
    # In the default mixture, a cluster that does not fill one row has weight 0.
    live = [c for c in manifest.clusters if loader.mixture.weights[c.name] > 0]
    tokens = {c.name: min(c.tokens, wanted) for c in live}
    loader.set_weights(tokens)
    for _ in range(-(-sum(tokens.values()) // (batch_rows * seq_len))):
        batch = next(loader)
        rows, clusters = batch["input_ids"].numpy(), batch["cluster_ids"].numpy()
        _add(rows, clusters, slots, owners, counts, seen)
    return np.asarray(counts / np.maximum(seen, 1)[:, None], np.float32)


@njit(cache=True)
def _key(kind: Any, a: Any, b: Any, c: Any) -> Any:
    """Return the key, a uint64, of the n-gram of ``kind`` that ends with ``a``, ``b``, ``c``.

    A trigram takes 60 bits, 20 for each token, because no vocabulary has more than 2**20 tokens.
    """
    bits, key = np.uint64(20), np.uint64(kind) << np.uint64(60)
    if kind == 0:
        return key | c
    if kind == 1:
        return key | b
    if kind == 2:
        return key | (b << bits) | c
    if kind == 3:
        return key | (a << bits) | b
    return key | (a << (bits + bits)) | (b << bits) | c


@njit(cache=True)
def _make_table(keys: Any, size: Any) -> Any:
    """Make a hash table of ``keys`` with ``size`` slots, a power of two.

    Returns:
        For each slot, its key and the index of this key in ``keys``. The index of an empty slot is
        -1.
    """
    slots, owners = np.zeros(size, np.uint64), np.full(size, -1)
    for place in range(len(keys)):
        slot = mix(keys[place]) & np.uint64(size - 1)
        while owners[slot] >= 0:
            slot = (slot + np.uint64(1)) & np.uint64(size - 1)
        slots[slot], owners[slot] = keys[place], place
    return slots, owners


@njit(cache=True)
def _add(rows: Any, clusters: Any, slots: Any, owners: Any, counts: Any, seen: Any) -> None:
    """Add to ``counts`` the n-grams of ``rows`` that are in the table, and to ``seen`` the tokens.

    The first two tokens of a row are skipped: n-grams that end there are not looked up, and these
    tokens are not added to ``seen``.
    """
    last = np.uint64(len(slots) - 1)
    for i in range(len(rows)):
        cluster = clusters[i]
        for t in range(2, rows.shape[1]):
            a, b, c = np.uint64(rows[i, t - 2]), np.uint64(rows[i, t - 1]), np.uint64(rows[i, t])
            for kind in range(_KINDS):
                key = _key(kind, a, b, c)
                slot = mix(key) & last
                while owners[slot] >= 0:
                    if slots[slot] == key:
                        counts[cluster, owners[slot]] += 1
                        break
                    slot = (slot + np.uint64(1)) & last
        seen[cluster] += max(0, rows.shape[1] - 2)

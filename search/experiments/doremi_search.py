"""DoReMi over shards: a reference on the token shares, a proxy that follows its excess loss."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from climbstream.loader import Manifest, Mixture
from climbstream.loader.core.console import Progress, say
from climbstream.loader.core.engines.local import LocalEngine, own_device
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import atomic_path, lock, read_json, write_json
from climbstream.loader.formats.outputs import DOREMI as FOLDER
from climbstream.loader.weights.request import LOG
from climbstream.search.evaluation.targets import target_hashes
from climbstream.search.optimizer.presets import DOREMI
from climbstream.search.training.base_model import check_base
from climbstream.search.training.doremi import DoReMi
from climbstream.search.training.settings import TrainSettings
from climbstream.search.training.trainer import default_mixture, first_model, train_model

from .proxy import PRELOAD, ProxyTask, run_proxy

_EVERY = 10
_SAVED = 100
"""Steps between checkpoints."""
_RESULT, _MIXTURE, _REFERENCE = "result.json", "mixture.json", "reference.pt"
_BEGUN = ("reference.begun.pt", "follower.begun.pt")
"""Checkpoints of the two models while they train."""


def run_doremi(
    directory: Path,
    targets: Sequence[str],
    out: Path,
    settings: TrainSettings,
    seed: int = 0,
    *,
    workers: int | None = None,
) -> dict[str, Any]:
    """Find DoReMi's mixture of ``directory``; go on if it was begun.

    It knows no targets: they are scored alone, on a proxy of the mixture found and on one of the
    token shares, so that it can be compared. With reference and follower four models are trained;
    without targets these two. Leaves ``weights.jsonl`` of the follower, ``result.json`` and
    ``mixture.json`` in ``out``.

    Raises:
        UsageError: A target does not exist, or so few steps that no weights would be chosen.
        InvalidDataError: ``out`` holds another search, or a model could not be trained.
        LockedError: Another process works on ``out``.
    """
    manifest = Manifest.load(directory)
    texts = target_hashes(directory, targets)
    check_base(settings.base, directory, settings.seq_len)
    if settings.steps < _EVERY:
        raise UsageError(
            f"{settings.tokens:,} tokens make {settings.steps} steps, and DoReMi chooses weights "
            f"every {_EVERY}; give {_EVERY * settings.seq_len * settings.batch_rows:,} or more"
        )
    plan = {
        "doremi": 1,
        "shards": manifest.fingerprint,
        "targets": texts,
        "settings": settings.to_json(),
        "seed": seed,
    }
    with lock(out):
        if FOLDER.begin(out, plan):
            say(f"going on with the search in {out}")
        if (out / _RESULT).exists():
            found: dict[str, Any] = read_json(out / _RESULT)
            return found
        prior = default_mixture(directory, settings)
        with Progress("doremi", 2 * settings.steps, "steps") as bar:
            reference = first_model(settings, manifest.vocab_size, seed)
            kept = out / _REFERENCE
            if kept.exists():
                reference.load_state_dict(torch.load(kept, weights_only=True))
                bar.add(settings.steps, "reference")
            else:
                reference = train_model(
                    directory,
                    prior,
                    settings,
                    seed,
                    checkpoint=out / _BEGUN[0],
                    every=_SAVED,
                    on_step=lambda _, loss: bar.add(1, f"reference, loss {loss:.3f}"),
                ).model
                with atomic_path(kept) as path, path.open("wb") as file:
                    torch.save(reference.state_dict(), file)
            torch.nn.Module.to(reference, own_device())
            rule = DoReMi(reference, prior, every=_EVERY)
            train_model(
                directory,
                prior,
                settings,
                seed,
                checkpoint=out / _BEGUN[1],
                every=_SAVED,
                log=out / LOG,
                rule=rule,
                on_step=lambda _, loss: bar.add(1, f"follower, loss {loss:.3f}"),
            )
        about = {"preset": DOREMI, **manifest.found_on}
        mixture = Mixture(rule.average.weights, about)
        tasks = [
            ProxyTask(
                directory=directory,
                mixture=each,
                seed=seed,
                settings=settings,
                targets=tuple(targets),
            )
            for each in (mixture, prior)
            if targets
        ]
        scores = {}
        with LocalEngine(workers, gpus=True, preload=PRELOAD) as pool:
            for task, result in pool.run(run_proxy, tasks):
                if result.scores is None:
                    raise InvalidDataError(f"a proxy could not be scored: {result.why}")
                scores["mixture" if task.mixture is mixture else "token_shares"] = result.scores
        mixture.save(out / _MIXTURE)
        found = {"mixture": mixture.to_json(), "scores": dict(sorted(scores.items()))}
        write_json(out / _RESULT, found)
        for name in _BEGUN:
            (out / name).unlink(missing_ok=True)
    return found

"""Compare methods of search by the models that are trained on their mixtures.

As in Table 1 of CLIMB (arXiv 2504.13161), a method has a budget of proxies to find a mixture, and
larger models are then trained on this mixture. Here the unit is the search: each method searches
several times, and all standard errors are over searches.

``../shared/corpus`` is built into shards of about 20 clusters. Search k uses seed k, and its own
random half of the tasks as targets (the *searched* tasks); the other tasks are *unseen*. A score is
in bits per byte of right answers: of the validation items for proxies, of the test items for final
models. As in the paper, all proxies continue from one base model, which was trained in the token
shares (each cluster's share of all tokens). Before a proxy is scored, its parameters are averaged
over the last fifth of its steps. The methods are:

* ``robust``: the answer of the search, which may be the token shares;
* ``climb`` and ``regmix``: the mixture that is predicted best, as in their publications;
* ``random``: the best measured mixture of the proxies of ``regmix``, which are drawn at random;
* ``robust on the trials of regmix``: the answer of ``robust`` if it predicts from these trials;
* ``n-grams``: the mixture with the fewest bits of n-grams, without any proxy;
* ``uniform`` (equal weights) and the token shares.

On each mixture, models of the size ``--model`` are trained with two seeds, which all methods of the
same search share. The gain of a method is the score of the token shares minus its own score, as the
mean over tasks and over the two seeds. The bench prints the mean gain over searches with its
standard error. It says that one method is better than another only if a paired t-test over searches
says so with 95 % confidence.

The seeds and this analysis were fixed before the first search. A finished search is one line of
``--results``, and is not run again; an unfinished one continues from what is in ``--out``.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from differences import mean_difference, standard_error
from measure import report

from climbstream.loader import Manifest, Mixture
from climbstream.loader.core.console import say
from climbstream.loader.core.files import append_line, read_lines
from climbstream.search.evaluation.ngrams import ngram_losses
from climbstream.search.experiments.compare import compare
from climbstream.search.experiments.proxy_search import run_search
from climbstream.search.experiments.settings import SearchSettings
from climbstream.search.optimizer.candidates import candidates, descend, generator
from climbstream.search.optimizer.constraints import WeightConstraints
from climbstream.search.optimizer.presets import PRESETS
from climbstream.search.training.run import train_run
from climbstream.search.training.settings import TrainSettings

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"
TASKS = (
    "arc_challenge",
    "arc_easy",
    "boolq",
    "commonsense_qa",
    "hellaswag",
    "lambada_mc",
    "mmlu",
    "openbookqa",
    "piqa",
    "social_iqa",
    "winogrande",
)
SEARCHED = 6
"""Number of tasks that are targets of a search."""
SHARES = "token shares"


@dataclass(frozen=True)
class Sizes:
    """The settings of the bench."""

    budget: int
    proxy: TrainSettings
    final: TrainSettings
    workers: int | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of shards and models")
    parser.add_argument("--results", type=Path, required=True, help="file of finished searches")
    parser.add_argument("--searches", type=int, default=5)
    parser.add_argument("--budget", type=int, default=40)
    parser.add_argument("--base-tokens", type=int, default=4_000_000)
    parser.add_argument("--proxy-tokens", type=int, default=300_000)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--final-tokens", type=int, default=800_000)
    parser.add_argument("--workers", type=int)
    options, _ = parser.parse_known_args()
    if not CORPUS.is_dir():
        sys.exit(f"this bench needs {CORPUS}")
    results = {line["search"]: line for line in read_lines(options.results)}
    missing = [number for number in range(options.searches) if number not in results]
    if missing:
        shards = build(options.out / "shards")
        base = TrainSettings(tokens=options.base_tokens)
        train_run(shards, Manifest.load(shards).token_shares, base, 77, options.out / "base")
        proxy = TrainSettings(
            tokens=options.proxy_tokens,
            base=str(options.out / "base" / "model"),
            learning_rate=3e-3,
            average=0.2,
        )
        final = TrainSettings(tokens=options.final_tokens, model=options.model)
        sizes = Sizes(options.budget, proxy, final, options.workers)
        for number in missing:
            results[number] = run(number, shards, options.out / f"search-{number}", sizes)
            append_line(options.results, results[number])
    for kind in ("searched", "unseen"):
        print_table(kind, [results[number] for number in range(options.searches)])


def build(out: Path) -> Path:
    command = [Path(sys.executable).with_name("climb"), "build"]
    command += sorted((CORPUS / "corpus").glob("*.jsonl.zst"))
    command += ["--out", out, "--clusters", 20, "--vocab-size", 2048]
    subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr)
    return out


def run(number: int, shards: Path, out: Path, sizes: Sizes) -> dict[str, Any]:
    """Return the line of one search: the mixtures of all methods, and the scores of final models.

    In ``scores``, each task has a list of scores by method, one score for each final seed.
    """
    order = np.random.default_rng(number).permutation(len(TASKS))
    searched = sorted(TASKS[place] for place in order[:SEARCHED])
    unseen = sorted(set(TASKS) - set(searched))
    say(f"search {number}: {', '.join(searched)}; unseen {', '.join(unseen)}")
    mixtures = find_mixtures(number, shards, [task(name) for name in searched], out, sizes)
    seeds = (100 + 2 * number, 101 + 2 * number)
    found = compare(
        shards,
        mixtures,
        [task(name) for name in TASKS],
        sizes.final,
        seeds,
        out / "final",
        workers=sizes.workers,
    )
    return {
        "search": number,
        "commit": commit(),
        "settings": {
            "budget": sizes.budget,
            "proxy": sizes.proxy.to_json(),
            "final": sizes.final.to_json(),
        },
        "searched": searched,
        "unseen": unseen,
        "mixtures": {name: mixture.weights for name, mixture in mixtures.items()},
        "scores": {name: found[task(name)].scores for name in TASKS},
    }


def find_mixtures(
    seed: int, shards: Path, targets: Sequence[str], out: Path, sizes: Sizes
) -> dict[str, Mixture]:
    """Return the mixture of each method by its name."""

    def search(preset: str, folder: Path) -> Any:
        say(f"{preset}: {sizes.budget} proxies of {sizes.proxy.tokens:,} tokens")
        settings = SearchSettings(budget=sizes.budget, preset=preset, proxy=sizes.proxy, seed=seed)
        answer = run_search(shards, targets, folder, settings, workers=sizes.workers)
        say(f"{preset}: {answer.reason}")
        return answer

    robust, climb, regmix = (search(name, out / name) for name in ("robust", "climb", "regmix"))
    again = out / "robust on regmix"
    if not again.exists():
        shutil.copytree(out / "regmix", again)
    manifest = Manifest.load(shards)
    return {
        "robust": robust.mixture,
        "climb": (climb.predicted_best or climb.measured_best).mixture,
        "regmix": (regmix.predicted_best or regmix.measured_best).mixture,
        "random": regmix.measured_best.mixture,
        "robust on the trials of regmix": search("robust", again).mixture,
        "n-grams": ngram_mixture(seed, shards, targets, sizes.proxy.seq_len),
        "uniform": Mixture.uniform(manifest.names),
        SHARES: manifest.token_shares,
    }


def ngram_mixture(seed: int, shards: Path, targets: Sequence[str], seq_len: int) -> Mixture:
    """Return the mixture with the fewest bits of n-grams; the sds of all targets count equally."""
    manifest = Manifest.load(shards)
    prior = np.array([manifest.token_shares.weights[name] for name in manifest.names])
    limits = WeightConstraints.of(manifest.names, prior)
    preset, rng = PRESETS["robust"], generator(seed, 0)
    pool = candidates(preset.pool, [prior], limits, preset.concentration, rng)
    losses = ngram_losses(shards, targets, seq_len).values()
    scales = [loss(pool).std() for loss in losses]

    def total(weights: np.ndarray) -> np.ndarray:
        return sum(loss(weights) / scale for loss, scale in zip(losses, scales, strict=True))

    rows, _ = descend(total, pool, limits, rng)
    best = limits.project(rows[:20].mean(axis=0, keepdims=True))[0]
    return Mixture(dict(zip(manifest.names, best.tolist(), strict=True)))


def print_table(kind: str, results: Sequence[Mapping[str, Any]]) -> None:
    """Print the mean score and gain of each method on tasks of one kind, and what is certain."""
    names = list(results[0]["mixtures"])
    scores = {
        name: np.array([fmean(fmean(r["scores"][t][name]) for t in r[kind]) for r in results])
        for name in names
    }
    for name in names:
        gains = scores[SHARES] - scores[name]
        better = [other for other in names if surely_better(scores[name], scores[other])]
        note = f"± {standard_error(scores[name]):.4f} over {len(results)} searches"
        if name != SHARES:
            note += f"; gain {gains.mean():+.4f} ± {standard_error(gains):.4f}"
        note += f"; surely better than {', '.join(better) or 'none'}"
        report(f"{kind}: {name}", scores[name].mean(), "bits per byte", note)
    sure = sum(surely_better(scores[a], scores[b]) for a, b in permutations(names, 2))
    report(f"{kind}: ordered pairs", sure, "pairs", f"of {len(names) * (len(names) - 1) // 2}")


def surely_better(ours: np.ndarray, other: np.ndarray) -> bool:
    """Return whether a paired t-test shows that ``ours`` are lower than ``other``."""
    return mean_difference(ours - other).sign < 0


def task(name: str) -> str:
    return str(CORPUS / "tasks" / f"{name}.jsonl.zst")


def commit() -> str:
    """Return the commit of the code, with ``+`` if files were changed since."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "../search", "../loader")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


if __name__ == "__main__":
    main()

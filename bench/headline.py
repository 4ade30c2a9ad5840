"""Compare presets with baselines on real text, as Table 1 of CLIMB does (arXiv 2504.13161).

``../shared/corpus`` is built into shards of about 20 clusters. Each preset has ``--budget`` proxies
to find a mixture for PIQA, ARC-Easy and HellaSwag. A score is in bits per byte of the right answers
of the validation items. As in the paper, all proxies continue from one base model, which was
trained on ``--base-tokens`` tokens in the token shares (each cluster's share of all tokens). Before
a proxy is scored, its parameters are averaged over the last fifth of its steps. DoReMi begins with
random parameters. Its two models together train on as many tokens as ``--budget`` proxies: half of
them for the reference model, and half for the model that follows it.

Then models of the size ``--model`` are trained on each mixture with ``--seeds`` seeds. They are
larger than the proxies, and trained on more tokens. They are scored on the test items of these
three tasks, and of three tasks that no search used: ARC-Challenge, WinoGrande and Social IQA. For
each mixture the bench prints the mean score over the tasks, with its standard error over the seeds.
It also prints the mean difference from the score of the token shares, paired by seed.

All results are kept in ``--out``. If the bench is stopped and run again, it continues from them.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from subprocess import run as run_process

from measure import report

from climbstream.loader import Manifest, Mixture
from climbstream.loader.core.console import say
from climbstream.search.evaluation.comparison import Comparison
from climbstream.search.experiments.compare import compare
from climbstream.search.experiments.doremi_search import run_doremi
from climbstream.search.experiments.proxy_search import run_search
from climbstream.search.experiments.settings import SearchSettings
from climbstream.search.training.run import train_run
from climbstream.search.training.settings import TrainSettings

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"
SEARCHED = ("piqa", "arc_easy", "hellaswag")
UNSEEN = ("arc_challenge", "winogrande", "social_iqa")
SHARES = "token shares"
PRESETS = ("random", "regmix", "climb", "robust")


@dataclass(frozen=True)
class Sizes:
    """The settings of the bench."""

    budget: int
    proxy: TrainSettings
    final: TrainSettings
    seeds: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of all that is done")
    parser.add_argument("--budget", type=int, default=48)
    parser.add_argument("--base-tokens", type=int, default=4_000_000)
    parser.add_argument("--proxy-tokens", type=int, default=300_000)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--final-tokens", type=int, default=800_000)
    parser.add_argument("--seeds", type=int, default=3)
    options, _ = parser.parse_known_args()
    if not CORPUS.is_dir():
        sys.exit(f"this bench needs {CORPUS}")
    shards = build(options.out / "shards")
    base = TrainSettings(tokens=options.base_tokens)
    train_run(shards, Manifest.load(shards).token_shares, base, 77, options.out / "base")
    sizes = Sizes(
        options.budget,
        TrainSettings(
            tokens=options.proxy_tokens,
            base=str(options.out / "base" / "model"),
            learning_rate=3e-3,
            average=0.2,
        ),
        TrainSettings(tokens=options.final_tokens, model=options.model),
        options.seeds,
    )
    mixtures = find_mixtures(shards, options.out, sizes)
    tasks = [task(name) for name in (*SEARCHED, *UNSEEN)]
    say(f"final: {len(mixtures) * sizes.seeds} models of {sizes.final.tokens:,} tokens")
    seeds = range(101, 101 + sizes.seeds)
    found = compare(shards, mixtures, tasks, sizes.final, seeds, options.out / "final")
    for kind, names in (("searched", SEARCHED), ("not searched", UNSEEN)):
        of_tasks = [found[task(each)].scores for each in names]
        by_seed = {
            name: [fmean(of) for of in zip(*(scores[name] for scores in of_tasks), strict=True)]
            for name in mixtures
        }
        together = Comparison(by_seed)
        for name in mixtures:
            mean, error = together.mean(name)
            gain, of_gain = together.gain(name, SHARES)
            each = ", ".join(
                f"{t} {fmean(scores[name]):.4f}" for t, scores in zip(names, of_tasks, strict=True)
            )
            note = f"± {error:.4f}; {gain:+.4f} ± {of_gain:.4f} better than {SHARES}; {each}"
            report(f"{kind}: {name}", mean, "bits per byte", note)


def task(name: str) -> str:
    return str(CORPUS / "tasks" / f"{name}.jsonl.zst")


def build(out: Path) -> Path:
    command = [Path(sys.executable).with_name("climb"), "build"]
    command += sorted((CORPUS / "corpus").glob("*.jsonl.zst"))
    command += ["--out", out, "--clusters", 20, "--vocab-size", 2048]
    run_process([str(part) for part in command], check=True, stdout=sys.stderr)
    return out


def find_mixtures(shards: Path, out: Path, sizes: Sizes) -> dict[str, Mixture]:
    """Return the mixture of each method by name; searches that have ended are read from ``out``."""
    manifest = Manifest.load(shards)
    targets = [task(name) for name in SEARCHED]
    mixtures = {
        "uniform": Mixture.uniform(manifest.names),
        SHARES: manifest.token_shares,
    }
    for preset in PRESETS:
        say(f"{preset}: {sizes.budget} proxies of {sizes.proxy.tokens:,} tokens")
        settings = SearchSettings(budget=sizes.budget, preset=preset, proxy=sizes.proxy)
        answer = run_search(shards, targets, out / preset, settings)
        # Take the best mixture of the method, even if its gain over the token shares is uncertain.
        best = answer.predicted_best or answer.measured_best
        mixtures[preset] = best.mixture
        if preset == "robust" and answer.mixture not in mixtures.values():
            mixtures["robust, its answer"] = answer.mixture
        say(f"{preset}: {answer.reason}")
    say("doremi: the tokens of as many proxies")
    half = TrainSettings(tokens=sizes.proxy.tokens * sizes.budget // 2)
    found = run_doremi(shards, (), out / "doremi", half)
    mixtures["doremi"] = Mixture.from_json(found["mixture"])
    return mixtures


if __name__ == "__main__":
    main()

"""Measure the regret of each preset on losses that are known for all mixtures (surrogates.py).

Two mixtures of each search are scored: its answer, and the mixture that it predicts to be best,
which may be another one. Finished searches are kept in ``--keep FILE``; a bench that was stopped
continues from this file. ``--minutes`` limits the time. Five seeds take a quarter of an hour on two
cores. The figures in the documentation are from 20 seeds (``--seeds 20``).

* Signal/noise is a ratio of two standard deviations (sd): the sd of the loss of mixtures that are
  drawn around the prior, divided by the sd of the noise of a run.
* Regret is 0 for the best mixture, and 1 for the median of mixtures that are drawn around the
  prior.
* Coverage is the share of searches whose reported interval contains the true value. The interval is
  that of the gain of the predicted best mixture over the token shares. Coverage is measured for the
  68 % and the 95 % interval.
* Bias is the mean of reported gain minus true gain, in sd of the interval.
* A false claim is an answer that is not the token shares, and is no better than the token shares.

Bars:

* the answer of ``robust`` has at most half the regret of the predicted best mixture of ``climb``,
  and less regret than ``regmix``;
* with 48 proxies, ``robust`` is as good as ``climb`` with 112;
* the 68 % intervals of ``robust`` cover 63 to 73 %, and its 95 % intervals cover 92 to 98 %;
* on losses that are only noise, at most 5 % of the searches of ``robust`` claim a gain.
"""

import argparse
import os
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from measure import report
from surrogates import HONEST, SURROGATES, Surrogate, tell_all

from climbstream.loader.core.console import say
from climbstream.loader.core.engines.local import LocalEngine
from climbstream.loader.core.files import append_line, read_lines
from climbstream.loader.formats.mixture import Mixture
from climbstream.search import Search

PRESETS = ("robust", "climb", "regmix", "random")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--surrogates", default=",".join(SURROGATES + HONEST))
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--budgets", default="48,112")
    parser.add_argument("--noise", default="10,2", help="signal/noise")
    parser.add_argument("--keep", type=Path, help="file of what is done")
    parser.add_argument("--minutes", type=float, default=1e9)
    options, _ = parser.parse_known_args()
    keep = options.keep or Path(tempfile.mkdtemp()) / "searches.jsonl"
    cases = [
        (name, int(budget), float(ratio), preset)
        for name, budget, ratio, preset in product(
            options.surrogates.split(","),
            options.budgets.split(","),
            options.noise.split(","),
            options.presets.split(","),
        )
    ]
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    # Run one seed of every case before the next seed, so that a stopped bench can be compared.
    tasks = [(*case, seed) for seed in seeds for case in cases]
    done = {tuple(line["task"]): line for line in read_lines(keep)}
    begin = time.monotonic()
    # With more threads of linear algebra, the processes would wait for each other.
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with LocalEngine() as pool:
        for task, line in pool.run(simulate, [task for task in tasks if task not in done]):
            append_line(keep, line, sync=False)
            done[task] = line
            if time.monotonic() - begin > 60 * options.minutes:
                break
    say(f"{len(done)} searches are kept in {keep}")
    for case in cases:
        name, budget, ratio, preset = case
        lines = [line for task, line in done.items() if task[:4] == case]
        if not lines:
            continue
        for answer in ("answer", "predicted"):
            regrets = [line[answer] for line in lines if line[answer] is not None]
            if regrets:
                low, high = np.percentile(regrets, (25, 75))
                report(
                    f"{name}, {budget} proxies, signal/noise {ratio:g}: {preset}, {answer}",
                    float(np.median(regrets)),
                    "regret",
                    f"quartiles {low:.3f} {high:.3f}, {len(regrets)} seeds",
                )
        report_claims(f"{name}, {budget} proxies, signal/noise {ratio:g}: {preset}", lines)
    for preset in options.presets.split(","):
        lines = [line for task, line in done.items() if task[3] == preset]
        for what, names in (
            ("to find", SURROGATES),
            ("at or near", HONEST[:2]),
            ("noise", HONEST[2:]),
        ):
            report_claims(f"all of {what}: {preset}", [x for x in lines if x["task"][0] in names])


def report_claims(what: str, lines: list[dict[str, Any]]) -> None:
    """Report the coverage, bias and false claims of searches; nothing if ``lines`` is empty."""
    gains = np.array([line["gain"] for line in lines if line.get("gain")])
    if len(gains):
        printed, sd, true = gains.T
        z = (printed - true) / np.maximum(sd, 1e-9)
        note = f"bias {z.mean():+.2f} ± {z.std() / len(z) ** 0.5:.2f} sd, {len(z)} picks"
        report(f"{what}, coverage of 68 %", float(np.mean(np.abs(z) < 1)), "part", note)
        report(f"{what}, coverage of 95 %", float(np.mean(np.abs(z) < 1.96)), "part", note)
    if lines:
        claims = sum(line["choice"] != "baseline" for line in lines)
        false = sum(line["choice"] != "baseline" and line["true_gain"] <= 0 for line in lines)
        seconds = np.mean([line["answer_seconds"] for line in lines])
        note = f"{claims} claims in {len(lines)}; {seconds:.2f} s an answer"
        report(f"{what}, false claims", false / len(lines), "part", note)


def simulate(task: tuple[str, int, float, str, int]) -> dict[str, object]:
    """Run one search on a surrogate loss; return the line of its results."""
    name, budget, ratio, preset, seed = task
    begin = time.process_time()
    loss = Surrogate(name, seed)
    targets = [f"t{i}" for i in range(len(loss.sd))]
    search = Search(
        loss.names,
        dict.fromkeys(targets, "min"),
        budget=budget,
        preset=preset,
        prior=dict(zip(loss.names, loss.prior.tolist(), strict=True)),
        seed=seed,
    )
    tell_all(search, loss.loss, loss.sd / ratio, seed)
    concluded = time.process_time()
    answer = search.result()
    answered = time.process_time()
    predicted = answer.predicted_best
    scales = np.std([list(trial.scores.values()) for trial in search.log.trials], axis=0)

    def true_gain(mixture: Mixture) -> float:
        base, pick = loss.loss(np.stack([loss.prior, mixture.array(loss.names)]))
        return float(((base - pick) / scales).mean())

    gains = [
        (each.gain, each.gain_sd, true_gain(each.mixture))
        for each in answer.candidates
        if each.choice == "predicted" and each.gain_sd is not None
    ]
    return {
        "task": task,
        "answer": loss.regret(answer.mixture.array(loss.names)),
        "predicted": predicted and loss.regret(predicted.mixture.array(loss.names)),
        "choice": answer.choice,
        "true_gain": true_gain(answer.mixture),
        "gain": gains[0] if gains else None,
        "answer_seconds": answered - concluded,
        "seconds": time.process_time() - begin,
    }


if __name__ == "__main__":
    main()

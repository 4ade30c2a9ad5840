"""Runs: read a table of finished runs of any trainer.

A table is a CSV file with one row per run. It has one column of weights per domain, and one column
of scores per target. A column ``w_NAME`` holds the weights of the domain ``NAME``. The columns
``name`` and ``index``, and the column without a name that pandas writes, hold no weights.

There may also be two files, one of weights and one of scores. Then their rows are joined on the
column ``run`` or ``run_id``, as in files of Olmix; or on the first column, as in files of RegMix.

Rows with the same mixture are repeats, which show how large the noise is. A file may have two rows
with the same name of a run. If their numbers are equal, the run counts once. If their numbers
differ, the number of files decides:

- With a single file, both rows are used, as repeats.
- With two files, an error is raised, because it is unknown which of the numbers are right.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median, quantiles

from climbstream.loader import Mixture
from climbstream.loader.core.console import counted
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.formats.mixture import some_names
from climbstream.search.optimizer.trials import Trial, TrialLog

from .csv_sheet import Row, Sheet

FEWEST = 8
"""Least number of runs with scores that a fit needs."""
PREFIX = "w_"
"""Prefix of the names of columns with weights. The names of domains are without this prefix."""
_KEYS = ("run", "run_id")
"""Names of columns that may hold the names of runs."""
_LABELS = ("name", "index", "", "Unnamed: 0")
"""Names of further columns that hold no weights."""
_SAME = 1e-12
"""Relative difference up to which two scores count as equal."""
_FAR = 20.0
"""A score is reported if it is further from the median than this many robust standard deviations
(docs/decisions/predictors.md)."""
_ROBUST_SD = 1.4826
"""Standard deviation of normal numbers, in units of their median distance from the median."""
_UNEVEN = 1.01
"""Largest ratio between the sums of weights of two rows that causes no warning."""


@dataclass(frozen=True, slots=True)
class RunTable:
    """Finished runs, read from a table."""

    domains: list[str]
    trials: list[Trial]
    """One trial per run. Its number is the line of the run in the (first) table, or the number that
    the log of a search gives it. A run that lacks a finite score of a target is a failed trial."""
    notes: tuple[str, ...] = ()
    """Messages to show: warnings, and one line for each reason why rows were left out, with the
    number of rows and the first of them."""
    names: dict[int, str] = field(default_factory=dict)
    """For each run of a table, by number, the text that names it in messages: its name, if it has
    one, and its line."""
    shares: Mixture | None = None
    """The token shares that the log of a search states; None for other tables."""


@dataclass(slots=True)
class _Omissions:
    """Counts the rows that are left out, by reason: their number and the first case."""

    reasons: dict[str, tuple[int, str]] = field(default_factory=dict)

    def note(self, reason: str, where: str) -> None:
        """Count one case of ``reason``."""
        count, first = self.reasons.get(reason, (0, where))
        self.reasons[reason] = count + 1, first

    def lines(self) -> tuple[str, ...]:
        """Return a line for each reason."""
        return tuple(
            f"left out {counted(count, 'row')}: {reason}; the first is {first}"
            for reason, (count, first) in self.reasons.items()
        )


def read_runs(paths: Sequence[Path], targets: Sequence[str], weights: str | None) -> RunTable:
    """Read runs from a table, from two tables of weights and of scores, or from a log of trials.

    Args:
        paths: One CSV file; two CSV files, of weights and of scores; or the ``trials.jsonl`` of a
            search.
        targets: Names of the columns of scores. If both of two files have a column of this name,
            the column of the second file is read.
        weights: Pattern for the names of the columns of weights. With one file, None means ``w_*``,
            and the names of domains are without ``w_``. With two files, None means that all columns
            of the first file are weights, except the column that joins the files, ``name``,
            ``index`` and a column without a name.

    Raises:
        UsageError: A column does not exist, or too few runs have scores.
        InvalidDataError: A file is no table, a weight is no number of 0 or more, or all runs have
            the same weights or scores. Or it is unknown whether a point or
            comma separates decimals or thousands. Or one of two files has two rows with different
            numbers for a run.
    """
    if logs := [path for path in paths if path.suffix == ".jsonl"]:
        if len(paths) > 1:
            raise UsageError(
                f"{logs[0]} is the log of a search, and can only be read alone; to join the runs "
                "of several searches, write them to one CSV file (TrialLog.to_csv, pandas)"
            )
        return _read_log(paths[0], targets)
    sheets = [Sheet.read(path) for path in paths]
    columns = _columns(sheets, weights)
    prefix = PREFIX if len(sheets) == 1 and weights in (None, f"{PREFIX}*") else ""
    domains = [column.removeprefix(prefix) for column in columns]
    places = _places(sheets, columns, targets)
    notes = _check_numbers(sheets, columns, places)
    omissions = _Omissions()
    trials = []
    sums: dict[int, float] = {}
    for rows in _rows(sheets, columns, places, omissions):
        sheet, row = sheets[0], rows[0]
        assert row is not None
        shares = [_weight(sheet, row, column) for column in columns]
        sums[row.line] = math.fsum(shares)
        if not sums[row.line]:
            raise InvalidDataError(
                f"{sheet.place(row)}: every weight is 0; correct the line, or remove it"
            )
        scores, why = _scores(sheets, rows, places, omissions)
        mixture = Mixture.of(dict(zip(domains, shares, strict=True)))
        trials.append(
            Trial(number=row.line, round=1, mixture=mixture, seed=0, scores=scores, why=why)
        )
    _check_use(trials, targets)
    names = _names(sheets[0])
    notes += [*omissions.lines(), *_uneven(sheets[0], sums), *_far(trials, targets, names)]
    return RunTable(domains, trials, tuple(notes), names)


def score_names(path: Path) -> list[str]:
    """Return the names that may be scores, from a log of trials or from a table.

    From a log, these are the names of its scores. From a table, these are the names of all columns
    except ``w_*``.

    Raises:
        UsageError: The file does not exist.
        InvalidDataError: The file is damaged.
    """
    if path.suffix == ".jsonl":
        return _scored(TrialLog.open(path))
    return [head for head in Sheet.read(path).heads if not fnmatchcase(head, f"{PREFIX}*")]


def _scored(log: TrialLog) -> list[str]:
    """Return the names of the scores of the trials in a log."""
    return list(dict.fromkeys(name for trial in log.trials for name in trial.scores or {}))


def _read_log(path: Path, targets: Sequence[str]) -> RunTable:
    """Read runs from the log of a search; a trial that lacks the score of a target has failed."""
    log = TrialLog.open(path)
    scores = _scored(log)
    if missing := [target for target in targets if target not in scores]:
        raise UsageError(
            f"{path} has no scores of {', '.join(missing)}; it has scores of {some_names(scores)}"
        )
    omissions = _Omissions()
    trials = []
    for trial in log.trials:
        kept = trial.scores and {t: trial.scores[t] for t in targets if t in trial.scores}
        if not kept or len(kept) < len(targets):
            omissions.note("a trial that failed", f"trial {trial.number}, {trial.why}")
            kept = None
        trials.append(replace(trial, scores=kept))
    _check_use(trials, targets)
    domains = list(dict.fromkeys(name for trial in trials for name in trial.mixture.weights))
    prior = log.settings.get("prior")
    shares = Mixture(prior) if isinstance(prior, dict) and [*prior] == domains else None
    notes = (*omissions.lines(), *_far(trials, targets, {}))
    return RunTable(domains, trials, notes, shares=shares)


def _columns(sheets: Sequence[Sheet], pattern: str | None) -> list[str]:
    """Return the names of the columns of weights."""
    sheet = sheets[0]
    if len(sheets) == 1:
        columns = [head for head in sheet.heads if fnmatchcase(head, pattern or f"{PREFIX}*")]
    else:
        fixed = (_key(sheet), *_LABELS)
        columns = [h for h in sheet.heads if h not in fixed and fnmatchcase(h, pattern or "*")]
    if not columns:
        raise UsageError(
            f"{sheet.path} has no columns {pattern or f'{PREFIX}*'}; name the columns of weights "
            f"with --weights 'PATTERN'; the columns are {some_names(sheet.heads)}"
        )
    sheet.check_unique(columns)
    return columns


def _places(
    sheets: Sequence[Sheet], columns: Sequence[str], targets: Sequence[str]
) -> dict[str, int]:
    """Return, by target, the index of the sheet with the scores of this target."""
    heads_of = [[head for head in sheet.heads if head not in columns] for sheet in sheets[:1]]
    heads_of += [[head for head in sheet.heads if head != _key(sheet)] for sheet in sheets[1:]]
    places = {}
    for target in targets:
        for number in reversed(range(len(sheets))):
            if target in heads_of[number]:
                sheets[number].check_unique([target])
                places[target] = number
                break
    if missing := [target for target in targets if target not in places]:
        taken = [target for target in missing if target in columns]
        why = f" ({', '.join(taken)}: --weights makes this a column of weights)" if taken else ""
        heads = dict.fromkeys(head for heads in reversed(heads_of) for head in heads)
        raise UsageError(
            f"{sheets[-1].path} has no scores of {', '.join(missing)}{why}; the other columns are "
            f"{some_names(list(heads))}"
        )
    return places


def _check_numbers(
    sheets: Sequence[Sheet], columns: Sequence[str], places: Mapping[str, int]
) -> list[str]:
    """Check that columns of numbers are either all percentages or none; return notes.

    A note says that points or commas in columns of weights or scores separate thousands.
    """
    notes: list[str] = []
    for sheet, names in [(sheets[0], columns), *((sheets[i], [t]) for t, i in places.items())]:
        sheet.check_percentages(names)
        notes += sheet.thousands(names)
    more = f"; the same holds for {counted(len(notes) - 1, 'column')} more" if notes[1:] else ""
    return [f"{note}{more}" for note in notes[:1]]


def _rows(
    sheets: Sequence[Sheet],
    columns: Sequence[str],
    places: Mapping[str, int],
    omissions: _Omissions,
) -> Iterator[list[Row | None]]:
    """Yield the row of each run in each of ``sheets`` (None if missing)."""
    used = [[*columns] if i == 0 else [] for i in range(len(sheets))]
    for target, i in places.items():
        used[i].append(target)
    if len(sheets) == 1:
        (sheet,) = sheets
        key = next((head for head in sheet.heads if head in _KEYS), None)
        for row in _once(sheet, key, used[0], omissions, several=True):
            yield [row]
        return
    first, second = sheets
    first_key, second_key = _key(first), _key(second)
    runs = list(_once(first, first_key, used[0], omissions))
    scored = {
        second.cell(row, second_key): row for row in _once(second, second_key, used[1], omissions)
    }
    names = {first.cell(row, first_key) for row in runs}
    if runs and scored and not names & scored.keys():
        raise InvalidDataError(
            f"no {first_key} of {first.path} is a {second_key} of {second.path}; the first are "
            f"{first.cell(runs[0], first_key)!r} and {next(iter(scored))!r}"
        )
    for name, row in scored.items():
        if name not in names:
            omissions.note(f"no weights in {first.path}", f"run {name!r}, {second.place(row)}")
    for row in runs:
        yield [row, scored.get(first.cell(row, first_key))]


def _once(
    sheet: Sheet,
    key: str | None,
    used: Sequence[str],
    omissions: _Omissions,
    *,
    several: bool = False,
) -> Iterator[Row]:
    """Yield the rows of ``sheet`` without duplicates.

    If rows of the same run differ in the columns ``used``, they are not duplicates. Then all of
    these rows are yielded, as repeats, if ``several`` is set. If not, an error is raised.
    """
    if key is not None:
        sheet.check_unique([key])
    seen: dict[str, Row] = {}
    for row in sheet.rows:
        name = "" if key is None else sheet.cell(row, key)
        if not name and not several:
            omissions.note(f"no {key}", sheet.place(row))
            continue
        other = seen.setdefault(name, row) if name else row
        if other is not row:
            unlike = next((h for h in used if sheet.differ(row, other, h)), None)
            if unlike is None:
                omissions.note("a run that is there already", f"{name!r}, {sheet.place(row)}")
                continue
            if not several:
                values = f"{sheet.cell(other, unlike)!r} and {sheet.cell(row, unlike)!r}"
                raise InvalidDataError(
                    f"{sheet.path}, lines {other.line} and {row.line}: {key} {name!r} is there "
                    f"twice, and its {unlike} is {values}; keep one of the rows, or name the runs "
                    "apart"
                )
        yield row


def _weight(sheet: Sheet, row: Row, column: str) -> float:
    """Return the weight in ``column`` in ``row``; raise `InvalidDataError` if it is not valid."""
    weight = sheet.number(row, column)
    if not weight >= 0:
        raise InvalidDataError(
            f"{sheet.place(row)}: the weight in column {column!r} is {sheet.shown(row, column)}; "
            "weights are finite numbers, 0 or more: correct the cell, or remove the line"
        )
    return weight


def _scores(
    sheets: Sequence[Sheet],
    rows: Sequence[Row | None],
    places: Mapping[str, int],
    omissions: _Omissions,
) -> tuple[dict[str, float] | None, str]:
    """Return the scores of a run by target and ""; if a score is missing, None and the reason."""
    scores = {}
    for target, i in places.items():
        sheet, row = sheets[i], rows[i]
        if row is None:
            assert rows[0] is not None
            omissions.note(f"no scores in {sheet.path}", sheets[0].place(rows[0]))
            return None, f"{sheet.path} has no row of it"
        scores[target] = sheet.number(row, target)
        if not math.isfinite(scores[target]):
            said = sheet.shown(row, target)
            omissions.note(f"{target} is not a finite number", f"{said}, {sheet.place(row)}")
            return None, f"{target} is {said}"
    return scores, ""


def _check_use(trials: Sequence[Trial], targets: Sequence[str]) -> None:
    """Raise an error unless enough runs have scores, and their weights and scores differ."""
    scored = [trial for trial in trials if trial.scores is not None]
    if len(scored) < FEWEST:
        raise UsageError(
            f"{len(scored)} of {len(trials)} runs have scores of {', '.join(targets)}; a fit needs "
            f"{FEWEST}"
        )
    for target in targets:
        values = [trial.scores[target] for trial in scored if trial.scores]
        if max(values) - min(values) <= _SAME * max(map(abs, values)):
            raise InvalidDataError(
                f"{target} is {values[0]:g} in all {len(values)} runs, so nothing can be learned "
                "from this target; name another --target"
            )
    if all(trial.mixture == scored[0].mixture for trial in scored):
        raise InvalidDataError(
            f"all {len(scored)} runs have the same weights, so nothing can be learned from them; "
            "name other columns with --weights, or add runs of other mixtures"
        )


def _uneven(sheet: Sheet, sums: Mapping[int, float]) -> tuple[str, ...]:
    """Return a warning if the sums of weights differ between rows; else an empty tuple."""
    if max(sums.values()) <= _UNEVEN * min(sums.values()):
        return ()
    usual = median(sums.values())
    near, *_, far = sorted(sums, key=lambda line: abs(sums[line] - usual))
    return (
        f"the weights of {sheet.path} sum to {sums[far]:.4g} in line {far}, and to "
        f"{sums[near]:.4g} in line {near}; each row is scaled to 1",
    )


def _far(
    trials: Sequence[Trial], targets: Sequence[str], names: Mapping[int, str]
) -> Iterator[str]:
    """Yield a warning for each target with a score that is very far from its other scores."""
    scored = [trial for trial in trials if trial.scores]
    for target in targets:
        scores = {t.number: t.scores[target] for t in scored if t.scores}
        usual = median(scores.values())
        apart = {number: abs(score - usual) for number, score in scores.items()}
        sd = _ROBUST_SD * median(apart.values())
        far = [number for number in apart if apart[number] > _FAR * sd > 0]
        if not far:
            continue
        first = max(far, key=apart.__getitem__)
        low, _, high = quantiles(scores.values(), n=4)
        more = f"; {counted(len(far) - 1, 'other run')} also far away" if far[1:] else ""
        yield (
            f"{target} is {scores[first]:g} in {names.get(first, f'trial {first}')}, and in half "
            f"of the runs it is between {low:g} and {high:g}{more}; one such score makes all "
            "predictions worse, so correct it, or remove the run if its training failed"
        )


def _names(sheet: Sheet) -> dict[int, str]:
    """Return the name of each run with its line, by its line."""
    key = next((head for head in (*_KEYS, "name") if head in sheet.heads), None)
    names = {row.line: key and sheet.cell(row, key) for row in sheet.rows}
    return {
        line: f"{'run ' * name.isdecimal()}{name} (line {line})"
        if name
        else f"the run in line {line}"
        for line, name in names.items()
    }


def _key(sheet: Sheet) -> str:
    """Return the name of the column that names runs: ``run``, ``run_id`` or the first column."""
    return next((head for head in sheet.heads if head in _KEYS), sheet.heads[0])

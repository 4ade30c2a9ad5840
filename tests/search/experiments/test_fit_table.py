"""A table of finished runs gives the answer of a search; bad tables say what is wrong."""

import csv
import json
import re

import numpy as np
import pytest

from climbstream.loader import Manifest, Mixture
from climbstream.loader.cli.main import run
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.search import Trial, TrialLog
from climbstream.search.experiments.fit_table import fit
from climbstream.search.experiments.run_table import read_runs

DOMAINS = ["books", "code", "web"]


def write(path, heads, rows):
    """Write a CSV file."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([heads, *rows])
    return path


def runs(n=40, seed=0):
    """Weights and a loss that is least where code has 0.6 and web 0.4."""
    weights = np.random.default_rng(seed).dirichlet([1, 1, 1], n)
    return weights, ((weights - [0, 0.6, 0.4]) ** 2).sum(axis=1)


@pytest.fixture
def table(tmp_path):
    weights, loss = runs()
    rows = [[i, *w, y, -y] for i, (w, y) in enumerate(zip(weights.tolist(), loss, strict=True))]
    return write(tmp_path / "runs.csv", ["id", *(f"w_{d}" for d in DOMAINS), "loss", "score"], rows)


def test_the_best_mixture_is_found_between_the_runs(table):
    read = read_runs([table], ["loss"], None)
    assert read.domains == DOMAINS
    answer = fit(read, {"loss": "min"})
    assert answer.choice == "predicted"
    assert answer.mixture.array(read.domains) == pytest.approx([0, 0.6, 0.4], abs=0.06)
    assert {skill.predictor for skill in answer.table} >= {"lightgbm", "mixing law", "stack"}


def test_more_is_better_where_that_is_said(table):
    least = fit(read_runs([table], ["loss"], None), {"loss": "min"})
    most = fit(read_runs([table], ["score"], None), {"score": "max"})
    assert most.mixture.weights == pytest.approx(least.mixture.weights, abs=0.02)


def test_two_files_are_joined_on_their_first_column(tmp_path, table):
    weights, loss = runs()
    a = write(
        tmp_path / "mixture.csv",
        ["index", *DOMAINS],
        [[i, *w] for i, w in enumerate(weights.tolist())],
    )
    b = write(
        tmp_path / "loss.csv", ["index", "pile"], [[i, loss[i]] for i in reversed(range(len(loss)))]
    )
    joined, single = read_runs([a, b], ["pile"], None), read_runs([table], ["loss"], None)
    assert joined.domains == DOMAINS
    assert [t.scores["pile"] for t in joined.trials] == [t.scores["loss"] for t in single.trials]


def test_files_of_olmix_are_joined_on_the_name_of_the_run(tmp_path, table):
    weights, loss = runs()
    ratios = write(
        tmp_path / "ratios.csv",
        ["", "run", "name", "index", *DOMAINS],
        [[i, f"run_{i}", f"swarm-{i}", i, *w] for i, w in enumerate(weights.tolist())],
    )
    metrics = write(
        tmp_path / "metrics.csv",
        ["", "run_id", "name", "index", "piqa_bpb"],
        [[9, f"run_{i}", "other", 0, loss[i]] for i in reversed(range(3, len(loss)))],
    )
    joined = read_runs([ratios, metrics], ["piqa_bpb"], None)
    single = read_runs([table], ["loss"], None)
    assert joined.domains == DOMAINS
    assert [t.scores for t in joined.trials[:3]] == [None] * 3
    assert [t.scores["piqa_bpb"] for t in joined.trials[3:]] == [
        t.scores["loss"] for t in single.trials[3:]
    ]
    assert [t.mixture.array(DOMAINS).tolist() for t in joined.trials] == weights.tolist()


def test_files_without_one_run_in_common_are_refused(tmp_path):
    one = write(tmp_path / "a.csv", ["run", "x", "y"], [["a1", 0.5, 0.5]])
    other = write(tmp_path / "b.csv", ["run", "loss"], [["b1", 1.0]])
    with pytest.raises(InvalidDataError, match=r"no run of .*; the first are 'a1' and 'b1'"):
        read_runs([one, other], ["loss"], None)


def test_caps_hold_in_the_answer(table):
    answer = fit(read_runs([table], ["loss"], None), {"loss": "min"}, max_weight=0.5)
    assert max(answer.predicted_best.mixture.weights.values()) <= 0.5


def test_runs_without_a_finite_score_are_left_out(tmp_path):
    weights, loss = runs()
    scores = [*map(str, loss)]
    scores[:4] = ["nan", "inf", "", "diverged"]
    path = write(
        tmp_path / "runs.csv",
        ["w_a", "w_b", "w_c", "loss"],
        [[*w, y] for w, y in zip(weights.tolist(), scores, strict=True)],
    )
    read = read_runs([path], ["loss"], None)
    assert [t.number for t in read.trials if t.scores is None] == [2, 3, 4, 5]
    assert all(skill.rows == 36 for skill in fit(read, {"loss": "min"}).table)


@pytest.mark.parametrize(
    ("targets", "weights", "words"),
    [
        (["los"], None, "has no scores of los; the other columns are id, loss, score"),
        (
            ["loss"],
            "weight_*",
            r"has no columns weight_\*; name the columns of weights with --weights",
        ),
        (["w_code"], None, "has no scores of w_code"),
    ],
)
def test_columns_that_are_not_there_are_named(table, targets, weights, words):
    with pytest.raises(UsageError, match=words):
        read_runs([table], targets, weights)


def test_too_few_runs_and_bad_weights_are_refused_with_numbers(tmp_path):
    heads = ["w_a", "w_b", "loss"]
    few = write(tmp_path / "few.csv", heads, [[0.5, 0.5, 1.0], [0.2, 0.8, "nan"]])
    with pytest.raises(UsageError, match="1 of 2 runs have scores of loss; a fit needs 8"):
        read_runs([few], ["loss"], None)
    bad = write(tmp_path / "bad.csv", heads, [[0.5, 0.5, 1.0], [0.2, -0.8, 2.0]])
    with pytest.raises(InvalidDataError, match=r"bad.csv, line 3: .*'w_b' is -0.8"):
        read_runs([bad], ["loss"], None)


def test_the_command_leaves_mixture_answer_and_report(table, tmp_path, capfd, read_page):
    out = tmp_path / "out"
    assert run(["fit", str(table), "--target", "score=max", "--out", str(out), "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert Mixture.load(out / "mixture.json").weights == answer["mixture"]["weights"]
    page = read_page((out / "report.html").read_bytes())
    first, rest = answer["reason"].split(". ", 1)
    assert f"{first}." in page.text
    assert rest in page.text
    assert "mixing law" in page.text
    assert run(["fit", str(table), "--target", "loss"]) == 0
    assert "weight, predicted best" in capfd.readouterr().out


# From trials to a mixture to train on.


def log_of(path, clusters, repeats=4):
    """A log of a search: ``repeats`` trials of the token shares, and 12 others."""
    log = TrialLog({"clusters": clusters, "seed": 0, "budget": 16}, path=None)
    shares = Mixture.of(dict(zip(clusters, (5, 3, 2), strict=True)))
    weights, _ = runs(12)
    mixtures = [shares] * repeats
    mixtures += [Mixture.of(dict(zip(clusters, row.tolist(), strict=True))) for row in weights]
    for number, mixture in enumerate(mixtures, start=1):
        loss = 2 - mixture.weights[clusters[1]] + number / 1e4
        about = {"number": number, "round": 1, "seed": number, "config": log.config}
        log.append(Trial(mixture=mixture, scores={"y": loss}, **about))
    log.to_csv(path)
    return shares


def test_the_mixture_of_a_fit_of_trials_names_the_clusters(tmp_path):
    clusters = ["c00", "c01", "c02"]
    log_of(tmp_path / "runs.csv", clusters)
    command = ["fit", str(tmp_path / "runs.csv"), "--target", "y", "--out", str(tmp_path / "out")]
    assert run(command) == 0
    assert list(Mixture.load(tmp_path / "out" / "mixture.json").weights) == clusters


@pytest.mark.parametrize("prefix", ["", "w_"])
def test_a_prior_names_the_domains_with_or_without_the_prefix(tmp_path, prefix):
    shares = log_of(tmp_path / "runs.csv", ["c00", "c01", "c02"])
    prior = Mixture({f"{prefix}{name}": weight for name, weight in shares.weights.items()})
    answer = fit(read_runs([tmp_path / "runs.csv"], ["y"], None), {"y": "min"}, prior=prior)
    assert answer.baseline.trials == [2, 3, 4, 5]
    assert answer.baseline.mixture == shares


def test_runs_with_the_same_weights_are_offered_as_the_token_shares(tmp_path, capfd):
    log_of(tmp_path / "runs.csv", ["c00", "c01", "c02"])
    assert run(["fit", str(tmp_path / "runs.csv"), "--target", "y"]) == 0
    said = capfd.readouterr()
    assert (
        "4 of 16 runs have the same weights (the first is run 1 (line 2)); if these weights are the"
        in said.err
    )
    assert "--prior" in said.err
    assert said.out.startswith("Predicted only, not trained: y ")
    assert re.match(
        r"Predicted only, not trained: y 1\.\d+ ± \.\d+; the best measured is ", said.out
    )
    assert "warning: no model was trained on this mixture: train one on it" in said.out


def test_the_best_run_is_named_by_its_name_and_its_line(tmp_path, capfd):
    """One run is far better than the predictions of its mixture: no prediction reaches it."""
    weights, loss = runs(16)
    loss[5] = loss.min() - 0.3
    rows = [[f"r{i}", *w, y] for i, (w, y) in enumerate(zip(weights.tolist(), loss, strict=True))]
    table = write(tmp_path / "runs.csv", ["name", "w_a", "w_b", "w_c", "loss"], rows)
    assert run(["fit", str(table), "--target", "loss"]) == 0
    assert f"r5 (line 7) (loss {loss[5]:.5g})" in capfd.readouterr().out
    assert read_runs([table], ["loss"], None).trials[5].number == 7


def test_the_same_fit_again_is_the_same_and_another_is_refused(table, tmp_path, capfd):
    out = tmp_path / "out"
    command = ["fit", str(table), "--target", "loss", "--out", str(out)]
    assert run(command) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run(command) == 0
    assert run([*command, "--seed", "1"]) == 3
    assert "seed was 0 and is 1" in capfd.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("name", ["mixture.json", "answer.json", "report.html"])
def test_a_fit_overwrites_no_file_of_others(table, tmp_path, capfd, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    assert run(["fit", str(table), "--target", "loss", "--out", str(tmp_path / "out")]) == 3
    said = f"has no fit.json, so climb did not write it, and it holds {name}; name a new folder"
    assert said in capfd.readouterr().err
    assert (tmp_path / "out" / name).read_text() == "mine"


def test_a_file_that_is_not_there_is_one_line_and_its_code(tmp_path, capfd):
    assert run(["fit", str(tmp_path / "none.csv"), "--target", "loss"]) == 2
    assert capfd.readouterr().err.count("\n") == 1


# Tables as people hand them on.


def rows_of(n=12):
    """Rows of a table w_a, w_b, y, as text."""
    return [
        [f"{i / 11:.3f}", f"{1 - i / 11:.3f}", f"{3 + (i / 11 - 0.4) ** 2:.5f}"] for i in range(n)
    ]


HEADS = ["w_a", "w_b", "y"]


def refusal(capfd, *arguments):
    """Run ``climb fit``, and return its exit code and its message, which is one line."""
    code = run(["fit", *map(str, arguments), "--target", "y"])
    message = capfd.readouterr().err.splitlines()[-1]
    assert "internal" not in message
    return code, message


def test_two_columns_of_one_name_are_refused_only_where_they_are_used(tmp_path, capfd):
    for heads in (["w_a", "w_a", "y"], ["w_a", "y", "y"], ["w_a", " w_a", "y"]):
        table = write(tmp_path / "t.csv", heads, rows_of())
        code, message = refusal(capfd, table, "--out", tmp_path / "out")
        assert code == 3
        assert "t.csv, line 1: columns " in message
        assert "rename them, or keep one" in message
        assert not (tmp_path / "out").exists()
    notes = write(tmp_path / "n.csv", [*HEADS, "note", "note"], [[*r, "", ""] for r in rows_of()])
    assert len(read_runs([notes], ["y"], None).trials) == 12


def test_two_scores_of_one_run_are_refused_with_both_lines(tmp_path, capfd):
    weights = write(
        tmp_path / "w.csv", ["run", "a", "b"], [[i, *r[:2]] for i, r in enumerate(rows_of())]
    )
    scores = [[i, r[2]] for i, r in enumerate(rows_of())]
    twice = write(tmp_path / "s.csv", ["run", "y"], [*scores, [8, 99]])
    code, message = refusal(capfd, weights, twice)
    assert code == 3
    assert (
        "s.csv, lines 10 and 14: run '8' is there twice, and its y is '3.10711' and '99'" in message
    )
    other = write(
        tmp_path / "v.csv", ["run", "a", "b"], [[i % 11, *r[:2]] for i, r in enumerate(rows_of())]
    )
    code, message = refusal(capfd, other, write(tmp_path / "o.csv", ["run", "y"], scores))
    assert (code, "v.csv, lines 2 and 13: run '0' is there twice" in message) == (3, True)


def test_what_is_left_out_is_said_by_reason_with_count_and_first(tmp_path, capfd):
    rows = rows_of(16)
    weights = write(
        tmp_path / "w.csv",
        ["run", "a", "b"],
        [[i, *map(abs, map(float, r[:2]))] for i, r in enumerate(rows)],
    )
    scores = [[i, r[2]] for i, r in enumerate(rows) if i not in (2, 3)]
    scores[0][1], scores[1][1] = "diverged", "inf"
    scores += [["x", 1.0], ["", 2.0], scores[-1]]
    table = write(tmp_path / "s.csv", ["run", "y"], scores)
    assert run(["fit", str(weights), str(table), "--target", "y", "--json"]) == 0
    out, err = capfd.readouterr()
    expected = [
        f"left out 1 row: no run; the first is {table}, line 17",
        f"left out 1 row: a run that is there already; the first is '15', {table}, line 18",
        f"left out 1 row: no weights in {weights}; the first is run 'x', {table}, line 16",
        f"left out 2 rows: y is not a finite number; the first is 'diverged', {table}, line 2",
        f"left out 2 rows: no scores in {table}; the first is {weights}, line 4",
    ]
    assert json.loads(out)["notes"][: len(expected)] == expected
    assert all(line in err for line in expected)


def test_rows_of_one_mixture_are_repeats(tmp_path):
    rows = [[*r[:2], float(r[2]) + noise] for r in rows_of() for noise in (0, 0.001)]
    read = read_runs([write(tmp_path / "t.csv", HEADS, rows)], ["y"], None)
    assert len(read.trials) == 24
    assert read.notes == ()


@pytest.mark.parametrize(
    ("delimiter", "ends", "encoding"),
    [
        (",", "\r\n", "utf-8-sig"),
        (";", "\n", "utf-8"),
        ("\t", "\r\n", "utf-16"),
        (",", "\r", "utf-8"),
    ],
)
def test_tables_of_spreadsheets_are_read(tmp_path, delimiter, ends, encoding):
    rows = [
        [cell.replace(".", ",") if delimiter == ";" else cell for cell in row] for row in rows_of()
    ]
    text = ends.join(delimiter.join(row) for row in [['"w_a"', "w_b", "y"], *rows, ["", "", ""]])
    (tmp_path / "t.csv").write_bytes(f"{text}{ends}".encode(encoding))
    plain = read_runs([write(tmp_path / "p.csv", HEADS, rows_of())], ["y"], None)
    assert read_runs([tmp_path / "t.csv"], ["y"], None).trials == plain.trials


@pytest.mark.parametrize(("decimal", "space"), [(".", ""), (",", " "), (".", "\u00a0")])
def test_percentages_are_parts_of_one(tmp_path, decimal, space):
    def percent(cell):
        return f"{100 * float(cell):g}".replace(".", decimal) + space + "%"

    rows = [[percent(a), percent(b), y.replace(".", decimal)] for a, b, y in rows_of()]
    rows[0][:2] = ["0", f"100{space}%"]
    lines = [";".join(cells) for cells in [HEADS, *rows]]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    plain = [["0", "1", rows_of()[0][2]], *rows_of()[1:]]
    expected = read_runs([write(tmp_path / "p.csv", HEADS, plain)], ["y"], None).trials
    for trial, other in zip(
        read_runs([tmp_path / "t.csv"], ["y"], None).trials, expected, strict=True
    ):
        assert trial.mixture.weights == pytest.approx(other.mixture.weights)
        assert trial.scores == other.scores


def test_percentages_beside_other_numbers_are_refused(tmp_path):
    rows = [list(row) for row in rows_of()]
    rows[1][0] = "40%"
    with pytest.raises(InvalidDataError, match=r"has 40% in line 3, column 'w_a', but .* in line"):
        read_runs([write(tmp_path / "t.csv", HEADS, rows)], ["y"], None)


def grouped(row, group, decimal):
    """A row of counts with a separator of thousands, and a loss with three decimals."""
    a, b, y = row
    counts = [f"{round(float(cell) * 1e6):,}".replace(",", group) for cell in (a, b)]
    return [*counts, f"{float(y):.3f}".replace(".", decimal)]


@pytest.mark.parametrize(("delimiter", "group", "decimal"), [(";", ".", ","), (",", ",", ".")])
def test_separators_of_thousands_are_no_decimals(tmp_path, delimiter, group, decimal):
    rows = [[f"{10 * float(a)}", f"{10 * float(b)}", y] for a, b, y in rows_of()]
    rows = [grouped([a, b, y], group, decimal) for a, b, y in rows]
    rows[0][1], rows[1][1] = "684", f"615{group}613"
    if delimiter == ",":
        rows[0][2] = "3.16"  # a proof that the point is the decimal mark of the table
    lines = [delimiter.join(f'"{cell}"' for cell in row) for row in [HEADS, *rows]]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    plain = [
        [a.replace(group, ""), b.replace(group, ""), y.replace(decimal, ".")] for a, b, y in rows
    ]
    expected = read_runs([write(tmp_path / "p.csv", HEADS, plain)], ["y"], None)
    assert read_runs([tmp_path / "t.csv"], ["y"], None).trials == expected.trials


def test_a_table_without_proof_of_its_decimal_mark_is_read_as_spreadsheets_write_it(tmp_path):
    rows = [["1.724", "615.613", "2,504"]] + [[f"{n}.500", "56", f"2,{n}00"] for n in range(1, 9)]
    text = "\n".join(";".join(row) for row in [HEADS, *rows])
    (tmp_path / "t.csv").write_text(text)
    read = read_runs([tmp_path / "t.csv"], ["y"], None)
    assert read.trials[0].mixture == Mixture.of({"a": 1724, "b": 615613})
    assert read.trials[0].scores == {"y": 2.504}
    assert read.notes[0] == (
        f"the points in column 'w_a' of {tmp_path / 't.csv'} are read as separators of "
        "thousands: 1.724 in line 2 is 1724; the same holds for 1 column more"
    )


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b'w_a,w_b,y\n56,615.613,"2,504"\n', 3, "line 2: '615.613' in column 'w_b' may have"),
        (b"w_a;w_b;y\n0,2;0,8;3\n0.1;0,9;3", 3, "line 3: the weight in column 'w_a' is '0.1'"),
        (b"", 3, "has column headings, but no rows"),
        (b"w_a,w_b,y\n\n", 3, "has column headings, but no rows"),
        (b"w_a,w_b,y\n1,2\n", 3, "line 2 has 2 cells, and there are 3 column headings"),
        (b"w_a,w_b,y\n\n1,2,3,4\n", 3, "line 3 has 4 cells"),
        (b'w_a,w_b,y\n1,2,"3\n4,5,6\n', 3, "line 2: this is not CSV: unexpected end of data"),
        (b"w_a,w_b,y\n1,2,3\n\xff,2,3\n", 3, "line 3 is not UTF-8"),
        (b"w_a,w_b,y\n1,2," + b"9" * 200_000, 3, "line 2: this is not CSV: field larger"),
        (b"w_a,w_b,y\n1,x,3\n", 3, "line 2: the weight in column 'w_b' is 'x'"),
        (b"w_a,w_b,y\n1,,3\n", 3, "the weight in column 'w_b' is ''"),
        (b"w_a,w_b,y\n1,nan,3\n", 3, "the weight in column 'w_b' is 'nan'"),
        (b"w_a,w_b,y\n1,1e200,3\n", 3, "the weight in column 'w_b' is '1e200'"),
        (b"w_a,w_b,y\n1,1_0,3\n", 3, "the weight in column 'w_b' is '1_0'"),
        (b"w_a,w_b,y\n0,0,3\n", 3, "line 2: every weight is 0"),
        (b"w_a,w_b,y\n" + b"1,2,3\n" * 9, 3, "y is 3 in all 9 runs"),
        (b"w_a,w_b,y\n" + b"".join(b"1,2,%d\n" % i for i in range(9)), 3, "the same weights"),
        (b"w_a,w_y\n" + b"1,2\n" * 9, 2, "has no scores of y"),
        (b"\0" * 100, 3, "has column headings, but no rows"),
    ],
)  # fmt: skip
def test_a_bad_table_is_refused_with_file_line_and_remedy(tmp_path, capfd, content, code, words):
    (tmp_path / "t.csv").write_bytes(content)
    got, message = refusal(capfd, tmp_path / "t.csv")
    assert (got, str(tmp_path / "t.csv") in message or "all 9" in message) == (code, True)
    assert words in message


def test_a_target_that_is_a_weight_is_refused(tmp_path, capfd):
    table = write(tmp_path / "t.csv", HEADS, rows_of())
    code, message = refusal(capfd, table, "--weights", "*")
    assert (
        code,
        "has no scores of y (y: --weights makes this a column of weights)" in message,
    ) == (2, True)


def test_a_target_cannot_be_least_and_most_at_once(tmp_path, capfd):
    table = write(tmp_path / "t.csv", HEADS, rows_of())
    assert run(["fit", str(table), "--target", "y", "--target", "y=max"]) == 2
    assert "target y cannot be both min and max" in capfd.readouterr().err


def test_weights_that_sum_to_unlike_totals_are_said(tmp_path):
    rows = [[100 * float(a), 100 * float(b), y] for a, b, y in rows_of()]
    assert read_runs([write(tmp_path / "t.csv", HEADS, rows)], ["y"], None).notes == ()
    rows[2][:2] = [0.5, 0.5]
    (note,) = read_runs([write(tmp_path / "t.csv", HEADS, rows)], ["y"], None).notes
    assert "sum to 1 in line 4, and to 100 in line 2; each row is scaled to 1" in note


def test_of_unlike_totals_the_largest_deviation_is_said_and_not_a_rounding(tmp_path):
    rows = rows_of()
    rows[0][:2], rows[3][:2] = [0.4999, 0.5], [0.8, 0.833]
    (note,) = read_runs([write(tmp_path / "t.csv", HEADS, rows)], ["y"], None).notes
    assert re.search(r"sum to 1\.633 in line 5, and to 1 in line \d+; each", note)


def test_an_absurd_score_is_said_with_its_line_and_is_kept(tmp_path):
    weights, loss = runs(24)
    loss[5] = 1e9
    rows = [[i, *w, y] for i, (w, y) in enumerate(zip(weights.tolist(), loss, strict=True))]
    heads = ["run", "w_a", "w_b", "w_c", "loss"]
    read = read_runs([write(tmp_path / "t.csv", heads, rows)], ["loss"], None)
    (note,) = read.notes
    assert note.startswith("loss is 1e+09 in run 5 (line 7), and in half of the runs it is between")
    assert read.trials[5].scores == {"loss": 1e9}
    rows[5][-1] = 1.0  # the worst score, and not absurd
    assert read_runs([write(tmp_path / "t.csv", heads, rows)], ["loss"], None).notes == ()


def test_without_token_shares_the_answer_is_beside_the_mean_weights(table, tmp_path, capfd):
    assert run(["fit", str(table), "--target", "loss"]) == 0
    said = capfd.readouterr().out
    assert "the mean weights of the runs have no score" in said
    assert "domain  mean weights of the runs  weight" in said
    assert "token share" not in said
    Mixture(dict.fromkeys(DOMAINS, 1 / 3)).save(tmp_path / "mixture.json")
    prior = ["--prior", str(tmp_path / "mixture.json")]
    assert run(["fit", str(table), "--target", "loss", *prior]) == 0
    assert "domain  token shares  weight" in capfd.readouterr().out


def test_scores_of_a_second_file_may_be_named_as_a_domain_is(tmp_path):
    rows = rows_of()
    weights = write(
        tmp_path / "w.csv", ["run", "y", "b"], [[i, *r[:2]] for i, r in enumerate(rows)]
    )
    scores = write(tmp_path / "s.csv", ["run", "y"], [[i, r[2]] for i, r in enumerate(rows)])
    read = read_runs([weights, scores], ["y"], None)
    assert read.domains == ["y", "b"]
    assert [t.scores["y"] for t in read.trials] == [float(r[2]) for r in rows]


# Logs of searches.


def test_a_log_of_trials_is_read_as_runs(searched, shards):
    log = TrialLog.open(searched[0] / "trials.jsonl")
    table = read_runs([log.path], ["label=sea"], None)
    assert table.domains == Manifest.load(shards).names
    assert table.trials == log.trials
    with pytest.raises(UsageError, match="has no scores of label=law; it has scores of label=sea"):
        read_runs([log.path], ["label=law"], None)


def test_a_trial_that_failed_is_left_out_of_a_fit_and_said(searched, tmp_path):
    lines = (searched[0] / "trials.jsonl").read_text().splitlines()
    more = json.loads(lines[-1]) | {"number": 99, "scores": None, "why": "out of memory"}
    (tmp_path / "trials.jsonl").write_text("\n".join([*lines, json.dumps(more)]) + "\n")
    table = read_runs([tmp_path / "trials.jsonl"], ["label=sea"], None)
    assert table.notes == (
        "left out 1 row: a trial that failed; the first is trial 99, out of memory",
    )


def test_a_log_of_trials_is_fitted_by_the_command_with_its_token_shares(searched, shards, capfd):
    log = searched[0] / "trials.jsonl"
    assert run(["fit", str(log), "--target", "label=sea", "--json"]) == 0
    said = capfd.readouterr()
    answer = json.loads(said.out)
    assert answer["measured_best"]["trials"]
    assert answer["baseline"]["mixture"]["weights"] == Manifest.load(shards).token_shares.weights
    assert "--prior" not in said.err


def test_two_logs_of_trials_are_refused_with_a_way_to_join_them(searched, capfd):
    log = str(searched[0] / "trials.jsonl")
    assert run(["fit", log, log, "--target", "label=sea"]) == 2
    assert "is the log of a search, and can only be read alone" in capfd.readouterr().err

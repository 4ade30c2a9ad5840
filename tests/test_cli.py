"""The command line: quick to help, exact in its exit codes, and data alone on stdout."""

import errno
import importlib.metadata
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest

from climbstream.loader.cli import main as cli
from climbstream.loader.cli.examples import EXAMPLES
from climbstream.loader.cli.main import COMMANDS, call, root, run
from climbstream.loader.cli.options import COUNT, Fraction, split_number
from climbstream.loader.core import errors
from climbstream.loader.core.console import text_table
from climbstream.loader.core.files import lock

HEAVY = {
    *("torch", "numpy", "numba", "scipy", "sklearn", "pandas", "pyarrow", "datasets", "faiss"),
    *("tokenizers", "transformers", "lightgbm", "fsspec", "huggingface_hub"),
}
THERE = [
    name
    for name, home in COMMANDS.items()
    if importlib.util.find_spec(home.place.partition(":")[0]) is not None
]

WITHOUT = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Without())
from climbstream.loader.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


def heavy(script: str) -> set[str]:
    """Names of the heavy modules that ``script`` loads, in a Python of its own."""
    code = f"{script}\nimport json, sys; print(json.dumps(list(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return HEAVY & {*json.loads(done.stderr)}


def run_without(
    missing: set[str], *arguments: object, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``climb`` in a folder where the modules ``missing`` are not installed."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(missing=missing), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def failing(monkeypatch):
    """Return a function that makes ``climb fail`` raise an error."""
    home = types.ModuleType("home_of_fail")
    monkeypatch.setitem(sys.modules, home.__name__, home)
    monkeypatch.setitem(
        COMMANDS, "fail", COMMANDS["build"]._replace(place=f"{home.__name__}:command")
    )

    def fail_with(error):
        @click.command()
        def command():
            raise error

        home.command = command

    return fail_with


# Help.


def test_help_costs_less_than_half_a_second():
    command = Path(sys.executable).with_name("climb")
    process = subprocess.Popen([command, "--help"], stdout=subprocess.PIPE, text=True)
    with process.stdout as stream:
        said = stream.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert said.startswith("Usage: climb")
    assert usage.ru_utime + usage.ru_stime < 0.5


def test_help_imports_nothing_heavy():
    assert heavy("from climbstream.loader.cli.main import run; run(['--help'])") == set()


def test_a_heavy_import_would_be_seen():
    assert "numpy" in heavy("import numpy")


def test_a_command_imports_only_what_it_needs(built):
    script = (
        f"from climbstream.loader.cli.main import run; run(['inspect', {str(built.directory)!r}])"
    )
    assert heavy(script) <= {"numpy"}


@pytest.mark.slow
@pytest.mark.parametrize("name", THERE)
def test_the_help_of_a_command_waits_for_no_torch(name):
    assert "torch" not in heavy(
        f"from climbstream.loader.cli.main import run; run([{name!r}, '-h'])"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_command_with_what_it_does(capsys, name):
    assert run(["--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    home = COMMANDS[name]
    assert f" {name} {home.help} " in f"{said} "
    assert home.help.endswith(".")


@pytest.mark.parametrize("name", THERE)
def test_a_command_has_a_help_of_its_own(capsys, name):
    assert run([name, "--help"]) == 0
    usage, _, rest = capsys.readouterr().out.partition("\n")
    assert usage.startswith(f"Usage: climb {name}")
    assert rest.strip()[0].isupper()


@pytest.mark.parametrize("name", THERE)
def test_every_option_says_what_it_is(name):
    command = cli.root.get_command(click.Context(cli.root), name)
    options = [option for option in command.params if isinstance(option, click.Option)]
    # A default alone says nothing.
    assert [o.name for o in options if not o.help or o.help.startswith("[")] == []


def test_without_arguments_help_is_shown(capsys):
    assert run([]) == 2
    assert "Usage: climb" in "".join(capsys.readouterr())


def test_the_version_is_that_of_the_distribution(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == importlib.metadata.version("climbstream")


# Exit codes, and errors in one line.


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["--nothing"],
        ["build"],
        ["build", "x.jsonl"],
        ["build", "x.jsonl", "--out", "out", "--clusters", "many"],
        ["build", "nowhere.jsonl", "--out", "out"],
        ["build", "x.docx", "--out", "out"],
        ["inspect"],
        ["verify", "a", "b"],
    ],
    ids=" ".join,
)
def test_a_call_that_cannot_be_ends_with_2(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.docx").touch()
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert captured.err.splitlines()[-1].lower().startswith("error: ")


@pytest.mark.parametrize("workers", [0, -1])
def test_a_number_of_workers_that_cannot_be_ends_with_2(capsys, built, tmp_path, workers):
    arguments = ["build", str(built.source), "--out", str(tmp_path), f"--workers={workers}"]
    assert run(arguments) == 2
    assert f"{workers} is not in the range" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "."], r". is not a shard directory: it has no manifest.json"),
        (["verify", "."], r". is not a shard directory: it has no manifest.json"),
        (["build", "a.jsonl", "--out", "o"], "the sources hold 0 usable documents"),
        (["build", "a.jsonl", "--out", "o", "--holdout", "2"], "holdout is 2.0; it must be from 0"),
        (["build", "a.jsonl", "--out", "o", "--config", "no.json"], "there is no file no.json"),
        (["build", "a.jsonl", "--out", "o", "--config", "a.jsonl"], "a.jsonl is not JSON"),
        (
            ["build", "a.jsonl", "--out", "o", "--config", "list.json"],
            "list.json is not a JSON object",
        ),
        (["build", "a.jsonl", "--out", "o", "--config", "odd.json"], "unknown build settings: odd"),
        (["build", "a.jsonl", "--out", "."], "DIR is not empty: it holds a.jsonl, list.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_data_that_is_not_what_it_must_be_ends_with_3(
    capsys, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    for name, text in (("a.jsonl", ""), ("list.json", "[]"), ("odd.json", '{"odd": 1}')):
        (tmp_path / name).write_text(text)
    assert run(arguments) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith(
        f"error: {message}".replace("DIR", str(tmp_path))
    )
    assert "Traceback" not in captured.err


def test_a_directory_that_another_process_holds_ends_with_6(capsys, built, tmp_path):
    with lock(tmp_path / "out"):
        assert run(["build", str(built.source), "--out", str(tmp_path / "out")]) == 6
    assert capsys.readouterr().err.startswith("error: another process works on")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (errors.ClimbError("went wrong"), 1, "went wrong"),
        (errors.UsageError("cannot be"), 2, "cannot be"),
        (errors.InvalidDataError("is not"), 3, "is not"),
        (errors.IntegrityError("differs"), 4, "differs"),
        (errors.RemoteError("did not answer"), 5, "did not answer"),
        (errors.LockedError("is held"), 6, "is held"),
        (errors.NoSpaceError("is full"), 7, "is full"),
        (OSError(errno.ENOSPC, "No space left on device"), 7, "no space left: "),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 7, "no space left: "),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.bin"), 2, "a.bin: No such file"),
        (PermissionError(errno.EACCES, "Permission denied", "b"), 2, "b: Permission denied"),
        (ModuleNotFoundError("No module", name="faiss"), 2, "faiss is not installed; run pip"),
        (ZeroDivisionError("by zero"), 1, "internal error, ZeroDivisionError('by zero'); to see"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_is_one_line_and_its_exit_code(capsys, failing, error, code, message):
    failing(error)
    assert run(["fail"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"error: {message}")


@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), errors.InvalidDataError("no")])
def test_a_traceback_is_shown_when_it_is_asked_for(capsys, failing, error):
    failing(error)
    code = run(["fail"])
    capsys.readouterr()
    assert run(["--debug", "fail"]) == code
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_a_stop_by_the_user_says_how_to_go_on(capsys, failing, error):
    failing(error)
    assert run(["fail"]) == 130
    assert capsys.readouterr().err.strip("\n") == "stopped; run the same command again to continue"


def test_from_python_errors_are_raised(failing):
    failing(errors.InvalidDataError("no"))
    with pytest.raises(errors.InvalidDataError, match="no"):
        call(["fail"])


# What is not installed.


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("faiss", ["build", "a.jsonl", "--out", "o"], "build"),
        ("tokenizers", ["build", "a.jsonl", "--out", "o"], "build"),
        ("pyarrow", ["verify", "BUILT"], "build"),
        ("transformers", ["train", "BUILT", "--tokens", "512", "--out", "o"], "search"),
    ],
)
def test_an_extra_that_is_missing_is_named_with_the_command_that_brings_it(
    built, tmp_path, missing, arguments, extra
):
    if arguments[0] not in THERE:
        pytest.skip("there is no such command")
    given = [str(built.directory) if a == "BUILT" else a for a in arguments]
    done = run_without({missing}, *given, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    said = f"error: {missing} is not installed; run pip install 'climbstream[{extra}]'"
    assert done.stderr.splitlines()[-1] == said
    assert "Traceback" not in done.stderr


def test_the_base_install_inspects(built):
    extras = {"faiss", "tokenizers", "pyarrow", "sklearn", "datasets", "transformers", "lightgbm"}
    done = run_without(extras, "inspect", built.directory)
    assert done.returncode == 0, done.stderr


# Data on stdout, progress on stderr.


def test_inspect_says_what_every_cluster_holds(capsys, built):
    assert run(["inspect", str(built.directory)]) == 0
    captured = capsys.readouterr()
    manifest = json.loads((built.directory / "manifest.json").read_text())
    for cluster in manifest["clusters"]:
        (line,) = [x for x in captured.out.splitlines() if x.startswith(f"{cluster['name']} ")]
        assert f" {cluster['documents']:,} " in line
        assert f" {cluster['tokens']:,} " in line
    assert "licence: CC0-1.0" in captured.out
    assert captured.err == ""


def test_inspect_gives_the_manifest_and_what_is_known_of_clusters_as_json(capsys, built):
    assert run(["inspect", str(built.directory), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    manifest = json.loads((built.directory / "manifest.json").read_text())
    assert {name: value[name] for name in manifest} == manifest
    assert [about["name"] for about in value["about"]] == [c["name"] for c in manifest["clusters"]]


def test_verify_gives_counts_and_faults_as_json(capsys, built):
    assert run(["verify", str(built.directory), "--json"]) == 0
    captured = capsys.readouterr()
    value = json.loads(captured.out)
    assert value["faults"] == []
    assert value["shards"] == 6
    assert captured.err.startswith("verify: ")


def test_build_gives_the_manifest_as_json_and_progress_beside_it(
    capfd, tmp_path, monkeypatch, write_jsonl, make_records
):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "a.jsonl", make_records(each=8))
    (tmp_path / "settings.json").write_text('{"min_cluster_score": {}, "min_document_score": {}}')
    given = {"clusters": 3, "vocab_size": 300, "holdout": 0.1, "seed": 3}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    arguments = ["build", "a.jsonl", "--out=out", "--config=settings.json", "--workers=1"]
    assert run([*arguments, *options, "--json"]) == 0
    captured = capfd.readouterr()
    value = json.loads(captured.out)
    assert value == json.loads((tmp_path / "out" / "manifest.json").read_text())
    settings = value["provenance"]["settings"]
    assert {name: settings[name] for name in given} == given
    assert settings["min_cluster_score"] == {}
    assert "read: 48 documents" in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (["--thresholds=paper"], "--min-cluster-score overall was"),
        (["--thresholds=recipe"], "--min-cluster-score ad-free was"),
        (["--merge-height=1.5"], "--merge-height was not given and is 1.5"),
        (["--near-duplicates=0.9"], "--near-duplicates was 0.8 and is 0.9"),
        (["--restarts=5", "--balanced"], "--restarts was 2 and is 5"),
        (["--keep-duplicates"], "--keep-duplicates was False and is True"),
        (["--micro-clusters=33", "--sample=400"], "--micro-clusters was"),
    ],
    ids=str,
)
def test_every_option_of_a_build_is_one_of_its_settings(capsys, built, tmp_path, options, changed):
    config = tmp_path / "settings.json"
    config.write_text(json.dumps(built.settings))
    arguments = ["build", str(built.source), f"--out={built.directory}", f"--config={config}"]
    assert run([*arguments, *options]) == 3
    assert changed in capsys.readouterr().err


def test_build_says_what_it_built(capsys, built, tmp_path):
    config = tmp_path / "settings.json"
    config.write_text(json.dumps(built.settings))
    arguments = ["build", str(built.source), f"--out={built.directory}", f"--config={config}"]
    assert run(arguments) == 0
    captured = capsys.readouterr()
    assert "c00" in captured.out
    assert captured.out.endswith(f"report: {built.directory / 'report.html'}\n")
    assert "is built already" in captured.err


def test_an_option_is_stronger_than_the_file_of_settings(capsys, built, tmp_path):
    config = tmp_path / "settings.json"
    config.write_text(json.dumps(built.settings))
    arguments = ["build", str(built.source), f"--out={built.directory}", f"--config={config}"]
    assert run([*arguments, "--clusters=4"]) == 3
    assert "--clusters was 6 and is 4" in capsys.readouterr().err


def test_doctor_says_what_is_installed(capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=1 << 40))
    assert run(["doctor", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["versions"]["climbstream"] == importlib.metadata.version("climbstream")
    assert value["troubles"] == []
    assert value["facts"]["cache"].endswith("1024 GiB free")


def test_doctor_finds_a_clash_and_a_full_disk(capsys, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda _: "1.0")
    monkeypatch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=1 << 28))
    assert run(["doctor"]) == 1
    captured = capsys.readouterr()
    assert "faiss-cpu and faiss-gpu are both installed and own the same folder" in captured.out
    assert "only 0.2 GiB are free for the cache" in captured.out
    assert captured.err == "error: 2 problems on this machine\n"


def test_a_table_is_set_in_columns():
    rows = [("c00", "sea, anchor", "12"), ("c01", "oven", "3,456")]
    assert text_table(("cluster", "words", "tokens"), rows, left=2).splitlines() == [
        "cluster  words        tokens",
        "c00      sea, anchor      12",
        "c01      oven          3,456",
    ]


# What people type.


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_ends_with_two_examples_that_it_takes(capsys, name):
    assert run([name, "--help"]) == 0
    said = capsys.readouterr().out
    lines = [line.strip() for line in said.splitlines()]
    assert lines[lines.index("Examples:") + 1 :] == list(EXAMPLES[name])
    assert len(EXAMPLES[name]) == 2
    command = root.get_command(click.Context(root), name)
    assert command is not None
    for example in EXAMPLES[name]:
        program, called, *arguments = shlex.split(example)
        assert (program, called) == ("climb", name)
        command.make_context(name, arguments)  # parsed as it stands; nothing is run


def test_the_help_of_search_has_its_options_in_groups(capsys):
    assert run(["search", "--help"]) == 0
    said = capsys.readouterr().out
    headings = ["Targets:", "Limits of weights:", "Proxies:", "How it runs:"]
    assert [said.index(heading) for heading in headings] == sorted(
        said.index(heading) for heading in headings
    )
    command = root.get_command(click.Context(root), "search")
    assert command is not None
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert said.count(f"  {max(parameter.opts, key=len)} ") == 1, parameter.name


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1000000", 10**6),
        ("1_000_000", 10**6),
        ("1,000,000", 10**6),
        ("1e6", 10**6),
        ("10M", 10**7),
        ("2.5k", 2500),
        ("3B", 3 * 10**9),
        ("4GiB", 4 << 30),
        ("1.5 tib", 3 << 39),
        ("0.1e1", 1),
    ],
)
def test_a_count_is_read_as_people_write_it(text, number):
    assert COUNT.convert(text, None, None) == number


@pytest.mark.parametrize(
    "text", ["", "M", "ten", "1.5", "10X", "1e-3", "e6", ".", "1e", "nan", "inf"]
)
def test_what_is_no_count_is_refused_with_what_is(text):
    with pytest.raises(click.BadParameter, match="write 1000000, 1e6, 10M or 4GiB"):
        COUNT.convert(text, None, None)


@pytest.mark.parametrize("text", ["0", "-5", "-1e6"])
def test_a_count_is_one_or_more(text):
    with pytest.raises(click.BadParameter, match="is not in the range x>=1"):
        COUNT.convert(text, None, None)


@pytest.mark.parametrize(
    ("typed", "meant"), [("isnpect", "inspect"), ("serach", "search"), ("trian", "train")]
)
def test_a_command_that_is_mistyped_gets_a_suggestion(capsys, typed, meant):
    assert run([typed]) == 2
    assert f"No such command '{typed}'. Did you mean {meant}" in capsys.readouterr().err


def test_a_command_like_no_other_gets_no_suggestion(capsys):
    assert run(["qqqq"]) == 2
    assert "No such command 'qqqq'.\n" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["inspect", "verify", "search", "train"])
def test_a_folder_that_is_not_there_is_said_not_to_be(capsys, tmp_path, command):
    place, out = tmp_path / "nosuch", str(tmp_path / "out")
    more = {
        "search": ["--target", "cluster=c00", "--out", out],
        "train": ["--tokens", "1e6", "--out", out],
    }
    assert run([command, str(place), *more.get(command, [])]) == 3
    assert f"{place} is not a shard directory: nothing is there" in capsys.readouterr().err


def test_print_config_prints_what_config_reads(tmp_path, capsys):
    assert run(["build", "--print-config", "--clusters", "7", "--holdout", "0.1"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["clusters"], printed["holdout"], printed["tiers"]) == (7, 0.1, None)
    (tmp_path / "settings.json").write_text(json.dumps(printed))
    again = ["build", "--print-config", "--config", str(tmp_path / "settings.json")]
    assert run([*again, "--clusters", "9"]) == 0
    assert json.loads(capsys.readouterr().out) == {**printed, "clusters": 9}


@pytest.mark.parametrize(("words", "missing"), [([], "SOURCES"), (["a.jsonl"], "--out")])
def test_a_build_without_sources_or_a_folder_is_refused_as_before(words, missing, capsys):
    assert run(["build", *words]) == 2
    assert f"'{missing}" in capsys.readouterr().err


def test_inspect_says_that_nothing_is_there(tmp_path, capsys):
    assert run(["inspect", str(tmp_path / "nosuch")]) == 3
    assert "nothing is there" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "number"), [("0.1", 0.1), ("10%", 0.1), ("40 %", 0.4), ("1", 1)])
def test_a_fraction_may_be_in_percent(text, number):
    assert Fraction().convert(text, None, None) == pytest.approx(number)
    assert split_number(f"c03={text}") == ("c03", pytest.approx(number))


@pytest.mark.parametrize("text", ["", "%", "ten%", "10%%"])
def test_what_is_no_fraction_is_refused_with_what_is(text):
    with pytest.raises(click.BadParameter, match=r"write 0\.1 or 10%"):
        Fraction().convert(text, None, None)

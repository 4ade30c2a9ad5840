"""What the README shows is so."""

import re
import shlex
from pathlib import Path

import click
import pytest

from climbstream.loader.cli.main import COMMANDS, root
from climbstream.loader.formats.mixture import Mixture

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
LINES = [line for language, block in BLOCKS if not language for line in block.splitlines()]
CALLS = [shlex.split(line) for line in LINES if line.startswith("climb ")]


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_a_command_of_the_readme_takes_what_it_is_given(call):
    command = root.get_command(click.Context(root), call[1])
    assert command is not None
    # Parsed as it stands; nothing is run.
    command.make_context(call[1], call[2:])


def test_every_command_is_named_in_the_readme():
    assert [name for name in COMMANDS if not re.search(rf"climb {name}|make {name}", README)] == []


OF_SELECTION = (
    "--languages --licenses --min-document-score --min-cluster-score --thresholds --no-prune "
    "--near-duplicates --keep-duplicates --keep-ids --dry-run --text-lines"
).split()
HOWTO = "".join(page.read_text() for page in (ROOT / "docs" / "howto").glob("*.md"))


@pytest.mark.parametrize("option", OF_SELECTION)
def test_an_option_that_decides_which_documents_stay_is_in_readme_how_to_and_help(option):
    build = root.get_command(click.Context(root), "build")
    (found,) = [o for o in build.params if isinstance(o, click.Option) and option in o.opts]
    assert found.help
    for text in (README, HOWTO):
        assert re.search(rf"`[^`]*{option}\b", text)


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets


def test_every_file_that_the_readme_links_to_exists():
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_the_search_of_the_readme_runs():
    code = next(block for language, block in BLOCKS if language == "python" and "Search(" in block)
    names = {"train_and_score": lambda weights: 2 - weights["c01"]}
    exec(code, names)
    mixture = names["search"].result().mixture
    assert isinstance(mixture, Mixture)
    assert mixture.weights["c01"] > 1 / 3


def test_the_loader_of_the_readme_is_called_as_it_can_be():
    code = next(block for language, block in BLOCKS if "MixtureLoader(" in block)
    compile(code, "README.md", "exec")
    from climbstream.loader import MixtureLoader

    for name in re.findall(r"loader\.(\w+)", code.replace("climbstream.loader", "")):
        assert hasattr(MixtureLoader, name)


def test_the_readme_is_read_in_one_sitting():
    assert len(README.splitlines()) <= 150

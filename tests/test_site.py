"""The documentation can be walked: its blocks run in order, its pages build without a warning."""

import dataclasses
import importlib
import os
import re
import runpy
import subprocess
import sys
import types
from pathlib import Path

import pytest
from climb_command import CLIMB

from climbstream.loader.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
HOOKS = runpy.run_path(str(DOCS / "hooks.py"))
PACKAGES = [f"climbstream.{name}" for name in HOOKS["PACKAGES"]]
START = DOCS / "index.md"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
HOWTO = sorted((DOCS / "howto").glob("*.md"))
TOO_LONG = 500
"""Seconds for a block."""


def blocks(page):
    """Return language and text of the blocks of a page that are to be run."""
    return re.findall(r"^```(sh|python)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def walk(page, folder):
    """Run the blocks of ``page`` in ``folder``, as a reader does."""
    path = f"{Path(CLIMB).parent}{os.pathsep}{os.environ['PATH']}"
    for language, text in blocks(page):
        shell = ["bash", "-euc", text]
        done = subprocess.run(
            shell if language == "sh" else [sys.executable, "-c", text],
            cwd=folder,
            env={**os.environ, "PATH": path, "CLIMBSTREAM_CACHE": str(folder / "cache")},
            capture_output=True,
            text=True,
            timeout=TOO_LONG,
        )
        assert done.returncode == 0, f"{page.name}:\n{text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_start_the_tutorials_and_the_how_to_pages_run_as_they_stand(tmp_path):
    for page in [START, *TUTORIALS, *HOWTO]:
        walk(page, tmp_path)


# The reference.


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_and_method_has_a_docstring(name):
    assert list(HOOKS["undocumented"](importlib.import_module(name))) == []


def test_a_public_name_without_a_docstring_stops_the_documentation():
    class Said:
        """Says what it is."""

        def silent(self):
            pass

    @dataclasses.dataclass
    class Bare:
        field: int

    module = types.ModuleType("made")
    module.__dict__.update(__all__=["Said", "Bare"], Said=Said, Bare=Bare)
    assert list(HOOKS["undocumented"](module)) == ["Said.silent", "Bare"]


def test_the_reference_asks_for_each_public_name_once():
    asked = re.findall(r"^::: (climbstream\S+)", HOOKS["names"](), re.MULTILINE)
    assert len(asked) == len(set(asked))
    public = {
        (package, name) for package in PACKAGES for name in importlib.import_module(package).__all__
    }
    assert {
        (".".join(place.split(".")[:2]), place.rpartition(".")[2])
        for place in asked
        if place not in PACKAGES
    } == public


def test_the_reference_has_the_help_of_each_command():
    assert re.findall(r"^## climb (\S+)", HOOKS["commands"](), re.MULTILINE) == [*COMMANDS]


# The site, as `make docs` builds it.


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built pages; tests that use it need mkdocs."""
    pytest.importorskip("mkdocs")
    site = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", site],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=TOO_LONG,
    )
    assert done.returncode == 0, done.stderr
    return site


@pytest.mark.slow
def test_the_built_reference_describes_each_public_name_and_command(site):
    page = (site / "reference" / "python.html").read_text()
    described = {
        entry.partition('"')[0].rpartition(".")[2]
        for entry in page.split('<h3 id="')[1:]
        if re.search(r'<div class="doc doc-contents[^"]*">\s*<p>\w', entry)
    }
    for name in PACKAGES:
        assert described >= {*importlib.import_module(name).__all__}
    page = (site / "reference" / "commands.html").read_text()
    assert [*COMMANDS] == re.findall(r'<h2 id="climb-(\w+)"', page)


@pytest.mark.slow
def test_no_link_of_the_built_site_is_broken_and_none_loads_from_the_network(site):
    pages = {path: path.read_text() for path in site.rglob("*.html") if path.name != "404.html"}
    anchors = {path: {*re.findall(r'\bid="([^"]+)"', text)} for path, text in pages.items()}
    broken = []
    for path, text in pages.items():
        assert not re.findall(r'<(?:script|img|iframe)[^>]* src="?https?:', text), path
        assert not re.findall(r'<link[^>]*rel="?stylesheet"?[^>]*href="?https?:', text), path
        for link in re.findall(r'(?:href|src)="([^"]+)"', text):
            if re.match(r"\w+:", link):
                continue
            place, _, anchor = link.partition("#")
            to = (path.parent / place).resolve() if place else path
            to = to / "index.html" if to.is_dir() else to
            if not to.exists() or (anchor and anchor not in anchors.get(to, ())):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []

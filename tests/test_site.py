"""The documentation can be walked: its blocks run in order, its pages build without a warning."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from climb_command import CLIMB

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
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


@pytest.mark.slow
def test_the_pages_build_offline_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=TOO_LONG,
    )
    assert done.returncode == 0, done.stderr
    commands = (tmp_path / "site" / "reference" / "commands.html").read_text()
    names = (tmp_path / "site" / "reference" / "python.html").read_text()
    assert "climb weights run c03=0.4" in commands
    for module in ("loader", "builder", "search"):
        for name in __import__(f"climbstream.{module}", fromlist=["__all__"]).__all__:
            assert name in names

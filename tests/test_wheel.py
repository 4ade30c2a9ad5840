"""The wheel is whole: installed alone it has every module, the page of the monitor and `climb`."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import climbstream.loader

ROOT = Path(__file__).parents[1]
MODULES = [
    ".".join(["climbstream", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(
        ".__init__"
    )
    for folder in ("builder", "loader", "search")
    for path in sorted((ROOT / folder).rglob("*.py"))
]

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path) -> str:
    """Run a command that knows nothing of this checkout; return what it wrote."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A new environment with the wheel; dependencies are those of this one, climbstream is not."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("builder", "loader", "search"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder]
    run(*pip, *build, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    home = folder / "environment"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    (packages,) = home.glob("lib/*/site-packages")
    # A path in a .pth file is searched for modules; the .pth files within it, that of the editable
    # install among them, are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home


def test_every_module_is_imported_from_the_wheel(environment, tmp_path):
    code = f"import importlib; [print(importlib.import_module(m).__file__) for m in {MODULES}]"
    files = run(environment / "bin" / "python", "-I", "-c", code, cwd=tmp_path).splitlines()
    assert len(files) == len(MODULES)
    assert all(Path(file).is_relative_to(environment) for file in files)


def test_the_command_runs_from_the_wheel(environment, tmp_path):
    climb = environment / "bin" / "climb"
    assert run(climb, "--version", cwd=tmp_path).strip() == climbstream.loader.__version__
    assert "Usage: climb demo" in run(climb, "demo", "--help", cwd=tmp_path)


def test_the_wheel_has_the_page_of_the_monitor_and_the_marks_of_types(environment):
    (installed,) = environment.glob("lib/*/site-packages/climbstream")
    files = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    assert files >= {"loader/monitoring/monitor.html"}
    assert files >= {f"{name}/py.typed" for name in ("builder", "loader", "search")}

"""The rules of the house, so that they hold by themselves."""

import ast
import importlib
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest

import climbstream.loader
from climbstream.loader.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
FOLDERS = ("builder", "loader", "search")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NAMED = {
    "faiss": "faiss-cpu",
    "fasttext": "fasttext-predict",
    "huggingface_hub": "huggingface-hub",
    "sentence_transformers": "sentence-transformers",
    "sklearn": "scikit-learn",
    "streaming": "mosaicml-streaming",
    "yaml": "pyyaml",
}
"""Distributions by the name of their module, where those differ."""


def imports(module: str, *, lazy: bool = True) -> set[str]:
    """Full names of the modules that ``module`` imports from; lazily too, or not."""
    tree = ast.parse(MODULES[module].read_text())
    found = set()
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1, f"{module} reaches above its folder"
            names = [node.module] if node.module else [alias.name for alias in node.names]
            home = f"climbstream.{module.rpartition('.')[0]}." if node.level else ""
            found |= {home + name for name in names}
    return found


def folder_of(name: str) -> str | None:
    """Folder of ours that the module ``name`` is in."""
    first, _, rest = name.partition(".")
    return rest.split(".")[0] if first == "climbstream" else None


def needed(names: list[str]) -> set[str]:
    """Names of the distributions in requirements."""
    return {re.split(r"[^\w.-]", name)[0].lower() for name in names}


# Folders and packages.


def test_packages_are_the_folders_with_code():
    code = {path.parent.relative_to(ROOT) for path in MODULES.values()}
    assert all((ROOT / folder / "__init__.py").exists() for folder in code)
    names = sorted(".".join(["climbstream", *folder.parts]) for folder in code)
    assert PROJECT["tool"]["setuptools"]["packages"] == names


def test_packages_lie_in_the_folders_at_the_top():
    below = {f"climbstream.{folder}": folder for folder in FOLDERS}
    assert PROJECT["tool"]["setuptools"]["package-dir"] == below
    assert PROJECT["tool"]["importlinter"]["root_packages"] == list(below)


def test_packages_are_typed():
    assert all((ROOT / folder / "py.typed").exists() for folder in FOLDERS)
    assert PROJECT["tool"]["setuptools"]["package-data"] == {
        "*": ["py.typed", "*.html", "*.css", "*.js"]
    }


def test_links_for_type_checkers_lead_to_the_folders():
    links = {path.name: path for path in (ROOT / "tests" / "_links" / "climbstream").iterdir()}
    assert sorted(links) == sorted(FOLDERS)
    for folder, link in links.items():
        assert link.readlink() == Path("..") / ".." / ".." / folder
        assert link.resolve() == ROOT / folder


def test_what_is_imported_is_this_checkout():
    assert Path(climbstream.loader.__file__).parent == ROOT / "loader"


# Modules.


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_is(module):
    said = ast.get_docstring(ast.parse(MODULES[module].read_text()))
    assert said
    assert said.splitlines()[0].endswith((".", ":"))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_not_named_like_one_of_the_standard_library(module):
    assert module.rpartition(".")[2] not in sys.stdlib_module_names


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_its_own_folder_relatively(module):
    tree = ast.parse(MODULES[module].read_text())
    own = f"climbstream.{module.rpartition('.')[0]}"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert node.module not in (own, f"climbstream.{module.split('.')[0]}")
            assert (node.module or "").rpartition(".")[0] != own


@pytest.mark.parametrize("folder", sorted({name.rpartition(".")[0] for name in MODULES}))
def test_no_modules_of_a_folder_import_each_other_in_a_circle(folder):
    beside = {name for name in MODULES if name.rpartition(".")[0] == folder}
    graph = {
        name: {other.removeprefix("climbstream.") for other in imports(name)} & beside
        for name in beside
    }
    assert TopologicalSorter(graph).static_order()


# Layers.


@pytest.mark.parametrize("module", MODULES)
def test_builder_and_search_stand_on_loader_and_never_on_each_other(module):
    folder = module.split(".")[0]
    theirs = {folder_of(name) for name in imports(module)} - {None, folder}
    assert theirs <= ({"loader"} if folder != "loader" else set())


def test_a_crossing_of_layers_would_be_seen(monkeypatch, tmp_path):
    (tmp_path / "bad.py").write_text(
        "def f():\n    from climbstream.search.optimizer import trials as trial\n"
    )
    monkeypatch.setitem(MODULES, "builder.bad", tmp_path / "bad.py")
    with pytest.raises(AssertionError):
        test_builder_and_search_stand_on_loader_and_never_on_each_other("builder.bad")


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("loader.")])
def test_the_loader_needs_the_base_install_alone(module):
    base = needed(PROJECT["project"]["dependencies"])
    theirs = {name.split(".")[0] for name in imports(module, lazy=False)}
    assert theirs - sys.stdlib_module_names - {"climbstream"} <= base


@pytest.mark.parametrize("module", MODULES)
def test_what_a_module_imports_is_declared(module):
    extras = PROJECT["project"]["optional-dependencies"]
    declared = needed([*PROJECT["project"]["dependencies"], *chain(*extras.values())])
    for name in sorted(declared):
        try:  # what they need is there too
            declared |= needed(importlib.metadata.requires(name) or [])
        except importlib.metadata.PackageNotFoundError:
            continue
    theirs = {name.split(".")[0] for name in imports(module)} - sys.stdlib_module_names
    assert {NAMED.get(name, name) for name in theirs - {"climbstream"}} <= declared


def test_all_is_all_extras_but_those_that_exclude_others():
    extras = PROJECT["project"]["optional-dependencies"]
    (whole,) = extras["all"]
    assert {*re.findall(r"[\w-]+", whole)} - {"climbstream"} <= extras.keys()
    assert "gpu" not in whole, "it owns the same folder as faiss-cpu"


# Commands.


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_where_the_list_says(name):
    module, _, attribute = COMMANDS[name].place.partition(":")
    tree = ast.parse(MODULES[module.removeprefix("climbstream.")].read_text())
    assert attribute in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_needs_an_extra_that_there_is(name):
    extra = COMMANDS[name].extra
    assert not extra or extra in PROJECT["project"]["optional-dependencies"]


def test_the_command_is_installed():
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="climb")
    assert entry.value == "climbstream.loader.cli.entry:main"


# Public names, and what they cost.


PACKAGES = [importlib.import_module(f"climbstream.{folder}") for folder in FOLDERS]


@pytest.mark.parametrize("package", PACKAGES, ids=FOLDERS)
def test_public_names_load(package):
    assert package.__all__ == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    assert dir(package) == package.__all__


@pytest.mark.parametrize("package", PACKAGES, ids=FOLDERS)
def test_a_public_name_is_not_that_of_a_module_which_would_hide_it(package):
    modules = {path.stem for path in Path(package.__file__).parent.iterdir()}
    assert not {*package.__all__} & modules


@pytest.mark.parametrize("package", PACKAGES, ids=FOLDERS)
def test_other_names_are_not_public(package):
    with pytest.raises(AttributeError, match=rf"'{package.__name__}' has no attribute 'Nothing'"):
        _ = package.Nothing


@pytest.mark.parametrize("package", PACKAGES, ids=FOLDERS)
def test_the_version_of_a_package_is_that_of_the_distribution(package):
    assert package.__version__ == importlib.metadata.version("climbstream")


def loaded(script: str) -> set[str]:
    """Names of the top-level modules that ``script`` loads, in a Python of its own."""
    code = f"import json, sys; {script}; print(json.dumps([n.split('.')[0] for n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {*json.loads(done.stdout)}


@pytest.mark.parametrize(
    "script",
    [
        "import climbstream.builder, climbstream.loader, climbstream.search",
        "from climbstream.loader import Manifest, Mixture, WeightsLog",
        "import climbstream.loader.formats.manifest, climbstream.loader.formats.clusters",
        "import climbstream.loader.formats.heldout, climbstream.loader.tools.verify",
    ],
)
def test_reading_a_manifest_imports_no_torch(script):
    assert not loaded(script) & {"torch", "pyarrow", "sklearn", "datasets"}


def test_an_import_of_torch_would_be_seen():
    assert "torch" in loaded("from climbstream.loader import MixtureLoader")


def test_no_generic_name_is_importable():
    assert not loaded("import climbstream.loader.formats.manifest") & {*FOLDERS}

"""What the docs link to exists, and decisions have the parts that the index promises."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import climbstream.builder
import climbstream.loader
import climbstream.search

ROOT = Path(__file__).parents[1]
DECISIONS = ROOT / "docs" / "decisions"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
TOPICS = sorted(set(DECISIONS.glob("*.md")) - {DECISIONS / "README.md"})
HISTORY = ROOT / "CHANGELOG.md"
"""Names files as they were called then."""
PACKAGES = (climbstream.builder, climbstream.loader, climbstream.search)
PUBLIC = {name for package in PACKAGES for name in package.__all__}
METHODS = {name for p in PACKAGES for thing in p.__all__ for name in dir(getattr(p, thing))}
FOREIGN = {"DataLoader", "StreamingDataset", "load_dataset", "log"}
"""Functions of other packages, and those that users write."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_a_page_links_to_exists(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    assert [k for k in links if "://" not in k and not (page.parent / k).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != HISTORY], ids=name_of)
def test_every_code_file_that_a_page_names_exists(page):
    top = r"builder|loader|search|bench|examples|tests|docs"
    names = re.findall(rf"`((?:{top})/[\w/.]+\.\w+)", page.read_text())
    missing = [name for name in names if not (ROOT / name).exists()]
    assert [name for name in missing if not (ROOT / "tests" / name).exists()] == []


def test_the_index_of_decisions_lists_every_topic():
    listed = re.findall(r"^\| \[\w+\]\((\w+\.md)\)", (DECISIONS / "README.md").read_text(), re.M)
    assert sorted(listed) == [topic.name for topic in TOPICS]


@pytest.mark.parametrize("topic", TOPICS, ids=name_of)
def test_a_decision_has_its_date_and_its_figures(topic):
    for entry in re.split(r"^## ", topic.read_text(), flags=re.M)[1:]:
        title, date, text = entry.split("\n", 2)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", date), title
        assert re.search(r"\*\*(Figures|Alternatives and figures)\.\*\*", text), title


@pytest.mark.parametrize("topic", [t for t in TOPICS if t.stem != "results"], ids=name_of)
def test_a_decision_says_against_what_and_what_would_change_it(topic):
    for entry in re.split(r"^## ", topic.read_text(), flags=re.M)[1:]:
        title = entry.split("\n", 1)[0]
        assert "**Alternatives" in entry, title
        assert "**What would change it.**" in entry, title


@pytest.mark.parametrize("package", ["loader", "builder", "search"])
def test_the_page_on_python_lists_the_public_names_and_no_others(package):
    page = (ROOT / "docs" / "reference" / "python.md").read_text()
    table = page.partition(f"| `climbstream.{package}` |")[2].partition("\n\n")[0]
    names = re.findall(r"^\| `(\w+)` \| \S", table, re.M)
    assert sorted(names) == sorted(importlib.import_module(f"climbstream.{package}").__all__)


def imports(code):
    """Yield (module, name) for each import from this project in ``code``."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("climbstream"):
            yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_name_that_a_page_imports_can_be_imported(page):
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        for module, name in imports(block):
            assert hasattr(importlib.import_module(module), name), (module, name)


@pytest.mark.parametrize("page", [page for page in PAGES if page != HISTORY], ids=name_of)
def test_every_function_that_a_page_calls_in_its_text_is_public(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`]+)`", text) if "decisions" not in page.parts else []
    called = {name for span in spans for name in re.findall(r"(?<![\w.])([A-Za-z_]\w*)\(", span)}
    defined = {*re.findall(r"^(?:class|def) (\w+)", page.read_text(), re.MULTILINE)}
    assert called - PUBLIC - METHODS - FOREIGN - defined == set()


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=name_of)
def test_an_example_imports_public_names_alone(example):
    for module, name in imports(example.read_text()):
        assert name in importlib.import_module(module).__all__, (module, name)

"""Each section of the report has a module and an entry, is laid out, and importing them is cheap."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from markupsafe import Markup

from tasks.records.run import RunRecord
from tasks.report.page import TEMPLATES
from tasks.report.sections import SECTIONS
from tests.tasks.reports import Page

pytestmark = pytest.mark.thorough

FRAMES = {"report", "compare", "monitoring", "section"}  # whole pages, and the layout of sections without a template
ROOM = TEMPLATES.with_name("sections")


def test_modules_and_entries_have_the_same_names_and_no_template_is_without_a_section() -> None:
    modules = {path.stem for path in ROOM.rglob("*.py")} - {"__init__"}
    templates = {path.name.removesuffix(".html.j2") for path in TEMPLATES.glob("*.html.j2")} - FRAMES
    assert set(SECTIONS) == modules >= templates


def test_an_entry_is_the_function_of_the_module_of_its_name() -> None:
    modules = {path.stem: ".".join(path.relative_to(ROOM).with_suffix("").parts) for path in ROOM.rglob("*.py")}
    assert {name: section.__module__ for name, section in SECTIONS.items()} == {
        name: f"tasks.report.sections.{modules[name]}" for name in SECTIONS
    }


@pytest.mark.processes
def test_importing_the_sections_imports_no_heavy_library() -> None:
    heavy = {"torch", "sklearn", "matplotlib", "mlflow", "prefect"}
    code = f"import sys, tasks.report.sections; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("whole", [False, True])
def test_a_section_without_a_template_is_laid_out_by_the_common_one(
    whole: bool, language: RunRecord, page: Callable[..., Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {"title": "Words per model", "headers": ["model", "words"], "rows": [["<b>", "12"], ["sum", "13"]], "sums": 1}
    picture = Markup('<svg aria-label="A picture"></svg>')
    optional = {"sentence": "1 < 2.", "plots": [("wide", picture)], "tables": [table], "note": "In small print."}
    before = page(language)
    monkeypatch.setitem(SECTIONS, "extra", lambda record: {"heading": "Extra", **(optional if whole else {})})
    after = page(language)
    words = [word for word in after.words if word.strip()]
    rest = ["1 < 2.", "Words per model", "model", "words", "<b>", "12", "sum", "13", "In small print."]
    assert words[words.index("Extra", words.index("Extra") + 1) :] == ["Extra", *(rest if whole else [])]
    assert all(after.tags.count(tag) == before.tags.count(tag) + whole for tag in ("figure", "svg", "table", "thead"))

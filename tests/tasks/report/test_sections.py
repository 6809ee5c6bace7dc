"""Each section of the report has a module, an entry and a template, and importing them is cheap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tasks.report.page import TEMPLATES
from tasks.report.sections import SECTIONS

FRAMES = {"report", "compare"}  # whole pages
ROOM = TEMPLATES.with_name("sections")


def test_modules_entries_and_templates_have_the_same_names() -> None:
    modules = {path.stem for path in ROOM.glob("*.py")} - {"__init__"}
    templates = {path.name.removesuffix(".html.j2") for path in TEMPLATES.glob("*.html.j2")} - FRAMES
    assert set(SECTIONS) == modules == templates


def test_an_entry_is_the_function_of_the_module_of_its_name() -> None:
    assert {name: section.__module__ for name, section in SECTIONS.items()} == {name: f"tasks.report.sections.{name}" for name in SECTIONS}


def test_importing_the_sections_imports_no_heavy_library() -> None:
    heavy = {"torch", "sklearn", "matplotlib", "mlflow", "prefect"}
    code = f"import sys, tasks.report.sections; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

"""The generated reference is current, and its list of environment variables whole."""

from __future__ import annotations

import re

from docs.generate import rendered
from docs.variables import VARIABLES
from flows.serving.environment import for_runs
from tests.docs.pages import tracked

READ = re.compile(r"""(?:environ(?:\.get\(|\.setdefault\(|\[)|seconds_of\()"([A-Z][A-Z_]+)\"""")

LIBRARIES = {"PYTHONWARNINGS", "PYTHONPATH", "TERM", "TRANSFORMERS_NO_ADVISORY_WARNINGS"}  # not ours to describe


def test_generated_pages_are_current():
    for path, text in rendered().items():
        assert path.read_text() == text, "run `make docs`"


def test_every_setting_and_command_has_a_description():
    pages = {path.name: text for path, text in rendered().items()}
    for name in ("settings.md", "commands.md"):
        rows = re.findall(r"^\| `.*$", pages[name], re.MULTILINE)
        assert len(rows) > 40
        assert [row for row in rows if not row.split(" | ")[1].strip()] == []


def test_every_environment_variable_that_the_code_reads_is_described():
    read = {name for path in tracked("flows/*.py", "tasks/*.py", "models/*.py", "conf/*.py") for name in READ.findall(path.read_text())}
    assert {"LADDER_HOME", "MLFLOW_TRACKING_URI", "LADDER_SERVER_SECONDS"} <= read
    described = " ".join([*VARIABLES, *VARIABLES.values(), *for_runs()])
    assert {name for name in read if name not in described} - LIBRARIES == set()

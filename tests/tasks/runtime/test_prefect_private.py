"""Private names of Prefect in the source are listed, and are as they were read."""

from __future__ import annotations

import ast
import hashlib
import inspect
import operator
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import prefect
import pytest

from tasks.runtime.prefect_private import PRIVATE_NAMES, READ_IN, PrivateName

ROOT = Path(__file__).parents[3]
PRIVATE = re.compile(r"_[a-z]")
NAMED_TUPLES = {"_replace", "_asdict", "_fields"}
UNDOCUMENTED = ("prefect.server", "prefect.runner._")
# Names that carry no underscore and no module of their own: a person lists them.
PUBLIC_SPELLING = {
    "GLOBAL_SETTINGS_CONTEXT",
    "flow_run_ids",
    "graceful_kill",
    "stopping",
    "create_app",
    "__pydantic_fields_set__",
    "register_flow",
}
PUBLIC_SPELLING |= {"PREFECT__FLOW_ENTRYPOINT"}  # in a comment: Prefect's own starter sets it
PUBLIC_SPELLING |= {"link_state_to_result", "run_results", "flow_runs.Paused"}


def digest_of(read_at: str) -> str:
    """Digest of a function's or a class's source; AttributeError or ImportError where Prefect has it no more."""
    module, _, name = read_at.partition(":")
    found = operator.attrgetter(name)(import_module(module))
    source = inspect.getsource(getattr(found, "fget", None) or found)
    return hashlib.sha256(source.encode()).hexdigest()[:12]


@pytest.mark.parametrize("private", PRIVATE_NAMES, ids=lambda private: f"{private.name} in {Path(private.used_in).name}")
def test_a_private_name_is_as_it_was_read(private: PrivateName) -> None:
    assert digest_of(private.read_at) == private.digest, (
        f"{private.read_at} is another in Prefect {prefect.__version__} than in {READ_IN}: {private.purpose}, in {private.used_in}"
    )
    assert private.name in (ROOT / private.used_in).read_text(), f"{private.used_in} no longer uses it"


def test_every_private_name_in_the_source_is_listed() -> None:
    listed = {(private.used_in, private.name) for private in PRIVATE_NAMES}
    used = {(path, name) for path in sources() for name in private_names(ast.parse((ROOT / path).read_text()))}
    assert used - listed == set(), "list it in tasks/runtime/prefect_private.py"
    assert {name for _, name in listed - used} <= PUBLIC_SPELLING | {"prefect.server.api.server:create_app"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("from prefect.runner._starter_engine import EngineCommandStarter", {"EngineCommandStarter"}),
        ("from prefect.server.api.server import SubprocessASGIServer as S", {"SubprocessASGIServer"}),
        ("import prefect\nprefect.flow._private()", {"_private"}),
        ("from prefect.runner import Runner\nclass Ours(Runner):\n  def end(self):\n    self._cancel_run()", {"_cancel_run"}),
        ("from prefect.runner import Runner\nclass Ours(Runner):\n  def _end(self):\n    self._end()", set()),
        ("import os\nos.environ['PREFECT__SERVER_FINAL'] = '1'", {"PREFECT__SERVER_FINAL"}),
        ("import torch\ntorch._private()", set()),
    ],
)
def test_the_search_finds_private_names(text: str, names: set[str]) -> None:
    assert set(private_names(ast.parse(text))) == names


def sources() -> Iterator[str]:
    """Source files that import Prefect or set its environment, except the list itself."""
    for layer in ("flows", "tasks"):
        for path in (ROOT / layer).rglob("*.py"):
            if "refect" in path.read_text() and path.name != "prefect_private.py":
                yield str(path.relative_to(ROOT))


def private_names(tree: ast.Module) -> Iterator[str]:
    """Names imported from private modules, private attributes of objects that are not our own, private environment variables."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prefect")]
    uses_prefect = bool(imports) or any(
        name.name.startswith("prefect") for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
    )
    for node in imports:
        for name in node.names:
            if (node.module or "").startswith(UNDOCUMENTED) or "._" in (node.module or "") or name.name.startswith("_"):
                yield name.name
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    own |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("PREFECT__"):
            yield node.value
        if not uses_prefect or not isinstance(node, ast.Attribute) or not PRIVATE.match(node.attr) or node.attr in NAMED_TUPLES:
            continue
        if not (is_self(node) and node.attr in own):
            yield node.attr


def is_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")

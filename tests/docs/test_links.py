"""Links between pages, and mentions of pages and files, lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, anchors, pages, prose, tracked

LINK = re.compile(r"\]\(([^)\s]+)\)")
MENTION = re.compile(r"(?<![\w/.-])docs/[\w./-]*\w")
PATH = re.compile(r"`((?:flows|tasks|models|conf|tests|benchmarks)/[\w/.-]*)`")
MODULE = re.compile(r"(?:python -m |`)((?:flows|tasks|models|conf|benchmarks|tests)(?:\.\w+)+)")
HISTORY = {"CHANGELOG.md", "docs/LOG.md"}  # what these name was there when it was written
SOURCES = ("*.py", "*.toml", "*.yaml", "*.j2", "Makefile", "*/Dockerfile", "*.md")


def links(page: Path) -> list[str]:
    return [target for target in LINK.findall(prose(page)) if not re.match(r"[a-z]+:", target)]


def target_of(page: Path, link: str) -> Path:
    return (page.parent / link.partition("#")[0]).resolve() if not link.startswith("#") else page


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_and_anchors_of_a_page_resolve(page: Path):
    for link in links(page):
        target = target_of(page, link)
        assert target.exists(), link
        anchor = link.partition("#")[2]
        assert not anchor or anchor in anchors(target), link


def test_files_of_docs_that_are_mentioned_anywhere_exist():
    mentions = {(str(path.relative_to(ROOT)), name) for path in tracked(*SOURCES) for name in MENTION.findall(path.read_text())}
    assert len(mentions) > 20
    missing = {(where, name) for where, name in mentions if not list(ROOT.glob(f"{name}*"))}
    assert missing == set()


@pytest.mark.parametrize("page", [page for page in pages() if str(page.relative_to(ROOT)) not in HISTORY], ids=lambda page: page.name)
def test_files_and_modules_that_a_page_names_exist(page: Path):
    text = page.read_text()
    assert [name for name in PATH.findall(text) if not (ROOT / name).exists()] == []
    modules = {str(path) for path in tracked("*.py")}  # of a dotted name: the module, or the one that holds the name
    places = {name: ROOT.joinpath(*name.split(".")) for name in MODULE.findall(text)}
    assert [
        name for name, place in places.items() if not {f"{place}.py", f"{place.parent}.py", f"{place.parent}/__init__.py"} & modules
    ] == []


def test_every_page_of_docs_is_reached_from_the_index():
    reached, new = set(), {ROOT / "docs" / "index.md"}
    while new:
        reached |= new
        new = {target_of(page, link) for page in new for link in links(page)} - reached
        new = {page for page in new if page.suffix == ".md"}
    assert {page for page in pages() if page.is_relative_to(ROOT / "docs")} - reached == set()

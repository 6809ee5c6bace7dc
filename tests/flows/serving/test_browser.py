"""The pages of `ladder serve` in Chromium.

Screenshots go to `$LADDER_SCREENSHOTS` where it is set.

Needs Debian's package `chromium`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.driver import Cli, ask_prefect, keep_running, wait_for
from tests.flows.served import login_of

pytestmark = [pytest.mark.browser, pytest.mark.slow]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SLOW_MS = 60_000  # for anything on a page to appear, on a machine that does other things too


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, undisturbed, tiny) -> Path:
    """A folder with a home in which `tiny` ran, `tiny.yaml`, and `asking.yaml`, whose last gate asks a person."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium, which pip cannot install (Debian: apt-get install chromium)")
    folder = tmp_path_factory.mktemp("browser")
    shutil.copytree(undisturbed.home, folder / "home")
    (folder / "tiny.yaml").write_text(Path(tiny).read_text())
    gate = "\n    gate: {min_parent_retention: 1.9, policy: ask}\n"
    (folder / "asking.yaml").write_text(Path(tiny).read_text().rstrip() + gate)
    return folder


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[dict[str, Any]]:
    """Addresses of a `ladder serve`."""
    cli = Cli(place / "home", cwd=place)
    process = cli.start_logged(place / "serve.log", "serve")
    keep_running(process)  # it outlives the test that first asked for it
    try:
        wait_for(lambda: (place / "home" / "serve.json").is_file() or process.poll() is not None, "ladder serve")
        assert process.poll() is None, (place / "serve.log").read_text()
        yield {**json.loads((place / "home" / "serve.json").read_text()), "auth": login_of(place / "home")}
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def page(browser, served: dict[str, Any]) -> Iterator[Any]:
    """A page of a person who has logged in at both servers: in Prefect's own form, and in the browser's for MLflow."""
    user, password = served["auth"]
    found = browser.new_page(viewport={"width": 1280, "height": 1100}, http_credentials={"username": user, "password": password})
    found.set_default_timeout(SLOW_MS)
    found.goto(served["prefect_ui"])
    found.locator("input").first.fill(f"{user}:{password}")
    found.keyboard.press("Enter")
    found.wait_for_url(lambda address: "login" not in address)
    yield found
    found.close()


def keep(page: Any, name: str) -> None:
    """Save a screenshot where one is wanted, once the page's animations have ended."""
    if folder := os.environ.get("LADDER_SCREENSHOTS"):
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(folder) / f"{name}.png")


def see(page: Any, *texts: str) -> None:
    for text in texts:
        page.get_by_text(text).first.wait_for()


def ask(served: dict[str, Any], method: str, path: str, **more: Any) -> Any:
    return ask_prefect(method, served["prefect_api"] + path, auth=served["auth"], **more).raise_for_status().json()


def flow_run(served: dict[str, Any], name: str) -> dict[str, Any]:
    found = ask(served, "POST", "/flow_runs/filter", json={"flow_runs": {"name": {"any_": [name]}}})
    return found[0] if found else {}


def box(page: Any, field: str) -> Any:
    return page.locator(".p-label", has_text=re.compile(rf"^{field}\b")).locator("textarea, input").first


def open_form(page: Any, served: dict[str, Any]) -> None:
    deployment = ask(served, "GET", "/deployments/name/distill/distill")["id"]
    page.goto(f"{served['prefect_ui']}/deployments/deployment/{deployment}/run")
    see(page, "Validate parameters")


def submit(page: Any, served: dict[str, Any], name: str, ladder: Path) -> str:
    """Fill in the run's name and ladder, and start it; returns the flow run's id."""
    box(page, "Run Name").fill(name)
    page.get_by_text("path of a YAML file", exact=True).click()
    box(page, "ladder").fill(str(ladder))
    page.get_by_role("button", name="Submit").click()
    return wait_for(lambda: flow_run(served, name).get("id"), "the flow run that the form makes", 60)


def wait_ended(served: dict[str, Any], run: str, *types: str) -> dict[str, Any]:
    def state() -> Any:
        found = ask(served, "GET", f"/flow_runs/{run}")
        return found if found["state"]["type"] in types else None

    return wait_for(state, f"the run to be {' or '.join(types)}")


def test_the_deployments_page_shows_what_is_offered(page, served):
    page.goto(f"{served['prefect_ui']}/deployments")
    see(page, "distill", "compare")
    page.get_by_text("At 02:00 AM").first.wait_for(state="attached")  # in a narrow window it folds into "+2"
    keep(page, "deployments")
    page.get_by_placeholder("Search deployments").fill("stage")  # ten stand on a page
    page.get_by_text("stage", exact=True).first.wait_for()


def test_a_run_is_started_from_the_form(page, served, place: Path):
    open_form(page, served)
    see(page, "A shipped ladder, or the path of a YAML file.", "First stage that may be computed", "Seed of data order and first weights")
    page.get_by_role("button", name="Add item").click()
    box(page, "overrides").fill("stages.two.training.steps=60")
    box(page, "start_at").fill("two")
    keep(page, "form")
    run = submit(page, served, "from-the-form", place / "tiny.yaml")
    ended = wait_ended(served, run, "COMPLETED", "FAILED", "CRASHED")
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
    record = json.loads(next(path for path in place.glob("home/runs/*/record.json") if run in path.read_text()).read_text())
    assert record["overrides"] == ["stages.two.training.steps=60"]
    assert (record["start_at"], record["served"]) == ("two", True)
    assert [(stage["name"], stage["reused"]) for stage in record["stages"]] == [("one", True), ("two", False), ("three", False)]

    page.goto(f"{served['prefect_ui']}/runs/flow-run/{run}")
    see(page, record["run"], "ladder:tiny", "Completed", "teacher: found in the store")
    keep(page, "run")
    page.get_by_text("Artifacts", exact=True).click()
    see(page, "ladder-table", "ladder-report", "mlflow")
    page.get_by_text("Subflow Runs", exact=True).click()
    see(page, "one <- teacher", "two <- one", "three <- two")
    names = [name for name in re.findall(r"\w+ <- \w+", page.inner_text("body")) if name]
    assert [names.index(name) for name in ("three <- two", "two <- one", "one <- teacher")] == sorted(
        names.index(name) for name in ("one <- teacher", "two <- one", "three <- two")
    ), "in order, the newest first"

    table = ask(served, "POST", "/artifacts/filter", json={"artifacts": {"key": {"any_": ["ladder-table"]}}, "sort": "CREATED_DESC"})[0]
    page.goto(f"{served['prefect_ui']}/artifacts/artifact/{table['id']}")
    see(page, "three <- two", "reused")
    report = ask(served, "POST", "/artifacts/filter", json={"artifacts": {"key": {"any_": ["ladder-report"]}}, "sort": "CREATED_DESC"})[0]
    page.goto(f"{served['prefect_ui']}/artifacts/artifact/{report['id']}")
    page.locator("img[alt='quality against parameters']").wait_for()
    keep(page, "report-artifact")


def test_what_the_form_refuses_it_refuses_with_a_reason(page, served):
    open_form(page, served)
    box(page, "seed").fill("-7")
    page.get_by_role("button", name="Submit").click()
    see(page, "-7 is less than the minimum of -1")
    assert "/run" in page.url, "nothing was started"


def test_a_student_is_approved_in_the_form_of_its_paused_run(page, served, place: Path):
    open_form(page, served)
    run = submit(page, served, "asking", place / "asking.yaml")
    wait_ended(served, run, "PAUSED")
    page.goto(f"{served['prefect_ui']}/runs/flow-run/{run}")
    see(page, "Paused")
    page.get_by_role("button", name="Resume").click()
    see(page, "May three go on?", "gate.min_parent_retention asks at least 1.9", "it counts as")
    keep(page, "approval")
    dialog = page.locator("[role=dialog], .p-modal").last
    choose(page, dialog, "approve")
    dialog.locator(".p-label", has_text="By").locator("textarea, input").first.fill("Ann")
    dialog.get_by_role("button", name="Submit").click()
    wait_ended(served, run, "COMPLETED")
    record = json.loads(next(path for path in place.glob("home/runs/*/record.json") if run in path.read_text()).read_text())
    assert record["stages"][-1]["gate"] == "approved"
    assert "approved by Ann" in record["stages"][-1]["decision"]


def choose(page: Any, dialog: Any, value: str) -> None:
    """Pick from the list of the field `Choice`; a click on it may open the list or, as the click of its label, close it again."""
    option = page.locator(".p-select-option", has_text=value).first
    for _ in range(5):
        dialog.locator(".p-label", has_text="Choice").locator(".p-select-button__icon").first.click()
        page.wait_for_timeout(1000)
        if option.count():
            option.click()
            return
    pytest.fail("the list of choices does not open")


def test_mlflow_shows_the_tree(page, served, place: Path):
    record = json.loads(sorted(place.glob("home/runs/tiny-*/record.json"))[0].read_text())
    page.goto(f"{served['mlflow_ui']}/#/experiments/{record['mlflow_experiment_id']}/runs")
    see(page, record["run"])
    keep(page, "mlflow")
    page.goto(f"{served['mlflow_ui']}/#/experiments/{record['mlflow_experiment_id']}/runs/{record['stages'][0]['mlflow_run_id']}")
    see(page, "ladder.teacher_run_id", "retention/parent")

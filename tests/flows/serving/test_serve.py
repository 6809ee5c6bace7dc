"""`ladder serve` in real processes: start, use, schedules, restarts, end."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from conf.errors import UserError
from conf.loading.deployments import load_deployments
from tests.flows.driver import actions, healthy, newest_checkpoint, wait_for
from tests.flows.served import Start, offer
from tests.flows.serving.test_server_security import attack


@pytest.mark.slow
def test_it_comes_up_is_used_by_a_run_and_goes(done, tiny, start: Start):
    server = start(done)
    for name in ("prefect_ui", "mlflow_ui", "prefect_api"):
        assert server.where[name] in server.text
        assert urlsplit(server.where[name]).hostname == "127.0.0.1"
    assert "<title>Prefect" in httpx.get(server.where["prefect_ui"], trust_env=False, follow_redirects=True).text
    assert "<title>MLflow" in httpx.get(server.where["mlflow_ui"], trust_env=False, auth=server.auth).text
    attack(server)

    again = done("serve")
    assert "already runs" in again.out
    assert server.where["prefect_ui"] in again.out

    before = len(server.flow_runs())
    run = done("run", tiny)
    assert set(actions(run.err).values()) == {"reused"}
    assert f"{server.where['prefect_ui']}/runs/flow-run/" in run.out
    states = sorted(run["state"]["name"] for run in server.flow_runs().values())
    assert len(states) == before + 4
    assert states.count("Cached") == 3

    took = server.end()
    print(f"gone in {took:.1f} s")
    assert took < 15


@pytest.mark.slow
def test_runs_made_without_a_server_are_in_its_history_and_its_death_leaves_nothing(bare, tiny, start: Start):
    earlier = bare("run", tiny).err
    assert "embedded" in earlier
    server = start(bare)
    assert [run["state"]["name"] for run in server.flow_runs().values()] == ["Completed"] * 4
    bare("run", tiny)
    assert len(server.flow_runs()) == 8

    took = server.end(signal.SIGKILL)
    print(f"after kill -9 nothing is left in {took:.1f} s")
    assert took < 10
    assert "embedded" in bare("run", tiny).err, "serve.json of a dead server counts for nothing"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_schedule_fires_reuses_what_is_finished_and_stays_as_the_ui_has_left_it(done, tiny, tmp_path, start: Start):
    never = "{slug: never, cron: '0 0 1 1 *', active: false}"
    schedules = f"[{{slug: often, interval: 15s, parameters: {{ladder: '{tiny}', seed: 0}}}}, {never}]"
    roots = os.pathsep.join([str(tiny.parent), str(done.home)])
    server = start(done, "--deployments", offer(tmp_path, schedules), LADDER_ROOTS=roots)

    def finished() -> list[Any]:
        runs = server.flow_runs().values()
        return [run for run in runs if run["auto_scheduled"] and run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED")]

    began = time.monotonic()
    wait_for(lambda: len(finished()) >= 2, "two scheduled runs", 180)
    print(f"two scheduled runs after {time.monotonic() - began:.1f} s")
    assert {run["state"]["name"] for run in finished()} == {"Completed"}, server.text
    cached = [run for run in server.flow_runs().values() if run["state"]["name"] == "Cached"]
    assert len(cached) >= 6, "both runs reused all three stages"

    known = {schedule["slug"]: schedule for schedule in server.deployment("distill/distill")["schedules"]}
    assert {slug: schedule["active"] for slug, schedule in known.items()} == {"often": True, "never": False}
    place = f"/deployments/{server.deployment('distill/distill')['id']}/schedules"
    server.ask("PATCH", f"{place}/{known['often']['id']}", json={"active": False})
    server.ask("POST", place, json=[{"schedule": {"interval": 3600}, "active": False, "slug": "mine"}])
    server.end()

    server = start(done, "--deployments", offer(tmp_path, schedules), LADDER_ROOTS=roots)
    active = {schedule["slug"]: schedule["active"] for schedule in server.deployment("distill/distill")["schedules"]}
    assert active == {"often": False, "never": False, "mine": False}
    server.end()

    changed = schedules.replace("15s", "1d").replace(f", {never}", "")
    server = start(done, "--deployments", offer(tmp_path, changed), LADDER_ROOTS=roots)
    active = {schedule["slug"]: schedule["active"] for schedule in server.deployment("distill/distill")["schedules"]}
    assert active == {"often": True, "mine": False}, "the file's entry has changed, and one is gone"


@pytest.mark.slow
def test_what_dies_is_started_again_and_a_run_under_way_ends_with_a_checkpoint(done, tiny, start: Start):
    server = start(done, LADDER_ROOTS=str(tiny.parent))
    api, pages = server.where["prefect_api"], server.where["mlflow_ui"]
    serve = psutil.Process(server.process.pid)
    for child in serve.children():
        name, died = " ".join(child.cmdline()[1:5]), time.monotonic()
        child.kill()
        wait_for(lambda dead=child: len(serve.children()) == 3 and dead not in serve.children(), f"{name} to be restarted", 30)
        wait_for(lambda: healthy(api) and healthy(pages), "both servers", 120)
        print(f"{name}: back after {time.monotonic() - died:.1f} s")
    assert server.text.count("it is restarted") == 3

    run = server.start_run("distill/distill", ladder=str(tiny), overrides=["teacher.training.steps=20000"])
    wait_for(lambda: newest_checkpoint(done.home), "a checkpoint of the run", 180)
    server.children = serve.children(recursive=True)
    env = next(process.environ() for process in server.children if "prefect.engine" in process.cmdline())
    assert (env["PREFECT_API_URL"], env["LADDER_HOME"], env["LADDER_ROOTS"]) == (api, str(done.home), str(tiny.parent))
    assert (env["PREFECT_RESULTS_DEFAULT_SERIALIZER"], env["PREFECT_LOGGING_EXTRA_LOGGERS"]) == ("json", "ladder")
    assert (env["DO_NOT_TRACK"], env["PREFECT_SERVER_ANALYTICS_ENABLED"].lower()) == ("true", "false")
    took = server.end()
    print(f"gone in {took:.1f} s, with a training under way")
    assert took < 20
    shown = done.json("show")
    assert (shown["status"], shown["prefect_run_id"]) == ("interrupted", run)
    results = [path for path in (done.home / "prefect" / "storage").rglob("*") if path.is_file()]
    assert all(json.loads(path.read_text())["metadata"]["serializer"]["type"] == "json" for path in results), "a pickle"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limit: none\ndeployments: []", "limit: got 'none'; allowed: a whole number in [1, 256]"),
        (
            "deployments: [{name: a, flow: distil}]",
            "deployments[0].flow: got 'distil'; allowed: distill, stage, search, prove, report, compare, export, monitor, redistill or "
            "promote. "
            "Did you mean 'distill'?",
        ),
    ],
)
def test_a_wrong_file_of_deployments_starts_nothing(bare, tmp_path, text, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    refused = bare("serve", "--deployments", path, code=2)
    assert message in refused.err
    assert not bare.home.exists()


@pytest.mark.parametrize(
    ("schedules", "message"),
    [
        ("[{slug: x, cron: '61 * * * *'}]", "deployments[0].schedules[0].cron: got '61 * * * *'; allowed: a cron expression"),
        ("[{slug: x, rrule: 'FREQ=OFTEN'}]", "deployments[0].schedules[0].rrule: got 'FREQ=OFTEN'; allowed: a rule of RFC 5545"),
        ("[{slug: x, rrule: 'FREQ=DAILY;UNTIL=20200101'}]", "rrule: got 'FREQ=DAILY;UNTIL=20200101'; allowed: a rule of RFC 5545"),
        ("[{slug: x, rrule: 'FREQ=DAILY;UNTIL=29990101T000000Z'}]", "It never starts a run: RRULE UNTIL values must be"),
        ("[{slug: x, interval: 1h, parameters: {sed: 1}}]", "deployments[0].schedules[0].parameters.sed: unknown key, with the value 1;"),
        ("[{slug: x, interval: 1h, parameters: {seed: many}}]", "deployments[0].schedules[0].parameters.seed: got 'many'; "),
    ],
)
def test_what_only_prefect_and_the_flow_know_is_checked(tmp_path, schedules, message):
    from flows.serving.deployments import check

    with pytest.raises(UserError) as refused:
        check(load_deployments(offer(tmp_path, schedules)))
    assert message in str(refused.value)
    check(load_deployments())


@pytest.mark.slow
def test_and_is_checked_before_anything_is_registered(bare, tmp_path):
    refused = bare("serve", "--deployments", offer(tmp_path, "[{slug: x, cron: '61 * * * *'}]"), code=2)
    assert "error: deployments[0].schedules[0].cron: got '61 * * * *'" in refused.err
    assert not (bare.home / "serve.json").exists()
    assert not (bare.home / "schedules.json").exists()
    print(f"refused in {refused.seconds:.1f} s")

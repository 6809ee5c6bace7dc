"""Private names of Prefect that this project builds on, with the version read.

A test compares each with the Prefect that is installed: where the source of one has changed, read it again, try its uses, and
note the version and the new digest here.
"""

from __future__ import annotations

from dataclasses import dataclass

READ_IN = "3.8.8"


@dataclass(frozen=True)
class PrivateName:
    """A name that Prefect may change without notice.

    Attributes:
        name: As our source spells it.
        read_at: `module:qualified.name` of the function or class that defines or sets it.
        digest: First 12 hex digits of the SHA-256 of its source in `READ_IN`.
        used_in: Our file.
        purpose: Use that we make of it.
    """

    name: str
    read_at: str
    digest: str
    used_in: str
    purpose: str


EMBEDDED, RUNNER, SQLITE = "flows/serving/embedded/server.py", "flows/serving/flow_runner.py", "flows/serving/guard/sqlite_transactions.py"
WATCHDOG, CLIENT, DEPLOYMENTS = "flows/serving/guard/parent_watchdog.py", "tasks/runtime/prefect_client.py", "flows/serving/deployments.py"
SERVER, SCHEDULES = "prefect.server.api.server", "prefect.server.schemas.schedules"
ARROWS, APPROVAL, ENGINE = "flows/adapter/arrows.py", "flows/approval.py", "prefect.utilities.engine"
STARTER = "prefect.runner._starter_engine:EngineCommandStarter"

PRIVATE_NAMES = (
    PrivateName(
        "get_intent",
        "prefect._internal.control_listener:get_intent",
        "dcb3cf75896d",
        "flows/adapter/steps.py",
        "whether a worker reschedules the run that it ends",
    ),
    PrivateName(
        "_prefect_sigterm_handler",
        "prefect.utilities.engine:capture_sigterm",
        "6d08563e05e9",
        "flows/adapter/steps.py",
        "SIGTERM ends a run as Interrupted, not as Crashed",
    ),
    PrivateName("prefect.server.api.server:create_app", f"{SERVER}:create_app", "0f896a78bc06", WATCHDOG, "the server's application"),
    PrivateName("PREFECT__SERVER_EPHEMERAL", f"{SERVER}:create_app", "0f896a78bc06", EMBEDDED, "a server without services"),
    PrivateName("PREFECT__SERVER_FINAL", f"{SERVER}:create_app", "0f896a78bc06", EMBEDDED, "settings of the server are not changed again"),
    PrivateName(
        "PREFECT__SERVER_FINAL", f"{SERVER}:create_app", "0f896a78bc06", "flows/serving/server_processes.py", "as for the embedded server"
    ),
    PrivateName(
        "AioSqliteConfiguration",
        "prefect.server.database.configurations:AioSqliteConfiguration.begin_transaction",
        "c9ea33bf1b49",
        SQLITE,
        "transactions take their lock when they begin",
    ),
    PrivateName("GLOBAL_SETTINGS_CONTEXT", "prefect.context:SettingsContext.get", "ba9b7dddc53a", CLIENT, "retries end in all threads"),
    PrivateName(
        "_scheduled_run_poller", "prefect.runner.runner:Runner.__aenter__", "ab827b42fcc3", RUNNER, "starters of flow runs are replaced"
    ),
    PrivateName("_resolve_starter", "prefect.runner._scheduled_run_poller:ScheduledRunPoller", "f4daddf7a2bd", RUNNER, "as above"),
    PrivateName("ProcessStarter", "prefect.runner._flow_run_executor:ProcessStarter", "4c1ba91c9edf", RUNNER, "type of a starter"),
    PrivateName("EngineCommandStarter", STARTER, "a30a1221af59", RUNNER, "flow runs print into a file, not into a pipe"),
    PrivateName("ProcessHandle", "prefect.runner._process_manager:ProcessHandle", "ee5a7fc1a23a", RUNNER, "process of a flow run"),
    PrivateName("_control_channel", "prefect.runner.runner:Runner.__init__", "95409c17d59d", RUNNER, "a cancelled run hears why"),
    PrivateName(
        "_deployment_registry", "prefect.runner.runner:Runner.__aenter__", "ab827b42fcc3", RUNNER, "hooks are those of our flow, in code"
    ),
    PrivateName(
        "register_flow",
        "prefect.runner._deployment_registry:DeploymentRegistry.register_flow",
        "c85dd08376a7",
        RUNNER,
        "as above",
    ),
    PrivateName(
        "PREFECT__FLOW_ENTRYPOINT",
        "prefect.flow_engine:load_flow",
        "00bed3c026d6",
        RUNNER,
        "the runner alone names the code",
    ),
    PrivateName(
        "_get_and_submit_flow_runs",
        "prefect.runner.runner:Runner._get_and_submit_flow_runs",
        "8b507ece739a",
        RUNNER,
        "polls outlast an outage",
    ),
    PrivateName("_cancel_run", "prefect.runner.runner:Runner._cancel_run", "de3467e290cc", RUNNER, "all flow runs end at the same time"),
    PrivateName("_process_manager", "prefect.runner.runner:Runner.__aenter__", "ab827b42fcc3", RUNNER, "processes of the flow runs"),
    PrivateName("flow_run_ids", "prefect.runner._process_manager:ProcessManager.flow_run_ids", "bd638fb4987a", RUNNER, "as above"),
    PrivateName("graceful_kill", "prefect.runner._process_manager:ProcessHandle.graceful_kill", "5156a2b16419", RUNNER, "as above"),
    PrivateName(
        "stopping",
        "prefect.runner.runner:Runner._get_and_submit_flow_runs",
        "8b507ece739a",
        RUNNER,
        "no flow run is started during the end",
    ),
    PrivateName(
        "__pydantic_fields_set__",
        "prefect.deployments.runner:RunnerDeployment._update",
        "e6c104f69594",
        DEPLOYMENTS,
        "schedules made by a person stay",
    ),
    PrivateName("CronSchedule", f"{SCHEDULES}:CronSchedule", "07ac566d1651", DEPLOYMENTS, "whether a schedule ever starts a run"),
    PrivateName("_limiter", "prefect.runner.runner:Runner._limiter", "cdf86eb99e99", RUNNER, "runs that wait for a person hold no place"),
    PrivateName("flow_runs.Paused", "prefect.flow_runs:pause_flow_run", "fac79522109f", APPROVAL, "a paused run says what it asks"),
    PrivateName("link_state_to_result", f"{ENGINE}:link_state_to_result", "81a758e5fb57", ARROWS, "arrows between stages"),
    PrivateName("run_results", f"{ENGINE}:get_state_for_result", "a0f0410c3c65", ARROWS, "no arrows but ours"),
    PrivateName("RRuleSchedule", f"{SCHEDULES}:RRuleSchedule", "aad3fe9f1a3d", DEPLOYMENTS, "as above"),
)

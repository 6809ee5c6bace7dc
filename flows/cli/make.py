"""`ladder run`, `rerun` and `plan`: compute a ladder, or estimate that."""

from __future__ import annotations

from flows.cli.arguments import Budget, By, Fresh, Json, LadderName, Name, Note, Overrides, RunName, Seed, StartAt
from flows.cli.printing import begin, show


def run(
    ladder: LadderName,
    overrides: Overrides = None,
    start_at: StartAt = None,
    fresh: Fresh = False,
    seed: Seed = None,
    budget: Budget = None,
    name: Name = None,
    note: Note = None,
    by: By = None,
) -> None:
    """Distil a ladder: reuse finished stages, resume interrupted ones, compute the rest."""
    from flows.cli.launch import launch
    from tasks.lifecycle.request import RunRequest, naming

    named = naming(name, note, by)
    launch(RunRequest(ladder, tuple(overrides or ()), start_at, fresh, seed, budget or None, **named))


def rerun(
    run: RunName,
    overrides: Overrides = None,
    start_at: StartAt = None,
    fresh: Fresh = False,
    seed: Seed = None,
    name: Name = None,
    note: Note = None,
    by: By = None,
) -> None:
    """Repeat an earlier run with its settings and these; compute only the models that they change."""
    from flows.cli.launch import relaunch
    from tasks.lifecycle.request import naming

    relaunch(run, overrides or [], start_at, fresh, seed, naming(name, note, by))


def plan(ladder: LadderName, overrides: Overrides = None, start_at: StartAt = None, fresh: Fresh = False, as_json: Json = False) -> None:
    """Show the actions and the cost of a run, without doing it."""
    from conf.home import home, protect
    from conf.loading.load import load
    from flows.serving.environment import go_offline

    loaded = load(ladder, overrides or [])
    protect(home())
    go_offline()  # a plan fetches nothing; the libraries read this when they are imported
    begin(f"planning {loaded.ladder.name}; loading PyTorch")
    from flows.cli.show.plan import plan_text
    from tasks.planning.plan import make_plan

    made = make_plan(loaded.ladder, loaded.base, home(), start_at, fresh)
    show(made.model_dump(mode="json"), as_json, lambda: plan_text(made))

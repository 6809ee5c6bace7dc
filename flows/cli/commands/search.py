"""`ladder search`: better settings of a ladder's stages, by trials."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.arguments import By, LadderName, Name, Note, Overrides, Seed, complete_stage

Stage = Annotated[
    str | None, typer.Option("--stage", metavar="NAME", help="Search this stage alone; none: all stages.", autocompletion=complete_stage)
]
Trials = Annotated[
    int | None, typer.Option("--trials", metavar="N", help="Trials of the study in all; none: 20, or what the budget allows.")
]
Budget = Annotated[str | None, typer.Option("--budget", metavar="TIME", help="Time for trials and confirmation: 30m, 2h.")]
Metric = Annotated[str | None, typer.Option("--metric", metavar="NAME", help="Figure by which trials are judged; none: the workload's.")]
Against = Annotated[
    str | None, typer.Option("--against", metavar="NAME", help="A second objective, for a Pareto front: parameters or latency.")
]
Study = Annotated[
    str | None, typer.Option("--study", metavar="NAME", help="Study to begin or continue; none: the ladder's, and the stage's.")
]


def search(
    ladder: LadderName,
    overrides: Overrides = None,
    stage: Stage = None,
    trials: Trials = None,
    budget: Budget = None,
    metric: Metric = None,
    against: Against = None,
    study: Study = None,
    seed: Seed = None,
    name: Name = None,
    note: Note = None,
    by: By = None,
) -> None:
    """Search better settings by trials; the winner is confirmed on fresh seeds and the test split."""
    from conf.loading.yaml_output import in_one_line
    from flows.cli.launch import launch
    from tasks.lifecycle.request import RunRequest, naming

    options = {"stage": stage, "trials": trials, "budget": budget, "metric": metric, "against": against, "study": study}
    given = [f"search.{key}={in_one_line(value)}" for key, value in options.items() if value is not None]
    launch(RunRequest(ladder, (*(overrides or ()), *given), seed=seed, search=True, **naming(name, note, by)))

"""Text of `ladder plan`."""

from __future__ import annotations

from tasks.planning.costs.prices import PlanCosts
from tasks.planning.plan import LadderPlan, ModelPlan
from tasks.records.format import byte_size, estimate, human, money, operations
from tasks.report.terminal import WIDE, table_of, text_of

COLUMNS = ("model", "params", "non-emb", "ratio", "tokens", "FLOPs", "time", "memory", "will be")


def plan_text(plan: LadderPlan) -> str:
    """The plan as a table and, below it, why anything is computed again."""
    models = (plan.teacher, *plan.stages)
    table = table_of(COLUMNS, [_row(model) for model in models], left=("will be",))
    lines = [f"{model.name}: {'; '.join(model.changes)}" for model in models if model.changes]
    changed = ["", "Computed again because:", *lines] if lines else []
    whole = sum(model.flops for model in models), sum(model.seconds for model in models)
    total = (
        f"To compute: {operations(plan.flops)} of {operations(whole[0])}, about {estimate(plan.seconds)} of {estimate(whole[1])} "
        f"of training at {plan.basis}."
    )
    price = costs_text(plan.costs, plan.teacher.name, plan.costs.flops >= whole[0])
    data = {"prepare": "will be prepared", "reuse": "reused", "missing": "missing"}[plan.data]
    notes = [f"note: {note}" for note in plan.notes]
    return text_of(f"{plan.ladder}: data {data}", table, *changed, "", total, price, *notes, width=WIDE, soft_wrap=True)


def costs_text(costs: PlanCosts, root: str, with_root: bool) -> str:
    """The price of a plan, beside that of one jump; `with_root`: the root's own training is in both, or costs nothing."""
    ladder = "The whole ladder" if with_root else f"Its stages without the training of {root}, which both need"
    text = (
        f"Price at {money(costs.price_per_hour, costs.currency)} an hour: {money(costs.to_compute, costs.currency)} for this run. "
        f"{ladder}: {operations(costs.flops)}, about {estimate(costs.seconds)}, {money(costs.price, costs.currency)}"
    )
    jump = costs.jump
    if jump is None:
        return f"{text}."
    price = money(jump.price, costs.currency)
    return f"{text}; one jump {root} -> {jump.student} with as many FLOPs: {jump.steps:,} steps, about {estimate(jump.seconds)}, {price}."


def _row(model: ModelPlan) -> list[str]:
    action = (
        f"resumed at {model.resume_step}"
        if model.action == "resume"
        else {"compute": "computed", "reuse": "reused"}.get(model.action, "imported")
    )
    if model.members > 1 and model.action != "reuse":
        action = f"computed, {model.stored} of {model.members} stored"
    return [
        model.name + (f" ({model.members} members)" if model.members > 1 else ""),
        human(model.parameters) if model.parameters else "?",
        human(model.non_embedding) if model.non_embedding is not None else "?",
        f"{model.ratio:.2f}" if model.ratio else "",
        human(model.tokens) if model.tokens else "",
        operations(model.flops) if model.flops else "",
        estimate(model.seconds) if model.seconds else "",
        byte_size(model.memory_bytes) if model.memory_bytes else "",
        action,
    ]

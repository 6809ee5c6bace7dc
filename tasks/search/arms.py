"""Equal search for every arm of a proof: settings that change no arm's FLOPs."""

from __future__ import annotations

from conf.errors import UserError
from conf.schema.choice.search import METRICS, flattened
from conf.schema.ladder import Ladder
from tasks.search.plan import SearchPlan, plan_search
from tasks.search.space import default_space
from tasks.store.fingerprint import fingerprint

APART = 7919  # added to the seeds of an arm's search: none of the proof's, which are at most 1,000
# Parts of stages whose values leave a training's FLOPs as they are.
FREE = {
    "objective": (
        "kind",
        "alpha",
        "temperature",
        "beta",
        "skew",
        "target_weight",
        "other_weight",
        "standardize",
        "wrong_teacher",
        "margin",
    ),
    "training": ("learning_rate", "schedule", "warmup", "decay", "final_ratio", "weight_decay", "beta1", "beta2", "clip"),
}


def require_equal_flops(ladder: Ladder) -> None:
    """Refuse a space with settings that change what an arm costs, since arms are compared at equal FLOPs.

    Raises:
        UserError: It has one.
    """
    for key in flattened(ladder.search.space):
        top, _, rest = _inner(key).partition(".")
        if rest.partition(".")[0] not in FREE.get(top, ()):
            names = "; ".join(f"{part}: {', '.join(keys)}" for part, keys in FREE.items())
            raise UserError.about(
                "search.space", key, f"in a proof, settings that change no FLOPs ({names})", "Leave it out, or proof.search."
            )


def arm_plan(arm: str, ladder: Ladder, trials: int) -> SearchPlan:
    """The search of an arm: all its stages, judged by the last on the validation split, with seeds that the proof does not use.

    Args:
        arm: Its name.
        ladder: As rewritten.
        trials: As many as of every other arm.
    """
    names = [stage.name for stage in ladder.stages]
    space = flattened(ladder.search.space) or default_space(ladder, ladder.stages)
    taught = any(stage.teachers != ("none",) for stage in ladder.stages)
    kept = {
        key: given
        for key, given in space.items()
        if (taught or not _inner(key).startswith("objective.")) and (not key.startswith("stages.") or key.split(".")[1] in names)
    }
    stages = tuple(stage.model_copy(update={"seed": (ladder.stage_seed(stage) + APART) % 2**31}) for stage in ladder.stages)
    own = {"space": kept, "stage": None, "metric": METRICS[ladder.workload][0], "against": "none", "trials": trials, "budget": None}
    settings = ladder.search.model_copy(update={**own, "seeds": 0, "max_parameters": None, "study": f"{ladder.name}-{arm}"})
    plan = plan_search(ladder.model_copy(update={"stages": stages, "search": settings}))
    study = f"{ladder.name[:24]}-{arm}-{fingerprint(plan.identity)[:12]}"
    return plan_search(plan.ladder.model_copy(update={"search": settings.model_copy(update={"study": study})}))


def _inner(key: str) -> str:
    """A key of the space without the stage that it names."""
    return key.split(".", 2)[2] if key.startswith("stages.") and key.count(".") > 1 else key

"""Routes are rewritings of a ladder with the FLOPs that the cost model counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import pytest

from conf.errors import UserError
from conf.loading.load import load
from conf.schema.ladder import Ladder
from conf.schema.route import Route
from models.architectures.shapes import size_of
from models.base.interface import Interface
from tasks.planning.matching import flops_of, lasting, total_of, with_stages
from tasks.planning.routes import AGAIN, MEMBERS, PASSES, ROUTINGS, refusal, replicate_seed, routed, routes_for
from tasks.training.costs.cost_model import Forward
from tasks.training.costs.examples import TrainingExamples
from tasks.training.identity import numeric_settings, teachers_of

PARAMETERS = (1_000_000_000, 300_000_000, 100_000_000, 30_000_000)


def stage(name: str, **changes: Any) -> dict[str, Any]:
    shape = {"hidden_size": 8, "layers": 1, "heads": 2, "feed_forward": 16}
    return {"name": name, "student": {"shape": shape}, "training": {"steps": 1000, "batch_size": 1}, **changes}


def ladder_of(*stages: dict[str, Any], **changes: Any) -> Ladder:
    teacher = {"source": "train", "shape": {"hidden_size": 8, "layers": 2, "heads": 2, "feed_forward": 16}, "training": {"steps": 3}}
    plain = {"name": "tiny", "data": {"source": "python-stdlib"}, "tokenizer": {"kind": "bytes"}, "teacher": teacher, "stages": stages}
    return Ladder.model_validate(plain | changes)


CHAIN = ladder_of(*(stage(name, objective={"alpha": 1.0}) for name in ("300m", "100m", "30m")))


def flops_a_token(ladder: Ladder) -> float:
    """By the cost model, 2N for a forward pass, every example a token that is read once."""
    forwards = [Forward(2 * n, 2 * n) for n in PARAMETERS]
    used = [forwards[0], *forwards[-len(ladder.stages) :]]
    return total_of(flops_of(ladder, used, TrainingExamples(1000))) / 1000


def test_the_roots_one_cache_takes_15_percent_less_than_the_chain_of_live_parents() -> None:
    chain, cached = flops_a_token(CHAIN), flops_a_token(routed("root-cached", CHAIN))
    assert chain == 5.38e9
    assert cached == 4.58e9
    assert 1 - cached / chain == pytest.approx(0.149, abs=0.001)
    live = with_stages(CHAIN, *(each.model_copy(update={"teachers": ("root",)}) for each in CHAIN.stages))
    assert flops_a_token(live) == 8.58e9
    assert flops_a_token(routed("direct", CHAIN)) == 2.18e9


def test_direct_cached_asks_the_root_for_a_quarter_of_the_text_that_it_reads() -> None:
    made, jump = routed("direct-cached", CHAIN), routed("direct", CHAIN)
    assert flops_a_token(made) == 2e9 / PASSES + 0.18e9 == 0.68e9
    [student], [old] = made.stages, jump.stages
    passes = old.training.model_copy(update={"passes": PASSES})
    assert student == old.model_copy(update={"signals": student.signals, "training": passes})
    assert student.signals.source == "cached"
    assert student.training.pool == 1000 / PASSES
    more = ladder_of(stage("a", training={"steps": 1000, "passes": 2 * PASSES}))
    assert routed("direct-cached", more).stages[0].training.passes == 2 * PASSES, "as often as written, where that is more"


def test_root_cached_changes_nothing_but_who_teaches_and_from_where() -> None:
    made = routed("root-cached", CHAIN)
    for old, new in zip(CHAIN.stages, made.stages, strict=True):
        assert new == old.model_copy(update={"teachers": ("root",), "signals": new.signals})
        assert teachers_of(new, ["root", "a", "b"]) == ("root",)
        assert new.signals.source == "cached"
    assert len({str(each.signals) for each in made.stages}) == 1, "one cache"


@pytest.mark.parametrize(("objective", "kind"), [({}, "sampled"), ({"temperature": 2.0}, "full"), ({"kind": "reverse-kl"}, "full")])
def test_the_cache_holds_what_every_objective_of_the_ladder_can_use(objective: dict[str, Any], kind: str) -> None:
    made = routed("root-cached", ladder_of(stage("a"), stage("b", objective=objective)))
    assert {each.signals.kind for each in made.stages} == {kind}
    info: Any = SimpleNamespace(vocabulary=50_000, label_names=())
    if objective == {"temperature": 2.0}:  # a large vocabulary is not stored in full
        assert {
            each.signals.kind for each in routed("root-cached", ladder_of(stage("a"), stage("b", objective=objective)), info).stages
        } == {"top-k"}


def test_self_adds_the_last_student_again_with_other_first_weights_and_order() -> None:
    made = routed("self", CHAIN)
    *above, again = made.stages
    assert tuple(above) == CHAIN.stages
    last = CHAIN.stages[-1]
    assert again.name == last.name + AGAIN
    assert made.stage_seed(again) != made.stage_seed(last)
    plain = {key: value for key, value in numeric_settings(again).items() if key != "seed"}
    assert plain == {key: value for key, value in numeric_settings(last).items() if key != "seed"}
    assert teachers_of(again, ["root", "300m", "100m", "30m"]) == ("30m",)
    assert routed("self", CHAIN) == made
    assert replicate_seed(made) == replicate_seed(CHAIN) == CHAIN.seed, "replicates of arms are paired"
    copied = ladder_of(stage("a", student=CHAIN.stages[0].student.model_dump() | {"initialisation": "layers"}))
    assert routed("self", copied).stages[-1].student.initialisation == "random", "else it would begin as its own teacher"


def test_a_curriculum_changes_the_last_student_alone_which_every_model_above_teaches_in_turn() -> None:
    made = routed("curriculum", CHAIN)
    assert made.stages[:-1] == CHAIN.stages[:-1]
    assert made.stages[-1] == CHAIN.stages[-1].model_copy(update={"teachers": ("rising",)})
    shared = sum(2 * n for n in PARAMETERS[:-1]) / 3
    assert flops_a_token(made) == pytest.approx(flops_a_token(CHAIN) - 2 * PARAMETERS[-2] + shared, rel=1e-3), "1,000 steps, by thirds"


def test_a_curriculum_of_kept_checkpoints_needs_no_assistant_and_costs_as_much_as_a_jump() -> None:
    kept = ladder_of(
        *(each.model_dump() for each in CHAIN.stages), teacher={**CHAIN.teacher.model_dump(exclude={"keep"}), "keep": [0.1, 0.4]}
    )
    made = routed("curriculum", kept)
    assert [stage.teachers for stage in made.stages] == [("checkpoints",)]
    assert flops_a_token(made) == flops_a_token(routed("direct", kept))


def test_an_ensemble_is_the_last_assistant_three_times() -> None:
    made = routed("ensemble", CHAIN)
    assert [stage.members for stage in made.stages] == [1, MEMBERS, 1]
    more = (MEMBERS - 1) * (6 * PARAMETERS[2] + 2 * PARAMETERS[1]) + (MEMBERS - 1) * 2 * PARAMETERS[2]
    assert flops_a_token(made) == flops_a_token(CHAIN) + more
    cached = ladder_of(stage("a"), stage("b", signals={"source": "cached"}))
    assert routed("ensemble", cached).stages[-1].signals.kind == "full", "the mean of probabilities needs them all"
    info: Any = SimpleNamespace(vocabulary=50_000, label_names=())
    assert routed("ensemble", cached, info).stages[-1].signals.source == "live"


@pytest.mark.parametrize("name", ["digits", "python-stdlib"])
def test_a_routed_ladder_loads_and_is_as_written(name: str) -> None:
    ladder = load(name).ladder
    assert set(routes_for(ladder)) == set(ROUTINGS)
    assert routed("as-written", ladder) == ladder.model_copy(update={"route": "as-written"})
    for route in routes_for(ladder):
        made = routed(route, ladder.model_copy(update={"route": route}))
        assert made.route == "as-written"
        assert Ladder.model_validate(made.model_dump()) == made


@pytest.mark.parametrize(
    ("route", "ladder", "says"),
    [
        ("direct", ladder_of(stage("a")), "tiny has one stage"),
        ("root-cached", ladder_of(stage("a", teachers="none")), "no stage of tiny has a teacher"),
        ("root-cached", ladder_of(stage("a", objective={"features": [{"kind": "hidden"}]})), "no feature with cached signals"),
        ("direct-cached", ladder_of(stage("a", teachers="none")), "a learns from labels alone"),
        ("direct-cached", ladder_of(stage("a", objective={"features": [{"kind": "hidden"}]})), "no feature with cached signals"),
        ("direct-cached", routed("direct-cached", CHAIN), "30m reads stored answers 4 times already"),
        ("best-of-rungs", ladder_of(stage("a")), "the root alone"),
        ("self", ladder_of(stage("a"), stage("b", teachers="none")), "b learns from labels alone"),
        ("self", ladder_of(stage("a-again"), stage("a")), "a name that no other stage has"),
        ("curriculum", ladder_of(stage("a")), "tiny has one stage and one teacher"),
        ("curriculum", ladder_of(stage("a"), stage("b", teachers="rising")), "b has teachers rising already"),
        ("curriculum", ladder_of(stage("a"), stage("b", objective={"features": [{"kind": "hidden"}]})), "no feature with several teachers"),
        ("ensemble", ladder_of(stage("a")), "tiny has no student that teaches"),
        ("ensemble", ladder_of(stage("a", members=2), stage("b")), "a has 2 members already"),
        ("ensemble", ladder_of(stage("a"), stage("b", objective={"features": [{"kind": "hidden"}]})), "below a stage with members"),
        ("ensemble", ladder_of(stage("a", gate={"policy": "extend"}), stage("b")), "who train equally long"),
        ("auto", CHAIN, "as-written, direct, direct-cached, root-cached"),
    ],
)
def test_a_route_that_cannot_be_is_refused_with_its_reason(route: Route, ladder: Ladder, says: str) -> None:
    with pytest.raises(UserError, match=rf"^route: got '{route}'; allowed: .*{says}.*\. \w"):
        routed(route, ladder)
    assert says in (refusal(route, ladder) or "")
    assert route not in routes_for(ladder)


def test_a_route_is_no_part_of_an_identity() -> None:
    for route in get_args(Route):
        assert numeric_settings(CHAIN.model_copy(update={"route": route})) == numeric_settings(CHAIN)


def test_a_real_ladders_stages_cost_less_from_one_cache() -> None:
    ladder, interface = load("python-stdlib").ladder, Interface("causal-lm", 192, vocabulary=258, end_id=256, pad_id=257)
    shapes = [ladder.teacher.shape, *(each.student.shape for each in ladder.stages)]
    forwards = [Forward.of(size_of(shape, interface)) for shape in shapes if shape is not None]
    whole = with_stages(ladder, *(lasting(each, 100) for each in ladder.stages))
    examples = TrainingExamples(100 * 32)
    assert total_of(flops_of(routed("root-cached", whole), forwards, examples)) < total_of(flops_of(whole, forwards, examples))

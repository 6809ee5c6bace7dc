"""The arms of a proof are rewritings of a ladder, matched in what they are said to be matched in."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from conf.errors import UserError
from conf.loading.load import load
from conf.schema.ladder import Ladder
from conf.schema.measures.proof import ARMS, ROUTE_ARMS, Arm
from conf.schema.stage.objective import Objective
from conf.schema.stage.signals import Signals
from conf.schema.stage.student import Shape
from conf.schema.stage.training import Training
from models.architectures.shapes import config_for, size_of
from models.base.interface import Interface
from models.data.batches import Batch
from models.losses.schedules import kept_teachers
from models.signals.sources import live
from models.students.initialise import random_model
from models.training.loop import Plan, train
from tasks.planning.matching import flops_of, lasting, total_of, with_stages
from tasks.planning.routes import routed
from tasks.proof.arms import REWRITINGS, ForwardFlops, arm_flops, auto_arm, refuse, replicate, rewritten, shared_settings
from tasks.proof.prepare_arms import Arms, refuse_unfit
from tasks.runtime.runs.run_registry import PLAN, Context
from tasks.store.fingerprint import fingerprint
from tasks.training.costs.cost_model import Forward
from tasks.training.costs.examples import TrainingExamples
from tasks.training.identity import stage_identity, teachers_of, untaught

ROOT, STUDENTS, LAST = Forward(1000, 1000), (Forward(500, 500), Forward(200, 200), Forward(60, 60)), Forward(60, 60)
FORWARDS = ForwardFlops(root=ROOT, students=STUDENTS, direct=LAST, scratch=LAST, examples=TrainingExamples(1400))
INFO = SimpleNamespace(workload="image-classification", documents={"train": 1400})


def digits(*overrides: str) -> Ladder:
    return shared_settings(load("digits", overrides).ladder, INFO)


def total(arm: Arm, ladder: Ladder) -> float:
    return total_of(arm_flops(arm, ladder, FORWARDS))


LAYERED = ("stages.eighth.student.shape=${stages[1].student.shape}", "stages.eighth.student.initialisation=layers")


def identities(ladder: Ladder) -> list[str]:
    """Fingerprints of the stages, as far as they hang on the ladder alone."""
    lineage, found = ["root"], []
    for stage in ladder.stages:
        identity = stage_identity(ladder, stage, "fp32", "data", teachers_of(stage, lineage), lineage[-1])
        found.append(fingerprint(identity))
        lineage.append(found[-1])
    return found


def test_arms_of_a_ladder_whose_route_pilots_choose_start_from_its_stages_as_written() -> None:
    chosen, written = digits("route=auto"), digits()
    for arm in ("staged", "direct-matched", "scratch", "root-cached"):
        assert rewritten(arm, chosen, FORWARDS, [3, 4, 5]) == rewritten(arm, written, FORWARDS, [3, 4, 5])
    assert rewritten("auto", chosen, FORWARDS).route == "auto"


def test_auto_is_refused_where_a_named_route_is_impossible() -> None:
    with pytest.raises(UserError, match=r"^proof.arms: got 'auto'; allowed: an arm whose routing.routes are possible; route: got 'self'"):
        refuse("auto", digits("routing.routes=[as-written,self]", "stages.eighth.teachers=none"))


def test_an_untaught_student_depends_on_no_teacher_and_differs_in_nothing_but_what_teaches() -> None:
    ladder = load("digits").ladder
    for stage in ladder.stages:
        alone = untaught(stage)
        assert (alone.student, alone.training, alone.seed, alone.gate) == (stage.student, stage.training, stage.seed, stage.gate)
        assert alone.objective.alpha.start == 0
        assert teachers_of(alone, ["root", "parent"]) == ()
        first, second = (stage_identity(ladder, alone, "fp32", "data", (), parent) for parent in ("a", "b"))
        assert (first == second) == (stage.student.initialisation == "random")  # borrowed first weights are the parent's


def test_the_first_replicate_of_staged_is_what_a_run_computes_and_the_others_are_not() -> None:
    ladder = load("digits", ["stages.half.seed=7", "stages.eighth.gate={min_parent_retention: 0.9, policy: extend}"]).ladder
    staged = rewritten("staged", shared_settings(ladder, INFO), FORWARDS)
    assert identities(replicate(staged, 0)) == identities(ladder)
    assert not set(identities(replicate(staged, 1))) & set(identities(ladder))
    assert [ladder.stage_seed(stage) for stage in replicate(staged, 2).stages] == [9, 2, 2]
    assert all(stage.gate.policy == "stop" and stage.gate.min_parent_retention is None for stage in staged.stages)


@pytest.mark.parametrize("arm", ["direct-matched", "scratch", "label-smoothing"])
@pytest.mark.parametrize("overrides", [(), ("defaults.signals={source: cached, kind: full}",), LAYERED])
def test_matched_arms_cost_what_the_whole_ladder_costs_to_half_a_step(arm: Arm, overrides: tuple[str, ...]) -> None:
    ladder = digits(*overrides)
    made = rewritten(arm, ladder, FORWARDS)
    step = total(arm, with_stages(made, lasting(made.stages[0], 1)))
    assert abs(total(arm, made) - total("staged", ladder)) <= step / 2
    assert len(made.stages) == 1
    assert made.stages[0].student.shape == ladder.stages[-1].student.shape


def test_tokens_and_last_hop_are_matched_where_they_are_said_to_be() -> None:
    ladder = digits()
    assert rewritten("direct", ladder, FORWARDS).stages[0].training == ladder.stages[-1].training
    hop = 400 * 64 * (3 * 60 + 200)  # steps, batch, student, its teacher
    free = rewritten("direct-free", ladder, FORWARDS)
    assert total("direct-free", free) == pytest.approx(hop, rel=0.01)
    assert free.stages[0].training.steps < 400  # the root costs more to ask than the last assistant
    for arm in ("direct", "direct-matched", "direct-free"):
        stage = rewritten(arm, ladder, FORWARDS).stages[0]
        assert teachers_of(stage, ["root"]) == ("root",)
        assert stage.objective == ladder.stages[-1].objective


def test_operations_by_hand() -> None:
    ladder = digits()
    staged = 300 * 64 * (3 * 500 + 1000) + 300 * 64 * (3 * 200 + 500) + 400 * 64 * (3 * 60 + 200)
    assert total("staged", ladder) == staged
    ancestors = rewritten("ancestors", ladder, FORWARDS)
    kept = [[kept_teachers(count, 0.75, 0, step) for step in range(steps)] for count, steps in ((1, 300), (2, 300), (3, 400))]
    above = ((1000,), (500, 1000), (200, 500, 1000))  # nearest first
    live_teachers = 64 * sum(forwards[i] for forwards, steps in zip(above, kept, strict=True) for step in steps for i in step)
    students = 64 * 3 * (300 * 500 + 300 * 200 + 400 * 60)
    assert total("ancestors", ancestors) == students + live_teachers
    assert total("scratch", rewritten("scratch", ladder, FORWARDS)) == pytest.approx(staged, rel=0.001)
    layered = digits(*LAYERED)
    assert total("pruned-only", rewritten("pruned-only", layered, FORWARDS)) == 0


def test_a_cache_asks_a_teacher_once_for_every_example_whichever_students_of_the_arm_ask() -> None:
    cached = digits("defaults.signals={source: cached, kind: full}")
    students = 64 * 3 * (300 * 500 + 300 * 200 + 400 * 60)
    assert total("staged", cached) == students + 1400 * (1000 + 500 + 200)
    root = REWRITINGS["staged-root"](cached, FORWARDS, None)
    assert total("staged-root", root) == students + 1400 * 1000


def test_what_auto_chose_for_the_ladder_holds_in_every_arm() -> None:
    ladder = digits("defaults.signals={source: auto, kind: full}", "stages.eighth.training.steps=1")
    assert [stage.signals.source for stage in ladder.stages] == ["cached", "cached", "live"]
    assert rewritten("direct-matched", ladder, FORWARDS).stages[0].signals.source == "live"  # for many epochs


def test_pilots_of_auto_decide_for_themselves_what_is_cached() -> None:
    ladder = load("digits", ("defaults.signals={source: auto, kind: full}", "stages.eighth.training.steps=1", "seed=3")).ladder
    made = auto_arm(shared_settings(ladder, INFO), ladder)
    assert [stage.signals.source for stage in made.stages] == ["cached", "cached", "auto"]
    assert (made.route, made.seed) == ("auto", 3)
    live = auto_arm(digits(), load("digits").ladder)
    assert live == digits().model_copy(update={"route": "auto"})


def test_a_pilot_has_a_tenth_of_the_steps() -> None:
    pilot = digits("proof.pilot=true", "stages.half.training.steps=12")
    assert [stage.training.steps for stage in pilot.stages] == [10, 30, 40]
    assert digits("proof.pilot=true").teacher == digits().teacher


def test_label_smoothing_is_scratch_with_smoothed_labels() -> None:
    ladder = digits("proof.smoothing=0.2")
    smooth, scratch = (rewritten(arm, ladder, FORWARDS).stages[0] for arm in ("label-smoothing", "scratch"))
    assert smooth.objective.alpha.start == 0.2
    assert smooth.model_copy(update={"objective": scratch.objective}) == scratch


ONE = ('stages=[{name: only, student: {shape: "${teacher.shape}", initialisation: layers}}]',)


@pytest.mark.parametrize(
    ("arm", "overrides", "says"),
    [
        *((arm, ONE, "digits has one stage") for arm in ("staged", "staged-root", "ancestors", "direct-matched", "direct-free")),
        ("staged-root", (), "eighth starts from random weights"),
        ("pruned-only", (), "eighth starts from random weights"),
        ("staged-root", ("defaults.teachers=[root]",), "teachers root already"),
        ("ancestors", ("defaults.teachers=ancestors",), "teachers ancestors already"),
        ("ancestors", ("stages.half.objective.features=[{kind: hidden}]",), "features of half"),
    ],
)
def test_an_arm_that_cannot_be_is_refused(arm: Arm, overrides: tuple[str, ...], says: str) -> None:
    with pytest.raises(UserError, match=rf"^proof\.arms: got '{arm}'; allowed: .*{says}.*\. \w"):
        refuse(arm, load("digits", overrides).ladder)


CUT = ("stages.eighth.student.shape=${stages[1].student.shape}", "stages.eighth.student.initialisation=layers", "teacher.keep=[0.5]")


@pytest.mark.parametrize("arm", ["direct", "direct-matched", "direct-free", "direct-cached", "curriculum"])
def test_an_arm_whose_student_cannot_begin_as_the_root_is_refused_before_anything_is_trained(arm: Arm, tmp_path: Path) -> None:
    ladder = load("digits", (*CUT, f"proof.arms=[staged, {arm}]")).ladder
    with pytest.raises(UserError, match=rf"^proof\.arms: got '{arm}'; allowed: .*does not start from the root, since .*shape"):
        refuse_unfit(ladder, Context(run=PLAN, ladder="digits", home=str(tmp_path), base=str(tmp_path)))


@pytest.mark.parametrize("overrides", [(), LAYERED, ONE])
def test_every_arm_that_is_not_refused_is_a_ladder_that_loads(overrides: tuple[str, ...]) -> None:
    ladder, made = digits(*overrides), []
    for arm in ARMS:
        try:
            found = rewritten(arm, ladder, FORWARDS)
        except UserError:
            continue
        made.append(arm)
        steps = {"steps": max(found.stages[0].training.steps, 1)}  # of an arm without training, 0
        first = found.stages[0].model_copy(update={"training": found.stages[0].training.model_copy(update=steps)})
        checked = found.model_copy(update={"stages": (first, *found.stages[1:])})
        assert Ladder.model_validate(checked.model_dump()) == checked
    expected = {
        (): set(ARMS) - {"staged-root", "pruned-only"},
        LAYERED: set(ARMS),
        ONE: {"direct", "scratch", "label-smoothing", "pruned-only", "direct-cached", "root-cached", "self", "auto"},
    }
    assert set(made) == expected[overrides]


@pytest.mark.parametrize("arm", ROUTE_ARMS)
@pytest.mark.parametrize("overrides", [(), ("defaults.signals={source: cached, kind: full}",), LAYERED])
def test_a_route_as_an_arm_costs_what_the_ladder_costs_to_half_a_step_of_its_last_stage(arm: Arm, overrides: tuple[str, ...]) -> None:
    ladder = digits(*overrides)
    made, alike = rewritten(arm, ladder, FORWARDS), routed(arm, ladder)
    *above, last = made.stages
    step = total(arm, with_stages(made, *above, lasting(last, last.training.steps + 1))) - total(arm, made)
    assert abs(total(arm, made) - total("staged", ladder)) <= step / 2 * 1.001
    assert with_stages(made, *map(lasting, made.stages, [1] * 4)) == with_stages(alike, *map(lasting, alike.stages, [1] * 4))
    longer = [stage.training.steps - old.training.steps for stage, old in zip(made.stages, alike.stages, strict=True)]
    if total(arm, alike) > total("staged", ladder):
        assert max(longer[:-1]) < 0
    else:
        assert longer[:-1] == [0] * len(above)
        assert longer[-1] > 0 or total(arm, alike) == total("staged", ladder)
    cached = any("cached" in override for override in overrides)
    more_expensive = {"self": True, "best-of-rungs": True, "ensemble": True, "curriculum": not cached}
    assert (total(arm, alike) > total("staged", ladder)) == more_expensive.get(arm, False)


TEXT = Interface("causal-lm", 64, vocabulary=300, end_id=0, pad_id=1)
IMAGES = Interface("image-classification", 2, classes=10, image_shape=(1, 8, 8))
SIZES = {"llama": (TEXT, (96, 48), 4), "vit": (IMAGES, (96, 48), 4)}


@pytest.mark.parametrize("family", SIZES)
@pytest.mark.parametrize("alpha", [0.7, 0.0])
def test_operations_of_a_training_are_those_that_torch_counts(family: str, alpha: float) -> None:
    """Forward and backward of the student and the teacher's forward, in the loop itself, within 3 %."""
    interface, widths, layers = SIZES[family]
    text = interface.workload == "causal-lm"
    shapes = [
        Shape.model_validate({"family": family, "hidden_size": width, "layers": layers, "heads": 4, "feed_forward": 4 * width})
        for width in widths
    ]
    teacher, student = (random_model(config_for(shape, interface), interface.workload, 0) for shape in shapes)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 300, (8, 64), generator=generator)
    inputs = {"input_ids": ids} if text else {"pixel_values": torch.rand(8, 1, 8, 8, generator=generator)}
    targets = ids if text else torch.randint(0, 10, (8,), generator=generator)
    batches = SimpleNamespace(at=lambda step: Batch(inputs, targets, torch.zeros(8)))
    vocabulary = 300 if text else None
    training = Training(steps=2, batch_size=8, precision="fp32")
    objective = Objective.model_validate({"alpha": alpha})
    signals = [live(teacher, vocabulary)] if alpha else None
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        train(student, batches, Plan(training, objective, 0, vocabulary), signals=signals)
    ladder = load("digits").ladder
    stage = ladder.stages[-1].model_copy(update={"training": training, "objective": objective, "signals": Signals()})
    forwards = [Forward.of(size_of(shape, interface)) for shape in shapes]
    counted = flops_of(with_stages(ladder, stage), forwards, TrainingExamples(1000))
    assert total_of(counted) == pytest.approx(counter.get_total_flops(), rel=0.03)


@pytest.mark.parametrize("arm", ["direct-matched", "direct-free", "scratch", "label-smoothing"])
def test_matched_arms_follow_the_steps_that_the_ladder_took(arm: Arm) -> None:
    """Where `patience` ends a stage early, an arm of its whole schedule would be given operations that the ladder never spent."""
    ladder, taken = digits("defaults.training.patience=2"), [120, 300, 40]
    made = {arm: rewritten(arm, ladder, FORWARDS)}
    arms = Arms(made, ladder, FORWARDS, ())
    early = arms.replicate(arm, 1, taken)
    spent = arm_flops("staged", ladder, FORWARDS, taken)
    target = spent[-1].total if arm == "direct-free" else total_of(spent)
    step = total(arm, with_stages(early, lasting(early.stages[0], 1)))
    assert abs(total(arm, early) - target) <= step / 2
    assert early.stages[0].training.steps < arms.replicate(arm, 1).stages[0].training.steps == made[arm].stages[0].training.steps
    assert early.stage_seed(early.stages[0]) == 1

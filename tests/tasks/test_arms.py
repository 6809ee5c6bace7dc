"""The arms of a proof are rewritings of a ladder."""

from conf.load import load
from tasks.arms import untaught
from tasks.fingerprint import stage_identity, teachers_of


def test_an_untaught_student_depends_on_no_teacher_and_differs_in_nothing_but_what_teaches() -> None:
    ladder = load("digits").ladder
    for stage in ladder.stages:
        alone = untaught(stage)
        assert (alone.student, alone.training, alone.seed, alone.gate) == (stage.student, stage.training, stage.seed, stage.gate)
        assert alone.objective.alpha.start == 0
        assert teachers_of(alone, ["root", "parent"]) == ()
        first, second = (stage_identity(ladder, alone, "fp32", "data", (), parent) for parent in ("a", "b"))
        assert (first == second) == (stage.student.initialisation == "random")  # borrowed first weights are the parent's

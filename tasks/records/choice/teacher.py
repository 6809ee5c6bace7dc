"""Records of the choice of a stage's teacher among its ancestors."""

from __future__ import annotations

from tasks.records.base import Record


class TeacherTrial(Record):
    """A short training of the stage's student by one of its ancestors.

    Attributes:
        teacher: Name of the ancestor.
        place: Its place above the stage, 0 for the root.
        score: Of the student on the validation split: bits per byte, or accuracy.
        nll: The same in nats for each token or example, which decides where scores are equal.
        fingerprint: Of the student.
        flops: Of the training, its answers counted.
        seconds: Of the training.
        signal_seconds: Of the answers that it put on disk.
    """

    teacher: str
    place: int
    score: float
    nll: float
    fingerprint: str
    flops: float
    seconds: float
    signal_seconds: float = 0.0


class TeacherChoice(Record):
    """The ancestor that teaches a stage, and the trials that chose it.

    Attributes:
        place: Of the chosen one, 0 for the root.
        metric: `bits_per_byte` (less is better) or `accuracy`.
        steps: Of every trial.
        trials: One for each ancestor, the nearest first.
    """

    place: int
    metric: str
    steps: int
    trials: tuple[TeacherTrial, ...]

    @property
    def chosen(self) -> TeacherTrial:
        """The trial of the chosen teacher."""
        return next(trial for trial in self.trials if trial.place == self.place)

    @property
    def words(self) -> str:
        """In one line: `root 1.912, 300k 1.950; root teaches`."""
        scores = ", ".join(f"{trial.teacher} {trial.score:.4g}" for trial in self.trials)
        return f"{scores} ({self.metric} after {self.steps} steps); {self.chosen.teacher} teaches"

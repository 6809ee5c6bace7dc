"""Begin a choice of routes with a ladder, or with a draft for a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from conf.errors import UserError, foreign_errors
from conf.loading.load import load_text
from conf.loading.yaml_output import to_yaml
from conf.schema.ladder import Ladder
from conf.schema.stage.stage import Stage
from conf.schema.stage.student import size_name
from models.data.corpus import Corpus
from models.students.importance import LAYOUTS
from tasks.data.prepare import content_hash
from tasks.planning.costs.throughput import Throughput
from tasks.planning.plan import find_data
from tasks.planning.preflight import check_ladder
from tasks.planning.proposals.propose import Ground, Proposed, propose
from tasks.planning.proposals.rungs import WIDEST
from tasks.planning.proposals.wanted import Wanted, check_below, rungs_between
from tasks.planning.students import settle_students
from tasks.runtime.runs.run_registry import Context
from tasks.setup.data_look import DataLook, look_at_data
from tasks.setup.draft import TRAIN_SHARE, draft_ladder, estimated_examples
from tasks.setup.guesses import Ask, Draft
from tasks.setup.init import Drafted, check_new, ladder_name
from tasks.setup.teacher_look import look_at_teacher
from tasks.setup.write import as_yaml, write_new
from tasks.store.store import Store

COMMAND = "ladder plan"
TEXTS = "data/*.jsonl"  # in place of data that are not named


def propose_for_ladder(ladder: Ladder, wanted: Wanted, context: Context, throughput: Throughput | None = None) -> Proposed:
    """Propose routes for the root and the data of a ladder, whatever its own route; for arguments and errors see `propose`."""
    ladder = ladder.model_copy(update={"route": "as-written"})
    return propose(ladder, wanted, Ground(_corpus(ladder, context)), context, throughput)


def write_ladder(proposed: Proposed, base: Path, out: str) -> Path:
    """Write the taken route in full, beside the file whose relative paths it has.

    Raises:
        UserError: The file exists, or lies in another folder.
    """
    file = Path(out)
    if file.absolute().parent != base.absolute():
        raise UserError.about("--out", out, f"a file in {base}, from which the ladder's paths count", "Name one there.")
    check_new(file)
    write_new(file, f"# By `{COMMAND}`: {proposed.proposal.taken}, {proposed.proposal.reason}.\n{to_yaml(proposed.ladder)}")
    return file


def propose_for_teacher(
    teacher: str,
    data: Sequence[str],
    wanted: Wanted,
    out: str | None,
    ask: Ask,
    context: Context,
    throughput: Throughput | None = None,
    overrides: Sequence[str] = (),
) -> tuple[Proposed, Drafted]:
    """Draft a ladder for a teacher, and propose routes for it; the draft has the stages of the taken one.

    Args:
        teacher: Path, id, URI or package.
        data: Paths, patterns or a shipped source; none: for a language model files that are to come.
        wanted: Sizes, tokens, budget.
        out: File that will be written, after which the ladder is named; None: none.
        ask: Answers a question that teacher and data leave open.
        context: Home, and the working directory as base.
        throughput: As of `propose`.
        overrides: Settings of the draft, as `key=value`.

    Raises:
        UserError: Teacher or data are missing or do not go together; or as `propose`.
    """
    base = Path(context.base)
    if out is not None:
        check_new(base / out)
    seen = look_at_teacher(teacher, context)
    check_below(wanted, seen.parameters)
    if not data and seen.workload != "causal-lm":
        raise UserError.about("--data", "none", "the data, for a teacher that is no language model", "Name them.")
    look = look_at_data(data, base) if data else DataLook("files", (TEXTS,), "text that is to come", 0, 0, 0)
    name = ladder_name(Path(out or (data[0].split("*")[0] if data else teacher)).stem)
    sizes = [size_name(size) for size in rungs_between(seen.parameters, wanted.ship, WIDEST)]
    drafted = Drafted(seen, look, draft_ladder(name, seen, look, sizes, ask))
    if not data:
        drafted.draft.warnings.append(f"put the text that the students learn from at {TEXTS}, with a key `text` in each line")
    override(drafted.draft, overrides)
    _first_weights(drafted, context)
    ladder = _loaded(drafted, context)
    corpus = _corpus(ladder, context)
    examples = estimated_examples(look, drafted.draft.settings, ladder.data.sequence_length)
    ground = Ground(corpus, round(TRAIN_SHARE * examples) or None, None if data else 0)
    proposed = propose(ladder, wanted, ground, context, throughput)
    drafted.draft.settings["stages"] = [_written(stage, ladder) for stage in _asked(proposed)]
    drafted.draft.reasons["stages"] = f"{proposed.proposal.taken}: {proposed.proposal.reason}"
    return proposed, drafted


def override(draft: Draft, overrides: Sequence[str]) -> None:
    """Set settings of a draft.

    Raises:
        UserError: An override is not `key=value`, or its key is one that the proposal decides.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        *above, last = key.strip().split(".")
        if not equals or not all((*above, last)):
            raise UserError.about("override", text, "key=value", "For instance economics.price_per_hour=2.5.")
        if (above or [last])[0] in ("name", "teacher", "stages", "route"):
            raise UserError.about(key, value, "another key: options and the proposal decide this one", "Leave it out, or edit the file.")
        node = draft.settings
        for part in above:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise UserError.about(key, value, f"a key of the draft, whose {part} is {node}", "Edit the file that --out writes.")
        with foreign_errors(key, value, "a YAML value", "It does not parse.", "PyYAML"):
            node[last] = yaml.safe_load(value)
        draft.reasons[key.strip()] = "as asked"


def _first_weights(drafted: Drafted, context: Context) -> None:
    """Let students be cut out of their teachers where the architecture and the sizes allow it."""
    if drafted.teacher.config.model_type not in LAYOUTS:
        return
    defaults, reasons = drafted.draft.settings["defaults"], drafted.draft.reasons
    defaults["student"] = {"initialisation": "prune"}
    try:
        check_ladder(settle_students(_loaded(drafted, context), context), context)
    except UserError as error:
        del defaults["student"]
        reasons["defaults.training"] += f"; students start from random weights: {_reason(error)}"
        return
    reasons["defaults.student"] = "cut out of the model above it: its most important channels, heads and layers"


def _reason(error: UserError) -> str:
    """Why a student cannot be cut out of its teacher, in short."""
    _, _, found = str(error).partition(": ")
    return f"to cut them out of their teacher, {found.partition('. ')[0].replace('; allowed:', ', allowed is')}"


def _loaded(drafted: Drafted, context: Context) -> Ladder:
    return load_text(as_yaml(drafted.draft, "", COMMAND), Path(context.base), "the draft").ladder


def _corpus(ladder: Ladder, context: Context) -> Corpus | None:
    found, _ = find_data(ladder, context, Store(context.paths), [])
    return Corpus(found.folder, content_hash(found)) if found else None


def _asked(proposed: Proposed) -> list[tuple[Stage, int]]:
    """The stages of the taken route, with the parameters that were asked for."""
    taken = next(route for route in proposed.proposal.routes if route.route == proposed.proposal.taken)
    return [(stage, made.asked) for stage, made in zip(proposed.ladder.stages, taken.stages, strict=True)]


def _written(asked: tuple[Stage, int], ladder: Ladder) -> dict[str, Any]:
    """A stage as the file has it: what differs from the defaults of the draft."""
    stage, parameters = asked
    usual = ladder.stages[0]
    written: dict[str, Any] = {"name": stage.name, "student": {"parameters": parameters}}
    if stage.teachers != usual.teachers:
        written["teachers"] = list(stage.teachers)
    signals = stage.signals.model_dump(mode="json", exclude_defaults=True)
    if signals:
        written["signals"] = signals
    changed = {name: value for name, value in stage.training.model_dump(mode="json").items() if value != getattr(usual.training, name)}
    if changed:
        written["training"] = changed
    return written

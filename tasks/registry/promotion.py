"""Move the alias of the champion: promote, roll back, finish what was interrupted.

Order of writing: the record `prepared` in the home, the alias in MLflow, the record `done`. A process that is killed before the alias
moves leaves the old champion; one that is killed after it leaves a record that the next command completes.
"""

from __future__ import annotations

from conf.errors import PromotionRefused, UserError
from conf.home import Home
from tasks.records.promotion import Judgement, Promotion
from tasks.registry.history import Numbered, champions, history, keep, words
from tasks.registry.versions import Version, list_versions, open_version, registry_lock
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import now
from tasks.tracking.tracker import Tracker
from tasks.tracking.versions import CHALLENGER, CHAMPION, PREVIOUS, alias_of, claim, log_judgement, move_alias, tag_version

LONGEST_TAG = 1000  # characters


def promote(
    tracker: Tracker,
    home: Home,
    version: Version,
    previous: str | None,
    judgement: Judgement | None,
    *,
    by: str = "",
    reason: str = "",
    forced: bool = False,
) -> Promotion:
    """Make a version the champion.

    Args:
        tracker: The record in MLflow.
        home: Where the history is kept.
        version: A registered version whose bytes were verified when it was opened.
        previous: The champion that it was compared with; None: there was none.
        judgement: The comparison; None: forced without one.
        by: Who asks for it.
        reason: Why.
        forced: Whether it is promoted whatever the judgement says.

    Raises:
        PromotionRefused: The judgement has reasons against it, or another version became champion since it was compared.
        RecordUnavailable: MLflow does not answer.
        StoreError: The disk is full.
    """
    reasons = () if judgement is None else judgement.reasons
    if not forced and (reasons or judgement is None):
        raise refused(version, previous, reasons)
    assert version.version is not None
    promotion = Promotion(
        name=version.name,
        version=version.version,
        previous=previous,
        time=now(),
        by=by,
        reason=reason,
        forced=forced,
        judgement=judgement,
        run=version.run,
        mlflow_uri=tracker.uri,
    )
    return _move(tracker, home, promotion)


def refuse(
    tracker: Tracker, home: Home, version: Version, previous: str | None, judgement: Judgement, *, by: str = "", reason: str = ""
) -> PromotionRefused:
    """Record that a challenger is not promoted, in the history and in MLflow; returns the error to raise.

    Raises:
        RecordUnavailable: MLflow does not answer.
    """
    assert version.version is not None
    promotion = Promotion(
        name=version.name,
        version=version.version,
        previous=previous,
        state="refused",
        time=now(),
        by=by,
        reason=reason,
        judgement=judgement,
        run=version.run,
        mlflow_uri=tracker.uri,
    )
    with registry_lock(home, version.name):
        keep(home, promotion)
    error = refused(version, previous, (*judgement.reasons, *([reason] if reason else [])))
    log_judgement(tracker, version.name, version.version, {"ladder.judgement": str(error)[:LONGEST_TAG]}, figures_of(judgement))
    return error


def figures_of(judgement: Judgement) -> dict[str, float]:
    """The figures of a comparison under their names in MLflow."""
    figures = {"challenger": judgement.challenger, "champion": judgement.champion, "difference": judgement.difference}
    figures |= {"difference_low": judgement.low, "difference_high": judgement.high, "rows": float(judgement.rows)}
    return {f"promotion/{name}": value for name, value in figures.items() if value is not None}


def refused(version: Version, previous: str | None, reasons: tuple[str, ...]) -> PromotionRefused:
    """The error of a challenger that is not promoted."""
    champion = f"The champion stays {version.name}/{previous}" if previous else "There is no champion yet"
    why = "; ".join(reasons) or "it was not judged"
    return PromotionRefused(f"{version.label} was not promoted: {why}. {champion}.")


def rollback(tracker: Tracker, home: Home, name: str, to: str | None = None, *, by: str = "", reason: str = "") -> Promotion:
    """Give the alias back to an earlier champion, without a comparison.

    Args:
        tracker: The record in MLflow.
        home: Where the history is kept.
        name: The registered model.
        to: A version; None: the champion before the present one.
        by: Who asks for it.
        reason: Why.

    Raises:
        UserError: There is no such version, no earlier champion, or the version's bytes are gone.
        PromotionRefused: Another process moved the alias meanwhile.
        RecordUnavailable: MLflow does not answer.
    """
    entries = list_versions(tracker, name)
    present = next((entry.version for entry in entries if CHAMPION in entry.aliases), None)
    if present is None:
        remedy = "`ladder promote` makes one." if entries else "`ladder models` lists the names."
        raise UserError.about("NAME", name, "a model with a champion", remedy)
    target = to or next((entry.version for entry in entries if PREVIOUS in entry.aliases), None)
    if target is None:
        remedy = f"{name}/{present} is the only champion so far; --to names another version."
        raise UserError.about("NAME", name, "a model with an earlier champion", remedy)
    found = next((entry for entry in entries if entry.version == target), None)
    if found is None or target == present:
        others = ", ".join(entry.version for entry in entries if entry.version != present) or "none, as there is no other"
        raise UserError.about(
            "--to", target, f"another version than the champion {present}: {others}", f"`ladder models {name}` lists them."
        )
    version = open_version(tracker, home, found)
    promotion = Promotion(
        name=name,
        version=target,
        previous=present,
        kind="rollback",
        time=now(),
        by=by,
        reason=reason,
        run=version.run,
        mlflow_uri=tracker.uri,
    )
    return _move(tracker, home, promotion)


def _move(tracker: Tracker, home: Home, promotion: Promotion) -> Promotion:
    """Record, move, record; nothing where the champion is another than when the promotion was prepared."""
    name = promotion.name
    with registry_lock(home, name):
        _finish_interrupted(tracker, home, name)
        with claim(tracker, name) as alone:
            present = alias_of(tracker, name)
            if not alone or present != promotion.previous:
                now_champion = f"{name}/{present} is champion now" if present else "there is no champion now"
                cause = "another process is moving the alias" if not alone else now_champion
                raise PromotionRefused(f"{name}/{promotion.version} was not promoted: {cause}. Run the same command again.")
            prepared = keep(home, promotion)
            move_alias(tracker, name, CHAMPION, promotion.version)
        done = _complete(tracker, home, prepared)
    log.info("%s/%s is champion%s", name, done.version, f"; before it {name}/{done.previous}" if done.previous else "")
    return done


def finish_interrupted(tracker: Tracker, home: Home, name: str) -> None:
    """Complete the records of moves whose process was killed, by what MLflow's alias says."""
    if any(promotion.state == "prepared" for _, promotion in history(home, name)):
        with registry_lock(home, name):
            _finish_interrupted(tracker, home, name)


def _finish_interrupted(tracker: Tracker, home: Home, name: str) -> None:
    open_ones = [each for each in history(home, name) if each.promotion.state == "prepared" and each.promotion.mlflow_uri == tracker.uri]
    for entry in open_ones:
        label = f"{name}/{entry.promotion.version}"
        if alias_of(tracker, name) == entry.promotion.version:
            _complete(tracker, home, entry)
            log.warning("the promotion of %s was interrupted after it was champion; its record is complete now", label)
        else:
            keep(home, entry.promotion.model_copy(update={"state": "abandoned"}), entry.number)
            log.warning("the promotion of %s was interrupted before it was champion; the champion before it stays", label)


def _complete(tracker: Tracker, home: Home, entry: Numbered) -> Promotion:
    """Close the record of a moved alias, then set the other aliases and tags by it; doing it twice does it once."""
    done = entry.promotion.model_copy(update={"state": "done"})
    keep(home, done, entry.number)
    line = champions(history(home, done.name), tracker.uri)
    move_alias(tracker, done.name, PREVIOUS, line[-2] if len(line) > 1 else None)
    if alias_of(tracker, done.name, CHALLENGER) == done.version:
        move_alias(tracker, done.name, CHALLENGER, None)
    figures = figures_of(done.judgement) if done.judgement else {}
    log_judgement(tracker, done.name, done.version, {"ladder.promotion": words(done)[:LONGEST_TAG]}, figures)
    if done.kind == "rollback" and done.previous is not None:
        tag_version(tracker, done.name, done.previous, {"ladder.rolled_back": words(done)[:LONGEST_TAG]})
    return done

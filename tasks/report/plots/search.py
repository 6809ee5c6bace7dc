"""Plots of a search: its history, the importance of settings, the Pareto front."""

from __future__ import annotations

from tasks.records.routes.search import SearchedTrial, SearchRecord
from tasks.report.plots.kept import kept
from tasks.report.plots.style import GRID, INK, MODELS, MUTED, Layout, dress, figure, svg
from tasks.search.words import AS_SHARE, scored, second_words

FADED = (0.35, 0.6, 1.0)  # of the rungs, the last in full colour


def _shown(search: SearchRecord, value: float) -> float:
    return 100 * value if search.metric in AS_SHARE else value


def _axis(search: SearchRecord) -> str:
    return f"{search.metric}, validation split" + (" (%)" if search.metric in AS_SHARE else "")


@kept
def history_svg(search: SearchRecord, layout: Layout = "wide") -> str | None:
    """Every trial's score on its rungs, the best so far and the defaults, as an `<svg>` element; None before the first score."""
    scored_trials = [trial for trial in search.trials if trial.rungs]
    if not scored_trials:
        return None
    drawing = figure((920, 340) if layout == "wide" else (340, 300))
    axes = drawing.subplots()
    for rung, steps in enumerate(search.steps):
        points = [(trial.number, _shown(search, trial.rungs[rung].score)) for trial in scored_trials if len(trial.rungs) > rung]
        if points:
            fade = FADED[max(0, len(FADED) - len(search.steps) + rung)]
            axes.plot(*zip(*points, strict=True), "o", color=MODELS[0], alpha=fade, markersize=3 + 2 * rung, label=f"{steps} steps")
    best = _best_so_far(search, scored_trials)
    if best:
        axes.step(*zip(*best, strict=True), where="post", color=MODELS[1], linewidth=1.5, label="best so far, in full")
    if search.defaults is not None and search.defaults.score is not None:
        axes.axhline(_shown(search, search.defaults.score), color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), label="defaults")
    axes.legend(frameon=False, labelcolor=MUTED, fontsize=11)
    dress(axes, "trial", _axis(search))
    return svg(drawing, f"search-history-{layout}", told(search))


def _best_so_far(search: SearchRecord, trials: list[SearchedTrial]) -> list[tuple[int, float]]:
    found: list[tuple[int, float]] = []
    best: float | None = None
    for trial in trials:
        if trial.score is not None and (best is None or search.better(trial.score, best)):
            best = trial.score
        if best is not None:
            found.append((trial.number, _shown(search, best)))
    return found


@kept
def importance_svg(search: SearchRecord, layout: Layout = "wide") -> str | None:
    """Share of the scores' variance that each setting explains, as an `<svg>` element; None where it is not known."""
    if not search.importance:
        return None
    names = list(reversed(search.importance))
    drawing = figure((920 if layout == "wide" else 340, 70 + 30 * len(names)))
    axes = drawing.subplots()
    shares = [100 * search.importance[name] for name in names]
    axes.barh(range(len(names)), shares, color=MODELS[0], height=0.6)
    axes.set_yticks(range(len(names)), [name if layout == "wide" else name.rpartition(".")[2] for name in names])
    dress(axes, f"variance of the scores at {search.steps[0]} steps (%)", "")
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(False, axis="y")
    words = ", ".join(f"{name} {100 * share:.0f} %" for name, share in search.importance.items())
    return svg(drawing, f"search-importance-{layout}", f"Share of the variance of the scores that each setting explains: {words}")


@kept
def front_svg(search: SearchRecord, layout: Layout = "wide") -> str | None:
    """Score against the second objective, the Pareto front joined, as an `<svg>` element; None for one objective."""
    full = [(trial, trial.second, trial.score) for trial in search.trials if trial.second is not None and trial.score is not None]
    if search.against == "none" or not full:
        return None
    drawing = figure((920, 340) if layout == "wide" else (340, 300))
    axes = drawing.subplots()
    scale = 1000 if search.against == "latency" else 1
    axes.plot([scale * second for _, second, _ in full], [_shown(search, score) for *_, score in full], "o", color=MUTED, alpha=0.6)
    front = sorted((scale * second, _shown(search, score)) for trial, second, score in full if trial.front)
    axes.plot(*zip(*front, strict=True), "o-", color=MODELS[0], label="Pareto front")
    own = search.defaults
    if own is not None and own.second is not None and own.score is not None:
        axes.plot(scale * own.second, _shown(search, own.score), "D", color=MODELS[1], markersize=8, label="defaults")
    axes.legend(frameon=False, labelcolor=MUTED, fontsize=11)
    axes.axhline(front[-1][1], color=GRID, linewidth=1, zorder=0)
    dress(axes, "parameters" if search.against == "parameters" else "latency, median request (ms)", _axis(search))
    return svg(drawing, f"search-front-{layout}", f"Pareto front: {front_words(search)}")


def front_words(search: SearchRecord) -> str:
    """The front in words, the cheapest first."""
    front = sorted((trial.second or 0.0, trial.score or 0.0, trial.number) for trial in search.trials if trial.front)
    return "; ".join(f"trial {number} {scored(search, score)} at {second_words(search, second)}" for second, score, number in front)


def told(search: SearchRecord) -> str:
    """The history in words."""
    own = search.defaults.score if search.defaults else None
    words = f"Scores of {len(search.trials)} trials"
    words += f", defaults {scored(search, own)}" if own is not None else ""
    best = search.best
    return words + (f", the best trial {best.number} {scored(search, best.score)}" if best and best.score is not None else "")

"""Verdict and notes of a proof in sentences, and its table of 80 columns.

The same for the terminal, the report and scripts.
"""

from __future__ import annotations

from rich import box
from rich.table import Table

from models.base.looks import LEAST
from models.base.quality import baseline_name
from tasks.records.format import NONE, amount, operations, seconds
from tasks.records.proof import ArmResult, Contrast, Estimate, Proof

METHODS = {"t": "Student's t", "sign-flip": "sign-flip", "bootstrap-t": "studentised bootstrap", "bootstrap": "studentised bootstrap"}


def points(proof: Proof, value: float, signed: bool = False) -> str:
    """A score or a difference: bits per byte with four decimals, accuracy in per cent with two."""
    sign = "+" if signed else ""
    return f"{value:{sign}.4f}" if proof.metric == "bits_per_byte" else f"{100 * value:{sign}.2f}"


def unit(proof: Proof) -> str:
    """The unit of a difference."""
    return "bits/byte" if proof.metric == "bits_per_byte" else "points"


def scored(proof: Proof, value: float) -> str:
    """A score with its unit: `1.9213 bits/byte`, `94.20 %`."""
    return f"{points(proof, value)} {'bits/byte' if proof.metric == 'bits_per_byte' else '%'}"


def ends(proof: Proof, found: Estimate) -> str:
    """The interval of a difference: `+0.40 to +2.20`; an end that the seeds do not bound is `-inf` or `+inf`."""
    low = "-inf" if found.low is None else points(proof, found.low, True)
    high = "+inf" if found.high is None else points(proof, found.high, True)
    return f"{low} to {high}"


def spread(proof: Proof, contrast: Contrast) -> str:
    """A difference and its interval: `+1.30 points (95 % interval +0.40 to +2.20, Student's t over 5 seeds, first look)`."""
    found = contrast.gain
    earlier = f"look {contrast.look} of {len(contrast.looks)}" if len(contrast.looks) > 1 or contrast.look > 1 else "first look"
    how = f"{METHODS[found.method]} over {found.pairs} seeds{f', {earlier}' if contrast.looks else ''}"
    return f"{points(proof, found.mean, True)} {unit(proof)} ({100 * proof.confidence:g} % interval {ends(proof, found)}, {how})"


def called(contrast: Contrast, delta: str) -> str:
    """The verdict in its words."""
    return {
        "first better": f"{contrast.first} better",
        "second better": f"{contrast.second} better",
        "equivalent": f"equivalent within {delta}",
        "undecided": "undecided",
    }[contrast.outcome]


def verdict(proof: Proof) -> str:
    """One sentence: the better arm, its gain with interval, and its cost."""
    if not proof.contrasts:
        done = ", ".join(f"{arm.arm} {len(arm.replicates)} of {proof.seeds}" for arm in proof.arms) or "nothing"
        return f"No verdict yet: a comparison needs two seeds of two arms, and finished is {done}."
    contrast = proof.contrasts[0]
    by_name = {arm.arm: arm for arm in proof.arms}
    first, second = by_name[contrast.first], by_name[contrast.second]
    assert first.score is not None
    assert second.score is not None
    if first.nothing and second.nothing:
        return (
            f"Nothing was learned, so nothing is compared: the students of {first.arm} ({first.nothing}) and of {second.arm} "
            f"({second.nothing}) in every seed. More seeds would not help; train longer, raise the learning rate, or check the labels."
        )
    words = called(contrast, f"{points(proof, proof.delta)} {unit(proof)}")
    start = f"{'Pilot, a tenth of the steps: ' if proof.pilot else ''}{words[0].upper() if not proof.pilot else words[0]}{words[1:]}"
    scores = f"{first.arm} scores {scored(proof, first.score.mean)}, {second.arm} {scored(proof, second.score.mean)}"
    sentence = f"{start}: {scores}, a gain of {spread(proof, contrast)}, for {price(proof, first, second)}"
    missing = "" if proof.finished else " Not all seeds are finished."
    return f"{sentence}{needed(proof, contrast)}.{missing}"


def needed(proof: Proof, contrast: Contrast) -> str:
    """Number of seeds that would decide an undecided contrast, in words; empty for other contrasts."""
    if contrast.outcome != "undecided" or not proof.finished or contrast.gain.pairs < LEAST:
        return ""
    more = contrast.seeds_to_decide
    return f"; {'more than 1,000' if more is None else f'about {max(more, contrast.gain.pairs + 1)}'} seeds would decide it"


def price(proof: Proof, first: ArmResult, second: ArmResult) -> str:
    """The cost of the first arm beside the second."""
    ratio = f"{first.flops / second.flops:.2f} times the FLOPs" if second.flops else "training that the other lacks"
    money = [sum(each.money or 0.0 for each in arm.replicates) / len(arm.replicates) for arm in (first, second)]
    paid = f", {amount(money[0])} against {amount(money[1])} {proof.currency}" if any(money) else ""
    return f"{ratio} ({operations(first.flops)}, {seconds(first.seconds)} s a seed against {seconds(second.seconds)} s{paid})"


def trust(proof: Proof) -> tuple[str, ...]:
    """Limits of a proof's validity, in sentences."""
    sentences = [f"{arm.arm} has learned nothing in any seed: {arm.nothing}." for arm in proof.arms if arm.nothing] + [
        "The interval covers chance in training (order of the data, first weights), with this root teacher and these test examples; "
        "another teacher or other examples may give another figure."
    ]
    if proof.metric == "accuracy" and proof.test_examples and proof.delta < 1 / proof.test_examples:
        sentences.append(
            f"One of the {proof.test_examples} test examples is {100 / proof.test_examples:.2f} points, more than the smallest difference "
            f"of interest of {100 * proof.delta:.2f}; a spread below that of such steps is not believed."
        )
    if proof.contrasts:
        sentences += _of_looks(proof, proof.contrasts[0])
    if proof.pilot:
        sentences.append(
            "A pilot: every student has a tenth of its steps, and its whole schedule within them. Trust it for whether all arms run, what "
            "they cost and how far seeds scatter, not for the sign: arms that learn fast lead early, and students that are still far "
            "from the root say little of those that are not."
        )
    return tuple(sentences)


def _of_looks(proof: Proof, contrast: Contrast) -> list[str]:
    """Limits set by the number of seeds and by earlier looks at them, in sentences."""
    if contrast.gain.pairs == 2:
        return ["Two seeds decide nothing: how far seeds scatter cannot be told from two. Take at least five."]
    taken = contrast.looks
    sentences = []
    if len(taken) > 1 or contrast.look > 1:
        told = "; ".join(f"{number}: {len(look.seeds)} seeds in {look.run}" for number, look in enumerate(taken, 1))
        sentences.append(
            f"These seeds were looked at before ({told}). The intervals of all looks together hold the true difference with "
            f"{100 * proof.confidence:g} %, so that a later look is wider than a first one of as many seeds."
        )
    if proof.finished and contrast.gain.pairs < len(contrast.gains):
        sentences.append("One seed more than in the look before says nothing of its spread, and is left out. Add two at least.")
    return sentences


def table(proof: Proof) -> tuple[list[str], list[list[str]]]:
    """Headers and rows: an arm's score with half its interval, its FLOPs, seconds, and the first arm's gain over it."""
    against = {contrast.second: contrast for contrast in proof.contrasts}
    first = proof.contrasts[0].first if proof.contrasts else proof.arms[0].arm
    base = next((arm.flops for arm in proof.arms if arm.arm == first), 0.0)
    headers = [
        "arm",
        "bits/byte" if proof.metric == "bits_per_byte" else "accuracy",
        "+-",
        "FLOPs",
        "sec",
        f"{first} gains",
        "interval",
    ]
    rows = []
    for arm in proof.arms:
        contrast, span = against.get(arm.arm), bounded(arm.score)
        mean = sum(each.score for each in arm.replicates) / len(arm.replicates)
        gains = [NONE, NONE]
        if contrast:
            gains = [points(proof, contrast.gain.mean, True), ends(proof, contrast.gain)]
        rows.append(
            [
                arm.arm,
                points(proof, mean),
                points(proof, (span[1] - span[0]) / 2) if span else NONE,
                f"{arm.flops / base:.2f}x" if base else NONE,
                seconds(arm.seconds),
                *gains,
            ]
        )
    if proof.baseline is not None:
        rows.append([baseline_name("causal-lm" if proof.metric == "bits_per_byte" else ""), points(proof, proof.baseline), *[NONE] * 5])
    return headers, rows


def bounded(score: Estimate | None) -> tuple[float, float] | None:
    """Both ends of an interval; None where there is none, or an end is infinite."""
    return None if score is None or score.low is None or score.high is None else (score.low, score.high)


def render(proof: Proof) -> Table:
    """The table for a terminal."""
    headers, rows = table(proof)
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", collapse_padding=True)
    for header in headers:
        drawn.add_column(
            header.replace(" gains", "\ngains").replace("bits/", "bits/\n"), justify="left" if header == "arm" else "right", no_wrap=True
        )
    for row in rows:
        drawn.add_row(*row)
    return drawn

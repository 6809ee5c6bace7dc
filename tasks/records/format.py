"""Format numbers for readers: amounts, counts, shares, times, FLOPs, dates."""

from __future__ import annotations

from datetime import datetime


def money(value: float, currency: str) -> str:
    """An amount with its currency."""
    return f"{amount(value)} {currency}"


def amount(value: float) -> str:
    """An amount: whole from 10,000 on, two decimals from 0.1 on, three significant digits below."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 10_000 else f"{value:,.2f}" if size >= 0.1 or size == 0 else f"{value:.3g}"


def days_text(days: float) -> str:
    """Days in the unit that suits them."""
    if days == 0:
        return "0 days"
    if days < 1 / 24 / 60:
        return "less than a minute"
    if days < 1 / 24:
        return f"{days * 24 * 60:.0f} minutes"
    if days < 2:
        return f"{days * 24:.1f} hours"
    if days < 1000:
        return f"{days:.1f}".removesuffix(".0") + " days"
    return f"{days / 365.25:,.1f} years"


NONE = "-"


def human(number: float) -> str:
    """A count in three significant digits with k, M, B or T: 1007000 -> `1.01M`."""
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g}{suffix}"
    return f"{number:.0f}"


def percent(ratio: float | None) -> str:
    """A ratio in per cent with one decimal; a dash when it was not measured."""
    return NONE if ratio is None else f"{100 * ratio:.1f} %"


def seconds(value: float) -> str:
    """Seconds without their unit: one decimal below ten, whole ones above."""
    return f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"


def milliseconds(seconds: float) -> str:
    """Three significant digits of a time, in milliseconds."""
    value = 1000 * seconds
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}" if value >= 0.995 else f"{value:.3f}"


def duration(value: float) -> str:
    """Seconds for a reader: `4.2 s`, `42 s`, `3 min 12 s`, `5 h 12 min`."""
    if value < 99.5:
        return f"{seconds(value)} s"
    whole = round(value)
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def estimate(seconds: float) -> str:
    """An estimated time in the unit that suits it: `40 s`, `12 min`, `3.4 h`, `2.1 days`, `6.3 years`."""
    for unit, size, below, digits in (("s", 1, 120, 0), ("min", 60, 7200, 0), ("h", 3600, 172800, 1), ("days", 86400, 730 * 86400, 1)):
        if seconds < below:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds / (365 * 86400):,.1f} years"


def operations(flops: float) -> str:
    """Floating-point operations with an SI prefix: `3.42 TFLOP`."""
    for size, prefix in ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if flops >= 0.9995 * size:
            return f"{flops / size:.3g} {prefix}FLOP"
    return f"{flops:,.0f} FLOP"


def moment(iso: str | None) -> str:
    """An ISO 8601 time as `2026-03-01 14:05 UTC`; a dash for none."""
    return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M UTC") if iso else NONE

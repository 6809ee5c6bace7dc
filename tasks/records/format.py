"""Format numbers for readers: counts, shares, times, sizes, rates, money."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
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


def lines_of(text: str, width: int) -> list[str]:
    """A text in lines no wider than `width`, broken between words only: addresses and paths stay whole, however long."""
    parts = [textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""] for line in text.splitlines()]
    return [line for part in parts for line in part]


NONE = "-"
# Units of a number of 1000, 1000^2, ... (sizes: 1024, 1024^2, ...).
COUNTS = ("k", "M", "B", "T")
OPERATIONS = (" kFLOP", " MFLOP", " GFLOP", " TFLOP", " PFLOP", " EFLOP", " ZFLOP", " YFLOP")
SIZES = (" KiB", " MiB", " GiB", " TiB")


def human(number: float) -> str:
    """A count in three significant digits with k, M, B or T: 1007000 -> `1.01M`."""
    return _scaled(number, COUNTS) or f"{number:.0f}"


def rate(per_second: float) -> str:
    """Requests, tokens or examples a second in three significant digits: `0.353`, `12.3`, `1.23k`."""
    return _scaled(per_second, COUNTS) or f"{per_second:.3g}"


def percent(ratio: float | None, decimals: int = 1) -> str:
    """A ratio in per cent; a dash when it was not measured."""
    return NONE if ratio is None else f"{100 * ratio:.{decimals}f} %"


def seconds(value: float) -> str:
    """Seconds without their unit: one decimal below ten, whole ones above."""
    return f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"


def milliseconds(seconds: float) -> str:
    """Three significant digits of a time, in milliseconds."""
    return _digits(1000 * seconds)


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
    return _scaled(flops, OPERATIONS) or f"{flops:.0f} FLOP"


def operations_rate(flops: float) -> str:
    """Floating-point operations a second with an SI prefix: `3.42 TFLOP/s`."""
    return f"{operations(flops)}/s"


def byte_size(number: float) -> str:
    """Bytes in three significant digits with a binary prefix: `20 B`, `1.5 MiB`, `75.5 GiB`."""
    return _scaled(number, SIZES, 1024) or f"{number:.0f} B"


def mebibytes(number: float) -> str:
    """Three significant digits of bytes, in MiB without the unit, for a column."""
    return _digits(number / 2**20)


def moment(iso: str | None) -> str:
    """An ISO 8601 time as `2026-03-01 14:05 UTC`; a dash for none."""
    return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M UTC") if iso else NONE


def _scaled(number: float, suffixes: Sequence[str], base: float = 1000) -> str | None:
    """Three significant digits with the suffix of their power of `base`; None where even the first power is too large.

    A next power begins where the number before it would round to four digits: 999.5k is 1M, and 1,000 KiB are 0.977 MiB.
    """
    for power in range(len(suffixes), 0, -1):
        if number >= 999.5 * base ** (power - 1):
            return f"{number / base**power:.3g}{suffixes[power - 1]}"
    return None


def _digits(value: float) -> str:
    """Three significant digits as a plain number, at most three decimals."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 99.5 else f"{value:.1f}" if size >= 9.95 else f"{value:.2f}" if size >= 0.995 else f"{value:.3f}"

"""Amounts and days in words."""

from __future__ import annotations


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

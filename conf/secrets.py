"""Passwords and tokens that addresses carry, and text without them: fit for logs, records and pages."""

from __future__ import annotations

import re

# user:password@ of a URL, a bare token@ of a web address, and a password among its options.
SECRETS = re.compile(
    r"(://[^:/?#@\s]*:)[^@\s]*@(?:[^/@\s]*@)*|(?<=http)(s?://)[^:/?#@\s]+@|([?&](?:password|sslpassword|token)=)[^&#\s'\"]+"
)


def masked(text: str) -> str:
    """Any text that may hold addresses, without their passwords and tokens."""
    return SECRETS.sub(lambda found: f"{found[1] or found[2]}***@" if found[1] or found[2] else f"{found[3]}***", text)


def without_user(url: str) -> str:
    """An address as a link: nobody's name in it, nor password."""
    return re.sub(r"://[^/]*@", "://", masked(url))

"""Remove passwords and tokens from addresses, for logs, records and pages."""

from __future__ import annotations

import re

# user:password@ of a URL, a bare token@ of a web address, and a password among its options.
SECRETS = re.compile(
    r"(://[^:/?#@\s]*:)[^@\s]*@(?:[^/@\s]*@)*|(?<=http)(s?://)[^:/?#@\s]+@|([?&](?:password|sslpassword|token)=)[^&#\s'\"]+"
)


def masked(text: str) -> str:
    """A text without the passwords and tokens of the addresses in it."""
    return SECRETS.sub(lambda match: f"{match[1] or match[2]}***@" if match[1] or match[2] else f"{match[3]}***", text)


def without_user(url: str) -> str:
    """An address without user name and password."""
    return re.sub(r"://[^/]*@", "://", masked(url))

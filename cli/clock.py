"""
What is said when this machine's clock and the authority's differ. Pure: both times come in.

Certificates are good by the authority's clock and the nodes', and ssh checks host certificates by its own.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from cli import output

TOLERATED = timedelta(seconds=60)


def difference(date: str | None, here: datetime) -> timedelta | None:
    """How far the authority's clock is ahead of ours, by its HTTP ``Date``; None when that tells nothing."""
    if date is None:
        return None
    try:
        there = parsedate_to_datetime(date)
    except ValueError:
        return None
    return (there if there.tzinfo else there.replace(tzinfo=UTC)) - here


def warning(ahead: timedelta | None, here: datetime) -> str | None:
    """The sentence to say, if the difference is one that matters."""
    if ahead is None or abs(ahead) < TOLERATED:
        return None
    which = "behind" if ahead > timedelta(0) else "ahead"
    return (
        f"this machine's clock is {output.span(abs(ahead))} {which}: "
        f"here it is {output.when(here)}, at the authority {output.when(here + ahead)}"
    )


def misfit(valid_after: datetime, valid_before: datetime, here: datetime) -> str | None:
    """Why a certificate is not good by this machine's clock, if it is not."""
    if here < valid_after:
        return f"by this machine's clock the certificate is not valid before {output.when(valid_after)}"
    if here >= valid_before:
        return f"by this machine's clock the certificate is over since {output.when(valid_before)}"
    return None

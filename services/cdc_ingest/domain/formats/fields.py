"""Single fields of documents: their values may be anything JSON can say."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from services.cdc_ingest.domain.records import Image, UnreadableError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_DIGITS = 20


def mapping(value: object) -> Mapping[str, object]:
    """Return the object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def text(value: object) -> str:
    """Return the text, or "" for anything else."""
    return value if isinstance(value, str) else ""


def image(value: object, reason: str) -> Image | None:
    """Return the image of a row; None for null.

    Raises:
        UnreadableError: with `reason`, for anything that is neither an object nor null.
    """
    if value is None or isinstance(value, dict):
        return value
    raise UnreadableError(reason)


def iso_moment(value: object) -> datetime | None:
    """Return the aware UTC time; what cannot be read as one counts as not told."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def epoch_moment(value: object, units_per_second: int) -> datetime | None:
    """Return the time that many whole units after 1970; 0 and what is no number are not told."""
    if isinstance(value, str) and len(value) <= _MAX_DIGITS and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        return None
    try:
        return _EPOCH + timedelta(microseconds=value * (1_000_000 // units_per_second))
    except OverflowError:
        return None


def transaction(value: object) -> str:
    """Return what tells one transaction from another; "" for what cannot."""
    is_usable = isinstance(value, int | str) and not isinstance(value, bool)
    return str(value) if is_usable else ""

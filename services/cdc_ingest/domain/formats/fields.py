"""Reads single fields of documents, whose values may be of any JSON type."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice

from services.cdc_ingest.domain.formats.json_text import documents
from services.cdc_ingest.domain.formats.records import Image, UnreadableError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_DIGITS = 20


def mapping(value: object) -> Mapping[str, object]:
    """Return the object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def opened(value: object) -> object:
    """Return the object in a JSON text; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] == "{":
        found = list(islice(documents(value), 2))
        if len(found) == 1 and isinstance(found[0], dict):
            return found[0]
    return value


def loosely_named(document: Mapping[str, object]) -> Mapping[str, object]:
    """Return the fields by their lower-case names without hyphens and underscores."""
    return {_letters(name): value for name, value in document.items()}


@lru_cache(maxsize=1_000)
def _letters(name: str) -> str:
    return name.replace("-", "").replace("_", "").lower()


def text(value: object) -> str:
    """Return the text, or "" for anything else."""
    return value if isinstance(value, str) else ""


def image(value: object, reason: str) -> Image | None:
    """Return the image of a row, which may be a JSON text; None for null.

    Raises:
        UnreadableError: with `reason`, for anything that is neither an object nor null.
    """
    found = opened(value)
    if found is None or isinstance(found, dict):
        return found
    raise UnreadableError(reason)


def iso_moment(value: object) -> datetime | None:
    """Return the aware UTC time; None for a value that is not one."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def epoch_moment(value: object, units_per_second: int) -> datetime | None:
    """Return the time that many units after 1970; None for 0 and for a value that is no integer."""
    if isinstance(value, str) and len(value) <= _MAX_DIGITS and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        return None
    try:
        return _EPOCH + timedelta(microseconds=value * (1_000_000 // units_per_second))
    except OverflowError:
        return None


def transaction(value: object) -> str:
    """Return the transaction id as text; "" for a value that is no id."""
    is_usable = isinstance(value, int | str) and not isinstance(value, bool)
    return str(value) if is_usable else ""

"""By which clocks a person lives, as far as the phone number tells."""

from functools import lru_cache

from phonenumbers import NumberParseException, parse
from phonenumbers.timezone import time_zones_for_number

_UNKNOWN = "Etc/Unknown"
_BRITISH = "+44"


def time_zone_of(phone_e164: str) -> str | None:
    """Return the one zone of the number's area; None when there are several or it is not known.

    Britain's mobile numbers are Jersey's, Guernsey's and the Isle of Man's too; their clocks agree.
    """
    if phone_e164.startswith(_BRITISH):
        return None
    return _zone_of_area(phone_e164)


@lru_cache(maxsize=4096)
def _zone_of_area(phone_e164: str) -> str | None:
    try:
        zones = time_zones_for_number(parse(phone_e164))
    except NumberParseException:
        return None
    return zones[0] if len(zones) == 1 and zones[0] != _UNKNOWN else None

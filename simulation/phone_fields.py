"""What people write into their phone field: labels, several numbers, spoilt ones, none at all."""

from collections.abc import Callable, Sequence
from random import Random

from devstack.mysql_connection import connect
from devstack.vocabulary import LANDLINE_RANGES, MOBILE_RANGE, NUMBERS_IN_RANGE, PHONE_FORMATS
from simulation.checker.reading import phones_of

# One that many type in to get on; of the drama range too.
PLACEHOLDER = "7700900000"
NO_NUMBER = ("", "n/a", "none", "unknown", "-", "see notes", None)

_LABELLED = (
    "{} (mobile)", "{} wife", "mob: {}", "Tel. {}", "{} after 6pm", "{} - work", "Mum {}", "{}.",
)  # fmt: skip
_SEVERAL = (
    "{} / {}", "{}/{}", "{} or {}", "{}, {}", "{}; {}", "{} (home) {} (mobile)", "H {} M {}",
    "{}\n{}", "{} | {}", "{} & {}",
)  # fmt: skip
_INVISIBLE = ("\u200b", "\u200e", "\ufeff", "\u2060")
_AT_ONCE = 500

# Of a hundred people, at the beginning.
_SHARES = {
    "as it is": 52,
    "labelled": 9,
    "spoilt": 6,
    "two numbers": 8,
    "household": 12,
    "placeholder": 10,
    "none": 3,
}


def any_number(rng: Random) -> str:
    """Return one of the numbers kept free for drama, as national digits."""
    area, rest = rng.choice((MOBILE_RANGE, *LANDLINE_RANGES))
    return f"{area.removeprefix('0')}{rest}{rng.randrange(NUMBERS_IN_RANGE):03}"


def written(rng: Random, phone: str) -> str:
    """Return a number in one of the ways in which it is written without anything else."""
    return rng.choice(PHONE_FORMATS).format(area=phone[:4], rest=phone[4:])


def labelled(rng: Random, phone: str) -> str:
    """Return a number with words around it."""
    return rng.choice(_LABELLED).format(written(rng, phone))


def spoilt(rng: Random, phone: str) -> str:
    """Return a number as a spreadsheet or a copied message leaves it."""
    if rng.random() < 0.5:
        return f"44{phone}.0"
    place, mark = rng.randint(0, 6), rng.choice(_INVISIBLE)
    text = f"0{phone}"
    return f"{text[:place]}{mark}{text[place:]}"


def several(rng: Random, phones: Sequence[str]) -> str:
    """Return two numbers in one text."""
    return rng.choice(_SEVERAL).format(*(written(rng, it) for it in phones))


def respell(url: str, seed: int) -> None:
    """Rewrite the phone fields of a share of the people in the main app, out of the binlog.

    `url` is for an account that may keep what it writes out of the binlog. Raises `pymysql.Error`.
    """
    rng = Random(f"{seed}/phone fields")
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        cursor.execute("SELECT id, phone_number FROM users ORDER BY id")
        changed: list[tuple[str | None, int]] = []
        neighbour = any_number(rng)
        for user_id, text in cursor.fetchall():
            own = next(iter(phones_of(text)), None) or any_number(rng)
            (kind,) = rng.choices(list(_SHARES), weights=list(_SHARES.values()))
            if kind != "as it is":
                changed.append((_KINDS[kind](rng, own, neighbour), user_id))
            if kind != "household":
                neighbour = own
        for first in range(0, len(changed), _AT_ONCE):
            # The rows keep their time of change: people did not write this just now.
            cursor.executemany(
                "UPDATE users SET phone_number = %s, updated_at = updated_at WHERE id = %s",
                changed[first : first + _AT_ONCE],
            )
        connection.commit()


def _household(rng: Random, own: str, neighbour: str) -> str:
    return several(rng, (own, neighbour)) if rng.random() < 0.2 else written(rng, neighbour)


def _placeholder(rng: Random, own: str, _: str) -> str:
    if rng.random() < 0.4:
        return several(rng, (PLACEHOLDER, own))
    return written(rng, PLACEHOLDER)


_KINDS: dict[str, Callable[[Random, str, str], str | None]] = {
    "labelled": lambda rng, own, _: labelled(rng, own),
    "spoilt": lambda rng, own, _: spoilt(rng, own),
    "two numbers": lambda rng, own, _: several(rng, (own, any_number(rng))),
    "household": _household,
    "placeholder": _placeholder,
    "none": lambda rng, _own, _neighbour: rng.choice(NO_NUMBER),
}


def changed_field(rng: Random, phones: Sequence[str], neighbour: str | None) -> str | None:
    """Return what a person writes into the field who had `phones` in it so far.

    `neighbour` is a number of another person.
    """
    roll = rng.random()
    if roll < 0.08:
        return rng.choice(NO_NUMBER)
    if roll < 0.12:
        return _placeholder(rng, any_number(rng), "")
    if roll < 0.27 and neighbour is not None:
        return written(rng, neighbour)
    if roll < 0.37 and len(phones) > 1:
        return written(rng, rng.choice(phones))
    if roll < 0.50 and phones:
        return several(rng, (phones[0], any_number(rng)))
    return rng.choice((written, written, labelled, spoilt))(rng, any_number(rng))

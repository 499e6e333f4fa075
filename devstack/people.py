"""Invented people of the main app with their claims: rows of its tables, always the same ones."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import TypeVar

from devstack.vocabulary import (
    DEALERS,
    FIRST_NAMES,
    INTRODUCERS,
    INVALID_PHONES,
    LANDLINE_RANGES,
    LAST_NAMES,
    LENDERS,
    MOBILE_RANGE,
    NUMBERS_IN_RANGE,
    PHONE_FORMATS,
    SOLICITORS,
    STREETS,
    TOWNS,
    VEHICLES,
)

# In every value of the columns that must never leave MySQL, so that a leak can be searched for.
CANARY = "CANARY-SECRET"
BASE_REASON = "base requirement for claim."
# The newest rows are a little older than this, unless told otherwise.
UNTIL = datetime(2025, 6, 1, tzinfo=UTC)

Value = str | int | None
Row = dict[str, Value]
T = TypeVar("T")

_MONTHS = timedelta(days=420)
_SECONDS = int(_MONTHS.total_seconds())
_FILLER = "matched against electoral roll; confidence band B; address history incomplete. " * 800


def _spread(**weights: int) -> tuple[str | None, ...]:
    """A hundred values by weight; `null` stands for NULL."""
    values = [name for name, weight in weights.items() for _ in range(weight)]
    return tuple(None if value == "null" else value for value in values)


_USER_STATUS = _spread(null=56, active=36, inactive=4, onboarding=4)
_OPEN_STATUS = _spread(null=24, pending=30, in_progress=24, submitted=14, with_lender=8)
_ENDED_STATUS = ("complete", "cancelled")
_CLAIMS = tuple(
    n for n, weight in enumerate((22, 22, 20, 14, 9, 6, 4, 3), 1) for _ in range(weight)
)
_REQUIREMENTS = (0,) * 30 + (1,) * 42 + (2,) * 20 + (3,) * 8
_CLAIM_TYPES = _spread(motor_finance=62, irresponsible_lending=23, mortgage=10, packaged_account=5)
_REQUIREMENT_TYPES = _spread(
    id_document=22, proof_of_address=16, bank_statement=14, finance_agreement=12,
    vehicle_registration=9, cfa=6, questionnaire=8, solicitor_letter_of_authority=4,
    letter_of_authority=4, credit_report=5,
)  # fmt: skip
_SETTLED = _spread(COMPLETED=78, REJECTED=12, UNDER_REVIEW=8, null=2)
_LOG_TYPES = _spread(login=52, document_uploaded=20, claim_created=18, profile_updated=10)
_REJECTIONS = ("The picture is blurred", "The document has expired", "Names do not match")
_CHANNELS = ('["email", "sms"]', '["sms"]', '["email"]', "[]", None)


class Population:
    """People numbered from 1; each depends on the seed and the number alone."""

    def __init__(self, seed: int, until: datetime = UNTIL) -> None:
        self._seed = seed
        self._until = until.astimezone(UTC).replace(tzinfo=None, microsecond=0)

    def rows(self, first_id: int, last_id: int) -> dict[str, list[Row]]:
        """Rows by table of the people from `first_id` to `last_id`, both included."""
        tables: dict[str, list[Row]] = defaultdict(list)
        for user_id in range(first_id, last_id + 1):
            random = Random(f"{self._seed}/{user_id}")
            _Person(user_id, random, self._until, tables).write()
        return tables


class _Person:
    """One person's rows, written into `tables`."""

    def __init__(
        self, user_id: int, random: Random, until: datetime, tables: dict[str, list[Row]]
    ) -> None:
        self._id = user_id
        self._random = random
        self._until = until
        self._tables = tables
        self._joined = until - timedelta(seconds=int(random.random() * _SECONDS) + 3600)
        fate = random.random()
        # Five in a hundred have no claim; of the rest 18 have not signed, 47 have something else
        # outstanding, 12 have only ended claims and 18 have nothing outstanding.
        self._has_claims = fate < 0.95
        self._is_unsigned = fate < 0.18 or (not self._has_claims and self._chance(0.7))
        self._has_outstanding = fate < 0.65
        self._has_only_ended = 0.65 <= fate < 0.77

    def write(self) -> None:
        address_id = self._write_addresses()
        self._write_user(address_id)
        if self._has_claims:
            self._write_claims()
        for _ in range(int(self._random.random() * 5)):
            self._write_log()

    def _write_user(self, address_id: str | None) -> None:
        pick, chance = self._pick, self._chance
        first, last = pick(FIRST_NAMES), pick(LAST_NAMES)
        created, updated = self._times(self._joined)
        signed = None if self._is_unsigned else self._uuid()
        row: Row = {
            "id": self._id,
            "email_address": f"{_ascii(first)}.{_ascii(last)}.{self._id}@example.com",
            "is_enabled": int(not chance(0.03)),
            "status": pick(_USER_STATUS),
            "first_name": None if chance(0.004) else first,
            "last_name": None if chance(0.004) else last,
            "phone_number": self._phone(),
            "date_of_birth": None if chance(0.02) else self._date_of_birth(),
            "previous_name": pick(LAST_NAMES) if chance(0.08) else None,
            "current_user_address_id": address_id,
            "current_user_id_document_id": self._uuid() if chance(0.4) else None,
            "current_signature_file_id": signed,
            "notification_channels": pick(_CHANNELS),
            "third_party_claim_partner": "claims-direct" if chance(0.05) else None,
            "introducer": pick(INTRODUCERS),
            "solicitor": pick(SOLICITORS) if chance(0.3) else None,
            "credit_response_selection_completed": int(chance(0.5)),
            "last_login": self._after(self._joined) if chance(0.8) else None,
            "created_at": created,
            "updated_at": updated,
        }
        self._tables["users"].append(row | self._user_secrets())

    def _user_secrets(self) -> Row:
        texts = ("justcall_id", "voluum_click_id", "pipedrive_id", "google_drive_link")
        return {
            "password": self._canary("password"),
            "remember_token": self._canary("remember_token") if self._chance(0.4) else None,
            **{name: self._canary(name) if self._chance(0.6) else None for name in texts},
            "checkboard_address_links_api_request": self._json("address_links_api_request", 80),
            "checkboard_address_links_api_response": self._json("address_links_api_response", 700),
            "checkboard_user_invite_api_request": self._json("user_invite_api_request", 120),
            "checkboard_user_batch_api_request": self._json("user_batch_api_request", 200),
            "checkboard_user_verify_otp_api_request": self._json("verify_otp_api_request", 60),
        }

    def _write_addresses(self) -> str | None:
        """The id for `users.current_user_address_id`, which now and then is no row's."""
        if self._chance(0.15):
            self._write_address("previous")
        if self._chance(0.08):
            return None
        return self._uuid() if self._chance(0.01) else self._write_address("current")

    def _write_address(self, kind: str) -> str:
        town, county, area = self._pick(TOWNS)
        number, street = str(int(self._random.random() * 180) + 1), self._pick(STREETS)
        post_code = f"{area}{number[0]} {number[-1]}AA"
        created, updated = self._times(self._joined)
        address_id = self._uuid()
        row: Row = {
            "id": address_id,
            "user_id": self._id,
            "type": kind,
            "is_linked_address": int(kind == "previous"),
            "full_address": f"{number} {street}, {town}, {county}, {post_code}",
            "address_line_1": f"{number} {street}",
            "address_line_2": "Flat 2" if self._chance(0.1) else None,
            "house_number": number,
            "street": street,
            "building_name": "Tŷ Gwyn" if self._chance(0.05) else None,
            "county": county,
            "district": None,
            "post_code": post_code,
            "post_town": town,
            "country": "GB",
            "checkboard_raw_address": self._json("raw_address", 200),
            "openai_matching_result": self._json("matching_result", 80),
            "openai_matching_api_details": self._json("matching_api_details", 120),
            "created_at": created,
            "updated_at": updated,
        }
        self._tables["user_addresses"].append(row)
        return address_id

    def _write_claims(self) -> None:
        count = self._pick(_CLAIMS)
        certain = int(self._random.random() * count)
        for number in range(count):
            must_be_open = self._has_outstanding and number == certain
            is_open = not self._has_only_ended and (must_be_open or self._chance(0.7))
            claim_id = self._id * 10 + number
            opened = self._later(self._joined)
            self._write_claim(claim_id, opened, is_open=is_open)
            self._write_requirements(
                claim_id, opened, is_open=is_open, must_be_outstanding=must_be_open
            )

    def _write_claim(self, claim_id: int, opened: datetime, *, is_open: bool) -> None:
        kind = self._pick(_CLAIM_TYPES)
        created, updated = self._times(opened)
        row: Row = {
            "id": claim_id,
            "user_id": self._id,
            "type": kind,
            "status": self._pick(_OPEN_STATUS if is_open else _ENDED_STATUS),
            "lender": None if self._chance(0.02) else self._pick(self._pick(LENDERS)),
            "solicitor": self._pick(SOLICITORS) if self._chance(0.3) else None,
            "client_last_updated_at": self._after(opened) if self._chance(0.3) else None,
            "created_at": created,
            "updated_at": updated,
        }
        self._tables["claims"].append(row)
        if kind == "motor_finance" and self._chance(0.5):
            self._write_vehicle(claim_id, opened)

    def _write_requirements(
        self, claim_id: int, opened: datetime, *, is_open: bool, must_be_outstanding: bool
    ) -> None:
        if must_be_outstanding and self._is_unsigned:
            self._write_requirement(claim_id, opened, "signature", "PENDING")
        elif must_be_outstanding:
            self._write_requirement(claim_id, opened, self._pick(_REQUIREMENT_TYPES), "PENDING")
        elif not self._is_unsigned and self._chance(0.15):
            self._write_requirement(claim_id, opened, "signature", "COMPLETED")
        pending = (0.4 if self._has_outstanding else 0.0) if is_open else 0.15
        for _ in range(self._pick(_REQUIREMENTS)):
            status = "PENDING" if self._chance(pending) else self._pick(_SETTLED)
            self._write_requirement(claim_id, opened, self._pick(_REQUIREMENT_TYPES), status)

    def _write_requirement(
        self, claim_id: int, opened: datetime, kind: str | None, status: str | None
    ) -> None:
        reason = "requested by lender" if self._chance(0.3) else None
        if kind == "id_document" and self._chance(0.6):
            reason = BASE_REASON
        created, updated = self._times(opened)
        row: Row = {
            "id": self._uuid(),
            "claim_id": claim_id,
            "type": kind,
            "status": status,
            "claim_requirement_reason": reason,
            "claim_requirement_rejection_reason": (
                self._pick(_REJECTIONS) if status == "REJECTED" else None
            ),
            "created_at": created,
            "updated_at": updated,
        }
        self._tables["claim_requirements"].append(row)

    def _write_vehicle(self, claim_id: int, opened: datetime) -> None:
        make, model = self._pick(VEHICLES)
        start = opened - timedelta(days=300 + int(self._random.random() * 2500))
        pounds, pence = 80 + int(self._random.random() * 500), int(self._random.random() * 100)
        created, updated = self._times(opened)
        row: Row = {
            "id": self._uuid(),
            "claim_id": claim_id,
            "vehicle_registration": f"AB{10 + claim_id % 60} {self._pick(('XYZ', 'KLM', 'PQR'))}",
            "vehicle_make": make,
            "vehicle_model": model,
            "dealership_name": None if self._chance(0.1) else self._pick(DEALERS),
            "monthly_payment": None if self._chance(0.05) else f"{pounds}.{pence:02}",
            "contract_start_date": start.date().isoformat(),
            "status": self._pick((None, "confirmed", "unconfirmed")),
            "created_at": created,
            "updated_at": updated,
        }
        self._tables["claim_vehicle_packages"].append(row)

    def _write_log(self) -> None:
        row: Row = {
            "id": self._uuid(),
            "user_id": self._id,
            "type": self._pick(_LOG_TYPES),
            "detail": None,
            "ip_address": self._canary("ip"),
            "created_at": self._after(self._joined),
        }
        self._tables["user_logs"].append(row)

    def _phone(self) -> str | None:
        roll = self._random.random()
        if roll < 0.015:
            return None
        if roll < 0.025:
            return ""
        if roll < 0.045:
            return self._pick(INVALID_PHONES)
        area, number = self._number()
        return self._pick(PHONE_FORMATS).format(area=area.removeprefix("0"), rest=number)

    def _number(self) -> tuple[str, str]:
        """Some numbers are shared on purpose; past some 18,000 people the drama ranges are full."""
        if self._chance(0.2):
            area, rest = MOBILE_RANGE
            return area, f"{rest}{int(self._random.random() * NUMBERS_IN_RANGE):03}"
        owner = self._id - 1 if self._id > 1 and self._chance(0.02) else self._id
        # 7 shares no factor with the number of numbers, so neighbours differ and none repeats.
        place = owner * 7 % (len(LANDLINE_RANGES) * NUMBERS_IN_RANGE)
        area, rest = LANDLINE_RANGES[place // NUMBERS_IN_RANGE]
        return area, f"{rest}{place % NUMBERS_IN_RANGE:03}"

    def _date_of_birth(self) -> str:
        return (date(1940, 1, 1) + timedelta(days=int(self._random.random() * 24_000))).isoformat()

    def _json(self, name: str, size_bytes: int) -> str | None:
        if self._chance(0.25):
            return None
        # One in five hundred is a whole response of tens of kilobytes.
        size = 20_000 + int(self._random.random() * 30_000) if self._chance(0.002) else size_bytes
        # Nothing in either text needs escaping, and this is most of the bytes there are.
        return f'{{"token": "{self._canary(name)}", "trace": "{_FILLER[:size]}"}}'

    def _canary(self, name: str) -> str:
        return f"{CANARY}-{name}-{self._id}"

    def _times(self, created: datetime) -> tuple[str | None, str | None]:
        """`created_at` and `updated_at`: some are NULL, some rows were never updated."""
        at = None if self._chance(0.01) else created.isoformat(" ")
        roll = self._random.random()
        if roll < 0.02:
            return at, None
        return at, at if roll < 0.5 else self._after(created)

    def _later(self, moment: datetime) -> datetime:
        seconds = int((self._until - moment).total_seconds())
        return moment + timedelta(seconds=int(self._random.random() ** 2 * seconds))

    def _after(self, moment: datetime) -> str:
        return self._later(moment).isoformat(" ")

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _pick(self, values: Sequence[T]) -> T:
        return values[int(self._random.random() * len(values))]

    def _uuid(self) -> str:
        digits = f"{self._random.getrandbits(128):032x}"
        third, fourth = f"4{digits[13:16]}", f"a{digits[17:20]}"  # as a random UUID has them
        return f"{digits[:8]}-{digits[8:12]}-{third}-{fourth}-{digits[20:]}"


def _ascii(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z]", "", plain.lower()) or "x"

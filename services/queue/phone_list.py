"""A list of phone numbers as it comes in: CSV, cut anywhere, in whatever spelling."""

import codecs
import csv
from collections.abc import Iterator
from dataclasses import dataclass, field

from servicekit.errors import InvalidArgument
from services.queue.domain.phone_numbers import listed_number

INVALID_LINES_TOLD = 100
LONGEST_LINE = 10_000

_HEADINGS = frozenset({"phone", "number", "telephone", "phone_number"})


@dataclass(slots=True)
class PhoneListReader:
    """Reads numbers from parts of a CSV file; counts the lines it makes nothing of."""

    lines: int = 0
    invalid: int = 0
    invalid_lines: list[int] = field(default_factory=list)
    _line_number: int = 0
    _column: int | None = None
    _rest: str = ""
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8-sig")()
    )

    def feed(self, part: bytes, *, is_last: bool = False) -> list[str]:
        """Return the numbers of the lines that are complete; raises InvalidArgument.

        CSV_NOT_UTF8 for other text, CSV_LINE_TOO_LONG for what cannot be a list of numbers.
        """
        try:
            text = self._rest + self._decoder.decode(part, final=is_last)
        except UnicodeDecodeError:
            raise InvalidArgument("CSV_NOT_UTF8", "the file is not UTF-8 text") from None
        complete = text.splitlines(keepends=True)
        self._rest = ""
        # A line that ends in \r may go on with \n.
        if complete and not is_last and not complete[-1].endswith("\n"):
            self._rest = complete.pop()
        if any(len(line) > LONGEST_LINE for line in (*complete, self._rest)):
            raise InvalidArgument("CSV_LINE_TOO_LONG", "a line is too long for a list of numbers")
        return list(self._numbers(complete))

    def _numbers(self, lines: list[str]) -> Iterator[str]:
        for line in lines:
            self._line_number += 1
            cells = _cells(line)
            if not any(cells) or self._is_heading(cells):
                continue
            self.lines += 1
            number = listed_number(cells[self._column or 0]) if self._fits(cells) else None
            if number is not None:
                yield number
                continue
            self.invalid += 1
            if len(self.invalid_lines) < INVALID_LINES_TOLD:
                self.invalid_lines.append(self._line_number)

    def _fits(self, cells: list[str]) -> bool:
        return len(cells) > (self._column or 0)

    def _is_heading(self, cells: list[str]) -> bool:
        if self.lines or self._column is not None:
            return False
        found = [place for place, cell in enumerate(cells) if cell.casefold() in _HEADINGS]
        if found:
            self._column = found[0]
        return bool(found)


def _cells(line: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line.rstrip("\r\n")], strict=False), [])]
    except csv.Error:
        return [line]

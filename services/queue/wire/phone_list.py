"""Reads an imported list of phone numbers: CSV in parts of any size, numbers in any spelling."""

import codecs
import csv
from collections.abc import Iterator
from dataclasses import dataclass, field

from servicekit.errors import InvalidArgument
from servicekit.phone_numbers import possible_numbers_in

INVALID_LINES_LISTED = 100
LONGEST_LINE = 10_000

_HEADINGS = frozenset({"phone", "number", "telephone", "phone_number"})


@dataclass(slots=True)
class PhoneListReader:
    """Reads numbers from the parts of a CSV file, and counts the lines without a number."""

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
        """Return the numbers of the lines that are complete.

        Raises InvalidArgument (CSV_NOT_UTF8, CSV_LINE_TOO_LONG).
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
            try:
                row = next(csv.reader([line.rstrip("\r\n")], strict=False), [])
                cells = [cell.strip() for cell in row]
            except csv.Error:
                cells = [line]
            if not any(cells):
                continue
            if not self.lines and self._column is None:
                # The first line with text may be a heading.
                headings = [at for at, cell in enumerate(cells) if cell.casefold() in _HEADINGS]
                if headings:
                    self._column = headings[0]
                    continue
            self.lines += 1
            column = self._column or 0
            found = possible_numbers_in(cells[column]) if column < len(cells) else ()
            if found:
                yield from found
                continue
            self.invalid += 1
            if len(self.invalid_lines) < INVALID_LINES_LISTED:
                self.invalid_lines.append(self._line_number)

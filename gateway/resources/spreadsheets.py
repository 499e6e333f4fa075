"""Lines of CSV (RFC 4180) that a spreadsheet opens as they are."""

import csv
import io
from collections.abc import Sequence

CSV = "text/csv"

# What a spreadsheet takes for the beginning of a formula, and would execute.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_line(cells: Sequence[str]) -> str:
    """Return the line; a cell that begins like a formula and is no number is quoted."""
    line = io.StringIO()
    safe = [f"'{it}" if it.startswith(_FORMULA) and not it[1:].isdigit() else it for it in cells]
    csv.writer(line, lineterminator="\r\n").writerow(safe)
    return line.getvalue()

"""Tables of measurements: CSV files read with care, and written whole."""

import csv
import dataclasses
import datetime
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import FormatError, InputError, ParameterError
from .._typing import HostArray

# What an empty cell may look like, compared without case.
MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "-", "?"})
CALENDAR = "decimal years, 2000 + (Julian date - 2451545) / 365.25"


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as text, by column; ``rows`` holds the number of each row in the file."""

    path: str
    header: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    rows: tuple[int, ...]
    decimal_comma: bool = False

    def plain(self, name: str) -> list[str]:
        """The cells of a column, numbers with a decimal comma rewritten with a point."""
        return [
            cell.replace(",", ".")
            if "," in cell and _number(cell, self.decimal_comma) is not None
            else cell
            for cell in self.column(name)
        ]

    def column(self, name: str) -> list[str]:
        if name not in self.header:
            raise ParameterError(
                f"{self.path} has no column '{name}'. Fix: choose from {', '.join(self.header)}."
            )
        index = self.header.index(name)
        return [row[index] for row in self.cells]


def read_table(path: str) -> Table:
    """A CSV file with a header: comma, semicolon or tab; BOM and any line ends are fine."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{path} is not UTF-8 text: {error.reason}. Fix: save as UTF-8."
        ) from error
    if not text.strip():
        raise FormatError(f"{path} is empty. Fix: pass a file with a header and rows.")
    first = next(line for line in text.split("\n") if line.strip())
    delimiter = max((",", ";", "\t"), key=re.sub('"[^"]*"', "", first).count)
    header: tuple[str, ...] | None = None
    cells, numbers = [], []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    for row in _rows(path, reader):
        if not any(cell.strip() for cell in row) and len(row) < 2:
            continue
        values = tuple(cell.strip() for cell in row)
        if header is None:
            header = _checked_header(path, values)
        elif len(values) != len(header):
            raise FormatError(
                f"{path}: row {reader.line_num} has {len(values)} cells, expected {len(header)}. "
                "Fix: complete that row."
            )
        else:
            cells.append(values)
            numbers.append(reader.line_num)
    if header is None or not cells:
        raise FormatError(f"{path} has a header but no rows. Fix: pass a file with data.")
    return Table(path, header, tuple(cells), tuple(numbers), decimal_comma=delimiter != ",")


def _rows(path: str, reader: Any) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise FormatError(
            f"{path}: row {reader.line_num} is not CSV: {error}. Fix: correct that row."
        ) from error


def _checked_header(path: str, names: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise FormatError(
            f"{path} has more than one column '{repeated[0]}'. Fix: give each column its own name."
        )
    return names


@dataclasses.dataclass(frozen=True)
class Numbers:
    """One column as numbers, NaN where the cell is missing, and which cells were not numbers."""

    values: HostArray
    dates: bool
    bad: tuple[int, ...]


def read_numbers(table: Table, name: str, *, dates: bool | None, drop_bad: bool) -> Numbers:
    """A column of numbers, or of ISO dates as decimal years.

    ``dates`` says which of the two it must be; None takes dates where most cells are. A cell
    that is neither raises `InputError` with its row, or is listed in ``bad`` where ``drop_bad``.
    """
    column = table.column(name)
    known = [cell for cell in column if cell.lower() not in MISSING]
    if dates is None:
        dates = 2 * sum(_decimal_year(cell) is not None for cell in known) > len(known)
    values, bad = np.full(len(column), np.nan), []
    for index, cell in enumerate(column):
        if cell.lower() in MISSING:
            continue
        number = _decimal_year(cell) if dates else _number(cell, table.decimal_comma)
        if number is not None and np.isfinite(number):
            values[index] = number
        elif drop_bad:
            bad.append(index)
        else:
            kind = "an ISO date (YYYY-MM-DD)" if dates else "a number"
            raise InputError(
                f"{table.path}: row {table.rows[index]}, column '{name}': '{cell}' is not {kind}. "
                "Fix: correct the cell, or pass --bad-rows=drop."
            )
    return Numbers(values, dates, tuple(bad))


def _number(cell: str, decimal_comma: bool) -> float | None:
    # Where the comma separates cells, one inside a cell may as well separate thousands.
    if decimal_comma and cell.count(",") == 1 and "." not in cell:
        cell = cell.replace(",", ".")
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _decimal_year(cell: str) -> float | None:
    if len(cell) < 8 or not cell[:4].isdigit() or "-" not in cell:
        return None
    try:
        moment = datetime.datetime.fromisoformat(cell)
        if moment.tzinfo is not None:
            moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
    day = (moment - datetime.datetime.combine(moment, datetime.time())).total_seconds()
    julian = moment.toordinal() + 1721424.5 + day / 86400.0
    return float(2000.0 + (julian - 2451545.0) / 365.25)


def format_table(header: list[str], columns: list[list[str]]) -> str:
    """CSV text from columns of cells."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))
    return out.getvalue()


def forecast_cells(mean: Any, std: Any) -> list[list[str]]:
    """The columns mean, std, lower, upper of the observation (95 %); empty where unknown."""
    mean, std = np.asarray(mean, float), np.asarray(std, float)
    columns = [mean, std, mean - 1.959964 * std, mean + 1.959964 * std]
    return [[f"{v:.10g}" if np.isfinite(v) else "" for v in column] for column in columns]

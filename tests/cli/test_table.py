"""CSV files: read as they are meant, or refused with the row and the column."""

import csv
import io

import numpy as np
import pytest

import kernax as kx
from kernax.cli._table import (
    CALENDAR,
    MISSING,
    forecast_cells,
    format_table,
    read_numbers,
    read_table,
)

NAN = np.nan


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "data.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(str(path))

    return read


def values(table, name, *, dates=None, drop_bad=False):
    return read_numbers(table, name, dates=dates, drop_bad=drop_bad).values


@pytest.mark.parametrize(
    ("content", "t", "y"),
    [
        ("t,y\n1,2\n3,4\n", [1, 3], [2, 4]),
        ("t,y\n1,2\n3,4", [1, 3], [2, 4]),
        ("\ufefft,y\n1,2\n3,4\n", [1, 3], [2, 4]),
        ("t,y\r\n1,2\r\n3,4\r\n", [1, 3], [2, 4]),
        ("\ufefft;y\r\n1,5;2\r\n3;4\r\n", [1.5, 3], [2, 4]),
        ("t,y\r1,2\r3,4\r", [1, 3], [2, 4]),
        ("\n\nt,y\n\n1,2\n\n3,4\n\n", [1, 3], [2, 4]),
        (" t , y \n 1 ,\t2\n3, 4\n", [1, 3], [2, 4]),
        ('"t","y"\n"1","2"\n3,"4"\n', [1, 3], [2, 4]),
        ("t\ty\n1\t2\n3\t4\n", [1, 3], [2, 4]),
        ("t\ty\n1,5\t2\n3\t-4,25\n", [1.5, 3], [2, -4.25]),
        ("t;y\n1,5;2.5\n-3;4e-3\n", [1.5, -3], [2.5, 0.004]),
        ("t,y\n1e3,-2.5E-1\n.5,+7.\n", [1000, 0.5], [-0.25, 7]),
        ("t,y\n1,\n,2\n", [1, NAN], [NAN, 2]),
        ("t,y\n,\n1,2\n", [NAN, 1], [NAN, 2]),
        ("y,note,t\n2,\"a, b\nand c\",1\n4,'x',3\n", [1, 3], [2, 4]),
    ],
)
def test_what_is_read(content, t, y, read):
    table = read(content)
    np.testing.assert_array_equal(values(table, "t"), np.asarray(t, float))
    np.testing.assert_array_equal(values(table, "y"), np.asarray(y, float))


def test_the_delimiter_is_that_of_the_header(read):
    table = read('"a,b";"c,d"\n1;2\n')
    assert table.header == ("a,b", "c,d")
    assert table.decimal_comma
    table = read("only\n1\n2\n")
    assert table.header == ("only",)
    assert not table.decimal_comma


@pytest.mark.parametrize("cell", [*sorted(MISSING), "NA", "NaN", "#N/A", "Null", " n/a ", '""'])
def test_missing_cells(cell, read):
    table = read(f"t,y\n1,{cell}\n2,5\n")
    numbers = read_numbers(table, "y", dates=None, drop_bad=False)
    np.testing.assert_array_equal(numbers.values, [NAN, 5.0])
    assert numbers.bad == ()


def test_the_documented_list_of_missing_cells():
    assert {"", "na", "n/a", "#n/a", "nan", "null", "none", "-", "?"} == MISSING


MISSPELT = ["abc", "1_000", "1 000", "0x10", "1e", "1.2.3", "50%", "'1'", "\u22125", "1+2", "$1"]
NOT_FINITE = ["inf", "-Infinity", "1e400", "-nan"]


@pytest.mark.parametrize("cell", [*MISSPELT, *NOT_FINITE])
def test_a_cell_that_is_no_number_is_named_with_row_and_column(cell, read, tmp_path):
    table = read(f"t,y\n1,2\n\n3,{cell}\n")
    with pytest.raises(kx.InputError) as caught:
        values(table, "y")
    # Rows are counted as an editor does, the header and blank lines included.
    assert str(caught.value) == (
        f"{tmp_path / 'data.csv'}: row 4, column 'y': '{cell}' is not a number. "
        "Fix: correct the cell, or pass --bad-rows=drop."
    )
    numbers = read_numbers(table, "y", dates=None, drop_bad=True)
    np.testing.assert_array_equal(numbers.values, [2.0, NAN])
    assert numbers.bad == (1,)


def test_a_decimal_comma_only_where_the_comma_separates_no_cells(read):
    with pytest.raises(kx.InputError, match="row 2, column 't': '1,5' is not a number"):
        values(read('t,y\n"1,5",2\n'), "t")
    for cell in ("1.234,5", "1,234,5"):
        with pytest.raises(kx.InputError, match=f"row 2, column 't': '{cell}' is not a number"):
            values(read(f"t;y\n{cell};2\n"), "t")
    assert read("t;y\n1,5;a,b\n").plain("t") == ["1.5"]
    assert read("t;y\n1,5;a,b\n").plain("y") == ["a,b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty. Fix: pass a file with a header and rows."),
        (" \n\t\n", "is empty. Fix"),
        ("t,y\n", "has a header but no rows. Fix: pass a file with data."),
        ("t,y\n\n \n", "has a header but no rows"),
        ("t,y\n1,2\n3\n", ": row 3 has 1 cells, expected 2. Fix: complete that row."),
        ("t,y\n1,2\n\n3,4,5\n", ": row 4 has 3 cells, expected 2"),
        ("t,y\n1,2,\n", ": row 2 has 3 cells, expected 2"),
        ("y\n1,5\n", ": row 2 has 2 cells, expected 1"),
        ("t,y,t\n1,2,3\n", "has more than one column 't'. Fix: give each column its own name."),
        ("t, t\n1,2\n", "has more than one column 't'"),
        ('t,y\n"1"x,2\n', ": row 2 is not CSV: "),
        ('t,y\n1,2\n"3,4\n', ": row 3 is not CSV: unexpected end of data"),
        ("t,y\n1," + "2" * 140_000 + "\n", ": row 2 is not CSV: field larger than"),
        (b"t,y\n1,\xff\n", "is not UTF-8 text: invalid start byte. Fix: save as UTF-8."),
        ("t,y\n1,2\n".encode("utf-16"), "is not UTF-8 text"),
    ],
)
def test_what_is_no_table_is_refused(content, message, read, tmp_path):
    with pytest.raises(kx.FormatError) as caught:
        read(content)
    assert str(caught.value).startswith(f"{tmp_path / 'data.csv'}")
    assert message in str(caught.value)


def test_an_unknown_column_is_answered_with_those_there_are(read):
    with pytest.raises(kx.ParameterError, match=r"has no column 'x'\. Fix: choose from t, y\."):
        values(read("t,y\n1,2\n"), "x")


# --- dates --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "days"),
    [
        # Days after noon, 1 January 2000, Greenwich: the Julian date 2451545.
        ("2000-01-01", -0.5),
        ("2000-01-01T12:00", 0),
        ("2000-01-01 12:00:00", 0),
        ("2000-01-01T12:00:00Z", 0),
        ("2000-01-01T14:30+02:30", 0),
        ("2000-01-01T00:00-12:00", 0),
        ("1999-12-31T23:00-05:00", -1 / 3),
        ("2000-01-02T12:00:00.5", 1 + 0.5 / 86400),
        ("2000-03-01", 59.5),
        ("2001-01-01", 365.5),
        ("1958-03-29", -15253.5),
        ("1858-11-17", -51544.5),
        ("2100-03-01", 36583.5),
    ],
)
def test_dates_become_decimal_years(cell, days, read):
    numbers = read_numbers(read(f"when,y\n{cell},1\n"), "when", dates=None, drop_bad=False)
    assert numbers.dates
    # A thousandth of a second is 3e-11 years.
    assert numbers.values[0] == pytest.approx(2000 + days / 365.25, rel=0, abs=3e-11)
    assert CALENDAR == "decimal years, 2000 + (Julian date - 2451545) / 365.25"


@pytest.mark.parametrize(
    "cell", ["20000101", "2000.5", "-2000", "200-01-01", "2000-01", "1-1-2000"]
)
def test_what_is_no_iso_date_is_not_taken_for_one(cell, read):
    numbers = read_numbers(read(f"when\n{cell}\n"), "when", dates=None, drop_bad=True)
    assert not numbers.dates


DATE = "2000-01-01T12:00"


@pytest.mark.parametrize(
    ("cells", "dates", "message"),
    [
        ([DATE, DATE, "5"], None, "row 4, column 'd': '5' is not an ISO date"),
        ([DATE, DATE, "2000-02-30"], None, "row 4, column 'd': '2000-02-30' is not an ISO date"),
        ([DATE, "5", "6"], None, f"row 2, column 'd': '{DATE}' is not a number"),
        (["5", DATE], None, f"row 3, column 'd': '{DATE}' is not a number"),
        ([DATE, "NA", "-", "5", DATE], None, "row 5, column 'd': '5' is not an ISO date"),
        ([DATE], False, f"row 2, column 'd': '{DATE}' is not a number"),
        (["2000"], True, r"row 2, column 'd': '2000' is not an ISO date \(YYYY-MM-DD\)"),
    ],
)
def test_a_column_is_of_dates_or_of_numbers(cells, dates, message, read):
    table = read("d\n" + "\n".join(cells) + "\n")
    with pytest.raises(kx.InputError, match=message):
        values(table, "d", dates=dates)
    numbers = read_numbers(table, "d", dates=dates, drop_bad=True)
    assert len(numbers.bad) == 1
    assert np.isnan(numbers.values[list(numbers.bad)]).all()


def test_a_column_without_any_value_is_of_numbers(read):
    numbers = read_numbers(read("d,y\nNA,1\n,2\n"), "d", dates=None, drop_bad=False)
    assert not numbers.dates
    assert np.isnan(numbers.values).all()


# --- writing ------------------------------------------------------------------------------------


def test_forecast_cells():
    mean, std = [1 / 3, NAN, 1e10], [0.1, NAN, 0.0]
    columns = forecast_cells(mean, std)
    assert [column[1] for column in columns] == ["", "", "", ""]
    assert columns[0][0] == "0.3333333333"
    assert columns[1][0] == "0.1"
    # The 2.5 % point of the normal distribution.
    assert float(columns[2][0]) == pytest.approx(1 / 3 - 0.1 * 1.959963985, rel=1e-6)
    assert float(columns[3][0]) == pytest.approx(1 / 3 + 0.1 * 1.959963985, rel=1e-6)
    assert [column[2] for column in columns] == ["1e+10", "0", "1e+10", "1e+10"]


def test_what_is_written_reads_back(read):
    cells = [["1", "2"], ['say "x", or y', "two\nlines"]]
    text = format_table(["t", "a;b"], cells)
    assert list(csv.reader(io.StringIO(text)))[1] == ["1", 'say "x", or y']
    table = read(text)
    assert table.header == ("t", "a;b")
    assert table.column("t") == cells[0]
    assert table.column("a;b") == cells[1]

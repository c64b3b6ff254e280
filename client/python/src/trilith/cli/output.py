"""Prints rows and lists."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
import unicodedata
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from itertools import zip_longest
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as parquet

Batches = Iterable[pa.RecordBatch]


def rows(schema: pa.Schema, batches: Batches, format: str, path: str | None) -> None:
    """Writes rows, as they come unless they are a table for people. Errors: OSError, those of reading the rows."""
    with _sink(path) as out:
        if format == "parquet":
            with parquet.ParquetWriter(out, schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
        elif format == "arrow":
            with pa.ipc.new_stream(out, schema) as stream:
                for batch in batches:
                    stream.write_batch(batch)
        else:
            text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
            try:
                {"table": _table, "json": _json, "csv": _csv}[format](schema.names, batches, text)
            finally:
                text.detach()


def records(
    fields: Mapping[str, pa.DataType], values: Sequence[Sequence[Any]], format: str, path: str | None
) -> None:
    """Writes a list: names with types, and one sequence for each row."""
    schema = pa.schema(list(fields.items()))
    columns = [pa.array([row[index] for row in values], field.type) for index, field in enumerate(schema)]
    rows(schema, [pa.record_batch(columns, schema=schema)], format, path)


@contextmanager
def _sink(path: str | None) -> Iterator[BinaryIO]:
    if path is not None:
        with open(path, "wb") as file:
            yield file
    else:
        # pyarrow closes what it is given.
        with open(sys.stdout.fileno(), "wb", closefd=False) as out:
            yield out


def _values(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    columns = [[_python(value) for value in column] for column in batch.columns]
    yield from zip(*columns, strict=True)


def _python(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        # A time that Python's years do not reach: milliseconds since the epoch.
        return scalar.value


def _json(names: Sequence[str], batches: Batches, out: io.TextIOWrapper) -> None:
    """One object per line."""
    for batch in batches:
        for row in _values(batch):
            pairs = zip(names, map(_plain, row), strict=True)
            out.write(json.dumps(dict(pairs), ensure_ascii=False, allow_nan=False) + "\n")


def _csv(names: Sequence[str], batches: Batches, out: io.TextIOWrapper) -> None:
    """With a header; NULL is empty."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for batch in batches:
        writer.writerows(["" if value is None else _text(value) for value in row] for row in _values(batch))


def _table(names: Sequence[str], batches: Batches, out: io.TextIOWrapper) -> None:
    """For people: a box, and how many rows are in it; NULL is empty."""
    cells = [["" if value is None else _text(value) for value in row] for batch in batches for row in _values(batch)]
    lines = [[cell.splitlines() or [""] for cell in row] for row in [list(names), *cells]]
    widths = [max(_width(line) for row in lines for line in row[column]) for column in range(len(names))]

    def rule(left: str, fill: str, cross: str, right: str) -> str:
        return left + cross.join(fill * (width + 2) for width in widths) + right + "\n"

    out.write(rule("┌", "─", "┬", "┐"))
    for number, row in enumerate(lines):
        for parts in zip_longest(*row, fillvalue=""):
            padded = (part + " " * (width - _width(part)) for part, width in zip(parts, widths, strict=True))
            out.write("│ " + " ┆ ".join(padded) + " │\n")
        if number == 0:
            out.write(rule("╞", "═", "╪", "╡"))
    out.write(rule("└", "─", "┴", "┘"))
    out.write(f"{len(cells)} rows\n")


def _width(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def _plain(value: Any) -> Any:
    """A value as JSON has it. Numbers that JSON does not have are texts, as in Druid's answers."""
    match value:
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case Decimal():
            return float(value)
        case datetime():
            return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case bytes():
            return b64encode(value).decode()
        case list():
            return [_plain(item) for item in value]
        case dict():
            return {key: _plain(item) for key, item in value.items()}
    return value


def _text(value: Any) -> str:
    """A value that is not NULL, for tables and CSV; lists are JSON."""
    plain = _plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)

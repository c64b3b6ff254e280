"""Writes the Parquet files of this directory, and the values that must be read from them (expected.json).

Run once with pyarrow 26 and duckdb 2 from PyPI; the results are checked in.
"""

import datetime as dt
import decimal
import json
import uuid

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

UTC = dt.timezone.utc
MOMENT = dt.datetime(2024, 2, 29, 12, 34, 56, 789123, tzinfo=UTC)
BEFORE = dt.datetime(1969, 12, 31, 23, 59, 58, 250000, tzinfo=UTC)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=UTC)


def ms(moment):
    return (moment - EPOCH) // dt.timedelta(milliseconds=1)


D = decimal.Decimal
# name, Arrow type, values of two rows (a third is null), what is read as text, number and JSON
COLUMNS = [
    ("bool", pa.bool_(), [True, False]),
    ("i8", pa.int8(), [-128, 127]),
    ("i16", pa.int16(), [-32768, 32767]),
    ("i32", pa.int32(), [-2147483648, 2147483647]),
    ("i64", pa.int64(), [-(2**63), 2**63 - 1]),
    ("u8", pa.uint8(), [0, 255]),
    ("u16", pa.uint16(), [0, 65535]),
    ("u32", pa.uint32(), [0, 4294967295]),
    ("u64", pa.uint64(), [1, 2**63]),
    ("f16", pa.float16(), [1.5, -2.0]),
    ("f32", pa.float32(), [0.5, -1e10]),
    ("f64", pa.float64(), [1.25, 1e300]),
    ("dec32", pa.decimal128(7, 2), [D("12345.60"), D("-0.05")]),
    ("dec64", pa.decimal128(15, 3), [D("1.500"), D("-999999999999.999")]),
    ("dec128", pa.decimal128(30, 10), [D("0.1000000000"), D("-12345678901234567890.5000000000")]),
    ("text", pa.string(), ["grün", ""]),
    ("bytes", pa.binary(), [b"\x00\xff", b"abc"]),
    ("fixed", pa.binary(3), [b"xyz", b"\x01\x02\x03"]),
    ("date", pa.date32(), [dt.date(2024, 2, 29), dt.date(1969, 12, 31)]),
    ("ts_ms", pa.timestamp("ms", "UTC"), [MOMENT.replace(microsecond=789000), BEFORE]),
    ("ts_us", pa.timestamp("us", "UTC"), [MOMENT, BEFORE]),
    ("ts_ns", pa.timestamp("ns"), [MOMENT.replace(tzinfo=None), BEFORE.replace(tzinfo=None)]),
    ("time_ms", pa.time32("ms"), [dt.time(1, 2, 3, 4000), dt.time(0)]),
    ("time_us", pa.time64("us"), [dt.time(1, 2, 3, 4005), dt.time(0)]),
    ("list", pa.list_(pa.int64()), [[1, None, 3], []]),
    ("texts", pa.list_(pa.string()), [["a", "b"], ["only"]]),
    ("map", pa.map_(pa.string(), pa.int32()), [[("k", 1), ("l", 2)], []]),
    (
        "nested",
        pa.struct([("a", pa.struct([("b", pa.int32())])), ("c", pa.list_(pa.struct([("d", pa.string())])))]),
        [{"a": {"b": 7}, "c": [{"d": "x"}, {"d": None}]}, {"a": None, "c": []}],
    ),
]


def base64(value):
    import base64

    return base64.b64encode(value).decode()


def plain(name, value):
    """As JSON: times in milliseconds, bytes as base64, maps as objects."""
    if isinstance(value, dt.datetime):
        return ms(value if value.tzinfo else value.replace(tzinfo=UTC))
    if isinstance(value, dt.date):
        return (value - dt.date(1970, 1, 1)).days * 86_400_000
    if isinstance(value, dt.time):
        micros = ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
        return micros // 1000 if name == "time_ms" else micros
    if isinstance(value, D):
        return float(value)
    if isinstance(value, bytes):
        return base64(value)
    if name == "map" and value is not None:
        return dict(value)
    return value


def rows(codec, **options):
    table = pa.table({name: pa.array(values + [None], type=kind) for name, kind, values in COLUMNS})
    pq.write_table(table, f"types-{codec}.parquet", compression=codec, **options)


rows("snappy", store_decimal_as_integer=True)
rows("gzip", use_deprecated_int96_timestamps=True)
rows("zstd", data_page_version="2.0", use_dictionary=False)

expected = {
    name: {
        "json": [plain(name, value) for value in values] + [None],
        # Decimals keep all their digits as text.
        "text": [str(value) for value in values] if isinstance(values[0], D) else None,
    }
    for name, _, values in COLUMNS
}
with open("expected.json", "w") as file:
    json.dump(expected, file, indent=1, ensure_ascii=False)
    file.write("\n")

# Types that pyarrow does not write.
ID = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")
duckdb.sql(
    f"""COPY (SELECT '{{"a": 1}}'::JSON AS j, '{ID}'::UUID AS id, 'yes'::ENUM ('yes', 'no') AS e,
        INTERVAL '1 day 2 seconds 500 milliseconds' AS span)
        TO 'duckdb.parquet' (FORMAT parquet)"""
)
# Three row groups of two rows, for files that are read in parts.
pq.write_table(pa.table({"n": list(range(6)), "word": list("abcdef")}), "groups.parquet", row_group_size=2)

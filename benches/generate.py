"""Writes copies of the bundled edits with shifted times: 48 copies over 8 days in 8 files, plain and gz."""

import argparse
import gzip
import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent
EDITS = HERE.parent / "tests" / "data" / "wikipedia-edits.json.gz"
FILES = 8
DAY = re.compile(rb'"time":"2015-09-12')


def generate(directory: pathlib.Path, copies: int) -> int:
    """Returns the number of rows. What is there already is kept."""
    edits = gzip.decompress(EDITS.read_bytes())
    rows = edits.count(b"\n") * copies
    for kind in ("json", "gz"):
        (directory / kind).mkdir(parents=True, exist_ok=True)
    for number in range(FILES):
        day = b'"time":"2015-09-%02d' % (12 + number)
        shifted = DAY.sub(day, edits)
        plain = directory / "json" / f"edits{number}.json"
        packed = directory / "gz" / f"edits{number}.json.gz"
        each = copies // FILES
        if not plain.exists() or plain.stat().st_size != len(shifted) * each:
            with plain.open("wb") as out:
                for _ in range(each):
                    out.write(shifted)
        if not packed.exists():
            # Members follow each other: the same bytes as compressing all copies one by one.
            member = gzip.compress(shifted, 6)
            with packed.open("wb") as out:
                for _ in range(each):
                    out.write(member)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--copies", type=int, default=48)
    arguments = parser.parse_args()
    print(generate(arguments.directory, arguments.copies), "rows")

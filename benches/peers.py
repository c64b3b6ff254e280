"""The same job in other engines: parse times, partition by day, cluster by channel, zstd Parquet."""

import pathlib
import sys

COLUMNS = ["time", "channel", "page", "user", "comment", "added", "deleted", "delta"]


def duckdb_job(files: list[str], out: str) -> int:
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET threads TO 2")
    types = ", ".join(
        f"{name}: '{'BIGINT' if name in ('added', 'deleted', 'delta') else 'VARCHAR'}'" for name in COLUMNS
    )
    connection.execute(
        f"""COPY (SELECT "time"::TIMESTAMP AS __time, channel, page, "user", "comment", added, deleted, delta,
                         CAST("time"::TIMESTAMP AS DATE) AS day
                  FROM read_json({files!r}, format='newline_delimited', columns={{{types}}})
                  ORDER BY day, channel)
            TO '{out}' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (day), OVERWRITE_OR_IGNORE)"""
    )
    return connection.execute(f"SELECT COUNT(*) FROM read_parquet('{out}/**/*.parquet')").fetchone()[0]


def chdb_job(files: list[str], out: str) -> int:
    from chdb import session

    path = pathlib.Path(out)
    connection = session.Session(str(path / "session"))
    folder = pathlib.Path(files[0]).parent
    pattern = f"{folder}/*.json*"
    structure = ", ".join(
        f"`{name}` {'Int64' if name in ('added', 'deleted', 'delta') else 'Nullable(String)'}" for name in COLUMNS
    )
    connection.query("CREATE DATABASE b ENGINE = Atomic")
    connection.query(
        "CREATE TABLE b.t (__time DateTime64(3), channel String, page Nullable(String), user Nullable(String), "
        "comment Nullable(String), added Int64, deleted Int64, delta Int64) "
        "ENGINE = MergeTree PARTITION BY toDate(__time) ORDER BY channel SETTINGS default_compression_codec='ZSTD(1)'"
    )
    connection.query(
        f"INSERT INTO b.t SELECT parseDateTime64BestEffort(time, 3), channel, page, user, comment, added, deleted, delta "
        f"FROM file('{pattern}', JSONEachRow, '{structure}') SETTINGS max_threads = 2, max_insert_threads = 2"
    )
    return int(str(connection.query("SELECT count() FROM b.t", "CSV")).strip())


def polars_job(files: list[str], out: str) -> int:
    import polars

    schema = {name: polars.Int64 if name in ("added", "deleted", "delta") else polars.String for name in COLUMNS}
    frames = []
    for file in files:
        data = pathlib.Path(file).read_bytes()
        if file.endswith(".gz"):
            import gzip

            data = gzip.decompress(data)
        frames.append(polars.read_ndjson(data, schema_overrides=schema, ignore_errors=True).select(COLUMNS))
    frame = polars.concat(frames).with_columns(
        polars.col("time").str.to_datetime("%Y-%m-%dT%H:%M:%S%.3fZ").alias("__time")
    )
    frame = frame.with_columns(polars.col("__time").dt.date().alias("day")).sort("day", "channel")
    for (day,), part in frame.partition_by("day", as_dict=True).items():
        part.write_parquet(f"{out}/{day}.parquet", compression="zstd", compression_level=1)
    return polars.scan_parquet(f"{out}/*.parquet").select(polars.len()).collect().item()


def datafusion_job(files: list[str], out: str) -> int:
    import datafusion
    import pyarrow

    config = datafusion.SessionConfig().with_target_partitions(2)
    context = datafusion.SessionContext(config)
    schema = pyarrow.schema(
        [(name, pyarrow.int64() if name in ("added", "deleted", "delta") else pyarrow.string()) for name in COLUMNS]
    )
    packed = files[0].endswith(".gz")
    context.register_json(
        "edits",
        str(pathlib.Path(files[0]).parent) + "/",
        schema=schema,
        file_extension=".json.gz" if packed else ".json",
        file_compression_type="gzip" if packed else None,
    )
    context.sql(
        f"""COPY (SELECT to_timestamp_millis("time") AS __time, channel, page, "user", "comment", added, deleted, delta,
                         CAST(CAST(to_timestamp_millis("time") AS DATE) AS VARCHAR) AS day
                  FROM edits ORDER BY day, channel)
            TO '{out}' STORED AS PARQUET PARTITIONED BY (day) OPTIONS ('format.compression' 'zstd(1)')"""
    ).collect()
    context.register_parquet("written", out, table_partition_cols=[("day", "string")])
    return context.sql("SELECT COUNT(*) FROM written").collect()[0][0][0].as_py()


JOBS = {"duckdb": duckdb_job, "chdb": chdb_job, "polars": polars_job, "datafusion": datafusion_job}

if __name__ == "__main__":
    name, out, *files = sys.argv[1:]
    print(JOBS[name](files, out))

"""The statements that Superset writes for charts on Druid, sent the way it sends them: through pydruid's dialect."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import column, create_engine, func, literal_column, select, text

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
SINCE = "TIME_PARSE('2015-09-12T00:00:00')"
UNTIL = "TIME_PARSE('2015-09-13T00:00:00')"
VIRTUAL = "(SELECT __time, channel, page, added - deleted AS net FROM wikipedia\n) AS virtual_table"


@pytest.fixture
def connection(druid):
    engine = create_engine(f"druid://{druid.address}/druid/v2/sql")
    with engine.connect() as connected:
        yield connected
    engine.dispose()


def read(moment: str) -> datetime:
    return datetime.fromisoformat(moment.replace("Z", "+00:00"))


def written(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def floors(seconds: int):
    def floor(moment: datetime) -> datetime:
        return EPOCH + timedelta(seconds=int((moment - EPOCH).total_seconds()) // seconds * seconds)

    return floor


def midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def monday(moment: datetime) -> datetime:
    return midnight(moment) - timedelta(days=moment.weekday())


COLUMN = 'CAST("__time" AS TIMESTAMP)'
# Superset's time grains of Druid: those of newer releases, then those of older ones that differ.
GRAINS = {
    "PT1S": (f"TIME_FLOOR({COLUMN}, 'PT1S')", floors(1)),
    "PT5S": (f"TIME_FLOOR({COLUMN}, 'PT5S')", floors(5)),
    "PT30S": (f"TIME_FLOOR({COLUMN}, 'PT30S')", floors(30)),
    "PT1M": (f"TIME_FLOOR({COLUMN}, 'PT1M')", floors(60)),
    "PT5M": (f"TIME_FLOOR({COLUMN}, 'PT5M')", floors(300)),
    "PT10M": (f"TIME_FLOOR({COLUMN}, 'PT10M')", floors(600)),
    "PT15M": (f"TIME_FLOOR({COLUMN}, 'PT15M')", floors(900)),
    "PT30M": (f"TIME_FLOOR({COLUMN}, 'PT30M')", floors(1800)),
    "PT1H": (f"TIME_FLOOR({COLUMN}, 'PT1H')", floors(3600)),
    "PT6H": (f"TIME_FLOOR({COLUMN}, 'PT6H')", floors(6 * 3600)),
    "P1D": (f"TIME_FLOOR({COLUMN}, 'P1D')", midnight),
    "P1W": (f"TIME_FLOOR({COLUMN}, 'P1W')", monday),
    "P1M": (f"TIME_FLOOR({COLUMN}, 'P1M')", lambda moment: midnight(moment).replace(day=1)),
    "P3M": (f"TIME_FLOOR({COLUMN}, 'P3M')", lambda moment: midnight(moment).replace(day=1, month=7)),
    "P1Y": (f"TIME_FLOOR({COLUMN}, 'P1Y')", lambda moment: midnight(moment).replace(day=1, month=1)),
    "week ending Saturday": (
        f"TIME_SHIFT(TIME_FLOOR(TIME_SHIFT({COLUMN}, 'P1D', 1), 'P1W'), 'P1D', 5)",
        lambda moment: monday(moment + timedelta(days=1)) + timedelta(days=5),
    ),
    "week from Sunday": (
        f"TIME_SHIFT(TIME_FLOOR(TIME_SHIFT({COLUMN}, 'P1D', 1), 'P1W'), 'P1D', -1)",
        lambda moment: monday(moment + timedelta(days=1)) - timedelta(days=1),
    ),
    "FLOOR TO MINUTE": ('FLOOR("__time" TO MINUTE)', floors(60)),
    "FLOOR TO QUARTER": ('FLOOR("__time" TO QUARTER)', lambda moment: midnight(moment).replace(day=1, month=7)),
    "TIMESTAMPADD": (
        'TIMESTAMPADD(DAY, 5, FLOOR(TIMESTAMPADD(DAY, 1, "__time") TO WEEK))',
        lambda moment: monday(moment + timedelta(days=1)) + timedelta(days=5),
    ),
}


@pytest.mark.parametrize("grain", GRAINS)
def test_a_chart_by_time(connection, edits, grain):
    sql, floor = GRAINS[grain]
    statement = (
        select(literal_column(sql).label("__timestamp"), func.count(text("*")).label("count"))
        .select_from(text('"druid"."wikipedia"'))
        .where(literal_column('"__time"') >= text(SINCE))
        .where(literal_column('"__time"') < text(UNTIL))
        .group_by(literal_column(sql))
        .order_by(text('"count" DESC'))
        .limit(100000)
    )
    expected = Counter(written(floor(read(row["time"]))) for row in edits)
    rows = connection.execute(statement).fetchall()
    assert {row[0]: row[1] for row in rows} == expected
    assert [row[1] for row in rows] == sorted(expected.values(), reverse=True)


def test_a_chart_of_a_virtual_dataset(connection, edits):
    sql = (
        'SELECT TIME_FLOOR(CAST("__time" AS TIMESTAMP), \'PT1H\') AS "__timestamp", "channel" AS "channel", '
        f'SUM("net") AS "SUM(net)" FROM {VIRTUAL} WHERE "__time" >= {SINCE} AND "__time" < {UNTIL} '
        "AND \"channel\" IN ('#en.wikipedia', '#de.wikipedia') "
        'GROUP BY TIME_FLOOR(CAST("__time" AS TIMESTAMP), \'PT1H\'), "channel" ORDER BY "SUM(net)" DESC LIMIT 1000'
    )
    expected: Counter[tuple[str, str]] = Counter()
    for row in edits:
        if row["channel"] in ("#en.wikipedia", "#de.wikipedia"):
            expected[written(floors(3600)(read(row["time"]))), row["channel"]] += row["added"] - row["deleted"]
    rows = connection.execute(text(sql)).fetchall()
    assert {(row[0], row[1]): row[2] for row in rows} == expected
    assert [row[2] for row in rows] == sorted(expected.values(), reverse=True)


def test_series_are_limited_by_a_join(connection, edits):
    sql = (
        'SELECT TIME_FLOOR(CAST("__time" AS TIMESTAMP), \'P1D\') AS "__timestamp", "channel" AS "channel", '
        'COUNT(*) AS "count" FROM "druid"."wikipedia" JOIN '
        '(SELECT "channel" AS "channel__", COUNT(*) AS "mme_inner__" '
        f'FROM "druid"."wikipedia" WHERE "__time" >= {SINCE} AND "__time" < {UNTIL} GROUP BY "channel" '
        'ORDER BY "mme_inner__" DESC LIMIT 3) AS "anon_1" ON "channel" = "channel__" '
        f'WHERE "__time" >= {SINCE} AND "__time" < {UNTIL} '
        'GROUP BY TIME_FLOOR(CAST("__time" AS TIMESTAMP), \'P1D\'), "channel" ORDER BY "count" DESC LIMIT 10000'
    )
    top = Counter(row["channel"] for row in edits).most_common(3)
    rows = connection.execute(text(sql)).fetchall()
    assert [(row[1], row[2]) for row in rows] == top


def test_what_a_dataset_is_asked(connection, edits):
    rows = connection.execute(text(f'SELECT COUNT(*) AS "rowcount" FROM (SELECT * FROM {VIRTUAL}) AS rowcount_qry'))
    assert rows.fetchone()[0] == len(edits)
    values = connection.execute(
        select(column("channel").label("channel")).select_from(text('"druid"."wikipedia"')).distinct().limit(1000)
    )
    assert {row[0] for row in values} == {row["channel"] for row in edits}
    last = connection.execute(text('SELECT MIN("__time") AS "min", MAX("__time") AS "max" FROM wikipedia')).fetchone()
    assert (last[0], last[1]) == (min(row["time"] for row in edits), max(row["time"] for row in edits))
    sample = connection.execute(text(f"SELECT * FROM {VIRTUAL} LIMIT 1"))
    assert list(sample.keys()) == ["__time", "channel", "page", "net"]


def test_filters_and_metrics(connection, edits):
    sql = (
        'SELECT COUNT(DISTINCT "page") AS "COUNT_DISTINCT(page)", AVG("added") AS "AVG(added)", '
        'MAX("added") AS "MAX(added)" FROM "druid"."wikipedia" '
        'WHERE "channel" LIKE \'#e%\' AND ("added" > 10 AND "page" IS NOT NULL) '
        "AND \"channel\" NOT IN ('#es.wikipedia')"
    )
    chosen = [
        row
        for row in edits
        if row["channel"].startswith("#e") and row["added"] > 10 and row["channel"] != "#es.wikipedia"
    ]
    row = connection.exec_driver_sql(sql).fetchone()
    pages = len({row["page"] for row in chosen})
    assert abs(row[0] - pages) <= pages * 0.05, "COUNT(DISTINCT) is approximate, as Druid's"
    # Druid's AVG of integers is an integer.
    assert int(row[1]) == sum(row["added"] for row in chosen) // len(chosen)
    assert row[2] == max(row["added"] for row in chosen)

//! SQL without Druid's own functions gives the rows of another engine: DuckDB, from PyPI, over the same file.
//!
//! Statements that are written out, and expressions from a generator. `TRILITH_SEED` repeats a run, `TRILITH_EXPRESSIONS`
//! makes it longer.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Server, edits, files};

const COLUMNS: &str = "id long, ts string, channel string, ns string, country string, metro long, added long, deleted long, delta long, half double";

const DUCK: &str = "
import duckdb, json, sys
db = duckdb.connect()
for line in sys.stdin:
    try:
        rows = db.execute(json.loads(line)).fetchall()
        print(json.dumps({'rows': rows}, default=lambda value: float(value)), flush=True)
    except Exception as error:
        print(json.dumps({'error': str(error)}), flush=True)
";

struct Duck {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Duck {
    /// None when PyPI cannot be reached.
    fn start() -> Option<Duck> {
        let target = Path::new(env!("CARGO_BIN_EXE_trilith"))
            .ancestors()
            .nth(2)
            .unwrap();
        let venv = target.join("duckdb-venv");
        let python = venv.join("bin/python");
        let has_duckdb = || {
            let found = Command::new(&python).args(["-c", "import duckdb"]).output();
            found.is_ok_and(|found| found.status.success())
        };
        if !has_duckdb() {
            let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).status();
            assert!(
                made.is_ok_and(|made| made.success()),
                "python3 with venv is needed"
            );
            let pip = ["-m", "pip", "install", "--quiet", "--retries", "1", "duckdb>=1.1"];
            if !Command::new(&python).args(pip).status().unwrap().success() {
                return None;
            }
        }
        let mut child = Command::new(&python)
            .args(["-c", DUCK])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Some(Duck { child, out })
    }

    fn rows(&mut self, sql: &str) -> Vec<Vec<Value>> {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{}", json!(sql)).unwrap();
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        let mut answer: Value = serde_json::from_str(&line).unwrap();
        assert!(answer["error"].is_null(), "{sql}\n{answer}");
        serde_json::from_value(answer["rows"].take()).unwrap()
    }
}

impl Drop for Duck {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The bundled edits, with a number for each, as both engines read them.
fn prepared() -> String {
    // Beyond ASCII the engines take different things for a character.
    let ascii = |value: &Value| match value.as_str() {
        Some(text) if !text.is_ascii() => json!("Other"),
        _ => value.clone(),
    };
    edits()
        .iter()
        .enumerate()
        .map(|(id, edit)| {
            let delta = edit["delta"].as_i64().unwrap();
            let row = json!({
                "id": id, "ts": edit["time"], "channel": edit["channel"], "ns": ascii(&edit["namespace"]),
                "country": edit["countryIsoCode"], "metro": edit["metroCode"], "added": edit["added"],
                "deleted": edit["deleted"], "delta": delta, "half": delta as f64 / 2.0,
            });
            format!("{row}\n")
        })
        .collect()
}

/// Both engines with the same table `t`. None when DuckDB cannot be had.
async fn engines() -> Option<(Server, Duck)> {
    let mut duck = Duck::start()?;
    let server = Server::start(&["--worker-slots", "2"]);
    let path = server.input("edits.json", prepared().as_bytes());
    let types = COLUMNS
        .split(", ")
        .map(|column| {
            let (name, kind) = column.split_once(' ').unwrap();
            let kind = match kind {
                "long" => "BIGINT",
                "double" => "DOUBLE",
                _ => "VARCHAR",
            };
            format!("{name}: '{kind}'")
        })
        .collect::<Vec<_>>()
        .join(", ");
    duck.rows(&format!(
        "CREATE TABLE t AS SELECT * FROM read_json('{}', format = 'newline_delimited', columns = {{{types}}})",
        path.display()
    ));
    let load = format!(
        "REPLACE INTO t OVERWRITE ALL SELECT TIME_PARSE(ts) AS __time, * FROM {} PARTITIONED BY ALL CLUSTERED BY channel",
        files(&[path], COLUMNS)
    );
    server.run(&load, json!({"rowsPerSegment": 10_000})).await;
    Some((server, duck))
}

/// Equal, up to the last digits of a sum.
fn same(ours: &Value, theirs: &Value) -> bool {
    match (ours.as_f64(), theirs.as_f64()) {
        (Some(a), Some(b)) => a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
        _ => ours == theirs,
    }
}

fn sort(mut rows: Vec<Vec<Value>>) -> Vec<Vec<Value>> {
    let key = |row: &Vec<Value>| -> Vec<String> {
        let number = |value: &Value| value.as_f64().map(|number| format!("{number:+.6e}"));
        row.iter()
            .map(|value| number(value).unwrap_or_else(|| value.to_string()))
            .collect()
    };
    rows.sort_by_key(key);
    rows
}

const STATEMENTS: &[&str] = &[
    "SELECT channel, COUNT(*), SUM(added), MIN(delta), MAX(delta), AVG(half) FROM t GROUP BY channel",
    "SELECT country, metro, COUNT(*) AS c FROM t GROUP BY country, metro HAVING COUNT(*) > 3",
    "SELECT DISTINCT ns, country IS NULL FROM t",
    "SELECT ns, COUNT(country), COUNT(metro), SUM(metro) FROM t GROUP BY ns",
    "SELECT COUNT(*), SUM(delta), AVG(delta), VAR_POP(delta), STDDEV_SAMP(half) FROM t WHERE metro IS NOT NULL",
    "SELECT COUNT(*), SUM(added), MAX(added) FROM t WHERE added > 1000000000",
    "SELECT id, channel, added FROM t ORDER BY added DESC, id LIMIT 20",
    "SELECT id, metro FROM t WHERE metro > 700 ORDER BY metro, id OFFSET 5 LIMIT 11",
    "SELECT ns, SUM(added) FILTER (WHERE delta > 0), COUNT(*) FILTER (WHERE country = 'US') FROM t GROUP BY ns",
    "SELECT CASE WHEN delta < 0 THEN 'less' WHEN delta = 0 THEN 'none' ELSE 'more' END AS k, COUNT(*) FROM t GROUP BY 1",
    "SELECT channel, ns, COUNT(*), GROUPING(channel), GROUPING(ns) FROM t WHERE id < 3000 GROUP BY ROLLUP(channel, ns)",
    "SELECT ns, country, SUM(delta) FROM t WHERE id < 3000 GROUP BY CUBE(ns, country)",
    "SELECT ns, country, COUNT(*) FROM t WHERE id < 3000 GROUP BY GROUPING SETS ((ns), (country), ())",
    "SELECT a.id, b.id FROM t a JOIN t b ON a.metro = b.metro AND a.id < b.id WHERE a.metro > 800 AND a.id < 20000",
    "SELECT a.channel, COUNT(*) FROM t a JOIN (SELECT channel, MAX(added) AS m FROM t GROUP BY channel) b ON a.channel = b.channel AND a.added = b.m GROUP BY a.channel",
    "SELECT a.ns, b.c FROM (SELECT DISTINCT ns FROM t) a LEFT JOIN (SELECT ns, COUNT(*) AS c FROM t WHERE metro IS NOT NULL GROUP BY ns) b ON a.ns = b.ns",
    "SELECT a.country, b.country FROM (SELECT DISTINCT country FROM t WHERE id < 900) a FULL JOIN (SELECT DISTINCT country FROM t WHERE id > 38000) b ON a.country = b.country",
    "SELECT id FROM t WHERE channel IN (SELECT channel FROM t GROUP BY channel HAVING COUNT(*) < 20)",
    "SELECT COUNT(*) FROM t WHERE metro NOT IN (SELECT metro FROM t WHERE added > 500 AND metro IS NOT NULL)",
    "SELECT COUNT(*) FROM t WHERE metro NOT IN (SELECT metro FROM t WHERE id < 100)",
    "SELECT channel FROM t a WHERE id < 2000 AND EXISTS (SELECT 1 FROM t b WHERE b.channel = a.channel AND b.added > 9000)",
    "SELECT channel FROM t a WHERE id < 500 AND NOT EXISTS (SELECT 1 FROM t b WHERE b.channel = a.channel AND b.added > 900)",
    "SELECT id, delta - (SELECT MIN(delta) FROM t) FROM t WHERE id < 50",
    "SELECT id, (SELECT MAX(b.added) FROM t b WHERE b.channel = a.channel) FROM t a WHERE id < 50",
    "SELECT COUNT(*) FROM t a WHERE added > (SELECT AVG(b.added) FROM t b WHERE b.ns = a.ns)",
    "SELECT id, ROW_NUMBER() OVER (PARTITION BY channel ORDER BY added DESC, id), SUM(added) OVER (PARTITION BY channel) FROM t WHERE id < 3000",
    "SELECT id, RANK() OVER (ORDER BY delta), DENSE_RANK() OVER (ORDER BY delta), CUME_DIST() OVER (ORDER BY delta) FROM t WHERE id < 500",
    "SELECT id, LAG(delta) OVER w, LEAD(delta, 2) OVER w, FIRST_VALUE(delta) OVER w, SUM(delta) OVER (PARTITION BY ns ORDER BY id ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING) FROM t WHERE id < 800 WINDOW w AS (PARTITION BY ns ORDER BY id)",
    "SELECT ns, SUM(COUNT(*)) OVER (ORDER BY ns), NTILE(3) OVER (ORDER BY ns) FROM t GROUP BY ns",
    "SELECT id FROM (SELECT id, ROW_NUMBER() OVER (PARTITION BY channel ORDER BY delta DESC, id) AS r FROM t) WHERE r = 1",
    "SELECT channel FROM t WHERE id < 100 UNION SELECT ns FROM t WHERE id < 100",
    "SELECT ns FROM t WHERE id < 500 EXCEPT SELECT ns FROM t WHERE added > 100",
    "SELECT channel FROM t WHERE id < 500 INTERSECT SELECT channel FROM t WHERE id > 38000",
    "WITH c AS (SELECT channel, SUM(delta) AS s FROM t GROUP BY channel), m AS (SELECT AVG(s) AS a FROM c) SELECT channel, s FROM c, m WHERE s > a",
    "SELECT COUNT(DISTINCT channel), COUNT(DISTINCT country), COUNT(DISTINCT metro + added) FROM t",
    "SELECT ns, COUNT(DISTINCT channel) FROM t GROUP BY ns",
    "SELECT x, COUNT(*) FROM (VALUES (1, 'a'), (2, NULL), (3, 'a')) AS v(n, x) GROUP BY x",
    "SELECT id, COALESCE(country, ns), NULLIF(ns, 'Main'), CAST(added AS VARCHAR) || '/' || ns FROM t WHERE id BETWEEN 100 AND 160",
    "SELECT id, ts FROM t WHERE ts >= '2015-09-12T23:50:00' AND channel LIKE '#%n.%' AND ns NOT LIKE '%alk'",
];

#[tokio::test]
async fn statements_give_the_rows_of_another_engine() {
    let Some((server, mut duck)) = engines().await else {
        eprintln!("skipped: duckdb cannot be installed, because PyPI cannot be reached");
        return;
    };
    let exact = json!({"maxNumTasks": 3, "useApproximateCountDistinct": false});
    for sql in STATEMENTS {
        let theirs = sort(duck.rows(sql));
        let report = server.run(sql, exact.clone()).await;
        let ours = serde_json::from_value(report["results"]["results"].clone()).unwrap();
        check(sql, &sort(ours), &theirs);
        let body = json!({"query": sql, "resultFormat": "array", "context": exact});
        let (status, text) = server.post("/druid/v2/sql", body).await;
        assert_eq!(status, 200, "{sql}\n{text}");
        check(sql, &sort(serde_json::from_str(&text).unwrap()), &theirs);
    }
}

fn check(sql: &str, ours: &[Vec<Value>], theirs: &[Vec<Value>]) {
    assert_eq!(ours.len(), theirs.len(), "{sql}");
    for (ours, theirs) in ours.iter().zip(theirs) {
        let equal = ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| same(a, b));
        assert!(equal, "{sql}\nours   {ours:?}\ntheirs {theirs:?}");
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % count
    }

    fn pick<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items[self.below(items.len())]
    }
}

/// An expression as both engines write it.
#[derive(Clone)]
struct Both {
    ours: String,
    theirs: String,
}

impl Both {
    fn plain(text: impl Into<String>) -> Both {
        let text = text.into();
        Both {
            ours: text.clone(),
            theirs: text,
        }
    }

    /// Puts parts into the places of `{0}`, `{1}`, … of two forms.
    fn of(ours: &str, theirs: &str, parts: &[Both]) -> Both {
        let fill = |form: &str, side: fn(&Both) -> &String| {
            let mut out = form.to_owned();
            for (index, part) in parts.iter().enumerate() {
                out = out.replace(&format!("{{{index}}}"), side(part));
            }
            out
        };
        Both {
            ours: fill(ours, |part| &part.ours),
            theirs: fill(theirs, |part| &part.theirs),
        }
    }

    fn same(form: &str, parts: &[Both]) -> Both {
        Both::of(form, form, parts)
    }
}

/// Expressions of a few types. Numbers stay small, so that nothing overflows.
struct Generator {
    random: Random,
}

impl Generator {
    fn long(&mut self, depth: usize) -> Both {
        if depth == 0 {
            let literal = self.random.below(41) as i64 - 20;
            return match self.random.below(8) {
                0 => Both::plain(format!("({literal})")),
                1 => Both::plain("CAST(NULL AS BIGINT)"),
                _ => Both::plain(self.random.pick(&["id", "metro", "added", "deleted", "delta"])),
            };
        }
        let depth = depth - 1;
        let small = Both::plain(format!("({})", self.random.below(9) + 2));
        match self.random.below(14) {
            0 | 1 => Both::same("({0} + {1})", &[self.long(depth), self.long(depth)]),
            2 => Both::same("({0} - {1})", &[self.long(depth), self.long(depth)]),
            3 => Both::same("({0} * {1})", &[self.long(0), small]),
            4 => Both::of("({0} / {1})", "({0} // {1})", &[self.long(depth), small]),
            5 => Both::same("({0} % {1})", &[self.long(depth), small]),
            6 => Both::same("ABS({0})", &[self.long(depth)]),
            7 => Both::same("(-{0})", &[self.long(depth)]),
            8 => Both::same("COALESCE({0}, {1})", &[self.long(depth), self.long(depth)]),
            9 => Both::same("NULLIF({0}, {1})", &[self.long(depth), self.long(0)]),
            10 => Both::same(
                "CASE WHEN {0} THEN {1} ELSE {2} END",
                &[self.truth(depth), self.long(depth), self.long(depth)],
            ),
            11 => Both::same("GREATEST({0}, {1})", &[self.long(depth), self.long(depth)]),
            12 => Both::same("LENGTH({0})", &[self.text(depth)]),
            _ => Both::of(
                "STRPOS({0}, {1})",
                "strpos({0}, {1})",
                &[self.text(depth), Both::plain("'a'")],
            ),
        }
    }

    fn double(&mut self, depth: usize) -> Both {
        if depth == 0 {
            return match self.random.below(4) {
                0 => Both::plain(format!("CAST({} AS DOUBLE)", self.random.below(100))),
                1 => Both::plain(self.random.pick(&["0.5", "2.25", "(-1.5)"])),
                _ => Both::plain("half"),
            };
        }
        let depth = depth - 1;
        match self.random.below(9) {
            0 => Both::same("({0} + {1})", &[self.double(depth), self.double(depth)]),
            1 => Both::same("({0} - {1})", &[self.double(depth), self.long(depth)]),
            2 => Both::same("({0} * {1})", &[self.double(0), Both::plain("2.5")]),
            3 => Both::same("({0} / {1})", &[self.double(depth), Both::plain("4.0")]),
            4 => Both::same("FLOOR({0})", &[self.double(depth)]),
            5 => Both::same("CEIL({0})", &[self.double(depth)]),
            6 => Both::same("CAST({0} AS DOUBLE)", &[self.long(depth)]),
            7 => Both::same("SQRT(ABS({0}))", &[self.double(depth)]),
            _ => Both::same(
                "CASE WHEN {0} THEN {1} END",
                &[self.truth(depth), self.double(depth)],
            ),
        }
    }

    fn text(&mut self, depth: usize) -> Both {
        if depth == 0 {
            return match self.random.below(7) {
                0 => Both::plain(
                    self.random
                        .pick(&["'a'", "''", "'US'", "'Main'", "'#en.wikipedia'"]),
                ),
                1 => Both::plain("CAST(NULL AS VARCHAR)"),
                _ => Both::plain(self.random.pick(&["channel", "ns", "country"])),
            };
        }
        let depth = depth - 1;
        let count = Both::plain(format!("{}", self.random.below(6) + 1));
        match self.random.below(13) {
            0 => Both::same("UPPER({0})", &[self.text(depth)]),
            1 => Both::same("LOWER({0})", &[self.text(depth)]),
            2 => Both::same("({0} || {1})", &[self.text(depth), self.text(depth)]),
            3 => Both::same("COALESCE({0}, {1})", &[self.text(depth), self.text(depth)]),
            4 => Both::same("NULLIF({0}, {1})", &[self.text(depth), self.text(0)]),
            5 => Both::same("REPLACE({0}, 'a', {1})", &[self.text(depth), Both::plain("'-'")]),
            6 => Both::same("LEFT({0}, {1})", &[self.text(depth), count]),
            7 => Both::same("RIGHT({0}, {1})", &[self.text(depth), count]),
            8 => Both::same("REVERSE({0})", &[self.text(depth)]),
            9 => Both::same("CAST({0} AS VARCHAR)", &[self.long(depth)]),
            // Beyond its end a text has NULL here, and nothing there.
            10 => Both::of(
                "SUBSTRING({0}, {1}, 3)",
                "NULLIF(SUBSTRING({0}, {1}, 3), '')",
                &[Both::same("({0} || 'z')", &[self.text(depth)]), count],
            ),
            11 => Both::same("TRIM({0})", &[self.text(depth)]),
            _ => Both::same(
                "CASE WHEN {0} THEN {1} ELSE {2} END",
                &[self.truth(depth), self.text(depth), self.text(depth)],
            ),
        }
    }

    fn truth(&mut self, depth: usize) -> Both {
        let depth = depth.saturating_sub(1);
        let op = self.random.pick(&["=", "<>", "<", "<=", ">", ">="]);
        match self.random.below(13) {
            0 | 1 => Both::same(
                &format!("({{0}} {op} {{1}})"),
                &[self.long(depth), self.long(depth)],
            ),
            2 => Both::same(
                &format!("({{0}} {op} {{1}})"),
                &[self.text(depth), self.text(depth)],
            ),
            3 => Both::same(
                &format!("({{0}} {op} {{1}})"),
                &[self.double(depth), self.long(depth)],
            ),
            4 => Both::same("({0} IS NULL)", &[self.text(depth)]),
            5 => Both::same("({0} IS NOT NULL)", &[self.long(depth)]),
            6 if depth > 0 => Both::same("({0} AND {1})", &[self.truth(depth), self.truth(depth)]),
            7 if depth > 0 => Both::same("({0} OR {1})", &[self.truth(depth), self.truth(depth)]),
            8 if depth > 0 => Both::same("(NOT {0})", &[self.truth(depth)]),
            9 => Both::same(
                "({0} BETWEEN {1} AND {2})",
                &[self.long(depth), self.long(0), self.long(0)],
            ),
            10 => {
                let list = self
                    .random
                    .pick(&["'US', 'DE'", "'Main', NULL", "'a', '', 'Talk'"]);
                Both::same(&format!("({{0}} IN ({list}))"), &[self.text(depth)])
            }
            11 => {
                let pattern = self.random.pick(&["'%a%'", "'#_n%'", "'M%'", "'%'", "'_'"]);
                Both::same(&format!("({{0}} LIKE {pattern})"), &[self.text(depth)])
            }
            _ => Both::same(
                "({0} IS DISTINCT FROM {1})",
                &[self.text(depth), self.text(depth)],
            ),
        }
    }

    fn any(&mut self) -> Both {
        let depth = self.random.below(4);
        match self.random.below(4) {
            0 => self.long(depth),
            1 => self.double(depth),
            2 => self.text(depth),
            _ => self.truth(depth),
        }
    }
}

/// Expressions in one statement.
const BATCH: usize = 50;

#[tokio::test]
async fn generated_expressions_have_the_values_of_another_engine() {
    let Some((server, mut duck)) = engines().await else {
        eprintln!("skipped: duckdb cannot be installed, because PyPI cannot be reached");
        return;
    };
    let number =
        |name: &str, default: u64| std::env::var(name).map_or(default, |value| value.parse().unwrap());
    let (seed, count) = (
        number("TRILITH_SEED", 20_150_912),
        number("TRILITH_EXPRESSIONS", 2_000),
    );
    let mut generator = Generator {
        random: Random(seed | 1),
    };
    for batch in 0..(count as usize).div_ceil(BATCH) {
        let exprs: Vec<Both> = (0..BATCH).map(|_| generator.any()).collect();
        let list = |side: fn(&Both) -> &String| {
            let exprs = exprs.iter().enumerate();
            let exprs: Vec<String> = exprs
                .map(|(index, expr)| format!("{} AS e{index}", side(expr)))
                .collect();
            // Different rows for each batch.
            format!(
                "SELECT {} FROM t WHERE id % 997 = {} ORDER BY id",
                exprs.join(", "),
                batch * 7 % 997
            )
        };
        let ours = server.rows(&list(|expr| &expr.ours)).await;
        let theirs = duck.rows(&list(|expr| &expr.theirs));
        assert_eq!(ours.len(), theirs.len());
        for (row, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            for (index, (a, b)) in ours.iter().zip(theirs).enumerate() {
                let Both { ours, theirs } = &exprs[index];
                assert!(
                    same(a, b),
                    "TRILITH_SEED={seed}, batch {batch}, row {row}:\n{ours}\nis {a}\n{theirs}\nis {b} in DuckDB"
                );
            }
        }
    }
}

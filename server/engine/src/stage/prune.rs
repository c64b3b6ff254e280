//! Which segments a filter can need: by time, and by the ranges of the dimensions that they were clustered by.

use std::collections::BTreeMap;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{Between, InList, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Expr, Like, Operator};
use serde::{Deserialize, Serialize};
use trilith_proto::interval::{ETERNITY, Interval};
use trilith_segment::ShardSpec;

use super::source::SegmentSlice;

/// Values of a text column that can pass a filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Values {
    /// NULL.
    Null,
    /// From `low`, up to and including `high`; none is open.
    Between {
        /// Smallest value.
        low: String,
        /// Largest value.
        high: Option<String>,
    },
}

/// What a filter says of the segments of a datasource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruning {
    /// Sorted, disjoint: no row outside can pass. None: any can.
    times: Option<Vec<Interval>>,
    /// By column. A column that is not here may have any value.
    values: BTreeMap<String, Vec<Values>>,
}

impl Pruning {
    /// What filters say that hold all at once. `by_range`: dimensions count.
    pub(crate) fn of(filters: &[Expr], by_range: bool) -> Pruning {
        let all = filters
            .iter()
            .map(of_filter)
            .reduce(Pruning::and)
            .unwrap_or_default();
        Pruning {
            values: if by_range { all.values } else { BTreeMap::new() },
            ..all
        }
    }

    /// True if a filter can leave segments out.
    pub(crate) fn helps(filter: &Expr) -> bool {
        of_filter(filter) != Pruning::default()
    }

    /// The time from the first to the last row that can pass; none is all of time.
    pub(crate) fn time_range(&self) -> Option<Interval> {
        let times = self.times.as_ref()?;
        Some(match (times.first(), times.last()) {
            (Some(first), Some(last)) => Interval::new(first.start_ms, last.end_ms),
            _ => Interval::new(0, 0),
        })
    }

    /// Intervals of rows that can pass.
    pub(crate) fn intervals(&self) -> Vec<Interval> {
        self.times.clone().unwrap_or_else(|| vec![ETERNITY])
    }

    /// The segments that may have rows that pass.
    pub(crate) fn keep(&self, segments: impl IntoIterator<Item = SegmentSlice>) -> Vec<SegmentSlice> {
        let segments = segments.into_iter();
        segments
            .filter(|slice| self.fits_time(slice) && self.fits_range(&slice.record.shard_spec))
            .collect()
    }

    fn fits_time(&self, slice: &SegmentSlice) -> bool {
        let Some(times) = &self.times else { return true };
        let overlaps = |part: &Interval| times.iter().any(|time| time.overlaps(part));
        match &slice.visible {
            Some(parts) => parts.iter().any(overlaps),
            None => overlaps(&slice.record.interval),
        }
    }

    fn fits_range(&self, spec: &ShardSpec) -> bool {
        let ShardSpec::Range {
            dimensions,
            start,
            end,
            ..
        } = spec
        else {
            return true;
        };
        for (index, dimension) in dimensions.iter().enumerate() {
            let bound = |tuple: &Option<Vec<Option<String>>>| {
                tuple.as_ref().and_then(|tuple| tuple.get(index).cloned())
            };
            let (start, end) = (bound(start), bound(end));
            if let Some(values) = self.values.get(dimension)
                && !values
                    .iter()
                    .any(|values| values.overlap(start.as_ref(), end.as_ref()))
            {
                return false;
            }
            // The next dimension is only bounded where this one has one value.
            if start.is_none() || start != end {
                return true;
            }
        }
        true
    }

    /// Both hold.
    fn and(self, other: Pruning) -> Pruning {
        let times = match (self.times, other.times) {
            (Some(a), Some(b)) => Some(union(
                a.iter()
                    .flat_map(|a| b.iter().filter_map(|b| a.intersect(b)))
                    .collect(),
            )),
            (a, b) => a.or(b),
        };
        let mut values = self.values;
        for (column, theirs) in other.values {
            let both = match values.remove(&column) {
                Some(ours) => ours
                    .iter()
                    .flat_map(|a| theirs.iter().filter_map(|b| a.intersect(b)))
                    .collect(),
                None => theirs,
            };
            values.insert(column, both);
        }
        Pruning { times, values }
    }

    /// One of them holds.
    fn or(self, other: Pruning) -> Pruning {
        let times = match (self.times, other.times) {
            (Some(a), Some(b)) => Some(union(a.into_iter().chain(b).collect())),
            _ => None,
        };
        let mut theirs = other.values;
        let values = self.values.into_iter().filter_map(|(column, mut ours)| {
            ours.extend(theirs.remove(&column)?);
            Some((column, ours))
        });
        Pruning {
            times,
            values: values.collect(),
        }
    }

    fn time(start_ms: i64, end_ms: i64) -> Pruning {
        let interval = Interval::new(start_ms, end_ms);
        Pruning {
            times: Some(
                Some(interval)
                    .filter(|interval| !interval.is_empty())
                    .into_iter()
                    .collect(),
            ),
            values: BTreeMap::new(),
        }
    }

    fn value(column: &str, values: Vec<Values>) -> Pruning {
        Pruning {
            times: None,
            values: [(column.to_owned(), values)].into(),
        }
    }
}

impl Values {
    fn one(text: &str) -> Values {
        Values::Between {
            low: text.to_owned(),
            high: Some(text.to_owned()),
        }
    }

    /// True if one of the values lies between two bounds of a segment; a bound of NULL is below every text, no bound
    /// is open.
    fn overlap(&self, start: Option<&Option<String>>, end: Option<&Option<String>>) -> bool {
        match self {
            Values::Null => matches!(start, None | Some(None)),
            Values::Between { low, high } => {
                let below_end = match end {
                    None => true,
                    Some(end) => end.as_ref().is_some_and(|end| low <= end),
                };
                let above_start = match (start, high) {
                    (Some(Some(start)), Some(high)) => start <= high,
                    _ => true,
                };
                below_end && above_start
            }
        }
    }

    fn intersect(&self, other: &Values) -> Option<Values> {
        match (self, other) {
            (Values::Null, Values::Null) => Some(Values::Null),
            (Values::Between { low: a, high: x }, Values::Between { low: b, high: y }) => {
                let low = a.max(b).clone();
                let high = match (x, y) {
                    (Some(x), Some(y)) => Some(x.min(y).clone()),
                    (x, y) => x.as_ref().or(y.as_ref()).cloned(),
                };
                let empty = high.as_ref().is_some_and(|high| low > *high);
                (!empty).then_some(Values::Between { low, high })
            }
            _ => None,
        }
    }
}

fn union(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort();
    let mut merged: Vec<Interval> = Vec::new();
    for interval in intervals {
        match merged.last_mut() {
            Some(last) if interval.start_ms <= last.end_ms => last.end_ms = last.end_ms.max(interval.end_ms),
            _ => merged.push(interval),
        }
    }
    merged
}

fn of_filter(filter: &Expr) -> Pruning {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And => of_filter(left).and(of_filter(right)),
            Operator::Or => of_filter(left).or(of_filter(right)),
            op => comparison(left, *op, right),
        },
        Expr::Between(Between {
            expr,
            negated: false,
            low,
            high,
        }) => comparison(expr, Operator::GtEq, low).and(comparison(expr, Operator::LtEq, high)),
        Expr::InList(InList {
            expr,
            list,
            negated: false,
        }) => {
            let items = list.iter().map(|item| comparison(expr, Operator::Eq, item));
            items.reduce(Pruning::or).unwrap_or_default()
        }
        Expr::Like(Like {
            negated: false,
            expr,
            pattern,
            case_insensitive: false,
            ..
        }) => like(expr, pattern),
        Expr::IsNull(expr) => match expr.as_ref() {
            Expr::Column(column) => Pruning::value(&column.name, vec![Values::Null]),
            _ => Pruning::default(),
        },
        Expr::IsTrue(expr) => of_filter(expr),
        Expr::ScalarFunction(ScalarFunction { func, args }) => of_function(func.name(), args),
        _ => Pruning::default(),
    }
}

/// Functions that stand for comparisons.
fn of_function(name: &str, args: &[Expr]) -> Pruning {
    match (name, args) {
        ("druid_mv_equal", [left, right]) => comparison(left, Operator::Eq, right),
        ("druid_mv_less", [left, right]) => comparison(left, Operator::Lt, right),
        ("druid_mv_less_equal", [left, right]) => comparison(left, Operator::LtEq, right),
        ("druid_mv_greater", [left, right]) => comparison(left, Operator::Gt, right),
        ("druid_mv_greater_equal", [left, right]) => comparison(left, Operator::GtEq, right),
        ("druid_mv_between", [value, low, high]) => {
            comparison(value, Operator::GtEq, low).and(comparison(value, Operator::LtEq, high))
        }
        ("druid_mv_like", [value, pattern]) => like(value, pattern),
        ("druid_mv_in", [Expr::Column(column), Expr::Literal(ScalarValue::List(list), _)]) => {
            let items = list.values();
            let values = (0..items.len()).map(|index| ScalarValue::try_from_array(items, index));
            let values = values.filter_map(|value| match value {
                Ok(ScalarValue::Utf8(Some(text))) => Some(Some(Values::one(&text))),
                // NULL in the list matches nothing.
                Ok(ScalarValue::Utf8(None)) => None,
                _ => Some(None),
            });
            match values.collect::<Option<Vec<_>>>() {
                Some(values) => Pruning::value(&column.name, values),
                None => Pruning::default(),
            }
        }
        ("time_in_interval", [Expr::Column(column), interval, rest @ ..]) if column.name == "__time" => {
            let zone = rest.first().map_or(Some("UTC"), literal_text);
            let bounds = literal_text(interval)
                .zip(zone)
                .and_then(|(text, zone)| trilith_functions::parse_interval(text, zone));
            bounds.map_or_else(Pruning::default, |(start, end)| Pruning::time(start, end))
        }
        _ => Pruning::default(),
    }
}

fn literal_text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => Some(text),
        _ => None,
    }
}

fn comparison(left: &Expr, op: Operator, right: &Expr) -> Pruning {
    match (left, right) {
        (_, Expr::Literal(literal, _)) => with_literal(left, op, literal),
        (Expr::Literal(literal, _), _) => op
            .swap()
            .map_or_else(Pruning::default, |op| with_literal(right, op, literal)),
        _ => Pruning::default(),
    }
}

fn with_literal(expr: &Expr, op: Operator, literal: &ScalarValue) -> Pruning {
    match (expr, literal) {
        (Expr::Column(column), ScalarValue::Utf8(Some(text))) => text_values(op, text)
            .map_or_else(Pruning::default, |values| {
                Pruning::value(&column.name, vec![values])
            }),
        (_, ScalarValue::TimestampMillisecond(Some(ms), _)) => times(expr, op, *ms),
        // A time as a number.
        (Expr::ScalarFunction(ScalarFunction { func, args }), ScalarValue::Int64(Some(ms)))
            if matches!(func.name(), "timestamp_to_millis" | "druid_cast_bigint") =>
        {
            match args.as_slice() {
                [time @ Expr::Column(_)] => times(time, op, *ms),
                _ => Pruning::default(),
            }
        }
        _ => Pruning::default(),
    }
}

/// Comparisons of `__time`, or of its time bucket, with a constant.
fn times(expr: &Expr, op: Operator, ms: i64) -> Pruning {
    // First and last instant whose value is the constant, or what would be.
    let (first, after) = match expr {
        Expr::Column(column) if column.name == "__time" => (Some(ms), ms.saturating_add(1)),
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == "time_floor" => {
            let [Expr::Column(column), period, origin, zone] = args.as_slice() else {
                return Pruning::default();
            };
            let plain =
                column.name == "__time" && matches!(origin, Expr::Literal(origin, _) if origin.is_null());
            let bucket = literal_text(period)
                .zip(literal_text(zone))
                .filter(|_| plain)
                .and_then(|(period, zone)| trilith_functions::time_bucket(ms, period, zone));
            match bucket {
                Some((start, end)) => ((start == ms).then_some(start), end),
                None => return Pruning::default(),
            }
        }
        _ => return Pruning::default(),
    };
    let from = first.unwrap_or(after);
    match op {
        Operator::Eq => Pruning::time(from, after),
        Operator::Gt => Pruning::time(after, ETERNITY.end_ms),
        Operator::GtEq => Pruning::time(from, ETERNITY.end_ms),
        Operator::Lt => Pruning::time(ETERNITY.start_ms, from),
        Operator::LtEq => Pruning::time(ETERNITY.start_ms, after),
        _ => Pruning::default(),
    }
}

fn text_values(op: Operator, text: &str) -> Option<Values> {
    let between = |low: &str, high: Option<&str>| Values::Between {
        low: low.to_owned(),
        high: high.map(str::to_owned),
    };
    Some(match op {
        Operator::Eq => Values::one(text),
        Operator::Gt | Operator::GtEq => between(text, None),
        Operator::Lt | Operator::LtEq => between("", Some(text)),
        _ => return None,
    })
}

/// LIKE with a pattern that begins with a text.
fn like(expr: &Expr, pattern: &Expr) -> Pruning {
    let (Expr::Column(column), Some(pattern)) = (expr, literal_text(pattern)) else {
        return Pruning::default();
    };
    let end = pattern.find(['%', '_', '\\']).unwrap_or(pattern.len());
    let prefix = &pattern[..end];
    if prefix.is_empty() {
        return Pruning::default();
    }
    let high = match end == pattern.len() {
        true => Some(prefix.to_owned()),
        false => successor(prefix),
    };
    let low = prefix.to_owned();
    Pruning::value(&column.name, vec![Values::Between { low, high }])
}

/// A text above all that begin with `prefix`; none if there is no simple one.
fn successor(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    let last = chars.pop()?;
    chars.push(char::from_u32(last as u32 + 1)?);
    Some(chars.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    fn segment(start: Option<[Option<&str>; 2]>, end: Option<[Option<&str>; 2]>) -> ShardSpec {
        let tuple = |bound: [Option<&str>; 2]| bound.map(|text| text.map(str::to_owned)).to_vec();
        ShardSpec::Range {
            dimensions: vec!["a".to_owned(), "b".to_owned()],
            start: start.map(tuple),
            end: end.map(tuple),
            partition_num: 0,
            num_core_partitions: 1,
        }
    }

    #[test]
    fn leaves_out_what_no_row_can_be_in() {
        let first = segment(None, Some([Some("d"), Some("m")]));
        let pinned = segment(Some([Some("d"), Some("m")]), Some([Some("d"), Some("t")]));
        let last = segment(Some([Some("d"), Some("t")]), None);
        let cases = [
            (col("a").eq(lit("d")), [true, true, true]),
            (col("a").eq(lit("c")), [true, false, false]),
            (col("a").gt(lit("d")), [true, true, true]),
            (col("a").gt_eq(lit("e")), [false, false, true]),
            (col("a").is_null(), [true, false, false]),
            (
                col("a").in_list(vec![lit("b"), lit("x")], false),
                [true, false, true],
            ),
            (col("a").like(lit("x%")), [false, false, true]),
            (col("a").like(lit("%x")), [true, true, true]),
            (col("a").between(lit("x"), lit("y")), [false, false, true]),
            (
                col("a").eq(lit("d")).and(col("b").eq(lit("n"))),
                [true, true, true],
            ),
            (
                col("a").eq(lit("d")).and(col("b").eq(lit("x"))),
                [true, false, true],
            ),
            (col("b").eq(lit("x")), [true, false, true]),
            (
                col("a").eq(lit("c")).or(col("b").eq(lit("x"))),
                [true, true, true],
            ),
            (
                col("a").eq(lit("c")).or(col("a").eq(lit("x"))),
                [true, false, true],
            ),
            (
                col("a").eq(lit("c")).and(col("a").eq(lit("x"))),
                [false, false, false],
            ),
        ];
        for (filter, expected) in cases {
            let pruning = Pruning::of(std::slice::from_ref(&filter), true);
            let kept = [&first, &pinned, &last].map(|segment| pruning.fits_range(segment));
            assert_eq!(kept, expected, "{filter}");
        }
    }

    #[test]
    fn knows_the_times_of_a_filter() {
        let time = |ms| lit(ScalarValue::TimestampMillisecond(Some(ms), Some("UTC".into())));
        let intervals = |filter: Expr| -> Vec<(i64, i64)> {
            let intervals = Pruning::of(&[filter], true).intervals();
            intervals
                .iter()
                .map(|interval| (interval.start_ms, interval.end_ms))
                .collect()
        };
        let (start, end) = (ETERNITY.start_ms, ETERNITY.end_ms);
        assert_eq!(intervals(col("__time").eq(time(5))), [(5, 6)]);
        assert_eq!(intervals(time(5).lt(col("__time"))), [(6, end)]);
        assert_eq!(intervals(col("other").lt(time(5))), [(start, end)]);
        let either = col("__time").lt(time(5)).or(col("__time").gt_eq(time(9)));
        assert_eq!(intervals(either.clone()), [(start, 5), (9, end)]);
        assert_eq!(
            intervals(either.and(col("__time").gt_eq(time(3)))),
            [(3, 5), (9, end)]
        );
        assert_eq!(
            intervals(col("__time").lt(time(5)).and(col("__time").gt(time(9)))),
            []
        );
    }
}

//! A set of instants.

use std::collections::BTreeMap;

use trilith_proto::interval::Interval;

/// Instants that something covers, kept as intervals that do not touch each other.
#[derive(Debug, Clone, Default)]
pub struct Coverage {
    /// End by start.
    parts: BTreeMap<i64, i64>,
}

impl Coverage {
    /// Adds the instants of an interval.
    pub fn add(&mut self, interval: Interval) {
        if interval.is_empty() {
            return;
        }
        let (mut start, mut end) = (interval.start_ms, interval.end_ms);
        if let Some((&first, &last)) = self.parts.range(..start).next_back()
            && last >= start
        {
            start = first;
            end = end.max(last);
        }
        while let Some((&first, &last)) = self.parts.range(start..=end).next() {
            self.parts.remove(&first);
            end = end.max(last);
        }
        self.parts.insert(start, end);
    }

    /// The parts of an interval that are covered, in order of time.
    pub fn shared(&self, interval: Interval) -> Vec<Interval> {
        if interval.is_empty() {
            return Vec::new();
        }
        let before = self.parts.range(..=interval.start_ms).next_back();
        let first = before.map_or(interval.start_ms, |(start, _)| *start);
        self.parts
            .range(first..interval.end_ms)
            .filter_map(|(&start, &end)| Interval::new(start, end).intersect(&interval))
            .collect()
    }

    /// The parts of an interval that are not covered, in order of time.
    pub fn missing(&self, interval: Interval) -> Vec<Interval> {
        let mut from = interval.start_ms;
        let mut parts = Vec::new();
        for shared in self.shared(interval) {
            parts.push(Interval::new(from, shared.start_ms));
            from = shared.end_ms;
        }
        parts.push(Interval::new(from, interval.end_ms));
        parts.retain(|part| !part.is_empty());
        parts
    }
}

impl FromIterator<Interval> for Coverage {
    fn from_iter<T: IntoIterator<Item = Interval>>(intervals: T) -> Coverage {
        let mut coverage = Coverage::default();
        for interval in intervals {
            coverage.add(interval);
        }
        coverage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way to add three intervals, beside a list of single instants.
    #[test]
    fn covers_what_was_added_and_nothing_else() {
        let all: Vec<Interval> = (0..5)
            .flat_map(|start| (start..6).map(move |end| Interval::new(start, end)))
            .collect();
        for (a, b, c) in all
            .iter()
            .flat_map(|a| all.iter().map(move |b| (a, b)))
            .flat_map(|(a, b)| all.iter().map(move |c| (a, b, c)))
        {
            let coverage: Coverage = [*a, *b, *c].into_iter().collect();
            let whole = Interval::new(0, 6);
            let covered = |ms| [a, b, c].iter().any(|interval| interval.contains_ms(ms));
            for ms in 0..6 {
                let shared = coverage.shared(whole).iter().any(|part| part.contains_ms(ms));
                let missing = coverage.missing(whole).iter().any(|part| part.contains_ms(ms));
                assert_eq!(
                    (shared, missing),
                    (covered(ms), !covered(ms)),
                    "{a:?} {b:?} {c:?}"
                );
            }
            let part = Interval::new(2, 4);
            let inside: i64 = coverage
                .shared(part)
                .iter()
                .map(|part| part.end_ms - part.start_ms)
                .sum();
            assert_eq!(inside, (2..4).filter(|ms| covered(*ms)).count() as i64);
        }
    }
}

//! A table as a plain set of rows, and the search for an order of statements that explains what readers saw.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

/// Days that the tables have rows of.
pub const DAYS: usize = 3;

/// Day, number of the statement that wrote it, and for a copy the sum that it read.
pub type Row = (usize, i64, i64);
pub type Content = BTreeSet<Row>;

/// What a statement does.
#[derive(Debug, Clone)]
pub enum Effect {
    /// A row for each day.
    Insert { days: Vec<usize> },
    /// For each day that has rows, a row with the sum of their numbers.
    Copy,
    /// A row for each day in the place of all rows of other days. Concurrent: rows that came after it had its
    /// locks stay.
    Replace {
        over: Vec<usize>,
        days: Vec<usize>,
        concurrent: bool,
    },
    /// Replaces all rows by the same rows.
    Rewrite { concurrent: bool },
}

/// A statement that was accepted. Times are microseconds of one clock.
#[derive(Debug, Clone)]
pub struct Operation {
    pub number: i64,
    pub effect: Effect,
    pub submitted: u64,
    pub ended: u64,
    /// It failed, so it must have changed nothing.
    pub fault: Option<String>,
}

impl Operation {
    /// It looks at the table some time before it changes it.
    fn looks_first(&self) -> bool {
        match self.effect {
            Effect::Insert { .. } => false,
            Effect::Copy => true,
            Effect::Replace { concurrent, .. } | Effect::Rewrite { concurrent } => concurrent,
        }
    }

    /// Changes the table, having looked at it when it was `looked`.
    fn apply(&self, content: &mut Content, looked: &Content) {
        match &self.effect {
            Effect::Insert { days } => content.extend(days.iter().map(|day| (*day, self.number, 0))),
            Effect::Copy => {
                let mut sums: BTreeMap<usize, i64> = BTreeMap::new();
                for (day, number, _) in looked {
                    *sums.entry(*day).or_default() += number;
                }
                content.extend(sums.into_iter().map(|(day, sum)| (day, self.number, sum)));
            }
            Effect::Replace { over, days, .. } => {
                content.retain(|row| !over.contains(&row.0) || !looked.contains(row));
                content.extend(days.iter().map(|day| (*day, self.number, 0)));
            }
            Effect::Rewrite { .. } => content.extend(looked),
        }
    }
}

/// What a reader saw between two times.
#[derive(Debug, Clone)]
pub struct Seen {
    pub began: u64,
    pub ended: u64,
    /// Sorted; a list, because a row that is there twice is an error.
    pub rows: Vec<Row>,
}

impl Seen {
    pub fn new(began: u64, ended: u64, mut rows: Vec<Row>) -> Seen {
        rows.sort_unstable();
        Seen { began, ended, rows }
    }
}

/// Everything that happened to a table.
pub struct History {
    pub start: Content,
    pub operations: Vec<Operation>,
    /// What each reader saw, in its order.
    pub readers: Vec<Vec<Seen>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Before,
    Looked,
    Done,
}

/// A point of the search.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Moment {
    content: Content,
    steps: Vec<Step>,
    /// What those saw that have looked and not yet changed anything.
    looked: Vec<Option<Content>>,
    /// How much of what each reader saw is explained.
    explained: Vec<usize>,
}

impl History {
    /// Whether there is an order in which each statement that succeeded changes the table at one moment while
    /// it ran, those that failed never, and every reader saw the table as it was at one moment of its reading.
    pub fn is_explained(&self) -> bool {
        let succeeded: Vec<&Operation> = self
            .operations
            .iter()
            .filter(|operation| operation.fault.is_none())
            .collect();
        let mut open = vec![Moment {
            content: self.start.clone(),
            steps: vec![Step::Before; succeeded.len()],
            looked: vec![None; succeeded.len()],
            explained: vec![0; self.readers.len()],
        }];
        let mut known = HashSet::new();
        while let Some(mut moment) = open.pop() {
            self.explain(&succeeded, &mut moment);
            let read = |(reader, seen): (usize, &Vec<Seen>)| moment.explained[reader] == seen.len();
            let all_done = moment.steps.iter().all(|step| *step == Step::Done);
            if all_done && self.readers.iter().enumerate().all(read) {
                return true;
            }
            if !known.insert(moment.clone()) {
                continue;
            }
            for index in 0..succeeded.len() {
                open.extend(self.step(&succeeded, &moment, index));
            }
        }
        false
    }

    /// Explains as much as the table of this moment does: nothing is gained by explaining it later.
    fn explain(&self, operations: &[&Operation], moment: &mut Moment) {
        for (reader, seen) in self.readers.iter().enumerate() {
            while let Some(next) = seen.get(moment.explained[reader]) {
                let in_time = operations
                    .iter()
                    .zip(&moment.steps)
                    .all(|(operation, step)| match step {
                        Step::Done => operation.submitted <= next.ended,
                        _ => operation.ended >= next.began,
                    });
                if !in_time || !moment.content.iter().eq(&next.rows) {
                    break;
                }
                moment.explained[reader] += 1;
            }
        }
    }

    /// The moment after one statement made its next step, if it could.
    fn step(&self, operations: &[&Operation], moment: &Moment, index: usize) -> Option<Moment> {
        let operation = operations[index];
        let earlier_done = operations
            .iter()
            .zip(&moment.steps)
            .all(|(other, step)| *step == Step::Done || other.ended >= operation.submitted);
        let seen_before = |(reader, seen): (usize, &Vec<Seen>)| {
            let next = seen.get(moment.explained[reader]);
            next.is_none_or(|next| next.ended >= operation.submitted)
        };
        if !earlier_done || !self.readers.iter().enumerate().all(seen_before) {
            return None;
        }
        let mut next = moment.clone();
        match moment.steps[index] {
            Step::Done => return None,
            Step::Before if operation.looks_first() => {
                next.steps[index] = Step::Looked;
                next.looked[index] = Some(moment.content.clone());
            }
            Step::Before | Step::Looked => {
                let looked = next.looked[index]
                    .take()
                    .unwrap_or_else(|| moment.content.clone());
                operation.apply(&mut next.content, &looked);
                next.steps[index] = Step::Done;
            }
        }
        Some(next)
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "at first: {:?}", self.start)?;
        let mut operations: Vec<&Operation> = self.operations.iter().collect();
        operations.sort_by_key(|operation| operation.submitted);
        for operation in operations {
            let end = operation.fault.as_deref().unwrap_or("SUCCESS");
            writeln!(
                f,
                "[{} to {}] statement {}: {:?}: {end}",
                operation.submitted, operation.ended, operation.number, operation.effect
            )?;
        }
        for (reader, seen) in self.readers.iter().enumerate() {
            for seen in seen {
                writeln!(
                    f,
                    "[{} to {}] reader {reader} saw {:?}",
                    seen.began, seen.ended, seen.rows
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(effects: &[(Effect, u64, u64)], seen: &[(u64, &[Row])]) -> History {
        let operations = effects
            .iter()
            .enumerate()
            .map(|(index, (effect, submitted, ended))| Operation {
                number: index as i64 + 1,
                effect: effect.clone(),
                submitted: *submitted,
                ended: *ended,
                fault: None,
            });
        History {
            start: Content::new(),
            operations: operations.collect(),
            readers: vec![
                seen.iter()
                    .map(|(at, rows)| Seen::new(*at, *at, rows.to_vec()))
                    .collect(),
            ],
        }
    }

    fn insert(day: usize) -> Effect {
        Effect::Insert { days: vec![day] }
    }

    fn replace(day: usize, concurrent: bool) -> Effect {
        let (over, days) = (vec![0, 1, 2], vec![day]);
        Effect::Replace {
            over,
            days,
            concurrent,
        }
    }

    #[test]
    fn finds_what_cannot_be() {
        let both: &[Row] = &[(0, 1, 0), (0, 2, 0)];
        // Statements with their times, what was seen when, and whether that can be.
        type Case<'a> = (&'a [(Effect, u64, u64)], &'a [(u64, &'a [Row])], bool);
        let cases: [Case; 9] = [
            (
                &[(insert(0), 10, 20)],
                &[(5, &[]), (15, &[(0, 1, 0)]), (30, &[(0, 1, 0)])],
                true,
            ),
            // Too early, too late, twice, half, back again.
            (
                &[(insert(0), 10, 20)],
                &[(5, &[(0, 1, 0)]), (30, &[(0, 1, 0)])],
                false,
            ),
            (&[(insert(0), 10, 20)], &[(21, &[])], false),
            (&[(insert(0), 10, 20)], &[(30, &[(0, 1, 0), (0, 1, 0)])], false),
            (
                &[(Effect::Insert { days: vec![0, 1] }, 10, 20)],
                &[(15, &[(0, 1, 0)]), (30, &[(0, 1, 0), (1, 1, 0)])],
                false,
            ),
            (
                &[(insert(0), 10, 20)],
                &[(15, &[(0, 1, 0)]), (16, &[]), (30, &[(0, 1, 0)])],
                false,
            ),
            // Only a concurrent REPLACE keeps what was added while it ran.
            (
                &[(insert(0), 10, 20), (replace(0, true), 5, 30)],
                &[(25, &[(0, 1, 0)]), (40, both)],
                true,
            ),
            (
                &[(insert(0), 10, 20), (replace(0, false), 5, 30)],
                &[(25, &[(0, 1, 0)]), (40, both)],
                false,
            ),
            (
                &[(insert(0), 10, 20), (Effect::Copy, 30, 40)],
                &[(50, &[(0, 1, 0), (0, 2, 1)])],
                true,
            ),
        ];
        for (effects, seen, expected) in cases {
            let history = history(effects, seen);
            assert_eq!(history.is_explained(), expected, "{history}");
        }
    }
}

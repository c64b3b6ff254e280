//! Warnings of one work order. Parse errors are counted, the first few kept, too many stop the job.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use trilith_input::{Unconverted, WarningSink};
use trilith_proto::fault::{Fault, FaultCode};
use trilith_proto::pb::task as pb;

use crate::limits;

/// Counts parse errors against `maxParseExceptions`.
pub struct ParseWarnings {
    max: i64,
    count: AtomicU64,
    verbose: Mutex<Vec<Fault>>,
    /// What `note` reported.
    notices: Mutex<Vec<Fault>>,
    /// The largest record that is larger than a row may be.
    largest: Mutex<Option<String>>,
    /// Values that became null, by column.
    quality: Mutex<BTreeMap<String, pb::ColumnQuality>>,
}

impl ParseWarnings {
    /// `max` as the context key says: 0 none allowed, -1 any number.
    pub fn new(max: i64) -> Self {
        ParseWarnings {
            max,
            count: AtomicU64::new(0),
            verbose: Mutex::new(Vec::new()),
            notices: Mutex::new(Vec::new()),
            largest: Mutex::new(None),
            quality: Mutex::default(),
        }
    }

    /// Parse errors so far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Reports something that is no parse error. The same is reported once.
    pub fn note(&self, notice: Fault) {
        let mut notices = self.notices.lock();
        if !notices.contains(&notice) {
            notices.push(notice.clone());
            self.verbose.lock().push(notice);
        }
    }

    /// Adds to `RowTooLarge` where the largest record stood.
    pub fn explained(&self, mut fault: Fault) -> Fault {
        if fault.code == FaultCode::RowTooLarge
            && let Some(record) = &*self.largest.lock()
        {
            fault.message = format!("{} The largest record so far: {record}.", fault.message);
        }
        fault
    }

    /// Values so far that became null because they do not convert; none if there are none.
    pub fn quality(&self) -> Option<pb::DataQualityCounter> {
        let quality = self.quality.lock();
        (!quality.is_empty()).then(|| pb::DataQualityCounter {
            columns: quality.values().cloned().collect(),
        })
    }

    /// Takes the verbose warnings that were not yet reported.
    pub fn take(&self) -> Vec<Fault> {
        std::mem::take(&mut *self.verbose.lock())
    }
}

impl WarningSink for ParseWarnings {
    fn large_record(&self, bytes: u64, place: &dyn Fn() -> String) {
        *self.largest.lock() = Some(format!("{bytes} bytes{}", place()));
    }

    fn unconverted(&self, column: &str, example: &dyn Fn() -> Unconverted) {
        let mut quality = self.quality.lock();
        if !quality.contains_key(column) {
            let first = pb::ColumnQuality {
                column: column.to_owned(),
                ..pb::ColumnQuality::default()
            };
            quality.insert(column.to_owned(), first);
        }
        let Some(found) = quality.get_mut(column) else {
            return;
        };
        found.null_conversion_count += 1;
        if found.examples.len() < limits::CONVERSION_EXAMPLES_MAX {
            let example = example();
            found.examples.push(pb::ConversionExample {
                file: example.file,
                record: example.record,
                value: example.value,
            });
        }
    }

    fn parse_error(&self, message: &dyn Fn() -> String) -> Result<(), Fault> {
        if self.max == 0 {
            return Err(Fault::cannot_parse(message()));
        }
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let verbose = if self.max < 0 {
            limits::VERBOSE_PARSE_WARNINGS_MAX
        } else {
            limits::VERBOSE_PARSE_WARNINGS_MAX.min(self.max as u64)
        };
        if count <= verbose {
            let warning = Fault::cannot_parse(message());
            self.verbose.lock().push(warning);
        }
        if self.max > 0 && count > self.max as u64 {
            return Err(Fault::too_many_warnings(
                self.max,
                FaultCode::CannotParseExternalData,
            ));
        }
        Ok(())
    }
}

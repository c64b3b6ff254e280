//! What the planner knows: datasources as they are now, system tables, EXTERN.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use datafusion::catalog::TableProvider;
use tracing::error;
use trilith_input::ExternSpec;
use trilith_proto::column::ColumnType;
use trilith_proto::error::ApiError;
use trilith_segment::{SegmentRecord, visible};
use trilith_sql::{Catalog, ExternCall};

use super::{Controller, system};
use crate::stage::{ExternTable, SegmentSlice, SegmentTable, table_columns};

/// One consistent view of the metadata, for one statement. Loads a datasource when it is first asked for.
pub(crate) struct Snapshot {
    controller: Arc<Controller>,
    segments: OnceLock<BTreeMap<String, Vec<SegmentRecord>>>,
}

impl Snapshot {
    pub(crate) fn new(controller: &Arc<Controller>) -> Snapshot {
        Snapshot {
            controller: Arc::clone(controller),
            segments: OnceLock::new(),
        }
    }

    fn segments(&self) -> &BTreeMap<String, Vec<SegmentRecord>> {
        self.segments.get_or_init(|| {
            let records = self.controller.store.used_segments(None).unwrap_or_else(|error| {
                error!(%error, "segments cannot be read");
                Vec::new()
            });
            let mut by_datasource: BTreeMap<String, Vec<SegmentRecord>> = BTreeMap::new();
            for record in records {
                by_datasource
                    .entry(record.datasource.clone())
                    .or_default()
                    .push(record);
            }
            by_datasource
        })
    }

    /// Datasources that have rows, or had them before a REPLACE left tombstones.
    pub(crate) fn datasources(&self) -> Vec<String> {
        self.segments()
            .keys()
            .filter(|name| !self.slices(name).is_empty())
            .cloned()
            .collect()
    }

    /// Visible segments of a datasource.
    pub(crate) fn slices(&self, datasource: &str) -> Vec<SegmentSlice> {
        let records = self.segments().get(datasource).map_or(&[][..], Vec::as_slice);
        slices(records)
    }

    /// Every used segment, and whether any part of it is visible.
    pub(crate) fn all_segments(&self) -> Vec<(SegmentRecord, bool)> {
        self.segments()
            .values()
            .flat_map(|records| {
                let visible: std::collections::HashSet<String> = slices(records)
                    .into_iter()
                    .map(|slice| slice.record.segment_id())
                    .collect();
                records
                    .iter()
                    .map(move |record| (record.clone(), visible.contains(&record.segment_id())))
            })
            .collect()
    }

    /// Columns of a datasource.
    pub(crate) fn columns(&self, datasource: &str) -> Option<Vec<(String, ColumnType)>> {
        let slices = self.slices(datasource);
        (!slices.is_empty()).then(|| table_columns(&slices))
    }
}

/// Visible segments with their visible parts, in the order of time.
pub(crate) fn slices(records: &[SegmentRecord]) -> Vec<SegmentSlice> {
    visible(records)
        .into_iter()
        .map(|(record, parts)| {
            let whole = parts.as_slice() == [record.interval];
            SegmentSlice {
                record: record.clone(),
                visible: (!whole).then_some(parts),
            }
        })
        .collect()
}

impl Catalog for Snapshot {
    fn table(&self, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>> {
        let table = match schema {
            "druid" => {
                let slices = self.slices(name);
                return (!slices.is_empty())
                    .then(|| Arc::new(SegmentTable::new(name, slices)) as Arc<dyn TableProvider>);
            }
            "sys" => system::sys(self, &self.controller, name)?,
            "INFORMATION_SCHEMA" => system::information(self, name)?,
            _ => return None,
        };
        match table {
            Ok(table) => Some(table),
            Err(error) => {
                error!(%error, schema, name, "system table cannot be built");
                None
            }
        }
    }

    fn table_names(&self, schema: &str) -> Vec<String> {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        match schema {
            "druid" => self.datasources(),
            "sys" => names(system::SYS),
            "INFORMATION_SCHEMA" => names(system::INFORMATION),
            _ => Vec::new(),
        }
    }

    fn external(&self, call: &ExternCall) -> Result<Arc<dyn TableProvider>, ApiError> {
        let spec = ExternSpec::parse(&call.input_source, &call.input_format, &call.signature)
            .map_err(|error| ApiError::invalid_input(error.to_string()).at(call.position))?;
        Ok(Arc::new(ExternTable::new(spec)))
    }

    fn datasource_columns(&self, name: &str) -> Option<Vec<(String, ColumnType)>> {
        self.columns(name)
    }
}

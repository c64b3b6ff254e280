//! How much memory a process may use, and what a work order needs of it.

use datafusion::common::config::SpillCompression;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionConfig;
use tracing::warn;
use trilith_exchange::batch_rows;
use trilith_proto::fault::Fault;

use crate::limits;

/// Memory of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBounds {
    /// `--memory-limit`: bytes for operators, stage outputs, readers and writers.
    pub limit_bytes: u64,
    /// Bytes of the machine, or of the control group that holds the process.
    pub machine_bytes: u64,
    /// Work orders that may run at a time.
    pub slots: u32,
    /// Cores of the machine.
    pub threads: u32,
}

impl MemoryBounds {
    /// Bytes that one work order may keep of the side of a join that is read first. Building the table takes about
    /// three times as much for a moment, and all slots may do so at once.
    pub fn join_build_bytes(&self) -> u64 {
        self.limit_bytes / 100 * limits::JOIN_BUILD_PERCENT / u64::from(self.slots.max(1))
    }

    /// Settings of operators that handle rows of up to `columns` columns.
    pub(crate) fn session(&self, columns: usize) -> SessionConfig {
        let share = self.limit_bytes / u64::from(self.slots.max(1));
        let merge = (share / limits::MERGE_PART).clamp(limits::MERGE_BYTES_MIN, limits::MERGE_BYTES_MAX);
        SessionConfig::new()
            .with_batch_size(
                batch_rows(columns)
                    .min((share / limits::BATCH_PART) as usize)
                    .max(1),
            )
            .with_sort_spill_reservation_bytes(merge as usize)
            .with_spill_compression(SpillCompression::Lz4Frame)
    }

    /// Bytes of encoded rows that a segment writer may collect before it writes them out.
    pub(crate) fn row_group_bytes(&self) -> usize {
        let share = self.limit_bytes / u64::from(self.slots.max(1));
        (share / 8).clamp(limits::ROW_GROUP_BYTES_MIN, limits::ROW_GROUP_BYTES_MAX) as usize
    }

    /// Fails with `NotEnoughMemory` when a slot's share is too small for any stage.
    pub fn check_minimum(&self) -> Result<(), Fault> {
        let slots = u64::from(self.slots.max(1));
        let needed = limits::SLOT_BYTES_MIN * slots;
        if self.limit_bytes >= needed {
            return Ok(());
        }
        let advice = format!(
            "Each of {slots} slots needs {} bytes. Start the process with --memory-limit of at least {needed} bytes, \
             or with --worker-slots of at most {}.",
            limits::SLOT_BYTES_MIN,
            self.limit_bytes / limits::SLOT_BYTES_MIN,
        );
        Err(self.fault(Some(needed), &advice))
    }

    /// The fault of a stage whose operators found no memory although they spill.
    pub(crate) fn exhausted(&self) -> Fault {
        let advice = format!(
            "The operators of this stage need more, although they spill to disk. Start the process with a \
             --memory-limit above {} bytes, or with fewer --worker-slots than {}.",
            self.limit_bytes, self.slots,
        );
        self.fault(None, &advice)
    }

    /// `limit_bytes`: the limit that would do, if that is known.
    fn fault(&self, limit_bytes: Option<u64>, advice: &str) -> Fault {
        // What a machine must have for that limit to be its default.
        let suggested = limit_bytes.map(|bytes| (bytes * 10).div_ceil(6).max(self.machine_bytes));
        Fault::not_enough_memory(
            suggested,
            self.machine_bytes,
            self.limit_bytes,
            self.slots,
            self.threads,
            advice,
        )
    }
}

/// The fault inside an error of DataFusion, or an unknown one with its text.
pub fn fault_of(error: &DataFusionError, memory: &MemoryBounds) -> Fault {
    if let Some(fault) = Fault::find(error) {
        return fault.clone();
    }
    if let DataFusionError::ResourcesExhausted(_) = error.find_root() {
        // The user hears the numbers, the log keeps who asked for what.
        warn!(%error, "operators found no memory");
        return memory.exhausted();
    }
    Fault::unknown(trilith_sql::plain_message(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(limit_bytes: u64) -> MemoryBounds {
        MemoryBounds {
            limit_bytes,
            machine_bytes: 1 << 30,
            slots: 2,
            threads: 4,
        }
    }

    #[test]
    fn a_slot_without_its_minimum_is_refused_with_numbers() {
        assert!(bounds(2 * limits::SLOT_BYTES_MIN).check_minimum().is_ok());
        let fault = bounds(limits::SLOT_BYTES_MIN).check_minimum().unwrap_err();
        let json = fault.to_json();
        assert_eq!(json["errorCode"], "NotEnoughMemory");
        assert_eq!(json["serverMemory"], 1_u64 << 30);
        assert_eq!(json["suggestedServerMemory"], 1_u64 << 30);
        assert_eq!(json["usableMemory"], limits::SLOT_BYTES_MIN);
        assert_eq!(json["serverWorkers"], 2);
        assert_eq!(json["serverThreads"], 4);
        assert!(json["errorMessage"].as_str().unwrap().contains("--memory-limit"));
    }

    #[test]
    fn exhausted_operators_become_a_fault_with_numbers() {
        let error = DataFusionError::ResourcesExhausted("sort".to_owned());
        let json = fault_of(&error, &bounds(512 << 20)).to_json();
        assert_eq!(json["errorCode"], "NotEnoughMemory");
        assert_eq!(json["usableMemory"], 512 << 20);
        assert!(json.get("suggestedServerMemory").is_none());
    }
}

//! What an attempt wrote.

use std::sync::Arc;

use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};
use trilith_proto::id::WorkOrderId;

use super::{DurableArea, DurableStorage, PARTS, PARTS_KNOWN_MAX, attempt};
use crate::error::ExchangeError;

/// Size of one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PartSize {
    /// Rows.
    pub rows: u64,
    /// Bytes of the file; 0 if there are no rows, and therefore no file.
    pub bytes: u64,
}

/// All parts of one attempt, by number.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PartList {
    /// By partition or page.
    pub parts: Vec<PartSize>,
}

impl PartList {
    /// Files that were written.
    pub fn files(&self) -> u64 {
        self.parts.iter().filter(|part| part.rows > 0).count() as u64
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

impl DurableStorage {
    /// What an attempt wrote, if it completed. Fails with `OutputMissing` otherwise.
    pub async fn parts(&self, area: DurableArea, id: &WorkOrderId) -> Result<Arc<PartList>, ExchangeError> {
        let path = attempt(area, id).join(PARTS);
        if let Some(list) = self.lists.lock().get(&path) {
            return Ok(Arc::clone(list));
        }
        let found = match self.store.get(&path).await {
            Err(object_store::Error::NotFound { .. }) => {
                return Err(ExchangeError::OutputMissing { id: id.clone() });
            }
            other => other.map_err(self.error("read from"))?,
        };
        let bytes = found.bytes().await.map_err(self.error("read from"))?;
        let list: PartList =
            serde_json::from_slice(&bytes).map_err(|error| ExchangeError::BadTicket(Some(error)))?;
        let list = Arc::new(list);
        let mut lists = self.lists.lock();
        let known: usize = lists.values().map(|list| list.parts.len()).sum();
        if known + list.parts.len() > PARTS_KNOWN_MAX {
            lists.clear();
        }
        lists.insert(path, Arc::clone(&list));
        Ok(list)
    }
}

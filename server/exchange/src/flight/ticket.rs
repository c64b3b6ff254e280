//! What a Flight reader asks for.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trilith_proto::id::WorkOrderId;

use crate::error::ExchangeError;
use crate::output::OutputOrder;
use crate::shuffle::StageSource;

/// Bytes of a `DoGet` ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Ticket {
    Piece(PieceTicket),
    Result(ResultTicket),
}

/// One partition of one output, for another stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PieceTicket {
    pub id: WorkOrderId,
    pub partition: u32,
    /// Merge the output's runs.
    pub merged: bool,
    /// Rows that the reader has already.
    pub skip_rows: u64,
}

impl PieceTicket {
    pub fn new(id: &WorkOrderId, partition: u32, order: OutputOrder) -> PieceTicket {
        PieceTicket {
            id: id.clone(),
            partition,
            merged: order == OutputOrder::Keys,
            skip_rows: 0,
        }
    }

    pub fn order(&self) -> OutputOrder {
        if self.merged {
            OutputOrder::Keys
        } else {
            OutputOrder::Kept
        }
    }
}

/// All rows of a statement's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultTicket {
    /// Partitions of outputs, in the order of the rows; at least one. Addresses are as the serving process sees
    /// them.
    pub sources: Vec<(StageSource, u32)>,
}

impl ResultTicket {
    /// As bytes of a Flight ticket.
    pub fn encode(&self) -> Result<Bytes, ExchangeError> {
        Ticket::Result(self.clone()).encode()
    }

    /// The reverse of `encode`.
    pub fn decode(bytes: &[u8]) -> Result<ResultTicket, ExchangeError> {
        match Ticket::decode(bytes)? {
            Ticket::Result(ticket) => Ok(ticket),
            Ticket::Piece(_) => Err(ExchangeError::BadTicket(None)),
        }
    }
}

impl Ticket {
    pub fn encode(&self) -> Result<Bytes, ExchangeError> {
        serde_json::to_vec(self)
            .map(Bytes::from)
            .map_err(|error| ExchangeError::BadTicket(Some(error)))
    }

    pub fn decode(bytes: &[u8]) -> Result<Ticket, ExchangeError> {
        serde_json::from_slice(bytes).map_err(|error| ExchangeError::BadTicket(Some(error)))
    }
}

/// Last message of a piece: what a complete answer consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    pub rows: u64,
    pub batches: u64,
}

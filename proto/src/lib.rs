//! The wire and the words that every part shares: protobuf messages, ids, column types, time chunks,
//! error categories and faults.

pub mod column;
pub mod error;
pub mod fault;
pub mod id;
pub mod interval;
pub mod java;
mod messages;
pub mod multi_value;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
pub mod timed;

/// Generated messages, clients and servers.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::disallowed_methods)]
pub mod pb {
    /// `trilith.task.v1`
    pub mod task {
        pub use v1::*;
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("trilith.task.v1");
        }
    }
    /// `trilith.query.v1`
    pub mod query {
        pub use v1::*;
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("trilith.query.v1");
        }
    }
    /// `trilith.datasource.v1`
    pub mod datasource {
        pub use v1::*;
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("trilith.datasource.v1");
        }
    }
    /// `trilith.worker.v1`
    pub mod worker {
        pub use v1::*;
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("trilith.worker.v1");
        }
    }
}

/// Encoded `FileDescriptorSet` of all services, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/trilith.bin"));

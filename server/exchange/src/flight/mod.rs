//! Stage outputs over Arrow Flight.

pub mod client;
pub mod serve;
pub mod ticket;

/// Request metadata with the secret that processes of one cluster share.
pub const TOKEN_METADATA: &str = "x-trilith-token";

//! Stage outputs over Arrow Flight.

pub mod client;
pub mod serve;
pub mod ticket;

/// Request metadata with the secret that processes of one cluster share.
pub const TOKEN_METADATA: &str = "x-trilith-token";

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;

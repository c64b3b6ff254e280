//! What EXTERN may read: `local` only below allowed directories, `http` never from private networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use trilith_proto::fault::Fault;

/// Limits of a process. The default allows no local file and public hosts only.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Directories of `--allow-local`.
    pub allow_local: Vec<PathBuf>,
    /// Hosts of `--allow-http`, whatever their addresses are.
    pub allow_http: Vec<String>,
    /// Names of `--allow-http-header`: the headers that a statement may send with an http input source.
    pub allow_http_headers: Vec<String>,
    /// Bytes of one download.
    pub max_http_bytes: u64,
    /// Time that one download may take.
    pub http_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            allow_local: Vec::new(),
            allow_http: Vec::new(),
            allow_http_headers: Vec::new(),
            max_http_bytes: 64 << 30,
            http_timeout: Duration::from_secs(3_600),
        }
    }
}

impl Policy {
    /// The real path of a local file, if it may be read.
    pub(crate) fn local(&self, path: &Path) -> Result<PathBuf, Fault> {
        let refused = || {
            Fault::query_not_supported(format!(
                "local file [{}] is outside the allowed directories; start the server with --allow-local <directory>",
                path.display()
            ))
        };
        // Before looking at the file, so that a refusal does not tell whether it exists.
        if self.allow_local.is_empty() {
            return Err(refused());
        }
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(error) => {
                let inside = self.allow_local.iter().any(|allowed| path.starts_with(allowed));
                if !inside {
                    return Err(refused());
                }
                return Err(Fault::unknown(format!(
                    "cannot read [{}]: {error}",
                    path.display()
                )));
            }
        };
        let inside = self
            .allow_local
            .iter()
            .filter_map(|allowed| allowed.canonicalize().ok())
            .any(|allowed| real.starts_with(allowed));
        if inside { Ok(real) } else { Err(refused()) }
    }

    /// Checks a host and the addresses that it resolves to.
    pub(crate) fn http(&self, host: &str, addresses: &[IpAddr]) -> Result<(), Fault> {
        if self
            .allow_http
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(host))
        {
            return Ok(());
        }
        match addresses.iter().find(|address| !is_public(address)) {
            None => Ok(()),
            Some(_) => Err(Fault::query_not_supported(format!(
                "http host [{host}] is not a public address; start the server with --allow-http {host}"
            ))),
        }
    }
}

fn is_public(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(*address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => is_public_v4(mapped),
            None => is_public_v6(*address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let shared = first == 100 && (64..128).contains(&second);
    !(address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_unspecified()
        || address.is_broadcast()
        || address.is_multicast()
        || first == 0
        || shared)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let first = address.segments()[0];
    let unique_local = first & 0xfe00 == 0xfc00;
    let link_local = first & 0xffc0 == 0xfe80;
    !(address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || unique_local
        || link_local)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn refuses_private_addresses_and_names_the_flag() {
        let policy = Policy::default();
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "169.254.169.254",
            "::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "100.64.0.1",
        ] {
            let fault = policy.http("h", &[address.parse().unwrap()]).unwrap_err();
            assert!(fault.message.contains("--allow-http h"), "{address}");
        }
        assert!(policy.http("h", &["93.184.216.34".parse().unwrap()]).is_ok());
        let allowed = Policy {
            allow_http: vec!["h".to_owned()],
            ..Policy::default()
        };
        assert!(allowed.http("h", &["127.0.0.1".parse().unwrap()]).is_ok());
    }

    #[test]
    fn local_files_must_be_below_an_allowed_directory() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("a/x.json");
        std::fs::create_dir_all(inside.parent().unwrap()).unwrap();
        std::fs::write(&inside, "{}").unwrap();
        let policy = Policy {
            allow_local: vec![directory.path().join("a")],
            ..Policy::default()
        };
        assert!(policy.local(&inside).is_ok());
        let outside = policy
            .local(&directory.path().join("a/../../etc/passwd"))
            .unwrap_err();
        assert!(outside.message.contains("--allow-local") || outside.message.contains("cannot read"));
        assert!(
            policy
                .local(Path::new("/etc/passwd"))
                .unwrap_err()
                .message
                .contains("--allow-local")
        );
        assert!(Policy::default().local(&inside).is_err());
    }
}

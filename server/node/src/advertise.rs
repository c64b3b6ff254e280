//! Under which address other processes reach this one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::{UdpSocket, lookup_host};

use crate::parts::StartError;

/// Documentation addresses are routed like any other far one, and nobody answers there.
const FAR: &str = "192.0.2.1:9";

/// "host" or "host:port"; without a port, the one that is listened on.
pub(crate) fn with_port(given: &str, port: u16) -> String {
    let has_port = given.parse::<SocketAddr>().is_ok()
        || (given.parse::<IpAddr>().is_err()
            && given
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok()));
    match given.parse::<IpAddr>() {
        _ if has_port => given.to_owned(),
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{given}:{port}"),
    }
}

/// The address of a listener; when it listens on all, the one from which packets leave for the server.
pub(crate) async fn reachable(listens: SocketAddr, server: &str) -> Result<String, StartError> {
    if !listens.ip().is_unspecified() {
        return Ok(listens.to_string());
    }
    let host = server.split_once("://").map_or(server, |(_, host)| host);
    let host = host.trim_end_matches('/');
    let target = lookup_host(host)
        .await?
        .next()
        .ok_or_else(|| format!("no address of [{host}] is known; set --advertise-address"))?;
    Ok(SocketAddr::new(source(target).await?, listens.port()).to_string())
}

/// The address of a listener; when it listens on all, the one from which packets leave for the world.
pub(crate) async fn outward(listens: SocketAddr) -> Result<String, StartError> {
    if !listens.ip().is_unspecified() {
        return Ok(listens.to_string());
    }
    // A machine without a network talks to itself only.
    let ip = match source(FAR.parse()?).await {
        Ok(ip) => ip,
        Err(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    Ok(SocketAddr::new(ip, listens.port()).to_string())
}

/// Which of this machine's addresses packets to `target` have. Sends none.
async fn source(target: SocketAddr) -> Result<IpAddr, StartError> {
    let any: SocketAddr = if target.is_ipv4() {
        "0.0.0.0:0".parse()?
    } else {
        "[::]:0".parse()?
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_a_port_where_there_is_none() {
        for (given, full) in [
            ("10.0.0.7", "10.0.0.7:99"),
            ("10.0.0.7:5", "10.0.0.7:5"),
            ("worker-3", "worker-3:99"),
            ("worker-3:5", "worker-3:5"),
            ("fd00::7", "[fd00::7]:99"),
            ("[fd00::7]:5", "[fd00::7]:5"),
        ] {
            assert_eq!(with_port(given, 99), full);
        }
    }

    #[tokio::test]
    async fn a_listener_on_all_addresses_names_one() {
        let all: SocketAddr = "0.0.0.0:99".parse().unwrap();
        assert_eq!(reachable(all, "127.0.0.1:1").await.unwrap(), "127.0.0.1:99");
        let one: SocketAddr = "127.0.0.9:99".parse().unwrap();
        assert_eq!(reachable(one, "127.0.0.1:1").await.unwrap(), "127.0.0.9:99");
        let outward = outward(all).await.unwrap();
        assert!(
            outward.ends_with(":99") && !outward.starts_with("0.0.0.0"),
            "{outward}"
        );
    }
}

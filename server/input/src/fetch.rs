//! Downloads, with one retry policy, into a temporary file.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::time::Duration;

use reqwest::redirect;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use trilith_proto::fault::{CancelReason, Fault};

use crate::policy::Policy;

const ATTEMPTS: u32 = 4;
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const REDIRECTS_MAX: usize = 5;

enum Failure {
    /// Trying again may help.
    Passing(String),
    /// It will not.
    Final(Fault),
}

/// What to download, and as whom.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub uri: &'a str,
    /// Name and password.
    pub credentials: Option<(&'a str, Option<&'a str>)>,
    /// Name and value.
    pub headers: &'a [(String, String)],
    /// Bytes that are enough; all of them if none.
    pub most: Option<u64>,
}

/// Downloads a URI; blocking.
pub(crate) fn download(
    wanted: Request<'_>,
    policy: &Policy,
    cancel: &CancellationToken,
    handle: &Handle,
) -> Result<File, Fault> {
    handle.block_on(async {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Fault::canceled(CancelReason::Unknown)),
            file = with_retries(wanted, policy) => file,
        }
    })
}

async fn with_retries(wanted: Request<'_>, policy: &Policy) -> Result<File, Fault> {
    let uri = wanted.uri;
    let mut backoff = FIRST_BACKOFF;
    let mut attempt = 1;
    loop {
        match attempt_download(wanted, policy).await {
            Ok(file) => return Ok(file),
            Err(Failure::Final(fault)) => return Err(fault),
            Err(Failure::Passing(reason)) if attempt >= ATTEMPTS => {
                return Err(Fault::unknown(format!(
                    "cannot read [{uri}] after {ATTEMPTS} attempts: {reason}"
                )));
            }
            Err(Failure::Passing(reason)) => {
                tracing::warn!(uri, attempt, reason, "download failed; trying again");
                tokio::time::sleep(backoff).await;
                backoff *= 2;
                attempt += 1;
            }
        }
    }
}

async fn attempt_download(wanted: Request<'_>, policy: &Policy) -> Result<File, Failure> {
    let uri = wanted.uri;
    let mut url =
        url::Url::parse(uri).map_err(|error| Failure::Final(Fault::unknown(format!("{uri}: {error}"))))?;
    let origin = url.origin();
    for _ in 0..=REDIRECTS_MAX {
        // Another host must not see what was meant for this one.
        let secrets = (url.origin() == origin).then_some(wanted);
        let response = get(&url, secrets, policy).await?;
        let status = response.status();
        if status.is_redirection() {
            let target = response
                .headers()
                .get("location")
                .and_then(|value| value.to_str().ok())
                .and_then(|target| url.join(target).ok());
            // The target is checked like the first address.
            url = target
                .ok_or_else(|| Failure::Final(Fault::unknown(format!("[{uri}] redirects to nowhere"))))?;
            continue;
        }
        if status.is_server_error() || status.as_u16() == 429 {
            return Err(Failure::Passing(format!("HTTP {status}")));
        }
        if !status.is_success() {
            return Err(Failure::Final(Fault::unknown(format!(
                "cannot read [{uri}]: HTTP {status}"
            ))));
        }
        return save(wanted, response, policy).await;
    }
    Err(Failure::Final(Fault::unknown(format!(
        "[{uri}] redirects more than {REDIRECTS_MAX} times"
    ))))
}

/// One request to an address that was checked: the host is resolved once, so that it cannot change between
/// the check and the connection.
async fn get(
    url: &url::Url,
    secrets: Option<Request<'_>>,
    policy: &Policy,
) -> Result<reqwest::Response, Failure> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.port_or_known_default().unwrap_or(80);
    let resolved: Vec<std::net::SocketAddr> = tokio::net::lookup_host((bare.as_str(), port))
        .await
        .map_err(|error| Failure::Passing(format!("host [{host}]: {error}")))?
        .collect();
    let addresses: Vec<IpAddr> = resolved.iter().map(std::net::SocketAddr::ip).collect();
    policy.http(&bare, &addresses).map_err(Failure::Final)?;
    let client = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(IDLE_TIMEOUT)
        .timeout(policy.http_timeout)
        .resolve_to_addrs(&host, &resolved)
        .no_proxy()
        .build()
        .map_err(|error| Failure::Final(Fault::unknown(error.to_string())))?;
    let mut request = client.get(url.clone());
    if let Some(secrets) = secrets {
        for (name, value) in secrets.headers {
            request = request.header(name, value);
        }
        if let Some((user, password)) = secrets.credentials {
            request = request.basic_auth(user, password);
        }
    }
    request
        .send()
        .await
        .map_err(|error| Failure::Passing(error.to_string()))
}

async fn save(
    wanted: Request<'_>,
    mut response: reqwest::Response,
    policy: &Policy,
) -> Result<File, Failure> {
    let uri = wanted.uri;
    let io = |error: std::io::Error| {
        Failure::Final(Fault::unknown(format!("temporary file for [{uri}]: {error}")))
    };
    let mut file = tempfile::tempfile().map_err(io)?;
    let expected = response.content_length();
    let mut total: u64 = 0;
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| Failure::Passing(error.to_string()))?
    {
        total += chunk.len() as u64;
        if total > policy.max_http_bytes {
            let fault = Fault::unknown(format!("[{uri}] is larger than {} bytes", policy.max_http_bytes));
            return Err(Failure::Final(fault));
        }
        file.write_all(&chunk).map_err(io)?;
        if wanted.most.is_some_and(|most| total >= most) {
            file.seek(SeekFrom::Start(0)).map_err(io)?;
            return Ok(file);
        }
    }
    if expected.is_some_and(|expected| expected != total) {
        return Err(Failure::Passing(format!("{total} bytes came")));
    }
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    Ok(file)
}

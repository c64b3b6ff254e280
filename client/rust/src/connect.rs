//! How a client reaches a server: address, TLS, token, deadline.

use std::path::PathBuf;
use std::time::Duration;

use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::client::{Client, ClientError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Bytes on their way in one stream of rows.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Bytes on their way in all of them: no bound of their own, so that rows that nobody takes keep no other call waiting.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
const DEADLINE_DEFAULT: Duration = Duration::from_secs(30);

/// A channel that sends the token with every call.
pub(crate) type Transport = InterceptedService<Channel, Token>;

/// Adds `authorization: Bearer …`.
#[derive(Debug, Clone)]
pub struct Token(Option<MetadataValue<Ascii>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// Where a server is and how to talk to it.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    address: String,
    token: Option<String>,
    ca_file: Option<PathBuf>,
    server_name: Option<String>,
    deadline: Duration,
}

impl ConnectOptions {
    /// A server at `host:port` or `http://host:port` without, or at `https://host:port` with TLS.
    pub fn new(address: impl Into<String>) -> ConnectOptions {
        ConnectOptions {
            address: address.into(),
            token: None,
            ca_file: None,
            server_name: None,
            deadline: DEADLINE_DEFAULT,
        }
    }

    /// Sent as `authorization: Bearer …` with every call.
    pub fn token(mut self, token: impl Into<String>) -> ConnectOptions {
        self.token = Some(token.into());
        self
    }

    /// PEM file with the certificates to trust, instead of those of the system.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> ConnectOptions {
        self.ca_file = Some(path.into());
        self
    }

    /// Name that the server's certificate must have, instead of the host of the address.
    pub fn server_name(mut self, name: impl Into<String>) -> ConnectOptions {
        self.server_name = Some(name.into());
        self
    }

    /// How long a call may take, its retries included [default: 30 s]. Streams and waiting have none.
    pub fn deadline(mut self, deadline: Duration) -> ConnectOptions {
        self.deadline = deadline;
        self
    }

    /// A client. Connects when it is first used.
    ///
    /// Errors: a malformed address, an unreadable CA file, a token that cannot be a header.
    pub fn connect(self) -> Result<Client, ClientError> {
        let uri = match self.address.contains("://") {
            true => self.address.clone(),
            false => format!("http://{}", self.address),
        };
        let secure = uri.starts_with("https://");
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|source| ClientError::Address {
                address: self.address.clone(),
                source,
            })?
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let channel = match secure {
            true => endpoint.connect_with_connector_lazy(self.https()?),
            false => endpoint.connect_lazy(),
        };
        let token = self
            .token
            .as_ref()
            .map(|token| MetadataValue::try_from(format!("Bearer {token}")))
            .transpose()
            .map_err(|_| {
                ClientError::Option("the token has characters that a header cannot have".to_owned())
            })?;
        Ok(Client::new(
            InterceptedService::new(channel, Token(token)),
            self.deadline,
        ))
    }

    fn https(&self) -> Result<hyper_rustls::HttpsConnector<HttpConnector>, ClientError> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let builder = HttpsConnectorBuilder::new();
        let builder = match &self.ca_file {
            Some(path) => {
                let broken = |error: &dyn std::fmt::Display| {
                    ClientError::Option(format!("CA file {}: {error}", path.display()))
                };
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(path).map_err(|error| broken(&error))? {
                    let certificate = certificate.map_err(|error| broken(&error))?;
                    roots.add(certificate).map_err(|error| broken(&error))?;
                }
                if roots.is_empty() {
                    return Err(broken(&"it has no certificate"));
                }
                let config = ClientConfig::builder().with_root_certificates(roots);
                builder.with_tls_config(config.with_no_client_auth())
            }
            None => builder
                .with_native_roots()
                .map_err(|error| ClientError::Option(format!("certificates of the system: {error}")))?,
        };
        let builder = builder.https_only();
        let builder = match &self.server_name {
            Some(name) => {
                let name = ServerName::try_from(name.clone())
                    .map_err(|_| ClientError::Option(format!("[{name}] is not the name of a server")))?;
                builder.with_server_name_resolver(FixedServerNameResolver::new(name))
            }
            None => builder,
        };
        Ok(builder.enable_http2().wrap_connector(http))
    }
}

//! Deadlines of clients (`grpc-timeout`).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tonic::Status;
use tower::{Layer, Service};
use trilith_proto::error::{ApiError, Category, Persona};

/// The transport gives a call up at its deadline as well, but says that it was cancelled.
const AHEAD: Duration = Duration::from_millis(1);

/// Answers DEADLINE_EXCEEDED when the deadline of a call passes before its answer begins.
#[derive(Debug, Clone)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner }
    }
}

/// A service with deadlines.
#[derive(Debug, Clone)]
pub struct Deadline<S> {
    inner: S,
}

/// How long the client waits: up to eight digits and a unit.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

impl<S, B, R> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let timeout = timeout(request.headers());
        let answer = self.inner.call(request);
        let Some(timeout) = timeout else {
            return Box::pin(answer);
        };
        Box::pin(async move {
            match tokio::time::timeout(timeout.saturating_sub(AHEAD), answer).await {
                Ok(answer) => answer,
                Err(_elapsed) => {
                    let message = format!("the deadline of the call, {timeout:?}, has passed");
                    let error = ApiError::new(Category::Timeout, Persona::User, "general", message);
                    Ok(Status::from(error).into_http())
                }
            }
        })
    }
}

//! Logs on stderr, and spans to an OpenTelemetry collector when the environment names one.

use std::env;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::StartError;

const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";

/// What must be flushed before the process ends.
pub struct Telemetry {
    spans: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts logging, and exporting spans by OTLP over gRPC if `OTEL_EXPORTER_OTLP_ENDPOINT` (or its
    /// `…_TRACES_…` form) is set. `process` is the service name unless `OTEL_SERVICE_NAME` is set. Must
    /// be called within a Tokio runtime.
    pub fn start(process: &'static str, logs: EnvFilter) -> Result<Telemetry, StartError> {
        let wanted = [OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT]
            .iter()
            .any(|name| env::var(name).is_ok_and(|value| !value.is_empty()));
        let spans = wanted.then(|| exporter(process)).transpose()?;
        let layer = spans.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("trilith"))
                .with_filter(Targets::new().with_target("trilith", Level::INFO))
        });
        let stderr = fmt::layer().with_writer(std::io::stderr).with_filter(logs);
        tracing_subscriber::registry().with(layer).with(stderr).init();
        Ok(Telemetry { spans })
    }

    /// Sends what is left. Blocks, for five seconds at most.
    pub fn stop(self) {
        if let Some(Err(error)) = self.spans.map(|provider| provider.shutdown()) {
            tracing::warn!(%error, "the last spans may not have reached the collector");
        }
    }
}

fn exporter(process: &'static str) -> Result<SdkTracerProvider, StartError> {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let exporter = SpanExporter::builder().with_tonic().build()?;
    let mut resource = Resource::builder();
    if env::var_os(SERVICE_NAME).is_none() {
        resource = resource.with_service_name(process);
    }
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource.build())
        .build())
}

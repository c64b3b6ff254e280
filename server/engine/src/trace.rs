//! Trace context as text (W3C `traceparent`), so that the spans of all processes make one trace.
//!
//! Without an exporter (see `trilith-node`'s telemetry) the text is empty and nothing is recorded.

use std::collections::HashMap;

use opentelemetry::global;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACE_PARENT: &str = "traceparent";

/// The `traceparent` of a span; empty when spans are not exported.
pub fn trace_parent(span: &Span) -> String {
    let mut carrier = HashMap::new();
    let context = span.context();
    global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut carrier));
    carrier.remove(TRACE_PARENT).unwrap_or_default()
}

/// Makes a span a child of the one that `trace_parent` names; an empty or malformed text changes nothing.
pub fn continue_from(span: &Span, trace_parent: &str) {
    if trace_parent.is_empty() {
        return;
    }
    let carrier = HashMap::from([(TRACE_PARENT.to_owned(), trace_parent.to_owned())]);
    let context = global::get_text_map_propagator(|propagator| propagator.extract(&carrier));
    if let Err(error) = span.set_parent(context) {
        tracing::debug!(%error, "a span has no parent");
    }
}

//! Sends the spans of this process to an OTLP collector.
//!
//! Spans wait in a bounded queue. When it is full, further spans are dropped: a collector that is slow or away never delays a call.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use opentelemetry::{
    InstrumentationScope,
    trace::{Link, Status},
};
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor as _};
use serin_stream::trace::{self, Span};

use super::{otlp, resource};
use crate::settings::TelemetrySettings;

/// Sends spans until it is dropped.
pub(crate) struct Traces(Arc<BatchSpanProcessor>);

impl Traces {
    /// Starts tracing, if the settings name a collector.
    pub(crate) fn start(settings: &TelemetrySettings, role: &str) -> anyhow::Result<Option<Self>> {
        let Some(endpoint) = &settings.traces.otlp else { return Ok(None) };
        let collector = otlp::Collector::new(&otlp::TRACES, endpoint, settings.otlp_ca_file.as_deref())?;
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(collector)
            .with_endpoint(endpoint)
            .build()
            .with_context(|| format!("{}: {endpoint}", otlp::TRACES.setting))?;
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        processor.set_resource(&resource(role));
        let processor = Arc::new(processor);
        let (queue, scope) = (Arc::clone(&processor), InstrumentationScope::builder("serin").build());
        trace::start(settings.traces.sample, Box::new(move |span| queue.on_end(data(span, scope.clone()))));
        Ok(Some(Self(processor)))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::debug!(%error, "traces did not shut down cleanly");
        }
    }
}

/// A span in the form of the SDK.
fn data(span: Span, instrumentation_scope: InstrumentationScope) -> SpanData {
    let mut links = SpanLinks::default();
    links.links = span.links.into_iter().map(|context| Link::new(context, Vec::new(), 0)).collect();
    SpanData {
        parent_span_is_remote: span.parent != trace::SpanId::INVALID,
        span_context: span.context,
        parent_span_id: span.parent,
        span_kind: span.kind,
        name: span.name.into(),
        start_time: time(span.start_us),
        // Clocks of two machines may disagree.
        end_time: time(span.end_us.max(span.start_us)),
        attributes: span.attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope,
    }
}

fn time(us: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(us.max(0).unsigned_abs())
}

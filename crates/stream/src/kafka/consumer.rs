//! The context of readers: librdkafka's messages, and nothing else.

use rdkafka::{ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError};

use super::client::Complaints;

/// Context of consumers that are assigned by hand: there are no rebalances.
#[derive(Debug, Default)]
pub(super) struct LogConsumerContext {
    pub(super) complaints: Complaints,
}

impl ClientContext for LogConsumerContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.complaints.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.complaints.error(error, reason);
    }
}

impl ConsumerContext for LogConsumerContext {}

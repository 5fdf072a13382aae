//! The context of readers. It only handles librdkafka's messages.

use rdkafka::{ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError};

use super::client::ErrorLog;

/// Context of manually assigned consumers, which have no rebalances.
#[derive(Debug, Default)]
pub(super) struct LogConsumerContext {
    pub(super) errors: ErrorLog,
}

impl ClientContext for LogConsumerContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.errors.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.errors.error(error, reason);
    }
}

impl ConsumerContext for LogConsumerContext {}

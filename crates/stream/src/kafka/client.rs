//! Shared parts of all clients: logging, readable errors, and waiting for a future.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context as TaskContext, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    types::RDKafkaConfRes,
};

use crate::{
    local::{failed, lock},
    log::LogError,
};

/// Timeout of a request to the cluster.
pub(super) const REQUEST: Duration = Duration::from_secs(10);

/// Sends librdkafka's messages to `tracing` and remembers the last error, because librdkafka's own errors often
/// contain only "timed out".
#[derive(Debug, Default)]
pub(super) struct ErrorLog(Mutex<Option<LastError>>);

const ALL_DOWN: RDKafkaErrorCode = RDKafkaErrorCode::AllBrokersDown;

#[derive(Debug)]
struct LastError {
    code: Option<RDKafkaErrorCode>,
    reason: String,
}

impl ErrorLog {
    /// Creates an error that includes the last client error and what to check.
    pub(super) fn explain(&self, doing: &str, error: &KafkaError) -> LogError {
        let cause = match &*lock(&self.0) {
            Some(LastError { code, reason }) => {
                // An OpenSSL error is sometimes reported as a broken connection.
                let code = if reason.contains("SSL routines") { Some(RDKafkaErrorCode::SSL) } else { *code };
                let hint = code.and_then(hint).map(|hint| format!("; {hint}")).unwrap_or_default();
                let reason = if code == Some(ALL_DOWN) { String::new() } else { format!(" (librdkafka: {reason})") };
                format!("{error}{reason}{hint}")
            }
            None => error.to_string(),
        };
        failed(doing, &cause)
    }
}

/// librdkafka properties, with the settings that they come from.
const SETTINGS: [(&str, &str); 7] = [
    ("ssl.ca.location", "security.ca_file"),
    ("ssl.certificate.location", "security.certificate_file"),
    ("ssl.key.location", "security.key_file"),
    ("ssl.key.password", "security.key_password"),
    ("sasl.mechanism", "security.sasl_mechanism"),
    ("sasl.username", "security.username"),
    ("sasl.password", "security.password"),
];

/// What to check when connections fail with this code.
fn hint(code: RDKafkaErrorCode) -> Option<&'static str> {
    use RDKafkaErrorCode as Code;
    match code {
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => {
            Some("check `security.username`, `security.password` and `security.sasl_mechanism`")
        }
        Code::SSL => Some(
            "check that `security.ca_file` contains the authority that signed the brokers' certificates, that `brokers` uses \
             the host names in these certificates, and `security.protocol`",
        ),
        Code::Resolve => Some("check the host names in `brokers`"),
        Code::BrokerTransportFailure | ALL_DOWN => {
            Some("check `brokers`, and that `security.protocol` matches the protocol of that listener")
        }
        _ => None,
    }
}

impl ClientContext for ErrorLog {
    fn log(&self, level: RDKafkaLogLevel, _facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::debug!(target: "librdkafka", "{message}");
            }
            _ => tracing::warn!(target: "librdkafka", "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason);
        let code = code(&error);
        let mut last = lock(&self.0);
        // This error follows each error about one broker and is less specific.
        if code != Some(ALL_DOWN) || last.is_none() {
            *last = Some(LastError { code, reason: reason.to_owned() });
        }
    }
}

/// A configuration error without the value, which may be a secret.
pub(super) fn config_error(doing: &str, error: &KafkaError) -> LogError {
    match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, name, _) => {
            let cause = format!("librdkafka has no property `{name}`; remove it from `properties` or correct its name");
            failed(doing, &cause)
        }
        KafkaError::ClientConfig(_, _, name, _) => {
            let cause = format!("the property `{name}` has no valid value; see librdkafka's CONFIGURATION.md");
            failed(doing, &cause)
        }
        KafkaError::ClientCreation(cause) => {
            let setting = SETTINGS.iter().find(|(property, _)| cause.contains(property));
            let hint = setting.map(|(_, setting)| format!("; check `{setting}`")).unwrap_or_default();
            failed(doing, &format!("librdkafka: {cause}{hint}"))
        }
        other => failed(doing, other),
    }
}

/// The code of an error, if it has one.
pub(super) fn code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::Transaction(error) => Some(error.code()),
        other => other.rdkafka_error_code(),
    }
}

/// Blocks this thread until a future completes. librdkafka completes admin requests from its own threads.
pub(super) fn wait_for<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut TaskContext::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Drops a client on its own thread, because closing waits for brokers and should not block the caller.
pub(super) fn drop_aside<T: Send + 'static>(client: T) {
    // If the thread cannot be started, the closure and the client are dropped here.
    let _ = thread::Builder::new().name("serin-close".into()).spawn(move || drop(client));
}

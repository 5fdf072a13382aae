//! What all clients share: where their messages go, how errors read, how to wait for a future.

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

/// How long a request to the cluster may take before it is an error.
pub(super) const REQUEST: Duration = Duration::from_secs(10);

/// Sends librdkafka's messages to `tracing`, and remembers the last complaint: librdkafka's errors say only "timed out".
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<Option<Complaint>>);

const ALL_DOWN: RDKafkaErrorCode = RDKafkaErrorCode::AllBrokersDown;

#[derive(Debug)]
struct Complaint {
    code: Option<RDKafkaErrorCode>,
    reason: String,
}

impl Complaints {
    /// An error with the last complaint, and what to look at.
    pub(super) fn explain(&self, doing: &str, error: &KafkaError) -> LogError {
        let cause = match &*lock(&self.0) {
            Some(Complaint { code, reason }) => {
                // OpenSSL's complaint sometimes comes as a broken connection.
                let code = if reason.contains("SSL routines") { Some(RDKafkaErrorCode::SSL) } else { *code };
                let way_out = code.and_then(way_out).map(|way_out| format!("; {way_out}")).unwrap_or_default();
                let reason = if code == Some(ALL_DOWN) { String::new() } else { format!(" (librdkafka: {reason})") };
                format!("{error}{reason}{way_out}")
            }
            None => error.to_string(),
        };
        failed(doing, &cause)
    }
}

/// librdkafka's name of a property, and the setting it comes from.
const SETTINGS: [(&str, &str); 7] = [
    ("ssl.ca.location", "security.ca_file"),
    ("ssl.certificate.location", "security.certificate_file"),
    ("ssl.key.location", "security.key_file"),
    ("ssl.key.password", "security.key_password"),
    ("sasl.mechanism", "security.sasl_mechanism"),
    ("sasl.username", "security.username"),
    ("sasl.password", "security.password"),
];

/// What to look at when connections fail with this code.
fn way_out(code: RDKafkaErrorCode) -> Option<&'static str> {
    use RDKafkaErrorCode as Code;
    match code {
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => {
            Some("check `security.username`, `security.password` and `security.sasl_mechanism`")
        }
        Code::SSL => Some(
            "check that `security.ca_file` holds the authority that signed the brokers' certificates, that `brokers` has the \
             names they are made out to, and `security.protocol`",
        ),
        Code::Resolve => Some("check the host names in `brokers`"),
        Code::BrokerTransportFailure | ALL_DOWN => {
            Some("check `brokers`, and `security.protocol` against the protocol of that listener")
        }
        _ => None,
    }
}

impl ClientContext for Complaints {
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
        // It follows each complaint about one broker, and says less.
        if code != Some(ALL_DOWN) || last.is_none() {
            *last = Some(Complaint { code, reason: reason.to_owned() });
        }
    }
}

/// A configuration error without the value, which may be a secret.
pub(super) fn config_error(doing: &str, error: &KafkaError) -> LogError {
    match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, name, _) => {
            let cause = format!("librdkafka has no property `{name}`; take it out of `properties` or correct its name");
            failed(doing, &cause)
        }
        KafkaError::ClientConfig(_, _, name, _) => {
            let cause = format!("the property `{name}` has no valid value; librdkafka's CONFIGURATION.md lists them");
            failed(doing, &cause)
        }
        KafkaError::ClientCreation(cause) => {
            let setting = SETTINGS.iter().find(|(property, _)| cause.contains(property));
            let way_out = setting.map(|(_, setting)| format!("; check `{setting}`")).unwrap_or_default();
            failed(doing, &format!("librdkafka: {cause}{way_out}"))
        }
        other => failed(doing, other),
    }
}

/// The code in an error, where it has one.
pub(super) fn code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::Transaction(error) => Some(error.code()),
        other => other.rdkafka_error_code(),
    }
}

/// Waits for a future on this thread. librdkafka completes admin requests from its own threads.
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

/// Drops a client on a thread of its own: closing waits for brokers, and nobody should wait for that.
pub(super) fn drop_aside<T: Send + 'static>(client: T) {
    // If no thread can be had, the closure is dropped here, and the client with it.
    let _ = thread::Builder::new().name("serin-close".into()).spawn(move || drop(client));
}

//! Records of the topics with several types of records: `events` and `windows`.

use crate::{
    codec::{DecodeError, Record, decode},
    envelope,
    headers::Headers,
    records::{ClosedThrough, Control, Feedback, Heartbeat, Prediction, WindowClosed},
};

macro_rules! one_of {
    ($(#[$doc:meta])* $name:ident, $expected:literal, { $($(#[$variant_doc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant($variant)),+
        }

        impl $name {
            /// Reads the record that the headers name.
            pub fn decode(headers: &Headers, body: &[u8]) -> Result<Self, DecodeError> {
                let (name, version) = envelope::record_type(headers)
                    .map_err(|error| DecodeError::from_envelope(&error, $expected))?;
                match name {
                    $($variant::NAME => decode(version, body).map(Self::$variant),)+
                    _ => Err(DecodeError::UnknownType {
                        cause: format!("a {name:?} does not belong here"),
                        expected: $expected,
                    }),
                }
            }
        }
    };
}

one_of!(
    /// A record of `events`.
    EventRecord, "prediction, feedback, heartbeat or control", {
        /// One answer of one version.
        Prediction,
        /// The outcome of a prediction, such as a label.
        Feedback,
        /// A writer's low watermark.
        Heartbeat,
        /// The state of a rollout.
        Control,
    }
);

one_of!(
    /// A record of `windows`.
    WindowRecord, "window_closed, closed_through or control", {
        /// One partition's part of one window.
        WindowClosed,
        /// How far a partition has closed its windows.
        ClosedThrough,
        /// The state of a rollout.
        Control,
    }
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::encode, envelope::Envelope, ids::EventTime};

    fn wire(partition: i32) -> (Headers, Vec<u8>) {
        let envelope = Envelope { id: "1", source: "/aggregator/0", subject: "", time: EventTime(0) };
        let record = ClosedThrough::heard(partition, 6, EventTime::from_secs(10));
        (envelope::headers::<ClosedThrough>(&envelope), encode(&record).unwrap())
    }

    #[test]
    fn the_headers_select_the_record() {
        let (headers, body) = wire(3);
        let WindowRecord::ClosedThrough(found) = WindowRecord::decode(&headers, &body).unwrap() else {
            panic!("another record");
        };
        assert_eq!(found.partition, 3);
    }

    #[test]
    fn a_record_of_another_topic_is_refused() {
        let (headers, body) = wire(3);
        let error = EventRecord::decode(&headers, &body).unwrap_err();
        assert_eq!(error.code().as_str(), "unknown_type");
        assert_eq!(
            error.to_string(),
            "a \"closed_through\" does not belong here; expected prediction, feedback, heartbeat or control"
        );
        let error = EventRecord::decode(&Headers::default(), &body).unwrap_err();
        assert_eq!((error.code().as_str(), error.to_string().contains("no `ce_type`")), ("unknown_type", true));
    }

    #[test]
    fn an_unknown_version_is_refused() {
        let (_, body) = wire(3);
        let headers = [("ce_type", "dev.serin.closed_through.v99")].into_iter().collect();
        let error = WindowRecord::decode(&headers, &body).unwrap_err();
        assert_eq!(error.code().as_str(), "unknown_schema_version");
        assert_eq!(
            error.to_string(),
            "closed_through version 99 is unknown here (known: [1, 2]); upgrade the reader before the writers"
        );
    }
}

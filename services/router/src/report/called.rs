//! What is known of a call when its version is chosen.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use serin_schemas::ids::{EventTime, RequestId};

use crate::{
    content::request::Features,
    protocol::{Promise, Wire},
    state::in_flight::Slot,
};

/// What is known of a call when its version is chosen.
#[derive(Clone)]
pub(crate) struct Called {
    pub(crate) request_id: RequestId,
    /// Event time of the arrival.
    pub(crate) arrived: EventTime,
    /// Event time that a replay stated.
    pub(crate) stated: Option<EventTime>,
    /// Values of the segment dimensions.
    pub(crate) segments: BTreeMap<String, String>,
    /// Body of the request, if it was kept and the answer is held against it.
    pub(crate) request: Option<Bytes>,
    /// What was read from the request besides.
    pub(crate) features: Features,
    /// The key of the chain of responses that the call belongs to.
    pub(crate) chain: Option<Arc<str>>,
    /// The protocol that the caller speaks.
    pub(crate) wire: Wire,
    /// What it promises of an answer.
    pub(crate) promise: Promise,
    /// Whether both sides may send messages for as long as they like.
    pub(crate) streams: bool,
    /// How long the caller waits, if it says so.
    pub(crate) patience: Option<Duration>,
    /// Holds the call's place among those in flight.
    pub(crate) _slot: Arc<Slot>,
}

//! What requests and answers say: what rules read of them, and what an answer is worth. Pure.

pub(crate) mod census;
pub(crate) mod examples;
pub(crate) mod llm;
pub(crate) mod messages;
pub(crate) mod outcome;
pub(crate) mod outputs;
pub(crate) mod request;
pub(crate) mod seen;
pub(crate) mod values;

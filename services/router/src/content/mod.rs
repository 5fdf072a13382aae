//! The contents of requests and answers: the values that rules read from them, and the outcome of an answer. Pure.

mod census;
pub(crate) mod examples;
pub(crate) mod llm;
pub(crate) mod messages;
pub(crate) mod outcome;
pub(crate) mod outputs;
mod ranking;
pub(crate) mod request;
pub(crate) mod rows;
pub(crate) mod seen;
pub(crate) mod values;

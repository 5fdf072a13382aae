//! Tests of all summaries: laws of merging, pinned bytes, hostile bytes.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod golden;
mod laws;
mod support;

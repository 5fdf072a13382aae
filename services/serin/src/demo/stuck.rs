//! Finds the part of the pipeline in which a window is stuck, for the error message.

use std::time::Duration;

use serin_schemas::ids::{EventTime, Generation};

use crate::time::to_the_second;

/// How far a window has passed through the pipeline, according to its APIs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// End of the expected window.
    pub(super) end: EventTime,
    /// The time that the controller has planned through, and the generation at that time; or the error of its API.
    pub(super) planned: Result<(Option<EventTime>, Generation), String>,
    /// End of the last window that the analyzer has judged.
    pub(super) judged: Option<EventTime>,
    /// Generation that the router uses; `None`: its admin port does not report one.
    pub(super) applied: Option<Generation>,
}

impl Seen {
    /// A sentence that names the part that stopped.
    pub(crate) fn sentence(&self, waited: Duration) -> String {
        let before = |at: Option<EventTime>| at.is_none_or(|at| at < self.end);
        let until = |at: Option<EventTime>| {
            at.map_or_else(|| "none".to_owned(), |at| format!("the one of {}", to_the_second(at)))
        };
        let part = match (&self.planned, self.applied) {
            (Err(why), _) => format!("the controller does not answer: {why}"),
            (Ok((planned, _)), _) if before(*planned) && before(self.judged) => {
                format!("aggregator or analyzer stopped: the last window with a verdict is {}", until(self.judged))
            }
            (Ok((planned, _)), _) if before(*planned) => format!(
                "the controller stopped: there is a verdict on the window, and the last one that it planned is {}",
                until(*planned)
            ),
            (Ok(_), None) => "the router stopped: its admin port does not answer, or it has no table".to_owned(),
            (Ok((_, wanted)), Some(applied)) if applied < *wanted => {
                format!("the router stopped: it uses table {applied}, but the controller has written {wanted}")
            }
            (Ok(_), Some(_)) => "every part has processed it by now, but too late".to_owned(),
        };
        format!(
            "the window of {} did not pass through the pipeline in {} s: {part}",
            to_the_second(self.end),
            waited.as_secs()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_that_stopped_is_named() {
        let (end, before) = (EventTime::from_secs(1_357_041_600), EventTime::from_secs(1_357_020_000));
        let sentence = |planned, judged, applied: Option<i64>| {
            Seen { end, planned, judged, applied: applied.map(Generation) }.sentence(Duration::from_mins(2))
        };
        let planned = |at: EventTime| Ok((Some(at), Generation(4)));
        for (found, expected) in [
            (sentence(Err("connection refused".to_owned()), None, None), "the controller does not answer: connection"),
            (
                sentence(planned(before), None, Some(3)),
                "aggregator or analyzer stopped: the last window with a verdict is none",
            ),
            (sentence(planned(before), Some(before), Some(3)), "with a verdict is the one of 2013-01-01 06:00:00"),
            (sentence(planned(before), Some(end), Some(3)), "the controller stopped: there is a verdict"),
            (sentence(planned(end), Some(end), None), "the router stopped: its admin port does not answer"),
            (
                sentence(planned(end), Some(end), Some(3)),
                "the router stopped: it uses table 3, but the controller has written 4",
            ),
            (sentence(planned(end), Some(end), Some(4)), "every part has processed it by now"),
        ] {
            assert!(
                found.starts_with("the window of 2013-01-01 12:00:00 did not pass through the pipeline in 120 s: "),
                "{found}"
            );
            assert!(found.contains(expected), "{expected}: {found}");
        }
    }
}

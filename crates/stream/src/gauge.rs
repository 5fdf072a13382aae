//! Gauges of what comes and goes: a series is there for as long as its [`Series`] is held.
//!
//! What an ordinary gauge was once given stays in it until the process ends: a version that has left the routing table would keep
//! its share, a partition that went to another process its lag. Here the owner of the thing holds the series, and both leave together.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use opentelemetry::{KeyValue, global};

/// A gauge whose series are held by others. One per name and process, as each asks its callback when somebody scrapes.
#[derive(Clone, Debug)]
pub struct PresentGauge(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    next: u64,
    series: BTreeMap<u64, (Vec<KeyValue>, f64)>,
}

impl PresentGauge {
    /// A gauge without any series.
    pub fn new(name: &'static str, description: &'static str) -> Self {
        let gauge = Self(Arc::default());
        let held = Arc::clone(&gauge.0);
        global::meter("serin")
            .f64_observable_gauge(name)
            .with_description(description)
            .with_callback(move |observer| {
                // Of two series with the same labels the newer one counts: it is observed last.
                for (labels, value) in lock(&held).series.values() {
                    observer.observe(*value, labels);
                }
            })
            .build();
        gauge
    }

    /// A series with these labels, until it is dropped.
    #[must_use = "the series leaves when it is dropped"]
    pub fn hold(&self, labels: Vec<KeyValue>, value: f64) -> Series {
        let mut held = lock(&self.0);
        let id = held.next;
        held.next += 1;
        held.series.insert(id, (labels, value));
        Series { gauge: Arc::clone(&self.0), id }
    }
}

/// One series of a [`PresentGauge`].
#[derive(Debug)]
pub struct Series {
    gauge: Arc<Mutex<Held>>,
    id: u64,
}

impl Series {
    /// Its value from now on.
    pub fn set(&self, value: f64) {
        if let Some(series) = lock(&self.gauge).series.get_mut(&self.id) {
            series.1 = value;
        }
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        lock(&self.gauge).series.remove(&self.id);
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(gauge: &PresentGauge) -> Vec<(String, f64)> {
        let text =
            |labels: &[KeyValue]| labels.iter().map(|label| label.value.to_string()).collect::<Vec<_>>().join(",");
        lock(&gauge.0).series.values().map(|(labels, value)| (text(labels), *value)).collect()
    }

    #[test]
    fn a_series_leaves_with_its_holder() {
        let gauge = PresentGauge::new("serin_test", "A test");
        let stable = gauge.hold(vec![KeyValue::new("version", "1")], 0.8);
        let canary = gauge.hold(vec![KeyValue::new("version", "2")], 0.2);
        assert_eq!(shown(&gauge), [("1".to_owned(), 0.8), ("2".to_owned(), 0.2)]);
        stable.set(1.0);
        drop(canary);
        assert_eq!(shown(&gauge), [("1".to_owned(), 1.0)]);
        drop(stable);
        assert!(shown(&gauge).is_empty());
    }
}

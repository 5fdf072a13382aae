//! Gauges whose series can disappear: a series exists for as long as its [`Series`] is held.
//!
//! A value in an ordinary gauge stays until the process exits: a version that has left the routing table would keep
//! its share, and a partition that moved to another process would keep its lag. Here the owner of the measured object
//! holds the series, so both disappear together.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use opentelemetry::KeyValue;

use crate::metric::Metric;

/// A gauge whose series are held by their owners. There must be one per name and process, because each calls its
/// callback on every scrape.
#[derive(Clone, Debug)]
pub struct PresentGauge(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    next: u64,
    series: BTreeMap<u64, (Vec<KeyValue>, f64)>,
}

impl PresentGauge {
    /// Creates a gauge without series.
    pub fn new(metric: &Metric) -> Self {
        let gauge = Self(Arc::default());
        let held = Arc::clone(&gauge.0);
        metric.observe_f64(move |observer| {
            // Of two series with the same labels the newer one wins, because it is observed last.
            for (labels, value) in lock(&held).series.values() {
                observer.observe(*value, labels);
            }
        });
        gauge
    }

    /// Adds a series with these labels. It exists until the returned value is dropped.
    #[must_use = "the series disappears when it is dropped"]
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
    /// Sets the current value.
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

    crate::declare_metrics! {
        pub(super) METRICS {
            /// A test.
            TEST = Gauge "serin_test" in "1" [crate::metric::VERSION];
        }
    }

    fn shown(gauge: &PresentGauge) -> Vec<(String, f64)> {
        let text =
            |labels: &[KeyValue]| labels.iter().map(|label| label.value.to_string()).collect::<Vec<_>>().join(",");
        lock(&gauge.0).series.values().map(|(labels, value)| (text(labels), *value)).collect()
    }

    #[test]
    fn a_series_disappears_with_its_holder() {
        let gauge = PresentGauge::new(&TEST);
        let stable = gauge.hold(vec![KeyValue::new("version", "1")], 0.8);
        let canary = gauge.hold(vec![KeyValue::new("version", "2")], 0.2);
        assert_eq!(shown(&gauge), [("1".to_owned(), 0.8), ("2".to_owned(), 0.2)]);
        stable.set(1.0);
        drop(canary);
        assert_eq!(shown(&gauge), [("1".to_owned(), 1.0)]);
        drop(stable);
        assert!(shown(&gauge).is_empty());
        assert_eq!(METRICS.iter().map(Metric::help).collect::<Vec<_>>(), ["A test."]);
    }
}

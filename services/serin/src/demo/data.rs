//! The recorded flights of the demo: `data/flights.csv.gz`, compiled into the binary (see its README for source and license).
//!
//! Pure: rows are unpacked on demand, always the same ones in the same order, by time of departure.

use flate2::read::GzDecoder;
use serde::Deserialize;

use super::model::Flight;

static FLIGHTS: &[u8] = include_bytes!("../../data/flights.csv.gz");

/// A flight is late if it arrives more than this many minutes after schedule. The models predict this.
pub(super) const LATE_MIN: i32 = 15;

/// One row of the recorded flights.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct FlightRecord {
    /// Time of departure, in Unix seconds (UTC): scheduled departure plus departure delay. The prediction request is sent then.
    pub(super) departed_at: i64,
    /// Time at which the arrival delay became known, in Unix seconds (UTC). The feedback is sent then.
    pub(super) label_at: i64,
    /// Airport it left from: `EWR`, `JFK` or `LGA`.
    pub(super) origin: String,
    /// Airport it flew to.
    dest: String,
    /// Airline, as its two-character code.
    carrier: String,
    /// Distance in miles.
    distance_mi: u32,
    /// Scheduled hour of departure, local time, 0 to 23.
    sched_dep_hour: u8,
    /// Departure delay in minutes, negative if it left early.
    dep_delay_min: i32,
    /// Arrival delay in minutes, negative if it arrived early. This is the label, unknown until `label_at`.
    arr_delay_min: i32,
}

impl FlightRecord {
    /// True if it arrived more than [`LATE_MIN`] minutes late: the outcome that the models predict.
    pub(super) fn arrived_late(&self) -> bool {
        self.arr_delay_min > LATE_MIN
    }

    /// The features that are known at departure.
    pub(crate) fn features(&self) -> Flight {
        Flight {
            origin: self.origin.clone(),
            carrier: self.carrier.clone(),
            dest: self.dest.clone(),
            distance_mi: f64::from(self.distance_mi),
            sched_dep_hour: i64::from(self.sched_dep_hour),
            dep_delay_min: f64::from(self.dep_delay_min),
        }
    }
}

/// All recorded flights, in order of departure.
pub(super) fn flights() -> impl Iterator<Item = FlightRecord> {
    csv::Reader::from_reader(GzDecoder::new(FLIGHTS))
        .into_deserialize()
        .map(|row| row.expect("the embedded flights parse; a test checks every row"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_parses_in_order_and_the_label_comes_after_the_departure() {
        let (mut count, mut late, mut before) = (0, 0, i64::MIN);
        for flight in flights() {
            assert!(flight.departed_at >= before && flight.label_at > flight.departed_at, "{flight:?}");
            before = flight.departed_at;
            count += 1;
            late += usize::from(flight.arrived_late());
        }
        assert_eq!((count, late), (327_346, 77_630));
    }

    #[test]
    fn the_first_row_is_as_recorded() {
        let first = flights().next().unwrap();
        let expected = FlightRecord {
            departed_at: 1_357_035_420,
            label_at: 1_357_050_240,
            origin: "EWR".into(),
            dest: "IAH".into(),
            carrier: "UA".into(),
            distance_mi: 1400,
            sched_dep_hour: 5,
            dep_delay_min: 2,
            arr_delay_min: 11,
        };
        assert_eq!(first, expected);
    }
}

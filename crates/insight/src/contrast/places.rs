//! Values of dimensions as small numbers, so that a pair of values is a short key.

use std::collections::BTreeMap;

use serin_schemas::records::Segment;

/// Most dimensions that are looked at.
pub(super) const MOST_DIMENSIONS: usize = 24;

/// Most values of one dimension. Later values are not looked at.
pub(super) const MOST_VALUES: usize = 20;

/// Most single values and pairs of values that are counted.
pub(super) const MOST_PLACES: usize = 20_000;

/// A value of one dimension, or a pair of values of two dimensions.
pub(super) type Place = (u16, Option<u16>);

/// The known values of dimensions.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    values: BTreeMap<String, BTreeMap<String, u16>>,
    segments: Vec<Segment>,
}

impl Dictionary {
    /// The numbers of the values, at most one per dimension, in increasing order. Values beyond the limits have none.
    pub(super) fn numbers<'a>(&mut self, fields: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<u16> {
        let mut numbers = Vec::new();
        for (dimension, value) in fields {
            let known = self.values.get(dimension).and_then(|values| values.get(value)).copied();
            let number = known.or_else(|| self.learn(dimension, value));
            numbers.extend(number);
        }
        numbers.sort_unstable();
        numbers
    }

    fn learn(&mut self, dimension: &str, value: &str) -> Option<u16> {
        if !self.values.contains_key(dimension) && self.values.len() >= MOST_DIMENSIONS {
            return None;
        }
        let values = self.values.entry(dimension.to_owned()).or_default();
        if values.len() >= MOST_VALUES {
            return None;
        }
        let number = self.segments.len() as u16;
        values.insert(value.to_owned(), number);
        self.segments.push(Segment::of(dimension, value));
        Some(number)
    }

    /// The values at a place.
    pub(super) fn segments(&self, place: Place) -> Vec<Segment> {
        std::iter::once(place.0).chain(place.1).map(|number| self.segments[usize::from(number)].clone()).collect()
    }
}

/// All single values and pairs of values of a call.
pub(super) fn places(numbers: &[u16]) -> impl Iterator<Item = Place> + '_ {
    numbers.iter().enumerate().flat_map(|(index, &one)| {
        let pairs = numbers[index + 1..].iter().map(move |&two| (one, Some(two)));
        std::iter::once((one, None)).chain(pairs)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_pairs_are_bounded() {
        let mut dictionary = Dictionary::default();
        let numbers = dictionary.numbers([("origin", "LGA"), ("carrier", "AA"), ("hour", "7")].into_iter());
        assert_eq!(numbers, [0, 1, 2]);
        assert_eq!(dictionary.numbers([("hour", "7")].into_iter()), [2]);
        let all: Vec<Place> = places(&numbers).collect();
        assert_eq!(all, [(0, None), (0, Some(1)), (0, Some(2)), (1, None), (1, Some(2)), (2, None)]);
        assert_eq!(dictionary.segments((0, Some(2))), [Segment::of("origin", "LGA"), Segment::of("hour", "7")]);
        let many: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        let known = many.iter().filter(|value| !dictionary.numbers([("id", value.as_str())].into_iter()).is_empty());
        assert_eq!(known.count(), MOST_VALUES);
        let dimensions = many.iter().filter(|name| !dictionary.numbers([(name.as_str(), "x")].into_iter()).is_empty());
        assert_eq!(dimensions.count(), MOST_DIMENSIONS - 4);
    }
}

//! Where the unit of a message lies.

use std::ops::Range;

use super::Layout;
use super::unit::Unit;

/// The place in `places` of the unit that stands for message `number`, or for the first one after it; their end if there is
/// none. `read` reads a unit; what it doesn't give (cut or removed meanwhile) is taken to come later.
pub(crate) fn of<E>(
    layout: Layout,
    places: Range<u64>,
    number: u64,
    mut read: impl FnMut(u64) -> Result<Option<Unit>, E>,
) -> Result<u64, E> {
    if layout == Layout::Single {
        return Ok(number);
    }
    let (mut low, mut high) = (places.start, places.end);
    while low < high {
        let middle = low.midpoint(high);
        let before = read(middle)?.is_some_and(|unit| !layout.is_empty(unit) && unit.next() <= number);
        if before { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(crate::property_config())]

        #[test]
        fn the_unit_found_is_the_first_that_ends_behind_the_number(
            batches in prop::collection::vec((0_u64..3, 1_u16..5), 0..20),
            number in 0_u64..100,
        ) {
            let mut units: Vec<Unit> = Vec::new();
            for (gap, count) in batches {
                let first = units.last().map_or(0, |last| last.next()) + gap;
                units.push(Unit { size: 1, first, count, ..Unit::BLANK });
            }
            let read = |place: u64| Ok::<_, ()>(Some(units[place as usize]));
            let found = of(Layout::Batch, 0..units.len() as u64, number, read).unwrap();
            let expected = units.iter().position(|unit| unit.next() > number).unwrap_or(units.len());
            prop_assert_eq!(found, expected as u64);
        }
    }
}

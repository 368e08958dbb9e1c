//! `Order`: in which order programs read what is in a directory.

use crate::merge::name::Name;
use std::cmp::Ordering;
use std::collections::VecDeque;

/// So many must have been read in order before it is one.
pub const SEEN: usize = 3;
/// What comes so little later in the order is still in order: those between were in memory, or
/// are none of the program's.
pub const SKIPPED: usize = 4;

/// An order in which programs read the files of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As the directory lists them.
    Listed,
    /// By the bytes of their names.
    Bytes,
    /// By their names, the numbers in them as numbers.
    Numbers,
}

const ORDERS: [Order; 3] = [Order::Listed, Order::Bytes, Order::Numbers];

impl Order {
    fn sort(self, names: &mut [Name]) {
        match self {
            Order::Listed => {}
            Order::Bytes => names.sort_unstable(),
            Order::Numbers => names.sort_unstable_by(|a, b| by_numbers(a, b)),
        }
    }
}

/// Compares names, the numbers in them as numbers.
fn by_numbers(a: &[u8], b: &[u8]) -> Ordering {
    let number = |s: &[u8]| s.iter().take_while(|c| c.is_ascii_digit()).count();
    let (mut x, mut y) = (a, b);
    while let (Some((first, rest)), Some((other, others))) = (x.split_first(), y.split_first()) {
        let (digits, more) = (number(x), number(y));
        let compared = if digits > 0 && more > 0 {
            let (left, after) = x.split_at(digits);
            let (right, behind) = y.split_at(more);
            (x, y) = (after, behind);
            let zeros = |s: &[u8]| s.iter().take_while(|c| **c == b'0').count();
            let (left, right) = (left.split_at(zeros(left)).1, right.split_at(zeros(right)).1);
            left.len().cmp(&right.len()).then_with(|| left.cmp(right))
        } else {
            (x, y) = (rest, others);
            first.cmp(other)
        };
        if compared.is_ne() {
            return compared;
        }
    }
    x.len().cmp(&y.len()).then_with(|| a.cmp(b))
}

/// The order in which `names` has `recent` one after the other, `names` in it, and the place
/// after the last of them. One alone is in the order of the directory before, `last`, if it is
/// the first in it.
pub fn find_order(
    recent: &VecDeque<Name>,
    mut names: Vec<Name>,
    last: Option<Order>,
) -> Option<(Order, Vec<Name>, usize)> {
    for order in ORDERS {
        if recent.len() < SEEN && Some(order) != last {
            continue;
        }
        order.sort(&mut names);
        let mut places = recent
            .iter()
            .map(|name| names.iter().position(|n| n == name));
        let first = places.next()??;
        let in_order = places.try_fold(first, |before, place| {
            let place = place?;
            (before < place && place - before <= SKIPPED).then_some(place)
        });
        match in_order {
            Some(at) if recent.len() >= SEEN || first == 0 => return Some((order, names, at + 1)),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<Name> {
        all.iter()
            .map(|n| Name::new(n.as_bytes()).expect("a name"))
            .collect()
    }

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut some = names(&["b", "a10", "a9", "a", "a010", "a9x", "a9b2", "a9b10"]);
        Order::Numbers.sort(&mut some);
        let sorted = names(&["a", "a9", "a9b2", "a9b10", "a9x", "a010", "a10", "b"]);
        assert_eq!(some, sorted);
    }
}

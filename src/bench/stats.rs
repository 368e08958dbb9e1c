//! What is said about a series of measurements.

use serde::{Deserialize, Serialize};

/// A series in four numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// The median of the distances from the median.
    pub mad: f64,
}

/// The middle of `values`, the mean of the two middle ones where there is an even number;
/// `None` where there is nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(*upper);
    }
    let lower = sorted.get((sorted.len() / 2).checked_sub(1)?)?;
    Some(lower.midpoint(*upper))
}

/// The four numbers of `values`; `None` where there is nothing.
pub fn summary(values: &[f64]) -> Option<Summary> {
    let median_of_all = median(values)?;
    let distances: Vec<f64> = values.iter().map(|v| (v - median_of_all).abs()).collect();
    Some(Summary {
        median: median_of_all,
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        mad: median(&distances)?,
    })
}

/// The value below which `percent` of all lie (the nearest rank); `None` where there is
/// nothing. Sorts them.
pub fn percentile<T: Ord + Copy>(values: &mut [T], percent: f64) -> Option<T> {
    values.sort_unstable();
    let rank = (values.len() as f64 * percent / 100.0).ceil() as usize;
    values.get(rank.max(1) - 1).copied()
}

/// The geometric mean, which is the right one for ratios; `None` where there is nothing.
pub fn geometric_mean(values: &[f64]) -> Option<f64> {
    let sum: f64 = values.iter().map(|value| value.ln()).sum();
    (!values.is_empty()).then(|| (sum / values.len() as f64).exp())
}

/// How a subject stands beside the reference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The median of the one by the median of the other.
    pub of_medians: f64,
    /// The least ratio of one round.
    pub min: f64,
    /// The greatest ratio of one round.
    pub max: f64,
}

/// The ratio of `own` to `reference`, which are in the order of the rounds; `None` where
/// one of them is empty or took no time.
pub fn ratio(own: &[f64], reference: &[f64]) -> Option<Ratio> {
    let of_medians = median(own)? / median(reference)?;
    let by_round: Vec<f64> = own.iter().zip(reference).map(|(a, b)| a / b).collect();
    let spread = summary(&by_round)?;
    let ratio = Ratio {
        of_medians,
        min: spread.min,
        max: spread.max,
    };
    let finite = [ratio.of_medians, ratio.min, ratio.max]
        .iter()
        .all(|value| value.is_finite());
    finite.then_some(ratio)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_odd_and_of_an_even_number() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn one_outlier_moves_neither_the_median_nor_the_mad() {
        let calm = summary(&[1.0, 2.0, 3.0, 4.0, 5.0]).expect("five values");
        let wild = summary(&[1.0, 2.0, 3.0, 4.0, 500.0]).expect("five values");
        assert_eq!((calm.median, calm.mad), (3.0, 1.0));
        assert_eq!((wild.median, wild.mad), (3.0, 1.0));
        assert_eq!((wild.min, wild.max), (1.0, 500.0));
    }

    #[test]
    fn a_ratio_pairs_the_rounds() {
        let ratio = ratio(&[2.0, 4.0, 9.0], &[1.0, 4.0, 3.0]).expect("three rounds");
        assert_eq!(ratio.of_medians, 4.0 / 3.0);
        assert_eq!((ratio.min, ratio.max), (1.0, 3.0));
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut values: Vec<u32> = (1..=100).rev().collect();
        assert_eq!(percentile(&mut values, 50.0), Some(50));
        assert_eq!(percentile(&mut values, 99.0), Some(99));
        assert_eq!(percentile(&mut values, 100.0), Some(100));
        assert_eq!(percentile(&mut [7], 1.0), Some(7));
        assert_eq!(percentile::<u32>(&mut [], 50.0), None);
    }

    #[test]
    fn twice_and_half_as_long_cancel_out() {
        let mean = geometric_mean(&[0.5, 2.0, 1.0]).expect("three values");
        assert!((mean - 1.0).abs() < 1e-12, "{mean}");
        assert_eq!(geometric_mean(&[]), None);
    }

    #[test]
    fn there_is_no_ratio_to_nothing() {
        assert_eq!(ratio(&[1.0], &[]), None);
        assert_eq!(ratio(&[], &[1.0]), None);
        assert_eq!(ratio(&[1.0], &[0.0]), None);
    }
}

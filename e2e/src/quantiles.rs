//! Median, quantiles and worst of a few measured values.

/// Values in order.
#[derive(Clone, Debug)]
pub struct Quantiles(Vec<i64>);

impl Quantiles {
    /// Of any number of values.
    pub fn of(values: impl IntoIterator<Item = i64>) -> Self {
        let mut values: Vec<i64> = values.into_iter().collect();
        values.sort_unstable();
        Self(values)
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest value that at least this share of all is not above; 0 without values.
    #[expect(clippy::cast_precision_loss, reason = "far fewer values than 2^52")]
    pub fn share(&self, share: f64) -> i64 {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }

    /// The value in the middle.
    pub fn median(&self) -> i64 {
        self.share(0.5)
    }

    /// The largest one.
    pub fn worst(&self) -> i64 {
        self.share(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_values_that_were_measured() {
        let values = Quantiles::of((1..=100).rev());
        assert_eq!((values.median(), values.share(0.99), values.worst(), values.share(0.0)), (50, 99, 100, 1));
        assert_eq!(Quantiles::of([7]).share(0.99), 7);
        assert_eq!(Quantiles::of([]).worst(), 0);
    }
}

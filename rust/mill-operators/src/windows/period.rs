//! Division by the distance of windows, by a multiplication: each record asks for it, and a division takes several times as long.

/// A distance of windows, more than zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Period {
    length: u64,
    /// 2^64 divided by the length, rounded down; of 1 one less.
    inverse: u64,
}

impl Period {
    pub(crate) fn new(length: i64) -> Period {
        let length = length.max(1).unsigned_abs();
        Period { length, inverse: ((1_u128 << 64) / u128::from(length)).min(u128::from(u64::MAX)) as u64 }
    }

    /// How often it goes into a distance, and what is left.
    #[inline]
    pub(crate) fn divide(self, distance: u64) -> (u64, u64) {
        // The inverse is at most 1 too small, so the product is at most `distance / 2^64 < 1` too small before it is rounded
        // down: it is the quotient, or one less.
        let count = ((u128::from(distance) * u128::from(self.inverse)) >> 64) as u64;
        let rest = distance.wrapping_sub(count.wrapping_mul(self.length));
        match rest >= self.length {
            true => (count + 1, rest - self.length),
            false => (count, rest),
        }
    }

    /// The greatest `base + n * length` that is not after `time`.
    #[inline]
    pub(crate) fn floor(self, time: i64, base: i64) -> i64 {
        let distance = time.wrapping_sub(base);
        let rest = match u64::try_from(distance) {
            Ok(distance) => self.divide(distance).1 as i64,
            Err(_) => distance.rem_euclid(self.length as i64),
        };
        time.saturating_sub(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::Period;

    #[test]
    fn the_multiplication_divides() {
        let near = |value: u64| [value.wrapping_sub(2), value.wrapping_sub(1), value, value.wrapping_add(1)];
        let mut values: Vec<u64> = (0..64).flat_map(|bit| near(1 << bit)).chain([u64::MAX, i64::MAX as u64, 10_u64.pow(19)]).collect();
        let mut state = 1_u64;
        for _ in 0..2000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            values.push(state >> (state % 64));
        }
        let lengths: Vec<u64> = values.iter().copied().filter(|&length| (1..=i64::MAX as u64).contains(&length)).collect();
        for &length in lengths.iter().step_by(7) {
            let period = Period::new(length as i64);
            for &distance in &values {
                assert_eq!(period.divide(distance), (distance / length, distance % length), "{distance} by {length}");
                let time = distance as i64;
                for base in [0, 1, -5, i64::MAX, i64::MIN] {
                    let floor = time.saturating_sub(time.wrapping_sub(base).rem_euclid(length as i64));
                    assert_eq!(period.floor(time, base), floor, "{time} from {base} by {length}");
                }
            }
        }
    }
}

//! The random delay, uniform between two bounds.

use std::time::Duration;

/// Draws delays uniformly from `min..max`, in whole nanoseconds.
#[derive(Debug)]
pub struct Delay {
    min_ns: u64,
    max_ns: u64,
    random: fastrand::Rng,
}

impl Delay {
    /// Delays from `min` up to, not including, `max`; always `min` where the two are equal.
    ///
    /// Bounds of more than 584 years are taken as that.
    pub fn new(min: Duration, max: Duration) -> Self {
        let nanoseconds = |bound: Duration| u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Delay {
            min_ns: nanoseconds(min),
            max_ns: nanoseconds(max),
            random: fastrand::Rng::new(),
        }
    }

    /// The delay of the next request.
    pub fn draw(&mut self) -> Duration {
        if self.min_ns >= self.max_ns {
            return Duration::from_nanos(self.min_ns);
        }
        Duration::from_nanos(self.random.u64(self.min_ns..self.max_ns))
    }

    /// True for a share of `rate` (0 to 1) of all calls.
    pub fn draw_error(&mut self, rate: f64) -> bool {
        // Not even a draw where it can not matter: the default is no errors.
        rate > 0.0 && self.random.f64() < rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_uniform_between_their_bounds() {
        let (min, max) = (Duration::from_millis(500), Duration::from_secs(2));
        let mut delay = Delay::new(min, max);
        let draws = 100_000;
        let mut tenths = [0u32; 10];
        for _ in 0..draws {
            let drawn = delay.draw();
            assert!((min..max).contains(&drawn), "{drawn:?}");
            let share = (drawn - min).as_secs_f64() / (max - min).as_secs_f64();
            tenths[(share * 10.0) as usize] += 1;
        }
        for count in tenths {
            // Ten standard deviations of a binomial with p = 0.1.
            assert!((f64::from(count) - 10_000.0).abs() < 950.0, "not uniform: {tenths:?}");
        }
    }

    #[test]
    fn equal_bounds_give_that_delay() {
        let mut delay = Delay::new(Duration::from_millis(7), Duration::from_millis(7));
        assert_eq!(delay.draw(), Duration::from_millis(7));
        assert_eq!(Delay::new(Duration::ZERO, Duration::ZERO).draw(), Duration::ZERO);
    }

    #[test]
    fn errors_come_at_their_rate() {
        let mut delay = Delay::new(Duration::ZERO, Duration::ZERO);
        let errors = (0..100_000).filter(|_| delay.draw_error(0.25)).count();
        assert!((24_000..26_000).contains(&errors), "{errors}");
        assert!(!(0..1_000).any(|_| delay.draw_error(0.0)));
        assert!((0..1_000).all(|_| delay.draw_error(1.0)));
    }
}

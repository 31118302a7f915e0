//! The step size in the course of training.

use recmill_core::rankers::Schedule;

/// Returns the factor of the step size at `step`, from 0, of `steps`: a straight rise over `warmup_steps`, then the
/// schedule over the rest.
pub fn rate_at(schedule: Schedule, warmup_steps: u64, step: u64, steps: u64) -> f64 {
    if step < warmup_steps {
        return (step + 1) as f64 / warmup_steps as f64;
    }
    let rest = steps.saturating_sub(warmup_steps).max(1);
    let done = ((step - warmup_steps) as f64 / rest as f64).min(1.0);
    match schedule {
        Schedule::Constant => 1.0,
        Schedule::Linear => 1.0 - done,
        Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_by_hand() {
        let rates = |schedule| -> Vec<f64> { (0..6).map(|step| rate_at(schedule, 2, step, 6)).collect() };
        assert_eq!(rates(Schedule::Constant), [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(rates(Schedule::Linear), [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]);
        let cosine = rates(Schedule::Cosine);
        assert!((cosine[4] - 0.5).abs() < 1e-12 && cosine[2] == 1.0, "{cosine:?}");
        assert_eq!(rate_at(Schedule::Linear, 0, 9, 6), 0.0);
    }
}

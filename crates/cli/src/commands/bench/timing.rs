//! How long something takes: warmed up, the device waited for, the median of several runs.

use std::time::Instant;

use recmill_kernels::Device;

use super::Result;

/// Seconds that a run should take, by doing the work often enough between two waits.
const RUN_SECONDS: f64 = 0.005;
/// Seconds after which no further run is begun, and how many runs there are at most.
const ALL_SECONDS: f64 = 0.5;
const MOST_RUNS: usize = 101;

/// Does `work` twice uncounted, since the first compiles kernels and fills caches, and returns the median seconds of it done
/// again and again for half a second; of work that takes longer, the seconds of one more.
pub(super) fn median(device: Device, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut timed = |times: usize| -> Result<f64> {
        let started = Instant::now();
        (0..times).try_for_each(|_| work())?;
        device.wait()?;
        Ok(started.elapsed().as_secs_f64() / times as f64)
    };
    timed(1)?;
    let times = (RUN_SECONDS / timed(1)?).clamp(1.0, 1000.0) as usize;
    let started = Instant::now();
    let mut seconds = Vec::new();
    while seconds.is_empty() || (started.elapsed().as_secs_f64() < ALL_SECONDS && seconds.len() < MOST_RUNS) {
        seconds.push(timed(times)?);
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

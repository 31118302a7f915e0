//! What this process has used so far, as Linux tells it.

use std::path::PathBuf;

use fs_err as fs;

/// Processor seconds of all threads so far; a busy machine lengthens them less than it lengthens the clock's.
pub(crate) fn processor_seconds() -> f64 {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return 0.0 };
    let nanoseconds = |path: PathBuf| -> Option<f64> {
        fs::read_to_string(path.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
    };
    tasks.flatten().filter_map(|task| nanoseconds(task.path())).sum::<f64>() * 1e-9
}

/// The most memory there was at a time, in KB.
pub(crate) fn peak_kb() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().to_owned())
}

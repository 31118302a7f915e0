//! One kernel under criterion, and what share of the machine's ceilings its fastest run reached.
#![expect(clippy::print_stderr, reason = "a bench says on the terminal what it measured")]

use criterion::{Criterion, Throughput};

use crate::ceilings::{Ceilings, fastest};

/// Runs `work` under criterion as `name`, `operation/shape/device`, and states the shares of its fastest run.
///
/// `operations` and `bytes` are those of one run. Bytes are the operands as the kernel goes over them, wherever they are
/// by then, so that their share can pass 100 % of what memory delivers.
pub fn measure(
    criterion: &mut Criterion,
    ceilings: Ceilings,
    name: &str,
    (operations, bytes): (f64, f64),
    mut work: impl FnMut(),
) {
    let (operation, shape) = name.split_once('/').unwrap_or((name, ""));
    let mut group = criterion.benchmark_group(operation);
    // An element is a floating-point operation: "Gelem/s" is GFLOP/s.
    let throughput = match operations > 0.0 {
        true => Throughput::Elements(operations as u64),
        false => Throughput::Bytes(bytes as u64),
    };
    group.throughput(throughput).sample_size(10);
    let mut chosen = false;
    group.bench_function(shape, |bencher| {
        chosen = true;
        bencher.iter(&mut work);
    });
    group.finish();
    // Criterion leaves out what the command line does not name.
    if chosen {
        eprintln!("{}", ceilings.share(name, fastest(5, work), operations, bytes));
    }
}

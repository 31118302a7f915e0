//! `recmill bench`: how fast a device is at recmill's operations, beside what it could do at most.

use std::{hint::black_box, io::Write, time::Instant};

use clap::Args;
use recmill_core::{
    Csr,
    data::synthetic::{Synthetic, SyntheticOptions},
};
use recmill_kernels::{
    AlsSystem, Device, SparseRows, Table, TopkAnswers, TopkPrepared, TopkQuery, TopkScratch, als_cg,
    als_cholesky, gram, score_topk, simd, tie_hash,
};
use serde::Serialize;
use serde_json::json;

use crate::{
    device_flag::DeviceFlag,
    failure::{Failure, Result},
    output::{self, Out, count, note},
    progress::Bar,
};

/// Arguments of `recmill bench`.
#[derive(Args)]
#[command(
    after_help = "Interactions are made up in the shape of MovieLens-1M. Each figure is the best of several runs after \
    one that is not counted; other programs make it smaller. For comparisons with other projects see benches/ in the repository."
)]
pub(crate) struct Bench {
    /// Device to measure: auto, cpu, cuda, cuda:N, wgpu or wgpu:N.
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceFlag::Auto)]
    device: DeviceFlag,
    /// Lengths of vectors to measure.
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "64,128",
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    factors: Vec<u32>,
    /// Measures only operations whose name holds this text, such as als_cg.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    only: String,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

/// One measured operation.
#[derive(Serialize)]
struct Measured {
    operation: &'static str,
    shape: String,
    seconds: f64,
    /// What is done each second, and its unit.
    rate: f64,
    unit: &'static str,
    gflops: f64,
}

/// The made-up data, and what operations on it share.
struct Ground {
    by_user: Csr,
    factors: usize,
    users: Table,
    items: Table,
}

/// An operation's name, and what measures it.
type Operation = (&'static str, fn(&mut Ground) -> Result<Measured>);

const OPERATIONS: [Operation; 4] = [
    ("gram", bench_gram),
    ("als_cg", bench_als_cg),
    ("als_cholesky", bench_als_cholesky),
    ("score_topk", bench_topk),
];

impl Bench {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<()> {
        let device = self.device.resolve_for("bench")?;
        let bar = Bar::spinner("making up");
        let data = Synthetic::generate(&SyntheticOptions::default()).dataset()?;
        bar.message("measuring");
        let mut measured = Vec::new();
        for &factors in &self.factors {
            let factors = factors as usize;
            let mut ground = Ground {
                by_user: data.by_user().clone(),
                factors,
                users: random_table(data.n_users(), factors, 1)?,
                items: random_table(data.n_items(), factors, 2)?,
            };
            for (name, operation) in OPERATIONS {
                if name.contains(&self.only) {
                    bar.message(format!("{name}, {factors} factors"));
                    measured.push(operation(&mut ground)?);
                }
            }
        }
        drop(bar);
        if measured.is_empty() {
            return Err(Failure::usage(format!("no operation has `{}` in its name", self.only))
                .hint("there are gram, als_cg, als_cholesky and score_topk"));
        }
        let threads = rayon::current_num_threads();
        let mut out = Out::new();
        if self.json {
            out.json(&json!({
                "device": device.to_string(), "simd": simd::level().name(), "threads": threads, "operations": measured,
            }))?;
            return out.finish();
        }
        note!("{device}, {}, {threads} threads", simd::level().name());
        let rows: Vec<Vec<String>> = measured
            .iter()
            .map(|one| {
                let rate = format!("{} {}", count(one.rate as u64), one.unit);
                vec![
                    one.operation.to_owned(),
                    one.shape.clone(),
                    format!("{:.3}", one.seconds * 1e3),
                    format!("{:.1}", one.gflops),
                    rate,
                ]
            })
            .collect();
        output::columns(&mut out, &["operation", "shape", "ms", "GFLOP/s", "rate"], &rows)?;
        writeln!(out)?;
        out.finish()
    }
}

/// Runs `work` once uncounted, then for at least half a second, and returns the seconds of the fastest run.
fn best(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let (started, mut best) = (Instant::now(), f64::INFINITY);
    loop {
        let run = Instant::now();
        work()?;
        best = best.min(run.elapsed().as_secs_f64());
        if started.elapsed().as_secs_f64() > 0.5 {
            return Ok(best);
        }
    }
}

/// Values between -0.5 and 0.5, the same on every run.
fn random_table(rows: usize, dim: usize, seed: u64) -> Result<Table> {
    let value = |at: usize| (tie_hash(seed, at as u32) >> 40) as f32 / (1 << 24) as f32 - 0.5;
    let values: Vec<f32> = (0..rows * dim).map(value).collect();
    Ok(Table::from_f32(&values, dim, Device::Cpu, "bench")?)
}

fn bench_gram(ground: &mut Ground) -> Result<Measured> {
    let (rows, d) = (ground.users.rows() as usize, ground.factors);
    let seconds = best(|| {
        black_box(gram(&ground.users)?);
        Ok(())
    })?;
    // Symmetric: a multiply and an add for each of d (d + 1) / 2 sums a row.
    let operations = (rows * d * (d + 1)) as f64;
    Ok(measured("gram", format!("{rows} x {d}"), seconds, rows as f64, "rows/s", operations))
}

fn bench_als(
    ground: &mut Ground,
    name: &'static str,
    operations: impl Fn(f64, f64, f64) -> f64,
    solve: impl Fn(&AlsSystem<'_>, &mut Table) -> recmill_kernels::Result<()>,
) -> Result<Measured> {
    let csr = &ground.by_user;
    let gram = gram(&ground.items)?;
    let ridge = vec![1.0; csr.n_rows()];
    let rows = SparseRows { indptr: csr.indptr(), indices: csr.indices(), values: csr.values() };
    let system =
        AlsSystem { rows, fixed: &ground.items, gram: &gram, scale: 1.0, offset: 1.0, ridge: &ridge };
    let solution = &mut ground.users;
    let seconds = best(|| Ok(solve(&system, solution)?))?;
    let (n, nnz, d) = (csr.n_rows() as f64, csr.nnz() as f64, ground.factors as f64);
    let shape = format!("{} rows, {} values, {d} factors", csr.n_rows(), csr.nnz());
    Ok(measured(name, shape, seconds, nnz, "values/s", operations(n, nnz, d)))
}

fn bench_als_cg(ground: &mut Ground) -> Result<Measured> {
    const STEPS: usize = 3;
    // The first residual and every step multiply by the gram matrix and go twice through a row's values.
    let operations = |n: f64, nnz: f64, d: f64| (STEPS + 1) as f64 * (2.0 * n * d * d + 4.0 * nnz * d);
    bench_als(ground, "als_cg", operations, |system, solution| als_cg(system, solution, STEPS))
}

fn bench_als_cholesky(ground: &mut Ground) -> Result<Measured> {
    // The lower half of the normal matrix, d (d + 1) a value, then its factor, d^3 / 3 a row.
    let operations = |n: f64, nnz: f64, d: f64| nnz * d * (d + 1.0) + n * d * d * d / 3.0;
    bench_als(ground, "als_cholesky", operations, als_cholesky)
}

fn bench_topk(ground: &mut Ground) -> Result<Measured> {
    const QUERIES: usize = 512;
    const K: usize = 10;
    let prepared = TopkPrepared::new(&ground.items)?;
    let vectors: Vec<Vec<f32>> = (0..QUERIES.min(ground.users.rows() as usize))
        .map(|user| {
            let mut vector = vec![0.0; ground.factors];
            ground.users.read_row(user as u64, &mut vector).map(|()| vector)
        })
        .collect::<recmill_kernels::Result<_>>()?;
    let queries: Vec<TopkQuery<'_>> = vectors.iter().map(|vector| TopkQuery::new(vector, K)).collect();
    let (mut scratch, mut answers) = (TopkScratch::default(), TopkAnswers::default());
    let seconds =
        best(|| Ok(score_topk(&ground.items, &prepared, None, &queries, &mut scratch, &mut answers)?))?;
    let (n_items, d) = (ground.items.rows() as usize, ground.factors);
    let operations = 2.0 * (queries.len() * n_items * d) as f64;
    let shape = format!("{} of {n_items} items, {d} factors", K);
    Ok(measured("score_topk", shape, seconds, queries.len() as f64, "users/s", operations))
}

fn measured(
    operation: &'static str,
    shape: String,
    seconds: f64,
    done: f64,
    unit: &'static str,
    operations: f64,
) -> Measured {
    Measured { operation, shape, seconds, rate: done / seconds, unit, gflops: operations / seconds / 1e9 }
}

//! The ceilings of a GPU: a copy larger than its caches, and chains of fused multiply-adds in registers.
//!
//! The median of several runs; each run is as many launches as take 20 ms, and the device is waited for after the last.

use std::time::Instant;

use cubecl::prelude::*;

use super::Ceilings;
use crate::{
    Buffer, Device, Result,
    buffer::cube::{Gpu, Queue, cubes},
    memory,
};

const OP: &str = "peak";
const UNITS: usize = 256;
/// Vectors of four that a unit copies; neighbours copy neighbours.
const COPIES: usize = 4;
/// Bytes of each side of the copy, at most.
const COPY_BYTES: u64 = 1 << 30;
/// Independent sums of a unit, and multiply-adds of each in a round.
const CHAINS: usize = 8;
const ROUND: usize = 32;
const ROUNDS: usize = 64;
/// Cubes that multiply: enough for every processor several times over.
const CUBES: usize = 4096;
const RUNS: usize = 9;
const RUN_SECONDS: f64 = 0.02;

pub(super) fn measure<R: Gpu>(device: Device) -> Result<Ceilings> {
    let queue = Queue::<R>::new(device)?;
    let bytes = COPY_BYTES.min(device.max_buffer_bytes()?).min(memory::available(device) / 4) / 16 * 16;
    let from = queue.zeros::<f32>(bytes as usize / 4, "a copy's source")?;
    let to = queue.zeros::<f32>(from.len(), "a copy")?;
    let copied = median(&queue, || copy(&queue, &from, &to))?;
    let out = queue.zeros::<f32>(UNITS * CUBES, "sums of products")?;
    let multiplied = median(&queue, || multiply(&queue, &out))?;
    let operations = 2 * UNITS * CUBES * CHAINS * ROUND * ROUNDS;
    Ok(Ceilings { bytes: 2.0 * bytes as f64 / copied, flops: operations as f64 / multiplied })
}

/// Launches both kernels.
#[cfg(feature = "cuda-sources")]
pub(super) fn launch_once<R: Gpu>(device: Device) -> Result<()> {
    let queue = Queue::<R>::new(device)?;
    let [from, to] = [queue.zeros::<f32>(UNITS, "a copy's source")?, queue.zeros::<f32>(UNITS, "a copy")?];
    copy(&queue, &from, &to)?;
    multiply(&queue, &to)
}

/// Returns the median seconds of one launch.
fn median<R: Gpu>(queue: &Queue<R>, launch: impl Fn() -> Result<()>) -> Result<f64> {
    let timed = |launches: usize| -> Result<f64> {
        queue.wait()?;
        let started = Instant::now();
        (0..launches).try_for_each(|_| launch())?;
        queue.wait()?;
        Ok(started.elapsed().as_secs_f64() / launches as f64)
    };
    // The first compiles, the second says how long one takes.
    timed(1)?;
    let launches = (RUN_SECONDS / timed(1)?).clamp(1.0, 1000.0) as usize;
    let mut seconds = (0..RUNS).map(|_| timed(launches)).collect::<Result<Vec<_>>>()?;
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[RUNS / 2])
}

fn copy<R: Gpu>(queue: &Queue<R>, from: &Buffer<f32>, to: &Buffer<f32>) -> Result<()> {
    copy_kernel::launch::<R>(
        &queue.client,
        cubes(&queue.client, (from.len() / 4).div_ceil(UNITS * COPIES)),
        CubeDim::new_1d(UNITS as u32),
        4,
        queue.vector_arg(OP, from, 4)?,
        queue.vector_arg(OP, to, 4)?,
    );
    Ok(())
}

fn multiply<R: Gpu>(queue: &Queue<R>, out: &Buffer<f32>) -> Result<()> {
    multiply_add_kernel::launch::<R>(
        &queue.client,
        cubes(&queue.client, out.len().div_ceil(UNITS)),
        CubeDim::new_1d(UNITS as u32),
        queue.arg(OP, out)?,
        0.5,
        ROUNDS as u32,
    );
    Ok(())
}

#[cube(launch)]
fn copy_kernel<N: Size>(from: &Array<Vector<f32, N>>, to: &mut Array<Vector<f32, N>>) {
    let first = CUBE_POS * UNITS * COPIES + UNIT_POS as usize;
    #[unroll]
    for at in 0..COPIES {
        let at = first + at * UNITS;
        if at < from.len() {
            to[at] = from[at];
        }
    }
}

/// The sums stay between 0 and 1, and are written, so that none of the work can be left out.
#[cube(launch)]
fn multiply_add_kernel(out: &mut Array<f32>, factor: f32, rounds: u32) {
    let mut sums = Array::<f32>::new(CHAINS);
    #[unroll]
    for chain in 0..CHAINS {
        sums[chain] = f32::cast_from(UNIT_POS + chain as u32) * 0.001;
    }
    for _ in 0..rounds {
        #[unroll]
        for _ in 0..ROUND {
            #[unroll]
            for chain in 0..CHAINS {
                sums[chain] = fma(sums[chain], factor, factor * factor);
            }
        }
    }
    let mut total = 0.0f32;
    #[unroll]
    for chain in 0..CHAINS {
        total += sums[chain];
    }
    if ABSOLUTE_POS < out.len() {
        out[ABSOLUTE_POS] = total;
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::*;

    #[test]
    fn a_copy_copies_and_products_are_summed() {
        let device = Device::Wgpu(0);
        if device.check().is_err() {
            return;
        }
        type R = crate::buffer::wgpu::WgpuRuntime;
        let queue = Queue::<R>::new(device).unwrap();
        let values: Vec<f32> = (0..4 * (UNITS * COPIES + 3)).map(|value| value as f32).collect();
        let from = queue.upload(&values, "a test").unwrap();
        let to = queue.zeros::<f32>(values.len(), "a test").unwrap();
        copy(&queue, &from, &to).unwrap();
        assert_eq!(to.to_vec().unwrap(), values);
        multiply(&queue, &to).unwrap();
        // x = x / 2 + 1 / 4 ends at 1 / 2.
        assert!(to.to_vec().unwrap().iter().all(|sum| (sum - CHAINS as f32 / 2.0).abs() < 1e-4));
    }
}

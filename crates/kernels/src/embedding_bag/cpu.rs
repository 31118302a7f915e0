//! Bags on the CPU: tasks of whole bags, nothing allocated a row.

use rayon::prelude::*;

use super::{
    OP,
    batch::{Bags, Feature},
};
use crate::{Buffer, Device, Error, Result, Rows, Table};

/// Output values that one task computes.
const TASK_VALUES: usize = 1 << 13;

/// A batch's numbers in memory.
struct Places<'a> {
    indices: &'a [u32],
    offsets: &'a [u32],
    weights: &'a [f32],
    n_bags: usize,
}

impl<'a> Places<'a> {
    fn of(bags: &'a Bags) -> Self {
        Self {
            indices: bags.indices.cpu().unwrap_or_default(),
            offsets: bags.offsets.cpu().unwrap_or_default(),
            weights: bags.weights.cpu().unwrap_or_default(),
            n_bags: bags.n_bags(),
        }
    }

    /// The offsets of feature `feature`.
    fn offsets(&self, feature: usize) -> &'a [u32] {
        &self.offsets[feature * (self.n_bags + 1)..][..self.n_bags + 1]
    }
}

pub(super) fn forward(tables: &[&Table], bags: &Bags) -> Result<Buffer<f32>> {
    let width = bags.width();
    let mut out = Buffer::zeros(bags.n_bags().saturating_mul(width), Device::Cpu, "bags")?;
    let at_once = (TASK_VALUES / width).max(1);
    let places = Places::of(bags);
    let values = out.cpu_mut().unwrap_or_default();
    values.par_chunks_mut(at_once * width).enumerate().try_for_each(|(task, out)| {
        // Feature after feature, so that a task stays with one table.
        for (at, feature) in bags.features.iter().enumerate() {
            let offsets = places.offsets(at);
            for (in_task, out) in out.chunks_exact_mut(width).enumerate() {
                let bag = task * at_once + in_task;
                let (begin, end) = (offsets[bag] as usize, offsets[bag + 1] as usize);
                let out = &mut out[feature.column..][..feature.dim];
                for place in begin..end {
                    let weight = if feature.weighted { places.weights[place] } else { 1.0 };
                    add_row(tables[feature.table], places.indices[place], weight, out)?;
                }
                if feature.mean && end > begin {
                    let n = (end - begin) as f32;
                    out.iter_mut().for_each(|sum| *sum /= n);
                }
            }
        }
        Ok(())
    })?;
    Ok(out)
}

/// Adds `weight` times the row to `out`.
fn add_row(table: &Table, row: u32, weight: f32, out: &mut [f32]) -> Result<()> {
    let (rows, at) = table.chunk_of(row.into());
    let values = at * out.len()..(at + 1) * out.len();
    let elsewhere = || Error::NotOnDevice { op: OP, device: table.device() };
    match rows {
        Rows::F32(buffer) => add(&buffer.cpu().ok_or_else(elsewhere)?[values], weight, out, |x| x),
        Rows::F16(buffer) => {
            add(&buffer.cpu().ok_or_else(elsewhere)?[values], weight, out, half::f16::to_f32)
        }
        Rows::Bf16(buffer) => {
            add(&buffer.cpu().ok_or_else(elsewhere)?[values], weight, out, half::bf16::to_f32);
        }
        Rows::Int8(buffer, scale) => {
            let scale = scale.cpu().ok_or_else(elsewhere)?[at];
            add(&buffer.cpu().ok_or_else(elsewhere)?[values], weight, out, |q| f32::from(q) * scale);
        }
    }
    Ok(())
}

fn add<T: Copy>(values: &[T], weight: f32, out: &mut [f32], to_f32: impl Fn(T) -> f32) {
    for (sum, &value) in out.iter_mut().zip(values) {
        *sum += weight * to_f32(value);
    }
}

/// The bags of one task and the places they cover.
struct Task<'a> {
    feature: &'a Feature,
    offsets: &'a [u32],
    first_bag: usize,
    out: &'a mut [f32],
}

/// Cuts a feature's `out`, of `dim` values a place, into tasks of whole bags.
fn cut<'a>(
    tasks: &mut Vec<Task<'a>>,
    feature: &'a Feature,
    offsets: &'a [u32],
    mut out: &'a mut [f32],
    dim: usize,
) {
    let (n_bags, mut bag) = (offsets.len() - 1, 0);
    while bag < n_bags {
        // Bags up to the first that passes a task's places; one bag at least.
        let limit = offsets[bag] as usize + (TASK_VALUES / dim).max(1);
        let after = offsets[bag + 1..].partition_point(|&offset| offset as usize <= limit);
        let end = (bag + after).max(bag + 1);
        let (own, rest) = out.split_at_mut((offsets[end] - offsets[bag]) as usize * dim);
        if !own.is_empty() {
            tasks.push(Task { feature, offsets: &offsets[bag..=end], first_bag: bag, out: own });
        }
        (out, bag) = (rest, end);
    }
}

pub(super) fn backward(bags: &Bags, gradient: &Buffer<f32>) -> Result<Vec<Buffer<f32>>> {
    let (places, width) = (Places::of(bags), bags.width());
    let gradient = gradient.cpu().unwrap_or_default();
    let mut out = bags
        .tables
        .iter()
        .map(|shape| Buffer::zeros(shape.places.len() * shape.dim, Device::Cpu, "gradients of rows"))
        .collect::<Result<Vec<_>>>()?;
    let mut tasks = Vec::new();
    for (table, out) in out.iter_mut().enumerate() {
        let mut rest = out.cpu_mut().unwrap_or_default();
        for (at, feature) in bags.features.iter().enumerate().filter(|(_, feature)| feature.table == table) {
            let (own, later) = rest.split_at_mut(feature.places.len() * feature.dim);
            cut(&mut tasks, feature, places.offsets(at), own, feature.dim);
            rest = later;
        }
    }
    tasks.into_par_iter().for_each(|task| {
        let dim = task.feature.dim;
        let mut rows = task.out.chunks_exact_mut(dim);
        for (in_task, pair) in task.offsets.windows(2).enumerate() {
            let bag = task.first_bag + in_task;
            let gradient = &gradient[bag * width + task.feature.column..][..dim];
            let n = (pair[1] - pair[0]) as f32;
            for (place, to) in (pair[0]..pair[1]).zip(&mut rows) {
                if task.feature.weighted {
                    let weight = places.weights[place as usize];
                    to.iter_mut().zip(gradient).for_each(|(to, g)| *to = weight * g);
                } else if task.feature.mean {
                    to.iter_mut().zip(gradient).for_each(|(to, g)| *to = g / n);
                } else {
                    to.copy_from_slice(gradient);
                }
            }
        }
    });
    Ok(out)
}

pub(super) fn weights_backward(
    tables: &[&Table],
    bags: &Bags,
    gradient: &Buffer<f32>,
) -> Result<Vec<Option<Buffer<f32>>>> {
    let (places, width) = (Places::of(bags), bags.width());
    let gradient = gradient.cpu().unwrap_or_default();
    let mut out = Vec::with_capacity(bags.features.len());
    for (at, feature) in bags.features.iter().enumerate() {
        if !feature.weighted {
            out.push(None);
            continue;
        }
        let mut own = Buffer::zeros(feature.places.len(), Device::Cpu, "gradients of weights")?;
        let (mut tasks, table) = (Vec::new(), tables[feature.table]);
        cut(&mut tasks, feature, places.offsets(at), own.cpu_mut().unwrap_or_default(), 1);
        tasks.into_par_iter().try_for_each(|task| {
            let mut row = vec![0.0; feature.dim];
            let mut to = task.out.iter_mut();
            for (in_task, pair) in task.offsets.windows(2).enumerate() {
                let bag = task.first_bag + in_task;
                let gradient = &gradient[bag * width + feature.column..][..feature.dim];
                for (place, to) in (pair[0]..pair[1]).zip(&mut to) {
                    table.read_row(places.indices[place as usize].into(), &mut row)?;
                    *to = gradient.iter().zip(&row).map(|(g, x)| g * x).sum();
                }
            }
            Ok(())
        })?;
        out.push(Some(own));
    }
    Ok(out)
}

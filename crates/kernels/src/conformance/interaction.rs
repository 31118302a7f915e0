//! Cases of interaction.

use super::{Case, Comparison, Failure, Numbers, Outcome, on_threads, refused, same_bits};
use crate::{
    Buffer, Device, Error, Result, cross_layer, cross_layer_backward, cross_layer_backward_reference,
    cross_layer_reference, fm_second_order, fm_second_order_backward, fm_second_order_backward_reference,
    fm_second_order_reference, pairwise_dots, pairwise_dots_backward, pairwise_dots_backward_reference,
    pairwise_dots_reference,
};

pub(super) const CASES: &[Case] = &[
    Case { name: "interaction/sizes, threads", run: sizes },
    Case { name: "interaction/a row alone and in a batch", run: bits },
    Case { name: "interaction/more than 65,535 work groups", run: many_groups },
    Case { name: "interaction/refusals", run: refusals },
];

/// Of the largest value: sums of a few hundred products of numbers up to 1. Where they cancel, of the numbers themselves.
const TOLERANCE: f64 = 3e-6;

fn other(what: String) -> impl FnOnce(Error) -> Failure {
    move |got| Failure::Refused { what, got }
}

fn draw(numbers: &mut Numbers, n: usize) -> Vec<f32> {
    (0..n).map(|_| numbers.unit()).collect()
}

fn buffer(values: &[f32], device: Device) -> Result<Buffer<f32>> {
    Buffer::from_slice(values, device, "a conformance case")
}

/// What the four operations on fields give: of a row, of its pairs, and both gradients.
fn of_fields(
    x: &[f32],
    gradients: [&[f32]; 2],
    fields: usize,
    dim: usize,
    device: Device,
) -> Result<[Vec<f32>; 4]> {
    let x = buffer(x, device)?;
    let [of_row, of_pairs] = [buffer(gradients[0], device)?, buffer(gradients[1], device)?];
    Ok([
        fm_second_order(&x, fields, dim)?.to_vec()?,
        pairwise_dots(&x, fields, dim)?.to_vec()?,
        fm_second_order_backward(&x, fields, dim, &of_row)?.to_vec()?,
        pairwise_dots_backward(&x, fields, dim, &of_pairs)?.to_vec()?,
    ])
}

const PARTS: [&str; 4] = ["fm", "dots", "fm backward", "dots backward"];

fn sizes(device: Device) -> std::result::Result<Outcome, Failure> {
    let mut comparison = Comparison::default();
    let shapes = [
        (0, 3, 4),
        (1, 1, 1),
        (31, 2, 33),
        (33, 32, 31),
        (32, 33, 32),
        (67, 27, 16),
        (9, 26, 128),
        (5, 31, 10),
        // More than a work group holds in shared memory.
        (3, 100, 64),
        (2, 3, 3001),
    ];
    for (rows, fields, dim) in shapes {
        let what = format!("{rows} rows, {fields} fields, dim {dim}");
        let mut numbers = Numbers::new((rows + fields + dim) as u64);
        let pairs = fields * (fields - 1) / 2;
        let x = draw(&mut numbers, rows * fields * dim);
        let (of_row, of_pairs) = (draw(&mut numbers, rows), draw(&mut numbers, rows * pairs));
        let expected = [
            fm_second_order_reference(&x, fields, dim),
            pairwise_dots_reference(&x, fields, dim),
            fm_second_order_backward_reference(&x, fields, dim, &of_row),
            pairwise_dots_backward_reference(&x, fields, dim, &of_pairs),
        ];
        // A factorization machine's term is the difference of two sums of squares.
        let floors = [(fields * dim) as f64, 1.0, 1.0, 1.0];
        let mut before = None;
        for threads in [1, 3] {
            let run = || of_fields(&x, [&of_row, &of_pairs], fields, dim, device);
            let got = on_threads(threads, run).map_err(other(what.clone()))?;
            for (part, ((got, expected), floor)) in got.iter().zip(&expected).zip(floors).enumerate() {
                let what = || format!("{}, {what}", PARTS[part]);
                comparison.close_above(what, got, expected, floor, TOLERANCE)?;
            }
            if let Some(before) = before.replace(got.clone()) {
                for part in 0..4 {
                    same_bits(|| format!("{}, {what}, 3 threads", PARTS[part]), &got[part], &before[part])?;
                }
            }
        }
        let (u, layer) = (draw(&mut numbers, x.len()), draw(&mut numbers, x.len()));
        let run = || -> Result<_> {
            let (x0, u, x) = (buffer(&x, device)?, buffer(&u, device)?, buffer(&layer, device)?);
            let (of_x0, of_u) = cross_layer_backward(&x0, &u, &x)?;
            Ok((cross_layer(&x0, &u, &x)?.to_vec()?, of_x0.to_vec()?, of_u.to_vec()?))
        };
        let (out, of_x0, of_u) = run().map_err(other(what.clone()))?;
        let [exact_x0, exact_u] = cross_layer_backward_reference(&x, &u, &layer);
        let cross = || format!("cross layer, {what}");
        comparison.close(cross, &out, &cross_layer_reference(&x, &u, &layer), TOLERANCE)?;
        comparison.close(cross, &of_x0, &exact_x0, TOLERANCE)?;
        comparison.close(cross, &of_u, &exact_u, TOLERANCE)?;
    }
    comparison.outcome()
}

fn bits(device: Device) -> std::result::Result<Outcome, Failure> {
    for (rows, fields, dim) in [(70, 27, 16), (21, 6, 33), (9, 100, 64)] {
        let what = format!("{rows} rows, {fields} fields, dim {dim}");
        let mut numbers = Numbers::new(dim as u64);
        let (row_len, pairs) = (fields * dim, fields * (fields - 1) / 2);
        let x = draw(&mut numbers, rows * row_len);
        let (of_row, of_pairs) = (draw(&mut numbers, rows), draw(&mut numbers, rows * pairs));
        let run = |own: std::ops::Range<usize>| {
            let part = |values: &[f32], n: usize| values[own.start * n..own.end * n].to_vec();
            let gradients = [part(&of_row, 1), part(&of_pairs, pairs)];
            let gradients = [&gradients[0][..], &gradients[1][..]];
            of_fields(&part(&x, row_len), gradients, fields, dim, device).map_err(other(what.clone()))
        };
        let all = run(0..rows)?;
        for own in [0..1, rows - 1..rows, 3..8] {
            let some = run(own.clone())?;
            for (part, n) in [1, pairs, row_len, row_len].into_iter().enumerate() {
                let what = || format!("{}, {what}, rows {own:?}", PARTS[part]);
                same_bits(what, &some[part], &all[part][own.start * n..own.end * n])?;
            }
        }
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn many_groups(device: Device) -> std::result::Result<Outcome, Failure> {
    let mut comparison = Comparison::default();
    // A group makes the pairs of 4 rows, and 8 rows of 17 columns of a factorization machine.
    for (rows, fields, dim) in [(65_600 * 4, 2, 3), (65_600 * 8, 2, 17)] {
        let what = || format!("{rows} rows, {fields} fields, dim {dim}");
        let mut numbers = Numbers::new(rows as u64);
        let x = draw(&mut numbers, rows * fields * dim);
        let gradient = draw(&mut numbers, rows);
        let got = of_fields(&x, [&gradient, &gradient], fields, dim, device).map_err(other(what()))?;
        // With two fields there is one pair, and both operations are the same.
        let forward = pairwise_dots_reference(&x, fields, dim);
        let backward = pairwise_dots_backward_reference(&x, fields, dim, &gradient);
        for (part, expected) in [&forward, &forward, &backward, &backward].into_iter().enumerate() {
            let what = || format!("{}, {}", PARTS[part], what());
            comparison.close_above(what, &got[part], expected, (2 * dim) as f64, TOLERANCE)?;
        }
    }
    // An odd number of values is as many vectors.
    let n = 65_600 * 256 + 1;
    let what = || format!("cross layer of {n} values");
    let mut numbers = Numbers::new(5);
    let (a, b) = (draw(&mut numbers, n), draw(&mut numbers, n));
    let run = || -> Result<_> {
        let (x0, u) = (buffer(&a, device)?, buffer(&b, device)?);
        let (of_x0, _) = cross_layer_backward(&x0, &u, &x0)?;
        Ok([cross_layer(&x0, &u, &x0)?.to_vec()?, of_x0.to_vec()?])
    };
    let [out, of_x0] = run().map_err(other(what()))?;
    comparison.close(what, &out, &cross_layer_reference(&a, &b, &a), TOLERANCE)?;
    let [exact, _] = cross_layer_backward_reference(&a, &b, &a);
    comparison.close(what, &of_x0, &exact, TOLERANCE)?;
    comparison.outcome()
}

fn refusals(device: Device) -> std::result::Result<Outcome, Failure> {
    let a_buffer = |n: usize, device| buffer(&vec![1.0; n], device).map_err(other("a buffer".into()));
    let (x, short) = (a_buffer(12, device)?, a_buffer(5, device)?);
    refused("half a row", fm_second_order(&x, 5, 2), |error| {
        matches!(error, Error::Shape { what: "x", got: 12, .. })
    })?;
    refused("no fields", pairwise_dots(&x, 0, 2), |error| {
        matches!(error, Error::Parameter { what: "fields", .. })
    })?;
    refused("a gradient of other pairs", pairwise_dots_backward(&x, 3, 2, &short), |error| {
        matches!(error, Error::Shape { what: "gradient", expected: 6, got: 5, .. })
    })?;
    refused("operands of other lengths", cross_layer(&x, &x, &short), |error| {
        matches!(error, Error::Shape { what: "x", expected: 12, got: 5, .. })
    })?;
    if device != Device::Cpu {
        let elsewhere = a_buffer(12, Device::Cpu)?;
        let mixed = |error: &Error| matches!(error, Error::MixedDevices { .. });
        refused("operands on two devices", cross_layer(&x, &elsewhere, &x), mixed)?;
        let gradient = a_buffer(2, Device::Cpu)?;
        refused("a gradient elsewhere", fm_second_order_backward(&x, 3, 2, &gradient), mixed)?;
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

//! The dense part of deep models on the CPU: layers, interactions of fields, optimizer steps, hashing.
#![expect(clippy::unwrap_used, reason = "a bench that cannot run ends")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use recmill_benches::{ceilings::Ceilings, factors::numbers, measure::measure};
use recmill_kernels::{
    Activation, Buffer, DenseOptimizer, DenseStep, Device, FeatureHash, Linear, LinearGradients,
    LinearScratch, Products, cross_layer_backward_into, cross_layer_into, dense_update,
    fm_second_order_backward_into, fm_second_order_into, fm_second_order_reference, hash_features,
    hash_features_reference, linear, linear_backward, linear_reference, pairwise_dots_backward_into,
    pairwise_dots_into, pairwise_dots_reference,
};

const BATCH: usize = 4096;
const FIELDS: usize = 27;

fn close(got: &[f32], expected: &[f64]) {
    let largest = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    for (got, expected) in got.iter().zip(expected) {
        assert!((f64::from(*got) - expected).abs() <= 1e-5 * largest, "{got} {expected}");
    }
}

fn layers(criterion: &mut Criterion) {
    let ceilings = Ceilings::measure();
    for (inputs, outputs) in [(416, 400), (400, 400), (400, 1), (1024, 1024)] {
        let (x, weight) = (numbers(BATCH * inputs, 1), numbers(inputs * outputs, 2));
        let bias = numbers(outputs, 3);
        let activation = Activation::Relu;
        let layer = Linear {
            inputs,
            outputs,
            weight: &weight,
            bias: Some(&bias),
            activation,
            products: Products::F32,
        };
        let (mut scratch, mut y) = (LinearScratch::default(), vec![0.0; BATCH * outputs]);
        linear(&layer, &x, &mut y, &mut scratch).unwrap();
        close(&y[..8 * outputs], &linear_reference(&layer, &x[..8 * inputs]));
        let operations = (2 * BATCH * inputs * outputs) as f64;
        let bytes = (4 * (x.len() + weight.len() + y.len())) as f64;
        let shape = format!("{BATCH}x{inputs}x{outputs}, relu");
        let name = format!("linear/{shape}/cpu");
        measure(criterion, ceilings, &name, (operations, bytes), || {
            linear(&layer, &x, &mut y, &mut scratch).unwrap();
            black_box(&y);
        });
        let mut gradient = numbers(y.len(), 4);
        let (mut of_weight, mut of_bias, mut of_x) = (weight.clone(), bias.clone(), x.clone());
        let name = format!("linear_backward/{shape}/cpu");
        measure(criterion, ceilings, &name, (2.0 * operations, 3.0 * bytes), || {
            let into =
                LinearGradients { weight: &mut of_weight, bias: Some(&mut of_bias), x: Some(&mut of_x) };
            linear_backward(&layer, &x, &y, &mut gradient, into, &mut scratch).unwrap();
            black_box(&of_x);
        });
    }
}

fn interactions(criterion: &mut Criterion) {
    let ceilings = Ceilings::measure();
    for dim in [16, 64, 128] {
        let pairs = FIELDS * (FIELDS - 1) / 2;
        let x = numbers(BATCH * FIELDS * dim, 1);
        let (mut of_pairs, mut of_rows) = (vec![0.0; BATCH * pairs], vec![0.0; BATCH]);
        let mut of_x = vec![0.0; x.len()];
        pairwise_dots_into(&x, FIELDS, dim, &mut of_pairs).unwrap();
        fm_second_order_into(&x, FIELDS, dim, &mut of_rows).unwrap();
        close(&of_pairs[..8 * pairs], &pairwise_dots_reference(&x[..8 * FIELDS * dim], FIELDS, dim));
        close(&of_rows[..8], &fm_second_order_reference(&x[..8 * FIELDS * dim], FIELDS, dim));
        let shape = format!("{BATCH} rows, {FIELDS} fields, dim {dim}/cpu");
        let (values, of_pair) = ((4 * x.len()) as f64, (4 * of_pairs.len()) as f64);
        let dots = (2 * BATCH * pairs * dim) as f64;
        measure(criterion, ceilings, &format!("pairwise_dots/{shape}"), (dots, values + of_pair), || {
            pairwise_dots_into(&x, FIELDS, dim, &mut of_pairs).unwrap();
            black_box(&of_pairs);
        });
        let cost = (2.0 * dots, 2.0 * values + of_pair);
        measure(criterion, ceilings, &format!("pairwise_dots_backward/{shape}"), cost, || {
            pairwise_dots_backward_into(&x, FIELDS, dim, &of_pairs, &mut of_x).unwrap();
            black_box(&of_x);
        });
        let cost = (3.0 * x.len() as f64, values);
        measure(criterion, ceilings, &format!("fm_second_order/{shape}"), cost, || {
            fm_second_order_into(&x, FIELDS, dim, &mut of_rows).unwrap();
            black_box(&of_rows);
        });
        let cost = (3.0 * x.len() as f64, 2.0 * values);
        measure(criterion, ceilings, &format!("fm_second_order_backward/{shape}"), cost, || {
            fm_second_order_backward_into(&x, FIELDS, dim, &of_rows, &mut of_x).unwrap();
            black_box(&of_x);
        });
    }
    let width = 432;
    let (x0, u, x) = (numbers(BATCH * width, 1), numbers(BATCH * width, 2), numbers(BATCH * width, 3));
    let (mut out, mut of_u) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    cross_layer_into(&x0, &u, &x, &mut out).unwrap();
    assert_eq!(out[5], x0[5] * u[5] + x[5]);
    let (n, shape) = (x.len() as f64, format!("{BATCH}x{width}/cpu"));
    measure(criterion, ceilings, &format!("cross_layer/{shape}"), (2.0 * n, 16.0 * n), || {
        cross_layer_into(&x0, &u, &x, &mut out).unwrap();
        black_box(&out);
    });
    measure(criterion, ceilings, &format!("cross_layer_backward/{shape}"), (2.0 * n, 20.0 * n), || {
        cross_layer_backward_into(&x0, &u, &x, &mut out, &mut of_u).unwrap();
        black_box(&of_u);
    });
}

fn steps(criterion: &mut Criterion) {
    let ceilings = Ceilings::measure();
    let n = 488_001;
    let (gradient, step) = (numbers(n, 2), DenseStep::new(1e-3, 1));
    for (name, optimizer, bytes) in [
        ("sgd", DenseOptimizer::Sgd, 12),
        ("adagrad", DenseOptimizer::Adagrad { initial: 0.0, epsilon: 1e-8 }, 20),
        ("adam", DenseOptimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }, 28),
    ] {
        let (mut parameters, mut state) = (numbers(n, 1), vec![vec![0.0; n]; optimizer.states()]);
        let mut state: Vec<&mut [f32]> = state.iter_mut().map(Vec::as_mut_slice).collect();
        let name = format!("dense_update/{n} parameters, {name}/cpu");
        measure(criterion, ceilings, &name, (0.0, (bytes * n) as f64), || {
            dense_update(optimizer, &mut parameters, &mut state, &gradient, &step).unwrap();
            black_box(&parameters);
        });
    }
}

fn hashes(criterion: &mut Criterion) {
    let ceilings = Ceilings::measure();
    let (n, to) = (1 << 20, FeatureHash { n_buckets: 1 << 18, seed: 1 });
    let keys: Vec<u64> = (0..n).map(|key: u64| key.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    let buffer = Buffer::from_slice(&keys, Device::Cpu, "a bench").unwrap();
    let (buckets, _) = hash_features(&buffer, to).unwrap();
    let (expected, _) = hash_features_reference(&keys[5..6], to)[0];
    assert_eq!(buckets.to_vec().unwrap()[5], expected);
    let name = format!("hash/{n} keys of u64/cpu");
    measure(criterion, ceilings, &name, (0.0, 16.0 * n as f64), || {
        black_box(hash_features(&buffer, to).unwrap());
    });
}

criterion_group!(benches, layers, interactions, steps, hashes);
criterion_main!(benches);

//! Numbers by hand, against the reference, alone and in a batch, by finite differences; what is refused.

use super::*;
use crate::conformance::{Comparison, Numbers, on_threads, same_bits};

/// Of the largest value: products of a few hundred numbers between -1 and 1, in f32.
const TOLERANCE: f64 = 2e-6;

struct Drawn {
    inputs: usize,
    outputs: usize,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    gradient: Vec<f32>,
    products: Products,
}

/// What forward and backward give.
struct Answer {
    y: Vec<f32>,
    dz: Vec<f32>,
    of_weight: Vec<f32>,
    of_bias: Vec<f32>,
    of_x: Vec<f32>,
}

impl Drawn {
    fn new(batch: usize, inputs: usize, outputs: usize) -> Self {
        let mut numbers = Numbers::new((batch * 31 + inputs * 7 + outputs) as u64);
        let mut draw = |n: usize| (0..n).map(|_| numbers.unit()).collect::<Vec<f32>>();
        let (x, weight) = (draw(batch * inputs), draw(inputs * outputs));
        Self {
            inputs,
            outputs,
            x,
            weight,
            bias: draw(outputs),
            gradient: draw(batch * outputs),
            products: Products::F32,
        }
    }

    fn layer(&self, activation: Activation) -> Linear<'_> {
        let (weight, bias) = (&self.weight[..], Some(&self.bias[..]));
        Linear {
            inputs: self.inputs,
            outputs: self.outputs,
            weight,
            bias,
            activation,
            products: self.products,
        }
    }

    /// Rows `rows` of the batch; nothing is left of what was there before.
    fn run(
        &self,
        activation: Activation,
        rows: std::ops::Range<usize>,
        scratch: &mut LinearScratch,
    ) -> Answer {
        let layer = self.layer(activation);
        let x = &self.x[rows.start * self.inputs..rows.end * self.inputs];
        let gradient = &self.gradient[rows.start * self.outputs..rows.end * self.outputs];
        let nan = |n| vec![f32::NAN; n];
        let (mut y, mut dz) = (nan(gradient.len()), gradient.to_vec());
        let (mut of_weight, mut of_bias, mut of_x) =
            (nan(self.weight.len()), nan(self.outputs), nan(x.len()));
        linear(&layer, x, &mut y, scratch).unwrap();
        let into = LinearGradients { weight: &mut of_weight, bias: Some(&mut of_bias), x: Some(&mut of_x) };
        linear_backward(&layer, x, &y, &mut dz, into, scratch).unwrap();
        Answer { y, dz, of_weight, of_bias, of_x }
    }
}

#[test]
fn a_layer_by_hand() {
    let (weight, bias) = ([1.0, 2.0, -3.0, 4.0], [0.5, -100.0]);
    let layer = Linear {
        inputs: 2,
        outputs: 2,
        weight: &weight,
        bias: Some(&bias),
        activation: Activation::Relu,
        products: Products::F32,
    };
    let (x, mut y, mut scratch) = ([5.0, 1.0, 0.0, -2.0], [9.0; 4], LinearScratch::default());
    linear(&layer, &x, &mut y, &mut scratch).unwrap();
    assert_eq!(y, [2.5, 0.0, 6.5, 0.0]);
    let plain = Linear { bias: None, activation: Activation::Identity, ..layer };
    linear(&plain, &x, &mut y, &mut scratch).unwrap();
    assert_eq!(y, [2.0, 14.0, 6.0, -8.0]);

    let y = [2.5, 0.0, 6.5, 0.0];
    let (mut gradient, mut of_weight, mut of_bias, mut of_x) =
        ([1.0, 7.0, 2.0, 7.0], [9.0; 4], [9.0; 2], [9.0; 4]);
    let into = LinearGradients { weight: &mut of_weight, bias: Some(&mut of_bias), x: Some(&mut of_x) };
    linear_backward(&layer, &x, &y, &mut gradient, into, &mut scratch).unwrap();
    assert_eq!(gradient, [1.0, 0.0, 2.0, 0.0]);
    assert_eq!(of_weight, [5.0, 0.0, -3.0, 0.0]);
    assert_eq!(of_bias, [3.0, 0.0]);
    assert_eq!(of_x, [1.0, -3.0, 2.0, -6.0]);
    let into = LinearGradients { weight: &mut of_weight, bias: None, x: None };
    let mut gradient = [1.0, 7.0, 2.0, 7.0];
    linear_backward(&layer, &x, &y, &mut gradient, into, &mut scratch).unwrap();
    assert_eq!((gradient, of_weight), ([1.0, 0.0, 2.0, 0.0], [5.0, 0.0, -3.0, 0.0]));
}

#[test]
fn every_size_at_every_level_agrees_with_the_reference_for_any_threads() {
    let mut comparison = Comparison::default();
    // Tiles and what is left of them, several blocks of the inner dimension, several sums of the batch, several slabs.
    let shapes = [
        (0, 3, 2),
        (1, 1, 1),
        (31, 33, 32),
        (33, 31, 15),
        (7, 600, 17),
        (1100, 25, 33),
        (100, 300, 1),
        (140, 99, 530),
    ];
    for (batch, inputs, outputs) in shapes {
        let drawn = Drawn::new(batch, inputs, outputs);
        for activation in [Activation::Identity, Activation::Relu] {
            let layer = drawn.layer(activation);
            let y = linear_reference(&layer, &drawn.x);
            for level in simd::levels() {
                let what =
                    |part| move || format!("{part} of {batch}x{inputs}x{outputs}, {activation:?}, {level:?}");
                let run = || {
                    simd::with_level(level, || drawn.run(activation, 0..batch, &mut LinearScratch::default()))
                };
                let got = on_threads(1, run);
                let [of_weight, of_bias, of_x] =
                    linear_backward_reference(&layer, &drawn.x, &got.y, &drawn.gradient);
                let pairs = [
                    ("y", &got.y, &y),
                    ("weight", &got.of_weight, &of_weight),
                    ("bias", &got.of_bias, &of_bias),
                    ("x", &got.of_x, &of_x),
                ];
                for (part, got, expected) in pairs {
                    comparison.close_above(what(part), got, expected, 1.0, TOLERANCE).unwrap();
                }
                let other = on_threads(3, run);
                let pairs = [
                    ("y", &got.y, &other.y),
                    ("weight", &got.of_weight, &other.of_weight),
                    ("bias", &got.of_bias, &other.of_bias),
                    ("x", &got.of_x, &other.of_x),
                    ("sums", &got.dz, &other.dz),
                ];
                for (part, got, other) in pairs {
                    same_bits(what(part), got, other).unwrap();
                }
            }
        }
    }
}

#[test]
fn products_of_bf16_are_those_of_the_rounded_factors() {
    let rounded = |values: &[f32]| -> Vec<f32> {
        values.iter().map(|&value| half::bf16::from_f32(value).to_f32()).collect()
    };
    let mut comparison = Comparison::default();
    // Inner dimensions that are odd, in one block and in several; batches, too.
    for (batch, inputs, outputs) in
        [(1, 1, 1), (31, 33, 32), (33, 32, 15), (7, 601, 17), (1101, 25, 33), (140, 99, 531)]
    {
        let drawn = Drawn { products: Products::Bf16, ..Drawn::new(batch, inputs, outputs) };
        let factors = Drawn {
            x: rounded(&drawn.x),
            weight: rounded(&drawn.weight),
            bias: drawn.bias.clone(),
            gradient: rounded(&drawn.gradient),
            ..drawn
        };
        for activation in [Activation::Identity, Activation::Relu] {
            let y = linear_reference(&factors.layer(activation), &factors.x);
            for level in simd::levels() {
                let run = || {
                    simd::with_level(level, || drawn.run(activation, 0..batch, &mut LinearScratch::default()))
                };
                let got = on_threads(1, run);
                let [of_weight, _, of_x] = linear_backward_reference(
                    &factors.layer(activation),
                    &factors.x,
                    &got.y,
                    &factors.gradient,
                );
                let [_, of_bias, _] =
                    linear_backward_reference(&drawn.layer(activation), &drawn.x, &got.y, &drawn.gradient);
                let what =
                    |part| move || format!("{part} of {batch}x{inputs}x{outputs}, {activation:?}, {level:?}");
                for (part, got, expected) in [
                    ("y", &got.y, &y),
                    ("weight", &got.of_weight, &of_weight),
                    ("bias", &got.of_bias, &of_bias),
                    ("x", &got.of_x, &of_x),
                ] {
                    comparison.close_above(what(part), got, expected, 1.0, TOLERANCE).unwrap();
                }
                let other = on_threads(3, run);
                for (part, got, other) in [
                    ("y", &got.y, &other.y),
                    ("weight", &got.of_weight, &other.of_weight),
                    ("x", &got.of_x, &other.of_x),
                ] {
                    same_bits(what(part), got, other).unwrap();
                }
            }
        }
    }
}

#[test]
fn numbers_are_rounded_to_the_nearest_bf16() {
    let bits = |low: f32, high: f32| panels::pair(low, high).to_bits();
    for x in [0.0, -0.0, 1.0, 1.0039062, 1.0039063, 1.0117188, -2.765625, 1e-40, 3.4e38, f32::INFINITY] {
        let expected = u32::from(half::bf16::from_f32(x).to_bits());
        assert_eq!(bits(x, -x), expected | (expected ^ 0x8000) << 16, "{x}");
    }
    assert!(f32::from_bits(bits(f32::NAN, 0.0) << 16).is_nan());
    assert!(f32::from_bits(bits(0.0, f32::from_bits(0x7f80_0001)) & 0xffff_0000).is_nan());
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_a_batch() {
    let (mut drawn, mut scratch) = (Drawn::new(130, 301, 50), LinearScratch::default());
    for (level, products) in
        simd::levels().flat_map(|level| [(level, Products::F32), (level, Products::Bf16)])
    {
        drawn.products = products;
        simd::with_level(level, || {
            let all = drawn.run(Activation::Relu, 0..130, &mut scratch);
            // From 32 rows on the weight is copied.
            for rows in [0..1, 95..98, 129..130, 5..50] {
                let some = drawn.run(Activation::Relu, rows.clone(), &mut scratch);
                let part = |of: &[f32], n: usize| of[rows.start * n..rows.end * n].to_vec();
                same_bits(|| format!("y of {rows:?}"), &some.y, &part(&all.y, 50)).unwrap();
                same_bits(|| format!("x of {rows:?}"), &some.of_x, &part(&all.of_x, 301)).unwrap();
            }
        });
    }
}

#[test]
fn the_backward_pass_is_the_slope_of_the_forward_pass() {
    let drawn = Drawn::new(4, 5, 3);
    for activation in [Activation::Identity, Activation::Relu] {
        let loss = |drawn: &Drawn| -> f64 {
            let y = linear_reference(&drawn.layer(activation), &drawn.x);
            y.iter().zip(&drawn.gradient).map(|(y, &c)| y * f64::from(c)).sum()
        };
        let got = drawn.run(activation, 0..4, &mut LinearScratch::default());
        // A step that moves no sum across zero: then the loss is linear in each number.
        let h = 1.0 / 4096.0;
        let analytic = [("x", &got.of_x), ("weight", &got.of_weight), ("bias", &got.of_bias)];
        for (part, analytic) in analytic {
            for (at, &analytic) in analytic.iter().enumerate() {
                let moved = |by: f32| {
                    let (mut x, mut weight, mut bias) =
                        (drawn.x.clone(), drawn.weight.clone(), drawn.bias.clone());
                    match part {
                        "x" => x[at] += by,
                        "weight" => weight[at] += by,
                        _ => bias[at] += by,
                    }
                    loss(&Drawn { x, weight, bias, gradient: drawn.gradient.clone(), ..drawn })
                };
                let numeric = (moved(h) - moved(-h)) / (2.0 * f64::from(h));
                assert!(
                    (f64::from(analytic) - numeric).abs() < 1e-5,
                    "{part} {at}: {analytic} beside {numeric}"
                );
            }
        }
    }
}

#[test]
fn what_is_not_finite_shows_where_it_matters_and_nowhere_else() {
    let mut drawn = Drawn::new(40, 20, 18);
    drawn.x[7 * 20 + 3] = f32::NAN;
    let got = drawn.run(Activation::Relu, 0..40, &mut LinearScratch::default());
    for (row, y) in got.y.chunks_exact(18).enumerate() {
        assert_eq!(y.iter().all(|y| y.is_nan()), row == 7, "{row}");
        assert_eq!(y.iter().any(|y| y.is_nan()), row == 7, "{row}");
    }
    drawn.x[7 * 20 + 3] = 0.0;
    drawn.gradient[9 * 18..10 * 18].fill(f32::INFINITY);
    let got = drawn.run(Activation::Identity, 0..40, &mut LinearScratch::default());
    assert!(got.of_bias.iter().all(|value| value.is_infinite()));
    assert!(
        got.of_x.chunks_exact(20).enumerate().all(|(row, x)| x.iter().all(|x| x.is_finite()) == (row != 9))
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let (weight, mut scratch) = ([0.0; 6], LinearScratch::default());
    let layer = Linear {
        inputs: 2,
        outputs: 3,
        weight: &weight,
        bias: None,
        activation: Activation::Identity,
        products: Products::F32,
    };
    let shape = |what, expected, got| Error::Shape { op: OP, what, expected, got };
    let mut refused = |layer: &Linear<'_>, x: &[f32], y: usize| {
        linear(layer, x, &mut vec![0.0; y], &mut scratch).unwrap_err()
    };
    assert_eq!(refused(&layer, &[0.0; 5], 6), shape("x", 4, 5));
    assert_eq!(refused(&layer, &[0.0; 4], 5), shape("y", 6, 5));
    assert_eq!(refused(&Linear { bias: Some(&[0.0; 2]), ..layer }, &[0.0; 4], 6), shape("bias", 3, 2));
    assert_eq!(refused(&Linear { inputs: 1, ..layer }, &[0.0; 2], 6), shape("weight", 3, 6));
    let none = refused(&Linear { outputs: 0, ..layer }, &[0.0; 2], 6);
    assert!(matches!(none, Error::Parameter { what: "outputs", .. }));
    let (mut gradient, mut of_weight) = ([0.0; 5], [0.0; 6]);
    let into = LinearGradients { weight: &mut of_weight, bias: None, x: None };
    let error = linear_backward(&layer, &[0.0; 4], &[0.0; 6], &mut gradient, into, &mut scratch).unwrap_err();
    assert_eq!(error, shape("gradient", 6, 5));
}

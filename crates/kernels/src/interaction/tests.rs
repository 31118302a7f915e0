//! Numbers by hand, finite differences, and what is refused; sizes, bits and devices are cases of conformance.

use super::*;

/// Fields (1 2), (3 -1), (0 4).
const ROW: [f32; 6] = [1.0, 2.0, 3.0, -1.0, 0.0, 4.0];

fn buffer(values: &[f32]) -> Buffer<f32> {
    Buffer::from_slice(values, Device::Cpu, "a test").unwrap()
}

#[test]
fn a_row_by_hand() {
    let x = buffer(&ROW);
    assert_eq!(pairwise_dots(&x, 3, 2).unwrap().to_vec().unwrap(), [1.0, 8.0, -4.0]);
    assert_eq!(fm_second_order(&x, 3, 2).unwrap().to_vec().unwrap(), [5.0]);
    let of_x = fm_second_order_backward(&x, 3, 2, &buffer(&[2.0])).unwrap();
    assert_eq!(of_x.to_vec().unwrap(), [6.0, 6.0, 2.0, 12.0, 8.0, 2.0]);
    let of_x = pairwise_dots_backward(&x, 3, 2, &buffer(&[1.0, 2.0, 3.0])).unwrap();
    assert_eq!(of_x.to_vec().unwrap(), [3.0, 7.0, 1.0, 14.0, 11.0, 1.0]);
    let (x0, u, x) = (buffer(&[1.0, 2.0]), buffer(&[3.0, 4.0]), buffer(&[5.0, 6.0]));
    assert_eq!(cross_layer(&x0, &u, &x).unwrap().to_vec().unwrap(), [8.0, 14.0]);
    let (of_x0, of_u) = cross_layer_backward(&x0, &u, &buffer(&[10.0, -1.0])).unwrap();
    assert_eq!(of_x0.to_vec().unwrap(), [30.0, -4.0]);
    assert_eq!(of_u.to_vec().unwrap(), [10.0, -2.0]);
}

#[test]
fn one_field_has_no_pairs_and_no_rows_have_no_answers() {
    let x = buffer(&ROW);
    assert_eq!(pairwise_dots(&x, 1, 2).unwrap().len(), 0);
    assert_eq!(pairwise_dots_backward(&x, 1, 2, &buffer(&[])).unwrap().to_vec().unwrap(), [0.0; 6]);
    assert_eq!(fm_second_order_backward(&x, 1, 3, &buffer(&[7.0; 2])).unwrap().to_vec().unwrap(), [0.0; 6]);
    let none = buffer(&[]);
    assert_eq!(fm_second_order(&none, 3, 2).unwrap().len(), 0);
    assert_eq!(pairwise_dots_backward(&none, 3, 2, &none).unwrap().len(), 0);
    assert_eq!(cross_layer(&none, &none, &none).unwrap().len(), 0);
}

/// Checks that `analytic` is the slope of `loss` in each of `values`: exact but for rounding, as all are of second degree.
fn check_slope(values: &[f32], analytic: [Vec<f64>; 2], loss: impl Fn(&[f32]) -> f64) {
    let h = 0.125;
    for at in 0..values.len() {
        let moved = |by: f32| {
            let mut values = values.to_vec();
            values[at] += by;
            loss(&values)
        };
        let numeric = (moved(h) - moved(-h)) / (2.0 * f64::from(h));
        let [exact, got] = [&analytic[0], &analytic[1]].map(|analytic| (analytic[at] - numeric).abs());
        assert!(exact < 1e-12 && got < 1e-5, "value {at}: {numeric}, off by {exact} and {got}");
    }
}

fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| value.into()).collect()
}

/// `Σ c out`.
fn weighed(out: &[f64], c: &[f32]) -> f64 {
    out.iter().zip(c).map(|(out, &c)| out * f64::from(c)).sum()
}

#[test]
fn every_backward_pass_is_the_slope_of_its_forward_pass() {
    let numbers = |n: usize, step: usize| -> Vec<f32> {
        (0..n).map(|at| ((at * step % 17) as f32 - 8.0) / 8.0).collect()
    };
    let (fields, dim, rows) = (5, 11, 2);
    let x = numbers(rows * fields * dim, 5);
    let mut got = vec![f32::NAN; x.len()];

    let c = numbers(rows, 7);
    fm_second_order_backward_into(&x, fields, dim, &c, &mut got).unwrap();
    let analytic = [fm_second_order_backward_reference(&x, fields, dim, &c), widened(&got)];
    check_slope(&x, analytic, |x| weighed(&fm_second_order_reference(x, fields, dim), &c));

    let c = numbers(rows * fields * (fields - 1) / 2, 7);
    pairwise_dots_backward_into(&x, fields, dim, &c, &mut got).unwrap();
    let analytic = [pairwise_dots_backward_reference(&x, fields, dim, &c), widened(&got)];
    check_slope(&x, analytic, |x| weighed(&pairwise_dots_reference(x, fields, dim), &c));

    let (x0, u, x, c) = (numbers(30, 3), numbers(30, 5), numbers(30, 7), numbers(30, 11));
    let (mut of_x0, mut of_u) = (vec![f32::NAN; 30], vec![f32::NAN; 30]);
    cross_layer_backward_into(&x0, &u, &c, &mut of_x0, &mut of_u).unwrap();
    let [exact_x0, exact_u] = cross_layer_backward_reference(&x0, &u, &c);
    let loss = |x0: &[f32], u: &[f32], x: &[f32]| weighed(&cross_layer_reference(x0, u, x), &c);
    check_slope(&x0, [exact_x0, widened(&of_x0)], |x0| loss(x0, &u, &x));
    check_slope(&u, [exact_u, widened(&of_u)], |u| loss(&x0, u, &x));
    check_slope(&x, [widened(&c), widened(&c)], |x| loss(&x0, &u, x));
}

#[test]
fn what_does_not_fit_is_refused() {
    let x = buffer(&ROW);
    let shape = |op, what, expected, got| Error::Shape { op, what, expected, got };
    assert_eq!(fm_second_order(&x, 2, 2).unwrap_err(), shape(FM, "x", 8, 6));
    let none = fm_second_order(&x, 0, 2).unwrap_err();
    assert!(matches!(none, Error::Parameter { what: "fields", .. }));
    let none = pairwise_dots(&x, 3, 0).unwrap_err();
    assert!(matches!(none, Error::Parameter { what: "dim", .. }));
    assert!(pairwise_dots(&x, usize::MAX, 2).is_err());
    let two = buffer(&[0.0; 2]);
    assert_eq!(fm_second_order_backward(&x, 3, 2, &two).unwrap_err(), shape(FM, "gradient", 1, 2));
    assert_eq!(pairwise_dots_backward(&x, 3, 2, &two).unwrap_err(), shape(DOTS, "gradient", 3, 2));
    assert_eq!(pairwise_dots_into(&ROW, 3, 2, &mut [0.0; 2]).unwrap_err(), shape(DOTS, "out", 3, 2));
    assert_eq!(cross_layer(&x, &two, &x).unwrap_err(), shape(CROSS, "u", 6, 2));
    assert_eq!(cross_layer_backward(&x, &x, &two).unwrap_err(), shape(CROSS, "gradient", 6, 2));
}

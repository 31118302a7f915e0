//! Numbers by hand, and each optimizer's step beside the slope of a loss.

use super::*;
use crate::{BagFeature, Bags, Pooling, embedding_bag_backward, embedding_bag_reference, segment};

fn table(values: &[f32], dim: usize) -> Table {
    Table::from_f32_in_chunks(values, dim, 2, Device::Cpu, "a test").unwrap()
}

/// Steps `table` by the gradients of `indices`.
fn update(
    table: &mut Table,
    state: &mut SparseState,
    indices: &[u32],
    gradients: &[f32],
    learning_rate: f32,
    l2: f32,
) -> Result<()> {
    let segment = segment(indices, table.rows(), Device::Cpu).unwrap();
    let gradients = Buffer::from_slice(gradients, Device::Cpu, "a test").unwrap();
    sparse_update(table, state, &segment, &gradients, &SparseStep { learning_rate, l2, seed: 7 })
}

fn close(got: &[f32], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((f64::from(*got) - expected).abs() < 1e-6, "{got} is not {expected}");
    }
}

#[test]
fn sgd_by_hand() {
    let mut table = table(&[1.0, 5.0, 1.0], 1);
    let mut state = SparseState::new(SparseOptimizer::Sgd, &table).unwrap();
    update(&mut table, &mut state, &[2, 0, 2], &[0.5, 2.0, 1.5], 0.1, 0.0).unwrap();
    close(&table.to_f32().unwrap(), &[0.8, 5.0, 0.8]);
    update(&mut table, &mut state, &[1], &[2.0], 0.1, 0.5).unwrap();
    close(&table.to_f32().unwrap(), &[0.8, 5.0 - 0.1 * 4.5, 0.8]);
    assert_eq!(state.steps(), 2);
}

#[test]
fn adagrad_by_hand() {
    let mut table = table(&[1.0, 1.0], 1);
    let adagrad = SparseOptimizer::Adagrad { initial: 0.0, epsilon: 0.5 };
    let mut state = SparseState::new(adagrad, &table).unwrap();
    // 0.5 and 1.5 are one gradient of 2: a = 4, not 0.25 + 2.25.
    update(&mut table, &mut state, &[0, 0], &[0.5, 1.5], 0.5, 0.0).unwrap();
    close(&table.to_f32().unwrap(), &[1.0 - 0.5 * 2.0 / 2.5, 1.0]);
    update(&mut table, &mut state, &[0], &[1.5], 0.5, 0.0).unwrap();
    close(&table.to_f32().unwrap(), &[0.6 - 0.5 * 1.5 / 3.0, 1.0]);
    assert_eq!(state.tables()[0].to_f32().unwrap(), [6.25, 0.0]);
}

#[test]
fn row_wise_adagrad_by_hand() {
    let mut table = table(&[1.0, 2.0, 0.0, 0.0, 0.0, 0.0], 2);
    let row_wise = SparseOptimizer::RowWiseAdagrad { initial: 4.0, epsilon: 0.0 };
    let mut state = SparseState::new(row_wise, &table).unwrap();
    // The mean of 9 and 1 is 5, and √(4 + 5) = 3.
    update(&mut table, &mut state, &[0], &[3.0, 1.0], 0.3, 0.0).unwrap();
    close(&table.to_f32().unwrap(), &[0.7, 1.9, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(state.tables()[0].to_f32().unwrap(), [5.0, 0.0, 0.0]);
}

#[test]
fn adam_by_hand_and_a_row_that_stands_still() {
    let mut table = table(&[1.0, 1.0], 1);
    let adam = SparseOptimizer::Adam { beta1: 0.5, beta2: 0.75, epsilon: 1.0 };
    let mut state = SparseState::new(adam, &table).unwrap();
    // m = 1, v = 1, unbiased 2 and 4.
    update(&mut table, &mut state, &[0], &[2.0], 1.0, 0.0).unwrap();
    let first = 1.0 - 2.0 / 3.0;
    close(&table.to_f32().unwrap(), &[first, 1.0]);
    update(&mut table, &mut state, &[1], &[2.0], 1.0, 0.0).unwrap();
    assert_eq!(state.tables()[0].to_f32().unwrap(), [1.0, 1.0]);
    // The third step of the table, the row's second: m = 0.5, v = 0.75.
    update(&mut table, &mut state, &[0], &[0.0], 1.0, 0.0).unwrap();
    let step = (0.5 / 0.875) / ((0.75f64 / (1.0 - 0.421_875)).sqrt() + 1.0);
    close(&table.to_f32().unwrap()[..1], &[first - step]);
}

#[test]
fn ftrl_by_hand() {
    let mut small = table(&[0.0], 1);
    let mut state = SparseState::new(SparseOptimizer::Ftrl { beta: 1.0, l1: 0.25 }, &small).unwrap();
    // n = 4, z = 2: w = -(2 - 0.25) / ((1 + 2) / 0.5).
    update(&mut small, &mut state, &[0], &[2.0], 0.5, 0.0).unwrap();
    let first = -1.75 / 6.0;
    close(&small.to_f32().unwrap(), &[first]);
    update(&mut small, &mut state, &[0], &[-2.0], 0.5, 0.0).unwrap();
    let z = -(8f64.sqrt() - 2.0) / 0.5 * first;
    close(&small.to_f32().unwrap(), &[-(z - 0.25) / ((1.0 + 8f64.sqrt()) / 0.5)]);
    // A gradient within λ₁ leaves the weight at zero.
    let mut zero = table(&[3.0], 1);
    let mut state = SparseState::new(SparseOptimizer::Ftrl { beta: 1.0, l1: 100.0 }, &zero).unwrap();
    update(&mut zero, &mut state, &[0], &[2.0], 0.5, 0.1).unwrap();
    assert_eq!(zero.to_f32().unwrap(), [0.0]);
}

/// Every optimizer, with numbers that show in a step.
fn optimizers() -> [SparseOptimizer; 5] {
    [
        SparseOptimizer::Sgd,
        SparseOptimizer::Adagrad { initial: 0.1, epsilon: 0.01 },
        SparseOptimizer::RowWiseAdagrad { initial: 0.1, epsilon: 0.01 },
        SparseOptimizer::Adam { beta1: 0.9, beta2: 0.99, epsilon: 0.01 },
        SparseOptimizer::Ftrl { beta: 1.0, l1: 0.01 },
    ]
}

#[test]
fn a_step_follows_the_slope_of_the_loss_through_bags() {
    // L = ½ Σ (out - target)² of mean bags: its slope by central differences in f64, then each formula's first step.
    let (dim, values): (usize, Vec<f32>) = (2, vec![0.5, -0.25, 1.0, 0.75, -0.5, 0.125, 0.3, -0.6]);
    let features = [BagFeature {
        table: 0,
        rows: 0..4,
        indices: &[0, 2, 2, 3, 0],
        offsets: &[0, 3, 3, 5],
        pooling: Pooling::Mean,
    }];
    let target = [0.25, 0.5, -0.5, 0.0, 1.0, -1.0];
    let outputs = |values: &[f32]| embedding_bag_reference(&[&table(values, dim)], &features).unwrap();
    let loss = |values: &[f32]| -> f64 {
        outputs(values).iter().zip(target).map(|(out, target)| (out - target).powi(2) / 2.0).sum()
    };
    let slope: Vec<f64> = (0..values.len())
        .map(|at| {
            let moved = |by: f32| {
                let mut values = values.clone();
                values[at] += by;
                (loss(&values), f64::from(values[at]))
            };
            let ((up, right), (down, left)) = (moved(0.01), moved(-0.01));
            (up - down) / (right - left)
        })
        .collect();
    let gradient: Vec<f32> =
        outputs(&values).iter().zip(target).map(|(out, target)| (out - target) as f32).collect();
    let gradient = Buffer::from_vec(gradient, "a test").unwrap();
    let rate = 0.1;
    for optimizer in optimizers() {
        let mut table = table(&values, dim);
        let mut state = SparseState::new(optimizer, &table).unwrap();
        let bags = Bags::new(&[&table], &features).unwrap();
        let rows = embedding_bag_backward(&bags, &gradient).unwrap();
        let step = SparseStep { learning_rate: rate as f32, l2: 0.0, seed: 0 };
        sparse_update(&mut table, &mut state, &bags.segment(0).unwrap(), &rows[0], &step).unwrap();
        let expected: Vec<f64> = (0..values.len())
            .map(|at| {
                let (w, g) = (f64::from(values[at]), slope[at]);
                let mean_square = (slope[at / 2 * 2].powi(2) + slope[at / 2 * 2 + 1].powi(2)) / 2.0;
                match optimizer {
                    // Row 1 is in no bag.
                    _ if at / dim == 1 => w,
                    SparseOptimizer::Sgd => w - rate * g,
                    SparseOptimizer::Adagrad { .. } => w - rate * g / ((0.1 + g * g).sqrt() + 0.01),
                    SparseOptimizer::RowWiseAdagrad { .. } => {
                        w - rate * g / ((0.1 + mean_square).sqrt() + 0.01)
                    }
                    SparseOptimizer::Adam { .. } => w - rate * g / (g.abs() + 0.01),
                    SparseOptimizer::Ftrl { .. } => {
                        let z = g - g.abs() / rate * w;
                        -z.signum() * (z.abs() - 0.01).max(0.0) / ((1.0 + g.abs()) / rate)
                    }
                }
            })
            .collect();
        for (at, (got, expected)) in table.to_f32().unwrap().iter().zip(expected).enumerate() {
            assert!(
                (f64::from(*got) - expected).abs() < 2e-5,
                "{optimizer:?}, value {at}: {got}, {expected}"
            );
        }
    }
}

#[test]
fn what_is_not_finite_stands_still_and_is_named() {
    for optimizer in optimizers() {
        let mut table = table(&[1.0; 8], 2);
        let mut state = SparseState::new(optimizer, &table).unwrap();
        let gradients = [1.0, 1.0, f32::NAN, 1.0, 1.0, 1.0, f32::INFINITY, 1.0];
        let error = update(&mut table, &mut state, &[0, 3, 1, 2], &gradients, 0.1, 0.0).unwrap_err();
        assert_eq!(error, Error::NotFinite { op: OP, what: NOT_FINITE, row: 2 });
        assert_eq!(state.check(), Err(error));
        let values = table.to_f32().unwrap();
        assert!(values.iter().all(|value| value.is_finite()));
        assert_eq!((values[4], values[6]), (1.0, 1.0), "{optimizer:?}");
        assert!(values[0] < 1.0 && values[2] < 1.0, "{optimizer:?}");
        for state in state.tables() {
            assert!(state.to_f32().unwrap().iter().all(|value| value.is_finite()));
        }
    }
}

#[test]
fn steps_below_half_precision_are_kept_on_average() {
    // 1 - 100 x 2^-14 lies between f16 neighbours 2^-11 apart; rounded to nearest, no step would show.
    let wide = table(&[1.0; 4096], 1);
    for (row_type, rate, expected) in [(RowType::F16, 1.0 / 16384.0, 1.0), (RowType::Bf16, 1.0 / 2048.0, 1.0)]
    {
        let mut narrow = wide.to_row_type(row_type, "a test").unwrap();
        let mut state = SparseState::new(SparseOptimizer::Sgd, &narrow).unwrap();
        let indices: Vec<u32> = (0..4096).collect();
        for _ in 0..100 {
            update(&mut narrow, &mut state, &indices, &[1.0; 4096], rate, 0.0).unwrap();
        }
        let mean = narrow.to_f32().unwrap().iter().map(|&v| f64::from(v)).sum::<f64>() / 4096.0;
        let moved = (expected - mean) / (100.0 * f64::from(rate));
        assert!((moved - 1.0).abs() < 0.05, "{row_type:?}: {moved} of the way");
    }
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let mut small = table(&[1.0; 4], 2);
    let mut state = SparseState::new(SparseOptimizer::Sgd, &small).unwrap();
    let short = update(&mut small, &mut state, &[0], &[1.0], 0.1, 0.0);
    assert!(matches!(short, Err(Error::Shape { what: "gradients", expected: 2, .. })));
    for (rate, l2) in [(0.0, 0.0), (f32::NAN, 0.0), (0.1, -1.0)] {
        assert!(matches!(
            update(&mut small, &mut state, &[0], &[1.0; 2], rate, l2),
            Err(Error::Parameter { .. })
        ));
    }
    let wider = segment(&[0], 3, Device::Cpu).unwrap();
    let gradients = Buffer::from_vec(vec![1.0; 2], "a test").unwrap();
    let step = SparseStep { learning_rate: 0.1, l2: 0.0, seed: 0 };
    let refused = sparse_update(&mut small, &mut state, &wider, &gradients, &step);
    assert!(matches!(refused, Err(Error::Parameter { what: "segment", .. })));
    assert_eq!((small.to_f32().unwrap(), state.steps()), (vec![1.0; 4], 0));
    let adam = SparseOptimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    let mut other = SparseState::new(adam, &table(&[1.0; 6], 2)).unwrap();
    assert!(matches!(
        update(&mut small, &mut other, &[0], &[1.0; 2], 0.1, 0.0),
        Err(Error::Shape { what: "state", .. })
    ));
    for bad in [
        SparseOptimizer::Adam { beta1: 1.0, beta2: 0.9, epsilon: 1e-8 },
        SparseOptimizer::Adagrad { initial: 0.0, epsilon: 0.0 },
        SparseOptimizer::Ftrl { beta: -1.0, l1: 0.0 },
    ] {
        assert!(matches!(SparseState::new(bad, &small), Err(Error::Parameter { .. })), "{bad:?}");
    }
}

#[test]
fn a_state_grows_with_its_table_and_is_put_together_again() {
    let adagrad = SparseOptimizer::Adagrad { initial: 0.0, epsilon: 1.0 };
    let mut small = table(&[0.0; 3], 1);
    let mut state = SparseState::new(adagrad, &small).unwrap();
    update(&mut small, &mut state, &[0, 1, 2], &[1.0, 2.0, 3.0], 0.1, 0.0).unwrap();
    for rows in [3, 4, 5, 9] {
        state.extend(&table(&vec![0.0; rows], 1)).unwrap();
        let mut expected = vec![1.0, 4.0, 9.0];
        expected.resize(rows, 0.0);
        assert_eq!(state.tables()[0].to_f32().unwrap(), expected);
    }
    assert!(state.extend(&small).is_err(), "fewer rows");
    let grown = table(&[0.0; 9], 1);
    let copy = table(&state.tables()[0].to_f32().unwrap(), 1);
    assert_eq!(SparseState::from_tables(adagrad, 1, vec![copy], &grown).unwrap().steps(), 1);
    assert!(SparseState::from_tables(adagrad, 1, Vec::new(), &grown).is_err());
}

//! What is the device's own: the CPU's result, in parts and by planes too, and the same bits again.
#![cfg(feature = "wgpu")]

use super::{
    plan::{at_once, in_turn},
    *,
};
use crate::{
    Device, Negatives, OnPositive, SparseRows,
    buffer::wgpu::WgpuRuntime,
    conformance::Numbers,
    pairwise_update::{block_count, pairwise_epoch},
};

/// Rows of two tastes: even rows have even columns, odd rows odd ones, one in so many of them.
struct Tastes {
    indptr: Vec<u64>,
    indices: Vec<u32>,
    values: Vec<f32>,
    n_columns: usize,
}

impl Tastes {
    fn new(n_rows: usize, n_columns: usize, one_in: usize) -> Self {
        let mut numbers = Numbers::new(5);
        let (mut indptr, mut indices) = (vec![0], Vec::new());
        for row in 0..n_rows {
            let taste = (row % 2..n_columns).step_by(2);
            indices.extend(taste.filter(|_| numbers.below(one_in) == 0).map(|column| column as u32));
            indptr.push(indices.len() as u64);
        }
        Self { indptr, values: vec![1.0; indices.len()], indices, n_columns }
    }

    fn epoch(&self, loss: PairwiseLoss, optimizer: Optimizer) -> PairwiseEpoch<'_> {
        PairwiseEpoch {
            rows: SparseRows { indptr: &self.indptr, indices: &self.indices, values: &self.values },
            loss,
            optimizer,
            learning_rate: 0.1,
            regularization: 0.002,
            bias_regularization: 0.002,
            negatives: Negatives::default(),
            seed: 3,
            epoch: 0,
            mode: Mode::Deterministic,
        }
    }

    fn model(&self, dim: usize, optimizer: Optimizer, chunk_rows: u32, device: Device) -> Model {
        let mut numbers = Numbers::new(9);
        let mut table = |rows: usize| {
            let values: Vec<f32> = (0..rows * dim).map(|_| numbers.unit() * 0.1).collect();
            Table::from_f32_in_chunks(&values, dim, chunk_rows, device, "a test").unwrap()
        };
        let n_rows = self.indptr.len() - 1;
        Model {
            rows: table(n_rows),
            columns: table(self.n_columns),
            bias: vec![0.0; self.n_columns],
            state: PairwiseState::new(optimizer, n_rows, self.n_columns),
        }
    }
}

struct Model {
    rows: Table,
    columns: Table,
    bias: Vec<f32>,
    state: PairwiseState,
}

impl Model {
    fn train(&mut self, epoch: &PairwiseEpoch) -> Result<PairwiseStats> {
        pairwise_epoch(epoch, &mut self.rows, &mut self.columns, Some(&mut self.bias), &mut self.state)
    }

    fn train_within(&mut self, epoch: &PairwiseEpoch, limits: Limits) -> PairwiseStats {
        let queue = Queue::<WgpuRuntime>::new(DEVICE).unwrap();
        within(&queue, epoch, [&self.rows, &self.columns], Some(&mut self.bias), &mut self.state, limits)
            .unwrap()
    }

    fn numbers(&self) -> Vec<f32> {
        let (rows, columns) = (self.rows.to_f32().unwrap(), self.columns.to_f32().unwrap());
        let PairwiseState { rows: sums, columns: column_sums, biases } = &self.state;
        [&rows[..], &columns, &self.bias, sums, column_sums, biases].concat()
    }
}

const DEVICE: Device = Device::Wgpu(0);
const WARP: PairwiseLoss = PairwiseLoss::Warp { max_draws: 10 };

fn missing() -> bool {
    match DEVICE.check() {
        Ok(()) => false,
        Err(error) if std::env::var_os("RECMILL_REQUIRE_WGPU").is_some() => panic!("{error}"),
        Err(_) => true,
    }
}

fn limits() -> Limits {
    Limits::of(&Queue::<WgpuRuntime>::new(DEVICE).unwrap(), DEVICE).unwrap()
}

#[test]
fn the_loss_of_the_processor_to_three_decimals_whatever_the_mode() {
    if missing() {
        return;
    }
    let data = Tastes::new(130, 520, 4); // 4 blocks
    for loss in [PairwiseLoss::Bpr, WARP, PairwiseLoss::Logistic] {
        for optimizer in [Optimizer::Sgd, Optimizer::Adagrad] {
            let run = |device, mode| {
                let mut model = data.model(16, optimizer, 1 << 10, device);
                let epoch = |epoch| model_epoch(PairwiseEpoch { epoch, mode, ..data.epoch(loss, optimizer) });
                (0..2).map(|number| model.train(&epoch(number)).unwrap()).last().unwrap()
            };
            let on_cpu = run(Device::Cpu, Mode::Deterministic);
            let on_gpu = run(DEVICE, Mode::Deterministic);
            assert!((on_cpu.loss - on_gpu.loss).abs() < 5e-4, "{loss:?} {optimizer:?} {on_cpu:?} {on_gpu:?}");
            // Races and other draws change little of what is learnt.
            let racing = run(DEVICE, Mode::Hogwild);
            let apart = (racing.loss - on_cpu.loss).abs();
            assert!(apart < 0.15 * on_cpu.loss, "{loss:?} {optimizer:?} {racing:?} {on_cpu:?}");
        }
    }
}

fn model_epoch(epoch: PairwiseEpoch<'_>) -> PairwiseEpoch<'_> {
    let negatives = Negatives { popularity_exponent: 0.5, ..epoch.negatives };
    PairwiseEpoch { negatives, ..epoch }
}

#[test]
fn the_same_bits_again_and_however_little_fits() {
    if missing() {
        return;
    }
    let data = Tastes::new(130, 520, 4); // 4 blocks
    assert_eq!(block_count(130, 520, data.indices.len()), 4);
    let few = Limits { scratch: 17 * 300, draws: 700, ..limits() };
    // No more than a cell of a round at once.
    let fewer = Limits { scratch: 17 * 140, entries: 1_500, ..limits() };
    for (loss, on_positive) in [
        (PairwiseLoss::Bpr, OnPositive::Redraw),
        (WARP, OnPositive::Skip),
        (PairwiseLoss::Logistic, OnPositive::Redraw),
    ] {
        let epoch = data.epoch(loss, Optimizer::Adagrad);
        let negatives = Negatives { on_positive, per_positive: 2, popularity_exponent: 0.5 };
        let epoch = PairwiseEpoch { negatives, ..epoch };
        let run = |chunk_rows, limits: Limits| {
            let mut model = data.model(17, Optimizer::Adagrad, chunk_rows, DEVICE);
            let stats = model.train_within(&epoch, limits);
            (stats.samples, stats.skipped, model.numbers())
        };
        let whole = run(1 << 10, limits());
        assert!(whole.0 > 0);
        for (chunk_rows, limits) in [(1 << 10, limits()), (1 << 10, few), (64, few), (64, fewer)] {
            let same = run(chunk_rows, limits) == whole;
            assert!(same, "{loss:?}, chunks of {chunk_rows}, {limits:?}");
        }
    }
}

#[test]
fn many_entries_in_one_cell_are_all_visited() {
    if missing() {
        return;
    }
    // One block: fewer than 256 columns.
    let data = Tastes::new(500, 250, 1);
    let n = data.indices.len() as u64;
    assert!(n > 60_000, "{n}");
    let epoch = data.epoch(PairwiseLoss::Bpr, Optimizer::Sgd);
    let [cpu, gpu] = [Device::Cpu, DEVICE]
        .map(|device| data.model(4, Optimizer::Sgd, 1 << 10, device).train(&epoch).unwrap());
    assert_eq!((gpu.samples, gpu.skipped), (cpu.samples, cpu.skipped));
    assert_eq!(gpu.samples + gpu.skipped, n);
    assert!((cpu.loss - gpu.loss).abs() < 5e-4, "{cpu:?} {gpu:?}");
}

#[test]
fn planes_sum_what_shared_memory_sums() {
    if missing() {
        return;
    }
    let queue = Queue::<WgpuRuntime>::new(DEVICE).unwrap();
    let hardware = &queue.client.properties().hardware;
    if hardware.plane_size_min != hardware.plane_size_max {
        return;
    }
    let plane = Some(hardware.plane_size_max as usize);
    let data = Tastes::new(60, 70, 2);
    for loss in [PairwiseLoss::Bpr, WARP, PairwiseLoss::Logistic] {
        let epoch = data.epoch(loss, Optimizer::Adagrad);
        let run = |plane| {
            let mut model = data.model(17, Optimizer::Adagrad, 1 << 10, DEVICE);
            model.train_within(&epoch, Limits { plane, ..limits() })
        };
        let (one, other) = (run(plane), run(None));
        assert_eq!(one.samples, other.samples);
        assert!((one.loss - other.loss).abs() < 1e-4, "{one:?} {other:?}");
    }
}

#[test]
fn an_epoch_that_is_cut_leaves_out_nothing() {
    let launch = |draws| Limits { scratch: 0, entries: 1000, draws, plane: None, units: 32 };
    let data = Tastes::new(2, 4, 2);
    let epoch = PairwiseEpoch {
        negatives: Negatives { per_positive: 2, ..Negatives::default() },
        ..data.epoch(PairwiseLoss::Bpr, Optimizer::Sgd)
    };
    for (draws, expected) in [(1000, 1), (40, 2), (24, 3), (1, 10)] {
        let launches = in_turn(vec![10, 3, 7], &epoch, launch(draws));
        assert_eq!(launches.len(), expected, "{draws}");
        for (cell, len) in [(0, 10), (1, 3), (2, 7)] {
            let mut next = 0;
            for piece in launches.iter().flatten().filter(|piece| piece.cell == cell) {
                assert_eq!(piece.entries.start, next);
                next = piece.entries.end;
            }
            assert_eq!(next, len);
        }
    }
    let launches = at_once(vec![100, 0, 33], 50, &epoch, launch(130));
    assert_eq!(launches.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2]);
    assert_eq!(launches.iter().flatten().map(|piece| piece.entries.len()).sum::<usize>(), 133);
}

#[test]
fn a_row_that_is_not_finite_is_reported_whatever_the_mode() {
    if missing() {
        return;
    }
    let data = Tastes::new(60, 70, 2);
    for mode in [Mode::Deterministic, Mode::Hogwild] {
        for loss in [PairwiseLoss::Bpr, WARP, PairwiseLoss::Logistic] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut model = data.model(8, Optimizer::Sgd, 32, DEVICE);
                let mut values = model.rows.to_f32().unwrap();
                values[7 * 8 + 3] = bad;
                model.rows = Table::from_f32_in_chunks(&values, 8, 32, DEVICE, "a test").unwrap();
                let error = model.train(&PairwiseEpoch { mode, ..data.epoch(loss, Optimizer::Sgd) });
                let row = error.map_err(|error| match error {
                    Error::NotFinite { row, .. } => row,
                    error => panic!("{error}"),
                });
                // Racing spreads what is not finite to other rows at once.
                assert!(
                    row == Err(7) || mode == Mode::Hogwild && row.is_err(),
                    "{loss:?} {mode:?} {bad} {row:?}"
                );
            }
        }
    }
}

#[test]
fn tables_on_two_devices_are_refused() {
    if missing() {
        return;
    }
    let data = Tastes::new(20, 30, 2);
    for device in [Device::Cpu, DEVICE] {
        let mut model = data.model(4, Optimizer::Sgd, 32, DEVICE);
        model.rows = data.model(4, Optimizer::Sgd, 32, device).rows;
        model.columns = data.model(4, Optimizer::Sgd, 32, Device::Cpu).columns;
        let result = model.train(&data.epoch(PairwiseLoss::Bpr, Optimizer::Sgd));
        match device {
            Device::Cpu => assert!(result.is_ok()),
            _ => assert_eq!(result, Err(Error::MixedDevices { op: OP })),
        }
        model.columns = data.model(4, Optimizer::Sgd, 32, DEVICE).columns;
        let result = model.train(&data.epoch(PairwiseLoss::Bpr, Optimizer::Sgd));
        match device {
            Device::Cpu => assert_eq!(result, Err(Error::MixedDevices { op: OP })),
            _ => assert!(result.is_ok()),
        }
    }
}

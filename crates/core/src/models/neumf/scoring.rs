//! How a NeuMF model scores and folds in: the network by our kernels, without a graph, over blocks of items.
//!
//! ```text
//! once            c_i = W_item q'_i + b_1           user's half      a_u = W_user p'_u
//! each pair       x_1 = max(0, a_u + c_i)           x_l = max(0, W_l x_(l-1) + b_l)        s = (h_1 * p_u) · q_i + h_2 · x_last + b
//! back            ∂x_(l-1) = W_lᵗ (∂x_l where x_l > 0)
//!                 ∂p_u = h_1 * Σ_i g_i q_i          ∂p'_u = W_userᵗ Σ_i ∂x_1              g_i = ∂loss / ∂s_ui
//! ```

use recmill_kernels::{Activation, Linear, LinearScratch, Products, Table, linear};

use super::{Cpu, NeuMfConfig, NeuMfNetwork};
use crate::{Error, ItemIndex, Result, dense::copy_values, models::factors::dot};

/// Pairs that are scored at once: as many as the kernels give one task.
const BLOCK: usize = 96;
/// Items that stand for all the others when a history is folded in.
const FOLD_IN_NEGATIVES: usize = 256;
/// Added to the regularization there, where few items would make a row longer without an end.
const FOLD_IN_REGULARIZATION: f32 = 0.01;
/// Steps of Adam there, and their size.
const STEPS: i32 = 60;
const STEP_SIZE: f32 = 0.05;

/// A layer as the kernels take it.
#[derive(Debug)]
struct Layer {
    inputs: usize,
    outputs: usize,
    weight: Vec<f32>,
    /// `[outputs, inputs]`, for the way back.
    transposed: Vec<f32>,
    bias: Vec<f32>,
}

impl Layer {
    fn forward(&self) -> Linear<'_> {
        Linear {
            inputs: self.inputs,
            outputs: self.outputs,
            weight: &self.weight,
            bias: Some(&self.bias),
            activation: Activation::Relu,
            products: Products::F32,
        }
    }

    fn back(&self) -> Linear<'_> {
        Linear {
            inputs: self.outputs,
            outputs: self.inputs,
            weight: &self.transposed,
            bias: None,
            activation: Activation::Identity,
            products: Products::F32,
        }
    }
}

/// The network's values.
#[derive(Debug)]
pub(super) struct Layers {
    factors: usize,
    mlp_factors: usize,
    /// Over `[p'_u ; q'_i]`.
    first: Layer,
    later: Vec<Layer>,
    of_product: Vec<f32>,
    of_hidden: Vec<f32>,
    bias: f32,
}

impl Layers {
    /// Copies them.
    pub(super) fn of(config: &NeuMfConfig, network: &NeuMfNetwork<Cpu>) -> Result<Self> {
        let values = |values: Vec<f32>, expected: usize| match values.len() {
            got if got == expected => Ok(values),
            got => Err(Error::WrongSize { what: "a network's layer", side: "values", expected, got }),
        };
        let mut all = copy_values(network).into_iter().map(|(_, values)| values);
        let mut next = move || all.next().unwrap_or_default();
        let mut inputs = 2 * config.mlp_factors;
        let mut layers = Vec::new();
        for &outputs in &config.hidden {
            let (weight, bias) = (values(next(), inputs * outputs)?, values(next(), outputs)?);
            let column = |output: usize| weight.iter().copied().skip(output).step_by(outputs);
            let transposed = (0..outputs).flat_map(column).collect();
            layers.push(Layer { inputs, outputs, weight, transposed, bias });
            inputs = outputs;
        }
        let mut of_product = values(next(), config.factors + inputs)?;
        let of_hidden = of_product.split_off(config.factors);
        let bias = values(next(), 1)?[0];
        let (factors, mlp_factors) = (config.factors, config.mlp_factors);
        let first = layers.remove(0);
        Ok(Self { factors, mlp_factors, first, later: layers, of_product, of_hidden, bias })
    }

    /// Scores the candidates, or all items, for a user of this row; the scores of other items stay as they are.
    pub(super) fn score(
        &self,
        catalogue: &Catalogue,
        row: &[f32],
        candidates: Option<&[ItemIndex]>,
        scratch: &mut NeuMfScratch,
        scores: &mut [f32],
    ) -> Result<()> {
        self.put_user(row, scratch);
        match candidates {
            Some(items) => self.score_each(catalogue, items.iter().map(|item| item.0), scratch, scores),
            None => self.score_each(catalogue, 0..scores.len() as u32, scratch, scores),
        }
    }

    fn score_each(
        &self,
        catalogue: &Catalogue,
        mut items: impl Iterator<Item = u32>,
        scratch: &mut NeuMfScratch,
        scores: &mut [f32],
    ) -> Result<()> {
        loop {
            scratch.items.clear();
            scratch.items.extend(items.by_ref().take(BLOCK));
            if scratch.items.is_empty() {
                return Ok(());
            }
            self.forward(catalogue, scratch)?;
            for (&item, &score) in scratch.items.iter().zip(&scratch.scores) {
                scores[item as usize] = score;
            }
        }
    }

    /// Computes what of a user's row all pairs share.
    fn put_user(&self, row: &[f32], scratch: &mut NeuMfScratch) {
        let (multiplied, read) = row.split_at(self.factors);
        scratch.weighted.clear();
        scratch.weighted.extend(multiplied.iter().zip(&self.of_product).map(|(p, h)| p * h));
        scratch.first.clear();
        scratch.first.resize(self.first.outputs, 0.0);
        for (&p, weights) in read.iter().zip(self.first.weight.chunks_exact(self.first.outputs)) {
            for (sum, weight) in scratch.first.iter_mut().zip(weights) {
                *sum += p * weight;
            }
        }
    }

    /// Scores the scratch's items for its user.
    fn forward(&self, catalogue: &Catalogue, scratch: &mut NeuMfScratch) -> Result<()> {
        let NeuMfScratch { items, weighted, first, hidden, scores, kernel, .. } = scratch;
        let width = self.first.outputs;
        hidden.resize_with(1 + self.later.len(), Vec::new);
        hidden[0].resize(items.len() * width, 0.0);
        scores.clear();
        for (&item, x) in items.iter().zip(hidden[0].chunks_exact_mut(width)) {
            let (multiplied, of_item) = catalogue.row(item).split_at(self.factors);
            scores.push(self.bias + dot(weighted, multiplied));
            for ((x, a), c) in x.iter_mut().zip(&*first).zip(of_item) {
                let sum = a + c;
                // A sum that is no number stays none, and is found when items are selected.
                *x = if sum < 0.0 { 0.0 } else { sum };
            }
        }
        for (at, layer) in self.later.iter().enumerate() {
            let (before, after) = hidden.split_at_mut(at + 1);
            after[0].resize(items.len() * layer.outputs, 0.0);
            linear(&layer.forward(), &before[at], &mut after[0], kernel)?;
        }
        let last = &hidden[self.later.len()];
        for (score, x) in scores.iter_mut().zip(last.chunks_exact(self.of_hidden.len())) {
            *score += dot(x, &self.of_hidden);
        }
        Ok(())
    }

    /// Fits a row to what [`NeuMfScratch::pose`] has put into the scratch.
    pub(super) fn fold_in(
        &self,
        catalogue: &Catalogue,
        scratch: &mut NeuMfScratch,
        row: &mut Vec<f32>,
    ) -> Result<()> {
        let length = self.factors + self.mlp_factors;
        for values in [&mut *row, &mut scratch.means, &mut scratch.squares] {
            values.clear();
            values.resize(length, 0.0);
        }
        if scratch.items.is_empty() {
            return Ok(());
        }
        for step in 1..=STEPS {
            self.gradient(catalogue, row, scratch)?;
            let (first, second) = (1.0 - 0.9f32.powi(step), 1.0 - 0.999f32.powi(step));
            let moments = scratch.means.iter_mut().zip(&mut scratch.squares);
            for ((x, g), (mean, square)) in row.iter_mut().zip(&scratch.gradient).zip(moments) {
                *mean += 0.1 * (g - *mean);
                *square += 0.001 * (g * g - *square);
                *x -= STEP_SIZE * (*mean / first) / ((*square / second).sqrt() + 1e-8);
            }
        }
        if row.iter().all(|x| x.is_finite()) {
            return Ok(());
        }
        Err(recmill_kernels::Error::NotFinite { op: "fold_in", what: "solution", row: 0 }.into())
    }

    /// Writes the gradient of the problem at `row` to the scratch.
    fn gradient(&self, catalogue: &Catalogue, row: &[f32], scratch: &mut NeuMfScratch) -> Result<()> {
        self.put_user(row, scratch);
        self.forward(catalogue, scratch)?;
        let NeuMfScratch { items, targets, hidden, scores, slopes, other, first, gradient, kernel, .. } =
            scratch;
        gradient.clear();
        gradient.extend(row.iter().map(|x| scratch.ridge * x));
        let (of_multiplied, of_read) = gradient.split_at_mut(self.factors);
        slopes.clear();
        let last = hidden[self.later.len()].chunks_exact(self.of_hidden.len());
        for (((&item, target), score), x) in items.iter().zip(&*targets).zip(&*scores).zip(last) {
            let g = target.weight * (1.0 / (1.0 + (-score).exp()) - target.wanted);
            let multiplied = &catalogue.row(item)[..self.factors];
            for ((sum, q), h) in of_multiplied.iter_mut().zip(multiplied).zip(&self.of_product) {
                *sum += g * h * q;
            }
            slopes.extend(x.iter().zip(&self.of_hidden).map(|(&x, h)| if x > 0.0 { g * h } else { 0.0 }));
        }
        for (at, layer) in self.later.iter().enumerate().rev() {
            other.clear();
            other.resize(items.len() * layer.inputs, 0.0);
            linear(&layer.back(), slopes, other, kernel)?;
            for (slope, &x) in other.iter_mut().zip(&hidden[at]) {
                *slope = if x > 0.0 { *slope } else { 0.0 };
            }
            std::mem::swap(slopes, other);
        }
        // The user's half is no longer needed: its place takes the sum of its gradients.
        first.fill(0.0);
        for slopes in slopes.chunks_exact(self.first.outputs) {
            first.iter_mut().zip(slopes).for_each(|(sum, slope)| *sum += slope);
        }
        for (sum, weights) in of_read.iter_mut().zip(self.first.weight.chunks_exact(self.first.outputs)) {
            *sum += dot(weights, first);
        }
        Ok(())
    }
}

/// What lists read of the items.
#[derive(Debug)]
pub(super) struct Catalogue {
    /// `[n_items, factors + hidden[0]]`: `q_i`, and the item's half of the first layer.
    rows: Vec<f32>,
    width: usize,
}

impl Catalogue {
    pub(super) fn new(layers: &Layers, items: &Table) -> Result<Self> {
        let Layers { factors, mlp_factors, first, .. } = layers;
        let width = factors + first.outputs;
        let of_item = Linear {
            inputs: *mlp_factors,
            // The rows of the weight behind those of the user's half.
            weight: &first.weight[mlp_factors * first.outputs..],
            activation: Activation::Identity,
            ..first.forward()
        };
        let mut rows = vec![0.0; items.rows() as usize * width];
        let mut row = vec![0.0; items.dim()];
        let (mut read, mut half) = (Vec::new(), Vec::new());
        let mut kernel = LinearScratch::default();
        for (block, rows) in rows.chunks_mut(BLOCK * width).enumerate() {
            read.clear();
            for (at, out) in rows.chunks_exact_mut(width).enumerate() {
                items.read_row((block * BLOCK + at) as u64, &mut row)?;
                out[..*factors].copy_from_slice(&row[..*factors]);
                read.extend_from_slice(&row[*factors..]);
            }
            half.resize(rows.len() / width * first.outputs, 0.0);
            linear(&of_item, &read, &mut half, &mut kernel)?;
            for (out, half) in rows.chunks_exact_mut(width).zip(half.chunks_exact(first.outputs)) {
                out[*factors..].copy_from_slice(half);
            }
        }
        Ok(Self { rows, width })
    }

    fn n_items(&self) -> usize {
        self.rows.len() / self.width
    }

    fn row(&self, item: u32) -> &[f32] {
        &self.rows[item as usize * self.width..][..self.width]
    }
}

/// What a folded-in row is to say of an item, and how much that counts.
#[derive(Clone, Copy, Debug)]
struct Target {
    wanted: f32,
    weight: f32,
}

/// Memory for one list, used again from list to list.
#[derive(Debug, Default)]
pub(crate) struct NeuMfScratch {
    kernel: LinearScratch,
    /// The items at hand.
    items: Vec<u32>,
    /// What is wanted of them, in folding in.
    targets: Vec<Target>,
    ridge: f32,
    /// The user's products with the weights of the last layer, and the user's half of the first.
    weighted: Vec<f32>,
    first: Vec<f32>,
    /// `[items, width]` of each hidden layer.
    hidden: Vec<Vec<f32>>,
    scores: Vec<f32>,
    slopes: Vec<f32>,
    other: Vec<f32>,
    gradient: Vec<f32>,
    means: Vec<f32>,
    squares: Vec<f32>,
}

impl NeuMfScratch {
    /// Poses the problem of folding `history` in, whose items ascend: those of positive value against some of the catalogue, as in training;
    /// no items where none is of positive value.
    pub(super) fn pose(&mut self, catalogue: &Catalogue, history: &[(ItemIndex, f32)], config: &NeuMfConfig) {
        let NeuMfConfig { n_negatives, regularization, verify_negatives, .. } = *config;
        self.items.clear();
        self.items.extend(history.iter().filter(|&&(_, value)| value > 0.0).map(|&(item, _)| item.0));
        let liked = self.items.len();
        if liked > 0 {
            let n_items = catalogue.n_items();
            let n = FOLD_IN_NEGATIVES.min(n_items);
            let spread = (0..n).map(|at| (at * n_items / n) as u32);
            let had = |item: &u32| {
                verify_negatives && history.binary_search_by_key(item, |&(item, _)| item.0).is_ok()
            };
            self.items.extend(spread.filter(|item| !had(item)));
        }
        let free = (self.items.len() - liked) as f32;
        let positive = Target { wanted: 1.0, weight: 1.0 / liked.max(1) as f32 };
        let negative = Target { wanted: 0.0, weight: n_negatives as f32 / free.max(1.0) };
        self.targets.clear();
        self.targets.resize(liked, positive);
        self.targets.resize(self.items.len(), negative);
        self.ridge = (1.0 + n_negatives as f32) * (regularization as f32 + FOLD_IN_REGULARIZATION);
    }
}

#[cfg(test)]
mod tests {
    use recmill_kernels::{
        Device,
        philox::{Draws, unit},
    };

    use super::*;
    use crate::dense::Initial;

    const N_ITEMS: usize = 30;

    fn numbers(key: u64, n: usize) -> Vec<f32> {
        let draws = Draws::new(key, 0);
        (0..n).map(|at| 2.0 * unit(draws.word(at as u64)) - 1.0).collect()
    }

    /// The model by its formula, in f64: the network's values, and the items' rows.
    struct Reference {
        config: NeuMfConfig,
        values: Vec<Vec<f32>>,
        items: Vec<f32>,
    }

    impl Reference {
        fn score(&self, user: &[f64], item: usize) -> f64 {
            let NeuMfConfig { factors, hidden, .. } = &self.config;
            let length = self.config.row_length();
            let item: Vec<f64> =
                self.items[item * length..][..length].iter().map(|&x| f64::from(x)).collect();
            let mut x = [&user[*factors..], &item[*factors..]].concat();
            for (layer, &width) in self.values.chunks(2).zip(hidden) {
                let sum = |j: usize| {
                    let products = x.iter().enumerate().map(|(i, x)| x * f64::from(layer[0][i * width + j]));
                    (products.sum::<f64>() + f64::from(layer[1][j])).max(0.0)
                };
                x = (0..width).map(sum).collect();
            }
            let product = user[..*factors].iter().zip(&item).map(|(p, q)| p * q);
            let [.., weights, bias] = &self.values[..] else { panic!("a network without layers") };
            let products = product.chain(x).zip(weights).map(|(x, &h)| x * f64::from(h));
            products.sum::<f64>() + f64::from(bias[0])
        }
    }

    fn models() -> Vec<(Reference, Layers, Catalogue)> {
        let shapes = [(3, 4, vec![7, 5, 2]), (0, 3, vec![6]), (17, 5, vec![40, 33])];
        let of = |(factors, mlp_factors, hidden)| {
            let config = NeuMfConfig { factors, mlp_factors, hidden, ..NeuMfConfig::default() };
            let network = NeuMfNetwork::<Cpu>::new(&config, &mut Initial::new(5, &Default::default()));
            let items = numbers(2, N_ITEMS * config.row_length());
            let table = Table::from_f32(&items, config.row_length(), Device::Cpu, "a test").unwrap();
            let layers = Layers::of(&config, &network).unwrap();
            let catalogue = Catalogue::new(&layers, &table).unwrap();
            let values = copy_values(&network).into_iter().map(|(_, values)| values).collect();
            (Reference { config, values, items }, layers, catalogue)
        };
        shapes.into_iter().map(of).collect()
    }

    fn as_f64(row: &[f32]) -> Vec<f64> {
        row.iter().map(|&x| f64::from(x)).collect()
    }

    #[test]
    fn scores_are_those_of_the_formula() {
        for (reference, layers, catalogue) in models() {
            let row = numbers(3, reference.config.row_length());
            let mut scores = vec![0.0; N_ITEMS];
            layers.score(&catalogue, &row, None, &mut NeuMfScratch::default(), &mut scores).unwrap();
            for (item, score) in scores.iter().enumerate() {
                let expected = reference.score(&as_f64(&row), item);
                assert!((f64::from(*score) - expected).abs() < 1e-5, "{item}: {score} is not {expected}");
            }
        }
    }

    #[test]
    fn folding_in_goes_down_the_gradient_of_the_loss_that_is_stated() {
        let history =
            [(1, 1.0), (4, 2.0), (7, -1.0), (21, 1.0)].map(|(item, value)| (ItemIndex(item), value));
        for (verify_negatives, (reference, layers, catalogue)) in
            [true, false].into_iter().flat_map(|verify| models().into_iter().map(move |of| (verify, of)))
        {
            let mut scratch = NeuMfScratch::default();
            let config = NeuMfConfig {
                n_negatives: 4,
                regularization: 0.02,
                verify_negatives,
                ..reference.config.clone()
            };
            scratch.pose(&catalogue, &history, &config);
            let loss = |row: &[f64]| {
                let softplus = |x: f64| x.exp().ln_1p();
                let positive = [1, 4, 21].map(|item| softplus(-reference.score(row, item)) / 3.0);
                // As many as four for each that is liked, on average over all that count.
                let counts = |item: &usize| !verify_negatives || ![1, 4, 7, 21].contains(item);
                let n = (0..N_ITEMS).filter(counts).count() as f64;
                let negatives = (0..N_ITEMS).filter(counts);
                let negative = negatives.map(|item| softplus(reference.score(row, item)) * 4.0 / n);
                let norm: f64 = row.iter().map(|x| x * x).sum();
                positive.iter().sum::<f64>() + negative.sum::<f64>() + 5.0 * 0.03 / 2.0 * norm
            };
            let row = numbers(4, reference.config.row_length());
            layers.gradient(&catalogue, &row, &mut scratch).unwrap();
            for (at, found) in scratch.gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let mut row = as_f64(&row);
                    row[at] += by;
                    loss(&row)
                };
                let expected = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                assert!((f64::from(*found) - expected).abs() < 1e-4, "{at}: {found} is not {expected}");
            }
            let mut fitted = Vec::new();
            layers.fold_in(&catalogue, &mut scratch, &mut fitted).unwrap();
            layers.gradient(&catalogue, &fitted, &mut scratch).unwrap();
            let steepest = scratch.gradient.iter().fold(0f32, |most, g| most.max(g.abs()));
            assert!(steepest < 0.1, "the slope is {steepest} where it ends");
            assert!(loss(&as_f64(&fitted)) < loss(&vec![0.0; fitted.len()]));
        }
    }

    #[test]
    fn a_network_of_other_widths_is_refused() {
        let config = NeuMfConfig { hidden: vec![4, 3], ..NeuMfConfig::default() };
        let network = NeuMfNetwork::<Cpu>::new(&config, &mut Initial::new(0, &Default::default()));
        let other = NeuMfConfig { hidden: vec![4, 2], ..config };
        assert!(matches!(Layers::of(&other, &network), Err(Error::WrongSize { expected: 8, got: 12, .. })));
    }
}

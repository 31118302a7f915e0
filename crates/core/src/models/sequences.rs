//! What models of sequences have in common: a network over the vectors of what somebody had, in order, whose state is compared with every item's.
//!
//! ```text
//! y_(item 1), y_(item 2), .. y_(item t)   --network-->   h_t        score of item i after t = h_t · y_i
//! ```
//!
//! A model learns to tell, at each position, the item that came next from others:
//!
//! ```text
//! softmax           ln Σ_c exp(h · y_c) - h · y_next                      c: all items
//! sampled-softmax   the same, c: the items that are right somewhere in the batch, and `n_negatives` drawn ones; h · y_c - ln q_c
//! bce               ln(1 + exp(-h · y_next)) + Σ_c ln(1 + exp(h · y_c)) / |c|        c: `n_negatives` drawn ones
//! gbce              as bce, the first term times β                        β = α (t (1 - 1/α) + 1/α),  α = |c| / n_items
//! ```
//!
//! `ln q_c` corrects for how likely an item is to be among the candidates; what the user has had is no negative for them, with no loss,
//! unless that is asked for.
//!
//! There is nothing of a user in a model: everybody is answered from their history, also who came after training, and the newest event
//! counts at once. Histories have no padding: a batch costs the positions that it has. An item is in a history once, as everywhere in a
//! dataset: where somebody had it several times, it stands where they had it last, or first with [`crate::data::Repeats::First`].
//!
//! A new model is a configuration with a [`SequenceConfig`] and a network with a [`SequenceNetwork`]; all else is here, and in how they learn.
//!
//! Source: Petrov, Macdonald 2023 (gSASRec) for gbce; each model's file for its network.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use burn::{module::Module, tensor::Tensor};
use recmill_kernels::{Buffer, CandidateLoss, Device, Table};
use serde::{Deserialize, Serialize};

use super::{Negatives, Precision, Problems, Retriever, Session, Sessions, factors::FactorItems, not_theirs};
use crate::{
    Batch, Error, ItemIndex, Parameter, Parameters, Query, Result, Workspace,
    dense::{Cpu, DenseBackend, InTraining, Initial, buffer_of, load_parameters, matrix_of, put_parameters},
};

/// What each position learns to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum SequenceLoss {
    /// The next item from all others.
    Softmax,
    /// The next item from those of the batch and some that are drawn.
    SampledSoftmax,
    /// The next item, and some that are drawn, each by itself.
    Bce,
    /// As bce, corrected for how few are drawn.
    Gbce,
}

impl SequenceLoss {
    fn name(self) -> &'static str {
        match self {
            Self::Softmax => "softmax",
            Self::SampledSoftmax => "sampled-softmax",
            Self::Bce => "bce",
            Self::Gbce => "gbce",
        }
    }
}

/// Histories behind each other, without padding.
#[derive(Clone, Debug)]
pub struct SequenceRows {
    /// Where each history's rows end.
    pub ends: Arc<[u32]>,
    /// The place of each row in its history, from 0; below [`SequenceConfig::reads_at_most`], where there is one.
    pub places: Vec<u32>,
}

impl Default for SequenceRows {
    fn default() -> Self {
        Self { ends: Arc::new([]), places: Vec::new() }
    }
}

/// A network over the vectors of what somebody had, in order.
pub trait SequenceNetwork<B: DenseBackend>: Module<B> + Sync + 'static {
    /// Returns the state after each event.
    ///
    /// # Shapes
    /// - `items`: `[rows, factors]`, the vectors of the histories' items; at least one row
    /// - returns: as many
    fn forward(
        &self,
        items: Tensor<B, 2>,
        rows: &SequenceRows,
        training: Option<&InTraining<B>>,
    ) -> Tensor<B, 2>;

    /// Returns the state after one more event of one history: the same bits as [`SequenceNetwork::forward`] for all of it, on the CPU.
    ///
    /// `place` is the event's in its history, from 0; `memory` is empty before the first, and what is in it afterwards is the network's own
    /// affair.
    ///
    /// # Shapes
    /// - `item`: `[1, factors]`; returns as many
    fn advance(&self, item: Tensor<B, 2>, place: usize, memory: &mut Vec<Tensor<B, 2>>) -> Tensor<B, 2>;
}

/// What the configurations of these models have in common; the fields have the names and meanings that they have there.
#[expect(missing_docs, reason = "each field is documented where a user sets it, in the configurations")]
#[derive(Clone, Copy, Debug)]
pub struct SequenceSettings {
    pub factors: usize,
    pub layers: usize,
    pub max_length: usize,
    pub loss: SequenceLoss,
    pub n_negatives: usize,
    pub negatives: Negatives,
    pub negatives_exponent: f64,
    pub verify_negatives: bool,
    pub gbce_calibration: f64,
    pub dropout: f64,
    pub learning_rate: f64,
    pub batch_size: usize,
    pub iterations: usize,
    pub init_scale: f64,
    pub precision: Precision,
}

/// [`SequenceSettings`] of a configuration, whose fields have the same names.
macro_rules! sequence_settings {
    ($config:expr) => {
        $crate::models::SequenceSettings {
            factors: $config.factors,
            layers: $config.layers,
            max_length: $config.max_length,
            loss: $config.loss,
            n_negatives: $config.n_negatives,
            negatives: $config.negatives,
            negatives_exponent: $config.negatives_exponent,
            verify_negatives: $config.verify_negatives,
            gbce_calibration: $config.gbce_calibration,
            dropout: $config.dropout,
            learning_rate: $config.learning_rate,
            batch_size: $config.batch_size,
            iterations: $config.iterations,
            init_scale: $config.init_scale,
            precision: $config.precision,
        }
    };
}
pub(super) use sequence_settings;

impl SequenceSettings {
    /// Adds what is wrong with the values.
    pub(super) fn check(&self, problems: &mut Problems) {
        problems.dimension("factors", self.factors);
        if self.layers > 64 {
            problems.add("layers", "at most 64", self.layers);
        }
        problems.dimension("max_length", self.max_length);
        problems.dimension("n_negatives", self.n_negatives);
        problems.negatives_exponent(self.negatives_exponent);
        if !(0.0..=1.0).contains(&self.gbce_calibration) {
            problems.add("gbce_calibration", "from 0 to 1", self.gbce_calibration);
        }
        problems.share("dropout", self.dropout);
        problems.adam_step("learning_rate", self.learning_rate);
        problems.at_least_one("batch_size", self.batch_size);
        problems.at_least_one("iterations", self.iterations);
        problems.init_scale(self.init_scale);
    }

    /// Returns what the kernels compute for a catalogue of `n_items`, of which `drawn` are negatives.
    pub fn candidate_loss(&self, drawn: usize, n_items: usize) -> CandidateLoss {
        let negative = 1.0 / drawn.max(1) as f32;
        match self.loss {
            SequenceLoss::Softmax | SequenceLoss::SampledSoftmax => CandidateLoss::Softmax,
            SequenceLoss::Bce => CandidateLoss::Logistic { positive: 1.0, negative },
            SequenceLoss::Gbce => {
                let alpha = (drawn as f64 / (n_items.max(2) - 1) as f64).min(1.0);
                let beta = alpha * (self.gbce_calibration * (1.0 - 1.0 / alpha) + 1.0 / alpha);
                CandidateLoss::Logistic { positive: beta as f32, negative }
            }
        }
    }

    /// Returns the objective in full, as config.json and `inspect` print it; `network` says what is between item and state.
    pub(super) fn objective(&self, network: &str) -> String {
        let loss = match self.loss {
            SequenceLoss::Softmax => "ln sum over all items c of exp(h . y_c) - h . y_next".to_owned(),
            SequenceLoss::SampledSoftmax => format!(
                "ln sum over the batch's items and {} drawn ones c of exp(h . y_c - ln q_c) - h . y_next + ln q_next",
                self.n_negatives
            ),
            loss => format!(
                "{}ln(1 + exp(-h . y_next)) + mean over {} drawn items c of ln(1 + exp(h . y_c))",
                if loss == SequenceLoss::Gbce { "beta * " } else { "" },
                self.n_negatives
            ),
        };
        format!(
            "minimise the mean over positions of {loss}{}; loss = {}, {network}, max_length = {}, dropout = {}",
            not_theirs(self.verify_negatives),
            self.loss.name(),
            self.max_length,
            self.dropout
        )
    }
}

/// The configuration of a [`SequenceModel`].
pub trait SequenceConfig: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// The network, over any backend.
    type Network<B: DenseBackend>: SequenceNetwork<B>;

    /// Returns what it has in common with the others.
    fn settings(&self) -> SequenceSettings;

    /// Lists everything that is wrong with the values.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`].
    fn check(&self) -> Result<()>;

    /// Makes the network with its first values.
    fn network<B: DenseBackend>(&self, initial: &mut Initial<'_, B>) -> Self::Network<B>;

    /// Returns how many of a history's newest events a state depends on; `None` where it depends on all.
    fn reads_at_most(&self) -> Option<usize>;

    /// Returns the number of the network's parameters.
    fn n_parameters(&self) -> u64;

    /// Returns how many values a pass forward and backward has in memory for each position, about.
    fn values_per_position(&self) -> usize;
}

/// A network over the vectors of items.
#[derive(Debug)]
pub struct SequenceModel<C: SequenceConfig> {
    config: C,
    network: C::Network<Cpu>,
    items: FactorItems,
    /// Tells the sessions of this model from those of others.
    id: u64,
}

impl<C: SequenceConfig> SequenceModel<C> {
    /// Joins the items' vectors and a network to a model.
    ///
    /// # Shapes
    /// - `item_factors`: `[n_items, factors]`
    ///
    /// # Errors
    /// [`Error::InvalidConfig`]; [`Error::WrongSize`] when the rows are not `factors` long.
    pub fn new(config: C, item_factors: Table, network: C::Network<Cpu>) -> Result<Self> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        config.check()?;
        let (expected, got) = (config.settings().factors, item_factors.dim());
        if got != expected {
            return Err(Error::WrongSize { what: "item_factors", side: "factors", expected, got });
        }
        let (network, items) = (network.no_grad(), FactorItems::new(item_factors, None)?);
        Ok(Self { config, network, items, id: MADE.fetch_add(1, Ordering::Relaxed) })
    }

    /// Opens a model from its parameters.
    ///
    /// # Errors
    /// [`Error::MissingParameter`], [`Error::MissingDense`], and as [`SequenceModel::new`].
    pub fn open(config: &C, mut parameters: Parameters) -> Result<Self> {
        config.check()?;
        let items = parameters.take_table("item_factors")?;
        let first = config.network(&mut Initial::new(0, &Default::default()));
        let network = load_parameters(first, &mut parameters)?;
        Self::new(config.clone(), items, network)
    }

    /// Returns the hyper-parameters.
    pub fn config(&self) -> &C {
        &self.config
    }

    /// Returns the items' vectors, `[n_items, factors]`.
    pub fn item_factors(&self) -> &Table {
        self.items.table()
    }

    /// The vectors of `items`, behind each other.
    fn vectors(&self, items: &[ItemIndex]) -> Result<Tensor<Cpu, 2>> {
        let dim = self.items.table().dim();
        let mut vectors = vec![0.0; items.len() * dim];
        for (item, vector) in items.iter().zip(vectors.chunks_exact_mut(dim)) {
            self.items.table().read_row(u64::from(item.0), vector)?;
        }
        matrix_of(Buffer::from_vec(vectors, "a history's vectors")?, dim)
    }

    /// Writes the state after each history, oldest event first, behind each other; zeros after one without a liked item.
    ///
    /// # Shapes
    /// - `out`: `[histories, factors]`
    fn states<'a>(
        &self,
        histories: impl Iterator<Item = &'a [(ItemIndex, f32)]>,
        out: &mut [f32],
    ) -> Result<()> {
        let dim = self.items.table().dim();
        let (mut items, mut rows) = (Vec::new(), SequenceRows::default());
        let mut ends = Vec::new();
        for history in histories {
            let liked = || history.iter().filter(|&&(_, value)| value > 0.0).map(|&(item, _)| item);
            let read = self.config.reads_at_most().unwrap_or(usize::MAX);
            let skipped = liked().count().saturating_sub(read);
            let begin = items.len();
            items.extend(liked().skip(skipped));
            rows.places.extend(0..(items.len() - begin) as u32);
            ends.push(items.len() as u32);
        }
        out.fill(0.0);
        if items.is_empty() {
            return Ok(());
        }
        rows.ends = ends.clone().into();
        let states = buffer_of(self.network.forward(self.vectors(&items)?, &rows, None))?.into_vec()?;
        let mut begin = 0;
        for (&end, out) in ends.iter().zip(out.chunks_exact_mut(dim)) {
            if end > begin {
                out.copy_from_slice(&states[(end as usize - 1) * dim..][..dim]);
            }
            begin = end;
        }
        Ok(())
    }
}

impl<C: SequenceConfig> SequenceModel<C> {
    /// Returns state and memory after the newest event of a session, which is `item` and the first that has not been read.
    fn read_on(&self, session: &Session, item: ItemIndex) -> Result<(Vec<f32>, Vec<Tensor<Cpu, 2>>)> {
        if self.config.reads_at_most().is_some_and(|most| session.read >= most) {
            // Every event of the window stands somewhere else now, so nothing that is remembered of them holds.
            let mut state = vec![0.0; session.state.len()];
            self.states([&session.history[..]].into_iter(), &mut state)?;
            return Ok((state, Vec::new()));
        }
        let mut memory = session.memory.clone();
        let state = self.network.advance(self.vectors(&[item])?, session.read, &mut memory);
        Ok((buffer_of(state)?.into_vec()?, memory))
    }
}

impl<C: SequenceConfig> Sessions for SequenceModel<C> {
    fn begin(&self) -> Session {
        Session::new(self.id, self.items.table().dim())
    }

    fn push(&self, session: &mut Session, item: ItemIndex, value: f32) -> Result<()> {
        session.check(self.id)?;
        if item.at() >= self.items.n_items() {
            let count = self.items.n_items();
            return Err(Error::OutOfRange {
                side: "items",
                row: session.history.len(),
                index: item.0,
                count,
            });
        }
        if !value.is_finite() {
            let at = session.history.len() as u64;
            return Err(Error::Inconsistent { what: "value of a history", at });
        }
        session.history.push((item, value));
        if value > 0.0 {
            let read = self.read_on(session, item);
            if read.is_err() {
                session.history.pop();
            }
            (session.state, session.memory) = read?;
            session.read += 1;
        }
        Ok(())
    }

    fn answer(&self, sessions: &[&Session], batch: &Batch, workspace: &mut Workspace) -> Result<()> {
        if sessions.len() != batch.rows.len() {
            let (expected, got) = (batch.rows.len(), sessions.len());
            return Err(Error::WrongSize { what: "sessions", side: "rows", expected, got });
        }
        sessions.iter().try_for_each(|session| session.check(self.id))?;
        self.items.score_together(batch, workspace, |_, vectors| {
            let dim = self.items.table().dim();
            for (vector, session) in vectors.chunks_exact_mut(dim).zip(sessions) {
                vector.copy_from_slice(&session.state);
            }
            Ok(())
        })
    }
}

impl<C: SequenceConfig> Retriever for SequenceModel<C> {
    fn n_users(&self) -> usize {
        0
    }

    fn n_items(&self) -> usize {
        self.items.n_items()
    }

    fn reads_order(&self) -> bool {
        true
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        Some(self)
    }

    fn score(&self, batch: &Batch, workspace: &mut Workspace) -> Result<()> {
        self.items.score_together(batch, workspace, |rows, vectors| {
            let histories = rows.iter().map(|row| match &row.query {
                Query::History(history) => &history[..],
                _ => &[],
            });
            self.states(histories, vectors)
        })
    }

    fn scores_on_gpu(&self) -> bool {
        true
    }

    fn score_on(&mut self, device: Device) -> Result<()> {
        self.items.score_on(device)
    }

    fn warm_up(&self) -> Result<()> {
        self.items.warm_up()
    }

    fn table(&self, name: &str) -> Option<&Table> {
        (name == "item_factors").then(|| self.items.table())
    }

    fn parameters(&self) -> Result<Parameters> {
        let precision = self.config.settings().precision;
        let mut parameters = Parameters::default();
        parameters.insert("item_factors", Parameter::Table(precision.store(self.items.table())?));
        put_parameters(&self.network, &mut parameters)?;
        Ok(parameters)
    }
}

/// `n things`, or `1 thing`.
pub(super) fn counted(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Gru4RecConfig, SasRecConfig};

    #[test]
    fn parameters_are_counted_without_the_network() {
        fn agrees<C: SequenceConfig>(config: &C) {
            let network = config.network::<Cpu>(&mut Initial::new(0, &Default::default()));
            assert_eq!(network.num_params() as u64, config.n_parameters(), "{config:?}");
        }
        for layers in [0, 1, 3] {
            agrees(&SasRecConfig {
                layers,
                factors: 6,
                feed_forward: 5,
                max_length: 7,
                ..SasRecConfig::default()
            });
            agrees(&Gru4RecConfig { layers, factors: 6, hidden: 5, ..Gru4RecConfig::default() });
        }
    }

    #[test]
    fn gbce_is_bce_without_calibration_and_weighs_the_right_one_less_with_it() {
        let config = SasRecConfig { loss: SequenceLoss::Gbce, ..SasRecConfig::default() };
        let positive = |calibration: f64| {
            let config = SasRecConfig { gbce_calibration: calibration, ..config.clone() };
            match config.settings().candidate_loss(100, 1001) {
                CandidateLoss::Logistic { positive, negative: 0.01 } => positive,
                loss => panic!("{loss:?}"),
            }
        };
        assert_eq!(positive(0.0), 1.0);
        assert!((positive(1.0) - 0.1).abs() < 1e-6);
    }
}

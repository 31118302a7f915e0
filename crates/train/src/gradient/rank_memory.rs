//! The memory that the training of a ranker will take, known before any of it is allocated.

use burn::module::Module;
use recmill_core::{
    dense::Cpu,
    features::Features,
    rankers::{AnyNetwork, DenseOptimizer, EmbeddingTables, RankerConfig, Shape},
};
use recmill_kernels::{Device, RowType};

use crate::{
    Prediction,
    memory::{MemoryPlan, available_bytes},
};

/// Returns what training the network of `config` will take on `device`, beside what there is.
///
/// Counted are the tables, what the optimizers remember, the best epoch's copies where epochs are `validated`, and the network's parameters
/// with their gradients. A step's own values, which grow with the batch and not with the data, are not.
pub fn rank_memory(
    config: &RankerConfig,
    features: &Features,
    validated: bool,
    device: Device,
) -> MemoryPlan {
    let (shape, learning) = (Shape::of(features), &config.learning);
    let dims = config.model.tables(&shape);
    let dims = [dims.embedding, dims.first_order].map(|dim| dim.unwrap_or(0) as u64);
    let rows = EmbeddingTables::rows(features);
    let value = if learning.table_precision.row_type() == RowType::F32 { 4 } else { 2 };
    let optimizer = learning.sparse_optimizer();
    let state: u64 = dims.iter().map(|&dim| optimizer.state_values(dim as usize) as u64).sum();
    let (tables, state) = (rows * dims.iter().sum::<u64>() * value, 4 * rows * state);
    let remembered = match learning.optimizer {
        DenseOptimizer::Sgd => 0,
        DenseOptimizer::Adagrad => 1,
        DenseOptimizer::Adam | DenseOptimizer::Adamw => 2,
    };
    let kept = u64::from(validated);
    let copies = 2 + remembered + kept;
    let input = dims[0] * shape.n_fields as u64 + shape.n_numeric as u64;
    let least = least_parameters(config, input);
    // What cannot fit is not made to be counted.
    let network = match least.saturating_mul(4 * copies) > available_bytes() {
        true => least,
        false => AnyNetwork::<Cpu>::new(&config.model, &shape, 0, &Default::default()).num_params() as u64,
    };
    let learned = Prediction::default()
        .add("embedding tables", tables)
        .add("what their optimizer remembers", state)
        .add("the network", network.saturating_mul(4 * copies));
    let best = ("the best epoch's tables", kept * tables);
    match device {
        Device::Cpu => MemoryPlan::new(config.name(), learned.add(best.0, best.1), device, None),
        // Tables are drawn on the host, one of them before the best epoch's are kept there.
        _ => {
            let host = Prediction::default().add("embedding tables as they are drawn or kept", tables);
            MemoryPlan::new(config.name(), host, device, Some(learned))
        }
    }
}

/// Returns a number of parameters that the network of `config` has at the least, where its input has so many values: hidden layers behind one
/// another, as often as there are experts, and cross layers.
fn least_parameters(config: &RankerConfig, input: u64) -> u64 {
    let model = serde_json::to_value(&config.model).unwrap_or_default();
    let number = |name: &str, otherwise: u64| model[name].as_u64().unwrap_or(otherwise);
    let layers = |widths: &Vec<serde_json::Value>| {
        let widths: Vec<u64> = widths.iter().filter_map(serde_json::Value::as_u64).collect();
        let between: u64 = widths.windows(2).map(|pair| pair[0].saturating_mul(pair[1])).sum();
        between.saturating_add(widths.iter().sum())
    };
    let hidden: u64 = model
        .as_object()
        .into_iter()
        .flat_map(|fields| fields.values())
        .filter_map(serde_json::Value::as_array)
        .map(layers)
        .fold(0, u64::saturating_add);
    let cross = number("cross_layers", 0);
    // Those of low-rank crosses are counted below.
    let experts = if cross > 0 { 1 } else { number("experts", 1) };
    let of_cross = match number("rank", 0) {
        0 => input.saturating_mul(input),
        rank => input.saturating_mul(rank).saturating_mul(number("experts", 1)),
    };
    hidden.saturating_mul(experts).saturating_add(cross.saturating_mul(of_cross))
}

#[cfg(test)]
mod tests {
    use recmill_core::rankers::{DcnConfig, DeepFmConfig, LearningConfig, MmoeConfig, RankerModel};

    use super::*;

    #[test]
    fn networks_that_cannot_fit_are_counted_without_making_them() {
        let of = |model| RankerConfig { model, learning: LearningConfig::default() };
        let wide = DeepFmConfig { hidden: vec![65_536; 3], ..DeepFmConfig::default() };
        assert_eq!(least_parameters(&of(RankerModel::DeepFm(wide)), 10), 2 * (1 << 32) + 3 * 65_536);
        let deep = DcnConfig { cross_layers: 1000, hidden: vec![8], ..DcnConfig::default() };
        assert_eq!(least_parameters(&of(RankerModel::Dcn(deep)), 10), 1000 * 100 + 8);
        let many = MmoeConfig { experts: 1_000_000, ..MmoeConfig::default() };
        assert!(least_parameters(&of(RankerModel::Mmoe(many)), 10) >= 1_000_000);
    }
}

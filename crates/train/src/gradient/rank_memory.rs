//! The memory that the training of a ranker will take, known before any of it is allocated.

use burn::module::Module;
use recmill_core::{
    dense::Cpu,
    features::Features,
    rankers::{AnyNetwork, DenseOptimizer, EmbeddingTables, RankerConfig, Shape},
};
use recmill_kernels::{Device, RowType};

use crate::{Prediction, memory::MemoryPlan};

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
    let network = AnyNetwork::<Cpu>::new(&config.model, &shape, 0, &Default::default()).num_params() as u64;
    let remembered = match learning.optimizer {
        DenseOptimizer::Sgd => 0,
        DenseOptimizer::Adagrad => 1,
        DenseOptimizer::Adam | DenseOptimizer::Adamw => 2,
    };
    let kept = u64::from(validated);
    let learned = Prediction::default()
        .add("embedding tables", tables)
        .add("what their optimizer remembers", state)
        .add("the network", 4 * network * (2 + remembered + kept));
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

//! A network of one's own in recmill's loop: tables, loader, optimizers, early stopping and metrics come with it.
//!
//!     cargo run --release -p recmill --example own_network -- rows.csv label

use burn::{backend::Autodiff, nn, prelude::*, tensor::activation::tanh};
use recmill::{
    data::ReadOptions,
    dense::{Cpu, DenseBackend},
    features::{Examples, Features, SchemaOptions, infer_schema},
    rankers::{Inputs, LearningConfig, Network, Shape, TableDims},
    train::{EpochRecord, gradient::RankTraining, gradient::Rows},
};

const DIM: usize = 8;

/// Two layers of burn's own, over all that there is of a row.
#[derive(Module, Debug)]
struct Own<B: Backend> {
    hidden: nn::Linear<B>,
    output: nn::Linear<B>,
}

impl<B: DenseBackend> Network<B> for Own<B> {
    fn forward(&self, inputs: &Inputs<B>) -> Tensor<B, 2> {
        self.output.forward(tanh(self.hidden.forward(inputs.flat())))
    }
}

#[expect(clippy::print_stdout, reason = "what the example shows")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(label)) = (arguments.next(), arguments.next()) else {
        return Err("expected a file of rows and the name of its label".into());
    };
    let (files, read) = ([file], ReadOptions::default());
    let (schema, _) =
        infer_schema(&files, &read, &SchemaOptions { label: vec![label], ..Default::default() })?;
    let (features, _) = Features::fit(&schema, &files, &read)?;
    let (examples, _) = Examples::read(&features, &files, &read, 1 << 30)?;
    let (learned, held_out) = examples.holdout(0.1, 0);

    let (device, shape) = (Default::default(), Shape::of(&features));
    let network = Own::<Autodiff<Cpu>> {
        hidden: nn::LinearConfig::new(shape.flat_width(DIM), 64).init(&device),
        output: nn::LinearConfig::new(64, shape.n_labels).init(&device),
    };
    let learning = LearningConfig::default();
    let mut training = RankTraining::new(&learning, &features, &examples);
    training.train = Rows { examples: &examples, rows: Some(&learned) };
    training.valid = Some(Rows { examples: &examples, rows: Some(&held_out) });
    let tables = TableDims { embedding: Some(DIM), first_order: None };
    let mut epochs: Vec<EpochRecord> = Vec::new();
    let trained = training.run_network::<Cpu, _>(network, tables, &false.into(), &mut epochs)?;
    for epoch in &epochs {
        let [loss, auc] = [epoch.loss.unwrap_or(f64::NAN), epoch.metrics["auc"]];
        println!("epoch {}  loss {loss:.4}  auc {auc:.4}", epoch.epoch);
    }
    println!("kept epoch {}", trained.descent.kept_epoch);
    Ok(())
}

//! A network of ours before a batch, and the same numbers in candle.

use std::sync::Arc;

use burn::{
    backend::Autodiff,
    module::{Module, ModuleVisitor, Param},
    tensor::{Tensor, TensorData, backend::AutodiffBackend},
};
use candle_core::DType;
use recmill_core::{
    Parameter, Parameters,
    dense::{Cpu, Dropout, InTraining, copy_values, load_parameters},
    rankers::{AnyNetwork, Inputs, Network, RankerModel, Shape},
};
use recmill_kernels::Buffer;

use crate::{
    candle::{CandleNetwork, variable},
    factors::numbers,
};

type Error = Box<dyn std::error::Error>;
type Gradients = <Autodiff<Cpu> as AutodiffBackend>::Gradients;

/// A network of ours before a batch.
#[derive(Debug)]
pub struct OurNetwork {
    network: AnyNetwork<Autodiff<Cpu>>,
    inputs: Inputs<Autodiff<Cpu>>,
    weights: Tensor<Autodiff<Cpu>, 2>,
}

/// The values of a parameter, or of a gradient of one, with their name.
type Named = (String, Vec<f32>);

/// Makes the network of `model` and a batch of `rows`; in candle they are computed with in `precision`.
///
/// Every parameter is drawn, also one that a training begins with at 0. With `training`, batch normalization is by the batch's own
/// statistics, and what the model drops is dropped (which candle does not). The third are the weights of the log-odds in the
/// sum that goes backward.
///
/// # Errors
/// When there is no memory.
pub fn both(
    model: &RankerModel,
    shape: Shape,
    rows: usize,
    training: bool,
    precision: DType,
) -> Result<(OurNetwork, CandleNetwork, candle_core::Tensor), Error> {
    let device = Default::default();
    let network = AnyNetwork::<Autodiff<Cpu>>::new(model, &shape, 0, &device);
    let mut sizes = Sizes(Vec::new());
    network.visit(&mut sizes);
    let (mut parameters, mut variables) = (Parameters::default(), std::collections::BTreeMap::new());
    for (at, ((name, old), size)) in copy_values(&network).into_iter().zip(sizes.0).enumerate() {
        let scale = 10.0 / (size[0] as f32).sqrt();
        let mut values: Vec<f32> = numbers(old.len(), 100 + at as u64).iter().map(|x| scale * x).collect();
        if name.ends_with("_variance") {
            values.iter_mut().for_each(|x| *x = 0.1 + x.abs());
        }
        variables.insert(field_of(&name), variable(values.clone(), &size, precision)?);
        parameters.insert(&name, Parameter::F32(Buffer::from_vec(values, "a bench")?));
    }
    let network = load_parameters(network, &mut parameters)?;

    let tables = model.tables(&shape);
    let input = |size: &[usize], seed: u64| -> Result<_, Error> {
        let values: Vec<f32> = numbers(size.iter().product(), seed).iter().map(|x| 5.0 * x).collect();
        Ok((TensorData::new(values.clone(), size.to_vec()), variable(values, size, precision)?))
    };
    let input = |size: Option<Vec<usize>>, seed| {
        let size = size.filter(|size| !size.contains(&0));
        size.map(|size| input(&size, seed)).transpose().map(Option::unzip)
    };
    let (fields, labels) = (shape.n_fields, shape.n_labels);
    let (embedded, their_embedded) = input(tables.embedding.map(|dim| vec![rows, fields, dim]), 1)?;
    let (first_order, their_first_order) =
        input(tables.first_order.map(|labels| vec![rows, fields * labels]), 2)?;
    let (numeric, their_numeric) = input(Some(vec![rows, shape.n_numeric]), 3)?;
    let (weights, their_weights) = input(Some(vec![rows, labels]), 4)?;
    let inputs = Inputs {
        embedded: embedded.map(|data| Tensor::from_data(data, &device).require_grad()),
        first_order: first_order.map(|data| Tensor::from_data(data, &device).require_grad()),
        numeric: numeric.map(|data| Tensor::from_data(data, &device)),
        training: training
            .then(|| Arc::new(InTraining::new(Dropout { seed: 0, epoch: 1, samples: vec![0; rows] }))),
    };
    let (Some(weights), Some(their_weights)) = (weights, their_weights) else {
        return Err("a batch without rows or labels".into());
    };
    let ours = OurNetwork { network, inputs, weights: Tensor::from_data(weights, &device) };
    let candle = CandleNetwork {
        parameters: variables,
        embedded: their_embedded,
        first_order: their_first_order,
        numeric: their_numeric,
        n_labels: labels,
        training,
    };
    Ok((ours, candle, their_weights.as_detached_tensor()))
}

impl OurNetwork {
    /// Returns the log-odds of each label, `[rows, labels]`.
    pub fn forward(&self) -> Tensor<Autodiff<Cpu>, 2> {
        self.network.forward(&self.inputs)
    }

    /// Goes backward from the sum of log-odds times weights.
    pub fn backward(&self, log_odds: Tensor<Autodiff<Cpu>, 2>) -> Gradients {
        (log_odds * self.weights.clone()).sum().backward()
    }

    /// Returns the gradients of what the network is given and of every parameter, by candle's names of them.
    pub fn named(&self, gradients: &Gradients) -> Vec<Named> {
        fn values<const D: usize>(gradient: Option<Tensor<Cpu, D>>) -> Vec<f32> {
            gradient.and_then(|gradient| gradient.into_data().into_vec().ok()).unwrap_or_default()
        }
        struct Found<'a>(&'a Gradients, Vec<Vec<f32>>);
        impl ModuleVisitor<Autodiff<Cpu>> for Found<'_> {
            fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<Autodiff<Cpu>, D>>) {
                self.1.push(values(parameter.val().grad(self.0)));
            }
        }
        let mut found = Found(gradients, Vec::new());
        self.network.visit(&mut found);
        let names = copy_values(&self.network).into_iter().map(|(name, _)| field_of(&name));
        let named = names.zip(found.1);
        let embedded =
            self.inputs.embedded.as_ref().map(|x| ("embedded".to_owned(), values(x.grad(gradients))));
        let first_order = self.inputs.first_order.as_ref();
        let first_order = first_order.map(|x| ("first_order".to_owned(), values(x.grad(gradients))));
        named.chain(embedded).chain(first_order).collect()
    }
}

/// Where a parameter is in its network: its name without what comes before, `dense_` and the network's own.
fn field_of(name: &str) -> String {
    name.splitn(3, '_').last().unwrap_or_default().to_owned()
}

struct Sizes(Vec<Vec<usize>>);

impl ModuleVisitor<Autodiff<Cpu>> for Sizes {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<Autodiff<Cpu>, D>>) {
        self.0.push(parameter.val().dims().to_vec());
    }
}

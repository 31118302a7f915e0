//! The parameters of a dense network by name, as the model directory stores them.
//!
//! A parameter's name is its path through the module's fields: `dense_mlp_layers_0_weight`. Shapes follow from the
//! configuration, so values are stored flat.

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Tensor, TensorData, backend::Backend},
};
use recmill_kernels::Buffer;

use crate::{Error, Parameter, Parameters, Result};

const PREFIX: &str = "dense";

/// Puts the values of every parameter of `network` into `parameters`.
///
/// # Errors
/// [`Error::Kernel`] when there is no memory for a copy.
pub fn put_parameters<B: Backend, M: Module<B>>(network: &M, parameters: &mut Parameters) -> Result<()> {
    for (name, values) in copy_values(network) {
        parameters.insert(&name, Parameter::F32(Buffer::from_vec(values, "dense parameters")?));
    }
    Ok(())
}

/// Returns the names and values of every parameter of `network`, in the order of its fields.
pub fn copy_values<B: Backend, M: Module<B>>(network: &M) -> Vec<(String, Vec<f32>)> {
    let mut reader = Reader { path: Vec::new(), found: Vec::new() };
    network.visit(&mut reader);
    reader.found
}

/// Returns `network` with the values that [`put_parameters`] stored.
///
/// # Errors
/// [`Error::MissingDense`] when a parameter is not there; [`Error::WrongSize`] when one has another number of values.
pub fn load_parameters<B: Backend, M: Module<B>>(network: M, parameters: &mut Parameters) -> Result<M> {
    let mut writer = Writer { path: Vec::new(), parameters, problem: None };
    let network = network.map(&mut writer);
    writer.problem.map_or(Ok(network), Err)
}

fn name(path: &[String]) -> String {
    let mut name = PREFIX.to_owned();
    for part in path {
        name.push('_');
        name.extend(part.chars().map(|c| c.to_ascii_lowercase()));
    }
    name
}

struct Reader {
    path: Vec<String>,
    found: Vec<(String, Vec<f32>)>,
}

impl<B: Backend> ModuleVisitor<B> for Reader {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let values = param.val().into_data().convert::<f32>().into_vec().unwrap_or_default();
        self.found.push((name(&self.path), values));
    }
}

struct Writer<'a> {
    path: Vec<String>,
    parameters: &'a mut Parameters,
    problem: Option<Error>,
}

impl Writer<'_> {
    fn values(&mut self, expected: usize) -> Result<Vec<f32>> {
        let name = name(&self.path);
        let values = self.parameters.take_dense(&name)?.to_vec()?;
        if values.len() != expected {
            let what = "a dense parameter";
            return Err(Error::WrongSize { what, side: "values", expected, got: values.len() });
        }
        Ok(values)
    }
}

impl<B: Backend> ModuleMapper<B> for Writer<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let shape = param.lazy_shape();
        match self.values(shape.num_elements()) {
            Ok(values) => param.map(|old| {
                let tensor = Tensor::from_data(TensorData::new(values, shape), &old.device());
                if old.is_require_grad() { tensor.require_grad() } else { tensor }
            }),
            Err(problem) => {
                self.problem.get_or_insert(problem);
                param
            }
        }
    }
}

//! The networks of the rankers in candle, each from the formula at the head of its model's file: an oracle for values and
//! gradients, and what the time of ours is compared with.
//!
//! Nothing is shared with ours but the numbers: candle has its own products, its own activations and its own way backward.

use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Result, Tensor, Var, backprop::GradStore};
use recmill_core::rankers::{DcnStructure, RankerModel};

/// A batch and a network's parameters as candle's variables, by the fields of ours that they are.
#[derive(Debug)]
pub struct CandleNetwork {
    /// The network's parameters: `deep_layers_0_weight`, ..
    pub parameters: BTreeMap<String, Var>,
    /// `[rows, fields, dim]`.
    pub embedded: Option<Var>,
    /// `[rows, fields * labels]`.
    pub first_order: Option<Var>,
    /// `[rows, numeric]`.
    pub numeric: Option<Var>,
    /// Labels that are predicted.
    pub n_labels: usize,
    /// Whether batches are normalized by their own statistics.
    pub training: bool,
}

/// Makes a variable of f32 values, computed with in `precision`.
///
/// # Errors
/// Those of candle.
pub fn variable(values: Vec<f32>, shape: &[usize], precision: DType) -> Result<Var> {
    Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(precision)?)
}

impl CandleNetwork {
    /// Returns the log-odds of each label, `[rows, labels]`.
    ///
    /// # Errors
    /// Those of candle; among them that a parameter is not there.
    pub fn forward(&self, model: &RankerModel) -> Result<Tensor> {
        match model {
            RankerModel::Logistic(_) => self.sum_of_first_order("first_order"),
            RankerModel::Fm(_) => {
                self.sum_of_first_order("first_order")?.broadcast_add(&self.second_order()?)
            }
            RankerModel::WideDeep(_) => {
                let deep = self.mlp("deep", self.flat()?)?;
                self.sum_of_first_order("wide")? + self.linear("head", &deep)?
            }
            RankerModel::DeepFm(_) => {
                let deep = self.linear("head", &self.mlp("deep", self.flat()?)?)?;
                (self.sum_of_first_order("first_order")? + deep)?.broadcast_add(&self.second_order()?)
            }
            RankerModel::Dcn(config) => {
                let x0 = self.flat()?;
                let mut x = x0.clone();
                for layer in 0..config.cross_layers {
                    x = match config.rank {
                        0 => ((&x0 * self.linear(&format!("crosses_{layer}_full"), &x)?)? + &x)?,
                        _ => self.mixture(&format!("crosses_{layer}_mixture"), config.experts, &x0, &x)?,
                    };
                }
                let last = match config.structure {
                    DcnStructure::Stacked => self.mlp("deep", x)?,
                    DcnStructure::Parallel => Tensor::cat(&[x, self.mlp("deep", x0)?], 1)?,
                };
                self.linear("head", &last)
            }
            RankerModel::Dlrm(_) => self.dlrm(),
            RankerModel::AutoInt(config) => {
                let mut x = self.vectors()?;
                for layer in 0..config.attention_layers {
                    x = self.attention(&format!("attention_{layer}"), config.heads, &x)?;
                }
                let attended = self.linear("of_attention", &x.flatten_from(1)?)?;
                match config.hidden.is_empty() {
                    true => Ok(attended),
                    false => attended + self.linear("head", &self.mlp("deep", self.flat()?)?)?,
                }
            }
            RankerModel::FinalMlp(config) => self.final_mlp(config.heads, config.gate > 0),
            RankerModel::SharedBottom(_) => {
                let shared = self.mlp("bottom", self.flat()?)?;
                let towers = (0..self.n_labels).map(|label| self.tower(label, shared.clone()));
                Tensor::cat(&towers.collect::<Result<Vec<_>>>()?, 1)
            }
            RankerModel::Mmoe(config) => self.mmoe(config.experts),
        }
    }

    /// Returns the gradients of `Σ log-odds * weights`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn backward(&self, log_odds: &Tensor, weights: &Tensor) -> Result<GradStore> {
        (log_odds * weights)?.sum_all()?.backward()
    }

    fn parameter(&self, name: &str) -> Result<&Tensor> {
        match self.parameters.get(name) {
            Some(variable) => Ok(variable.as_tensor()),
            None => candle_core::bail!("no parameter {name} among {:?}", self.parameters.keys()),
        }
    }

    fn linear(&self, layer: &str, x: &Tensor) -> Result<Tensor> {
        linear(x, self.parameter(&format!("{layer}_weight"))?, self.parameter(&format!("{layer}_bias"))?)
    }

    fn mlp(&self, name: &str, mut x: Tensor) -> Result<Tensor> {
        for at in 0.. {
            let layer = format!("{name}_layers_{at}");
            if !self.parameters.contains_key(&format!("{layer}_weight")) {
                break;
            }
            let norm = format!("{name}_norms_{at}");
            x = match self.parameters.contains_key(&format!("{norm}_scale")) {
                true => self.batch_norm(&norm, &x.matmul(self.parameter(&format!("{layer}_weight"))?)?)?,
                false => self.linear(&layer, &x)?,
            };
            x = x.relu()?;
        }
        Ok(x)
    }

    fn batch_norm(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let column = |what: &str| self.parameter(&format!("{name}_{what}"))?.unsqueeze(0);
        let (mean, variance) = match self.training {
            true => {
                let mean = x.mean_keepdim(0)?;
                let variance = x.broadcast_sub(&mean)?.sqr()?.mean_keepdim(0)?;
                (mean, variance)
            }
            false => (column("mean")?, column("variance")?),
        };
        let normal = x.broadcast_sub(&mean)?.broadcast_div(&(variance + 1e-5)?.sqrt()?)?;
        normal.broadcast_mul(&column("scale")?)?.broadcast_add(&column("shift")?)
    }

    fn flat(&self) -> Result<Tensor> {
        let embedded = self.embedded.as_ref().map(|x| x.flatten_from(1)).transpose()?;
        let numeric = self.numeric.as_ref().map(|x| x.as_tensor().clone());
        Tensor::cat(&embedded.into_iter().chain(numeric).collect::<Vec<_>>(), 1)
    }

    /// Embeddings, and a vector for each numeric column times the row's number.
    fn vectors(&self) -> Result<Tensor> {
        let embedded = self.embedded.as_ref().map(|x| x.as_tensor().clone());
        let stretched = self.numeric.as_ref().map(|x| {
            let vectors = self.parameter("vectors_of_numeric")?.unsqueeze(0)?;
            x.unsqueeze(2)?.broadcast_mul(&vectors)
        });
        Tensor::cat(&embedded.into_iter().chain(stretched.transpose()?).collect::<Vec<_>>(), 1)
    }

    fn second_order(&self) -> Result<Tensor> {
        second_order(&self.vectors()?)
    }

    fn sum_of_first_order(&self, name: &str) -> Result<Tensor> {
        let bias = self.parameter(&format!("{name}_bias"))?;
        let mut terms = Vec::new();
        if let Some(weights) = &self.first_order {
            let (rows, columns) = weights.dims2()?;
            terms.push(weights.reshape((rows, columns / self.n_labels, self.n_labels))?.sum(1)?);
        }
        if let Some(numeric) = &self.numeric {
            terms.push(self.linear(&format!("{name}_of_numeric"), numeric)?);
        }
        let mut terms = terms.into_iter();
        let Some(first) = terms.next() else { return bias.unsqueeze(0) };
        terms.try_fold(first, |sum, term| sum + term)?.broadcast_add(bias)
    }

    fn mixture(&self, name: &str, experts: usize, x0: &Tensor, x: &Tensor) -> Result<Tensor> {
        let gates = softmax(&self.linear(&format!("{name}_gates"), x)?)?;
        let of_expert = |expert: usize| {
            let [v, c, u] = ["down", "within", "up"].map(|m| self.parameter(&format!("{name}_{m}_{expert}")));
            let wide = x.matmul(v?)?.tanh()?.matmul(c?)?.tanh()?.matmul(u?)?;
            let wide = wide.broadcast_add(self.parameter(&format!("{name}_bias"))?)?;
            wide.broadcast_mul(&gates.narrow(1, expert, 1)?)
        };
        let sum = (1..experts).try_fold(of_expert(0)?, |sum, expert| sum + of_expert(expert)?)?;
        (x0 * sum)? + x
    }

    fn dlrm(&self) -> Result<Tensor> {
        let bottom = self.numeric.as_ref().map(|x| self.mlp("bottom", x.as_tensor().clone())).transpose()?;
        let embedded = self.embedded.as_ref().map(|x| x.as_tensor().clone());
        let first = bottom.as_ref().map(|d| d.unsqueeze(1)).transpose()?;
        let vectors = Tensor::cat(&first.into_iter().chain(embedded).collect::<Vec<_>>(), 1)?;
        let beside = bottom.map_or_else(|| self.flat(), Ok)?;
        let top = match vectors.dim(1)? {
            1 => beside,
            _ => Tensor::cat(&[beside, pairwise_dots(&vectors)?], 1)?,
        };
        self.linear("head", &self.mlp("top", top)?)
    }

    fn attention(&self, name: &str, heads: usize, x: &Tensor) -> Result<Tensor> {
        let (rows, vectors, dim) = x.dims3()?;
        let flat = x.reshape((rows * vectors, dim))?;
        let project = |which: &str| self.linear(&format!("{name}_{which}"), &flat);
        let split = |which: &str| {
            let projected = project(which)?;
            let width = projected.dim(1)? / heads;
            projected.reshape((rows, vectors, heads, width))?.transpose(1, 2)?.contiguous()
        };
        let (queries, keys, values) = (split("queries")?, split("keys")?, split("values")?);
        let width = keys.dim(3)?;
        let scores = (queries.matmul(&keys.transpose(2, 3)?.contiguous()?)? / (width as f64).sqrt())?;
        let attended = softmax(&scores)?.matmul(&values)?.transpose(1, 2)?.contiguous()?;
        let attended = attended.reshape((rows * vectors, heads * width))?;
        (attended + project("residual")?)?.relu()?.reshape((rows, vectors, heads * width))
    }

    fn final_mlp(&self, heads: usize, gated: bool) -> Result<Tensor> {
        let flat = self.flat()?;
        let stream = |name: &str| {
            let mut x = flat.clone();
            if gated {
                let context = self.parameter(&format!("{name}_context"))?;
                let hidden = self.linear(&format!("{name}_gate_0"), context)?.relu()?;
                let gate = (sigmoid(&self.linear(&format!("{name}_gate_1"), &hidden)?)? * 2.0)?;
                x = x.broadcast_mul(&gate)?;
            }
            self.mlp(&format!("{name}_mlp"), x)
        };
        let (one, two) = (stream("first")?, stream("second")?);
        let mut sum = (self.linear("of_first", &one)? + self.linear("of_second", &two)?)?;
        let products = self.parameter("products")?;
        let (rows, left, right) = (one.dim(0)?, one.dim(1)? / heads, two.dim(1)? / heads);
        for head in 0..heads {
            let weight = products.get(head)?.contiguous()?;
            let mapped = one.narrow(1, head * left, left)?.contiguous()?.matmul(&weight)?;
            let mapped = mapped.reshape((rows, self.n_labels, right))?;
            let other = two.narrow(1, head * right, right)?.unsqueeze(1)?;
            sum = (sum + mapped.broadcast_mul(&other)?.sum(2)?)?;
        }
        Ok(sum)
    }

    fn tower(&self, label: usize, x: Tensor) -> Result<Tensor> {
        self.linear(&format!("towers_{label}_head"), &self.mlp(&format!("towers_{label}_mlp"), x)?)
    }

    fn mmoe(&self, experts: usize) -> Result<Tensor> {
        let x = self.flat()?;
        let answers = (0..experts).map(|expert| self.mlp(&format!("experts_{expert}"), x.clone()));
        let answers = Tensor::stack(&answers.collect::<Result<Vec<_>>>()?, 1)?;
        let of_label = |label: usize| {
            let shares = softmax(&self.linear(&format!("gates_{label}"), &x)?)?;
            self.tower(label, answers.broadcast_mul(&shares.unsqueeze(2)?)?.sum(1)?)
        };
        Tensor::cat(&(0..self.n_labels).map(of_label).collect::<Result<Vec<_>>>()?, 1)
    }
}

/// Returns `x weight + bias`.
///
/// # Errors
/// Those of candle, as of the functions below.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    x.matmul(weight)?.broadcast_add(bias)
}

/// Returns `½ Σ_d ((Σ_f x)² - Σ_f x²)` of `[rows, fields, dim]`, as `[rows, 1]`.
#[expect(clippy::missing_errors_doc, reason = "as above")]
pub fn second_order(x: &Tensor) -> Result<Tensor> {
    ((x.sum(1)?.sqr()? - x.sqr()?.sum(1)?)?.sum_keepdim(1)? * 0.5)?.reshape(((), 1))
}

/// Returns the inner product of every two fields of `[rows, fields, dim]`: (1, 0), (2, 0), (2, 1), ..
#[expect(clippy::missing_errors_doc, reason = "as above")]
pub fn pairwise_dots(x: &Tensor) -> Result<Tensor> {
    let (rows, fields, _) = x.dims3()?;
    let dots = x.matmul(&x.transpose(1, 2)?.contiguous()?)?.reshape((rows, fields * fields))?;
    let below = (0..fields as u32).flat_map(|i| (0..i).map(move |j| i * fields as u32 + j));
    dots.index_select(&Tensor::from_iter(below, &Device::Cpu)?, 1)
}

fn softmax(x: &Tensor) -> Result<Tensor> {
    let powers = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

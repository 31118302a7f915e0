//! One side of `benches/peers/linear.py`: forward and backward of a network of dense layers, one pass a line of standard
//! input.
//!
//! `linear_speed BATCH SIZES FOLDER`: sizes as `416,400,400,400,1`; `FOLDER` holds `x`, `gradient` (of the output) and, for each
//! layer, `weight0`, `bias0`, .. as f32. ReLU behind every layer but the last. Commands: `ready`, `simd` (the level that was
//! found), `pass` (answers with the seconds and the processor seconds), `save` (writes `y`, `of_x`, and each layer's `of_weight0`,
//! `of_bias0`, .. into the folder).
#![expect(clippy::print_stdout, reason = "the answers are read by the script that runs this")]

#[expect(dead_code, reason = "sparse matrices are other sides'")]
mod files;
#[expect(dead_code, reason = "memory is not asked about")]
mod usage;

use std::{
    error::Error,
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use recmill_kernels::{
    Activation, Linear, LinearGradients, LinearScratch, Products, linear, linear_backward, simd,
};

use files::{read_f32, write_f32};
use usage::processor_seconds;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Layer {
    inputs: usize,
    outputs: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
    activation: Activation,
    y: Vec<f32>,
    gradient: Vec<f32>,
    of_weight: Vec<f32>,
    of_bias: Vec<f32>,
}

impl Layer {
    fn parameters(&self) -> Linear<'_> {
        let Self { inputs, outputs, weight, bias, activation, .. } = self;
        let (inputs, outputs, activation) = (*inputs, *outputs, *activation);
        Linear { inputs, outputs, weight, bias: Some(bias), activation, products: Products::F32 }
    }
}

struct Network {
    layers: Vec<Layer>,
    x: Vec<f32>,
    of_x: Vec<f32>,
    /// Of the output, as it was read: a pass changes its copy.
    gradient: Vec<f32>,
    scratch: LinearScratch,
    folder: PathBuf,
}

impl Network {
    fn read(batch: usize, sizes: &[usize], folder: &Path) -> Result<Self> {
        let read = |name: String| read_f32(&folder.join(name).to_string_lossy());
        let mut layers = Vec::new();
        for (at, pair) in sizes.windows(2).enumerate() {
            let (weight, bias) = (read(format!("weight{at}"))?, read(format!("bias{at}"))?);
            let last = at + 2 == sizes.len();
            layers.push(Layer {
                inputs: pair[0],
                outputs: pair[1],
                activation: if last { Activation::Identity } else { Activation::Relu },
                y: vec![0.0; batch * pair[1]],
                gradient: vec![0.0; batch * pair[1]],
                of_weight: vec![0.0; weight.len()],
                of_bias: vec![0.0; bias.len()],
                weight,
                bias,
            });
        }
        let (x, gradient) = (read("x".into())?, read("gradient".into())?);
        let (of_x, scratch, folder) = (vec![0.0; x.len()], LinearScratch::default(), folder.to_owned());
        Ok(Self { layers, x, of_x, gradient, scratch, folder })
    }

    fn pass(&mut self) -> Result<()> {
        for at in 0..self.layers.len() {
            let (before, layer) = self.layers.split_at_mut(at);
            let x = before.last().map_or(&self.x, |before| &before.y);
            let mut y = std::mem::take(&mut layer[0].y);
            linear(&layer[0].parameters(), x, &mut y, &mut self.scratch)?;
            layer[0].y = y;
        }
        if let Some(last) = self.layers.last_mut() {
            last.gradient.copy_from_slice(&self.gradient);
        }
        for at in (0..self.layers.len()).rev() {
            let (before, layer) = self.layers.split_at_mut(at);
            let layer = &mut layer[0];
            let (x, of_x) = match before.last_mut() {
                Some(before) => (&before.y, &mut before.gradient),
                None => (&self.x, &mut self.of_x),
            };
            let Layer { inputs, outputs, weight, bias, activation, y, gradient, of_weight, of_bias } = layer;
            let (inputs, outputs, activation) = (*inputs, *outputs, *activation);
            let parameters =
                Linear { inputs, outputs, weight, bias: Some(bias), activation, products: Products::F32 };
            let into = LinearGradients { weight: of_weight, bias: Some(of_bias), x: Some(of_x) };
            linear_backward(&parameters, x, y, gradient, into, &mut self.scratch)?;
        }
        Ok(())
    }

    fn save(&self) -> Result<()> {
        let write =
            |name: String, values: &[f32]| write_f32(&self.folder.join(name).to_string_lossy(), values);
        write("of_x".into(), &self.of_x)?;
        for (at, layer) in self.layers.iter().enumerate() {
            write(format!("y{at}"), &layer.y)?;
            write(format!("of_weight{at}"), &layer.of_weight)?;
            write(format!("of_bias{at}"), &layer.of_bias)?;
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [batch, sizes, folder] = &arguments[..] else {
        return Err("linear_speed BATCH SIZES FOLDER".into());
    };
    let sizes = sizes.split(',').map(str::parse).collect::<std::result::Result<Vec<usize>, _>>()?;
    let mut network = Network::read(batch.parse()?, &sizes, Path::new(folder))?;
    for line in io::stdin().lock().lines() {
        match line?.as_str() {
            "ready" => println!("ready"),
            "simd" => println!("{}", simd::level().name()),
            "pass" => {
                let (start, used) = (Instant::now(), processor_seconds());
                network.pass()?;
                let seconds = start.elapsed().as_secs_f64();
                println!("{seconds} {}", processor_seconds() - used);
            }
            "save" => {
                network.save()?;
                println!("saved");
            }
            line => return Err(format!("unknown command `{line}`").into()),
        }
        io::stdout().flush()?;
    }
    Ok(())
}

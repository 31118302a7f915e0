//! Every network of the rankers beside candle's: the same batch through the same parameters, forward, and forward and backward.
//!
//! `candle_speed [ROWS] [NAME]`: rows of the batch (4,096), and the one model to run. 26 categorical fields of 16 values, 13 numbers,
//! default layers, f32, no dropout; three labels where a model is made for several. In turns, the first left out; prints CSV:
//! medians in milliseconds, and the median of the turns' ratios (above 1 where ours is faster).
#![expect(clippy::print_stdout, reason = "the answers are CSV")]

use std::time::Instant;

use candle_core::DType;
use recmill_benches::networks::both;
use recmill_core::rankers::{DcnConfig, DcnStructure, RankerModel, Shape};

const TURNS: usize = 7;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs both in turns; returns the seconds of each.
fn turns(mut ours: impl FnMut(), mut theirs: impl FnMut()) -> (Vec<f64>, Vec<f64>) {
    let seconds = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..=TURNS).map(|_| (seconds(&mut ours), seconds(&mut theirs))).skip(1).unzip()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let rows = arguments.next().map_or(Ok(4096), |rows| rows.parse())?;
    let only = arguments.next();
    let mixture = DcnConfig { rank: 64, structure: DcnStructure::Stacked, ..DcnConfig::default() };
    let named = |name: &str| RankerModel::default_of(name).map(|model| (name.to_owned(), model));
    let models = RankerModel::NAMES.iter().filter_map(|name| named(name));
    let models = models.chain([("dcn-v2, stacked, rank 64".to_owned(), RankerModel::Dcn(mixture))]);
    println!("model,pass,rows,recmill_ms,candle_ms,ratio");
    for (name, model) in models.filter(|(name, _)| only.as_ref().is_none_or(|only| only == name)) {
        let several = matches!(model, RankerModel::SharedBottom(_) | RankerModel::Mmoe(_));
        let shape = Shape { n_fields: 26, n_numeric: 13, n_labels: if several { 3 } else { 1 } };
        let (ours, candle, weights) = both(&model, shape, rows, false, DType::F32)?;
        let mut failed = None;
        let mut try_candle = |pass: &dyn Fn() -> candle_core::Result<()>| {
            if let Err(error) = pass() {
                failed = Some(error);
            }
        };
        let forward = turns(|| drop(ours.forward()), || try_candle(&|| candle.forward(&model).map(drop)));
        let both = turns(
            || drop(ours.backward(ours.forward())),
            || try_candle(&|| candle.backward(&candle.forward(&model)?, &weights).map(drop)),
        );
        if let Some(error) = failed {
            return Err(error.into());
        }
        for (pass, (ours, theirs)) in [("forward", forward), ("forward and backward", both)] {
            let ratio = median(ours.iter().zip(&theirs).map(|(ours, theirs)| theirs / ours).collect());
            let [ours, theirs] = [ours, theirs].map(|seconds| 1e3 * median(seconds));
            println!("\"{name}\",{pass},{rows},{ours:.2},{theirs:.2},{ratio:.2}");
        }
    }
    Ok(())
}

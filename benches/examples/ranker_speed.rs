//! One side of `benches/peers/ranker.py`: training steps and scoring of a ranker, some a line of standard input.
//!
//! `ranker_speed MODEL.json ROWS.csv`: the model and how it learns, as config.json says it, and rows whose columns are `label`,
//! categories `c0`, `c1`, .. (each hashed to HASH_BUCKETS of the environment) and numbers `x0`, `x1`, ... Training runs in a thread
//! that waits for the next line after the steps that were asked for, so batches are loaded ahead as they always are. Commands:
//! `ready`, `simd`, `steps N` (answers with the seconds and the processor seconds, and the loss of the epoch so far), `score ROWS
//! TIMES` (so many rows, so many times; answers with the seconds and the processor seconds, by parameters as they are before
//! training).
#![expect(clippy::print_stdout, reason = "the answers are read by the script that runs this")]

#[expect(dead_code, reason = "memory is not asked about")]
mod usage;

use std::{
    error::Error,
    io::{self, BufRead, Write},
    sync::{
        atomic::AtomicBool,
        mpsc::{Receiver, Sender, channel},
    },
    time::Instant,
};

use recmill_core::{
    data::ReadOptions,
    features::{ColumnKind, Encoding, Examples, FeatureBatch, FeatureColumn, Features, Numeric, Schema},
    rankers::RankerConfig,
};
use recmill_kernels::simd;
use recmill_train::{
    Progress,
    gradient::{RankTraining, StepRecord},
};

use usage::processor_seconds;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn schema(header: &str, buckets: u32) -> Schema {
    let columns = header.split(',').map(|name| FeatureColumn {
        name: name.to_owned(),
        kind: match name.as_bytes()[0] {
            b'l' => ColumnKind::Label,
            b'c' => ColumnKind::Categorical(Encoding::Hashed { buckets }),
            _ => ColumnKind::Numeric(Numeric::default()),
        },
    });
    Schema { columns: columns.collect(), ..Schema::default() }
}

/// Waits for leave to take some steps, and answers when they are done.
struct Gate {
    leave: Receiver<u64>,
    done: Sender<String>,
    steps: u64,
    begun: (Instant, f64),
}

impl Gate {
    fn wait(&mut self) {
        // Whoever asks no more ends the process.
        self.steps = self.leave.recv().unwrap_or(u64::MAX);
        self.begun = (Instant::now(), processor_seconds());
    }
}

impl Progress for Gate {
    fn step(&mut self, record: &StepRecord) {
        self.steps -= 1;
        if self.steps == 0 {
            let (begun, used) = self.begun;
            let (seconds, used) = (begun.elapsed().as_secs_f64(), processor_seconds() - used);
            let _ = self.done.send(format!("{seconds} {used} {}", record.loss));
            self.wait();
        }
    }
}

fn main() -> Result<()> {
    // As `recmill train` does.
    recmill_kernels::memory::keep_freed_blocks();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, rows] = &arguments[..] else { return Err("ranker_speed MODEL.json ROWS.csv".into()) };
    let config: RankerConfig = serde_json::from_str(&fs_err::read_to_string(model)?)?;
    let buckets: u32 = std::env::var("HASH_BUCKETS")?.parse()?;
    let mut header = String::new();
    io::BufReader::new(fs_err::File::open(rows)?).read_line(&mut header)?;
    let (paths, read) = ([rows.clone()], ReadOptions::default());
    let (features, _) = Features::fit(&schema(header.trim_end(), buckets), &paths, &read)?;
    let (examples, _) = Examples::read(&features, &paths, &read, u64::MAX)?;
    let mut first = config.clone();
    // A ranker that has learned from one batch scores as fast as any.
    first.learning.epochs = 1;
    let some: Vec<u64> = (0..64.min(examples.len() as u64)).collect();
    let training = RankTraining::new(&first.learning, &features, &examples);
    let few = RankTraining {
        train: recmill_train::gradient::Rows { examples: &examples, rows: Some(&some) },
        ..training
    };
    let (ranker, _) = few.run(&first, &AtomicBool::new(false), &mut ())?;

    let (leave, to_leave) = channel();
    let (to_done, done) = channel();
    std::thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            let mut gate = Gate { leave: to_leave, done: to_done, steps: 0, begun: (Instant::now(), 0.0) };
            gate.wait();
            let training = RankTraining::new(&config.learning, &features, &examples);
            let ended = training.run(&config, &AtomicBool::new(false), &mut gate).map(|_| "no more epochs");
            let _ = gate.done.send(ended.unwrap_or("failed").to_owned());
        });
        for line in io::stdin().lock().lines() {
            let line = line?;
            let answer = match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["ready"] => "ready".to_owned(),
                ["simd"] => simd::level().name().to_owned(),
                ["steps", n] => {
                    leave.send(n.parse()?)?;
                    done.recv()?
                }
                ["score", rows, times] => {
                    let (rows, times): (u64, u64) = (rows.parse()?, times.parse()?);
                    let (mut batch, mut scores) = (FeatureBatch::default(), Vec::new());
                    let rows: Vec<u64> = (0..rows).collect();
                    examples.gather(&rows, &mut batch);
                    let (begun, used) = (Instant::now(), processor_seconds());
                    for _ in 0..times {
                        ranker.score(&batch, &mut scores)?;
                    }
                    format!("{} {}", begun.elapsed().as_secs_f64(), processor_seconds() - used)
                }
                _ => return Err(format!("no such command: {line}").into()),
            };
            println!("{answer}");
            io::stdout().flush()?;
        }
        // The thread waits for a line that will not come.
        std::process::exit(0)
    })
}

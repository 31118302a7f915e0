//! One side of `benches/peers/topk.py`: the best items of batches of users, one batch a line of standard input.
//!
//! `topk_speed MATRIX USERS ITEMS FACTORS K`: the matrix as three u64 (rows, columns, non-zeros), row pointers u64, columns
//! u32, values f32; factors f32. Items in a user's row are left out of the answer. Commands: `ready`, `simd` (the level that
//! was found), `answer plain|prepared FIRST COUNT` (answers with the seconds, the processor seconds and the number of
//! items), `save IDS SCORES` (the last answers, u32 and f32), `memory` (peak, KB).
#![expect(clippy::print_stdout, reason = "the answers are read by the script that runs this")]

mod files;
mod usage;

use std::{
    error::Error,
    io::{self, BufRead, Write},
    ops::Range,
    time::Instant,
};

use fs_err as fs;
use recmill_kernels::{Device, Table, TopkAnswers, TopkPrepared, TopkQuery, TopkScratch, score_topk, simd};

use files::{Sparse, read_f32, write_f32};
use usage::{peak_kb, processor_seconds};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Side {
    seen: Sparse,
    users: Vec<f32>,
    items: Table,
    dim: usize,
    k: usize,
    scratch: TopkScratch,
    answers: TopkAnswers,
}

impl Side {
    fn read([matrix, users, items, factors, k]: &[String; 5]) -> Result<Self> {
        let (dim, k) = (factors.parse()?, k.parse()?);
        let (seen, users) = (Sparse::read(matrix)?, read_f32(users)?);
        let items = Table::from_f32(&read_f32(items)?, dim, Device::Cpu, "item factors")?;
        let sizes = (seen.rows().n_rows(), seen.n_columns);
        if sizes != (users.len() / dim, items.rows() as usize) {
            return Err(format!("the matrix is {} x {}, the factors are not", sizes.0, sizes.1).into());
        }
        let (scratch, answers) = (TopkScratch::default(), TopkAnswers::default());
        Ok(Self { seen, users, items, dim, k, scratch, answers })
    }

    /// From factors and rows to answers: what a caller of the kernel does for each batch is on the clock.
    fn answer(&mut self, prepared: &TopkPrepared, users: Range<usize>) -> Result<()> {
        let rows = self.seen.rows();
        let query = |user: usize| {
            let exclude = &rows.indices[rows.indptr[user] as usize..rows.indptr[user + 1] as usize];
            let vector = &self.users[user * self.dim..(user + 1) * self.dim];
            TopkQuery { exclude, tie_key: user as u64, ..TopkQuery::new(vector, self.k) }
        };
        let queries: Vec<TopkQuery<'_>> = users.map(query).collect();
        Ok(score_topk(&self.items, prepared, None, &queries, &mut self.scratch, &mut self.answers)?)
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Ok(arguments) = <&[String; 5]>::try_from(&arguments[..]) else {
        return Err("topk_speed MATRIX USERS ITEMS FACTORS K".into());
    };
    let mut side = Side::read(arguments)?;
    let (plain, prepared) = (TopkPrepared::plain(&side.items)?, TopkPrepared::new(&side.items)?);
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["ready"] => println!("ready"),
            ["simd"] => println!("{}", simd::level().name()),
            ["answer", mode @ ("plain" | "prepared"), first, count] => {
                let (first, count) = (first.parse::<usize>()?, count.parse::<usize>()?);
                let (start, used) = (Instant::now(), processor_seconds());
                side.answer(if mode == "plain" { &plain } else { &prepared }, first..first + count)?;
                let seconds = start.elapsed().as_secs_f64();
                println!("{seconds} {} {}", processor_seconds() - used, side.answers.indices.len());
            }
            ["save", ids, scores] => {
                let bytes: Vec<u8> = side.answers.indices.iter().flat_map(|id| id.to_le_bytes()).collect();
                fs::write(ids, bytes)?;
                write_f32(scores, &side.answers.scores)?;
                println!("saved");
            }
            ["memory"] => println!("{}", peak_kb().unwrap_or_else(|| "0".into())),
            _ => return Err(format!("unknown command `{line}`").into()),
        }
        io::stdout().flush()?;
    }
    Ok(())
}

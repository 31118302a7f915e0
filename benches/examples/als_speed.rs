//! One side of `benches/peers/als.py`: ALS iterations on a matrix from a file, one a line of standard input.
//!
//! `als_speed MATRIX USERS ITEMS cg|cholesky|block FACTORS ALPHA REGULARIZATION`: the matrix as three u64 (rows, columns,
//! non-zeros), row pointers u64, columns u32, values f32; starting factors f32. Commands: `ready`, `iterate` (answers with
//! the seconds of both half-steps, the processor seconds, and those of the first half-step), `save USERS ITEMS`, `memory` (peak, KB).
#![expect(clippy::print_stdout, reason = "the answers are read by the script that runs this")]

mod files;
mod usage;

use std::{
    error::Error,
    io::{self, BufRead, Write},
    time::Instant,
};

use recmill_kernels::{AlsSystem, Device, SparseRows, Table, als_block, als_cg, als_cholesky, gram};

use files::{Sparse, read_f32, write_f32};
use usage::{peak_kb, processor_seconds};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn transposed(matrix: &Sparse) -> Sparse {
    let mut indptr = vec![0u64; matrix.n_columns + 1];
    for &column in &matrix.indices {
        indptr[column as usize + 1] += 1;
    }
    for column in 0..matrix.n_columns {
        indptr[column + 1] += indptr[column];
    }
    let mut next = indptr.clone();
    let (mut indices, mut values) = (vec![0; matrix.indices.len()], vec![0.0; matrix.indices.len()]);
    for row in 0..matrix.indptr.len() - 1 {
        for at in matrix.indptr[row] as usize..matrix.indptr[row + 1] as usize {
            let to = &mut next[matrix.indices[at] as usize];
            indices[*to as usize] = row as u32;
            values[*to as usize] = matrix.values[at];
            *to += 1;
        }
    }
    Sparse { n_columns: matrix.indptr.len() - 1, indptr, indices, values }
}

fn read_table(path: &str, dim: usize) -> Result<Table> {
    Ok(Table::from_f32(&read_f32(path)?, dim, Device::Cpu, "factors")?)
}

fn half_step(
    solver: &str,
    rows: SparseRows<'_>,
    fixed: &Table,
    solution: &mut Table,
    (alpha, regularization): (f32, f32),
) -> Result<()> {
    let gram = gram(fixed)?;
    let ridge = vec![regularization; rows.n_rows()];
    let system = AlsSystem { rows, fixed, gram: &gram, base: 0.0, scale: alpha, offset: 1.0, ridge: &ridge };
    match solver {
        "cg" => als_cg(&system, solution, 3)?,
        "cholesky" => als_cholesky(&system, solution)?,
        _ => als_block(&system, solution, 64)?,
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [matrix, users, items, solver, factors, alpha, regularization] = &arguments[..] else {
        return Err("als_speed MATRIX USERS ITEMS SOLVER FACTORS ALPHA REGULARIZATION".into());
    };
    let dim = factors.parse()?;
    let weights = (alpha.parse()?, regularization.parse()?);
    let by_user = Sparse::read(matrix)?;
    let by_item = transposed(&by_user);
    let (mut users, mut items) = (read_table(users, dim)?, read_table(items, dim)?);
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["ready"] => println!("ready"),
            ["iterate"] => {
                let (start, used) = (Instant::now(), processor_seconds());
                half_step(solver, by_user.rows(), &items, &mut users, weights)?;
                let half = processor_seconds() - used;
                half_step(solver, by_item.rows(), &users, &mut items, weights)?;
                let seconds = start.elapsed().as_secs_f64();
                println!("{seconds} {} {half}", processor_seconds() - used);
            }
            ["save", users_path, items_path] => {
                write_f32(users_path, &users.to_f32()?)?;
                write_f32(items_path, &items.to_f32()?)?;
                println!("saved");
            }
            ["memory"] => println!("{}", peak_kb().unwrap_or_else(|| "0".into())),
            _ => return Err(format!("unknown command `{line}`").into()),
        }
        io::stdout().flush()?;
    }
    Ok(())
}

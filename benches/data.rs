//! The data path: a CSV file with text ids to a dataset, in rows and megabytes a second.
//!
//! The file is small enough to stay in the operating system's memory, so that reading, not the disk, is measured.
#![expect(clippy::unwrap_used, reason = "a bench that cannot run ends")]
#![expect(clippy::print_stderr, reason = "a bench says on the terminal what it measured")]

use std::{fmt::Write, hint::black_box, path::Path};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fs_err as fs;
use recmill_benches::ceilings::{Ceilings, fastest};
use recmill_core::data::{
    InteractionReader, ReadOptions, read_dataset,
    synthetic::{Synthetic, SyntheticOptions},
};

/// A file of interactions, and what a reader must find in it.
struct File {
    path: String,
    bytes: u64,
    rows: u64,
    columns: &'static str,
}

impl File {
    /// Writes the interactions of `data`, dealt out over the file as they happen in time.
    fn write(data: &Synthetic, columns: &'static str) -> Self {
        let mut events: Vec<_> = data.events.iter().collect();
        events.sort_by_key(|event| (event.time, event.user, event.item));
        let mut text = format!("{columns}\n");
        for event in &events {
            let (user, item) = (&data.users[event.user as usize].id, &data.items[event.item as usize].id);
            write!(text, "customer-{user:0>7},B00{item:0>7}").unwrap();
            if columns.contains("timestamp") {
                write!(text, ",{},{}", event.rating, event.time).unwrap();
            }
            text.push('\n');
        }
        let name = format!("recmill-bench-{}-columns.csv", columns.split(',').count());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, &text).unwrap();
        let (path, bytes) = (path.to_str().unwrap().to_owned(), text.len() as u64);
        Self { path, bytes, rows: events.len() as u64, columns }
    }

    fn inputs(&self) -> Vec<String> {
        vec![self.path.clone()]
    }

    /// The dataset holds what was written.
    fn check(&self, data: &Synthetic) {
        let (dataset, report) = read_dataset(&self.inputs(), &ReadOptions::default(), None).unwrap();
        assert_eq!((report.rows, report.repeated_rows, report.bad_rows.len()), (self.rows, 0, 0));
        assert_eq!(dataset.by_user().nnz() as u64, self.rows);
        let users = data.events.chunk_by(|a, b| a.user == b.user).count();
        assert_eq!(dataset.n_users(), users);
        let sum: f64 = dataset.by_user().values().iter().map(|&value| f64::from(value)).sum();
        let expected = match self.columns.contains("timestamp") {
            true => data.events.iter().map(|event| f64::from(event.rating)).sum(),
            false => self.rows as f64,
        };
        assert_eq!(sum, expected);
    }
}

/// Runs `work` under criterion, and says how many rows and bytes of `file` its fastest run read in a second.
fn measure(criterion: &mut Criterion, ceilings: Ceilings, name: &str, file: &File, mut work: impl FnMut()) {
    let (operation, shape) = name.split_once('/').unwrap();
    let mut group = criterion.benchmark_group(operation);
    group.throughput(Throughput::Bytes(file.bytes)).sample_size(10);
    let mut chosen = false;
    group.bench_function(shape, |bencher| {
        chosen = true;
        bencher.iter(&mut work);
    });
    group.finish();
    if chosen {
        let seconds = fastest(5, work);
        let (rows, bytes) = (file.rows as f64 / seconds, file.bytes as f64 / seconds);
        eprintln!(
            "{name}: {:.2} million rows/s, {:.1} MB/s ({:.1} % of {:.1} GB/s from memory)",
            rows * 1e-6,
            bytes * 1e-6,
            100.0 * bytes / ceilings.bytes,
            ceilings.bytes * 1e-9,
        );
    }
}

fn csv(criterion: &mut Criterion) {
    let ceilings = Ceilings::measure();
    let data = Synthetic::generate(&SyntheticOptions::default());
    for columns in ["user_id,item_id", "user_id,item_id,rating,timestamp"] {
        let file = File::write(&data, columns);
        file.check(&data);
        let options = ReadOptions::default();
        let shape = format!("{} rows, {columns}/cpu", file.rows);
        // Cut into lines and fields, checked, and thrown away: what is left of the time is ids, sorting and hashing.
        measure(criterion, ceilings, &format!("csv_rows/{shape}"), &file, || {
            let mut reader = InteractionReader::open(&file.inputs(), &options).unwrap();
            while let Some(block) = reader.next_block().unwrap() {
                black_box(block.len());
            }
        });
        measure(criterion, ceilings, &format!("csv_dataset/{shape}"), &file, || {
            black_box(read_dataset(&file.inputs(), &options, None).unwrap());
        });
        fs::remove_file(&file.path).unwrap();
    }
}

criterion_group!(benches, csv);
criterion_main!(benches);

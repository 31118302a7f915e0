//! Reading interactions into a dataset: one thread reads and checks, the other numbers ids and places rows.

use std::sync::mpsc::sync_channel;

use super::builder::{Built, DatasetBuilder};
use super::interactions::{InteractionReader, Interactions};
use super::source::Source;
use super::{BadRows, ReadOptions, ReadReport};
use crate::{Dataset, Error, Result};

/// Batches that may wait to be numbered.
const BATCHES_AHEAD: usize = 8;

/// Reads `inputs` into one dataset; events extend `base`, whose indices keep their meaning.
///
/// An input is a file, a name with wildcards, a directory, a URL, or `-` for standard input. Memory stays within twice the
/// finished dataset plus a constant; see [`DatasetBuilder`].
///
/// # Errors
/// One variant for each thing that can be wrong with a file, its columns, its rows and the options.
pub fn read_dataset(
    inputs: &[String],
    options: &ReadOptions,
    base: Option<Dataset>,
) -> Result<(Dataset, ReadReport)> {
    build(InteractionReader::open(inputs, options)?, options, base)
}

/// Reads sources that the caller made, such as batches of another program, as [`read_dataset`] does files.
///
/// # Errors
/// Those of [`read_dataset`].
pub fn read_sources(
    sources: Vec<Box<dyn Source>>,
    options: &ReadOptions,
    base: Option<Dataset>,
) -> Result<(Dataset, ReadReport)> {
    build(InteractionReader::of_sources(sources, options)?, options, base)
}

fn build(
    mut reader: InteractionReader,
    options: &ReadOptions,
    base: Option<Dataset>,
) -> Result<(Dataset, ReadReport)> {
    let mut builder = DatasetBuilder::new(options.repeats, options.half_life, base)?;
    let (sender, batches) = sync_channel::<Result<Interactions>>(BATCHES_AHEAD);
    let mut report = std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            while let Some(batch) = reader.next_block().transpose() {
                let last = batch.is_err();
                if sender.send(batch).is_err() || last {
                    break;
                }
            }
            reader.into_report()
        });
        let pushed = batches.iter().try_for_each(|batch| builder.push(&batch?));
        // A reader that waits for room must see that nobody takes its batches any more.
        drop(batches);
        let report = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        pushed.map(|()| report)
    })?;
    let built = builder.finish(options.min_user_interactions, options.min_item_interactions)?;
    let Built { dataset, .. } = built;
    if dataset.by_user().nnz() == 0 {
        let bad: u64 = report.bad_rows.iter().map(|bad| bad.rows).sum();
        let path = report.sources.join(", ");
        // Filters may have left out what was good.
        return Err(match bad == report.rows {
            true => BadRows::nothing_left(&report.bad_rows, path),
            false => Error::NoRows { path },
        });
    }
    report.repeated_rows = built.repeated_rows;
    report.dropped_users = built.dropped_users;
    report.dropped_items = built.dropped_items;
    report.dropped_interactions = built.dropped_interactions;
    report.dropped_times = built.dropped_times;
    report.users = dataset.n_users();
    report.items = dataset.n_items();
    report.interactions = dataset.by_user().nnz();
    report.time_range = dataset.times().and_then(|times| Some((*times.iter().min()?, *times.iter().max()?)));
    report.fingerprint = dataset.fingerprint();
    Ok((dataset, report))
}

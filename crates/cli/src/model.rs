//! A model directory opened to be asked, with what its lists show and what its filters mean.

use std::{path::Path, sync::Arc};

use arrow::array::RecordBatch;
use recmill_core::{
    Answer, AnswerSource, Error as Core, Recommender, Side,
    data::{Attributes, OnBadRow, Predicate, ReadOptions},
    directory::{self, ModelDirectory, Verify},
};

use crate::{
    device_flag::DeviceFlag,
    failure::{Failure, Hint, Result},
    output::{count, counted, note},
    reading,
    titles::Titles,
    user_lists::Scored,
};

/// What a list says it is made of where neither the user nor the history is known.
pub(crate) const MOST_POPULAR: &str = "most_popular";

/// A model that answers.
pub(crate) struct Model {
    pub(crate) directory: ModelDirectory,
    pub(crate) recommender: Recommender,
    /// Columns of the items that were added, where some were.
    added: Option<RecordBatch>,
}

/// Succeeds where a model of `kind` may be written to `out`, and says so where there is one of another kind: whoever reads the directory
/// gets the new one.
pub(crate) fn check_destination(out: &Path, kind: &str) -> Result<()> {
    directory::check_destination(out)?;
    if let Ok(there) = ModelDirectory::open(out, Verify::Quick)
        && there.kind() != kind
    {
        note!("{} holds a model of {}; its next version will be one of {kind}", out.display(), there.kind());
    }
    Ok(())
}

impl Model {
    /// Opens the model at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let directory = ModelDirectory::open(path, Verify::Quick)?;
        if !directory.finds_items() {
            let does =
                if directory.is_text() { "tell what texts are about" } else { "score rows of features" };
            return Err(Failure::usage(format!("{} models {does} and find no items", directory.kind()))
                .hint(format!("recmill predict {} rows.csv, or recmill evaluate", path.display())));
        }
        Self::of(directory)
    }

    /// Opens the version that is there already, which finds items.
    pub(crate) fn of(directory: ModelDirectory) -> Result<Self> {
        Ok(Self { recommender: directory.recommender()?, directory, added: None })
    }

    /// Adds the users or items of `file` that came after training, and tells how many.
    pub(crate) fn add(&mut self, side: Side, file: &str, on_bad_row: OnBadRow) -> Result<()> {
        let options = ReadOptions { on_bad_row, ..ReadOptions::default() };
        let (attributes, report) = Attributes::read_all(file, &options).map_err(reading::of_attributes)?;
        let flag = side.name();
        let added = self.recommender.add(side, &attributes, file, on_bad_row);
        let added = added.map_err(|error| match error {
            Core::NoFeatures { .. } => Failure::failed(format!(
                "{} has learned nothing of what {flag} are like, so it cannot place new ones",
                self.kind()
            ))
            .hint(format!("recmill train two-tower --{flag} FILE learns from columns of {flag}")),
            other => other.into(),
        })?;
        let mut known = report.rows - added.ids.len() as u64;
        for bad in report.bad_rows.iter().chain(&added.bad_rows) {
            known -= bad.rows;
            reading::tell_of_bad_rows(bad, file);
        }
        let one = flag.trim_end_matches('s');
        let beside = match known {
            0 => String::new(),
            known => format!("; {} known to the model as before", count(known)),
        };
        note!("{file}: {}{beside}", counted(added.ids.len() as u64, &format!("new {one}")));
        for (column, n) in &added.unseen {
            let values = counted(*n, "value");
            note!("{file}: {column}: {values} that training did not have, from which nothing is known");
        }
        if side == Side::Items {
            self.added = Some(added.rows);
        }
        Ok(())
    }

    /// Returns the columns of all items, those that were added too; none where training was given none.
    fn item_attributes(&self) -> Result<Option<RecordBatch>> {
        let stored = self.directory.item_attributes()?;
        let Some((stored, added)) = stored.as_ref().zip(self.added.as_ref()) else { return Ok(stored) };
        Ok(Some(Attributes::new(stored.clone()).with_rows(added)?.table().clone()))
    }

    /// Scores lists where `flag` says, and tells where that is and why.
    ///
    /// A model that no GPU scores stays on the CPU, unless a GPU was asked for by name.
    pub(crate) fn score_on(&mut self, flag: DeviceFlag, work: &str) -> Result<()> {
        let on_gpu = self.recommender.retriever().scores_on_gpu();
        let (device, why) = flag.choose_for(&format!("{work} with {}", self.kind()), on_gpu)?;
        if flag == DeviceFlag::Auto {
            note!("{why}");
        }
        Ok(self.recommender.score_on(device)?)
    }

    /// Whether the model predicts the values of interactions, which it does on the processor alone.
    pub(crate) fn predicts(&self) -> Result<bool> {
        Ok(self.recommender.predict(&[], &mut Vec::new())?)
    }

    /// Returns the model's kind, such as `als`.
    pub(crate) fn kind(&self) -> &str {
        self.directory.manifest().config.model["model"].as_str().unwrap_or("unknown")
    }

    /// Returns what lists show of items.
    pub(crate) fn titles(&self) -> Result<Titles> {
        Ok(Titles::new(self.item_attributes()?.as_ref()))
    }

    /// Returns a bitmap of the items that `condition` holds for.
    pub(crate) fn items_where(&self, condition: &str) -> Result<Arc<[u64]>> {
        let Some(table) = self.item_attributes()? else {
            return Err(Failure::usage("--where needs item columns, and this model was trained without")
                .hint("train with --items FILE, whose first column is the item's id"));
        };
        let predicate: Predicate = condition.parse()?;
        let columns = || {
            table.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(", ")
        };
        let chosen = Attributes::new(table.clone()).rows_where(&predicate);
        chosen.map_err(Failure::from).hint(format!("this model's item columns are: {}", columns()))
    }

    /// Returns an item's id.
    pub(crate) fn item_id(&self, index: u32) -> &str {
        self.recommender.items().name(index).unwrap_or_default()
    }

    /// Returns the items of an answer by id.
    pub(crate) fn scored(&self, answer: &Answer) -> Vec<Scored> {
        let scored = |&(item, score): &(recmill_core::ItemIndex, f32)| Scored {
            item_id: self.item_id(item.0).to_owned(),
            score,
        };
        answer.items.iter().map(scored).collect()
    }
}

/// Returns the name of the fallback that an answer was made of, if it was.
pub(crate) fn fallback(answer: &Answer) -> Option<&'static str> {
    (answer.source == AnswerSource::MostPopular).then_some(MOST_POPULAR)
}

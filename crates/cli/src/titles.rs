//! What to call an item beside its id: its title and the columns that tell a reader most.

use arrow::{
    array::{Array, ArrayRef, RecordBatch},
    util::display::{ArrayFormatter, FormatOptions},
};

/// Names that the column of titles goes by, the best first.
const TITLE: [&str; 6] = ["title", "name", "item_name", "product_name", "description", "label"];
/// Columns shown beside the title, where they are there.
const BESIDE: [&str; 5] = ["genre", "genres", "category", "categories", "artist"];

/// The columns of an item table that lists show.
pub(crate) struct Titles {
    columns: Vec<(String, ArrayRef)>,
}

impl Titles {
    /// Chooses the columns of `attributes` to show; none where there are no attributes.
    pub(crate) fn new(attributes: Option<&RecordBatch>) -> Self {
        let mut columns = Vec::new();
        if let Some(batch) = attributes {
            let find = |names: &[&str]| {
                let fields = batch.schema();
                names.iter().find_map(|name| {
                    fields.fields().iter().position(|field| field.name().eq_ignore_ascii_case(name))
                })
            };
            for at in [find(&TITLE), find(&BESIDE)].into_iter().flatten() {
                columns.push((batch.schema().field(at).name().to_lowercase(), batch.column(at).clone()));
            }
        }
        Self { columns }
    }

    /// Returns the names of the columns shown.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, _)| name.as_str())
    }

    /// Returns what the item at `index` has in them; `-` where there is nothing.
    pub(crate) fn of(&self, index: u32) -> Vec<String> {
        let cell = |column: &ArrayRef| {
            let at = index as usize;
            if at >= column.len() || column.is_null(at) {
                return "-".to_owned();
            }
            let options = FormatOptions::default();
            let text = ArrayFormatter::try_new(column, &options).map(|format| format.value(at).to_string());
            shortened(text.as_deref().unwrap_or("-"))
        };
        self.columns.iter().map(|(_, column)| cell(column)).collect()
    }
}

/// One line of text that leaves room for its neighbours.
fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= MOST {
        return line;
    }
    let mut line: String = line.chars().take(MOST - 1).collect();
    line.push('…');
    line
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    #[test]
    fn the_title_and_the_genre_are_found() {
        let batch = RecordBatch::try_from_iter([
            ("item_id", Arc::new(StringArray::from(vec!["1", "2"])) as ArrayRef),
            ("Genre", Arc::new(StringArray::from(vec![Some("drama"), None])) as ArrayRef),
            ("year", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef),
            ("Title", Arc::new(StringArray::from(vec!["a\nb".to_owned(), "x".repeat(100)])) as ArrayRef),
        ])
        .unwrap();
        let titles = Titles::new(Some(&batch));
        assert_eq!(titles.names().collect::<Vec<_>>(), ["title", "genre"]);
        assert_eq!(titles.of(0), ["a b", "drama"]);
        let of_second = titles.of(1);
        assert_eq!((of_second[0].chars().count(), of_second[1].as_str()), (60, "-"));
        assert_eq!(titles.of(7), ["-", "-"]);
        assert!(Titles::new(None).of(0).is_empty());
    }
}

//! Texts with their labels out of files.

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    data::{
        BadRow, BadRowKind, BadRows, Cells, MAX_ID_BYTES, OnBadRow, ReadOptions, Rows, Sources, column_named,
        plain,
    },
    features::{LabelUse, RowReader},
};

/// The headers that a text is found by, letters and digits alone.
const TEXTS: [&str; 7] = ["text", "message", "utterance", "sentence", "query", "question", "content"];

/// The headers that a label is found by.
const LABELS: [&str; 7] = ["label", "intent", "class", "category", "target", "topic", "y"];

/// The columns of a text and of its label, by their names in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextColumns {
    /// The text.
    pub text: String,
    /// The label.
    pub label: String,
}

/// Texts, and what they are about.
#[derive(Clone, Debug, Default)]
pub struct TextRows {
    /// The texts.
    pub texts: Vec<String>,
    /// The label of each; empty where none were asked for.
    pub labels: Vec<String>,
    /// The line of each in its file, or its row from 1 in a file without lines.
    pub lines: Vec<u64>,
    /// The file of those from a row on.
    files: Vec<(usize, String)>,
}

impl TextRows {
    /// Takes texts and their labels that come from no file; messages count them from 1.
    ///
    /// # Errors
    /// [`Error::WrongSize`] for another number of labels; [`Error::BadRow`] for a text or a label that is empty, and for a long label.
    pub fn new(texts: Vec<String>, labels: Vec<String>) -> Result<Self> {
        if texts.len() != labels.len() {
            let (expected, got) = (texts.len(), labels.len());
            return Err(Error::WrongSize { what: "labels", side: "texts", expected, got });
        }
        let lines = (1..=texts.len() as u64).collect();
        let files = vec![(0, "texts".to_owned())];
        for (row, (text, label)) in texts.iter().zip(&labels).enumerate() {
            if let Some((kind, column, expected)) = refusal(text.trim_ascii(), label.trim_ascii()) {
                let found = match column {
                    Part::Text => text,
                    Part::Label => label,
                };
                return Err(Error::BadRow(Box::new(BadRow {
                    kind,
                    path: "texts".to_owned(),
                    line: row as u64 + 1,
                    id: None,
                    column: None,
                    expected: expected.to_owned(),
                    found: BadRow::shorten(found.as_bytes()),
                })));
            }
        }
        Ok(Self { texts, labels, lines, files })
    }

    /// Returns the file and the line of a row, for messages.
    pub fn line(&self, row: usize) -> (&str, u64) {
        let file =
            self.files.iter().rev().find(|(first, _)| *first <= row).map_or("", |(_, file)| file.as_str());
        (file, self.lines.get(row).copied().unwrap_or(0))
    }

    fn clear(&mut self) {
        self.texts.clear();
        self.labels.clear();
        self.lines.clear();
        self.files.clear();
    }
}

/// What of a row is wrong.
enum Part {
    Text,
    Label,
}

/// Returns what is wrong with a text and its label, and what would have been right.
fn refusal(text: &str, label: &str) -> Option<(BadRowKind, Part, &'static str)> {
    match () {
        () if label.is_empty() => Some((BadRowKind::EmptyText, Part::Label, "a label")),
        () if label.len() > MAX_ID_BYTES => {
            Some((BadRowKind::LongId, Part::Label, "a label of at most 256 bytes"))
        }
        () if text.is_empty() => Some((BadRowKind::EmptyText, Part::Text, "a text")),
        () => None,
    }
}

/// Finds the columns of the first of `paths`: those that are named, otherwise by their headers.
///
/// Names are those of the header, whatever their case, or numbers from 1.
///
/// # Errors
/// [`Error::NoSuchColumn`] with the columns there are; [`Error::BadFile`] where both are one; those of [`Sources::open`].
pub fn find_text_columns(
    paths: &[String],
    read: &ReadOptions,
    text: Option<&str>,
    label: Option<&str>,
) -> Result<TextColumns> {
    let mut sources = Sources::open(paths, read)?;
    let Some(mut source) = sources.next_source()? else {
        return Err(Error::NoFiles { path: paths.join(", ") });
    };
    let location = source.location().to_owned();
    let names: Vec<String> = source.columns()?.fields().iter().map(|field| field.name().clone()).collect();
    let find = |wanted: Option<&str>, usual: &[&'static str]| -> Result<String> {
        if let Some(wanted) = wanted {
            return Ok(names[column_named(&location, &names, wanted)?].clone());
        }
        let found = usual.iter().find_map(|usual| names.iter().find(|name| plain(name) == *usual));
        found.cloned().ok_or_else(|| Error::NoSuchColumn {
            path: location.clone(),
            column: usual[0].to_owned(),
            known: names.join(", "),
        })
    };
    let columns = TextColumns { text: find(text, &TEXTS)?, label: find(label, &LABELS)? };
    if columns.text == columns.label {
        let what = format!("column `{}` cannot be both the text and its label", columns.text);
        return Err(Error::BadFile { path: location, what });
    }
    Ok(columns)
}

/// Reads the texts of files, block by block.
pub struct TextReader<'a> {
    columns: &'a TextColumns,
    labels: LabelUse,
    on_bad_row: OnBadRow,
    rows: RowReader,
    bad: Vec<BadRows>,
}

impl<'a> TextReader<'a> {
    /// Finds the files that `paths` stand for; each is opened when its turn comes.
    ///
    /// # Errors
    /// Those of [`Sources::open`].
    pub fn open(
        columns: &'a TextColumns,
        paths: &[String],
        read: &ReadOptions,
        labels: LabelUse,
    ) -> Result<Self> {
        let mut names = vec![columns.text.clone()];
        if labels == LabelUse::Required {
            names.push(columns.label.clone());
        }
        let rows = RowReader::new(Sources::open(paths, read)?, names, false);
        Ok(Self { columns, labels, on_bad_row: read.on_bad_row, rows, bad: Vec::new() })
    }

    /// Replaces what is in `out` by the next rows, a few thousand; returns whether there were any.
    ///
    /// # Errors
    /// [`Error::NoSuchColumn`]; [`Error::BadFile`]; [`Error::BadRow`] for a row that cannot be used, unless such are left out.
    pub fn next_rows(&mut self, out: &mut TextRows) -> Result<bool> {
        out.clear();
        while out.texts.is_empty() {
            let Some((location, rows)) = self.rows.next_rows()? else { return Ok(false) };
            self.append(&rows, &location, out)?;
        }
        Ok(true)
    }

    /// Returns the rows that were left out so far.
    pub fn bad_rows(&self) -> &[BadRows] {
        &self.bad
    }

    fn append(&mut self, rows: &Rows, location: &str, out: &mut TextRows) -> Result<()> {
        let cells = |name: &str| -> Result<Cells> {
            let array = rows.batch.column_by_name(name).ok_or_else(|| Error::NoSuchColumn {
                path: location.to_owned(),
                column: name.to_owned(),
                known: String::new(),
            })?;
            Cells::new(array.clone()).map_err(|found| Error::BadFile {
                path: location.to_owned(),
                what: format!("column `{name}`: expected text, found `{found}`"),
            })
        };
        let texts = cells(&self.columns.text)?;
        let labels = match self.labels {
            LabelUse::Required => Some(cells(&self.columns.label)?),
            LabelUse::Ignored => None,
        };
        for bad in &rows.bad {
            self.refuse(bad.clone())?;
        }
        let bad = |row: usize, kind, column: &str, expected: &str, found: &str| BadRow {
            kind,
            path: location.to_owned(),
            line: rows.lines.of(row),
            id: None,
            column: Some(column.to_owned()),
            expected: expected.to_owned(),
            found: BadRow::shorten(found.as_bytes()),
        };
        out.files.push((out.texts.len(), location.to_owned()));
        let (mut buffer, mut label_buffer) = (String::new(), String::new());
        for row in 0..rows.batch.num_rows() {
            let text = texts.trimmed(row, &mut buffer);
            if let Some(labels) = &labels {
                let label = labels.trimmed(row, &mut label_buffer);
                let refused = refusal(text, label).map(|(kind, part, expected)| match part {
                    Part::Text => bad(row, kind, &self.columns.text, expected, text),
                    Part::Label => bad(row, kind, &self.columns.label, expected, label),
                });
                if let Some(refused) = refused {
                    self.refuse(refused)?;
                    continue;
                }
                out.labels.push(label.to_owned());
            }
            out.texts.push(text.to_owned());
            out.lines.push(rows.lines.of(row));
        }
        Ok(())
    }

    fn refuse(&mut self, bad: BadRow) -> Result<()> {
        match self.on_bad_row {
            OnBadRow::Fail => Err(Error::BadRow(Box::new(bad))),
            OnBadRow::Skip => {
                BadRows::count(&mut self.bad, &bad);
                Ok(())
            }
        }
    }
}

/// Reads all texts of files with their labels.
///
/// # Errors
/// As [`TextReader::next_rows`]; [`Error::NoRows`] where there are none.
pub fn read_texts(
    columns: &TextColumns,
    paths: &[String],
    read: &ReadOptions,
) -> Result<(TextRows, Vec<BadRows>)> {
    let mut reader = TextReader::open(columns, paths, read, LabelUse::Required)?;
    let (mut all, mut some) = (TextRows::default(), TextRows::default());
    while reader.next_rows(&mut some)? {
        let first = all.texts.len();
        all.files.extend(some.files.drain(..).map(|(at, file)| (first + at, file)));
        all.texts.append(&mut some.texts);
        all.labels.append(&mut some.labels);
        all.lines.append(&mut some.lines);
    }
    all.files.dedup_by(|b, a| a.1 == b.1);
    match all.texts.is_empty() {
        true => Err(BadRows::nothing_left(&reader.bad, paths.join(", "))),
        false => Ok((all, reader.bad)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
        let path = folder.path().join(name);
        fs_err::write(&path, text).unwrap();
        path.display().to_string()
    }

    #[test]
    fn texts_and_labels_of_several_files() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [
            file(&folder, "a.csv", "Intent,Text,n\ngreet,\" hello, you \",1\nask,how?,2\n"),
            file(&folder, "b.jsonl", "{\"Text\": \"bye\", \"Intent\": \"leave\"}\n"),
        ];
        let read = ReadOptions::default();
        let columns = find_text_columns(&paths, &read, None, None).unwrap();
        assert_eq!((columns.text.as_str(), columns.label.as_str()), ("Text", "Intent"));
        let (rows, bad) = read_texts(&columns, &paths, &read).unwrap();
        assert_eq!(rows.texts, ["hello, you", "how?", "bye"]);
        assert_eq!(rows.labels, ["greet", "ask", "leave"]);
        assert!(bad.is_empty());
        assert_eq!(rows.line(1), (paths[0].as_str(), 3));
        assert_eq!(rows.line(2), (paths[1].as_str(), 1));
        let by_number = find_text_columns(&paths, &read, Some("2"), Some("INTENT")).unwrap();
        assert_eq!(by_number, columns);
    }

    #[test]
    fn what_cannot_be_used_is_named_or_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [file(&folder, "a.csv", "text,label\nhello,\n,greet\nhi,greet\n")];
        let mut read = ReadOptions::default();
        let columns = find_text_columns(&paths, &read, None, None).unwrap();
        let told = read_texts(&columns, &paths, &read).unwrap_err().to_string();
        assert!(told.contains("a.csv") && told.contains("a.csv:2") && told.contains("label"), "{told}");
        read.on_bad_row = OnBadRow::Skip;
        let (rows, bad) = read_texts(&columns, &paths, &read).unwrap();
        assert_eq!((rows.texts.len(), bad.len(), bad[0].rows), (1, 1, 2));
        // To be asked about, a text may be empty and needs no label.
        let mut reader = TextReader::open(&columns, &paths, &read, LabelUse::Ignored).unwrap();
        let mut rows = TextRows::default();
        assert!(reader.next_rows(&mut rows).unwrap());
        assert_eq!(rows.texts, ["hello", "", "hi"]);
        assert!(!reader.next_rows(&mut rows).unwrap());

        assert!(matches!(find_text_columns(&paths, &read, None, Some("text")), Err(Error::BadFile { .. })));
        let other = [file(&folder, "b.csv", "body,topic\nx,y\n")];
        let told = find_text_columns(&other, &read, None, None).unwrap_err().to_string();
        assert!(told.contains("text") && told.contains("body, topic"), "{told}");
        let empty = [file(&folder, "c.csv", "text,label\n")];
        assert!(matches!(read_texts(&columns, &empty, &read), Err(Error::NoRows { .. })));
    }
}

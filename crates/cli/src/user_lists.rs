//! Whom to recommend to, from a file of any length, and where the lists go: csv, jsonl or parquet, block by block.
//!
//! | format  | columns, or keys of a line                                              |
//! |---------|-------------------------------------------------------------------------|
//! | csv     | `user_id,rank,item_id,score,fallback`, one row an item                  |
//! | jsonl   | `{"user_id", "recommendations": [{"item_id", "score"}], "fallback"?}`    |
//! | parquet | as csv                                                                  |
//!
//! Memory is that of one block of users, whatever the length of the file.

use std::{
    fmt,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use arrow::{
    array::{Float32Builder, RecordBatch, StringBuilder, UInt32Builder},
    datatypes::{DataType, Field, Schema},
};
use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};
use serde::Serialize;

use crate::failure::{Failure, Result};

/// An item and its score, as every list prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Scored {
    /// The item's id.
    pub(crate) item_id: String,
    /// Its score.
    pub(crate) score: f32,
}

/// What one user is given.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct UserList {
    /// The user's id; absent for a history that nobody bears a name for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_id: Option<String>,
    /// The items, best first.
    pub(crate) recommendations: Vec<Scored>,
    /// What the list is made of where neither the user nor their history is known: `most_popular`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fallback: Option<&'static str>,
}

/// How lists are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListFormat {
    /// Text with commas.
    Csv,
    /// One JSON object a user.
    Jsonl,
    /// Apache Parquet.
    Parquet,
}

impl FromStr for ListFormat {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "csv" => Ok(ListFormat::Csv),
            "jsonl" => Ok(ListFormat::Jsonl),
            "parquet" => Ok(ListFormat::Parquet),
            _ => Err("expected csv, jsonl or parquet".to_owned()),
        }
    }
}

impl fmt::Display for ListFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ListFormat::Csv => "csv",
            ListFormat::Jsonl => "jsonl",
            ListFormat::Parquet => "parquet",
        })
    }
}

/// Where lists go: `csv` and the like mean standard output in this format, anything else is a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListOutput {
    /// The file; standard output where there is none.
    pub(crate) path: Option<PathBuf>,
    /// The format.
    pub(crate) format: ListFormat,
}

impl FromStr for ListOutput {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if let Ok(format) = text.parse() {
            return Ok(Self { path: None, format });
        }
        let ending = Path::new(text).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        match ending.to_ascii_lowercase().as_str() {
            "ndjson" => Ok(Self { path: Some(text.into()), format: ListFormat::Jsonl }),
            ending => match ending.parse() {
                Ok(format) => Ok(Self { path: Some(text.into()), format }),
                Err(_) => {
                    Err("expected a file that ends in .csv, .jsonl or .parquet, or one of these words"
                        .to_owned())
                }
            },
        }
    }
}

/// Writes lists in one format.
pub(crate) enum ListWriter<W: Write + Send> {
    Csv(Box<csv::Writer<W>>),
    Jsonl(W),
    Parquet(Box<ArrowWriter<W>>, Arc<Schema>),
}

impl<W: Write + Send> ListWriter<W> {
    /// Begins a file.
    pub(crate) fn new(out: W, format: ListFormat) -> Result<Self> {
        Ok(match format {
            ListFormat::Csv => {
                let mut writer = csv::Writer::from_writer(out);
                writer
                    .write_record(["user_id", "rank", "item_id", "score", "fallback"])
                    .map_err(csv_failure)?;
                ListWriter::Csv(Box::new(writer))
            }
            ListFormat::Jsonl => ListWriter::Jsonl(out),
            ListFormat::Parquet => {
                let field = |name: &str, kind, nullable| Field::new(name, kind, nullable);
                let schema = Arc::new(Schema::new(vec![
                    field("user_id", DataType::Utf8, false),
                    field("rank", DataType::UInt32, false),
                    field("item_id", DataType::Utf8, false),
                    field("score", DataType::Float32, false),
                    field("fallback", DataType::Utf8, true),
                ]));
                // Row groups are closed by rows, so this bounds what the writer holds.
                let properties = WriterProperties::builder()
                    .set_compression(Compression::SNAPPY)
                    .set_max_row_group_row_count(Some(1 << 18))
                    .build();
                let writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties));
                ListWriter::Parquet(Box::new(writer.map_err(parquet_failure)?), schema)
            }
        })
    }

    /// Writes the lists of a block of users.
    pub(crate) fn write(&mut self, lists: &[UserList]) -> Result<()> {
        match self {
            ListWriter::Csv(writer) => {
                for (list, rank, item) in rows(lists) {
                    let (rank, score) = (rank.to_string(), item.score.to_string());
                    let fallback = list.fallback.unwrap_or_default();
                    writer
                        .write_record([user(list), &rank, &item.item_id, &score, fallback])
                        .map_err(csv_failure)?;
                }
            }
            ListWriter::Jsonl(out) => {
                for list in lists {
                    serde_json::to_writer(&mut *out, list).map_err(std::io::Error::from)?;
                    out.write_all(b"\n")?;
                }
            }
            ListWriter::Parquet(writer, schema) => {
                let (mut users, mut ranks, mut items) =
                    (StringBuilder::new(), UInt32Builder::new(), StringBuilder::new());
                let (mut scores, mut fallbacks) = (Float32Builder::new(), StringBuilder::new());
                for (list, rank, item) in rows(lists) {
                    users.append_value(user(list));
                    ranks.append_value(rank as u32);
                    items.append_value(&item.item_id);
                    scores.append_value(item.score);
                    fallbacks.append_option(list.fallback);
                }
                let batch = RecordBatch::try_new(
                    Arc::clone(schema),
                    vec![
                        Arc::new(users.finish()),
                        Arc::new(ranks.finish()),
                        Arc::new(items.finish()),
                        Arc::new(scores.finish()),
                        Arc::new(fallbacks.finish()),
                    ],
                );
                let batch = batch.map_err(|error| Failure::failed(error.to_string()))?;
                writer.write(&batch).map_err(parquet_failure)?;
            }
        }
        Ok(())
    }

    /// Ends the file and gives back what it was written to.
    pub(crate) fn finish(self) -> Result<W> {
        match self {
            ListWriter::Csv(writer) => writer.into_inner().map_err(|error| error.into_error().into()),
            ListWriter::Jsonl(out) => Ok(out),
            ListWriter::Parquet(writer, _) => writer.into_inner().map_err(parquet_failure),
        }
    }
}

fn user(list: &UserList) -> &str {
    list.user_id.as_deref().unwrap_or_default()
}

fn rows(lists: &[UserList]) -> impl Iterator<Item = (&UserList, usize, &Scored)> {
    lists
        .iter()
        .flat_map(|list| list.recommendations.iter().zip(1..).map(move |(item, rank)| (list, rank, item)))
}

fn csv_failure(error: csv::Error) -> Failure {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error.into(),
        other => Failure::failed(format!("{other:?}")),
    }
}

fn parquet_failure(error: parquet::errors::ParquetError) -> Failure {
    match error {
        parquet::errors::ParquetError::External(error) => match error.downcast::<std::io::Error>() {
            Ok(error) => (*error).into(),
            Err(error) => Failure::failed(error.to_string()),
        },
        other => Failure::failed(other.to_string()),
    }
}

/// Ids out of a text file: one a line, or the user column of a CSV file with a header.
pub(crate) struct UserFile {
    path: PathBuf,
    rows: csv::Reader<Box<dyn Read>>,
    column: usize,
    /// The first line, where it is no header.
    first: Option<String>,
}

impl UserFile {
    /// Opens `path`, or standard input for `-`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let raw: Box<dyn Read> = if path.as_os_str() == "-" {
            Box::new(std::io::stdin())
        } else {
            Box::new(fs_err::File::open(path)?)
        };
        let mut text = BufReader::new(raw);
        let mut line = Vec::new();
        text.read_until(b'\n', &mut line)
            .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
        let mut fields = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(&line[..]);
        let mut head = csv::StringRecord::new();
        let read = fields.read_record(&mut head);
        let wrong = |error: csv::Error| Failure::failed(format!("{}:1: {error}", path.display()));
        if !read.map_err(wrong)? {
            return Err(Failure::failed(format!(
                "{}: expected the ids of users, found an empty file",
                path.display()
            )));
        }
        let named = head.iter().position(is_user_column);
        if named.is_none() && head.len() > 1 {
            return Err(Failure::failed(format!(
                "{}:1: {} columns and none is called user_id",
                path.display(),
                head.len()
            ))
            .hint("a file of users has one id a line, or a header with user_id"));
        }
        let first = named.is_none().then(|| head[0].trim().to_owned());
        let rows =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(Box::new(text) as _);
        Ok(Self { path: path.to_owned(), rows, column: named.unwrap_or(0), first })
    }

    /// Writes up to `most` ids to `users`; none at the end of the file.
    pub(crate) fn next_block(&mut self, most: usize, users: &mut Vec<String>) -> Result<()> {
        users.clear();
        users.extend(self.first.take().filter(|id| !id.is_empty()));
        let mut row = csv::StringRecord::new();
        while users.len() < most {
            let read = self.rows.read_record(&mut row);
            let wrong = |error: csv::Error| Failure::failed(format!("{}: {error}", self.path.display()));
            if !read.map_err(wrong)? {
                break;
            }
            let id = row.get(self.column).map_or("", str::trim);
            if id.is_empty() {
                let line = row.position().map_or(0, csv::Position::line) + 1;
                return Err(Failure::failed(format!(
                    "{}:{line}: expected the id of a user, found ``",
                    self.path.display()
                )));
            }
            users.push(id.to_owned());
        }
        Ok(())
    }
}

fn is_user_column(name: &str) -> bool {
    let letters: String = name.chars().filter(|c| c.is_alphanumeric()).collect();
    ["user", "userid", "uid", "customer", "customerid", "visitorid"]
        .contains(&letters.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists() -> Vec<UserList> {
        let scored = |id: &str, score| Scored { item_id: id.into(), score };
        vec![
            UserList {
                user_id: Some("a,b".into()),
                recommendations: vec![scored("x", 1.5), scored("y", 0.25)],
                fallback: None,
            },
            UserList {
                user_id: Some("c".into()),
                recommendations: vec![scored("x", 3.0)],
                fallback: Some("most_popular"),
            },
        ]
    }

    fn written(format: ListFormat) -> Vec<u8> {
        let mut writer = ListWriter::new(Vec::new(), format).unwrap();
        writer.write(&lists()[..1]).unwrap();
        writer.write(&lists()[1..]).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn text_formats() {
        assert_eq!(
            String::from_utf8(written(ListFormat::Csv)).unwrap(),
            "user_id,rank,item_id,score,fallback\n\"a,b\",1,x,1.5,\n\"a,b\",2,y,0.25,\nc,1,x,3,most_popular\n"
        );
        assert_eq!(
            String::from_utf8(written(ListFormat::Jsonl)).unwrap(),
            "{\"user_id\":\"a,b\",\"recommendations\":[{\"item_id\":\"x\",\"score\":1.5},{\"item_id\":\"y\",\"score\":0.25}]}\n\
             {\"user_id\":\"c\",\"recommendations\":[{\"item_id\":\"x\",\"score\":3.0}],\"fallback\":\"most_popular\"}\n"
        );
    }

    #[test]
    fn parquet_holds_the_same_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lists.parquet");
        fs_err::write(&path, written(ListFormat::Parquet)).unwrap();
        let file = fs_err::File::open(&path).unwrap().into_parts().0;
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let batches: Vec<RecordBatch> = reader.build().unwrap().map(|batch| batch.unwrap()).collect();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
        assert_eq!(batches[0].schema().field(2).name(), "item_id");
    }

    #[test]
    fn outputs_are_told_apart() {
        let output = |text: &str| text.parse::<ListOutput>();
        assert_eq!(output("csv").unwrap(), ListOutput { path: None, format: ListFormat::Csv });
        assert_eq!(output("a/b.JSONL").unwrap().format, ListFormat::Jsonl);
        assert_eq!(output("b.parquet").unwrap().path, Some("b.parquet".into()));
        assert!(output("b.txt").is_err() && output("b").is_err());
    }

    #[test]
    fn users_are_read_from_lines_and_from_a_column() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let read = |text: &str| -> Result<Vec<String>> {
            fs_err::write(&path, text).unwrap();
            let (mut file, mut all, mut block) = (UserFile::open(&path)?, Vec::new(), Vec::new());
            loop {
                file.next_block(2, &mut block)?;
                if block.is_empty() {
                    return Ok(all);
                }
                all.append(&mut block);
            }
        };
        assert_eq!(read("a\nb b\r\n\nc").unwrap(), ["a", "b b", "c"]);
        assert_eq!(read("\"a,x\"\nb\n").unwrap(), ["a,x", "b"]);
        assert_eq!(read("User ID\n7\n8\n9\n").unwrap(), ["7", "8", "9"]);
        assert_eq!(read("age,user_id\n1,7\n2,\"8,\"\n").unwrap(), ["7", "8,"]);
        assert!(read("").is_err() && read("a,b\n").is_err() && read("age,user_id\n1\n").is_err());
    }
}

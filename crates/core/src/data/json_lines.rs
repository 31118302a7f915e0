//! JSON lines: one object a line, as columns of text.
//!
//! The columns are the keys of the first objects. A number becomes the text that a CSV file would have (`12` and `12.0`
//! are `12`), null and a missing key are null. Lines are parsed by serde_json and not by arrow-json, so that a bad line
//! is named and leaves the next ones readable.

use std::fmt;
use std::io::Read;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde_json::Value;

use super::lines::LineBlocks;
use super::source::{Lines, Rows, Source};
use super::{BadRow, BadRowKind};
use crate::{Error, Result};

/// The objects that are asked for their keys.
const SAMPLE: usize = 1_000;

/// A stream of JSON objects.
pub(super) struct JsonLines {
    blocks: LineBlocks,
    names: Vec<String>,
    schema: SchemaRef,
    line: u64,
    /// Whether lists and objects are taken, as JSON: where all columns are wanted, none of them for an id or a number.
    nested: bool,
}

impl JsonLines {
    pub(super) fn open(location: &str, reader: Box<dyn Read + Send>) -> Result<Self> {
        let mut blocks = LineBlocks::new(location, reader);
        if !blocks.advance(false)? {
            return Err(Error::EmptyFile { path: location.to_owned() });
        }
        let mut names = Vec::new();
        let lines = blocks.window().split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        for line in lines.take(SAMPLE) {
            // What is wrong with a line is told when its rows are read.
            let _ = serde_json::Deserializer::from_slice(line).deserialize_map(Keys(&mut names));
        }
        let schema = text_schema(&names);
        Ok(Self { blocks, names, schema, line: 1, nested: true })
    }

    fn parse(&mut self, columns: &mut [StringBuilder], lines: &mut Vec<u64>, bad: &mut Vec<BadRow>) -> usize {
        let block = self.blocks.window();
        let mut fields = vec![None; self.names.len()];
        for line in block.split_inclusive(|&byte| byte == b'\n') {
            let number = self.line;
            self.line += 1;
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            fields.fill(None);
            let mut deserializer = serde_json::Deserializer::from_slice(line);
            let object = Object { names: &self.names, nested: self.nested, fields: &mut fields };
            let parsed = object.deserialize(&mut deserializer).and_then(|()| deserializer.end());
            if let Err(error) = parsed {
                let utf8 = std::str::from_utf8(line).is_ok();
                bad.push(BadRow {
                    kind: if utf8 { BadRowKind::InvalidJson } else { BadRowKind::InvalidUtf8 },
                    path: self.blocks.location().to_owned(),
                    line: number,
                    id: None,
                    column: None,
                    expected: if utf8 { format!("a JSON object ({error})") } else { "UTF-8 text".to_owned() },
                    found: BadRow::shorten(line),
                });
                continue;
            }
            for (column, field) in columns.iter_mut().zip(&fields) {
                column.append_option(field.as_deref());
            }
            lines.push(number);
        }
        block.len()
    }
}

impl Source for JsonLines {
    fn location(&self) -> &str {
        self.blocks.location()
    }

    fn columns(&mut self) -> Result<SchemaRef> {
        Ok(self.schema.clone())
    }

    fn select(&mut self, columns: &[usize]) -> Result<()> {
        self.names = columns.iter().map(|&column| self.names[column].clone()).collect();
        self.schema = text_schema(&self.names);
        self.nested = false;
        Ok(())
    }

    fn select_with_lists(&mut self, columns: &[usize]) -> Result<()> {
        self.select(columns)?;
        self.nested = true;
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Rows>> {
        loop {
            if self.blocks.window().is_empty() && !self.blocks.advance(false)? {
                return Ok(None);
            }
            let mut columns: Vec<StringBuilder> = self.names.iter().map(|_| StringBuilder::new()).collect();
            let (mut lines, mut bad) = (Vec::new(), Vec::new());
            let consumed = self.parse(&mut columns, &mut lines, &mut bad);
            self.blocks.consume(consumed);
            if lines.is_empty() && bad.is_empty() {
                continue;
            }
            let arrays = columns.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(lines.len()));
            let batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options).map_err(
                |error| Error::BadFile { path: self.location().to_owned(), what: error.to_string() },
            )?;
            return Ok(Some(Rows { batch, lines: Lines::listed(lines), bad }));
        }
    }
}

fn text_schema(names: &[String]) -> SchemaRef {
    Arc::new(Schema::new(names.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect::<Vec<_>>()))
}

/// Collects the keys of an object in the order of their first appearance.
struct Keys<'a>(&'a mut Vec<String>);

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<IgnoredAny>()?;
            if !self.0.contains(&key) {
                self.0.push(key);
            }
        }
        Ok(())
    }
}

/// Takes the named fields out of an object and passes over the others.
struct Object<'a> {
    names: &'a [String],
    nested: bool,
    fields: &'a mut [Option<String>],
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(place) = map.next_key_seed(Place(self.names))? {
            match place {
                Some(place) => self.fields[place] = map.next_value_seed(Scalar { nested: self.nested })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Finds a key among the names without keeping it.
struct Place<'a>(&'a [String]);

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Place<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> std::result::Result<Option<usize>, E> {
        Ok(self.0.iter().position(|name| name == key))
    }
}

/// A value as the text that a CSV file would have; a list or an object, where it may be one, as JSON.
struct Scalar {
    nested: bool,
}

impl<'de> DeserializeSeed<'de> for Scalar {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Option<String>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalar {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, true, false or null")
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Self::Value, E> {
        Ok(Some(value.to_owned()))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Self::Value, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Self::Value, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Self::Value, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Self::Value, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> std::result::Result<Self::Value, A::Error> {
        match self.nested {
            true => Ok(Some(Value::deserialize(SeqAccessDeserializer::new(seq))?.to_string())),
            false => Err(A::Error::invalid_type(Unexpected::Seq, &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Self::Value, A::Error> {
        match self.nested {
            true => Ok(Some(Value::deserialize(MapAccessDeserializer::new(map))?.to_string())),
            false => Err(A::Error::invalid_type(Unexpected::Map, &self)),
        }
    }
}

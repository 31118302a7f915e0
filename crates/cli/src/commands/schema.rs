//! `recmill schema`: what each column of a file is to a ranker, as TOML to be edited.

use std::io::Write;

use clap::Args;
use recmill_core::features::{Schema, SchemaReport};
use serde::Serialize;

use crate::{
    failure::Result,
    feature_flags::{FeatureFlags, FileFlags, tell},
    output::Out,
};

/// Arguments of `recmill schema`.
#[derive(Args)]
#[command(
    after_help = "Prints TOML, with the reason of each guess beside its column; what was guessed, why, and which flag \
    makes something else of it goes to standard error. With --schema it checks and prints a schema that is there.\n\n\
    Example: recmill schema clicks.parquet --label clicked > schema.toml"
)]
pub(crate) struct SchemaCommand {
    /// Rows with features and a label: files, directories, patterns such as 'data/*.csv', URLs, or - for standard input.
    #[arg(required = true)]
    data: Vec<String>,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    features: FeatureFlags,
    #[command(flatten)]
    reading: FileFlags,
}

/// The JSON object.
#[derive(Serialize)]
struct Printed<'a> {
    schema: &'a Schema,
    report: Option<&'a SchemaReport>,
}

impl SchemaCommand {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<()> {
        let read = self.reading.options();
        let (schema, report) = self.features.schema(&self.data, &read)?;
        let mut out = Out::new();
        if self.json {
            out.json(&Printed { schema: &schema, report: report.as_ref() })?;
            return out.finish();
        }
        if let Some(report) = &report {
            tell(report)?;
        }
        out.write_all(schema.to_toml(report.as_ref().unwrap_or(&SchemaReport::default())).as_bytes())?;
        out.finish()
    }
}

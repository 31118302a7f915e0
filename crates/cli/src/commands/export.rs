//! `recmill export`: the vectors of a model's items and users, as Parquet for other systems.

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};
use clap::Args;
use parquet::arrow::ArrowWriter;
use recmill_core::{Ids, directory::replace_file};
use recmill_kernels::Table;
use serde_json::json;

use crate::{
    failure::{Failure, Result},
    model::Model,
    output::{Out, count, counted, note},
};

/// Rows that are written at once.
const ROWS: usize = 1 << 16;

/// Arguments of `recmill export`.
#[derive(Args)]
#[command(
    after_help = "Writes Parquet: the id as text, and the vector as a list of 32-bit numbers, one row an item. A score is the product of \
    a user's vector and an item's, and the item's bias where there is one.\n\n\
    Example: recmill export model --vectors items.parquet"
)]
pub(crate) struct Export {
    /// Model directory, or one of its versions such as model/versions/7.
    model: PathBuf,
    /// Where to write the items' vectors.
    #[arg(long, value_name = "FILE", required_unless_present = "user_vectors")]
    vectors: Option<PathBuf>,
    /// Where to write the users' vectors, of models that have some.
    #[arg(long, value_name = "FILE")]
    user_vectors: Option<PathBuf>,
    /// Prints one JSON object when done.
    #[arg(long)]
    json: bool,
}

impl Export {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<()> {
        let absolute = |path: &Option<PathBuf>| path.as_ref().and_then(|path| std::path::absolute(path).ok());
        if self.vectors.is_some() && absolute(&self.vectors) == absolute(&self.user_vectors) {
            return Err(Failure::usage("--vectors and --user-vectors name the same file"));
        }
        let model = Model::open(&self.model)?;
        let retriever = model.recommender.retriever();
        let table = |name: &str, of: &str| {
            retriever.table(name).ok_or_else(|| {
                let failure = Failure::failed(format!("{} has no vectors of {of}", model.kind()));
                match (of, retriever.table("item_factors").is_some()) {
                    ("users", true) => {
                        failure.hint("it answers users from their history; --vectors writes those of items")
                    }
                    _ => failure
                        .hint("als, bpr, lmf, warp, mf, two-tower, svd, sasrec and gru4rec have vectors"),
                }
            })
        };
        // Both are there, or nothing is written.
        let items =
            self.vectors.as_deref().map(|path| Ok::<_, Failure>((path, table("item_factors", "items")?)));
        let items = items.transpose()?;
        let users = self
            .user_vectors
            .as_deref()
            .map(|path| Ok::<_, Failure>((path, table("user_factors", "users")?)));
        let users = users.transpose()?;
        let mut parameters = retriever.parameters()?;
        let mut bias = |name| parameters.take_f32(name).ok().map(|values| values.to_vec()).transpose();
        if let Some((path, table)) = items {
            write(path, "item_id", model.recommender.items(), table, bias("item_bias")?)?;
            tell(path, table, "item");
        }
        if let Some((path, table)) = users {
            write(path, "user_id", model.recommender.users(), table, bias("user_bias")?)?;
            tell(path, table, "user");
        }
        let mut out = Out::new();
        if self.json {
            let of = |side: Option<(&Path, &Table)>| {
                side.map(
                    |(path, table)| json!({ "path": path, "rows": table.rows(), "factors": table.dim() }),
                )
            };
            out.json(&json!({
                "items": of(items), "users": of(users), "model_version": model.directory.version(),
            }))?;
        }
        out.finish()
    }
}

fn tell(path: &Path, table: &Table, of: &str) {
    note!("wrote {}: {} of {} numbers", path.display(), counted(table.rows(), of), count(table.dim() as u64));
}

/// Writes a table with its ids; the file is there whole or not at all.
fn write(path: &Path, id: &str, ids: &dyn Ids, table: &Table, bias: Option<Vec<f32>>) -> Result<()> {
    let told = |error: &dyn std::error::Error| Failure::failed(format!("{}: {error}", path.display()));
    let number = Arc::new(Field::new("item", DataType::Float32, false));
    let list = DataType::FixedSizeList(Arc::clone(&number), table.dim() as i32);
    let mut fields = vec![Field::new(id, DataType::Utf8, false), Field::new("vector", list, false)];
    fields.extend(bias.as_ref().map(|_| Field::new("bias", DataType::Float32, false)));
    let schema = Arc::new(Schema::new(fields));
    let all = |out: &mut (dyn Write + Send)| -> Result<()> {
        let mut writer =
            ArrowWriter::try_new(out, Arc::clone(&schema), None).map_err(|error| told(&error))?;
        for first in (0..table.rows() as usize).step_by(ROWS) {
            let rows = first..(first + ROWS).min(table.rows() as usize);
            let names = rows.clone().map(|row| ids.name(row as u32).unwrap_or_default());
            let mut values = vec![0.0; rows.len() * table.dim()];
            for (row, values) in rows.clone().zip(values.chunks_exact_mut(table.dim())) {
                table.read_row(row as u64, values)?;
            }
            let values: ArrayRef = Arc::new(Float32Array::from(values));
            let vectors = FixedSizeListArray::try_new(Arc::clone(&number), table.dim() as i32, values, None);
            let mut columns: Vec<ArrayRef> = vec![
                Arc::new(StringArray::from_iter_values(names)),
                Arc::new(vectors.map_err(|error| told(&error))?),
            ];
            columns.extend(
                bias.as_ref().map(|bias| Arc::new(Float32Array::from(bias[rows].to_vec())) as ArrayRef),
            );
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|error| told(&error))?;
            writer.write(&batch).map_err(|error| told(&error))?;
        }
        writer.close().map_err(|error| told(&error))?;
        Ok(())
    };
    let mut failure = None;
    let written = replace_file(path, |out| {
        all(out).map_err(|error| {
            failure = Some(error);
            std::io::Error::other("the vectors could not be written").into()
        })
    });
    match failure {
        Some(failure) => Err(failure),
        None => Ok(written?),
    }
}

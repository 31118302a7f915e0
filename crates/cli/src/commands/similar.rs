//! `recmill similar`: the items most like one item.

use std::path::PathBuf;

use clap::Args;
use recmill_core::{Ask, AskWorkspace, Error, Side, Who, data::OnBadRow};
use serde::Serialize;

use crate::{
    device_flag::DeviceFlag,
    failure::{Failure, Result},
    model::Model,
    output::{self, Out, note},
    reading::typed_id,
    user_lists::Scored,
};

/// Arguments of `recmill similar`.
#[derive(Args)]
pub(crate) struct Similar {
    /// Model directory, or one of its versions such as model/versions/7.
    model: PathBuf,
    /// The item's id.
    #[arg(long, value_name = "ID", value_parser = typed_id)]
    item: String,
    /// Columns of items that came after training, as training's --items: --item may be one of them, and they are found beside the known ones.
    #[arg(long, value_name = "FILE")]
    items: Option<String>,
    /// What a bad row of --items does: fail ends with an error, skip leaves it out and counts it.
    #[arg(long, value_name = "fail|skip", default_value_t = OnBadRow::Fail)]
    on_bad_row: OnBadRow,
    /// Items to list, at most.
    #[arg(long, short, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// Condition on the item columns that were given in training, such as "genre = 'comedy'".
    #[arg(long, value_name = "CONDITION")]
    r#where: Option<String>,
    /// Where to compute: auto, cpu, cuda, cuda:N, wgpu or wgpu:N.
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceFlag::Auto)]
    device: DeviceFlag,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

impl Similar {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<()> {
        self.device.resolve_for("finding similar items")?;
        let mut model = Model::open(&self.model)?;
        if let Some(file) = &self.items {
            model.add(Side::Items, file, self.on_bad_row)?;
        }
        let allow = self.r#where.as_ref().map(|condition| model.items_where(condition)).transpose()?;
        let ask = Ask { allow, ..Ask::new(Who::Item(&self.item), self.k as usize) };
        let answers =
            model.recommender.ask(&[ask], &mut AskWorkspace::default()).map_err(|error| match error {
                Error::UnknownItem { .. } => Failure::failed(error.to_string())
                    .hint(format!("`recmill inspect {} --item-ids` lists the items", self.model.display())),
                other => other.into(),
            })?;
        let answer = &answers[0];
        let mut out = Out::new();
        if self.json {
            let similar = model.scored(answer);
            out.json(&SimilarItems {
                item_id: &self.item,
                similar,
                model_version: model.directory.version(),
            })?;
            return out.finish();
        }
        let titles = model.titles()?;
        if let Some(index) = model.recommender.items().index(&self.item)
            && let Some(title) = titles.of(index).first()
        {
            note!("most like {}: {title}", self.item);
        }
        let mut head = vec!["rank", "item", "score"];
        head.extend(titles.names());
        let rows: Vec<Vec<String>> = answer
            .items
            .iter()
            .zip(1..)
            .map(|(&(item, score), rank)| {
                let mut row = vec![rank.to_string(), model.item_id(item.0).to_owned(), format!("{score:.4}")];
                row.extend(titles.of(item.0));
                row
            })
            .collect();
        output::columns(&mut out, &head, &rows)?;
        out.finish()
    }
}

/// The JSON object, the same as a server's.
#[derive(Serialize)]
struct SimilarItems<'a> {
    item_id: &'a str,
    similar: Vec<Scored>,
    model_version: &'a str,
}

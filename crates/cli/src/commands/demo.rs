//! `recmill demo`: the whole way on made-up data, so that everything can be seen before any file is at hand.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::atomic::AtomicBool,
    time::Instant,
};

use clap::Args;
use recmill_core::{
    Ask, AskWorkspace, Dataset, Who,
    data::synthetic::{Synthetic, SyntheticOptions, SyntheticUser},
    directory::{self, Config, Epoch, ModelDirectory, Saved, Verify},
    evaluate::{EvaluateOptions, Metrics},
    models::{AlsConfig, ModelConfig},
};
use recmill_train::Training;
use serde_json::json;

use crate::{
    commands::{evaluate::print_metrics, train},
    failure::{Failure, Hint, Result},
    model::Model,
    output::{Out, count, note, seconds},
    progress::Bar,
};

/// The newest of each user's interactions that are kept from training, to measure on.
const TEST_SHARE: f64 = 0.2;
/// Whose lists are shown.
const SHOWN_USER: usize = 41;
const SHOWN_ITEMS: usize = 10;

/// Arguments of `recmill demo`.
#[derive(Args)]
pub(crate) struct Demo {
    /// Model directory to write.
    #[arg(long, short, value_name = "DIRECTORY", default_value = "recmill-demo")]
    out: PathBuf,
    /// Seed of the data and of training; the same seed gives the same results.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Also writes what was made up to this folder: train.csv, test.csv and items.csv.
    #[arg(long, value_name = "FOLDER")]
    write_data: Option<PathBuf>,
}

impl Demo {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<()> {
        let started = Instant::now();
        directory::check_destination(&self.out)
            .map_err(Failure::from)
            .hint("choose another place with --out")?;
        let options = SyntheticOptions { seed: self.seed, ..SyntheticOptions::default() };
        note!(
            "1. making up {} users of {} films, each with a taste (seed {})",
            count(options.n_users as u64),
            count(options.n_items as u64),
            self.seed
        );
        let bar = Bar::spinner("making up");
        let made_up = Synthetic::generate(&options);
        let (data, test) = made_up.split_newest(TEST_SHARE)?;
        drop(bar);
        note!(
            "   {} interactions; the newest fifth of each user's is kept for the test",
            count(made_up.events.len() as u64)
        );
        if let Some(folder) = &self.write_data {
            self.write_files(folder, &made_up, [("train.csv", &data), ("test.csv", &test)])?;
        }

        note!("2. training als, matrix factorization of what users did");
        // Fewer factors than the default: a first look should not be long.
        let config = ModelConfig::Als(AlsConfig { factors: 64, ..AlsConfig::default() }).suited_to(&data);
        let mut training = Training::new(&config, &data);
        training.seed = self.seed;
        let mut watch = train::Watch::new("ndcg@10");
        let trained = training.run(None, &AtomicBool::new(false), &mut watch)?;
        drop(watch);
        let epochs: Vec<_> = trained.epochs.iter().map(Epoch::from).collect();
        let items = made_up.item_table().map_err(|error| Failure::failed(error.to_string()))?;
        let schema = json!({"made_up": {"seed": self.seed}});
        let about = Config {
            model: serde_json::to_value(&config).map_err(|error| Failure::failed(error.to_string()))?,
            objective: config.objective(),
            schema,
            seed: self.seed,
            ..Config::default()
        };
        let saved = Saved {
            config: &about,
            parameters: &trained.model.parameters()?,
            dataset: &data,
            item_attributes: Some(&items),
            user_attributes: None,
            epochs: &epochs,
            features: None,
            classes: None,
        };
        let version = directory::save(&self.out, &saved, 3)?;
        note!("   wrote {}", version.display());

        note!(
            "3. evaluating: all {} films ranked for every user, what they had before left out",
            count(options.n_items as u64)
        );
        let directory = ModelDirectory::open(&version, Verify::Quick)?;
        let model = Model::of(directory)?;
        let measure = EvaluateOptions { k: vec![10], seed: self.seed, ..EvaluateOptions::default() };
        let bar = Bar::spinner("evaluating");
        let ours = model.recommender.evaluate(&test, None, &measure)?;
        let popular = model.recommender.evaluate_popular(&test, None, &measure)?;
        drop(bar);

        let mut out = Out::new();
        print_metrics(
            &mut out,
            &[("als", &chosen(&ours.metrics)), ("most-popular", &chosen(&popular.metrics))],
        )?;
        writeln!(out)?;
        self.show(&mut out, &model, &made_up, &data)?;
        out.finish()?;
        let place = self.out.display();
        note!(
            "\ndone in {}. Next:\n  \
             recmill recommend {place} --user 7 --where \"genre = 'Comedy'\"\n  \
             recmill similar {place} --item 100\n  \
             recmill inspect {place}\n  \
             recmill serve {place}\n  \
             recmill train als YOUR.csv --out model",
            seconds(started.elapsed().as_secs_f64())
        );
        Ok(())
    }

    /// Prints what one user has had next to what they are recommended.
    fn show(&self, out: &mut Out, model: &Model, made_up: &Synthetic, data: &Dataset) -> Result<()> {
        let user = &made_up.users[SHOWN_USER];
        let answers = model
            .recommender
            .ask(&[Ask::new(Who::User(&user.id), SHOWN_ITEMS)], &mut AskWorkspace::default())?;
        let line = |item: u32| {
            let item = &made_up.items[item as usize];
            let mark = if user.genres.contains(&item.genre) { '*' } else { ' ' };
            format!("{mark} {}, {}", item.title, item.genre)
        };
        let (columns, _) = data.by_user().row(SHOWN_USER);
        let had: Vec<String> = data
            .order(SHOWN_USER)
            .iter()
            .rev()
            .take(SHOWN_ITEMS)
            .map(|&at| line(columns[at as usize]))
            .collect();
        let recommended: Vec<String> = answers[0].items.iter().map(|&(item, _)| line(item.0)).collect();
        side_by_side(out, user, columns.len(), &had, &recommended)?;
        Ok(())
    }

    fn write_files(
        &self,
        folder: &std::path::Path,
        made_up: &Synthetic,
        parts: [(&str, &Dataset); 2],
    ) -> Result<()> {
        fs_err::create_dir_all(folder)?;
        let text = |error: csv::Error| recmill_core::Error::from(io::Error::other(error));
        for (name, data) in parts {
            directory::replace_file(&folder.join(name), |out| {
                let mut writer = csv::Writer::from_writer(out);
                writer.write_record(["user_id", "item_id", "rating", "timestamp"]).map_err(text)?;
                for (user, id) in data.users.iter().enumerate() {
                    let range = data.by_user().range(user);
                    let (columns, ratings) = data.by_user().row(user);
                    for &at in data.order(user) {
                        let at = at as usize;
                        let item = data.items.name(columns[at]).unwrap_or_default();
                        let time = data.times().map_or(0, |times| times[range.start + at]);
                        writer
                            .write_record([id, item, &ratings[at].to_string(), &time.to_string()])
                            .map_err(text)?;
                    }
                }
                Ok(writer.flush()?)
            })?;
        }
        directory::replace_file(&folder.join("items.csv"), |out| {
            let mut writer = csv::Writer::from_writer(out);
            writer.write_record(["item_id", "title", "genre", "year"]).map_err(text)?;
            for item in &made_up.items {
                writer
                    .write_record([&item.id, &item.title, item.genre, &item.year.to_string()])
                    .map_err(text)?;
            }
            Ok(writer.flush()?)
        })?;
        note!("   wrote train.csv, test.csv and items.csv in {}", folder.display());
        Ok(())
    }
}

/// The metrics that a first look needs.
fn chosen(metrics: &Metrics) -> Metrics {
    let mut chosen = Metrics::default();
    for name in ["hr@10", "recall@10", "ndcg@10", "coverage@10"] {
        if let Some(value) = metrics.get(name) {
            chosen.push(name, value);
        }
    }
    chosen
}

fn side_by_side(
    out: &mut impl Write,
    user: &SyntheticUser,
    n_had: usize,
    had: &[String],
    recommended: &[String],
) -> io::Result<()> {
    writeln!(out, "user {}, whose taste is {}: {} (*)", user.id, user.taste, user.genres.join(", "))?;
    let head = format!("had {}, the last:", count(n_had as u64));
    let wide = had.iter().chain([&head]).map(|line| line.chars().count()).max().unwrap_or(0);
    let mut row = |left: &str, right: &str| {
        let padding = " ".repeat(wide - left.chars().count());
        writeln!(out, "{}", format!("{left}{padding}   {right}").trim_end())
    };
    row(&head, "is recommended:")?;
    for at in 0..had.len().max(recommended.len()) {
        let line = |list: &[String]| list.get(at).cloned().unwrap_or_default();
        row(&line(had), &line(recommended))?;
    }
    Ok(())
}

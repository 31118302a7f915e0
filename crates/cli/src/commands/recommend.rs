//! `recmill recommend`: items for one user, for a history, or for a file of users.

use std::{io::Write, path::PathBuf, sync::Arc, time::Instant};

use clap::{ArgGroup, Args};
use recmill_core::{Answer, AnswerSource, Ask, AskWorkspace, Who, directory::replace_file};
use serde::Serialize;

use crate::{
    device_flag::DeviceFlag,
    failure::{Failure, Result},
    model::{Model, fallback},
    newcomers::Newcomers,
    output::{self, Out, count, counted, note, seconds},
    progress::Bar,
    reading::{TypedIds, not_an_input, typed_id},
    user_lists::{ListFormat, ListOutput, ListWriter, UserFile, UserList},
};

/// Users that are scored together.
const BLOCK: usize = 1024;

/// Arguments of `recmill recommend`.
#[derive(Args)]
#[command(group = ArgGroup::new("who").required(true).multiple(true)
    .args(["user", "history_items", "users_file", "all_users"]))]
#[command(after_help = "Examples:\n  \
    recmill recommend model --user 42 --k 10\n  \
    recmill recommend model --history-items 17,4,99 --where \"genre = 'comedy'\"\n  \
    recmill recommend model --users-file users.txt --output lists.parquet\n  \
    recmill recommend model --items new_items.csv --users new_users.csv --user new-user-1")]
pub(crate) struct Recommend {
    /// Model directory, or one of its versions such as model/versions/7.
    model: PathBuf,
    /// A user's id; repeat it for several users.
    #[arg(long, value_name = "ID", value_parser = typed_id)]
    user: Vec<String>,
    /// File of users: one id a line, or a CSV file with a user_id column; - reads standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["user", "history_items"])]
    users_file: Option<PathBuf>,
    /// Every user of the training data, and with --users the new ones behind them.
    #[arg(long, conflicts_with_all = ["user", "history_items", "users_file"])]
    all_users: bool,
    /// Items that the user has had, instead of what the model has of them; for users that came after training. An id that holds a
    /// comma stands in double quotes.
    #[arg(long, value_name = "ID,ID,...")]
    history_items: Vec<TypedIds>,
    #[command(flatten)]
    newcomers: Newcomers,
    /// Items a list has, at most.
    #[arg(long, short, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// Items that must not be in a list.
    #[arg(long, value_name = "ID,ID,...")]
    exclude: Vec<TypedIds>,
    /// The only items that may be in a list.
    #[arg(long, value_name = "ID,ID,...")]
    allow_items: Option<Vec<TypedIds>>,
    /// Condition on the item columns that were given in training, such as "genre = 'comedy' and year >= 1990".
    #[arg(long, value_name = "CONDITION")]
    r#where: Option<String>,
    /// Lists may have items that the user has had.
    #[arg(long)]
    include_seen: bool,
    /// Where the lists of --users-file and --all-users go: a file that ends in .csv, .jsonl or .parquet, or one of
    /// these words for standard output [default: csv].
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["user", "history_items"])]
    output: Option<ListOutput>,
    /// Where to compute: auto, cpu, cuda, cuda:N, wgpu or wgpu:N; auto is the processor but for --users-file and --all-users, as a
    /// few lists are there before a GPU is open.
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceFlag::Auto)]
    device: DeviceFlag,
    /// Prints one JSON object; with --users-file use --output jsonl instead.
    #[arg(long, conflicts_with_all = ["users_file", "all_users"])]
    json: bool,
}

impl Recommend {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<()> {
        if !self.history_items.is_empty() && self.user.len() > 1 {
            return Err(Failure::usage("--history-items is one history and --user is several users"));
        }
        let mut model = Model::open(&self.model)?;
        self.newcomers.join(&mut model)?;
        let many = self.users_file.is_some() || self.all_users;
        let read = self.users_file.iter().filter_map(|file| file.to_str()).chain(self.newcomers.files());
        not_an_input(self.output.as_ref().and_then(|output| output.path.as_deref()), read)?;
        // A few lists are there before a GPU has been opened.
        let device = if many { self.device } else { self.device.or_cpu() };
        model.score_on(device, "recommending")?;
        if many {
            return self.many(&model);
        }
        self.few(&model)
    }

    /// A question with the filters of the flags.
    fn ask<'a>(&'a self, who: Who<'a>, allow: Option<&Arc<[u64]>>) -> Ask<'a> {
        Ask {
            allow_seen: self.include_seen,
            exclude: TypedIds::all(&self.exclude).collect(),
            candidates: self.allow_items.as_ref().map(|ids| TypedIds::all(ids).collect()),
            allow: allow.cloned(),
            ..Ask::new(who, self.k as usize)
        }
    }

    fn allowed(&self, model: &Model) -> Result<Option<Arc<[u64]>>> {
        self.r#where.as_ref().map(|condition| model.items_where(condition)).transpose()
    }

    fn few(&self, model: &Model) -> Result<()> {
        let allow = self.allowed(model)?;
        self.warn_of_unknown_filters(model);
        let history = || Who::History(TypedIds::all(&self.history_items).map(|id| (id, 1.0)).collect());
        let asks: Vec<Ask<'_>> = if self.history_items.is_empty() {
            self.user.iter().map(|user| self.ask(Who::User(user), allow.as_ref())).collect()
        } else {
            vec![self.ask(history(), allow.as_ref())]
        };
        let answers = model.recommender.ask(&asks, &mut AskWorkspace::default())?;
        let named = |at: usize| self.user.get(at).cloned();
        for (at, answer) in answers.iter().enumerate() {
            self.tell(named(at).as_deref(), answer);
        }
        let lists: Vec<UserList> = answers
            .iter()
            .enumerate()
            .map(|(at, answer)| UserList {
                user_id: named(at),
                recommendations: model.scored(answer),
                fallback: fallback(answer),
            })
            .collect();
        let mut out = Out::new();
        if self.json {
            let model_version = model.directory.version();
            match &lists[..] {
                [list] => out.json(&OneUser { list, model_version })?,
                users => out.json(&SeveralUsers { users, model_version })?,
            }
            return out.finish();
        }
        let titles = model.titles()?;
        let mut head = vec!["rank", "item", "score"];
        head.extend(titles.names());
        for (at, answer) in answers.iter().enumerate() {
            if answers.len() > 1 {
                writeln!(out, "{}user {}", if at > 0 { "\n" } else { "" }, named(at).unwrap_or_default())?;
            }
            let rows: Vec<Vec<String>> = answer
                .items
                .iter()
                .zip(1..)
                .map(|(&(item, score), rank)| {
                    let mut row =
                        vec![rank.to_string(), model.item_id(item.0).to_owned(), format!("{score:.4}")];
                    row.extend(titles.of(item.0));
                    row
                })
                .collect();
            output::columns(&mut out, &head, &rows)?;
        }
        out.finish()
    }

    /// What the reader should know of an answer, beside the answer.
    fn tell(&self, user: Option<&str>, answer: &Answer) {
        if !answer.unknown_items.is_empty() {
            note!(
                "the model does not know {}: `{}`",
                counted(answer.unknown_items.len() as u64, "item"),
                answer.unknown_items.join("`, `")
            );
        }
        if answer.source == AnswerSource::MostPopular {
            match user {
                Some(user) if self.history_items.is_empty() => {
                    let new = self
                        .newcomers
                        .users
                        .as_ref()
                        .map(|file| format!(", and {file} has no good row of theirs"));
                    note!(
                        "the model does not know the user `{user}`{}: these are the most popular items",
                        new.unwrap_or_default()
                    );
                    note!(
                        "\nhint: --history-items ID,ID,... recommends from what the user has had; `recmill inspect {} --user-ids` lists the users",
                        self.model.display()
                    );
                }
                _ => note!("the model knows no item of the history: these are the most popular items"),
            }
        }
        if answer.items.is_empty() {
            let condition =
                if self.r#where.is_some() { ", or the condition of --where fits none" } else { "" };
            note!("no item is left: all are seen, excluded or not allowed{condition}");
        } else if answer.items.len() < self.k as usize {
            note!("only {} left by the filters", counted(answer.items.len() as u64, "item"));
        }
    }

    fn warn_of_unknown_filters(&self, model: &Model) {
        for id in TypedIds::all(&self.exclude).filter(|id| model.recommender.items().index(id).is_none()) {
            note!("the model does not know the item `{id}` of --exclude");
        }
    }

    /// Lists for many users, block by block, so that memory does not grow with their number.
    fn many(&self, model: &Model) -> Result<()> {
        let on_stdout = ListOutput { path: None, format: ListFormat::Csv };
        let ListOutput { path, format } = self.output.as_ref().unwrap_or(&on_stdout);
        match path {
            None if *format == ListFormat::Parquet && output::stdout_is_terminal() => {
                Err(Failure::usage("parquet is not for terminals")
                    .hint("write a file: --output lists.parquet"))
            }
            None => {
                let out = self.write_lists(model, || ListWriter::new(Out::new(), *format))?;
                out.finish()
            }
            Some(path) => {
                let mut failure = None;
                // The file appears whole or not at all.
                let written = replace_file(path, |out| {
                    let lists = self.write_lists(model, || ListWriter::new(out, *format));
                    lists.map(drop).map_err(|error| {
                        failure = Some(error);
                        std::io::Error::other("the lists could not be written").into()
                    })
                });
                match (failure, written) {
                    (Some(failure), _) => Err(failure),
                    (None, written) => {
                        written?;
                        note!("wrote {}", path.display());
                        Ok(())
                    }
                }
            }
        }
    }

    /// Writes all lists; the writer is made once there are users, so that a header does not stand above an error.
    fn write_lists<W: Write + Send>(
        &self,
        model: &Model,
        writer: impl FnOnce() -> Result<ListWriter<W>>,
    ) -> Result<W> {
        let allow = self.allowed(model)?;
        self.warn_of_unknown_filters(model);
        let mut users = match &self.users_file {
            Some(path) => Users::File(UserFile::open(path)?),
            None => Users::All(0),
        };
        let started = Instant::now();
        let bar = Bar::spinner("recommending");
        let (mut workspace, mut block) = (AskWorkspace::default(), Vec::new());
        let (mut n_users, mut n_unknown) = (0u64, 0u64);
        users.next_block(model, &mut block)?;
        let mut writer = writer()?;
        while !block.is_empty() {
            let asks: Vec<Ask<'_>> =
                block.iter().map(|user| self.ask(Who::User(user), allow.as_ref())).collect();
            let answers = model.recommender.ask(&asks, &mut workspace)?;
            let list = |(answer, user): (&Answer, &String)| UserList {
                user_id: Some(user.clone()),
                recommendations: model.scored(answer),
                fallback: fallback(answer),
            };
            let lists: Vec<UserList> = answers.iter().zip(&block).map(list).collect();
            n_users += lists.len() as u64;
            n_unknown += lists.iter().filter(|list| list.fallback.is_some()).count() as u64;
            writer.write(&lists)?;
            bar.message(format!("{} users", count(n_users)));
            users.next_block(model, &mut block)?;
        }
        drop(bar);
        let out = writer.finish()?;
        let taken = started.elapsed().as_secs_f64();
        note!(
            "{} in {}, {:.0} users/s",
            counted(n_users, "user"),
            seconds(taken),
            n_users as f64 / taken.max(1e-9)
        );
        if n_unknown > 0 {
            note!(
                "{} unknown to the model: their lists are the most popular items (column `fallback`)",
                counted(n_unknown, "user")
            );
        }
        Ok(out)
    }
}

/// The JSON object for one user, the same as a server's.
#[derive(Serialize)]
struct OneUser<'a> {
    #[serde(flatten)]
    list: &'a UserList,
    model_version: &'a str,
}

/// The JSON object for several users.
#[derive(Serialize)]
struct SeveralUsers<'a> {
    users: &'a [UserList],
    model_version: &'a str,
}

/// Where users come from.
enum Users {
    File(UserFile),
    /// All of the model, the next one's index.
    All(u32),
}

impl Users {
    fn next_block(&mut self, model: &Model, block: &mut Vec<String>) -> Result<()> {
        match self {
            Users::File(file) => file.next_block(BLOCK, block),
            Users::All(next) => {
                block.clear();
                let users = model.recommender.users();
                while block.len() < BLOCK
                    && let Some(id) = users.name(*next)
                {
                    block.push(id.to_owned());
                    *next += 1;
                }
                Ok(())
            }
        }
    }
}

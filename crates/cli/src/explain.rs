//! What the libraries' errors mean to whoever typed the command: exit status and hint.

use recmill_core::{Error as Core, data::BadRowKind, rankers::RankerModel};
use recmill_kernels::{Device, Error as Kernel};
use recmill_train::Error as Train;

use crate::failure::Failure;

/// What keeps a network's numbers finite.
const STEADIER: &str = "a smaller --learning-rate or --clip-norm 1 usually helps";

impl From<Core> for Failure {
    fn from(error: Core) -> Self {
        let message = error.to_string();
        match error {
            Core::Kernel(error) => error.into(),
            Core::Io(error) => {
                // What the call is named in the system's words helps nobody who typed a path.
                let message = ["failed to query resolved metadata", "failed to query raw metadata"]
                    .iter()
                    .fold(message, |message, call| message.replace(call, "cannot read"));
                match error.kind() {
                std::io::ErrorKind::NotFound => Failure::failed(message).hint("check the spelling of the path"),
                std::io::ErrorKind::StorageFull => {
                    Failure::failed(message).hint("free some space and run the command again")
                }
                _ => Failure::failed(message),
                }
            }
            Core::InvalidConfig { model: "schema", problems } => {
                let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
                Failure::failed(format!("the schema contradicts itself: {}", list.join("\n       ")))
            }
            Core::InvalidConfig { model, problems } => {
                let list: Vec<String> = problems
                    .iter()
                    .map(|problem| {
                        let flag = problem.field.replace('_', "-");
                        format!("--{flag} must be {}, not `{}`", problem.expected, problem.got)
                    })
                    .collect();
                Failure::usage(list.join("\n       "))
                    .hint(format!("`recmill train {model} --help` says how to choose each"))
            }
            Core::BadOption { .. } => Failure::usage(format!("--{message}")),
            Core::BadRow(row) => {
                let failure = Failure::failed(message);
                match row.kind {
                    BadRowKind::Negative => {
                        failure.hint("--allow-negative takes negative values as dislikes; --on-bad-row skip leaves them out")
                    }
                    BadRowKind::UnknownEvent => {
                        failure.hint("give each kind of event a weight, 0 for those that count nothing: --event-weights view=1,cart=3")
                    }
                    BadRowKind::FieldCount => failure
                        .hint("another --delimiter? --on-bad-row skip leaves such rows out and counts them"),
                    BadRowKind::OpenQuote => {
                        failure.hint("all that follows the quote is taken for one field: close it, or double it where it is a part of a quoted text")
                    }
                    BadRowKind::BadLabel => failure
                        .hint("name another column with --label; --on-bad-row skip leaves such rows out and counts them"),
                    _ => failure.hint("--on-bad-row skip leaves such rows out and counts them"),
                }
            }
            Core::RepeatedColumn { .. } => Failure::failed(message).hint("give each column a name of its own"),
            Core::NoSuchColumn { .. } => Failure::failed(message),
            Core::NoColumnFor { role: "label", .. } => {
                Failure::failed(message).hint("name the column to learn with --label; its values are 0 and 1")
            }
            Core::ConstantLabel { .. } => {
                Failure::failed(message).hint("nothing can be learned from it; is it the right file and --label?")
            }
            Core::NoColumnFor { role, .. } => Failure::failed(message).hint(format!(
                "name it with --{role}-column, or say --no-header if the first line is data already"
            )),
            Core::EmptyFile { .. } | Core::NoRows { .. } => {
                Failure::failed(message).hint("is it the right file? a file of interactions begins like `user_id,item_id,rating`")
            }
            Core::RepeatedFile { .. } => Failure::usage(message),
            Core::NoFiles { .. } => Failure::failed(message)
                .hint("check the spelling; a pattern such as 'data/*.csv' must be quoted or match something"),
            Core::NotOurs { .. } => Failure::failed(message)
                .hint("nothing has been written; choose another --out, or a folder that does not exist yet"),
            Core::NoDirectory { .. } => Failure::failed(message).hint("name the directory that `recmill train --out` wrote"),
            Core::NoModel { .. } => {
                Failure::failed(message).hint("train one with `recmill train als ratings.csv --out model`, or with `recmill demo`")
            }
            Core::Damaged { .. } => Failure::failed(message)
                .hint("`recmill inspect MODEL --verify` checks every file; another version of the model may be whole"),
            Core::Busy { .. } => Failure::failed(message).hint("wait until it has finished, or write to another directory"),
            _ => Failure::failed(message),
        }
    }
}

impl From<Kernel> for Failure {
    fn from(error: Kernel) -> Self {
        let failure = Failure::failed(error.to_string());
        match error {
            Kernel::OutOfMemory { device, .. } | Kernel::BufferTooLarge { device, .. } => {
                let elsewhere =
                    if device == Device::Cpu { "" } else { "--device cpu has main memory for it; in training, " };
                failure.hint(format!(
                    "{elsewhere}fewer --factors take less; of rankers a smaller --embedding-dim or --batch-size, or --table-precision f16"
                ))
            }
            Kernel::DeviceLost { device, .. } => failure.hint(format!(
                "`recmill doctor --device {device}` tells whether it works; another program, its driver or its power may have failed"
            )),
            Kernel::Unavailable { .. } | Kernel::UnknownDevice { .. } => {
                failure.hint("`recmill devices` lists what can be used")
            }
            Kernel::NotFinite { .. } | Kernel::NotPositiveDefinite { .. } => failure.hint(
                "values far above 1 to 5 can be too much: divide them, or use a smaller --learning-rate, --alpha or --init-scale",
            ),
            Kernel::NotOnDevice { .. } => failure.hint("--device cpu has every operation"),
            _ => failure,
        }
    }
}

impl From<Train> for Failure {
    fn from(error: Train) -> Self {
        let message = error.to_string();
        match error {
            // Scores are measured after each epoch; which of the rows came first helps nobody.
            Train::Core(Core::BadProbability { found, .. }) => {
                Failure::failed(format!("the scores of the rows to validate on are not finite: `{found}`"))
                    .hint(STEADIER)
            }
            Train::Core(error) => error.into(),
            Train::Kernel(error) => error.into(),
            Train::TooLarge { model: "ease", .. } => Failure::failed(message)
                .hint("ease holds an items x items matrix: leave rare items out with --min-item-interactions, or use item-knn or als"),
            Train::TooLarge { model, .. } | Train::TooLargeForDevice { model, .. }
                if RankerModel::NAMES.contains(&model) => Failure::failed(message)
                .hint("a smaller --embedding-dim or --hidden, a larger --min-count, fewer --hash-buckets or --table-precision f16 take less"),
            Train::TooLargeForDevice { .. } => {
                Failure::failed(message).hint("fewer --factors, and narrower layers where there are some, take less; --device cpu has the main memory, another device may have more of its own")
            }
            Train::TooLarge { .. } => {
                Failure::failed(message).hint("fewer --factors, narrower layers where there are some, or fewer users and items by --min-user-interactions and --min-item-interactions")
            }
            Train::Diverged { .. } => Failure::failed(message)
                .hint("a smaller --learning-rate usually helps"),
            Train::NotFiniteLoss { checkpoint: Some(path), .. } => {
                let folder = path.ancestors().nth(2).unwrap_or(&path).display();
                Failure::failed(message).hint(format!(
                    "{} is the last checkpoint before it; {STEADIER}, such as with --resume {folder}",
                    path.display()
                ))
            }
            Train::NotFiniteLoss { .. } => Failure::failed(message).hint(STEADIER),
            Train::Resume { what, .. } if what.contains("hash") => Failure::failed(message)
                .hint("a file, a flag that says how it is read, or the model of a --from has changed since; without --resume training begins anew"),
            Train::Resume { .. } => Failure::failed(message)
                .hint("--resume goes on with the same data, --valid or --holdout, --seed and --batch-size as before"),
            Train::NoCheckpoint { .. } => {
                Failure::failed(message).hint("--resume names a directory that --checkpoint-minutes, --checkpoint-epochs or --checkpoint-steps wrote to")
            }
            Train::UnknownMetric { .. } => Failure::usage(message).hint("choose one with --valid-metric"),
            Train::Start { .. } => {
                Failure::failed(message).hint("leave out the flags that differ from the model, or train without --from")
            }
            _ => Failure::failed(message),
        }
    }
}

//! One file a subcommand: its flags, and what it does.

pub(crate) mod bench;
pub(crate) mod checkpoints;
pub(crate) mod demo;
pub(crate) mod devices;
pub(crate) mod doctor;
pub(crate) mod evaluate;
pub(crate) mod export;
pub(crate) mod inspect;
pub(crate) mod predict;
pub(crate) mod predict_rows;
pub(crate) mod predict_text;
pub(crate) mod ranker_checks;
pub(crate) mod recommend;
pub(crate) mod report;
pub(crate) mod schema;
pub(crate) mod serve;
pub(crate) mod similar;
pub(crate) mod split;
pub(crate) mod train;
mod train_checks;
mod train_described;
pub(crate) mod train_flags;
pub(crate) mod train_ranker;
pub(crate) mod train_text;
pub(crate) mod watch;

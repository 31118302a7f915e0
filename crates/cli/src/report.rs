//! The report on a model: its numbers, and a page of its own that shows them.
//!
//! ```text
//! findings   what the model directory and the test files tell     ->  --json
//! lists      what is measured of models that find items
//! page       head, data, configuration, size; results, training and users have files of their own
//! chart      pictures as SVG inside the page
//! ```
//!
//! The page is one file that asks for nothing: no script, no font, no picture from elsewhere, which its own policy forbids as
//! well. All text goes through the template, which escapes it: ids and titles may hold anything.

mod chart;
pub(crate) mod findings;
pub(crate) mod lists;
mod page;
mod results;
mod training;
mod users;

pub(crate) use page::{is_report, page};

//! How training went: curves and seconds; and how the scores of the finished model are spread.

use maud::{Markup, html};
use recmill_core::directory::Epoch;

use crate::{
    output::{bytes, count, counted, seconds},
    report::{
        chart::{self, Chart, Series, short},
        findings::{Data, Findings},
        page::{Section, pairs},
        results::legend,
    },
};

/// Families of metrics that get a chart, the first ones there are.
const CHARTED: [&str; 11] = [
    "ndcg",
    "recall",
    "hr",
    "rmse",
    "auc",
    "logloss",
    "accuracy",
    "average_precision",
    "gauc",
    "macro_f1",
    "coverage",
];
/// Charts beside that of the loss.
const MOST_CHARTS: usize = 3;
/// Lines in one chart.
const MOST_LINES: usize = 4;

/// Curves and timings.
pub(super) fn training(found: &Findings) -> Section {
    let epochs = &found.epochs;
    let kept = match (found.kept_epoch, found.refitted) {
        (Some(kept), true) => format!(
            "Epoch {kept} of {} was the best; the model was then trained again for as many epochs, on what had been held out too.",
            epochs.len()
        ),
        (Some(kept), false) if epochs.len() > 1 => format!("Epoch {kept} of {} was kept.", epochs.len()),
        _ => String::new(),
    };
    let body = html! {
        @if !kept.is_empty() { p { (kept) } }
        @if epochs.len() > 1 { div.charts { (curves(found)) } (numbers(epochs)) }
        (timings(found))
    };
    Section { id: "training", title: "Training", body }
}

fn curves(found: &Findings) -> Markup {
    let epochs = &found.epochs;
    let x: Vec<f64> = epochs.iter().map(|epoch| epoch.epoch as f64).collect();
    let mark = found.kept_epoch.map(|kept| (kept as f64, "kept"));
    let mark = mark.filter(|(at, _)| x.contains(at));
    let draw = |id: &str, title: &str, series: &[Series]| {
        let describes = series.iter().map(|one| course(&one.name, &one.values)).collect::<Vec<_>>().join(" ");
        html! {
            figure {
                figcaption { b { (title) } }
                (chart::lines(Chart { id, title, x_label: "epoch", describes: &describes }, &x, series, mark))
            }
        }
    };
    let loss = Series { name: "loss".into(), values: epochs.iter().map(|epoch| epoch.loss).collect() };
    html! {
        @if loss.values.iter().any(Option::is_some) { (draw("curve-loss", "Training loss", std::slice::from_ref(&loss))) }
        @for (family, series) in families(epochs).iter().take(MOST_CHARTS) {
            (draw(&format!("curve-{}", family.replace('_', "-")), &format!("{family}, on what was validated on"), series))
        }
    }
}

/// What a curve does, in a sentence for whoever cannot see it.
fn course(name: &str, values: &[Option<f64>]) -> String {
    let known: Vec<f64> = values.iter().flatten().copied().collect();
    match (known.first(), known.last()) {
        (Some(&first), Some(&last)) => format!("{name} goes from {} to {}.", short(first), short(last)),
        _ => String::new(),
    }
}

/// The metrics that are charted, those of one family together: `ndcg` has `ndcg@10` and `ndcg@20`.
fn families(epochs: &[Epoch]) -> Vec<(&'static str, Vec<Series>)> {
    let mut names: Vec<&str> =
        epochs.iter().flat_map(|epoch| epoch.metrics.keys()).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let of_family = |family: &'static str| {
        let mine = names.iter().filter(|name| name.split(['@', '/']).next() == Some(family));
        let series = mine.take(MOST_LINES).map(|&name| Series {
            name: name.to_owned(),
            values: epochs.iter().map(|epoch| epoch.metrics.get(name)?.as_f64()).collect(),
        });
        let series: Vec<Series> = series.collect();
        (!series.is_empty()).then_some((family, series))
    };
    CHARTED.iter().filter_map(|family| of_family(family)).collect()
}

/// Every epoch, for whoever wants the numbers behind the curves.
fn numbers(epochs: &[Epoch]) -> Markup {
    let mut names: Vec<&str> =
        epochs.iter().flat_map(|epoch| epoch.metrics.keys()).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    html! {
        details {
            summary { "Numbers" }
            div.scroll { table {
                thead { tr { th.n { "epoch" } th.n { "seconds" } th.n { "loss" } @for name in &names { th.n { (name) } } } }
                tbody { @for epoch in epochs { tr {
                    td.n { (epoch.epoch) } td.n { (format!("{:.3}", epoch.seconds)) }
                    td.n { (epoch.loss.map_or("-".to_owned(), |loss| format!("{loss:.5}"))) }
                    @for name in &names {
                        td.n { (epoch.metrics.get(*name).and_then(serde_json::Value::as_f64).map_or("-".to_owned(), |v| format!("{v:.4}"))) }
                    }
                } } }
            } }
        }
    }
}

fn timings(found: &Findings) -> Markup {
    let times = &found.timings;
    if times.epochs == 0 {
        return html! {};
    }
    let mut rows = vec![
        ("learning".to_owned(), format!("{} in {}", seconds(times.seconds), counted(times.epochs, "epoch"))),
        ("an epoch".to_owned(), seconds(times.seconds / times.epochs as f64)),
    ];
    if let Data::Interactions { interactions, .. } = &found.data {
        let rate = (*interactions * times.epochs) as f64 / times.seconds.max(1e-9);
        rows.push(("interactions a second".to_owned(), count(rate as u64)));
    }
    if times.loss_seconds > 0.0 {
        rows.push(("computing the loss".to_owned(), seconds(times.loss_seconds)));
    }
    if times.eval_seconds > 0.0 {
        rows.push(("validating".to_owned(), seconds(times.eval_seconds)));
    }
    if let Some(peak) = times.peak_memory_bytes {
        rows.push(("memory at most, reading and all".to_owned(), bytes(peak)));
    }
    let caption = if found.refitted { "Time, of finding the best epoch alone" } else { "Time" };
    pairs(caption, &rows)
}

/// How scores are spread over users.
pub(super) fn scores(found: &Findings) -> Option<Section> {
    let Some(scores) = &found.scores else {
        return found.not_measured.iter().any(|gap| gap.section == "scores").then(|| Section {
            id: "scores",
            title: "Scores",
            body: html! {},
        });
    };
    let names = ["first place".to_owned(), format!("place {}", scores.k)];
    let series = names.clone().map(|name| Series { name, values: Vec::new() });
    let body = html! {
        p { "Scores of lists of " (scores.k) " for " (counted(scores.users as u64, "user"))
            ", drawn from the training data by the seed: of the item in the first place, and of the last in the list. "
            "Where both lie close together, the model hardly tells the items of a list apart." }
        div.charts {
            figure {
                figcaption { b { "Lists by score" } (legend(&series)) }
                (chart::histogram(Chart {
                    id: "scores-histogram", title: "Lists by score", x_label: "score",
                    describes: "How many lists have a first score, and a last score, in each range.",
                }, &scores.edges, [&scores.first, &scores.last]))
            }
        }
        div.scroll { table {
            thead { tr { th { "score" } th.n { "least" } th.n { "median" } th.n { "most" } } }
            tbody { @for (name, quantiles) in names.iter().zip([scores.first_quantiles, scores.last_quantiles]) { tr {
                th scope="row" { (name) } @for value in quantiles { td.n { (short(f64::from(value))) } }
            } } }
        } }
    };
    Some(Section { id: "scores", title: "Scores", body })
}

//! How good the model is, beside the most popular items, and who is served badly.

use maud::{Markup, html};
use recmill_core::evaluate::{Evaluation, Metrics};

use crate::{
    output::{count, counted},
    report::{
        chart::{self, Chart, Series, short},
        findings::{CountedTest, Data, Findings, Groups, LabelGroups, ListTest, Test},
        page::Section,
    },
};

/// What the baseline is called.
const POPULAR: &str = "most popular";

/// The first sentence: what was trained on what, and how it does.
pub(super) fn lead(found: &Findings) -> Markup {
    let kind = &found.model;
    let learned = match &found.data {
        Data::Interactions { users, items, interactions, .. } => format!(
            "{kind}, learned from {} of {} with {}",
            counted(found.learned(*interactions), "interaction"),
            counted(*users, "user"),
            counted(*items, "item")
        ),
        Data::Rows { rows, labels, .. } => {
            let rows = rows.map_or_else(|| "rows".to_owned(), |n| counted(found.learned(n), "row"));
            format!("{kind}, which scores rows, learned from {rows} with the label {}", labels.join(", "))
        }
        Data::Texts { rows, classes, .. } => {
            let texts = rows.map_or_else(|| "texts".to_owned(), |n| counted(found.learned(n), "text"));
            format!("{kind}, which tells {} classes apart, learned from {texts}", count(classes.len() as u64))
        }
    };
    let beside = match &found.test {
        Some(Test::Lists(test)) => {
            let name = format!("ndcg@{}", test.k.first().copied().unwrap_or(0));
            let of = |evaluation: &Evaluation| evaluation.metrics.get(&name).unwrap_or(0.0);
            let (model, popular) = (of(&test.model.all), of(&test.most_popular.all));
            match popular > 0.0 {
                true => format!(
                    ". Its lists are {} times as good as the most popular items by {name}: {model:.4} against {popular:.4}.",
                    short(model / popular)
                ),
                false => format!(". Its {name} is {model:.4}, that of the most popular items 0."),
            }
        }
        Some(Test::Counted(_)) => ". It was measured on a test file.".to_owned(),
        None => ". It has not been measured on a test file.".to_owned(),
    };
    let unfinished = if found.is_checkpoint {
        " This is a checkpoint: training had not ended, and goes on from here with --resume."
    } else {
        ""
    };
    html! { (learned) (beside) (unfinished) }
}

/// The figures that a reader wants first.
pub(super) fn tiles(found: &Findings) -> Markup {
    let mut tiles: Vec<(String, String, String)> = Vec::new();
    match &found.test {
        Some(Test::Lists(test)) => {
            let k = test.k.first().copied().unwrap_or(0);
            if let Some(rmse) = test.ratings.as_ref().and_then(|ratings| ratings.metrics.get("rmse")) {
                tiles.push(("rmse".into(), format!("{rmse:.4}"), "of predicted values".into()));
            }
            for name in ["ndcg", "recall", "hr", "coverage"].map(|name| format!("{name}@{k}")) {
                let of = |evaluation: &Evaluation| evaluation.metrics.get(&name).unwrap_or(0.0);
                let popular = format!("{POPULAR} {:.4}", of(&test.most_popular.all));
                tiles.push((name.clone(), format!("{:.4}", of(&test.model.all)), popular));
            }
        }
        Some(Test::Counted(test)) => {
            for (name, value) in preferred(test.metrics.iter().map(|(name, &value)| (name.as_str(), value))) {
                let beside = match test.baseline_metrics.get(&name) {
                    Some(value) => format!("{} {value:.4}", test.baseline),
                    None => "on the test file".to_owned(),
                };
                tiles.push((name, format!("{value:.4}"), beside));
            }
        }
        None => {
            let valid = found.valid.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?)));
            for (name, value) in preferred(valid) {
                tiles.push((name, format!("{value:.4}"), "on what was validated on".into()));
            }
        }
    }
    html! {
        @if !tiles.is_empty() {
            dl.tiles { @for (name, value, beside) in &tiles { div { dt { (name) } dd { (value) small { (beside) } } } } }
        }
    }
}

/// At most four metrics, those that say most first.
fn preferred<'a>(metrics: impl Iterator<Item = (&'a str, f64)>) -> Vec<(String, f64)> {
    const FIRST: [&str; 11] = [
        "rmse",
        "ndcg@10",
        "recall@20",
        "hr@10",
        "auc",
        "logloss",
        "average_precision",
        "gauc",
        "accuracy",
        "out_of_scope_recall",
        "macro_f1",
    ];
    let all: Vec<(&str, f64)> = metrics.collect();
    let find = |name: &&str| {
        all.iter().find(|(known, _)| known == name).map(|&(name, value)| (name.to_owned(), value))
    };
    FIRST.iter().filter_map(find).take(4).collect()
}

/// The table of all metrics.
pub(super) fn result(found: &Findings) -> Section {
    let body = match &found.test {
        Some(Test::Lists(test)) => html! {
            p { (population(test)) }
            (side_by_side(found, test))
            @if let Some(ratings) = &test.ratings {
                (one_column("Predicted against actual values, protocol rating", &found.model, ratings.metrics.iter()))
            }
        },
        Some(Test::Counted(test)) => html! {
            p { "Test file " (test.files.join(", ")) ": " (counts(&test.counts)) ". Protocol " (test.protocol) "." }
            (beside(&found.model, test))
        },
        None if found.valid.is_empty() => html! { p { "There are no metrics." } },
        None => html! {
            p { "What validation measured in training, for the epoch that was kept. The epoch was chosen by it, so it flatters the model a little." }
            (one_column("", &found.model, found.valid.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?)))))
        },
    };
    Section { id: "result", title: "Result", body }
}

fn counts(counts: &std::collections::BTreeMap<&'static str, u64>) -> String {
    counts.iter().map(|(name, &n)| format!("{} {name}", count(n))).collect::<Vec<_>>().join(", ")
}

/// Whom the means are over, and what is missing from them.
fn population(test: &ListTest) -> String {
    let all = &test.model.all;
    let mut text = format!(
        "Test file {}: {}. Protocol {}.",
        test.files.join(", "),
        counted(all.users as u64, "user"),
        test.protocol
    );
    if all.unknown_users > 0 {
        text += &format!(
            " {} of users that the model does not know were left out.",
            count(all.unknown_users as u64)
        );
    }
    for (n, what) in [
        (all.unknown_item_rows, "of items that the model does not know, which count as misses"),
        (all.seen_rows, "in the history already, which are never recommended and count as misses"),
    ] {
        if n > 0 {
            text += &format!(
                " Of the test rows {} {} {what}.",
                count(n as u64),
                if n == 1 { "is" } else { "are" }
            );
        }
    }
    text
}

/// One row a metric; for each length of list the model, then the most popular items.
fn side_by_side(found: &Findings, test: &ListTest) -> Markup {
    let (model, popular) = (&test.model.all.metrics, &test.most_popular.all.metrics);
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in model.iter() {
        let name = name.split('@').next().unwrap_or(name);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let cell = |metrics: &Metrics, name: &str, k: usize| {
        metrics.get(&format!("{name}@{k}")).map_or("-".to_owned(), |value| format!("{value:.4}"))
    };
    html! {
        div.scroll { table {
            thead {
                tr { th rowspan="2" { "metric" } @for k in &test.k { th.n colspan="2" { "@" (k) } } }
                tr { @for _ in &test.k { th.n { (found.model) } th.n { (POPULAR) } } }
            }
            tbody { @for name in names { tr {
                th scope="row" { (name) }
                @for &k in &test.k { td.n { strong { (cell(model, name, k)) } } td.n { (cell(popular, name, k)) } }
            } } }
        } }
    }
}

/// One row a metric, beside what looks at nothing.
fn beside(kind: &str, test: &CountedTest) -> Markup {
    html! {
        div.scroll { table {
            thead { tr { th { "metric" } th.n { (kind) } th.n { (test.baseline) } } }
            tbody { @for (name, value) in &test.metrics { tr {
                th scope="row" { (name) } td.n { strong { (format!("{value:.5}")) } }
                td.n { (test.baseline_metrics.get(name).map_or("-".to_owned(), |value| format!("{value:.5}"))) }
            } } }
        } }
        p { (match test.groups {
            Groups::ByScore(_) => "Beside the model: the share of ones in the test file as the score of every row, which ranks as chance does.",
            Groups::ByClass(_) => "Beside the model: the class that most texts of the test file are of, guessed for every text.",
        }) }
    }
}

/// How well each group of rows or texts is told.
pub(super) fn groups(found: &Findings) -> Option<Section> {
    const SHOWN: usize = 20;
    let Some(Test::Counted(test)) = &found.test else { return None };
    let (title, body) = match &test.groups {
        Groups::ByScore(labels) => (
            "Are the scores right?",
            html! {
                p { "Rows in groups of about as many by their score: where the mean score is above the share of ones, the model promises too much." }
                @for LabelGroups { label, groups } in labels {
                    div.scroll { table {
                        caption { (label) }
                        thead { tr { th { "scores" } th.n { "rows" } th.n { "mean score" } th.n { "share of ones" } } }
                        tbody { @for group in groups { tr {
                            th scope="row" { (format!("{:.4} to {:.4}", group.least, group.most)) } td.n { (count(group.rows)) }
                            td.n { (format!("{:.4}", group.predicted)) } td.n { (format!("{:.4}", group.observed)) }
                        } } }
                    } }
                }
            },
        ),
        Groups::ByClass(classes) => (
            "Which classes are told badly?",
            html! {
                @if classes.is_empty() { p { "No text of the test file is of a class that the model knows." } }
                @if classes.len() > SHOWN { p { "The " (SHOWN) " worst of " (classes.len()) " classes." } }
                div.scroll { table {
                    thead { tr { th { "class" } th.n { "texts" } th.n { "recall" } } }
                    tbody { @for one in classes.iter().take(SHOWN) { tr {
                        th scope="row" { (one.class) } td.n { (count(one.texts)) }
                        td.n { (format!("{:.4}", one.right as f64 / one.texts as f64)) }
                    } } }
                } }
            },
        ),
    };
    Some(Section { id: "groups", title, body })
}

fn one_column<'a>(caption: &str, kind: &str, metrics: impl Iterator<Item = (&'a str, f64)>) -> Markup {
    html! {
        div.scroll { table {
            @if !caption.is_empty() { caption { (caption) } }
            thead { tr { th { "metric" } th.n { (kind) } } }
            tbody { @for (name, value) in metrics { tr { th scope="row" { (name) } td.n { (format!("{value:.5}")) } } } }
        } }
    }
}

/// The metrics by the length of users' histories.
pub(super) fn activity(found: &Findings) -> Option<Section> {
    let Some(Test::Lists(test)) = &found.test else {
        return found.not_measured.iter().any(|gap| gap.section == "activity").then(|| Section {
            id: "activity",
            title: "Who is served badly?",
            body: html! {},
        });
    };
    let k = test.k.first().copied().unwrap_or(0);
    let (ndcg, recall) = (format!("ndcg@{k}"), format!("recall@{k}"));
    let (groups, popular) = (&test.model.by_activity, &test.most_popular.by_activity);
    let name = |least: u64, most: u64| {
        if least == most { count(least) } else { format!("{} to {}", count(least), count(most)) }
    };
    let categories: Vec<String> = groups.iter().map(|group| name(group.least, group.most)).collect();
    let values = |groups: &[recmill_core::evaluate::ActivityGroup], metric: &str| {
        groups.iter().map(|group| group.metrics.get(metric)).collect::<Vec<_>>()
    };
    let series = |metric: &str| {
        [
            Series { name: found.model.clone(), values: values(groups, metric) },
            Series { name: POPULAR.into(), values: values(popular, metric) },
        ]
    };
    let worst = groups
        .iter()
        .filter_map(|group| Some((group, group.metrics.get(&ndcg)?)))
        .min_by(|a, b| a.1.total_cmp(&b.1));
    let of_all = test.model.all.metrics.get(&ndcg).unwrap_or(0.0);
    let worst = worst.filter(|&(_, value)| value < of_all);
    let body = html! {
        p { "Users in groups by how many interactions they had before the test; groups have about as many users each." }
        @if let Some((group, value)) = worst.filter(|_| groups.len() > 1) {
            p { "Served worst: users with " strong { (name(group.least, group.most)) " interactions" } ", " (ndcg) " "
                (short(value)) " where it is " (short(of_all)) " over all." }
        }
        div.charts {
            @for (id, metric) in [("activity-ndcg", &ndcg), ("activity-recall", &recall)] {
                @let series = series(metric);
                @let title = format!("{metric} by activity");
                figure {
                    figcaption { b { (title) } (legend(&series)) }
                    (chart::bars(Chart {
                        id, title: &title, x_label: "interactions of the user before the test",
                        describes: "For each group of users the model beside the most popular items.",
                    }, &categories, &series))
                }
            }
        }
        details {
            summary { "Numbers" }
            div.scroll { table {
                thead { tr {
                    th { "interactions" } th.n { "users" }
                    @for metric in [&ndcg, &recall] { th.n { (metric) } th.n { (POPULAR) } }
                } }
                tbody { @for (at, group) in groups.iter().enumerate() { tr {
                    th scope="row" { (categories[at]) } td.n { (count(group.users as u64)) }
                    @for metric in [&ndcg, &recall] {
                        td.n { (cell(group.metrics.get(metric))) }
                        td.n { (cell(popular.get(at).and_then(|group| group.metrics.get(metric)))) }
                    }
                } } }
            } }
        }
    };
    Some(Section { id: "activity", title: "Who is served badly?", body })
}

/// What becomes of popular and of rare items.
pub(super) fn popularity(found: &Findings) -> Option<Section> {
    let Some(Test::Lists(test)) = &found.test else { return None };
    let k = test.k.first().copied().unwrap_or(0);
    let (groups, popular) = (&test.model.by_popularity, &test.most_popular.by_popularity);
    let all: u64 = groups.iter().map(|group| group.interactions).sum();
    let categories: Vec<String> = groups
        .iter()
        .map(|group| format!("{} ({})", group.band.name(), counted(group.items as u64, "item")))
        .collect();
    let of = |groups: &[recmill_core::evaluate::PopularityGroup], metric: &str| {
        groups.iter().map(|group| group.metrics.get(&format!("{metric}@{k}"))).collect::<Vec<_>>()
    };
    let share = |n: u64| (all > 0).then(|| n as f64 / all as f64);
    let one = |name: &str, values| Series { name: name.to_owned(), values };
    let recall = [one(&found.model, of(groups, "recall")), one(POPULAR, of(popular, "recall"))];
    let places = [
        one("places in lists", of(groups, "places")),
        one("interactions", groups.iter().map(|group| share(group.interactions)).collect()),
    ];
    let body = html! {
        p { "Items from the most popular on: the head has the first third of all training interactions, the tail the last. "
            "An item that nobody is shown cannot be taken." }
        @if let (Some(tail), Some(third)) = (places[0].values.last().copied().flatten(), places[1].values.last().copied().flatten()) {
            p { "The tail takes " strong { (percent(tail)) " of the places" } " in lists of " (k) " and has " (percent(third)) " of the interactions." }
        }
        div.charts {
            @for (id, title, describes, series) in [
                ("popularity-recall", format!("recall@{k} by popularity of the item"),
                    "For each band of items the share of test rows that are found, the model beside the most popular items.", &recall),
                ("popularity-places", format!("Share of the places in lists of {k}"),
                    "For each band of items its share of all places in lists, beside its share of the training interactions.", &places),
            ] {
                figure {
                    figcaption { b { (title) } (legend(series)) }
                    (chart::bars(Chart { id, title: &title, x_label: "items by popularity", describes }, &categories, series))
                }
            }
        }
        details {
            summary { "Numbers" }
            div.scroll { table {
                thead { tr {
                    th { "items" } th.n { "in catalogue" } th.n { "interactions" } th.n { "test rows" } th.n { "recall@" (k) }
                    th.n { (POPULAR) } th.n { "of places" } th.n { "recommended at all" }
                } }
                tbody { @for (at, group) in groups.iter().enumerate() { tr {
                    th scope="row" { (group.band.name()) } td.n { (count(group.items as u64)) }
                    td.n { (count(group.interactions)) } td.n { (count(group.test_rows as u64)) }
                    td.n { (cell(recall[0].values[at])) } td.n { (cell(recall[1].values.get(at).copied().flatten())) }
                    td.n { (places[0].values[at].map_or("-".to_owned(), percent)) }
                    td.n { (group.metrics.get(&format!("coverage@{k}")).map_or("-".to_owned(), percent)) }
                } } }
            } }
        }
    };
    Some(Section { id: "popularity", title: "Popular and rare items", body })
}

/// What the colours stand for.
pub(super) fn legend(series: &[Series]) -> Markup {
    html! {
        span.legend { @for (at, one) in series.iter().enumerate() { span { i class=(format!("s{}", at + 1)) {} (one.name) } } }
    }
}

fn cell(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.4}"))
}

fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

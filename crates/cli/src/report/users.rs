//! A few users: what they had, and what they are recommended.

use maud::{Markup, html};

use crate::{
    output::count,
    report::{
        chart::short,
        findings::{Findings, ShownItem},
        page::Section,
    },
};

/// The section, where there are users to show or a reason that there are none.
pub(super) fn users(found: &Findings) -> Option<Section> {
    let is_due = !found.users.is_empty() || found.not_measured.iter().any(|gap| gap.section == "users");
    let any_hit = found.users.iter().flat_map(|user| &user.recommended).any(|item| item.hit);
    let body = html! {
        p { "Drawn from the training data by the seed."
            @if any_hit { " A tick marks what the user did take in the test file." } }
        @for user in &found.users {
            div.user {
                h3 { "User " (user.user_id) }
                div.pair {
                    div { h4 { "Had " (count(user.had as u64)) ", the newest first" } (list(found, &user.history)) }
                    div { h4 { "Is recommended" } (list(found, &user.recommended)) }
                }
            }
        }
    };
    is_due.then_some(Section { id: "users", title: "Some users", body })
}

fn list(found: &Findings, items: &[ShownItem]) -> Markup {
    let scored = items.iter().any(|item| item.score.is_some());
    html! {
        div.scroll { table {
            thead { tr {
                @if scored { th.n { "score" } }
                th { "item" } @for column in &found.item_columns { th { (column) } }
            } }
            tbody { @for item in items { tr {
                @if let Some(score) = item.score { td.n { (short(f64::from(score))) } }
                td { (item.item_id) @if item.hit { " " span.hit title="in the test file" { "✓" } } }
                @for text in &item.about { td { (text) } }
            } } }
        } }
    }
}

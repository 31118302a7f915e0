//! Charts as SVG in the page: lines, bars and histograms that take their colours from the page's variables.
//!
//! Each is an image with a title and a description for whoever cannot see it; the numbers stand in a table beside it.

use maud::{Markup, html};

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 48.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 42.0;
/// Height of a line of labels.
const LINE: f64 = 14.0;

/// The second colour is the baseline's, a grey: it comes last among lines of equal rank.
const LINE_COLOURS: [usize; 4] = [1, 3, 4, 2];

/// What every chart has.
#[derive(Clone, Copy)]
pub(crate) struct Chart<'a> {
    /// Unique in the page, of letters and dashes.
    pub(crate) id: &'a str,
    pub(crate) title: &'a str,
    /// What is to be seen in it, in a sentence.
    pub(crate) describes: &'a str,
    pub(crate) x_label: &'a str,
}

/// Values with a name.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) values: Vec<Option<f64>>,
}

/// The part of the picture that has the marks, and what its edges stand for.
struct Frame {
    right: f64,
    x: (f64, f64),
    y: (f64, f64),
    y_ticks: Vec<f64>,
}

impl Frame {
    /// Makes room for `y`, whose least and largest value become ticks.
    fn new(right_margin: f64, x: (f64, f64), y: (f64, f64)) -> Self {
        let y_ticks = ticks(y.0, y.1, 4);
        let y = (y_ticks.first().copied().unwrap_or(y.0), y_ticks.last().copied().unwrap_or(y.1));
        Self { right: WIDTH - right_margin, x, y, y_ticks }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (self.right - LEFT) * share(value, self.x)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share(value, self.y)
    }

    /// The picture: lines of the grid, labels of both axes, and `marks` above them.
    fn draw(&self, chart: Chart<'_>, x_ticks: &[(f64, String)], marks: &Markup) -> Markup {
        let (title, describes) = (format!("{}-title", chart.id), format!("{}-desc", chart.id));
        let bottom = HEIGHT - BOTTOM;
        html! {
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-labelledby=(format!("{title} {describes}")) {
                title id=(title) { (chart.title) }
                desc id=(describes) { (chart.describes) }
                g.grid aria-hidden="true" {
                    @for &tick in &self.y_ticks {
                        line x1=(px(LEFT)) x2=(px(self.right)) y1=(px(self.y(tick))) y2=(px(self.y(tick))) {}
                        text x=(px(LEFT - 8.0)) y=(px(self.y(tick) + 4.0)) text-anchor="end" { (tick_label(tick, &self.y_ticks)) }
                    }
                    line.axis x1=(px(LEFT)) x2=(px(self.right)) y1=(px(bottom)) y2=(px(bottom)) {}
                    @for (at, label) in x_ticks {
                        text x=(px(self.x(*at))) y=(px(bottom + 17.0)) text-anchor="middle" { (label) }
                    }
                    text x=(px((LEFT + self.right) / 2.0)) y=(px(HEIGHT - 6.0)) text-anchor="middle" { (chart.x_label) }
                }
                (marks)
            }
        }
    }
}

/// Draws a line for each series over the epochs `x`; `mark` is a place on the axis with its name.
pub(crate) fn lines(chart: Chart<'_>, x: &[f64], series: &[Series], mark: Option<(f64, &str)>) -> Markup {
    let known = || series.iter().flat_map(|one| one.values.iter().flatten().copied());
    let (first, last) = (x.first().copied().unwrap_or(0.0), x.last().copied().unwrap_or(1.0));
    let named = series.len() > 1;
    let frame = Frame::new(if named { 92.0 } else { 16.0 }, (first, last), range(known()));
    let x_ticks: Vec<(f64, String)> = ticks(first, last, 6)
        .into_iter()
        .filter(|tick| (first..=last).contains(tick) && tick.fract() == 0.0)
        .map(|tick| (tick, tick.to_string()))
        .collect();
    let points = |one: &Series| -> Vec<(f64, f64)> {
        let pairs = x.iter().zip(&one.values);
        pairs.filter_map(|(&x, y)| Some((frame.x(x), frame.y((*y)?)))).collect()
    };
    let ends: Vec<f64> =
        series.iter().map(|one| points(one).last().map_or(HEIGHT / 2.0, |point| point.1)).collect();
    let labels = apart(&ends);
    let marks = html! {
        @if let Some((at, name)) = mark {
            g.mark {
                line x1=(px(frame.x(at))) x2=(px(frame.x(at))) y1=(px(TOP)) y2=(px(HEIGHT - BOTTOM)) {}
                @let anchor = if share(at, frame.x) > 0.5 { ("end", -5.0) } else { ("start", 5.0) };
                text x=(px(frame.x(at) + anchor.1)) y=(px(TOP - 4.0)) text-anchor=(anchor.0) { (name) }
            }
        }
        @for (at, one) in series.iter().enumerate() {
            @let points = points(one);
            g class=(format!("series s{}", LINE_COLOURS[at % LINE_COLOURS.len()])) {
                path.line d=(path(&points)) {}
                @for (x, y) in points.iter().filter(|_| points.len() <= 25) {
                    circle.dot cx=(px(*x)) cy=(px(*y)) r="2.5" {}
                }
                @if named {
                    text x=(px(frame.right + 8.0)) y=(px(labels[at] + 4.0)) { (one.name) }
                }
            }
        }
    };
    frame.draw(chart, &x_ticks, &marks)
}

/// Draws bars from 0, side by side for each of `categories`, with their values above them.
pub(crate) fn bars(chart: Chart<'_>, categories: &[String], series: &[Series]) -> Markup {
    let most = series.iter().flat_map(|one| one.values.iter().flatten().copied()).fold(0.0, f64::max);
    let n = categories.len().max(1) as f64;
    let frame = Frame::new(8.0, (0.0, n), (0.0, if most > 0.0 { most } else { 1.0 }));
    let slot = (frame.right - LEFT) / n;
    let wide = (slot * 0.72 / series.len().max(1) as f64).min(44.0);
    let x_ticks: Vec<(f64, String)> =
        categories.iter().enumerate().map(|(at, name)| (at as f64 + 0.5, name.clone())).collect();
    let left = |category: usize, at: usize| {
        frame.x(category as f64 + 0.5) + wide * (at as f64 - series.len() as f64 / 2.0)
    };
    let marks = html! {
        @for (at, one) in series.iter().enumerate() {
            g class=(format!("series s{}", at + 1)) {
                @for (category, value) in one.values.iter().enumerate() {
                    @if let Some(value) = *value {
                        @let (x, y) = (left(category, at), frame.y(value));
                        rect.bar x=(px(x + 1.0)) y=(px(y)) width=(px(wide - 2.0)) height=(px((HEIGHT - BOTTOM - y).max(0.0))) {}
                        text.value x=(px(x + wide / 2.0)) y=(px(y - 4.0)) text-anchor="middle" { (short(value)) }
                    }
                }
            }
        }
    };
    frame.draw(chart, &x_ticks, &marks)
}

/// Draws counts by bins: the first of `series` as bars, the second as their outline. `edges` has one more than there are bins.
pub(crate) fn histogram(chart: Chart<'_>, edges: &[f64], series: [&[usize]; 2]) -> Markup {
    let most = series.iter().flat_map(|counts| counts.iter()).max().copied().unwrap_or(0).max(1);
    let (low, high) = (edges.first().copied().unwrap_or(0.0), edges.last().copied().unwrap_or(1.0));
    let frame = Frame::new(16.0, (low, high), (0.0, most as f64));
    let all = ticks(low, high, 6);
    let x_ticks: Vec<(f64, String)> = all
        .iter()
        .filter(|tick| (low..=high).contains(*tick))
        .map(|&tick| (tick, tick_label(tick, &all)))
        .collect();
    let bottom = frame.y(0.0);
    let mut outline = vec![(frame.x(low), bottom)];
    for (edges, &count) in edges.windows(2).zip(series[1]) {
        outline.extend(edges.iter().map(|&edge| (frame.x(edge), frame.y(count as f64))));
    }
    outline.push((frame.x(high), bottom));
    let marks = html! {
        g class="series s1" {
            @for (edges, &count) in edges.windows(2).zip(series[0]).filter(|(_, count)| **count > 0) {
                @let (x, y) = (frame.x(edges[0]), frame.y(count as f64));
                rect.bar x=(px(x + 0.5)) y=(px(y)) width=(px((frame.x(edges[1]) - x - 1.0).max(0.5))) height=(px(bottom - y)) {}
            }
        }
        g class="series s2" { path.line d=(path(&outline)) {} }
    };
    frame.draw(chart, &x_ticks, &marks)
}

/// Writes a number so that three digits of it matter: `0.0123`, `0.123`, `12.3`, `1230`.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        v if v >= 0.0995 => format!("{value:.3}"),
        v if v >= 0.0001 => format!("{value:.4}"),
        _ => format!("{value:.0e}"),
    }
}

fn px(value: f64) -> String {
    format!("{value:.1}")
}

fn path(points: &[(f64, f64)]) -> String {
    let mut text = String::new();
    for (at, &(x, y)) in points.iter().enumerate() {
        text += &format!("{}{} {}", if at == 0 { "M" } else { "L" }, px(x), px(y));
    }
    text
}

/// Where `value` lies between the ends of `range`, from 0 to 1.
fn share(value: f64, range: (f64, f64)) -> f64 {
    if range.1 > range.0 { (value - range.0) / (range.1 - range.0) } else { 0.5 }
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    match (low, high) {
        (low, high) if low > high => (0.0, 1.0),
        // A level line runs through the middle.
        (low, high) if low == high => (low - low.abs().max(1e-3) / 2.0, high + high.abs().max(1e-3) / 2.0),
        both => both,
    }
}

/// Round numbers that cover `low ..= high`, about `wanted` steps of them.
fn ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    if high <= low || !(high - low).is_finite() {
        return vec![low];
    }
    let rough = (high - low) / wanted as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0]
        .map(|m| m * power)
        .into_iter()
        .find(|&step| step >= rough * 0.999)
        .unwrap_or(10.0 * power);
    let (first, last) = ((low / step + 1e-9).floor() as i64, (high / step - 1e-9).ceil() as i64);
    (first..=last).map(|n| n as f64 * step).collect()
}

/// A tick with as many decimals as tell it from its neighbour.
fn tick_label(tick: f64, ticks: &[f64]) -> String {
    let step = ticks.windows(2).map(|pair| pair[1] - pair[0]).next().unwrap_or(tick.abs().max(1.0));
    if ticks.iter().any(|tick| tick.abs() >= 1e6) || step < 1e-6 {
        return format!("{tick:.1e}");
    }
    // Rounding takes the last bits away, and the sign of a zero that they made.
    let decimals = (-(step.log10() + 1e-9).floor()).max(0.0) as usize;
    let text = format!("{tick:.decimals$}");
    if text.trim_start_matches('-').chars().all(|c| "0.".contains(c)) {
        text.trim_start_matches('-').to_owned()
    } else {
        text
    }
}

/// Moves labels at `y` down as far as they would cover each other; keeps their order from top to bottom.
fn apart(y: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..y.len()).collect();
    order.sort_by(|&a, &b| y[a].total_cmp(&y[b]));
    let mut placed = y.to_vec();
    for pair in order.windows(2) {
        placed[pair[1]] = placed[pair[1]].max(placed[pair[0]] + LINE);
    }
    // What was pushed out at the bottom pushes the others up.
    let mut limit = HEIGHT - BOTTOM;
    for &at in order.iter().rev() {
        placed[at] = placed[at].min(limit);
        limit = placed[at] - LINE;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_range() {
        assert_eq!(ticks(0.0, 0.31, 4), [0.0, 0.1, 0.2, 0.30000000000000004, 0.4]);
        assert_eq!(ticks(1.0, 10.0, 6), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(2.0, 2.0, 4), [2.0]);
        let of = |low, high| {
            let ticks = ticks(low, high, 4);
            ticks.iter().map(|&tick| tick_label(tick, &ticks)).collect::<Vec<_>>()
        };
        assert_eq!(of(0.0, 0.31), ["0.0", "0.1", "0.2", "0.3", "0.4"]);
        assert_eq!(of(-0.015, 0.01), ["-0.02", "-0.01", "0.00", "0.01"]);
        assert_eq!(of(0.0, 1200.0), ["0", "500", "1000", "1500"]);
    }

    #[test]
    fn labels_do_not_cover_each_other() {
        let placed = apart(&[100.0, 101.0, 197.0, 198.0]);
        let mut sorted = placed.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(sorted.windows(2).all(|pair| pair[1] - pair[0] >= LINE), "{placed:?}");
        assert!(sorted[3] <= HEIGHT - BOTTOM && placed == sorted);
    }

    #[test]
    fn a_chart_of_nothing_and_of_one_value_can_be_drawn() {
        let chart = Chart { id: "c", title: "<t>", describes: "d", x_label: "x" };
        for values in [vec![None], vec![Some(0.5)], vec![Some(1e300)]] {
            let series = [Series { name: "a".into(), values }];
            for svg in [lines(chart, &[1.0], &series, None), bars(chart, &["a".into()], &series)] {
                let text = svg.into_string();
                assert!(
                    text.contains("&lt;t&gt;") && !text.contains("NaN") && !text.contains("inf"),
                    "{text}"
                );
            }
        }
        let text = histogram(chart, &[0.0, 1.0], [&[0], &[0]]).into_string();
        assert!(!text.contains("NaN"), "{text}");
    }
}

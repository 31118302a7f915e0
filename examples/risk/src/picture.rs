//! The precision-recall curve as an SVG, with the chosen threshold marked.

use std::path::Path;

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    decide::Point,
    failure::{Failure, Result},
};

const SIZE: (u32, u32) = (640, 480);
/// Points that are nearer than this could not be told apart, and only make the file larger.
const STEP: f64 = 1.0 / 400.0;

/// What is drawn.
pub(crate) struct Picture<'a> {
    pub(crate) title: &'a str,
    /// By ascending recall.
    pub(crate) curve: &'a [Point],
    pub(crate) chosen: Point,
    /// What stands beside the chosen point.
    pub(crate) label: &'a str,
    /// The precision of stopping at random: the share of frauds.
    pub(crate) chance: f64,
}

impl Picture<'_> {
    /// Returns the text of the SVG.
    pub(crate) fn svg(&self) -> Result<String> {
        let mut text = String::new();
        self.draw(&mut text).map_err(|error| Failure::Picture { reason: error.to_string() })?;
        Ok(text)
    }

    /// Writes the SVG.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        Ok(fs_err::write(path, self.svg()?)?)
    }

    fn draw(&self, text: &mut String) -> std::result::Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 20))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("recall: share of the frauds that are caught")
            .y_desc("precision: share of frauds in what is stopped")
            .x_label_formatter(&|value| format!("{value:.1}"))
            .y_label_formatter(&|value| format!("{value:.1}"))
            .label_style(("sans-serif", 14))
            .draw()?;
        let chance = [(0.0, self.chance), (1.0, self.chance)];
        chart.draw_series(LineSeries::new(chance, BLACK.mix(0.4)))?;
        let blue = RGBColor(31, 91, 153);
        chart.draw_series(LineSeries::new(thinned(self.curve), blue.stroke_width(2)))?;

        let Point { recall, precision } = self.chosen;
        let at = (recall, precision);
        chart.draw_series([Circle::new(at, 5, RGBColor(192, 57, 43).filled())])?;
        // Away from the nearer side, so that the text has room.
        let (side, shift) = if recall > 0.5 { (HPos::Right, -10) } else { (HPos::Left, 10) };
        let style = ("sans-serif", 14).into_font().color(&BLACK).pos(Pos::new(side, VPos::Bottom));
        let label = EmptyElement::at(at) + Text::new(self.label.to_owned(), (shift, -8), style);
        chart.draw_series([label])?;
        area.present()?;
        Ok(())
    }
}

/// Leaves out points that lie closer together than [`STEP`]; the first and the last stay.
fn thinned(curve: &[Point]) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for (at, point) in curve.iter().enumerate() {
        let is_last = at + 1 == curve.len();
        let is_far = |&(recall, precision): &(f64, f64)| {
            (point.recall - recall).abs().max((point.precision - precision).abs()) >= STEP
        };
        if is_last || kept.last().is_none_or(is_far) {
            kept.push((point.recall, point.precision));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_of_many_points_is_a_small_picture_with_its_texts() {
        let point = |at: u32| {
            let recall = f64::from(at) / 50_000.0;
            Point { recall, precision: 1.0 - recall * recall }
        };
        let curve: Vec<Point> = (1..=50_000).map(point).collect();
        let picture = Picture {
            title: "frauds <of> a test",
            curve: &curve,
            chosen: curve[30_000],
            label: "0.01",
            chance: 0.008,
        };
        let text = picture.svg().unwrap();
        assert!(text.starts_with("<svg ") && text.trim_end().ends_with("</svg>"));
        assert!(text.contains("frauds &lt;of&gt; a test") && text.contains("0.01"));
        assert!(text.len() < 50_000, "{} bytes", text.len());
        assert_eq!(thinned(&curve).last(), Some(&(1.0, 0.0)));
    }

    #[test]
    fn one_point_is_a_picture_too() {
        let point = Point { recall: 1.0, precision: 1.0 };
        let picture = Picture { title: "", curve: &[point], chosen: point, label: "", chance: 1.0 };
        assert!(picture.svg().unwrap().contains("circle"));
    }
}

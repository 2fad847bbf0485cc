//! Line charts of the page, as inline SVG with a legend in HTML.

use std::ops::Range;

use anyhow::{Context, Result, anyhow};
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::escape;

/// Stands for the page's text colour in charts, which are drawn before the page knows whether it is dark.
const INK: RGBColor = RGBColor(1, 2, 3);
/// Colours of lines, told apart by the colour-blind (Okabe and Ito) on light and dark ground.
const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
];
/// A named line of points, with intervals where there are some.
pub(super) struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    pub intervals: Vec<(f64, f64, f64)>,
}

const WIDTH: u32 = 640;
const HEIGHT: u32 = 360;

/// An axis with ticks of one's own.
struct Axis {
    axis: RangedCoordf64,
    ticks: Vec<f64>,
}

impl Axis {
    /// Ticks at these places, at each once; without places, at round numbers.
    fn new(range: Range<f64>, ticks: Option<Vec<f64>>) -> Self {
        let axis = RangedCoordf64::from(range);
        let mut ticks = ticks.unwrap_or_else(|| axis.key_points(6));
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        Self { axis, ticks }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.axis.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.axis.range()
    }
}

/// Names of lines with their colours, for below a chart: nothing where one line needs none.
fn legend(series: &[Series], always: bool) -> String {
    if series.len() < 2 && !always {
        return String::new();
    }
    let entry = |(index, line): (usize, &Series)| {
        let RGBColor(red, green, blue) = COLOURS[index % COLOURS.len()];
        let name = escape(&line.name);
        format!("<span><i style=\"background:#{red:02x}{green:02x}{blue:02x}\"></i>{name}</span>")
    };
    format!("<div class=\"legend\">{}</div>", series.iter().enumerate().map(entry).collect::<String>())
}

/// A line chart as inline SVG with a legend. `shares`: x is a percentage on a logarithmic axis.
pub(super) fn chart(series: &[Series], x_title: &str, y_title: &str, shares: bool) -> Result<String> {
    let bad = |e: &dyn std::fmt::Display| anyhow!("chart: {e}");
    let position = |x: f64| if shares { x.log10() } else { x };
    let xs = || series.iter().flat_map(|s| s.points.iter().map(|p| position(p.0)));
    let ys =
        || series.iter().flat_map(|s| s.points.iter().map(|p| p.1).chain(s.intervals.iter().flat_map(|i| [i.1, i.2])));
    let span = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    };
    let ((x0, x1), (y0, y1)) = (span(&mut xs()), span(&mut ys()));
    let x_room = if x1 > x0 { (x1 - x0) * 0.04 } else { 0.5 };
    let y_room = if y1 > y0 { (y1 - y0) * 0.08 } else { 0.1 };

    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        let font = |size: i32| ("sans-serif", size).into_font().color(&INK);
        let mut builder = ChartBuilder::on(&area);
        builder.margin(10).x_label_area_size(36).y_label_area_size(58);
        let x_axis = Axis::new(x0 - x_room..x1 + x_room, shares.then(|| xs().collect()));
        let mut plot = builder.build_cartesian_2d(x_axis, y0 - y_room..y1 + y_room).map_err(|e| bad(&e))?;
        let x_label = |x: &f64| {
            let value = if shares { 10f64.powf(*x) } else { *x };
            if value >= 10_000.0 {
                format!("{}k", (value / 1000.0).round())
            } else {
                format!("{}", (value * 100.0).round() / 100.0)
            }
        };
        let y_label = |y: &f64| if y.abs() > 0.0 && y1.abs() < 0.05 { format!("{y:.0e}") } else { format!("{y:.2}") };
        plot.configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(INK.mix(0.12))
            .axis_style(INK.mix(0.6))
            .x_label_formatter(&x_label)
            .y_label_formatter(&y_label)
            .x_desc(x_title)
            .y_desc(y_title)
            .label_style(font(13))
            .axis_desc_style(font(14))
            .draw()
            .map_err(|e| bad(&e))?;
        for (index, line) in series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            // Intervals of several lines at one ratio stand beside each other.
            let shift = if shares { (index as f64 - (series.len() - 1) as f64 / 2.0) * (x1 - x0) * 0.012 } else { 0.0 };
            let points: Vec<(f64, f64)> = line.points.iter().map(|p| (position(p.0) + shift, p.1)).collect();
            plot.draw_series(LineSeries::new(points.clone(), colour.stroke_width(2))).map_err(|e| bad(&e))?;
            if shares {
                plot.draw_series(points.iter().map(|&p| Circle::new(p, 4, colour.filled()))).map_err(|e| bad(&e))?;
            }
            plot.draw_series(line.intervals.iter().map(|&(x, low, high)| {
                let x = position(x) + shift;
                PathElement::new([(x, low), (x, high)], colour.stroke_width(2))
            }))
            .map_err(|e| bad(&e))?;
        }
        area.present().map_err(|e| bad(&e))?;
    }
    let sized = format!("<svg width=\"{WIDTH}\" height=\"{HEIGHT}\"");
    let svg = svg.split_once("<svg").map(|(_, rest)| format!("<svg{rest}")).context("no SVG was drawn")?;
    let svg = svg.replacen(&sized, "<svg role=\"img\"", 1).replace("#010203", "currentColor");
    Ok(svg + &legend(series, shares))
}

//! Square charts whose axes both begin at 0 and have the same scale, as inline SVG: ROC, precision-recall and reliability curves.

use std::fmt::Write as _;

use super::chart::{COLORS, DASHES, Series, legend, line, marker};
use super::html::escape;

/// Side of the plotting area, in the units of the drawing.
const SIDE: f64 = 300.0;
/// Room above it.
const MARGIN: f64 = 12.0;

/// How a chart looks.
#[derive(Debug, Clone, Copy)]
pub struct UnitChart<'a> {
    /// Title of the horizontal axis.
    pub x_title: &'a str,
    /// Title of the vertical axis.
    pub y_title: &'a str,
    /// End of both axes.
    pub most: f64,
    /// Whether the diagonal is drawn.
    pub diagonal: bool,
    /// Whether it is shown at half the size, with larger letters and a marker at each point.
    pub small: bool,
}

impl UnitChart<'_> {
    /// The chart of some lines with their legend.
    pub fn draw(self, series: &[Series]) -> String {
        let (font, left, bottom) = if self.small { (21.0, 88.0, 62.0) } else { (13.0, 52.0, 44.0) };
        let place = |x: f64, y: f64| (left + x / self.most * SIDE, MARGIN + (1.0 - y / self.most) * SIDE);
        let (width, height) = (left + SIDE + font, MARGIN + SIDE + bottom);
        let mut svg = format!(
            "<svg role=\"img\" viewBox=\"0 0 {width} {height}\" xmlns=\"http://www.w3.org/2000/svg\" \
             font-family=\"sans-serif\" font-size=\"{font}\" fill=\"currentColor\">\n<g stroke=\"currentColor\">"
        );
        let steps = if self.small { 2 } else { 5 };
        let mut labels = String::new();
        for step in 0..=steps {
            let tick = self.most * f64::from(step) / f64::from(steps);
            let ((x, y0), (_, y1)) = (place(tick, 0.0), place(tick, self.most));
            let ((x0, y), (x1, _)) = (place(0.0, tick), place(self.most, tick));
            let opacity = if step == 0 { 0.6 } else { 0.12 };
            let tick = (tick * 1000.0).round() / 1000.0;
            let _ = write!(svg, "<path fill=\"none\" opacity=\"{opacity}\" d=\"M{x} {y0}V{y1}M{x0} {y}H{x1}\"/>");
            let _ = write!(
                labels,
                "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{tick}</text><text x=\"{}\" y=\"{}\" \
                 text-anchor=\"end\">{tick}</text>",
                y0 + font * 1.3,
                x0 - font * 0.5,
                y + font * 0.35
            );
        }
        if self.diagonal {
            let ((x0, y0), (x1, y1)) = (place(0.0, 0.0), place(self.most, self.most));
            let _ = write!(svg, "<path opacity=\"0.5\" stroke-dasharray=\"3 5\" d=\"M{x0} {y0}L{x1} {y1}\"/>");
        }
        svg += "</g>\n";
        let ((middle, below), (_, half)) = (place(self.most / 2.0, 0.0), place(0.0, self.most / 2.0));
        let (below, beside) = (below + font * 2.7, font);
        let _ = writeln!(
            svg,
            "{labels}<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{}</text><text transform=\"translate({beside} \
             {half}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            escape(self.x_title),
            escape(self.y_title)
        );
        let marked = self.small || series.len() > DASHES.len();
        for (index, drawn) in series.iter().enumerate() {
            let mut points: Vec<(i32, i32)> = Vec::new();
            for &(x, y) in &drawn.points {
                let (x, y) = place(x, y);
                let point = (x.round() as i32, y.round() as i32);
                if points.last() != Some(&point) {
                    points.push(point);
                }
            }
            let _ = write!(svg, "<g class=\"c{}\">{}", index % COLORS, line(index, &points));
            if marked {
                let every = if self.small { 1 } else { points.len().div_ceil(MARKERS).max(1) };
                let first = index * every / series.len();
                svg.extend(points.iter().skip(first).step_by(every).map(|&point| marker(index, point)));
            }
            svg += "</g>\n";
        }
        svg + "</svg>" + &legend(series, false, marked && !self.small)
    }
}

/// Markers of a curve of many points.
const MARKERS: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_within_the_axes_and_texts_are_escaped() {
        let series = |name: &str| Series {
            name: name.to_owned(),
            points: (0..=1000).map(|at| (f64::from(at) / 1000.0, (f64::from(at) / 1000.0).sqrt())).collect(),
            intervals: Vec::new(),
        };
        let chart = UnitChart { x_title: "a < b", y_title: "y", most: 1.0, diagonal: true, small: false };
        let svg = chart.draw(&[series("one"), series("<two>")]);
        let lines: Vec<&str> = svg.split("points=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let ends = |line: &str| {
            let mut points = line.split(' ');
            (points.next().unwrap().to_owned(), points.next_back().unwrap().to_owned())
        };
        assert_eq!(ends(lines[0]), ("52,312".to_owned(), "352,12".to_owned()));
        assert!(lines[0].split(' ').count() <= 601, "one point a pixel");
        assert!(svg.contains("a &lt; b") && svg.contains("&lt;two&gt;") && !svg.contains("<two>"));
        // Half of the range is twice as large.
        let half = UnitChart { most: 0.5, small: true, ..chart };
        let svg = half.draw(&[Series { points: vec![(0.0, 0.0), (0.25, 0.5)], ..series("one") }]);
        assert!(svg.contains("points=\"88,312 238,12\"") && svg.contains(">0.25</text>"), "{svg}");
    }
}

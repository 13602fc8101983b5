//! Lines over amounts, both on logarithmic scales, as an SVG file.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::{
    ChartBuilder, Color as _, IntoDrawingArea as _, IntoLogRange as _, LineSeries, PathElement, SVGBackend,
    SeriesLabelPosition, WHITE,
};
use plotters::style::{BLACK, Palette as _, Palette99};

/// A name, and points of amount and value.
pub type Line = (&'static str, Vec<(f64, f64)>);

/// Draws lines; values that are not above zero are left out.
pub fn draw(path: &Path, unit: &str, lines: &[Line]) -> Result<()> {
    let points =
        || lines.iter().flat_map(|(_, points)| points.iter().copied()).filter(|(_, value)| *value > 0.0);
    let (mut across, mut up) = ((f64::MAX, f64::MIN), (f64::MAX, f64::MIN));
    for (amount, value) in points() {
        across = (across.0.min(amount), across.1.max(amount));
        up = (up.0.min(value), up.1.max(value));
    }
    let failed = |error: &dyn std::fmt::Display| anyhow!("the plot can't be drawn: {error}");
    let area = SVGBackend::new(path, (760, 460)).into_drawing_area();
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d((across.0..across.1 * 1.05).log_scale(), (up.0 / 2.0..up.1 * 2.0).log_scale())
        .map_err(|error| failed(&error))?;
    chart.configure_mesh().x_desc(unit).light_line_style(WHITE).draw().map_err(|error| failed(&error))?;
    for (at, (name, points)) in lines.iter().enumerate() {
        let style = Palette99::pick(at).stroke_width(2);
        let shown = points.iter().copied().filter(|(_, value)| *value > 0.0);
        chart
            .draw_series(LineSeries::new(shown, style).point_size(3))
            .map_err(|error| failed(&error))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .draw()
        .map_err(|error| failed(&error))?;
    area.present().map_err(|error| failed(&error))
}

//! The HTML page over some runs: label efficiency, the sections of their tasks, curves, settings.

mod chart;
mod curves;
mod html;
mod label_efficiency;
mod metrics_table;
mod page;
mod run;
mod settings;
mod unit_chart;

pub use chart::{Series, chart};
pub use html::{Section, THIN, escape, image_figure, interval_cell, marked_cell, with_note};
pub use label_efficiency::Summary;
pub(crate) use label_efficiency::ratio_key;
pub use metrics_table::metrics_section;
pub use page::{Report, report};
pub use run::{Run, StoredEvaluation};
pub use unit_chart::UnitChart;

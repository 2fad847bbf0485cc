//! CSV tables of a phantom set, plain or gzipped by their name.

use std::io;
use std::path::{Path, PathBuf};

use crate::disease::Kind;
use crate::report::Report;
use crate::{Error, write_file};

/// A CSV file; nothing is written before [`Table::finish`].
pub struct Table {
    path: PathBuf,
    rows: csv::Writer<Vec<u8>>,
}

impl Table {
    /// Starts a table with its header; rows may have fewer cells, as in NIH's box list.
    pub fn new(path: &Path, header: &[&str]) -> Result<Self, Error> {
        let mut table =
            Self { path: path.to_owned(), rows: csv::WriterBuilder::new().flexible(true).from_writer(Vec::new()) };
        table.row(header)?;
        Ok(table)
    }

    /// Appends a row.
    pub fn row(&mut self, fields: &[&str]) -> Result<(), Error> {
        let written = self.rows.write_record(fields);
        written.map_err(|error| Error::Write { path: self.path.clone(), source: error.into() })
    }

    /// Writes the file.
    pub fn finish(self) -> Result<(), Error> {
        let failed = |source: io::Error| Error::Write { path: self.path.clone(), source };
        let bytes = self.rows.into_inner().map_err(|error| failed(error.into_error()))?;
        if self.path.extension().is_some_and(|extension| extension == "gz") {
            // No time in the header: the same set gives the same bytes.
            let mut gzip = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::default());
            io::Write::write_all(&mut gzip, &bytes).map_err(failed)?;
            let bytes = gzip.finish().map_err(failed)?;
            return write_file(&self.path, &bytes);
        }
        write_file(&self.path, &bytes)
    }
}

/// The label of a report in a column of CheXpert's vocabulary.
pub fn label(report: &Report, column: &str) -> &'static str {
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == column);
    let label = match kind {
        Some(kind) => report.label(kind),
        None => report.no_finding().then_some(1),
    };
    match label {
        Some(1) => "1.0",
        Some(0) => "0.0",
        Some(_) => "-1.0",
        None => "",
    }
}

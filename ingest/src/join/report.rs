//! What a join found, counted.

use std::fmt::{self, Display, Formatter};

use dataset::commands::cli::counted;
use dataset::join::{JoinCounts, JoinFacts, join_path};

/// The outcome of a join.
#[derive(Debug)]
pub struct JoinReport {
    /// Name of the join.
    pub name: String,
    /// What it is about, with all counts.
    pub facts: JoinFacts,
    /// How keys were compared, after the column's name.
    pub how: String,
    /// The first keys that no record has.
    pub unmatched: Vec<String>,
    /// The first rows that are left out since a value cannot be read, with the reason.
    pub unreadable: Vec<String>,
    /// Warnings, a line each.
    pub warnings: Vec<String>,
    /// The same join was there before, and nothing was written.
    pub already_done: bool,
}

impl Display for JoinReport {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let JoinFacts { kind, names, key, on, .. } = &self.facts;
        let JoinCounts { rows, matched, unmatched, filtered, unreadable, duplicates, with, without } =
            self.facts.counts;
        if self.already_done {
            writeln!(f, "{} has this join already: nothing to do", join_path(&self.name))?;
        }
        let names = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
        writeln!(f, "{} has {}{names}", join_path(&self.name), kind.name())?;
        writeln!(f, "key      `{key}` is the {on} of records{}", self.how)?;
        writeln!(f, "rows     {rows}: {matched} are about records")?;
        let none = Vec::new();
        let lines = [
            (unmatched, "have a key that no record has", &self.unmatched),
            (filtered, "have a value that is too small", &none),
            (unreadable, "cannot be read and are left out", &self.unreadable),
            (duplicates, "differ from an earlier row about the same record and are left out", &none),
        ];
        for (count, words, examples) in lines.into_iter().filter(|(count, ..)| *count > 0) {
            let more = if (examples.len() as u64) < count { ", …" } else { "" };
            let examples =
                if examples.is_empty() { String::new() } else { format!(" ({}{more})", examples.join(", ")) };
            writeln!(f, "         {count} {words}{examples}")?;
        }
        write!(f, "records  {} with {}, {without} without", counted(with as usize, "record"), kind.name())
    }
}

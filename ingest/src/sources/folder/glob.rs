//! Patterns of paths: `*` and `?` within a folder or file name, `**` for any number of folders.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// A pattern of paths relative to the raw directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

impl FromStr for Glob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix("./").unwrap_or(text);
        if text.is_empty() || text.starts_with('/') || text.split('/').any(|part| part == "..") {
            return Err("give a pattern of paths relative to RAW_DIR, such as images/**/*.png".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl Display for Glob {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Glob {
    /// Whether a path has this form.
    pub fn matches(&self, path: &str) -> bool {
        let pattern: Vec<&str> = self.0.split('/').collect();
        folders(&pattern, &path.split('/').collect::<Vec<_>>())
    }
}

/// Matches the parts of a path. For each part of the pattern, `ends` says which beginnings of the path fit so far.
fn folders(pattern: &[&str], path: &[&str]) -> bool {
    let mut ends = vec![false; path.len() + 1];
    ends[0] = true;
    for part in pattern {
        let mut next = vec![false; path.len() + 1];
        if *part == "**" {
            let first = ends.iter().position(|&end| end).unwrap_or(ends.len());
            next[first..].fill(true);
        } else {
            for at in 0..path.len() {
                next[at + 1] = ends[at] && name(part, path[at]);
            }
        }
        ends = next;
    }
    ends[path.len()]
}

/// Matches one name, in the same way.
fn name(pattern: &str, name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let mut ends = vec![false; name.len() + 1];
    ends[0] = true;
    for wanted in pattern.chars() {
        let mut next = vec![false; name.len() + 1];
        if wanted == '*' {
            let first = ends.iter().position(|&end| end).unwrap_or(ends.len());
            next[first..].fill(true);
        } else {
            for at in 0..name.len() {
                next[at + 1] = ends[at] && (wanted == '?' || wanted == name[at]);
            }
        }
        ends = next;
    }
    ends[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stay_in_a_folder_and_double_stars_do_not() {
        let fits = |pattern: &str, path: &str| pattern.parse::<Glob>().unwrap().matches(path);
        for (pattern, path) in [
            ("images/**/*.png", "images/a.png"),
            ("images/**/*.png", "images/p/s/a.png"),
            ("**/*.png", "a.png"),
            ("**", "a/b"),
            ("./a?.*", "ab.dcm"),
            ("*/view*_front?l.jpg", "s1/view12_frontal.jpg"),
            ("p*/**/é*.png", "p1/x/éa.png"),
        ] {
            assert!(fits(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("images/*.png", "images/p/a.png"),
            ("images/**/*.png", "other/a.png"),
            ("images/**/*.png", "images/a.jpg"),
            ("a?.*", "a.png"),
            ("*.png", "p/a.png"),
            ("a", "a/b"),
            ("a/b", "a"),
        ] {
            assert!(!fits(pattern, path), "{pattern} {path}");
        }
        assert!(["", "/abs/*.png", "../x/*.png", "a/../b"].iter().all(|text| text.parse::<Glob>().is_err()));
    }
}

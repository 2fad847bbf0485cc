//! Identifiers of the records of a folder, made of their paths.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Extensions of image files.
pub const IMAGES: [&str; 5] = ["dcm", "dicom", "png", "jpg", "jpeg"];

/// A path without the extension of an image. Other endings are kept: the dots of a UID separate no extension.
pub fn without_extension(path: &str) -> &str {
    match path.rsplit_once('.') {
        Some((stem, ending)) if IMAGES.contains(&ending.to_ascii_lowercase().as_str()) && !stem.is_empty() => stem,
        _ => path,
    }
}

/// The identifier of each path: the path without its extension, unless another path has the same one.
pub fn identifiers<'a>(paths: impl Iterator<Item = &'a str>) -> HashMap<&'a str, &'a str> {
    let paths: BTreeSet<&str> = paths.collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for path in &paths {
        *counts.entry(without_extension(path)).or_default() += 1;
    }
    let own = |path: &'a str| {
        let stem = without_extension(path);
        let is_free = counts[stem] == 1 && (stem == path || !paths.contains(stem));
        (path, if is_free { stem } else { path })
    };
    paths.iter().map(|path| own(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_distinct() {
        let paths = ["a/x.png", "a/x.jpg", "a/y.dcm", "a/1.2.840.10008", "b.png.png", "b.png", "c.PNG", ".png"];
        let names = identifiers(paths.into_iter());
        let of = |path: &str| names[path];
        assert_eq!((of("a/x.png"), of("a/x.jpg"), of("a/y.dcm")), ("a/x.png", "a/x.jpg", "a/y"));
        assert_eq!((of("a/1.2.840.10008"), of("c.PNG"), of(".png")), ("a/1.2.840.10008", "c", ".png"));
        assert_eq!((of("b.png.png"), of("b.png")), ("b.png.png", "b"));
        let distinct: BTreeSet<&&str> = names.values().collect();
        assert_eq!(distinct.len(), paths.len());
    }
}

//! Names that a user may have meant.

/// The names nearest to a mistyped one, at most three, those of the least distance first; capitals do not count.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = wanted.to_lowercase();
    let mut ranked: Vec<(usize, &str)> =
        names.into_iter().map(|name| (distance(&wanted, &name.to_lowercase()), name)).collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, name)| name).take(3).collect()
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut before: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.chars().enumerate() {
            let replaced = before[j] + usize::from(from != to);
            row.push(replaced.min(before[j + 1] + 1).min(row[j] + 1));
        }
        before = row;
    }
    before.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_distance_comes_first() {
        assert_eq!((distance("kitten", "sitting"), distance("", "ab"), distance("a", "a")), (3, 2, 0));
        assert_eq!(nearest("Pateint", ["view", "image", "patient", "age"]), ["patient", "age", "image"]);
        assert!(nearest("x", []).is_empty());
    }
}

//! Names that a user may have meant.

use strsim::levenshtein;

/// The names nearest to a mistyped one, at most three, those of the least distance first. Capitals do not count, and a
/// name may be asked for by what stands behind its last point.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = wanted.to_lowercase();
    let last_of = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let far = |name: &str| {
        let name = name.to_lowercase();
        levenshtein(&wanted, &name).min(levenshtein(&last_of(&wanted), &last_of(&name)))
    };
    let mut ranked: Vec<(usize, &str)> = names.into_iter().map(|name| (far(name), name)).collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, name)| name).take(3).collect()
}

/// `; did you mean X?` for an error about a mistyped name; nothing where there are no names.
pub fn did_you_mean<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wanted, names).first().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_distance_comes_first() {
        assert_eq!(nearest("Pateint", ["view", "image", "patient", "age"]), ["patient", "age", "image"]);
        assert_eq!(nearest("model.ratio", ["data.ratio", "model.ratios"])[0], "data.ratio");
        assert_eq!(did_you_mean("mask_ratio", ["run.seed", "model.mask_ratio"]), "; did you mean `model.mask_ratio`?");
        assert!(nearest("x", []).is_empty());
    }
}

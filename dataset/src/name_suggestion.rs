//! Suggests names for a mistyped one.

use strsim::levenshtein;

/// The names nearest to a mistyped one, at most three, nearest first. Case is ignored, and a name may be given by the part
/// after its last point.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    ranked(wanted, names).into_iter().map(|(_, name)| name).take(3).collect()
}

/// `; did you mean X?` for an error about a mistyped name; nothing where no name is near.
pub fn did_you_mean<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let most = last(wanted).chars().count().div_ceil(2);
    let near = ranked(wanted, names).into_iter().next().filter(|(distance, _)| *distance <= most);
    near.map(|(_, name)| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// Names with their distances, nearest first.
fn ranked<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<(usize, &'a str)> {
    let wanted = wanted.to_lowercase();
    let far = |name: &str| {
        let name = name.to_lowercase();
        let distance = levenshtein(&wanted, &name).min(levenshtein(last(&wanted), last(&name)));
        // A part of a name is near to it.
        let part = last(&wanted).len() > 2 && last(&name).contains(last(&wanted));
        if part { distance.min(1) } else { distance }
    };
    let mut ranked: Vec<(usize, &str)> = names.into_iter().map(|name| (far(name), name)).collect();
    ranked.sort_unstable();
    ranked
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_first() {
        assert_eq!(nearest("Pateint", ["view", "image", "patient", "age"]), ["patient", "age", "image"]);
        assert_eq!(nearest("model.ratio", ["data.ratio", "model.ratios"])[0], "data.ratio");
        assert_eq!(did_you_mean("mask_ratio", ["run.seed", "model.mask_ratio"]), "; did you mean `model.mask_ratio`?");
        assert_eq!(nearest("optimizer.decay", ["data.std", "optimizer.weight_decay"])[0], "optimizer.weight_decay");
        assert!(nearest("x", []).is_empty() && did_you_mean("unheard", ["of", "such"]).is_empty());
    }
}

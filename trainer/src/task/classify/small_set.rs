//! Warnings about sets so small that a classifier, or the choice of its best weights, rests on a few labels.

/// Fewer labels of a class than this are few: one label more or less moves an AUROC by several hundredths.
const FEW: usize = 10;

/// Labels of a finding that count: positive and negative.
fn counts(targets: &[Vec<Option<bool>>], finding: usize) -> [usize; 2] {
    [true, false].map(|wanted| targets.iter().filter(|targets| targets[finding] == Some(wanted)).count())
}

/// Warnings about the training and the validation records, given by their targets. Findings without a label of a class are
/// reported elsewhere.
pub(super) fn warnings(
    findings: &[String],
    train: &[Vec<Option<bool>>],
    validate: &[Vec<Option<bool>>],
) -> Vec<String> {
    let mut warnings = Vec::new();
    let few = |(finding, name): (usize, &String)| {
        let [positives, negatives] = counts(train, finding);
        let (count, class) = if positives <= negatives { (positives, "positive") } else { (negatives, "negative") };
        (1..FEW).contains(&count).then(|| format!("{name} ({count} {class})"))
    };
    let few: Vec<String> = findings.iter().enumerate().filter_map(few).collect();
    if !few.is_empty() {
        warnings.push(format!(
            "few labels among the {} training records: {}; a classifier learns little of such findings",
            train.len(),
            few.join(", ")
        ));
    }
    let both = |finding| counts(validate, finding).into_iter().min().unwrap_or(0);
    match (0..findings.len()).map(both).max().unwrap_or(0) {
        0 => warnings.push(format!(
            "the {} labeled validation records have no finding with both classes: the run keeps the last weights, not the \
             best",
            validate.len()
        )),
        most if most < FEW => warnings.push(format!(
            "no finding has more than {most} labels of each class among the {} validation records: best weights and early \
             stopping are chosen by few records; `dataset split --validation 0.3` makes a larger validation subset",
            validate.len()
        )),
        _ => {}
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Targets of two findings: so many positives and negatives of each, one after the other.
    fn targets(counts: [[usize; 2]; 2]) -> Vec<Vec<Option<bool>>> {
        let label = |[positives, negatives]: [usize; 2], row| match row {
            _ if row < positives => Some(true),
            _ if row < positives + negatives => Some(false),
            _ => None,
        };
        let rows = counts.iter().map(|of| of[0] + of[1]).max().unwrap_or(0);
        (0..rows).map(|row| counts.map(|counts| label(counts, row)).to_vec()).collect()
    }

    #[test]
    fn few_labels_are_reported_and_many_are_not() {
        let findings = ["Edema".to_owned(), "Mass".to_owned()];
        let of = |train, validate| warnings(&findings, &targets(train), &targets(validate));
        let enough = [[10, 30], [40, 10]];
        assert!(of(enough, enough).is_empty());
        let found = of([[9, 30], [40, 3]], enough);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("few labels among the 43 training records: Edema (9 positive), Mass (3 negative);")
        );
        // A finding without a label of one class is reported by its own warning.
        assert!(of([[0, 30], [40, 20]], enough).is_empty());
        // One finding that the validation records tell well is enough.
        assert!(of(enough, [[12, 12], [1, 0]]).is_empty());
        assert_eq!(
            of(enough, [[4, 12], [7, 6]]),
            [
                "no finding has more than 6 labels of each class among the 16 validation records: best weights and early stopping \
              are chosen by few records; `dataset split --validation 0.3` makes a larger validation subset"
            ]
        );
        assert_eq!(
            of(enough, [[4, 0], [0, 6]]),
            [
                "the 6 labeled validation records have no finding with both classes: the run keeps the last weights, not the best"
            ]
        );
    }
}

//! Splits that must be warned of, and splits that must be refused.

use std::path::Path;

use dataset::format::record::{ImageEncoding, Record};
use dataset::split::certificate::Certificate;
use dataset::split::index_table::IndexTable;
use dataset::split::{Member, certificate_path};
use dataset::{Dataset, Label, Ratio, Split, Storage, Subset};

use crate::{made_record, write_dataset};

/// The certificate of a split.
pub fn certificate(data: &Path, name: &str) -> Certificate {
    dataset::store::files::read_json(&data.join(certificate_path(name))).expect("a certificate")
}

/// Writes a dataset of 20 patients with 22 images each: two findings are in all images of a patient or in none, one is in
/// half of them. No set of whole patients is near 1% of it.
pub fn write_large_patients(data: &Path) {
    let record = |row: usize| {
        let patient = row / 22;
        let labels = [patient % 3, patient % 2, row % 2].map(|rest| Label::from_code(i8::from(rest == 0))).to_vec();
        Record { patient_id: format!("p{patient}"), labels, ..made_record(row, (32, 32), 3) }
    };
    write_dataset(data, &["Edema", "Mass", "Nodule"], ImageEncoding::Raw, &[(0..22 * 20).map(record).collect()]);
}

/// Changes the split `main` of a dataset (ratios 50 and 100) in every way that must be refused, one after the other, and
/// puts it back. `refuse` returns the error of what reads the split.
pub fn refused_changes(data: &Path, refuse: impl Fn() -> String) {
    let dataset = Dataset::open(data).expect("a dataset");
    let (split, stated) = (Split::load(&dataset, "main").expect("a split"), certificate(data, "main"));
    let index_table = IndexTable::load(&dataset).expect("a index_table");
    let changed = |change: &dyn Fn(&mut Vec<Member>)| {
        let mut other = split.clone();
        change(&mut other.members);
        assert_ne!(other, split);
        other.save(&Storage::folder(data), &stated).expect("written");
        refuse()
    };
    let patients =
        |row: usize| index_table.patients.iter().filter(|&&patient| patient == index_table.patients[row]).count();
    let training = |row: &usize| split.members[*row].subset == Some(Subset::Train);

    // One image of a training patient becomes a test image.
    let leaking =
        (0..dataset.len()).find(|row| training(row) && patients(*row) > 1).expect("a patient with two images");
    let leak = |members: &mut Vec<Member>| {
        members[leaking] = Member { subset: Some(Subset::Test), ratio: None, ..members[leaking].clone() };
    };
    let patient = &index_table.patient_names[index_table.patients[leaking] as usize];
    let refused = changed(&leak);
    assert!(refused.contains(&format!("patient `{patient}` is in ")), "{refused}");
    assert!(refused.contains(&format!("test (record `{}`)", index_table.records[leaking])), "{refused}");
    // It is refused even if the certificate states the leak, since the split was drawn by patient.
    let mut leaked = split.clone();
    leak(&mut leaked.members);
    leaked.save(&Storage::folder(data), &Certificate { shared_patients: 1, ..stated.clone() }).expect("written");
    assert!(refuse().contains("is in "));

    // One image of a patient leaves the set of a ratio.
    let torn = (0..dataset.len())
        .find(|&row| split.members[row].ratio == Some("50".parse().expect("a ratio")) && patients(row) > 1);
    let torn = torn.expect("a patient with two images");
    let refused = changed(&|members| members[torn].ratio = Some(Ratio::ALL));
    assert!(refused.contains("1 patients torn by a ratio, 0 are certified"), "{refused}");

    // All images of a patient move to another subset.
    let whole = |members: &mut Vec<Member>| {
        for (row, member) in members.iter_mut().enumerate() {
            if index_table.patients[row] == index_table.patients[leaking] {
                *member = Member { subset: Some(Subset::Validate), ratio: None, ..member.clone() };
            }
        }
    };
    assert!(changed(&whole).contains("records in train"));
    // One record twice, another one missing.
    assert!(changed(&|members| members[1] = members[0].clone()).contains("it lacks record"));
    assert!(changed(&|members| drop(members.pop())).contains("the dataset has"));
    // Numbers of the certificate.
    let mut other = stated.clone();
    other.parts[3].findings[0].positives += 1;
    split.save(&Storage::folder(data), &other).expect("written");
    assert!(refuse().contains("positives of "));
    let mut other = stated.clone();
    other.parts[0].findings[0].prevalence += 0.01;
    split.save(&Storage::folder(data), &other).expect("written");
    assert!(refuse().contains("other prevalences than are certified"));
    let other = Certificate { members_sha256: "0".repeat(64), ..stated.clone() };
    split.save(&Storage::folder(data), &other).expect("written");
    assert!(refuse().contains("other members than are certified"));
    split.save(&Storage::folder(data), &stated).expect("written");
}

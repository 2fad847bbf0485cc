//! Records that are kept although something about their images is suspicious. A run counts them and names a few.

use dataset::commands::cli::counted;
use serde::{Deserialize, Serialize};

use crate::dicom::header::Header;
use crate::image::projection::Projection;

/// Records that are named for each kind of suspicion.
const EXAMPLES: usize = 3;

/// Suspicious records of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspects {
    /// Number of records.
    pub count: u64,
    /// The first ones, with what is suspicious where it differs among them.
    pub examples: Vec<String>,
}

impl Suspects {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES);
    }

    fn one(example: String) -> Self {
        Self { count: 1, examples: vec![example] }
    }

    /// A line for the user; `None` where there are no such records.
    fn line(&self, what: &str, remedy: &str) -> Option<String> {
        let examples = self.examples.join(", ");
        (self.count > 0).then(|| format!("{} {what}: {examples}; {remedy}", counted(self.count as usize, "record")))
    }
}

/// The suspicious records of a shard or of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guards {
    /// Images whose stored pixels all have one value.
    pub constant: Suspects,
    /// Files whose header states that the pixels contain text (BurnedInAnnotation).
    pub burned_in: Suspects,
    /// Views that contradict the header or the shape of the image.
    pub views: Suspects,
}

/// What is compared of a record.
pub struct Image<'a> {
    /// Identifier of the record.
    pub record_id: &'a str,
    /// The view of the source's table.
    pub stated_view: Option<&'a str>,
    /// The view of the record.
    pub view: Option<&'a str>,
    /// The header of its file.
    pub header: &'a Header,
    /// Width and height of the raw image.
    pub size: (u32, u32),
    /// Whether all stored pixels have one value.
    pub is_constant: bool,
}

impl Guards {
    /// What is suspicious about a record.
    pub fn of(image: &Image) -> Self {
        let id = || Suspects::one(image.record_id.to_owned());
        let contradiction = contradiction(image).map(|why| Suspects::one(format!("{} ({why})", image.record_id)));
        Self {
            constant: if image.is_constant { id() } else { Suspects::default() },
            burned_in: if image.header.has_burned_in_text { id() } else { Suspects::default() },
            views: contradiction.unwrap_or_default(),
        }
    }

    /// Adds those of other records, which come after these.
    pub fn add(&mut self, other: Self) {
        self.constant.add(other.constant);
        self.burned_in.add(other.burned_in);
        self.views.add(other.views);
    }

    /// The sum over shards, in their order.
    pub fn sum<'a>(each: impl Iterator<Item = &'a Self>) -> Self {
        each.cloned().fold(Self::default(), |mut sum, next| {
            sum.add(next);
            sum
        })
    }

    /// A line for each kind of which there are records.
    pub fn warnings(&self) -> Vec<String> {
        let lines = [
            self.constant.line("with an image of one gray level", "--reject-constant leaves such images out"),
            self.burned_in.line(
                "with text in the pixels by BurnedInAnnotation, which may name the patient",
                "--reject-burned-in leaves such images out",
            ),
            self.views.line("whose view is contradicted", "look at them (`dataset inspect OUT --row RECORD_ID`)"),
        ];
        lines.into_iter().flatten().collect()
    }
}

/// How the view of a record is contradicted, in words.
fn contradiction(image: &Image) -> Option<String> {
    let view = image.view?;
    let projection = Projection::of_view(view)?;
    let header = image.stated_view.and(image.header.view.as_deref());
    if let Some(other) = header.filter(|other| Projection::of_view(other).is_some_and(|it| it.contradicts(projection)))
    {
        return Some(format!("the table says {view}, the header {other}"));
    }
    if let Some(other) = image.header.orientation.filter(|other| other.contradicts(projection)) {
        return Some(format!("the view is {view}, by PatientOrientation it is {other}"));
    }
    let (width, height) = image.size;
    projection
        .contradicts_shape(width, height)
        .then(|| format!("the view is {view}, the image has {width}×{height} pixels"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_suspicion_is_counted_and_a_few_records_are_named() {
        let of = |record_id: &str, stated: Option<&str>, view: Option<&str>, orientation: Option<Projection>| {
            let header = Header { view: view.map(str::to_owned), orientation, ..Header::default() };
            Guards::of(&Image {
                record_id,
                stated_view: stated,
                view: stated.or(view),
                header: &header,
                size: (2500, 3000),
                is_constant: record_id == "e",
            })
        };
        let lateral = Some(Projection::Lateral);
        let each = [
            of("a", Some("LATERAL"), Some("PA"), None),
            of("b", Some("AP"), Some("PA"), None),
            of("c", Some("FRONTAL"), Some("PA"), None),
            of("d", None, Some("PA"), lateral),
            of("e", Some("LATERAL"), None, lateral),
            of("f", Some("LATERAL"), Some("AP"), lateral),
            of("g", None, None, lateral),
        ];
        let sum = Guards::sum(each.iter());
        assert_eq!((sum.views.count, sum.constant.count, sum.burned_in.count), (4, 1, 0));
        assert_eq!(
            sum.views.examples,
            [
                "a (the table says LATERAL, the header PA)",
                "b (the table says AP, the header PA)",
                "d (the view is PA, by PatientOrientation it is lateral)"
            ]
        );
        assert_eq!(
            sum.warnings()[0],
            "1 record with an image of one gray level: e; --reject-constant leaves such images out"
        );
    }
}

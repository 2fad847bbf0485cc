//! Transforms on the command line: a name of the recipe, and a list of augmentations.

use std::str::FromStr;

use crate::transform::{Augmentation, Transform};

/// Names of the transforms of the recipe.
pub(crate) const NAMES: [&str; 3] = ["pretrain", "finetune", "evaluate"];

/// A transform of the recipe by its name, with augmentations.
pub(crate) fn named_transform(name: &str, size: u32, augmentations: &Augmentations) -> Transform {
    let transform = match name {
        "pretrain" => Transform::pretrain(size),
        "finetune" => Transform::finetune(size),
        _ => Transform::evaluate(size),
    };
    Transform { augment: augmentations.0.clone(), ..transform }
}

/// Augmentations as JSON: `[{"kind": "gamma", "gamma": [0.8, 1.25]}]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Augmentations(pub Vec<Augmentation>);

impl FromStr for Augmentations {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let list: Vec<Augmentation> = serde_json::from_str(text)
            .map_err(|error| format!("{error}; an example: [{{\"kind\": \"affine\", \"degrees\": [-10, 10]}}]"))?;
        list.iter().try_for_each(Augmentation::check)?;
        Ok(Self(list))
    }
}

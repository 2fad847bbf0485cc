//! Transforms on the command line: a name of the recipe, a list of augmentations, and the windows of 16-bit images.

use std::str::FromStr;

use clap::Args;

use crate::transform::window::check_jitter;
use crate::transform::{Augmentation, Transform, Window, WindowJitter};

/// Names of the transforms of the recipe.
pub(crate) const NAMES: [&str; 3] = ["pretrain", "finetune", "evaluate"];

/// The windows of 16-bit images.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct WindowArguments {
    /// Window of images of 16 bits: `stored` (that of each image), `full` (from its smallest to its largest value), or
    /// CENTER,WIDTH in stored values.
    #[arg(long, value_name = "stored|full|CENTER,WIDTH", default_value_t)]
    window: Window,
    /// Change windows at random. CENTER: largest shift of the center, in widths. WIDTH: largest relative change of the width.
    /// Both directions.
    #[arg(long, value_name = "CENTER,WIDTH", default_value = "0,0", hide_default_value = true, value_parser = jitter)]
    window_jitter: WindowJitter,
}

fn pair(text: &str) -> Option<(f64, f64)> {
    let (first, second) = text.split_once(',')?;
    Some((first.trim().parse().ok()?, second.trim().parse().ok()?))
}

fn jitter(text: &str) -> Result<WindowJitter, String> {
    let jitter = pair(text).ok_or("give CENTER,WIDTH such as 0.05,0.2")?;
    check_jitter(jitter).map(|()| jitter)
}

/// A transform of the recipe by its name, with augmentations and windows.
pub(crate) fn named_transform(
    name: &str,
    size: u32,
    augmentations: &Augmentations,
    WindowArguments { window, window_jitter }: WindowArguments,
) -> Transform {
    let transform = match name {
        "pretrain" => Transform::pretrain(size),
        "finetune" => Transform::finetune(size),
        _ => Transform::evaluate(size),
    };
    Transform { augment: augmentations.0.clone(), window, window_jitter, ..transform }
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

//! Published ways of fine-tuning, which `--recipe` chooses beside the preset: head, optimizer, length, preparation of images.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A way of fine-tuning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recipe {
    /// That of the authors of MRM: all layers at one learning rate, lengths by task and share of the labels.
    #[default]
    Release,
    /// That of BenchX (Zhou et al. 2024, arXiv 2410.21969), which compares nine methods: the encoder at a tenth of the head's
    /// learning rate, early stopping, three seeds; segmentation on a frozen encoder.
    Benchx,
}

impl Recipe {
    /// All recipes, the default one first.
    pub const ALL: [Self; 2] = [Self::Release, Self::Benchx];

    /// The name on the command line and in `config.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Benchx => "benchx",
        }
    }

    /// The recipe of a name, for clap.
    ///
    /// # Errors
    /// When there is none.
    pub fn parse(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|recipe| recipe.name() == name).ok_or_else(|| format!("give one of: {}", names()))
    }

    /// Seeds of a sweep that names none: BenchX's scripts run 42, 0 and 1.
    pub fn seeds(self) -> &'static [u64] {
        match self {
            Self::Release => &[0],
            Self::Benchx => &[42, 0, 1],
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_configuration() {
        for recipe in Recipe::ALL {
            assert_eq!(Recipe::parse(recipe.name()), Ok(recipe));
            assert_eq!(toml::Value::try_from(recipe).unwrap().as_str(), Some(recipe.name()));
        }
        assert_eq!(Recipe::parse("benchX").unwrap_err(), "give one of: release, benchx");
    }
}

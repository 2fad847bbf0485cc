//! Zero-shot classification: a finding is as likely as an image is similar to a prompt that states it, against one that denies it
//! (CheXzero, Tiu et al. 2022, `zero_shot.py`).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// What stands for the finding's name in a prompt.
const FINDING: &str = "{finding}";

/// The prompts that state a finding and that deny it. `{finding}` stands for its name, with spaces for underscores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompts {
    /// Prompts that state the finding.
    pub positive: Vec<String>,
    /// Prompts that deny it.
    pub negative: Vec<String>,
    /// Prompts of single findings, in place of the others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub findings: BTreeMap<String, Prompts>,
}

impl Default for Prompts {
    /// Those of CheXzero.
    fn default() -> Self {
        let one = |prompt: &str| vec![prompt.to_owned()];
        Self { positive: one("{finding}"), negative: one("no {finding}"), findings: BTreeMap::new() }
    }
}

impl Prompts {
    /// Reads a TOML file, or a JSON file by its ending.
    ///
    /// # Errors
    /// When it cannot be read, or is not as [`Prompts`].
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let prompts: Self = if is_json {
            serde_json::from_str(text).map_err(anyhow::Error::from)
        } else {
            toml::from_str(text).map_err(anyhow::Error::from)
        }
        .with_context(|| {
            format!(
                "{}: prompts are lists `positive` and `negative`, and sections [findings.NAME] of both",
                path.display()
            )
        })?;
        for prompts in prompts.findings.values().chain([&prompts]) {
            ensure!(
                !prompts.positive.is_empty() && !prompts.negative.is_empty(),
                "{}: `positive` and `negative` need at least one prompt each",
                path.display()
            );
        }
        Ok(prompts)
    }

    /// An error where prompts are of a finding that is not asked for.
    ///
    /// # Errors
    /// When there is one.
    pub fn check(&self, findings: &[String]) -> Result<()> {
        match self.findings.keys().find(|name| !findings.contains(name)) {
            Some(name) => bail!("--prompts has prompts of `{name}`, which is none of: {}", findings.join(", ")),
            None => Ok(()),
        }
    }

    /// The prompts of a finding: those that state it, those that deny it.
    pub fn of(&self, finding: &str) -> [Vec<String>; 2] {
        let prompts = self.findings.get(finding).unwrap_or(self);
        let name = finding.replace('_', " ");
        [&prompts.positive, &prompts.negative]
            .map(|prompts| prompts.iter().map(|p| p.replace(FINDING, &name)).collect())
    }
}

/// The vector of several prompts: their mean, of length 1. Vectors `[N, P]` → `[P]`.
pub(super) fn ensemble(vectors: &Tensor) -> Tensor {
    let mean = vectors.mean_dim([0_i64].as_slice(), false, Kind::Float);
    &mean / mean.norm()
}

/// Probabilities by the softmax over the similarities to both prompts, without a temperature: images `[N, P]`, prompts `[P]` each
/// → `[N]`.
pub(super) fn probabilities(images: &Tensor, positive: &Tensor, negative: &Tensor) -> Tensor {
    images.matmul(&(positive - negative)).sigmoid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_of_a_finding_replace_the_others() {
        let read = |text: &str, file: &str| Prompts::parse(text, Path::new(file));
        let text = "positive = [\"{finding}\", \"signs of {finding}\"]\nnegative = [\"no {finding}\"]\n\
                    [findings.Edema]\npositive = [\"wet lungs\"]\nnegative = [\"dry lungs\"]\n";
        let prompts = read(text, "prompts.toml").unwrap();
        let [positive, negative] = prompts.of("Pleural_Thickening");
        assert_eq!(positive, ["Pleural Thickening", "signs of Pleural Thickening"]);
        assert_eq!(negative, ["no Pleural Thickening"]);
        assert_eq!(prompts.of("Edema"), [["wet lungs"], ["dry lungs"]]);
        assert!(prompts.check(&["Mass".to_owned()]).unwrap_err().to_string().contains("`Edema`"));
        assert_eq!(read(&serde_json::to_string(&prompts).unwrap(), "prompts.json").unwrap(), prompts);
        let empty = read("positive = []\nnegative = [\"x\"]", "prompts.toml").unwrap_err().to_string();
        assert!(empty.contains("at least one prompt"), "{empty}");
        let unknown = read("positive = [\"a\"]\nnegatives = [\"x\"]", "prompts.toml").unwrap_err();
        assert!(format!("{unknown:#}").contains("negatives"), "{unknown:#}");
    }

    #[test]
    fn a_probability_is_the_softmax_over_both_prompts() {
        let images = Tensor::from_slice2(&[[0.6_f32, 0.8], [1.0, 0.0]]);
        let (positive, negative) = (Tensor::from_slice(&[0.0_f32, 1.0]), Tensor::from_slice(&[1.0_f32, 0.0]));
        let got = Vec::<f32>::try_from(probabilities(&images, &positive, &negative)).unwrap();
        for (got, [p, n]) in got.into_iter().zip([[0.8_f32, 0.6], [0.0, 1.0]]) {
            assert!((got - p.exp() / (p.exp() + n.exp())).abs() < 1e-6);
        }
        let mean = Vec::<f32>::try_from(ensemble(&images)).unwrap();
        assert!((mean[0] / mean[1] - 1.6 / 0.8).abs() < 1e-6 && (mean[0].hypot(mean[1]) - 1.0).abs() < 1e-6);
    }
}

//! The text of a run's `config.toml`: its kind, and the keys that the task of this kind understands.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{Provenance, check_pixels, keys, renamed};
use crate::model::vit::VitConfig;

/// First key of a `config.toml`: which task the run is of.
const KIND: &str = "kind";

/// A run's configuration as it is stored: `kind`, then the keys of that kind.
///
/// Tasks have typed configurations of their own. [`of`](Self::of) writes such a one down, [`read`](Self::read) gives it back,
/// to the bit.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    kind: String,
    /// Without `kind`.
    table: Table,
    text: String,
    with_defaults: fn(&Self) -> Result<Self>,
}

/// What the configurations of all kinds have in common, by the same keys: enough to start another run from a run's encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct CommonKeys {
    /// Name of the preset that the sizes began with.
    pub preset: String,
    /// What the run was trained on, and where its weights came from.
    pub provenance: Provenance,
    /// The encoder, `[model.vit]`, and its pixel statistics.
    pub encoder: Encoder,
    /// `optimizer.steps`; 0 for a run whose length is given in epochs.
    pub steps: u64,
}

/// An encoder's sizes, and the statistics that its input is normalized with.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoder {
    /// Sizes of the vision transformer.
    pub vit: VitConfig,
    /// Mean of the pixels, 0 to 1.
    pub mean: f64,
    /// Standard deviation of the pixels, 0 to 1.
    pub std: f64,
}

impl ConfigFile {
    /// The configuration of a run of a kind.
    ///
    /// # Errors
    /// When TOML cannot express a value.
    pub fn of<C: Serialize + DeserializeOwned>(kind: &str, config: &C) -> Result<Self> {
        let text = format!("{KIND} = {}\n{}", Value::from(kind), toml::to_string(config)?);
        let with_defaults = |older: &Self| Self::of(&older.kind, &older.read::<C>()?);
        Ok(Self { kind: kind.to_owned(), table: Table::try_from(config)?, text, with_defaults })
    }

    /// Reads a stored configuration. The keys of older versions are translated; `path` is for messages.
    ///
    /// # Errors
    /// When the text is not TOML, or not the configuration of a run.
    pub fn parse(text: &str, path: &str) -> Result<Self> {
        let not_one = || format!("{path} is not the configuration of a run");
        let mut table: Table = text.parse().with_context(not_one)?;
        let changed = renamed::translate(&mut table);
        let Some(Value::String(kind)) = table.remove(KIND) else {
            bail!("{}: the key `{KIND}` is missing", not_one());
        };
        let text = if changed { format!("{KIND} = {}\n{table}", Value::from(kind.as_str())) } else { text.to_owned() };
        Ok(Self { kind, table, text, with_defaults: |file| Ok(file.clone()) })
    }

    /// A stored configuration of an older version as one of this version and kind: keys that it does not have get their defaults,
    /// which are what such a run was trained with.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn complete(&self, older: &Self) -> Result<Self> {
        (self.with_defaults)(older)
    }

    /// The kind of task, such as `classify`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The text of `config.toml`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All keys but `kind`.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The typed configuration.
    ///
    /// # Errors
    /// When a key is missing, unknown, or of another type.
    pub fn read<C: Serialize + DeserializeOwned>(&self) -> Result<C> {
        let config: C = self.table.clone().try_into().context("the configuration does not fit")?;
        // Flattened structs cannot deny unknown fields.
        let known: BTreeSet<String> = keys(&Table::try_from(&config)?, "").into_iter().collect();
        match keys(&self.table, "").into_iter().find(|key| !known.contains(key)) {
            Some(key) => bail!("the configuration does not fit: unknown key `{key}`"),
            None => Ok(config),
        }
    }

    /// What configurations of all kinds have in common.
    ///
    /// # Errors
    /// When one of these keys is missing or its value is impossible.
    pub fn common(&self) -> Result<CommonKeys> {
        #[derive(Deserialize)]
        struct All {
            preset: String,
            #[serde(flatten)]
            provenance: Provenance,
            model: Model,
            data: Pixels,
            #[serde(default)]
            optimizer: Length,
        }
        #[derive(Deserialize)]
        struct Model {
            vit: VitConfig,
        }
        #[derive(Deserialize)]
        struct Pixels {
            mean: f64,
            std: f64,
        }
        #[derive(Default, Deserialize)]
        struct Length {
            #[serde(default)]
            steps: u64,
        }
        let all: All = self.table.clone().try_into().context("the configuration does not fit")?;
        all.model.vit.validate()?;
        check_pixels(all.data.mean, all.data.std)?;
        Ok(CommonKeys {
            preset: all.preset,
            provenance: all.provenance,
            encoder: Encoder { vit: all.model.vit, mean: all.data.mean, std: all.data.std },
            steps: all.optimizer.steps,
        })
    }

    /// The value of a dotted key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let mut parts = key.split('.');
        let first = self.table.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.as_table()?.get(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PRESETS, PretrainConfig, pretrain_preset};

    #[test]
    fn a_configuration_survives_its_file() {
        for preset in PRESETS {
            let config = pretrain_preset(preset).unwrap();
            let file = ConfigFile::of("pretrain", &config).unwrap();
            assert!(
                file.text().starts_with(&format!("kind = \"pretrain\"\npreset = \"{preset}\"\n")),
                "{}",
                file.text()
            );
            let again = ConfigFile::parse(file.text(), "config.toml").unwrap();
            assert_eq!((again.kind(), again.table(), again.text()), ("pretrain", file.table(), file.text()));
            assert_eq!(again.read::<PretrainConfig>().unwrap(), config);
            let common = again.common().unwrap();
            assert_eq!((common.encoder.vit, common.steps), (config.model.vit, config.optimizer.steps));
        }
    }

    #[test]
    fn unknown_and_missing_keys_are_errors() {
        let file = ConfigFile::of("pretrain", &pretrain_preset("mrm-vit-tiny").unwrap()).unwrap();
        let read = |text: &str| ConfigFile::parse(text, "config.toml").unwrap().read::<PretrainConfig>();
        let unknown = file.text().replacen("[data]\n", "[data]\nsurplus = 1\n", 1);
        assert!(format!("{:#}", read(&unknown).unwrap_err()).contains("surplus"));
        let above = file.text().replacen("preset = ", "surplus = 1\npreset = ", 1);
        assert!(read(&above).unwrap_err().to_string().contains("unknown key `surplus`"));
        assert!(read(&file.text().replacen("flip = 0.0\n", "", 1)).is_err());
        assert!(
            ConfigFile::parse("preset = 3", "x/config.toml")
                .unwrap_err()
                .to_string()
                .starts_with("x/config.toml is not")
        );
        assert!(ConfigFile::parse("[[", "x").is_err());
    }
}

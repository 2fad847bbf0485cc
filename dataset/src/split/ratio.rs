//! A percentage of the training subset.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// Units of one percent: nine decimals.
const UNITS: u64 = 1_000_000_000;

/// A label ratio: the percentage of the training subset whose labels may be seen. It is above 0 and at most 100, and has at
/// most nine decimals, so that it is exact and can be compared.
///
/// It is parsed from `1`, `0.1` or `10%`, shown as `1`, `0.1`, `10`, and serialized as a number in percent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ratio(u64);

impl Ratio {
    /// 1%.
    pub const ONE: Self = Self(UNITS);
    /// 10%.
    pub const TEN: Self = Self(10 * UNITS);
    /// 100%: the whole training subset.
    pub const ALL: Self = Self(100 * UNITS);

    /// The ratio of a number in percent.
    ///
    /// # Errors
    /// When it is not above 0, is above 100, or has more than nine decimals.
    pub fn from_percent(percent: f64) -> Result<Self> {
        let units = (percent * UNITS as f64).round();
        let ratio = Self(units as u64);
        if percent > 0.0 && ratio <= Self::ALL && ratio.percent() == percent {
            return Ok(ratio);
        }
        Err(Error::Invalid(format!("the ratio {percent}% must be above 0, at most 100 and have at most nine decimals")))
    }

    /// The ratio in percent: the number nearest to it.
    pub fn percent(self) -> f64 {
        self.0 as f64 / UNITS as f64
    }

    /// The ratio as a share, above 0 and at most 1.
    pub fn share(self) -> f64 {
        self.percent() / 100.0
    }
}

impl FromStr for Ratio {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = text.trim();
        let number = number.strip_suffix('%').unwrap_or(number).trim_end();
        let invalid =
            |_| Error::Invalid(format!("the ratio `{text}` is not a number in percent, such as 1, 0.1 or 10%"));
        Self::from_percent(number.parse().map_err(invalid)?)
    }
}

impl TryFrom<f64> for Ratio {
    type Error = Error;

    fn try_from(percent: f64) -> Result<Self> {
        Self::from_percent(percent)
    }
}

impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The number in percent, without a sign.
impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.percent().fmt(f)
    }
}

impl fmt::Debug for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}%")
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.percent())
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Percent;

        impl Visitor<'_> for Percent {
            type Value = Ratio;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a ratio in percent")
            }

            fn visit_f64<E: de::Error>(self, percent: f64) -> Result<Ratio, E> {
                Ratio::from_percent(percent).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, percent: i64) -> Result<Ratio, E> {
                self.visit_f64(percent as f64)
            }

            fn visit_u64<E: de::Error>(self, percent: u64) -> Result<Ratio, E> {
                self.visit_f64(percent as f64)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Ratio, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_exact_decimals() {
        let parse = |text: &str| text.parse::<Ratio>().unwrap();
        assert_eq!((parse("1"), parse(" 10% "), parse("100")), (Ratio::ONE, Ratio::TEN, Ratio::ALL));
        assert!(parse("0.1") < Ratio::ONE && parse("33.333333333") > Ratio::TEN);
        for text in ["0.1", "0.3", "33.3", "12.5", "0.000000001", "99.999999999", "7"] {
            let ratio = parse(text);
            assert_eq!(ratio.to_string(), text);
            assert_eq!(ratio.percent().to_string(), text, "the nearest number");
            assert_eq!(Ratio::from_percent(ratio.percent()).unwrap(), ratio);
            assert_eq!(serde_json::from_str::<Ratio>(&serde_json::to_string(&ratio).unwrap()).unwrap(), ratio);
        }
        assert_eq!(serde_json::to_string(&[Ratio::ONE, parse("0.5")]).unwrap(), "[1.0,0.5]");
        assert_eq!(serde_json::from_str::<Vec<Ratio>>("[1, \"10%\"]").unwrap(), [Ratio::ONE, Ratio::TEN]);
        for text in ["0", "-1", "100.1", "NaN", "inf", "", "ten", "1/3", "0.0000000001", "33.33333333333"] {
            assert!(text.parse::<Ratio>().is_err(), "{text}");
        }
    }
}

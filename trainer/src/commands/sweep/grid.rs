//! The values of a sweep's grid: each cell trains all of them, and the best one on the validation subset is evaluated.

/// A setting with the values to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// The key, such as `optimizer.lr`.
    pub key: String,
    /// The values as they were typed.
    pub values: Vec<String>,
}

/// A point of a grid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GridPoint {
    /// `key=value`, one an axis.
    pub settings: Vec<String>,
}

impl Axis {
    /// Learning rates.
    pub fn lr(values: Vec<String>) -> Self {
        Self { key: "optimizer.lr".to_owned(), values }
    }
}

/// Parses `KEY=V1,V2`, for clap.
///
/// # Errors
/// When the key or a value is missing, or a value is repeated.
pub fn parse_axis(text: &str) -> Result<Axis, String> {
    let form = || format!("`{text}` is not KEY=VALUE,VALUE, such as optimizer.lr=1e-3,3e-4");
    let (key, values) = text.split_once('=').ok_or_else(form)?;
    let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
    if key.trim().is_empty() || values.iter().any(String::is_empty) {
        return Err(form());
    }
    if let Some(twice) = values.iter().enumerate().find(|(at, value)| values[..*at].contains(value)) {
        return Err(format!("`{text}`: {} is there twice", twice.1));
    }
    Ok(Axis { key: key.trim().to_owned(), values })
}

/// All points of a grid, the last axis changing fastest; without axes one point without settings.
pub(super) fn points(axes: &[Axis]) -> Vec<GridPoint> {
    axes.iter().fold(vec![GridPoint::default()], |points, axis| {
        let with = |point: &GridPoint, value: &String| {
            let settings = point.settings.iter().cloned().chain([format!("{}={value}", axis.key)]);
            GridPoint { settings: settings.collect() }
        };
        points.iter().flat_map(|point| axis.values.iter().map(|value| with(point, value)).collect::<Vec<_>>()).collect()
    })
}

impl GridPoint {
    /// `lr=1e-3, mixup=0.2`: the settings without their sections; empty without any.
    pub fn name(&self) -> String {
        let short = |setting: &String| {
            let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
            format!("{}={value}", key.rsplit('.').next().unwrap_or(key))
        };
        self.settings.iter().map(short).collect::<Vec<_>>().join(", ")
    }

    /// What the folder of its run ends with: `-lr1e-3-mixup0.2`; empty without settings.
    pub(super) fn suffix(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-+".contains(c) { c } else { '_' };
        let name = self.name().replace(", ", "-").replace('=', "");
        if name.is_empty() { name } else { format!("-{}", name.chars().map(plain).collect::<String>()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_has_a_point_a_combination() {
        let axes = ["optimizer.lr=1e-3, 3e-4", "data.mixup=0.0,0.2"].map(|text| parse_axis(text).unwrap());
        let points = points(&axes);
        let names: Vec<String> = points.iter().map(GridPoint::name).collect();
        assert_eq!(names, ["lr=1e-3, mixup=0.0", "lr=1e-3, mixup=0.2", "lr=3e-4, mixup=0.0", "lr=3e-4, mixup=0.2"]);
        assert_eq!(points[3].settings, ["optimizer.lr=3e-4", "data.mixup=0.2"]);
        assert_eq!(points[3].suffix(), "-lr3e-4-mixup0.2");
        assert_eq!((super::points(&[]).len(), GridPoint::default().suffix()), (1, String::new()));
        for text in ["optimizer.lr", "=1", "optimizer.lr=1,,2", "optimizer.lr=1,1"] {
            assert!(parse_axis(text).is_err(), "{text}");
        }
    }
}

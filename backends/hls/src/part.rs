//! FPGA parts: their budgets, and whether a design fits.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Error;

const TABLE: &str = include_str!("parts.json");

/// Amounts of the resources that a design takes or a part has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Multiplier blocks.
    pub dsp: u64,
    /// Look-up tables.
    pub lut: u64,
    /// Flip-flops.
    pub ff: u64,
    /// Block memories of 18 Kibit.
    pub bram18: u64,
    /// Large memories of 288 Kibit.
    pub uram: u64,
}

impl Resources {
    /// Names and amounts.
    pub fn entries(&self) -> [(&'static str, u64); 5] {
        [("dsp", self.dsp), ("lut", self.lut), ("ff", self.ff), ("bram18", self.bram18), ("uram", self.uram)]
    }

    /// The sum of two amounts.
    pub fn plus(self, other: Resources) -> Resources {
        Resources {
            dsp: self.dsp.saturating_add(other.dsp),
            lut: self.lut.saturating_add(other.lut),
            ff: self.ff.saturating_add(other.ff),
            bram18: self.bram18.saturating_add(other.bram18),
            uram: self.uram.saturating_add(other.uram),
        }
    }

    /// So many times as much.
    pub fn times(self, count: u64) -> Resources {
        Resources {
            dsp: self.dsp.saturating_mul(count),
            lut: self.lut.saturating_mul(count),
            ff: self.ff.saturating_mul(count),
            bram18: self.bram18.saturating_mul(count),
            uram: self.uram.saturating_mul(count),
        }
    }
}

/// An FPGA part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Name of the board or card, as a target names it.
    pub name: String,
    /// The vendor's device name.
    pub device: String,
    /// Clock that designs are made for.
    pub clock_mhz: u32,
    /// What it has.
    pub budget: Resources,
}

/// A resource of which a part has too little.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Overshoot {
    /// Name of the resource.
    pub resource: &'static str,
    /// How much the design takes, as estimated.
    pub needed: u64,
    /// How much there is.
    pub available: u64,
}

impl fmt::Display for Overshoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Overshoot { resource, needed, available } = self;
        write!(f, "{needed} {resource} of {available} ({} too many)", needed.saturating_sub(*available))
    }
}

/// The known parts.
pub fn parts() -> Result<Vec<Part>, Error> {
    Ok(serde_json::from_str(TABLE)?)
}

impl Part {
    /// The known part of this name.
    pub fn named(name: &str) -> Result<Part, Error> {
        let parts = parts()?;
        let known = parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join(", ");
        parts
            .into_iter()
            .find(|part| part.name == name)
            .ok_or_else(|| Error::UnknownPart { name: name.to_string(), known })
    }

    /// A part described by the user, with the fields of the table.
    pub fn from_json(text: &str) -> Result<Part, Error> {
        Ok(serde_json::from_str(text)?)
    }

    /// What a design overshoots, smallest relative overshoot first.
    pub fn overshoots(&self, used: &Resources) -> Vec<Overshoot> {
        let mut found: Vec<Overshoot> = used
            .entries()
            .into_iter()
            .zip(self.budget.entries())
            .filter(|((_, needed), (_, available))| needed > available)
            .map(|((resource, needed), (_, available))| Overshoot { resource, needed, available })
            .collect();
        let relative = |overshoot: &Overshoot| overshoot.needed as f64 / overshoot.available.max(1) as f64;
        found.sort_by(|a, b| relative(a).total_cmp(&relative(b)));
        found
    }

    /// Refuses a design that this part cannot hold.
    pub fn check(&self, used: &Resources) -> Result<(), Error> {
        let overshoots = self.overshoots(used);
        if overshoots.is_empty() {
            return Ok(());
        }
        let fits = parts()?.into_iter().filter(|part| part.overshoots(used).is_empty());
        Err(Error::TooLarge {
            part: self.name.clone(),
            overshoots,
            fits: fits.map(|part| part.name).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_readable_and_names_are_found() {
        assert_eq!(parts().unwrap().len(), 6);
        assert_eq!(Part::named("zcu104").unwrap().budget.dsp, 1728);
        let error = Part::named("zcu105").unwrap_err().to_string();
        assert!(error.contains("zcu105") && error.contains("kv260"), "{error}");
        assert!(Part::from_json("{\"name\": \"x\"}").is_err());
    }

    #[test]
    fn the_smallest_overshoot_comes_first() {
        let used = Resources { dsp: 440, lut: 53201, ..Resources::default() };
        let error = Part::named("pynq-z2").unwrap().check(&used).unwrap_err().to_string();
        assert_eq!(
            error,
            "pynq-z2 is too small: 53201 lut of 53200 (1 too many), 440 dsp of 220 (220 too many); \
             it fits zcu104, kv260, u50, u280, vcu118"
        );
    }
}

//! Operating system, architecture and CPU variant, in Go's names, and which of several fits.

use std::{fmt, str::FromStr};

use super::Error;

/// `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platform {
    /// GOOS.
    pub os: String,
    /// GOARCH.
    pub architecture: String,
    /// Empty when it is the architecture's usual one.
    pub variant: String,
}

impl Platform {
    /// Normalised: usual aliases are replaced, the usual variant is left out.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let (architecture, variant) = match (architecture, variant) {
            ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", ""),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("i386" | "i686" | "386", _) => ("386", ""),
            other => other,
        };
        Self {
            os: os.into(),
            architecture: architecture.into(),
            variant: variant.into(),
        }
    }

    /// This machine's.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new("linux", architecture, "")
    }

    /// How well an image for `offer` runs here: `None` not at all, else higher is better.
    pub(crate) fn rank(&self, offer: &Self) -> Option<u32> {
        if self.os != offer.os || self.architecture != offer.architecture {
            return None;
        }
        let number = |variant: &str| variant.trim_start_matches('v').parse::<u32>().ok();
        let default = match self.architecture.as_str() {
            "arm" => 7,
            "arm64" => 8,
            _ => 1,
        };
        if self.variant == offer.variant {
            return Some(u32::MAX);
        }
        let limit = if self.variant.is_empty() {
            default
        } else {
            number(&self.variant)?
        };
        let offered = if offer.variant.is_empty() {
            default
        } else {
            number(&offer.variant)?
        };
        (offered <= limit).then_some(offered)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = text.split('/').collect();
        let is_word = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if !parts.iter().all(is_word) {
            return Err(Error::Platform(text.to_owned()));
        }
        match parts.as_slice() {
            ["linux"] => Ok(Self::host()),
            [architecture] => Ok(Self::new("linux", architecture, "")),
            [os, architecture] => Ok(Self::new(os, architecture, "")),
            [os, architecture, variant] => Ok(Self::new(os, architecture, variant)),
            _ => Err(Error::Platform(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(want: &str, offers: &[&str], expect: Option<&str>) {
        let want: Platform = want.parse().expect("platform");
        let best = offers
            .iter()
            .filter_map(|offer| {
                let offer: Platform = offer.parse().expect("offer");
                Some((want.rank(&offer)?, offer))
            })
            .max_by_key(|(rank, _)| *rank)
            .map(|(_, offer)| offer.to_string());
        assert_eq!(best.as_deref(), expect);
    }

    #[test]
    fn the_best_variant_that_runs_is_chosen() {
        check(
            "linux/amd64",
            &["linux/arm64", "linux/amd64"],
            Some("linux/amd64"),
        );
        check(
            "linux/amd64",
            &["linux/amd64/v3", "linux/amd64"],
            Some("linux/amd64"),
        );
        check(
            "linux/amd64/v3",
            &["linux/amd64/v2", "linux/amd64"],
            Some("linux/amd64/v2"),
        );
        check("linux/amd64", &["linux/amd64/v2"], None);
        check(
            "linux/arm/v7",
            &["linux/arm/v5", "linux/arm/v6"],
            Some("linux/arm/v6"),
        );
        check(
            "linux/arm/v6",
            &["linux/arm/v7", "linux/arm/v5"],
            Some("linux/arm/v5"),
        );
        check("linux/arm64", &["linux/arm64/v8"], Some("linux/arm64"));
        check("aarch64", &["linux/arm64/v8"], Some("linux/arm64"));
        check("linux/amd64", &["unknown/unknown", "windows/amd64"], None);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "/", "linux//v8", "a/b/c/d", "linux/a b"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}

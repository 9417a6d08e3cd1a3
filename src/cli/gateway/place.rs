//! Which of a user's gateways something in the background is for, and what its files and units are called for that.
//!
//! The gateway of the default data folder has the names that are documented, that of a profile's the same with the profile at
//! their end. Those of every other data folder end with the beginning of a hash of its path: two gateways of one user do not
//! get into each other's way.

use std::path::Path;
use std::path::PathBuf;

use sha2::Digest as _;
use sha2::Sha256;

use crate::app::launchd;
use crate::app::systemd::Kind;
use crate::cli::settings;
use crate::config;
use crate::config::profile;
use crate::domain::hex;
use crate::sys::env;

/// Bytes of the hash in a name.
const NAME_BYTES: usize = 4;

/// One gateway of this user, by its data folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    suffix: String,
}

impl Place {
    /// That of the gateway with this data folder.
    pub(crate) fn of(data_dir: &Path) -> Self {
        let own = tidy(data_dir);
        if own == tidy(&config::default_data_dir(&env::lookup)) {
            return Self { suffix: profile::suffix(&env::lookup) };
        }
        let hash = Sha256::digest(own.as_os_str().as_encoded_bytes());
        Self { suffix: format!("-{}", hex::begin(&hash, NAME_BYTES)) }
    }

    /// What its names end with; empty for the default one.
    pub(crate) fn suffix(&self) -> &str {
        &self.suffix
    }

    /// A file of the run folder.
    pub(crate) fn file(&self, name: &str, end: &str) -> PathBuf {
        settings::background_folder().join(format!("{name}{}.{end}", self.suffix))
    }

    /// A job of launchd.
    pub(crate) fn label(&self) -> String {
        format!("{}{}", launchd::LABEL, self.suffix)
    }

    /// A unit.
    pub(crate) fn unit(&self, kind: Kind) -> String {
        kind.unit(&self.suffix)
    }
}

/// From the root on, without a slash at its end. Links are not followed: a folder that is yet to be made has the same name
/// before and after.
fn tidy(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_folder_has_the_documented_names_and_each_other_its_own() {
        let default = config::default_data_dir(&env::lookup);
        let (own, one, other) = (Place::of(&default), Place::of(Path::new("/a/one")), Place::of(Path::new("/a/other")));
        assert_eq!(own.unit(Kind::Pair), "sigilum-gateway-pair.service");
        assert!(own.file("pair-session", "json").ends_with("run/pair-session.json"));
        assert_eq!(own, Place::of(&default.join("")), "a slash at the end");
        assert_eq!(one, Place::of(Path::new("/a/./one/")));
        assert_eq!(
            (own.label(), one.label()),
            ("id.sigilum.gateway".to_owned(), format!("id.sigilum.gateway{}", one.suffix()))
        );
        assert!(one.suffix().len() == 9 && one != other, "{one:?} {other:?}");
        assert_eq!(one.unit(Kind::Pair), format!("sigilum-gateway-pair{}.service", one.suffix()));
    }
}

//! Settings files: a path enters, what the file says leaves, or what is wrong with it in one line. Never more than 1 MiB is
//! read. What the keys mean, and whether they fit together, is for whoever asks.

use std::path::Path;

use serde::de::DeserializeOwned;

/// Longest file in bytes.
const MAX_LEN: u64 = 1024 * 1024;

/// Reads a TOML file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_LEN {
        return Err("it is longer than 1 MiB".to_owned());
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    toml::from_str(&text).map_err(|error| error.to_string())
}

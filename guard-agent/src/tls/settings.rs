//! PostgreSQL's settings as its own files and command line give them. Pure but for the files that `read` and `list` reach.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// Files that include each other at most, as the server has it (`CONF_FILE_MAX_DEPTH`).
const MAX_DEPTH: usize = 10;

/// Files that are read at most.
const MAX_FILES: usize = 128;

/// How settings files are reached.
pub(super) trait Files {
    /// The text of a file.
    fn read(&mut self, path: &Path) -> Option<String>;
    /// The files of a folder, sorted.
    fn list(&mut self, folder: &Path) -> Vec<PathBuf>;
}

/// Names and values, names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings(HashMap<String, String>);

impl Settings {
    /// The value of `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether a boolean setting is on (`parse_bool`: any beginning of a word that is not ambiguous).
    pub(super) fn is_on(&self, name: &str) -> bool {
        let value = self.get(name).unwrap_or_default().to_ascii_lowercase();
        value == "1"
            || value == "on"
            || (!value.is_empty() && ("true".starts_with(&value) || "yes".starts_with(&value)))
    }

    /// Takes the settings of a file and of those that it includes; later ones win.
    pub(super) fn add_file(&mut self, path: &Path, files: &mut impl Files) {
        let mut left = MAX_FILES;
        self.include(path, files, MAX_DEPTH, &mut left);
    }

    /// Takes the settings of `other` over its own.
    pub(super) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    fn include(&mut self, path: &Path, files: &mut impl Files, depth: usize, left: &mut usize) {
        if depth == 0 || *left == 0 {
            return;
        }
        *left -= 1;
        let Some(text) = files.read(path) else { return };
        let beside = |name: &str| path.parent().unwrap_or(Path::new("/")).join(name);
        for line in text.lines() {
            let Some((name, value)) = setting(line) else { continue };
            match name.as_str() {
                "include" | "include_if_exists" => self.include(&beside(&value), files, depth - 1, left),
                "include_dir" => {
                    for file in files.list(&beside(&value)) {
                        let named = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                        if named.ends_with(".conf") && !named.starts_with('.') {
                            self.include(&file, files, depth - 1, left);
                        }
                    }
                }
                _ => {
                    self.0.insert(name, value);
                }
            }
        }
    }

    /// The settings on a server's command line: `-c name=value`, `--name=value`, `-D folder`, `-l`.
    pub(super) fn of_arguments<'a>(arguments: impl Iterator<Item = &'a str>) -> Self {
        let mut settings = Self::default();
        let mut arguments = arguments.skip(1);
        while let Some(argument) = arguments.next() {
            let assignment = if argument == "-c" {
                arguments.next()
            } else if argument == "-D" {
                settings.0.extend(arguments.next().map(|folder| ("-d".to_owned(), folder.to_owned())));
                None
            } else if argument == "-l" {
                settings.0.insert("ssl".to_owned(), "on".to_owned());
                None
            } else if let Some(folder) = argument.strip_prefix("-D") {
                settings.0.insert("-d".to_owned(), folder.to_owned());
                None
            } else {
                argument.strip_prefix("--").or_else(|| argument.strip_prefix("-c"))
            };
            if let Some((name, value)) = assignment.and_then(|assignment| assignment.split_once('=')) {
                settings.0.insert(name.trim().to_ascii_lowercase().replace('-', "_"), value.to_owned());
            }
        }
        settings
    }

    /// What followed `-D` on the command line.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.get("-d").map(Path::new)
    }
}

/// `name = 'value'`, `name value`, with a comment behind it or not.
fn setting(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let end = line.find(|letter: char| letter.is_whitespace() || letter == '=' || letter == '#')?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() {
        return None;
    }
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let value = match rest.strip_prefix('\'') {
        Some(quoted) => unquote(quoted),
        None => {
            let end = rest.find(|letter: char| letter.is_whitespace() || letter == '#').unwrap_or(rest.len());
            rest[..end].to_owned()
        }
    };
    Some((name.to_ascii_lowercase(), value))
}

/// The text up to the closing quote: `''` and `\'` stand for a quote.
fn unquote(quoted: &str) -> String {
    let mut value = String::new();
    let mut letters = quoted.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\'' if letters.peek() == Some(&'\'') => value.extend(letters.next()),
            '\'' => break,
            '\\' => value.extend(letters.next()),
            letter => value.push(letter),
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Files for HashMap<&str, &str> {
        fn read(&mut self, path: &Path) -> Option<String> {
            self.get(path.to_str()?).map(|text| (*text).to_owned())
        }

        fn list(&mut self, folder: &Path) -> Vec<PathBuf> {
            let mut files: Vec<_> =
                self.keys().map(PathBuf::from).filter(|path| path.parent() == Some(folder)).collect();
            files.sort();
            files
        }
    }

    #[test]
    fn files_include_each_other_and_the_last_value_wins() {
        let mut files = HashMap::from([
            (
                "/etc/pg/postgresql.conf",
                "ssl = on # a comment\nSSL_Cert_File 'it''s.crt'\n#ssl_key_file = 'x'\nssl_key_file='a.key'\n\
                 include_dir = 'conf.d'\ninclude 'postgresql.conf'\ninclude_if_exists = 'none'\n",
            ),
            ("/etc/pg/conf.d/10.conf", "ssl_key_file = b.key"),
            ("/etc/pg/conf.d/20.conf", "ssl_key_file = 'c.key'#comment"),
            ("/etc/pg/conf.d/30.txt", "ssl_key_file = 'd.key'"),
        ]);
        let mut settings = Settings::default();
        settings.add_file(Path::new("/etc/pg/postgresql.conf"), &mut files);
        assert!(settings.is_on("ssl"));
        assert_eq!(settings.get("ssl_cert_file"), Some("it's.crt"));
        assert_eq!(settings.get("ssl_key_file"), Some("c.key"));
        assert_eq!(settings.get("ssl_ca_file"), None);
    }

    #[test]
    fn the_command_line_is_read_as_the_server_reads_it() {
        let line =
            ["postgres", "-D", "/data", "-c", "ssl=on", "--ssl-cert-file=/c", "-cssl_key_file=/k", "-i"];
        let settings = Settings::of_arguments(line.into_iter());
        assert_eq!(settings.folder(), Some(Path::new("/data")));
        assert!(settings.is_on("ssl"));
        assert_eq!((settings.get("ssl_cert_file"), settings.get("ssl_key_file")), (Some("/c"), Some("/k")));
        assert!(Settings::of_arguments(["postgres", "-l"].into_iter()).is_on("ssl"));
    }

    #[test]
    fn on_has_many_names() {
        let on = |value: &str| Settings(HashMap::from([("ssl".to_owned(), value.to_owned())])).is_on("ssl");
        assert!(["on", "ON", "true", "t", "yes", "1"].into_iter().all(on));
        assert!(!["off", "o", "", "0", "no", "false", "onn"].into_iter().any(on));
    }
}

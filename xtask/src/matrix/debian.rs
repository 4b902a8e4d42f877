//! Packages of several Debian suites, by an apt with its own sources, lists and cache: the system's stay as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};

use crate::shell;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// How old lists may be.
const FRESH: Duration = Duration::from_secs(7 * 24 * 3600);

/// An apt of its own.
#[derive(Debug)]
pub struct Apt {
    home: PathBuf,
    /// Where Debian's archive is, without the suite.
    pub mirror: String,
}

impl Apt {
    /// With lists of all suites that are needed, not older than a week.
    pub fn ready(home: &Path, suites: &[&str]) -> Result<Self> {
        if !Path::new(KEYRING).exists() {
            bail!("{KEYRING} is missing: install debian-archive-keyring");
        }
        let apt = Self { home: home.join("apt"), mirror: mirror() };
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.home.join(folder))?;
        }
        let sources: String = suites.iter().map(|suite| apt.source(suite)).collect();
        let list = apt.home.join("sources.list");
        if fs::read_to_string(&list).map_or(true, |known| known != sources) {
            let _ = fs::remove_file(apt.home.join("updated"));
        }
        let age = fs::metadata(apt.home.join("updated")).and_then(|stamp| stamp.modified()).ok();
        let age = age.and_then(|updated| SystemTime::now().duration_since(updated).ok());
        fs::write(&list, sources)?;
        fs::write(apt.home.join("status"), "")?;
        match age {
            None => apt.update()?,
            // Without it, what was downloaded then still boots.
            Some(age) if age > FRESH => {
                if let Err(error) = apt.update() {
                    println!("  the package lists are older than a week: {error:#}");
                }
            }
            Some(_) => {}
        }
        Ok(apt)
    }

    /// Reads the lists anew.
    pub fn update(&self) -> Result<()> {
        shell::quietly(self.command("apt-get", &["update"]), "reading Debian's package lists")?;
        fs::write(self.home.join("updated"), "")?;
        Ok(())
    }

    fn source(&self, suite: &str) -> String {
        let archive = if suite.ends_with("-security") { "debian-security" } else { "debian" };
        format!("deb [signed-by={KEYRING}] {}/{archive} {suite} main\n", self.mirror)
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        let path = |name: &str| self.home.join(name).to_string_lossy().into_owned();
        let mut command = Command::new(program);
        for option in [
            format!("Dir::Etc::SourceList={}", path("sources.list")),
            "Dir::Etc::SourceParts=-".to_owned(),
            format!("Dir::State={}", path("state")),
            format!("Dir::State::status={}", path("status")),
            format!("Dir::Cache={}", path("cache")),
            "Acquire::Languages=none".to_owned(),
            // The account `_apt` may not enter this folder.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.args(words);
        command
    }

    fn asked(&self, words: &[&str]) -> Result<String> {
        let command = self.command("apt-cache", words);
        let shown = shell::shown(&command);
        shell::output(command).with_context(|| format!("apt-cache does not answer: {shown}"))
    }

    /// The newest version of a package in a suite.
    pub fn version(&self, package: &str, suite: &str) -> Result<String> {
        let answer = self.asked(&["madison", package])?;
        let place = format!(" {suite}/");
        let line = answer.lines().find(|line| line.contains(&place));
        let version = line.and_then(|line| line.split('|').nth(1)).map(|version| version.trim().to_owned());
        version.with_context(|| format!("Debian's {suite} has no package {package}"))
    }

    /// The packages with exact versions on which one depends, as `name=version`.
    pub fn exact_dependencies(&self, package: &str, version: &str) -> Result<Vec<(String, String)>> {
        let answer = self.asked(&["show", &format!("{package}={version}")])?;
        let depends = answer.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
        Ok(depends.split(',').filter_map(exact).collect())
    }

    /// Packages and everything that they cannot do without, as `(name, version)`. For an apt with one suite.
    pub fn with_dependencies(&self, packages: &[&str]) -> Result<Vec<(String, String)>> {
        let words = [&["install", "--simulate", "--no-install-recommends"], packages].concat();
        let command = self.command("apt-get", &words);
        let shown = shell::shown(&command);
        let answer = shell::output(command).with_context(|| format!("apt-get does not answer: {shown}"))?;
        Ok(answer.lines().filter_map(installed).collect())
    }

    /// Downloads packages and unpacks them below `to`. Nothing is installed.
    pub fn unpack(&self, packages: &[(String, String)], to: &Path) -> Result<()> {
        let folder = tempfile::tempdir_in(&self.home)?;
        let words: Vec<String> = packages.iter().map(|(name, version)| format!("{name}={version}")).collect();
        let download = || {
            let mut command = self.command("apt-get", &["download"]);
            command.args(&words).current_dir(folder.path());
            shell::quietly(command, &format!("downloading {}", words.join(" ")))
        };
        // A list from last week names files that the mirror has replaced.
        if download().is_err() {
            self.update()?;
            download()?;
        }
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(folder.path())? {
            let mut command = shell::command("dpkg", &["--extract"]);
            command.arg(entry?.path()).arg(to);
            shell::quietly(command, "unpacking a package")?;
        }
        Ok(())
    }
}

/// `name (= version)`.
fn exact(dependency: &str) -> Option<(String, String)> {
    let (name, version) = dependency.trim().split_once(" (= ")?;
    Some((name.to_owned(), version.strip_suffix(')')?.to_owned()))
}

/// `Inst name (version suite [architecture])`.
fn installed(line: &str) -> Option<(String, String)> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
    Some((name.to_owned(), rest.split_whitespace().next()?.to_owned()))
}

/// The mirror of this host where it is Debian, else Debian's own.
fn mirror() -> String {
    let targets = shell::command("apt-get", &["indextargets", "--format", "$(SITE)", "Created-By: Packages"]);
    let sites = shell::output(targets).unwrap_or_default();
    let own =
        sites.lines().find_map(|site| Some(site.strip_suffix("/debian")?.trim_end_matches('/').to_owned()));
    own.unwrap_or_else(|| "http://deb.debian.org".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{exact, installed};

    #[test]
    fn only_exact_dependencies_count() {
        let found = exact(" linux-image-5.10.0-46-cloud-amd64 (= 5.10.262-1)");
        assert_eq!(found, Some(("linux-image-5.10.0-46-cloud-amd64".to_owned(), "5.10.262-1".to_owned())));
        assert_eq!(exact("kmod"), None);
        assert_eq!(exact("linux-base (>= 4.3~)"), None);
    }

    #[test]
    fn what_would_be_installed_is_read() {
        let line = "Inst libpq5 (17.6-0+deb13u1 Debian:13.1/stable [amd64]) []";
        assert_eq!(installed(line), Some(("libpq5".to_owned(), "17.6-0+deb13u1".to_owned())));
        assert_eq!(installed("Conf libpq5 (17.6-0+deb13u1 Debian:13.1/stable [amd64])"), None);
    }
}

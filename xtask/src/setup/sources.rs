//! PostgreSQL's sources from Debian's source package, without a change to the system's package sources.
//!
//! apt runs on a configuration of its own under target/tools: the system's sources, with `deb-src` for `deb`.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::shell;

/// Unpacks `folders` of the installed server's sources into `to`.
pub fn fetch(folders: &[&str], to: &Path) -> Result<()> {
    let package = server_package()?;
    let apt = Apt::new()?;
    shell::quietly(apt.command("apt-get", &["update"]), "reading the lists of source packages")?;
    let tarball = apt.download(&package)?;
    // Unpacked beside its place and moved there: what is there is whole.
    let (unpacked, _) = (to.with_extension("new"), fs::remove_dir_all(to));
    let _ = fs::remove_dir_all(&unpacked);
    fs::create_dir_all(&unpacked)?;
    let mut tar =
        shell::command("tar", &["--extract", "--file", &tarball, "--strip-components=1", "--wildcards"]);
    tar.arg("--directory").arg(&unpacked).args(folders.iter().map(|folder| format!("*/{folder}")));
    shell::quietly(tar, "unpacking PostgreSQL's sources")?;
    fs::rename(&unpacked, to)?;
    fs::remove_dir_all(apt.home)?;
    Ok(())
}

/// Name of the source package of the server that tests run.
fn server_package() -> Result<Package> {
    let bin = guard_tests::postgres::programs()?;
    let program = bin.join("postgres");
    let said = shell::output(shell::command("dpkg", &["--search", &program.to_string_lossy()]));
    let owner = said.as_deref().and_then(|said| said.split(':').next()).map(str::to_owned);
    let owner = owner.with_context(|| format!("{} belongs to no Debian package", program.display()))?;
    let fields =
        shell::command("dpkg-query", &["--show", "--showformat=${source:Package} ${source:Version}", &owner]);
    let fields = shell::output(fields).unwrap_or_default();
    let (name, version) =
        fields.split_once(' ').with_context(|| format!("dpkg-query does not know the source of {owner}"))?;
    Ok(Package { name: name.to_owned(), version: version.to_owned() })
}

struct Package {
    name: String,
    version: String,
}

/// apt with its own lists.
struct Apt {
    home: std::path::PathBuf,
}

impl Apt {
    fn new() -> Result<Self> {
        let home = shell::tools().join("apt");
        for folder in ["state/lists/partial", "cache/archives/partial", "files"] {
            fs::create_dir_all(home.join(folder))?;
        }
        let targets =
            ["indextargets", "--format", "deb-src $(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages"];
        let lines = shell::output(shell::command("apt-get", &targets)).unwrap_or_default();
        let mut lines: Vec<&str> = lines.lines().filter(|line| line.contains("://")).collect();
        lines.dedup();
        if lines.is_empty() {
            bail!("apt has no package sources; `apt-get update` once");
        }
        fs::write(home.join("sources.list"), lines.join("\n") + "\n")?;
        Ok(Self { home })
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let path = |name: &str| self.home.join(name).to_string_lossy().into_owned();
        let mut command = Command::new(program);
        command.current_dir(self.home.join("files"));
        for option in [
            format!("Dir::Etc::SourceList={}", path("sources.list")),
            "Dir::Etc::SourceParts=-".to_owned(),
            format!("Dir::State={}", path("state")),
            format!("Dir::Cache={}", path("cache")),
            "Dir::State::status=/var/lib/dpkg/status".to_owned(),
            // The account `_apt` may not enter this folder.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.args(arguments);
        command
    }

    /// Downloads the tarball of `package`: of exactly its version where a mirror still has it, else of the nearest one,
    /// whose tests differ in a few corrections.
    fn download(&self, package: &Package) -> Result<String> {
        let known = shell::output(self.command("apt-cache", &["showsrc", &package.name])).unwrap_or_default();
        let known = known.lines().filter_map(|line| line.strip_prefix("Version: "));
        let mut last = None;
        for version in std::iter::once(package.version.as_str()).chain(known) {
            let wanted = format!("{}={version}", package.name);
            let words = ["source", "--download-only", "--tar-only", "--only-source", &wanted];
            match shell::quietly(
                self.command("apt-get", &words),
                &format!("downloading the sources of {wanted}"),
            ) {
                Ok(()) => return self.tarball(),
                Err(error) => last = Some(error),
            }
        }
        Err(last.with_context(|| format!("no mirror has the source package {}", package.name))?)
    }

    fn tarball(&self) -> Result<String> {
        for entry in fs::read_dir(self.home.join("files"))? {
            let path = entry?.path().to_string_lossy().into_owned();
            if path.contains(".orig.tar.") && !path.ends_with(".asc") {
                return Ok(path);
            }
        }
        bail!("apt downloaded no source archive")
    }
}

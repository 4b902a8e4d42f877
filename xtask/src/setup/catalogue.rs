//! What guard's tasks need: why, where it comes from, how one sees that it is there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::Group;
use crate::shell;

/// One thing that has to be there.
#[derive(Debug)]
pub struct Tool {
    /// What it is.
    pub name: &'static str,
    /// What it is for.
    pub why: &'static str,
    groups: &'static [Group],
    /// Where it comes from.
    pub source: Source,
    /// Whether it is there already.
    pub is_there: fn() -> bool,
}

impl Tool {
    /// Whether one of these groups needs it.
    pub fn is_for(&self, groups: &[Group]) -> bool {
        self.groups.iter().any(|group| groups.contains(group))
    }
}

/// Where a tool comes from.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// Debian packages.
    Apt(&'static [&'static str]),
    /// `cargo install`.
    Cargo {
        /// The crate.
        name: &'static str,
        /// The version that is known to work.
        version: &'static str,
        /// Further options.
        options: &'static [&'static str],
    },
    /// A component of the Rust toolchain.
    Rustup(&'static str),
    /// A package for Python, into a virtual environment under target/tools.
    Python {
        /// The package.
        package: &'static str,
        /// The version that is known to work.
        version: &'static str,
        /// Debian packages that it needs.
        needs: &'static [&'static str],
    },
    /// Packages for node, into target/tools.
    Node {
        /// The folder of the workspace whose lock file names them.
        folder: &'static str,
        /// Debian packages that it needs.
        needs: &'static [&'static str],
    },
    /// A part of PostgreSQL's sources, of the server that is installed, from Debian's source package.
    Unpacked {
        /// The folders of the source tree that are kept.
        folders: &'static [&'static str],
        /// Debian packages that unpacking needs.
        needs: &'static [&'static str],
    },
}

impl Source {
    /// Whether Debian packages are part of it.
    pub fn is_apt(&self) -> bool {
        matches!(self, Self::Apt(_) | Self::Unpacked { .. })
    }

    /// Debian packages to install for it.
    pub fn packages(&self) -> &'static [&'static str] {
        match self {
            Self::Apt(packages) | Self::Unpacked { needs: packages, .. } => packages,
            // Only where Python cannot make environments yet.
            Self::Python { needs, .. }
                if !shell::answers("/usr/bin/python3", &["-c", "import ensurepip"]) =>
            {
                needs
            }
            Self::Node { needs, .. } if !shell::answers("npm", &["--version"]) => needs,
            Self::Python { .. } | Self::Node { .. } | Self::Cargo { .. } | Self::Rustup(_) => &[],
        }
    }

    /// As one would type it.
    pub fn shown(&self) -> String {
        match self {
            Self::Apt(packages) => format!("apt-get install {}", packages.join(" ")),
            Self::Cargo { name, version, options } => {
                let words = [&["cargo install --locked --version", version], *options, &[*name]].concat();
                words.join(" ")
            }
            Self::Rustup(component) => format!("rustup component add {component}"),
            Self::Python { package, version, .. } => {
                format!("pip install {package}=={version} (in target/tools)")
            }
            Self::Node { folder, .. } => format!("npm ci on {folder}/package-lock.json (in target/tools)"),
            Self::Unpacked { folders, .. } => {
                format!("apt-get source postgresql (only {}, in target/tools)", folders.join(", "))
            }
        }
    }
}

/// Everything, in the order in which it is installed.
pub const TOOLS: &[Tool] = &[
    Tool {
        name: "C compiler",
        why: "links Rust programs; builds SQLite into the control plane",
        groups: &[Group::Build],
        source: Source::Apt(&["gcc", "libc6-dev"]),
        is_there: || shell::answers("cc", &["--version"]),
    },
    Tool {
        name: "C++ compiler",
        why: "builds libFuzzer",
        groups: &[Group::Fuzz],
        source: Source::Apt(&["g++"]),
        is_there: || shell::answers("c++", &["--version"]),
    },
    Tool {
        name: "libclang",
        why: "reads the C headers of PostgreSQL's grammar while pg_query is built",
        groups: &[Group::Build],
        source: Source::Apt(&["libclang-dev"]),
        is_there: has_libclang,
    },
    Tool {
        name: "Rust for BPF",
        why: "compiles the eBPF programs: a toolchain with `core` for bpfel-unknown-none",
        groups: &[Group::Build],
        source: Source::Apt(&["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"]),
        is_there: || debian_bpf_core() || nightly_rust_src(),
    },
    Tool {
        name: "bpf-linker",
        why: "links the eBPF programs",
        groups: &[Group::Build],
        // 0.11 and later need LLVM's development packages.
        source: Source::Cargo { name: "bpf-linker", version: "0.10.3", options: &[] },
        is_there: || shell::answers("bpf-linker", &["--version"]) || in_cargo_home("bpf-linker"),
    },
    Tool {
        name: "PostgreSQL",
        why: "the database before which guard is shown, tested and measured; server, psql, pgbench",
        groups: &[Group::Demo, Group::Test, Group::Bench],
        source: Source::Apt(&["postgresql", "postgresql-contrib"]),
        is_there: || guard_tests::postgres::programs().is_ok() && shell::answers("psql", &["--version"]),
    },
    Tool {
        name: "PgBouncer",
        why: "what guard's proxy is measured against",
        groups: &[Group::Test, Group::Bench],
        source: Source::Apt(&["pgbouncer"]),
        is_there: || shell::answers("pgbouncer", &["--version"]),
    },
    Tool {
        name: "nftables",
        why: "steering is also done by it, for kernels without sk_lookup",
        groups: &[Group::Test],
        source: Source::Apt(&["nftables"]),
        is_there: || shell::answers("nft", &["--version"]),
    },
    Tool {
        name: "ip",
        why: "makes the network namespaces of tests",
        groups: &[Group::Test],
        source: Source::Apt(&["iproute2"]),
        is_there: || shell::answers("ip", &["-V"]),
    },
    Tool {
        name: "socat",
        why: "relays connections in tests of ways round the proxy",
        groups: &[Group::Test],
        source: Source::Apt(&["socat"]),
        is_there: || shell::answers("socat", &["-V"]),
    },
    Tool {
        name: "runc",
        why: "runs the containers of tests",
        groups: &[Group::Test],
        source: Source::Apt(&["runc"]),
        is_there: || shell::answers("runc", &["--version"]),
    },
    Tool {
        name: "nft",
        why: "rewrites addresses in the network namespaces of tests",
        groups: &[Group::Test],
        source: Source::Apt(&["nftables"]),
        is_there: || shell::answers("nft", &["--version"]),
    },
    Tool {
        name: "rsyslog",
        why: "takes the control plane's syslog over TLS",
        groups: &[Group::Test],
        source: Source::Apt(&["rsyslog", "rsyslog-gnutls"]),
        is_there: guard_tests::receivers::rsyslog_is_there,
    },
    Tool {
        name: "NATS",
        why: "takes the control plane's records into a stream",
        groups: &[Group::Test],
        source: Source::Apt(&["nats-server"]),
        is_there: guard_tests::receivers::nats_is_there,
    },
    Tool {
        name: "DuckDB",
        why: "reads the control plane's Parquet files",
        groups: &[Group::Test],
        source: Source::Python { package: "duckdb", version: "2.0.0", needs: &["python3-venv"] },
        is_there: || python_has("duckdb", "2.0.0"),
    },
    Tool {
        name: "systemd-analyze",
        why: "checks deploy/systemd",
        groups: &[Group::Test],
        source: Source::Apt(&["systemd"]),
        is_there: || shell::answers("systemd-analyze", &["--version"]),
    },
    Tool {
        name: "kubernetes-validate",
        why: "checks deploy/kubernetes against Kubernetes' own schemas",
        groups: &[Group::Test],
        source: Source::Python {
            package: "kubernetes-validate",
            version: "1.36.0",
            needs: &["python3-venv"],
        },
        is_there: || kubernetes_validate().exists(),
    },
    Tool {
        name: "psycopg",
        why: "Python's driver on libpq",
        groups: &[Group::Drivers],
        source: Source::Python { package: "psycopg[binary]", version: "3.3.9", needs: &["python3-venv"] },
        is_there: || python_has("psycopg_binary", "3.3.9"),
    },
    Tool {
        name: "psycopg2",
        why: "its predecessor, in wide use",
        groups: &[Group::Drivers],
        source: Source::Python { package: "psycopg2-binary", version: "2.9.13", needs: &["python3-venv"] },
        is_there: || python_has("psycopg2_binary", "2.9.13"),
    },
    Tool {
        name: "asyncpg",
        why: "Python's own implementation of the protocol",
        groups: &[Group::Drivers],
        source: Source::Python { package: "asyncpg", version: "0.32.0", needs: &["python3-venv"] },
        is_there: || python_has("asyncpg", "0.32.0"),
    },
    Tool {
        name: "SQLAlchemy",
        why: "Python's most used library above drivers",
        groups: &[Group::Drivers],
        source: Source::Python { package: "SQLAlchemy", version: "2.1.9", needs: &["python3-venv"] },
        is_there: || python_has("sqlalchemy", "2.1.9"),
    },
    Tool {
        name: "node's drivers",
        why: "pg, with its cursors and COPY streams",
        groups: &[Group::Drivers],
        source: Source::Node { folder: "tests/drivers/node", needs: &["nodejs", "npm"] },
        is_there: node_is_current,
    },
    Tool {
        name: "Chromium",
        why: "the browser in which the console is tested",
        groups: &[Group::Console],
        source: Source::Apt(&["chromium"]),
        is_there: || guard_tests::browser::program().is_some(),
    },
    Tool {
        name: "playwright and axe",
        why: "drive that browser, and say what makes a page hard to use",
        groups: &[Group::Console],
        source: Source::Node { folder: BROWSER, needs: &["nodejs", "npm"] },
        is_there: browser_is_current,
    },
    Tool {
        name: "JDBC",
        why: "Java's driver, and a Java to run it",
        groups: &[Group::Drivers],
        source: Source::Apt(&["default-jdk-headless", "libpostgresql-jdbc-java"]),
        is_there: || drivers().jdbc.exists() && shell::answers("java", &["-version"]),
    },
    Tool {
        name: "pg_regress",
        why: "runs PostgreSQL's own test suites; headers for the library that they load",
        groups: &[Group::Regress],
        source: Source::Apt(&["postgresql-server-dev-all"]),
        is_there: guard_tests::regress::programs_are_there,
    },
    Tool {
        name: "PostgreSQL's tests",
        why: "the regression and isolation suites, which must not notice guard",
        groups: &[Group::Regress],
        source: Source::Unpacked {
            folders: &["src/test/regress", "src/test/isolation"],
            needs: &["bzip2", "tar"],
        },
        is_there: || postgres_sources().join("src/test/isolation/isolation_schedule").exists(),
    },
    Tool {
        name: "qemu",
        why: "runs other kernels in virtual machines",
        groups: &[Group::Matrix],
        source: Source::Apt(&["qemu-system-x86"]),
        is_there: || shell::answers("qemu-system-x86_64", &["--version"]),
    },
    Tool {
        name: "debootstrap",
        why: "installs the system of those machines, with systemd and PostgreSQL",
        groups: &[Group::Matrix],
        source: Source::Apt(&["debootstrap", "debian-archive-keyring"]),
        is_there: || shell::answers("debootstrap", &["--version"]),
    },
    Tool {
        name: "mke2fs",
        why: "makes their disks",
        groups: &[Group::Matrix],
        source: Source::Apt(&["e2fsprogs"]),
        is_there: || shell::answers("mke2fs", &["-V"]),
    },
    Tool {
        name: "depmod",
        why: "sorts the modules of their kernels",
        groups: &[Group::Matrix],
        source: Source::Apt(&["kmod", "xz-utils"]),
        is_there: || shell::answers("depmod", &["--version"]) && shell::answers("xz", &["--version"]),
    },
    Tool {
        name: "strip",
        why: "makes the programs that go into them small",
        groups: &[Group::Matrix],
        source: Source::Apt(&["binutils"]),
        is_there: || shell::answers("strip", &["--version"]),
    },
    Tool {
        name: "rustfmt",
        why: "the form of the code",
        groups: &[Group::Lint],
        source: Source::Rustup("rustfmt"),
        is_there: || shell::output(shell::cargo(&["fmt", "--version"])).is_some(),
    },
    Tool {
        name: "clippy",
        why: "Rust's lints",
        groups: &[Group::Lint],
        source: Source::Rustup("clippy"),
        is_there: || shell::output(shell::cargo(&["clippy", "--version"])).is_some(),
    },
    Tool {
        name: "cargo-deny",
        why: "licences, sources and known vulnerabilities of dependencies",
        groups: &[Group::Lint],
        // A debug build takes a third of the time and is fast enough.
        source: Source::Cargo { name: "cargo-deny", version: "0.20.2", options: &["--debug"] },
        is_there: || shell::output(shell::cargo(&["deny", "--version"])).is_some(),
    },
];

/// The checker of Kubernetes manifests, once it is installed.
pub fn kubernetes_validate() -> PathBuf {
    shell::tools().join("python/bin/kubernetes-validate")
}

/// Name of the file in which npm pins versions.
pub const NODE_LOCK: &str = "package-lock.json";

/// The folder of node's packages.
pub fn node() -> PathBuf {
    shell::tools().join("node")
}

/// Where the packages that drive a browser are named.
const BROWSER: &str = "tests/browser";

/// Where the packages that a folder names are installed.
pub fn node_home(folder: &str) -> PathBuf {
    if folder == BROWSER { shell::tools().join("browser") } else { node() }
}

/// Whether what is installed is what the lock file names.
fn browser_is_current() -> bool {
    let lock = |folder: PathBuf| fs::read(folder.join(NODE_LOCK)).ok();
    guard_tests::browser::modules().join("playwright-core").exists()
        && lock(node_home(BROWSER)) == lock(shell::root().join(BROWSER))
}

/// Whether what is installed is what the lock file names.
fn node_is_current() -> bool {
    let wanted = fs::read(shell::root().join("tests/drivers/node").join(NODE_LOCK)).ok();
    node().join("node_modules/pg").exists() && fs::read(node().join(NODE_LOCK)).ok() == wanted
}

/// Where the drivers are, once they are installed.
pub fn drivers() -> guard_tests::drivers::Tools {
    guard_tests::drivers::Tools {
        python: shell::tools().join("python/bin/python"),
        node_modules: node().join("node_modules"),
        jdbc: "/usr/share/java/postgresql.jar".into(),
    }
}

/// Whether the environment of this checkout has exactly this version.
fn python_has(package: &str, version: &str) -> bool {
    let libraries = fs::read_dir(shell::tools().join("python/lib")).into_iter().flatten().flatten();
    let record = format!("site-packages/{package}-{version}.dist-info");
    libraries.map(|library| library.path().join(&record)).any(|path| path.exists())
}

/// The part of PostgreSQL's sources that is kept, once it is there.
pub fn postgres_sources() -> PathBuf {
    shell::tools().join("postgresql-sources")
}

/// Where `cargo install` puts programs, whether the path has it or not: the build looks there too.
fn in_cargo_home(program: &str) -> bool {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    home.is_some_and(|home| shell::answers(home.join("bin").join(program), &["--version"]))
}

/// Where Debian and its relatives put it; LIBCLANG_PATH names any other place.
fn has_libclang() -> bool {
    let holds = |folder: &Path| {
        let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.into_iter().any(|name| is_libclang(&name.to_string_lossy()))
    };
    let named = std::env::var_os("LIBCLANG_PATH").is_some_and(|path| holds(Path::new(&path)));
    let versions = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    named
        || versions
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("llvm-"))
            .any(|entry| holds(&entry.path().join("lib")))
}

/// Whether a file is the C interface that bindgen loads: `libclang-cpp.so.14` beside it, or without it, is another library.
fn is_libclang(name: &str) -> bool {
    let rest = name.strip_prefix("libclang").unwrap_or_default();
    let version =
        rest.strip_prefix('-').is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()));
    rest == ".so" || rest.starts_with(".so.") || version && rest.contains(".so")
}

/// Debian's Rust with its prebuilt `core` for BPF.
fn debian_bpf_core() -> bool {
    let folder = Path::new("/usr/lib/rustlib/bpfel-unknown-none/lib");
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    Path::new("/usr/bin/rustc").exists()
        && names.into_iter().any(|name| name.to_string_lossy().starts_with("libcore"))
}

/// rustup's nightly with the sources of `core`, which it builds for BPF itself.
fn nightly_rust_src() -> bool {
    let sysroot = shell::command("rustup", &["run", "nightly", "rustc", "--print", "sysroot"]);
    shell::output(sysroot)
        .is_some_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libclang_is_no_other_library_of_clang() {
        for name in
            ["libclang.so", "libclang.so.1", "libclang-14.so.1", "libclang-14.so.14.0.6", "libclang-18.so"]
        {
            assert!(is_libclang(name), "{name}");
        }
        for name in ["libclang-cpp.so.14", "libclang-cpp.so", "libclangAST.a", "libclang.a", "libLLVM.so"] {
            assert!(!is_libclang(name), "{name}");
        }
    }

    #[test]
    fn what_would_be_typed_is_shown() {
        let shown = |name| TOOLS.iter().find(|tool| tool.name == name).map(|tool| tool.source.shown());
        assert_eq!(
            shown("bpf-linker").as_deref(),
            Some("cargo install --locked --version 0.10.3 bpf-linker")
        );
        assert_eq!(
            shown("cargo-deny").as_deref(),
            Some("cargo install --locked --version 0.20.2 --debug cargo-deny")
        );
    }

    #[test]
    fn every_group_needs_something_and_names_are_unique() {
        for group in super::super::ALL {
            assert!(TOOLS.iter().any(|tool| tool.is_for(&[*group])), "{group:?}");
        }
        let mut names: Vec<_> = TOOLS.iter().map(|tool| tool.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TOOLS.len());
    }
}

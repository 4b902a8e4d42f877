//! PostgreSQL of other versions, for tests: Debian's packages, unpacked into a folder for each.
//!
//! Nothing is installed and nothing is mounted: a folder has the server, the libraries that it needs, a shell for
//! `initdb`, and the four devices that they ask for, made in it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use anyhow::{Context, Result};
use guard_tests::versions;
use nix::{
    sys::stat::{Mode, SFlag, makedev, mknod},
    unistd::Uid,
};

use crate::matrix::Apt;

/// Devices that a server or its shell opens: name, and minor number of the memory devices.
const DEVICES: [(&str, u64); 4] = [("null", 3), ("zero", 5), ("random", 8), ("urandom", 9)];
const MEMORY_DEVICES: u64 = 1;
/// Beside libraries: the shell that `initdb` runs, which no package asks for, and what the server itself needs.
const OTHERS: [&str; 3] = ["dash", "tzdata", "zlib1g"];
/// What a server loads for functions in other languages and for compiling queries alone: they are large.
const LEFT_OUT: [&str; 5] = ["libllvm", "libperl", "libpython", "libtcl", "libz3"];

/// Gets what is missing. For each version that cannot be had: why.
pub fn ready() -> Vec<(u32, String)> {
    let missing = versions::POSTGRES.into_iter().filter(|(major, _)| !versions::is_there(*major));
    let got = |(major, suite)| match get(major, suite) {
        Ok(()) => None,
        Err(error) => Some((major, format!("{error:#}"))),
    };
    missing.filter_map(got).collect()
}

fn get(major: u32, suite: &str) -> Result<()> {
    if !Uid::effective().is_root() {
        anyhow::bail!("only root can start a server in a root of its own");
    }
    println!("  getting PostgreSQL {major} from Debian's {suite}");
    let root = versions::root_of(major);
    let _ = fs::remove_dir_all(&root);
    let lists = versions::home().join(format!("apt-{major}"));
    let apt = Apt::ready(&lists, &[suite])?;
    let package = format!("postgresql-{major}");
    let wanted = |(name, _): &(String, String)| {
        *name == package
            || OTHERS.contains(&name.as_str())
            || (name.starts_with("lib") && !LEFT_OUT.iter().any(|other| name.starts_with(other)))
    };
    let asked: Vec<&str> = OTHERS.into_iter().chain([package.as_str()]).collect();
    let packages: Vec<_> = apt.with_dependencies(&asked)?.into_iter().filter(wanted).collect();
    apt.unpack(&packages, &root)?;
    fs::remove_dir_all(&lists)?;
    let waste = ["usr/share/doc", "usr/share/man", "usr/share/locale"].map(str::to_owned);
    for folder in waste.into_iter().chain([format!("usr/lib/postgresql/{major}/lib/bitcode")]) {
        let _ = fs::remove_dir_all(root.join(folder));
    }
    furnish(&root)?;
    fs::write(root.join(versions::COMPLETE), "").context("the folder of a server")?;
    Ok(())
}

/// What packages expect of the system below them.
fn furnish(root: &Path) -> Result<()> {
    for folder in ["bin", "lib", "lib64", "sbin"] {
        let inside = Path::new("usr").join(folder);
        if !root.join(folder).exists() && root.join(&inside).exists() {
            symlink(&inside, root.join(folder))?;
        }
    }
    if !root.join("bin/sh").exists() {
        symlink("dash", root.join("bin/sh"))?;
    }
    for folder in ["etc", "dev/shm", "tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    for open in ["dev/shm", "tmp"] {
        fs::set_permissions(root.join(open), Permissions::from_mode(0o1777))?;
    }
    for (name, minor) in DEVICES {
        let (path, mode) = (root.join("dev").join(name), Mode::from_bits_truncate(0o666));
        mknod(&path, SFlag::S_IFCHR, mode, makedev(MEMORY_DEVICES, minor))
            .context("a device for a server")?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
    }
    // Who a server runs as has to have a name.
    for list in ["etc/passwd", "etc/group"] {
        fs::copy(Path::new("/").join(list), root.join(list))?;
    }
    Ok(())
}

//! Clients that choose what guard reads of them.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    process::Command,
};

use crate::sensor::{Sensor, assert_attested, dial, finish, listen, serve};

#[test]
fn arguments_of_128_kib_are_cut_and_say_so() {
    let (listener, address) = listen("127.0.0.1:0");
    let Some(mut sensor) = Sensor::watching_port(address.port()) else { return };
    serve(listener);
    let large = "x".repeat(128 * 1024 - 1);
    // One argument as long as the kernel takes it, then many.
    for arguments in [vec![large.as_str()], vec!["many"; 20_000]] {
        let before = sensor.accepted.len();
        finish(Command::new("/bin/bash").args(["-c", &dial(address)]).args(&arguments).spawn().unwrap());
        sensor.until("connection", |sensor| sensor.accepted.len() > before);
        let workload = &sensor.accepted[before].workload;
        assert_attested(workload);
        assert!(workload.argv_truncated);
        assert_eq!(workload.argv[2], dial(address));
        assert!(workload.argv.iter().map(String::len).sum::<usize>() <= 1024);
    }
}

#[test]
fn paths_are_what_the_kernel_opened_whatever_is_in_them() {
    let (listener, address) = listen("127.0.0.1:0");
    let Some(mut sensor) = Sensor::watching_port(address.port()) else { return };
    serve(listener);
    let folder = tempfile::tempdir().unwrap();
    let deep = "d/".repeat(40) + "bash";
    for (name, expected) in [
        (&b"new\nline/ba\"sh"[..], "/new\nline/ba\"sh"),
        (b"not \xff\xfe text/bash", "/not \u{fffd}\u{fffd} text/bash"),
        (b"\x1b[2J/bash (deleted)", "/\u{1b}[2J/bash (deleted)"),
        (deep.as_bytes(), "/d/d/d/bash"),
    ] {
        let program = folder.path().join(OsStr::from_bytes(name));
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::copy("/bin/bash", &program).unwrap();
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let before = sensor.accepted.len();
        finish(Command::new(&program).args(["-c", &dial(address)]).spawn().unwrap());
        sensor.until("connection", |sensor| sensor.accepted.len() > before);
        let workload = &sensor.accepted[before].workload;
        assert_attested(workload);
        assert!(workload.executable.ends_with(expected), "{:?}", workload.executable);
        assert_eq!(workload.executable.starts_with("/..."), name.len() > 50, "{:?}", workload.executable);
    }
}

/// A process may write over its own arguments and name: what counts is what was given to exec.
#[test]
fn a_process_that_renames_itself_is_known_by_what_it_was_started_as() {
    let (listener, address) = listen("127.0.0.1:0");
    let Some(mut sensor) = Sensor::watching_port(address.port()) else { return };
    serve(listener);
    let script = format!("printf postgres > /proc/$$/comm; {}", dial(address));
    let child = Command::new("/bin/bash").args(["-c", &script]).spawn().unwrap();
    finish(child);
    let workload = sensor.one().workload;
    assert_attested(&workload);
    assert_eq!(workload.comm, "postgres");
    assert!(workload.executable.ends_with("/bash"), "{workload:?}");
    assert_eq!(workload.argv[0], "/bin/bash");
}

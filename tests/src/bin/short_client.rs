//! A database client that is gone within a few milliseconds: `guard-short-client tcp|unix ADDRESS USER DATABASE`.
//!
//! It connects, sends its startup packet and ends without waiting for an answer. Prints how many microseconds it
//! was connected.

use std::{
    env,
    io::{Error, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    process::ExitCode,
    time::Instant,
};

use guard_tests::wire;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [transport, address, user, database] = arguments.as_slice() else {
        eprintln!("usage: guard-short-client tcp|unix ADDRESS USER DATABASE");
        return ExitCode::from(2);
    };
    let started = Instant::now();
    match connect(transport, address, &wire::startup(user, database)) {
        Ok(()) => {
            println!("{}", started.elapsed().as_micros());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{address}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn connect(transport: &str, address: &str, startup: &[u8]) -> Result<(), Error> {
    match transport {
        "tcp" => TcpStream::connect(address)?.write_all(startup),
        "unix" => UnixStream::connect(address)?.write_all(startup),
        _ => Err(Error::other(format!("`{transport}` is neither tcp nor unix"))),
    }
}

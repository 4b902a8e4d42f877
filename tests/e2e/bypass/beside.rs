//! Sessions through the proxy that work on while others are stopped beside them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Result, anyhow, bail};
use guard_tests::{
    Site, site,
    wire::{self, RawClient},
};

/// Sessions that stay open, and one that comes and goes.
const STAYING: usize = 3;

/// They run until they are stopped.
pub struct Beside {
    stopping: Arc<AtomicBool>,
    sessions: Vec<JoinHandle<Result<u64>>>,
}

impl Beside {
    /// Starts them.
    pub fn start(site: &Site) -> Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let address = site.agent.proxy();
        let sessions = (0..=STAYING)
            .map(|number| {
                let stopping = Arc::clone(&stopping);
                thread::spawn(move || {
                    let mut client = RawClient::log_in(address, site::USER, site::DATABASE)?;
                    let mut statements = 0;
                    while !stopping.load(Ordering::Relaxed) {
                        if let Some(error) = wire::first_error(&client.query("SELECT count(*) FROM orders")?)
                        {
                            bail!("a proxied session got {error} after {statements} statements");
                        }
                        statements += 1;
                        if number == STAYING {
                            client = RawClient::log_in(address, site::USER, site::DATABASE)?;
                        }
                        thread::sleep(Duration::from_millis(10));
                    }
                    Ok(statements)
                })
            })
            .collect();
        Ok(Self { stopping, sessions })
    }

    /// Ends them; how many statements they have run. An error: one of them has felt something.
    pub fn stop(self) -> Result<u64> {
        self.stopping.store(true, Ordering::Relaxed);
        let mut statements = 0;
        for session in self.sessions {
            statements += session.join().map_err(|_| anyhow!("a proxied session panicked"))??;
        }
        Ok(statements)
    }
}

//! tokio-postgres, Rust's driver. See ../behaviours.py for what a program prints.

mod session;
mod show;

use std::{collections::BTreeMap, env, time::Instant};

use serde_json::{Value, json};

/// Why a behaviour gives no value.
#[derive(Debug)]
enum Failure {
    /// The driver has no such thing.
    Unsupported(&'static str),
    /// What went wrong.
    Broken(String),
}

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Broken(error.to_string())
    }
}

type Shown = Result<Value, Failure>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let asked = env::var("TEST_BEHAVIOURS").unwrap_or_default();
    for behaviour in asked.split_whitespace() {
        let started = Instant::now();
        let mut line = BTreeMap::from([("behaviour", json!(behaviour))]);
        match Box::pin(show::behaviour(behaviour)).await {
            Ok(value) => line.insert("value", value),
            Err(Failure::Unsupported(reason)) => line.insert("unsupported", json!(reason)),
            Err(Failure::Broken(error)) => line.insert("error", json!(error)),
        };
        line.insert("seconds", json!(started.elapsed().as_secs_f32()));
        println!("{}", json!(line));
    }
}

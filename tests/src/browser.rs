//! A headless Chromium, as a person would use it. Driven through node by `tests/browser/main.js`.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Where the setup puts what drives it.
pub fn modules() -> PathBuf {
    root().join("target/tools/browser/node_modules")
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The browser, under one of its names.
pub fn program() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let folders = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let mut all = folders.iter().flatten().flat_map(|folder| names.map(|name| folder.join(name)));
    all.find(|path| path.is_file())
}

/// Whether there is all that it takes.
pub fn is_there() -> bool {
    let node = Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success());
    node && program().is_some()
        && modules().join("playwright-core").is_dir()
        && modules().join("axe-core").is_dir()
}

/// One browser with one window. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Browser {
    /// Starts one.
    pub fn start() -> Result<Self> {
        let mut child = Command::new("node")
            .arg(root().join("tests/browser/main.js"))
            .arg(modules())
            .arg(program().context("there is no Chromium: `cargo xtask setup console`")?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start node")?;
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("node has no output")?);
        Ok(Self { child, commands, answers })
    }

    fn ask(&mut self, command: &Value) -> Result<Value> {
        let commands = self.commands.as_mut().context("the browser has ended")?;
        writeln!(commands, "{command}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let mut answer: Value =
            serde_json::from_str(&line).with_context(|| format!("after {command}: `{line}`"))?;
        if let Some(error) = answer.get("error") {
            bail!("{command}: {error} at {}\n{}", answer["at"], answer["page"].as_str().unwrap_or_default());
        }
        Ok(answer["ok"].take())
    }

    fn words(&mut self, command: &Value) -> Result<String> {
        Ok(self.ask(command)?.as_str().unwrap_or_default().to_owned())
    }

    /// A new window that remembers nothing.
    pub fn fresh(&mut self) -> Result<()> {
        self.ask(&json!({ "do": "fresh" })).map(drop)
    }

    /// Opens an address; gives the status of the answer.
    pub fn goto(&mut self, to: &str) -> Result<u64> {
        Ok(self.ask(&json!({ "do": "goto", "to": to }))?.as_u64().unwrap_or_default())
    }

    /// Writes into a field.
    pub fn fill(&mut self, at: &str, text: &str) -> Result<()> {
        self.ask(&json!({ "do": "fill", "at": at, "text": text })).map(drop)
    }

    /// Clicks on something, and waits for the page that comes of it.
    pub fn click(&mut self, at: &str) -> Result<()> {
        self.ask(&json!({ "do": "click", "at": at })).map(drop)
    }

    /// Ticks a box.
    pub fn check(&mut self, at: &str) -> Result<()> {
        self.ask(&json!({ "do": "check", "at": at })).map(drop)
    }

    /// Presses a key.
    pub fn press(&mut self, key: &str) -> Result<()> {
        self.ask(&json!({ "do": "press", "key": key })).map(drop)
    }

    /// Waits until something is seen.
    pub fn see(&mut self, at: &str) -> Result<()> {
        self.ask(&json!({ "do": "see", "at": at })).map(drop)
    }

    /// The words of something.
    pub fn text(&mut self, at: &str) -> Result<String> {
        self.words(&json!({ "do": "text", "at": at }))
    }

    /// How many there are of something.
    pub fn count(&mut self, at: &str) -> Result<u64> {
        Ok(self.ask(&json!({ "do": "count", "at": at }))?.as_u64().unwrap_or_default())
    }

    /// Where the window is.
    pub fn address(&mut self) -> Result<String> {
        self.words(&json!({ "do": "address" }))
    }

    /// The words of what has the keyboard.
    pub fn focused(&mut self) -> Result<String> {
        self.words(&json!({ "do": "focused" }))
    }

    /// Changes the window's size.
    pub fn size(&mut self, width: u32, height: u32) -> Result<()> {
        self.ask(&json!({ "do": "size", "width": width, "height": height })).map(drop)
    }

    /// `light` or `dark`.
    pub fn scheme(&mut self, scheme: &str) -> Result<()> {
        self.ask(&json!({ "do": "scheme", "scheme": scheme })).map(drop)
    }

    /// By how many pixels the page is wider than the window.
    pub fn too_wide(&mut self) -> Result<i64> {
        Ok(self.ask(&json!({ "do": "wide" }))?.as_i64().unwrap_or_default())
    }

    /// A picture of the window, or of the whole page.
    pub fn picture(&mut self, file: &Path, whole: bool) -> Result<()> {
        self.ask(&json!({ "do": "picture", "file": file, "whole": whole })).map(drop)
    }

    /// Clicks on something and gives the file that comes of it.
    pub fn download(&mut self, at: &str) -> Result<String> {
        self.words(&json!({ "do": "download", "at": at }))
    }

    /// What makes the page hard to use for some people, by axe.
    pub fn barriers(&mut self) -> Result<Vec<String>> {
        self.list(&json!({ "do": "axe" }))
    }

    /// What went wrong in pages since the last time: errors of scripts, and what the page's policy refused.
    pub fn errors(&mut self) -> Result<Vec<String>> {
        self.list(&json!({ "do": "errors" }))
    }

    fn list(&mut self, command: &Value) -> Result<Vec<String>> {
        let found = self.ask(command)?;
        let words = found.as_array().into_iter().flatten().filter_map(Value::as_str);
        Ok(words.map(str::to_owned).collect())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // At the end of its input it closes the browser by itself.
        drop(self.commands.take());
        for _ in 0..100 {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

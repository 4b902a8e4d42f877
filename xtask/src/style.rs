//! Colours, on a terminal only.

use std::{
    env,
    io::{self, IsTerminal},
};

/// Whether standard output is a terminal that wants colours.
pub fn colours() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none()
}

/// Something that went well.
pub fn good(text: &str) -> String {
    paint("32", text)
}

/// Something that went wrong.
pub fn bad(text: &str) -> String {
    paint("1;31", text)
}

/// A headline.
pub fn strong(text: &str) -> String {
    paint("1", text)
}

/// Something beside the point.
pub fn faint(text: &str) -> String {
    paint("2", text)
}

fn paint(code: &str, text: &str) -> String {
    if colours() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

//! The console's own files. Their addresses change with their contents, so that browsers keep them for good.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    http::header,
    response::{IntoResponse, Response},
};

use crate::{http::fault::Fault, people::secret};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("console.js");
const ICON: &str = include_str!("icon.svg");

fn mark(text: &str) -> String {
    hex::encode(&secret::hash(text)[..6])
}

/// The style sheet's address.
pub static STYLE_ADDRESS: LazyLock<String> = LazyLock::new(|| format!("/static/{}.css", mark(STYLE)));
/// The script's address.
pub static SCRIPT_ADDRESS: LazyLock<String> = LazyLock::new(|| format!("/static/{}.js", mark(SCRIPT)));
/// The icon's address.
pub static ICON_ADDRESS: LazyLock<String> = LazyLock::new(|| format!("/static/{}.svg", mark(ICON)));

/// One of them.
pub async fn file(Path(name): Path<String>) -> Result<Response, Fault> {
    let is = |address: &str| address.rsplit('/').next() == Some(name.as_str());
    let (kind, text) = if is(&STYLE_ADDRESS) {
        ("text/css; charset=utf-8", STYLE)
    } else if is(&SCRIPT_ADDRESS) {
        ("text/javascript; charset=utf-8", SCRIPT)
    } else if is(&ICON_ADDRESS) {
        ("image/svg+xml", ICON)
    } else {
        return Err(Fault::NotFound("such file"));
    };
    let headers =
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    Ok((headers, text).into_response())
}

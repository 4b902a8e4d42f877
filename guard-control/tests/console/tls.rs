//! The certificate that the console makes itself, and cookies over it.

use std::os::unix::fs::PermissionsExt;

use axum::http::Request;
use guard_control::http::{config::File, outward::Outward};

use super::site::{PASSWORD, Site};

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_there_without_being_asked_for_and_cookies_stay_within_it() {
    let site = Site::with(File::default(), false).await;
    site.add("ann", "viewer", &[]).await;
    let certificate = site.dir.path().join("console.crt");
    let outward = Outward::new(Some(&certificate)).unwrap();
    let address = format!("https://localhost:{}/sign-in", site.console.port());
    let request = Request::post(&address)
        .body(format!("name=ann&password={}", PASSWORD.replace(' ', "+")).into_bytes());
    let answer = outward.send(request.unwrap()).await.unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(
        cookie.starts_with("__Host-guard=") && cookie.contains("; Secure") && cookie.contains("; HttpOnly"),
        "{cookie}"
    );
    let mode = std::fs::metadata(site.dir.path().join("console.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let stranger = Outward::new(None).unwrap();
    let request = Request::get(&address).body(Vec::new()).unwrap();
    assert!(
        stranger.send(request).await.is_err(),
        "whoever does not know the certificate does not believe it"
    );
    site.stop().await;
}

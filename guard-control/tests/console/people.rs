//! Signing in, forms, headers, limits.

use axum::http::Method;

use super::{
    browser::Browser,
    site::{PASSWORD, Site},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_admin_chooses_a_password_before_anything_else() {
    let site = Site::start().await;
    let first = site.bootstrap().await;
    let mut browser = Browser::new(site.console);
    assert_eq!(browser.get("/agents").await.location(), "/sign-in?to=%2Fagents");
    assert_eq!(browser.sign_in(Site::first_admin(), &first).await.status, 303);
    for path in ["/", "/people", "/export", "/approvals"] {
        assert_eq!(browser.get(path).await.location(), "/account", "{path}");
    }
    let old = browser.cookies.clone();
    let fields = [("old", first.as_str()), ("new", PASSWORD), ("again", PASSWORD)];
    assert_eq!(browser.post("/account/password", &fields).await.location(), "/");
    assert_eq!(browser.get("/").await.status, 200);
    assert_ne!(browser.cookies, old, "the session is a new one");
    let mut other = Browser::new(site.console);
    other.cookies = old;
    assert_eq!(other.get("/").await.location(), "/sign-in", "and the old one is over");
    let actions = site.actions().await;
    let done: Vec<_> = actions.iter().map(|action| action.action.as_str()).collect();
    assert_eq!(done, ["password-change", "sign-in"]);
    let all = format!("{actions:?}");
    assert!(!all.contains(&first) && !all.contains(PASSWORD), "{all}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_from_elsewhere_does_nothing() {
    let site = Site::start().await;
    let mut browser = site.signed_in("admin").await;
    let fields = [("name", "mallory"), ("role", "admin")];
    assert_eq!(browser.post_raw("/people", &fields, &[]).await.status, 403, "without the token");
    let guessed = [("form", "AAAA"), ("name", "mallory"), ("role", "admin")];
    assert_eq!(browser.post_raw("/people", &guessed, &[]).await.status, 403, "with a wrong one");
    let page = browser.get("/people").await.body;
    let token = page.split("name=\"form\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let right = [("form", token.as_str()), ("name", "mallory"), ("role", "admin")];
    for header in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example"), ("origin", "null")] {
        assert_eq!(browser.post_raw("/people", &right, &[header]).await.status, 403, "{header:?}");
    }
    assert!(site.people.with(|book| book.named("mallory")).await.is_err());
    // The API takes a cookie for reading alone.
    let body = "{\"approve\": true}";
    let answer = browser.send(Method::POST, "/api/v1/approvals/a/b/decision", &[], body).await;
    assert_eq!(answer.status, 403);
    assert_eq!(browser.post("/people", &fields).await.status, 200, "from here it is taken");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_the_headers_and_nothing_inline() {
    let site = Site::start().await;
    let mut browser = site.signed_in("admin").await;
    let paths =
        ["/", "/live", "/search", "/people", "/account", "/nowhere", "/api/v1/me", "/healthz", "/approvals"];
    for path in paths {
        let answer = browser.get(path).await;
        let header = |name: &str| {
            answer.headers.get(name).unwrap_or_else(|| panic!("{name} on {path}")).to_str().unwrap()
        };
        assert!(header("content-security-policy").contains("default-src 'none'"), "{path}");
        assert!(!header("content-security-policy").contains("unsafe"));
        assert_eq!((header("x-content-type-options"), header("x-frame-options")), ("nosniff", "DENY"));
        assert_eq!(header("cache-control"), "no-store");
        let body = answer.body.replace("<script src=\"/static/", "");
        for inline in ["<script", " style=", "onclick", "<style", "javascript:"] {
            assert!(!body.contains(inline), "{inline} on {path}");
        }
    }
    let page = browser.get("/").await.body;
    let style = page.split("href=\"/static/").nth(2).unwrap().split('"').next().unwrap();
    let answer = browser.get(&format!("/static/{style}")).await;
    assert!(answer.status == 200 && answer.headers["cache-control"].to_str().unwrap().contains("immutable"));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_down_and_recorded() {
    let site = Site::start().await;
    site.add("ann", "viewer", &[]).await;
    let mut browser = Browser::new(site.console);
    let mut seen = Vec::new();
    for _ in 0..16 {
        seen.push(browser.sign_in("ann", "wrong").await.status);
    }
    assert_eq!(seen[0], 401);
    assert!(seen.contains(&429), "{seen:?}");
    let actions = site.actions().await;
    assert!(actions.iter().any(|one| one.action == "sign-in" && one.person == "ann" && one.outcome == 2));
    assert!(actions[0].detail.contains("Too many wrong passwords"), "{:?}", actions[0]);
    // Bodies are bounded as well.
    let long = "x".repeat(70_000);
    assert_eq!(browser.post_raw("/search/save", &[("name", &long)], &[]).await.status, 413);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_ends_the_session_and_an_admin_ends_all() {
    let site = Site::start().await;
    site.add("root", "admin", &[]).await;
    let mut ann = site.signed_in("viewer").await;
    let cookies = ann.cookies.clone();
    assert_eq!(ann.post("/sign-out", &[]).await.location(), "/sign-in");
    ann.cookies = cookies;
    assert_eq!(ann.get("/").await.status, 303);
    let mut ann = site.browser_of("p-viewer").await;
    let mut root = site.browser_of("root").await;
    let id = site.people.with(|book| book.named("p-viewer")).await.unwrap().id;
    let answer = root.post(&format!("/people/{id}"), &[("role", "viewer"), ("disabled", "1")]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(ann.get("/").await.status, 303);
    assert_eq!(ann.sign_in("p-viewer", PASSWORD).await.status, 401);
    site.stop().await;
}

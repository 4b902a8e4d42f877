//! Who may see and do what; what somebody may not is recorded.

use super::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn each_role_sees_and_does_what_is_its_own() {
    let site = Site::start().await;
    // For viewer, approver, auditor, admin.
    let table: [(&str, [u16; 4]); 12] = [
        ("/", [200; 4]),
        ("/live", [200; 4]),
        ("/round-the-proxy", [200; 4]),
        ("/search", [200; 4]),
        ("/approvals", [200; 4]),
        ("/agents", [200; 4]),
        ("/policies", [200; 4]),
        ("/verification", [200; 4]),
        ("/export?format=csv", [403, 403, 200, 200]),
        ("/actions", [403, 403, 200, 200]),
        ("/people", [403, 403, 403, 200]),
        ("/tokens", [403, 403, 403, 200]),
    ];
    for (at, role) in ["viewer", "approver", "auditor", "admin"].into_iter().enumerate() {
        let mut browser = site.signed_in(role).await;
        for (path, wanted) in table {
            assert_eq!(browser.get(path).await.status, wanted[at], "{path} as {role}");
        }
        let added = browser.post("/people", &[("name", &format!("by-{role}")), ("role", "viewer")]).await;
        assert_eq!(added.status, if role == "admin" { 200 } else { 403 }, "adding as {role}");
        let decided = browser.post("/approvals/a/b", &[("word", "approve")]).await;
        assert_eq!(decided.status, if role == "approver" { 404 } else { 403 }, "deciding as {role}");
        // Nobody gives themselves more by a token.
        let token = browser.post("/account/tokens", &[("name", "t"), ("role", "admin"), ("days", "5")]).await;
        assert_eq!(token.status, if role == "admin" { 200 } else { 400 }, "a token as {role}");
    }
    let actions = site.actions().await;
    let refused = |person: &str, action: &str| {
        actions.iter().any(|one| one.person == person && one.action == action && one.outcome == 2)
    };
    assert!(
        refused("p-viewer", "export") && refused("p-viewer", "person-add") && refused("p-viewer", "approve")
    );
    assert!(refused("p-auditor", "person-add") && !refused("p-admin", "person-add"));
    assert!(
        actions.iter().any(|one| one.person == "p-auditor" && one.action == "export" && one.outcome == 1)
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_taken_away_is_gone_at_once() {
    let site = Site::start().await;
    site.add("root", "admin", &[]).await;
    let mut browser = site.signed_in("auditor").await;
    assert_eq!(browser.get("/actions").await.status, 200);
    site.people
        .with(|book| {
            let person = book.named("p-auditor")?;
            book.change(person.id, &"viewer".parse().unwrap(), &[], false)
        })
        .await
        .unwrap();
    assert_eq!(browser.get("/actions").await.status, 403);
    site.stop().await;
}

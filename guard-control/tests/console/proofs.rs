//! Proofs from the verification page: whoever has the key alone can check what is downloaded.

use guard_common::audit::proof::{Consistency, Inclusion, TreeHead};
use guard_control::proof;

use super::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_proofs_are_downloaded_and_hold() {
    let site = Site::start().await;
    let (mut chain, mut stream) = site.agent_with(Vec::new()).await;
    let mut auditor = site.signed_in("auditor").await;
    assert_eq!(auditor.get("/verification/head").await.status, 404);
    stream.store(chain.next(20)).await;
    let (store, key) = (&site.app.fleet.store, &site.app.key);
    proof::gather(store, key).await.unwrap();
    let page = auditor.get("/verification").await.body;
    assert!(page.contains("The tree over all records") && page.contains(">holds<"), "{page}");

    let head = auditor.get("/verification/head").await;
    assert!(head.headers["content-disposition"].to_str().unwrap().contains("guard-head.json"));
    let kept = head.body;
    serde_json::from_str::<TreeHead>(&kept).unwrap().verify(&key.public()).unwrap();
    let id = chain.id.clone();
    let proof_of = |sequence: u64| format!("/verification/inclusion?agent={id}&sequence={sequence}");
    let proved = auditor.get(&proof_of(7)).await;
    let inclusion: Inclusion = serde_json::from_str(&proved.body).unwrap();
    inclusion.verify(&key.public()).unwrap();
    assert_eq!(inclusion.record.sequence, 7);
    for (path, status) in [
        (proof_of(21), 404),
        (format!("/verification/inclusion?agent={}&sequence=x", chain.id), 400),
        ("/verification/inclusion?agent=x&sequence=1".to_owned(), 404),
    ] {
        assert_eq!(auditor.get(&path).await.status, status, "{path}");
    }
    let mut viewer = site.signed_in("viewer").await;
    assert_eq!(viewer.get(&proof_of(7)).await.status, 403, "a proof holds the record");

    stream.store(chain.next(5)).await;
    assert_eq!(auditor.get(&proof_of(23)).await.status, 409, "it is not in the tree yet");
    proof::gather(store, key).await.unwrap();
    let grown = viewer.post("/verification/consistency", &[("head", &kept)]).await;
    assert_eq!(grown.status, 200, "{}", grown.body);
    let grown: Consistency = serde_json::from_str(&grown.body).unwrap();
    grown.verify(&key.public()).unwrap();
    assert!(grown.from.size < grown.to.size);
    let forged = kept.replace("\"at\": ", "\"at\": 1");
    for wrong in ["", "{}", "<script>", &forged] {
        let answer = viewer.post("/verification/consistency", &[("head", wrong)]).await;
        assert_eq!(answer.status, 400, "{wrong}");
    }
    let actions = site.actions().await;
    assert!(
        actions.iter().any(|one| one.action == "prove" && one.subject.contains("record 7")),
        "{actions:?}"
    );
    site.stop().await;
}

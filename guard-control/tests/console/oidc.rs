//! Signing in by the word of an identity provider: a small one stands in, which can also lie.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Form, Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use guard_control::http::config::File;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use guard_tests::{Postgres, skip};

use super::{browser::Browser, site::Site};

struct Provider {
    issuer: String,
    key: EcdsaKeyPair,
    other_key: EcdsaKeyPair,
    /// For each code: the challenge, the claims, and whether another key signs them.
    codes: Mutex<HashMap<String, (String, Value, bool)>>,
}

type Shared = State<Arc<Provider>>;

fn key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap()
}

impl Provider {
    async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let provider = Arc::new(Self { issuer, key: key(), other_key: key(), codes: Mutex::default() });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(configuration))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        provider
    }

    /// What somebody does who signs in there: the way back.
    fn consent(&self, address: &str, change: impl FnOnce(&mut Value), forged: bool) -> String {
        let address = url::Url::parse(address).unwrap();
        let asked: HashMap<_, _> = address.query_pairs().into_owned().collect();
        assert_eq!((asked["client_id"].as_str(), asked["response_type"].as_str()), ("guard", "code"));
        assert!(asked["scope"].contains("openid") && asked["code_challenge_method"] == "S256");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({
            "iss": self.issuer, "aud": "guard", "sub": "4711", "iat": now, "exp": now + 300,
            "nonce": asked["nonce"], "preferred_username": "ann", "name": "Ann Example",
            "groups": ["guard-admins", "dba"],
        });
        change(&mut claims);
        let code = format!("code-{}", self.codes.lock().unwrap().len());
        self.codes.lock().unwrap().insert(code.clone(), (asked["code_challenge"].clone(), claims, forged));
        let back = url::Url::parse(&asked["redirect_uri"]).unwrap();
        format!("{}?code={code}&state={}", back.path(), asked["state"])
    }
}

async fn configuration(State(provider): Shared) -> Json<Value> {
    let at = |path: &str| format!("{}{path}", provider.issuer);
    Json(json!({
        "issuer": provider.issuer, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
        "jwks_uri": at("/keys"), "response_types_supported": ["code"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }))
}

async fn keys(State(provider): Shared) -> Json<Value> {
    let point = provider.key.public_key().as_ref();
    let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
    Json(json!({ "keys": [{
        "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "one", "x": part(1..33), "y": part(33..65),
    }] }))
}

async fn token(
    State(provider): Shared,
    Form(form): Form<HashMap<String, String>>,
) -> Result<Json<Value>, StatusCode> {
    let (challenge, claims, forged) =
        provider.codes.lock().unwrap().remove(&form["code"]).ok_or(StatusCode::BAD_REQUEST)?;
    let verifier = URL_SAFE_NO_PAD.encode(Sha256::digest(form["code_verifier"].as_bytes()));
    if verifier != challenge {
        return Err(StatusCode::BAD_REQUEST);
    }
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&json!({ "alg": "ES256", "kid": "one" })), encode(&claims));
    let key = if forged { &provider.other_key } else { &provider.key };
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()));
    Ok(Json(json!({ "access_token": "a", "token_type": "Bearer", "expires_in": 300, "id_token": token })))
}

async fn site(provider: &Provider) -> Site {
    Site::with(settings(provider), true).await
}

fn settings(provider: &Provider) -> File {
    let settings = format!(
        "url = \"http://guard.example.org\"\n[oidc]\nissuer = \"{}\"\nclient_id = \"guard\"\nlabel = \"With the company\"\n\
         [oidc.roles]\nadmin = [\"guard-admins\"]\napprover = [\"dba\"]\nviewer = [\"staff\"]\n",
        provider.issuer
    );
    toml::from_str(&settings).unwrap()
}

async fn leave(console: SocketAddr, wanted: &str) -> (Browser, String) {
    let mut browser = Browser::new(console);
    let answer = browser.get(&format!("/sign-in/elsewhere?to={wanted}")).await;
    assert_eq!(answer.status, 303, "{}", answer.body);
    let location = answer.location().to_owned();
    (browser, location)
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_there_are_roles_here() {
    let provider = Provider::start().await;
    let site = site(&provider).await;
    let mut browser = Browser::new(site.console);
    assert!(browser.get("/sign-in").await.body.contains("With the company"));
    let (mut browser, address) = leave(site.console, "/people").await;
    let back = provider.consent(&address, |_| {}, false);
    assert_eq!(browser.get(&back).await.location(), "/people");
    let page = browser.get("/people").await;
    assert!(page.status == 200 && page.body.contains("Ann Example"), "{}", page.body);
    let ann = site.people.with(|book| book.named("ann")).await.unwrap();
    assert_eq!(ann.roles.to_string(), "approver admin");
    assert_eq!(ann.groups, ["guard-admins", "dba"]);
    let actions = site.actions().await;
    assert!(actions.iter().any(|one| one.action == "sign-in" && one.by == "oidc" && one.person == "ann"));
    // With fewer groups the next time, less.
    let (mut browser, address) = leave(site.console, "/").await;
    let back = provider.consent(&address, |claims| claims["groups"] = json!(["staff"]), false);
    browser.get(&back).await;
    assert_eq!(browser.get("/people").await.status, 403);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_is_not_believed() {
    let provider = Provider::start().await;
    let site = site(&provider).await;
    type Lie = (&'static str, fn(&mut Value), bool);
    let lies: [Lie; 7] = [
        ("signed by another key", |_| {}, true),
        ("for another session", |claims| claims["nonce"] = json!("x"), false),
        ("for another program", |claims| claims["aud"] = json!("other"), false),
        ("by another issuer", |claims| claims["iss"] = json!("http://evil.example"), false),
        ("long over", |claims| claims["exp"] = json!(1_000), false),
        ("without a name", |claims| claims["preferred_username"] = Value::Null, false),
        ("without a role", |claims| claims["groups"] = json!(["strangers"]), false),
    ];
    for (lie, change, forged) in lies {
        let (mut browser, address) = leave(site.console, "/").await;
        let answer = browser.get(&provider.consent(&address, change, forged)).await;
        assert_eq!(answer.status, 502, "{lie}: {}", answer.body);
        assert_eq!(browser.get("/").await.status, 303, "{lie}: nobody has signed in");
    }
    let refused = site.actions().await.iter().filter(|one| one.outcome == 2 && one.by == "oidc").count();
    assert_eq!(refused, lies.len());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_browser_that_left_comes_back_and_once() {
    let provider = Provider::start().await;
    let site = site(&provider).await;
    let (mut browser, address) = leave(site.console, "/").await;
    let back = provider.consent(&address, |_| {}, false);
    let mut victim = Browser::new(site.console);
    assert_eq!(victim.get(&back).await.status, 502, "a link of somebody else's signs nobody in");
    assert_eq!(browser.get(&back).await.status, 303);
    let cookies = browser.cookies.clone();
    assert_eq!(browser.get(&back).await.status, 502, "a second time");
    assert_eq!(browser.cookies, cookies);
    // A name of somebody here is not taken over.
    site.add("eve", "admin", &[]).await;
    let (mut browser, address) = leave(site.console, "/").await;
    let stolen = |claims: &mut Value| {
        claims["sub"] = json!("666");
        claims["preferred_username"] = json!("eve");
    };
    assert_eq!(browser.get(&provider.consent(&address, stolen, false)).await.status, 502);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_left_one_replica_may_come_back_to_another_and_once() {
    if skip::without(&[skip::Need::Postgres]) {
        return;
    }
    let provider = Provider::start().await;
    let postgres = Postgres::start().unwrap();
    let one = Site::replica_with(&postgres, settings(&provider)).await;
    let other = Site::replica_with(&postgres, settings(&provider)).await;
    let (mut browser, address) = leave(one.console, "/people").await;
    let back = provider.consent(&address, |_| {}, false);
    browser.address = other.console;
    let answer = browser.get(&back).await;
    assert_eq!((answer.status, answer.location()), (303, "/people"), "{}", answer.body);
    assert!(browser.get("/people").await.body.contains("Ann Example"));
    // Neither of them takes the state a second time, and no other browser comes back with it.
    for console in [one.console, other.console] {
        browser.address = console;
        assert_eq!(browser.get(&back).await.status, 502);
        assert_eq!(Browser::new(console).get(&back).await.status, 502);
    }
    one.stop().await;
    other.stop().await;
}

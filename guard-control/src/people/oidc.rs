//! Signing in by an identity provider's word: OpenID Connect, authorization code with PKCE.
//!
//! A browser leaves with a state of ours and comes back with a code; a verified name, groups and the roles that follow
//! leave. Tokens of the provider are looked at once and kept nowhere.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use openidconnect::{
    AdditionalClaims, AuthorizationCode, Client, ClientId, ClientSecret, CsrfToken, EmptyExtraTokenFields,
    HttpRequest, HttpResponse, IdTokenFields, IssuerUrl, Nonce, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, Scope, StandardErrorResponse, StandardTokenResponse,
    core::{
        CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreErrorResponseType, CoreGenderClaim,
        CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreProviderMetadata,
        CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;

use super::{People, PeopleError, Role, Roles, journeys::derived, secret};
use crate::http::{
    HttpError,
    config::{self, Oidc as Settings},
    outward::{Outward, OutwardError},
};

/// Threads for talking to the provider.
const THREADS: usize = 32;
/// How long the provider's keys and addresses are taken as known.
const KNOWN: Duration = Duration::from_secs(3_600);
/// Groups that are taken, and the longest name of one.
const MAX_GROUPS: usize = 64;
const MAX_GROUP: usize = 128;

/// Claims beyond the standard ones.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct More(BTreeMap<String, Value>);
impl AdditionalClaims for More {}

type Fields = IdTokenFields<
    More,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;
type Tokens = StandardTokenResponse<Fields, CoreTokenType>;
type Provider = Client<
    More,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    Tokens,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    openidconnect::EndpointSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointMaybeSet,
    openidconnect::EndpointMaybeSet,
>;

/// Somebody as the provider knows them.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// Issuer and subject: who it is for good.
    pub subject: String,
    /// What they are called here.
    pub name: String,
    /// What people call them.
    pub full_name: String,
    /// For which they decide.
    pub groups: Vec<String>,
    /// What follows from these.
    pub roles: Roles,
}

/// An identity provider; cheap to clone.
#[derive(Clone)]
pub struct Oidc(Arc<Room>);

struct Room {
    settings: Settings,
    secret: Option<String>,
    back: String,
    outward: Outward,
    metadata: tokio::sync::Mutex<Option<(Instant, CoreProviderMetadata)>>,
    /// Where it is kept who is on their way: any replica may take them back.
    people: People,
    /// All replicas have the same.
    key: Vec<u8>,
    /// A provider that does not answer holds up no more threads than these.
    threads: Semaphore,
}

impl Oidc {
    /// As the settings say; people come back to `url`, to whatever replica has the same people and `key`.
    pub fn new(settings: &Settings, url: &Url, people: People, key: Vec<u8>) -> Result<Self, HttpError> {
        let bad = |problem: String| HttpError::Settings { path: "oidc".to_owned(), problem };
        let secret = settings.client_secret_file.as_deref().map(config::secret).transpose()?;
        let back = url.join("sign-in/back").map_err(|error| bad(error.to_string()))?.to_string();
        let outward = Outward::new(settings.ca.as_deref()).map_err(|error| bad(error.to_string()))?;
        Ok(Self(Arc::new(Room {
            settings: settings.clone(),
            secret,
            back,
            outward,
            metadata: tokio::sync::Mutex::default(),
            people,
            key,
            threads: Semaphore::new(THREADS),
        })))
    }

    /// What the button says.
    pub fn label(&self) -> &str {
        &self.0.settings.label
    }

    /// Where to send a browser that wants to `wanted`, and the state that it has to come back with.
    pub async fn begin(&self, wanted: &str) -> Result<(String, String), String> {
        let _thread = self.thread()?;
        let (room, wanted) = (self.0.clone(), wanted.to_owned());
        apart(async move || room.begin(&wanted).await).await
    }

    /// Somebody is back: who it is, and where they wanted to. A state counts once.
    pub async fn finish(&self, state: &str, code: String) -> Result<(Claimed, String), String> {
        let _thread = self.thread()?;
        let (room, state) = (self.0.clone(), state.to_owned());
        apart(async move || room.finish(&state, code).await).await
    }

    fn thread(&self) -> Result<SemaphorePermit<'_>, String> {
        let busy = |_| "too many people sign in at once: try again in a moment".to_owned();
        self.0.threads.try_acquire().map_err(busy)
    }
}

/// On a thread of its own: verifying signatures takes its time, and the library's futures stay on one thread.
async fn apart<T: Send + 'static>(
    work: impl AsyncFnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let runtime = tokio::runtime::Handle::current();
    let done = tokio::task::spawn_blocking(move || runtime.block_on(work()));
    done.await.map_err(|_| "the control plane is stopping".to_owned())?
}

impl Room {
    async fn begin(&self, wanted: &str) -> Result<(String, String), String> {
        let provider = self.provider().await?;
        let state = secret::random().map_err(unkept)?;
        let (nonce, verifier) = self.proofs(&state);
        let token = CsrfToken::new(state.clone());
        let mut request =
            provider.authorize_url(CoreAuthenticationFlow::AuthorizationCode, || token, || nonce);
        for scope in &self.settings.scopes {
            request = request.add_scope(Scope::new(scope.clone()));
        }
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
        let (address, ..) = request.set_pkce_challenge(challenge).url();
        let (leaves, wanted) = (state.clone(), wanted.to_owned());
        match self.people.with(move |book| book.set_out(&leaves, &wanted)).await.map_err(unkept)? {
            true => Ok((address.to_string(), state)),
            false => Err("too many people sign in at once: try again in a moment".to_owned()),
        }
    }

    /// What the provider has to repeat, and what it has to be shown, of somebody who carries this state.
    fn proofs(&self, state: &str) -> (Nonce, PkceCodeVerifier) {
        let of = |purpose| derived(&self.key, purpose, state);
        (Nonce::new(of("nonce")), PkceCodeVerifier::new(of("verifier")))
    }

    async fn finish(&self, state: &str, code: String) -> Result<(Claimed, String), String> {
        let back = state.to_owned();
        let wanted = self.people.with(move |book| book.come_back(&back)).await.map_err(unkept)?;
        let wanted = wanted.ok_or("that took too long, or was used before: sign in again")?;
        let (nonce, verifier) = self.proofs(state);
        let provider = self.provider().await?;
        let tokens: Tokens = provider
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|error| error.to_string())?
            .set_pkce_verifier(verifier)
            .request_async(&|request| self.send(request))
            .await
            .map_err(|error| told("the code was not taken", &error))?;
        use openidconnect::TokenResponse;
        let token = tokens.id_token().ok_or("the provider gave no ID token")?;
        let claims = token
            .claims(&provider.id_token_verifier(), &nonce)
            .map_err(|error| told("its ID token does not hold", &error))?;
        let full_name = claims.name().and_then(|name| name.get(None)).map(|name| name.to_string());
        let name = match self.settings.name_claim.as_str() {
            "preferred_username" => claims.preferred_username().map(|name| name.to_string()),
            "sub" => Some(claims.subject().to_string()),
            // Who has not shown that an address is theirs could take somebody's name by it.
            "email" if claims.email_verified() == Some(true) => claims.email().map(|mail| mail.to_string()),
            "email" => return Err("the mail address is not verified".to_owned()),
            other => claims.additional_claims().0.get(other).and_then(Value::as_str).map(str::to_owned),
        };
        let name = name.ok_or_else(|| format!("its ID token has no claim `{}`", self.settings.name_claim))?;
        let groups = groups(claims.additional_claims().0.get(&self.settings.groups_claim));
        let roles = roles(&self.settings.roles, &groups);
        let subject = format!("{}|{}", claims.issuer().as_str(), claims.subject().as_str());
        Ok((Claimed { subject, name, full_name: full_name.unwrap_or_default(), groups, roles }, wanted))
    }

    async fn provider(&self) -> Result<Provider, String> {
        let mut known = self.metadata.lock().await;
        let metadata = match &*known {
            Some((at, metadata)) if at.elapsed() < KNOWN => metadata.clone(),
            _ => {
                let issuer =
                    IssuerUrl::new(self.settings.issuer.clone()).map_err(|error| error.to_string())?;
                let metadata = CoreProviderMetadata::discover_async(issuer, &|request| self.send(request))
                    .await
                    .map_err(|error| told("the provider cannot be asked", &error))?;
                *known = Some((Instant::now(), metadata.clone()));
                metadata
            }
        };
        drop(known);
        let id = ClientId::new(self.settings.client_id.clone());
        let back = RedirectUrl::new(self.back.clone()).map_err(|error| error.to_string())?;
        let secret = self.secret.clone().map(ClientSecret::new);
        Ok(Provider::from_provider_metadata(metadata, id, secret).set_redirect_uri(back))
    }

    fn send(
        &self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, OutwardError>> + Send>> {
        let outward = self.outward.clone();
        Box::pin(async move { outward.send(request).await })
    }
}

/// The book of people cannot be read or written: the log says why.
fn unkept(error: PeopleError) -> String {
    tracing::error!(%error, "nobody can sign in elsewhere");
    "the control plane cannot look that up: its log says why".to_owned()
}

/// An error with its causes, for the log and the page: the provider's words, never a token.
fn told(what: &str, error: &dyn std::error::Error) -> String {
    let mut text = format!("{what}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    tracing::warn!(problem = text, "signing in elsewhere has failed");
    text
}

/// A claim's names: a list, or one of them.
fn groups(claim: Option<&Value>) -> Vec<String> {
    let all = match claim {
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(one)) => vec![one.as_str()],
        _ => Vec::new(),
    };
    let good =
        |group: &&str| !group.is_empty() && group.len() <= MAX_GROUP && !group.chars().any(char::is_control);
    all.into_iter().filter(good).take(MAX_GROUPS).map(str::to_owned).collect()
}

/// What follows from groups.
fn roles(table: &BTreeMap<String, Vec<String>>, groups: &[String]) -> Roles {
    let held = table.iter().filter(|(_, members)| members.iter().any(|group| groups.contains(group)));
    held.filter_map(|(role, _)| role.parse::<Role>().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_follow_from_groups_and_nothing_from_none() {
        let table: BTreeMap<String, Vec<String>> = [
            ("admin".to_owned(), vec!["guard-admins".to_owned()]),
            ("viewer".to_owned(), vec!["staff".to_owned(), "ops".to_owned()]),
        ]
        .into();
        let given = |names: &[&str]| {
            let groups: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            roles(&table, &groups).to_string()
        };
        assert_eq!(given(&["ops", "guard-admins"]), "viewer admin");
        assert_eq!(given(&["Guard-Admins", "dba"]), "");
        assert_eq!(given(&[]), "");
    }

    #[test]
    fn groups_are_bounded_whatever_the_claim_is() {
        assert_eq!(groups(Some(&serde_json::json!(["a", 7, "", "b\n", "c"]))), ["a", "c"]);
        assert_eq!(groups(Some(&serde_json::json!("solo"))), ["solo"]);
        assert!(groups(Some(&serde_json::json!({"a": 1}))).is_empty() && groups(None).is_empty());
        let many: Vec<_> = (0..500).map(|n| format!("g{n}")).collect();
        assert_eq!(groups(Some(&serde_json::json!(many))).len(), MAX_GROUPS);
    }
}

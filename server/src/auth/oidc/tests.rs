//! Tokens of a provider that the test serves over real TLS.

use super::*;
use crate::http::Body;
use crate::server::ApiServer;
use crate::tls::{CertificateAuthority, Server};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use bytes::Bytes;
use kubewright_core::{Clock, ManualClock, SystemClock};
use kubewright_store::MemoryStore;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_util::sync::CancellationToken;

/// A provider with changeable keys, which counts how often it is asked.
struct Provider {
    url: String,
    authorities: String,
    keys: Arc<Mutex<Vec<Value>>>,
    asked: Arc<AtomicUsize>,
    stop: CancellationToken,
}

async fn provider() -> Provider {
    let (keys, asked) = (Arc::new(Mutex::new(Vec::new())), Arc::<AtomicUsize>::default());
    let ca = CertificateAuthority::generate(&SystemClock).unwrap();
    let serving = ca.issue_server(&["localhost".to_owned()], &SystemClock).unwrap();
    let config = ca.server_config(&serving).unwrap();
    let socket = Server::bind("127.0.0.1:0".parse().unwrap(), config).await.unwrap();
    let url = format!("https://localhost:{}/realm", socket.local_addr().port());
    let (served, counted, base) = (keys.clone(), asked.clone(), url.clone());
    let handler = move |request: hyper::Request<hyper::body::Incoming>| {
        let document = match request.uri().path() {
            "/realm/.well-known/openid-configuration" => {
                counted.fetch_add(1, Ordering::SeqCst);
                json!({"issuer": base, "jwks_uri": format!("{base}/keys")})
            }
            "/realm/keys" => json!({"keys": *served.lock()}),
            _ => Value::Null,
        };
        std::future::ready(Ok::<_, std::convert::Infallible>(hyper::Response::new(Body::full(Bytes::from(
            document.to_string(),
        )))))
    };
    let stop = CancellationToken::new();
    tokio::spawn(socket.serve(tower::service_fn(handler), stop.clone()));
    Provider { url, authorities: ca.certificate_pem().to_owned(), keys, asked, stop }
}

struct Ec(EcdsaKeyPair, &'static str);

impl Ec {
    fn new(id: &'static str) -> Self {
        Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(), id)
    }

    fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.1, "x": part(&point[1..33]), "y": part(&point[33..])})
    }

    fn token(&self, claims: &Value) -> String {
        let message = message("ES256", self.1, claims);
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

fn message(algorithm: &str, id: &str, claims: &Value) -> String {
    let header = json!({"alg": algorithm, "kid": id}).to_string();
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn rsa_token(key: &RsaKeyPair, claims: &Value) -> (String, Value) {
    let message = message("RS256", "rsa", claims);
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
    let public = key.public_key();
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (n, e) = (
        public.modulus().big_endian_without_leading_zero(),
        public.exponent().big_endian_without_leading_zero(),
    );
    let jwk = json!({"kty": "RSA", "kid": "rsa", "n": part(n), "e": part(e)});
    (format!("{message}.{}", part(&signature)), jwk)
}

fn issuer(provider: &Provider) -> OidcIssuer {
    OidcIssuer {
        authorities_pem: Some(provider.authorities.clone()),
        username_prefix: "oidc:".to_owned(),
        groups_claim: Some("groups".to_owned()),
        groups_prefix: "oidc:".to_owned(),
        uid_claim: Some("uid".to_owned()),
        required_claims: BTreeMap::from([("hd".to_owned(), "example.dev".to_owned())]),
        algorithms: ["ES256", "RS256"].map(str::to_owned).into(),
        ..OidcIssuer::new(&provider.url, "kube")
    }
}

async fn server() -> ApiServer {
    ApiServer::builder(Arc::new(MemoryStore::new())).build().await.unwrap()
}

/// Forged: by another key of the same name, without a signature, changed in the middle.
async fn forged(oidc: &Oidc, ec: &Ec, claims: &impl Fn(Value) -> Value) {
    let forged = Ec::new("one").token(&claims(json!({})));
    assert!(oidc.user_of(&forged).await.is_err());
    let none = format!("{}.", message("none", "one", &claims(json!({}))));
    assert!(oidc.user_of(&none).await.unwrap_err().message().contains("are not taken"));
    let good = ec.token(&claims(json!({})));
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let other = URL_SAFE_NO_PAD.encode(claims(json!({"sub": "root"})).to_string());
    assert!(oidc.user_of(&format!("{header}.{other}.{signature}")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_provider_are_checked() {
    let (provider, server) = (provider().await, server().await);
    let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
    let oidc = Oidc::new(issuer(&provider), clock.clone()).unwrap();
    let now = clock.now().as_second();
    let ec = Ec::new("one");
    let claims = |change: Value| {
        let mut claims = json!({"iss": provider.url, "aud": ["other", "kube"], "sub": "jane", "uid": "u1", "hd": "example.dev",
            "groups": ["dev", "ops"], "exp": now + 600, "nbf": now, "jti": "id"});
        for (key, value) in change.as_object().into_iter().flatten() {
            claims[key] = value.clone();
        }
        claims
    };
    let early = oidc.user_of(&ec.token(&claims(json!({})))).await.unwrap_err();
    assert!(early.message().contains("not started"), "{early}");
    oidc.started(&server);
    provider.keys.lock().push(ec.jwk());
    clock.advance(Duration::from_secs(20));
    let user = oidc.user_of(&ec.token(&claims(json!({})))).await.unwrap().unwrap();
    assert_eq!((user.username.as_deref(), user.uid.as_deref()), (Some("oidc:jane"), Some("u1")));
    assert_eq!(user.groups.unwrap(), ["oidc:dev", "oidc:ops"]);
    assert_eq!(user.extra.unwrap()["authentication.kubernetes.io/credential-id"], ["JTI=id"]);

    let check = async |change: Value, want: &str| {
        let got = oidc.user_of(&ec.token(&claims(change.clone()))).await;
        let error = got.unwrap_err();
        assert!(error.code() == 401 && error.message().contains(want), "{change}: {error}");
    };
    check(json!({"exp": now}), "expired").await;
    check(json!({"exp": null}), "never expires").await;
    check(json!({"nbf": now + 3600}), "not valid yet").await;
    check(json!({"aud": "other"}), "meant for").await;
    check(json!({"aud": 5}), "meant for").await;
    check(json!({"hd": "evil.org"}), "the claim \"hd\"").await;
    check(json!({"sub": ""}), "names no user").await;
    check(json!({"groups": [1]}), "no list of groups").await;
    check(json!({"uid": null}), "no text").await;
    let groups = oidc.user_of(&ec.token(&claims(json!({"groups": "dev"})))).await.unwrap().unwrap().groups;
    assert_eq!(groups.unwrap(), ["oidc:dev"]);

    // What is of another issuer is left to others; what is no token at all too.
    let foreign = ec.token(&claims(json!({"iss": "https://other"})));
    assert!(oidc.user_of(&foreign).await.unwrap().is_none());
    for nonsense in ["", "a.b.c", "....", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
        assert!(oidc.user_of(nonsense).await.unwrap().is_none());
    }
    forged(&oidc, &ec, &claims).await;

    // Keys change: the new one is fetched, but a flood of unknown ones asks once.
    let second = Ec::new("two");
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let (rsa_token, rsa_jwk) = rsa_token(&rsa, &claims(json!({})));
    *provider.keys.lock() = vec![second.jwk(), rsa_jwk, json!({"kty": "oct"}), json!(5)];
    let asked = provider.asked.load(Ordering::SeqCst);
    for _ in 0..10 {
        let _ = oidc.user_of(&second.token(&claims(json!({})))).await;
    }
    clock.advance(Duration::from_secs(20));
    for _ in 0..10 {
        oidc.user_of(&second.token(&claims(json!({})))).await.unwrap().unwrap();
    }
    assert!(provider.asked.load(Ordering::SeqCst) <= asked + 1);
    oidc.user_of(&rsa_token).await.unwrap().unwrap();
    assert!(oidc.user_of(&ec.token(&claims(json!({})))).await.is_err(), "the first key is gone");
    provider.stop.cancel();
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_must_be_who_it_says() {
    let (provider, server) = (provider().await, server().await);
    let ec = Ec::new("one");
    provider.keys.lock().push(ec.jwk());
    let check = async |change: &dyn Fn(&mut OidcIssuer), want: &str| {
        let mut issuer = issuer(&provider);
        change(&mut issuer);
        let oidc = Oidc::new(issuer.clone(), Arc::new(SystemClock)).unwrap();
        oidc.started(&server);
        let claims = json!({"iss": issuer.url, "aud": "kube", "sub": "jane", "exp": 4_000_000_000_u64});
        let error = oidc.user_of(&ec.token(&claims)).await.unwrap_err();
        assert!(error.message().contains(want), "{error}");
    };
    check(&|i| i.authorities_pem = Some(String::new()), "certificate").await;
    let other = CertificateAuthority::generate(&SystemClock).unwrap();
    check(&|i| i.authorities_pem = Some(other.certificate_pem().to_owned()), "certificate").await;
    check(&|i| i.url.push('x'), "discovery document is of").await;
    check(
        &|i| {
            i.discovery_url = Some(format!("{}/.well-known/openid-configuration", i.url));
            i.url = "https://someone.else".to_owned();
        },
        "discovery document is of",
    )
    .await;
    assert!(Oidc::new(OidcIssuer::new("http://plain", "kube"), Arc::new(SystemClock)).is_err());
    provider.stop.cancel();
    server.shutdown().await;
}

//! Good tokens, and every kind of bad one. The keys in `testdata/` sign nothing else.

use axum::response::IntoResponse;
use jsonwebtoken::jwk::Jwk;
use serde_json::{Value, json};

use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const RSA: &[u8] = include_bytes!("../testdata/token-rsa.pem");
const RSA_PUBLIC: &[u8] = include_bytes!("../testdata/token-rsa-public.pem");
const EC: &[u8] = include_bytes!("../testdata/token-ec.pem");

fn rules(algorithm: Algorithm) -> AccessRules {
    AccessRules {
        algorithm,
        issuer: "riderflow".into(),
        audience: "riderflow".into(),
        key: (algorithm == Algorithm::Hs256).then(|| Secret::new(KEY)),
        jwks: None,
    }
}

fn shared() -> Access {
    Access::open(rules(Algorithm::Hs256)).unwrap()
}

fn signing(algorithm: Algorithm) -> EncodingKey {
    match algorithm {
        Algorithm::Hs256 => EncodingKey::from_secret(KEY.as_bytes()),
        Algorithm::Rs256 => EncodingKey::from_rsa_pem(RSA).unwrap(),
        Algorithm::Es256 => EncodingKey::from_ec_pem(EC).unwrap(),
    }
}

fn jwk(algorithm: Algorithm, kid: Option<&str>) -> Jwk {
    let mut jwk = Jwk::from_encoding_key(&signing(algorithm), algorithm.theirs()).unwrap();
    jwk.common.key_id = kid.map(str::to_owned);
    jwk
}

/// An access by a file of these keys, and the folder that the file is in.
fn by_file(algorithm: Algorithm, keys: &[Value]) -> (Access, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, json!({ "keys": keys }).to_string()).unwrap();
    let mut rules = rules(algorithm);
    rules.jwks = Some(path);
    (Access::open(rules).unwrap(), folder)
}

fn now_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

fn claims() -> Value {
    json!({"iss": "riderflow", "aud": "riderflow", "sub": "driver/453", "exp": now_s() + 60})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn sign(
    algorithm: jsonwebtoken::Algorithm,
    kid: Option<&str>,
    claims: &Value,
    key: &EncodingKey,
) -> String {
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

fn sign_shared(claims: &Value) -> String {
    sign(
        jsonwebtoken::Algorithm::HS256,
        None,
        claims,
        &signing(Algorithm::Hs256),
    )
}

fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

#[test]
fn what_is_minted_is_granted() {
    let access = shared();
    for subject in ["driver/453", "order/o-1", "place/restaurant-9", "fleet"] {
        let subject: Subject = subject.parse().unwrap();
        let before = now_s();
        let token = access.mint(&subject, Duration::from_secs(60)).unwrap();
        let grant = access.check(&token).unwrap();
        assert_eq!(grant.subject, subject);
        let life = grant.expires_at_ms / 1_000 - before;
        assert!((65..=66).contains(&life), "good for {life} s");
    }
}

#[test]
fn claims_are_held_to() {
    let access = shared();
    let now = now_s();
    let table = [
        ("good", claims(), Ok(())),
        (
            "audience in a list",
            with("aud", json!(["other", "riderflow"])),
            Ok(()),
        ),
        ("just expired", with("exp", json!(now - 2)), Ok(())),
        (
            "expired",
            with("exp", json!(now - 7)),
            Err(Refusal::Expired),
        ),
        ("just not yet", with("nbf", json!(now + 2)), Ok(())),
        ("not yet", with("nbf", json!(now + 9)), Err(Refusal::NotYet)),
        ("nbf as text", with("nbf", json!("0")), Err(Refusal::Claims)),
        ("no expiry", without("exp"), Err(Refusal::Claims)),
        (
            "expiry null",
            with("exp", Value::Null),
            Err(Refusal::Claims),
        ),
        (
            "expiry as text",
            with("exp", json!("9999999999")),
            Err(Refusal::Claims),
        ),
        (
            "expiry below 0",
            with("exp", json!(-1)),
            Err(Refusal::Claims),
        ),
        (
            "another issuer",
            with("iss", json!("somebody")),
            Err(Refusal::Issuer),
        ),
        (
            "issuer in a list",
            with("iss", json!(["riderflow", "x"])),
            Err(Refusal::Claims),
        ),
        ("no issuer", without("iss"), Err(Refusal::Claims)),
        (
            "another audience",
            with("aud", json!("somebody")),
            Err(Refusal::Audience),
        ),
        (
            "an empty audience",
            with("aud", json!([])),
            Err(Refusal::Audience),
        ),
        ("no audience", without("aud"), Err(Refusal::Claims)),
        ("no subject", without("sub"), Err(Refusal::Claims)),
        (
            "subject as number",
            with("sub", json!(453)),
            Err(Refusal::Claims),
        ),
        (
            "a strange subject",
            with("sub", json!("admin")),
            Err(Refusal::Subject),
        ),
        ("claims are a list", json!([1, 2]), Err(Refusal::Claims)),
    ];
    for (what, claims, expected) in table {
        let got = access.check(&sign_shared(&claims)).map(|_| ());
        assert_eq!(got, expected, "{what}");
    }
    let far = access
        .check(&sign_shared(&with("exp", json!(1e18))))
        .unwrap();
    assert_eq!(far.expires_at_ms, TimeMs::MAX);
}

#[test]
fn forged_tokens_are_refused() {
    let access = shared();
    let good = sign_shared(&claims());
    assert!(access.check(&good).is_ok());
    let parts: Vec<&str> = good.split('.').collect();
    let (head, body, signature) = (parts[0], parts[1], parts[2]);
    let other = sign_shared(&with("sub", json!("driver/454")));
    let other_body = other.split('.').nth(1).unwrap();
    let stranger = EncodingKey::from_secret(b"ffffffffffffffffffffffffffffffff");
    let hs = jsonwebtoken::Algorithm::HS256;
    // {"alg":"none"}, {"alg":"none","typ":"JWT"} and {"alg":"None"}
    let none = [
        "eyJhbGciOiJub25lIn0",
        "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0",
        "eyJhbGciOiJOb25lIn0",
    ];
    for head in none {
        for signature in ["", signature] {
            let token = format!("{head}.{body}.{signature}");
            assert_eq!(access.check(&token), Err(Refusal::Malformed), "{token}");
        }
    }
    for (token, expected) in [
        (
            format!("{head}.{other_body}.{signature}"),
            Refusal::Signature,
        ),
        (format!("{head}.{body}."), Refusal::Signature),
        (format!("{head}.{body}"), Refusal::Malformed),
        (format!("{good}.{good}"), Refusal::Malformed),
        (format!("{good}="), Refusal::Malformed),
        (sign(hs, None, &claims(), &stranger), Refusal::Signature),
        (
            sign(
                jsonwebtoken::Algorithm::HS512,
                None,
                &claims(),
                &signing(Algorithm::Hs256),
            ),
            Refusal::Algorithm,
        ),
        (
            sign(
                jsonwebtoken::Algorithm::RS256,
                None,
                &claims(),
                &signing(Algorithm::Rs256),
            ),
            Refusal::Algorithm,
        ),
        (String::new(), Refusal::Malformed),
        ("..".into(), Refusal::Malformed),
        ("a.b.c".into(), Refusal::Malformed),
        ("{}".into(), Refusal::Malformed),
        (
            format!("{head}.{}.{signature}", "A".repeat(TOKEN_BYTES_MAX)),
            Refusal::Malformed,
        ),
    ] {
        assert_eq!(access.check(&token), Err(expected), "{token}");
    }
    let mut critical = Header::new(hs);
    critical.crit = Some(vec!["b64".into()]);
    let critical = jsonwebtoken::encode(&critical, &claims(), &signing(Algorithm::Hs256)).unwrap();
    assert_eq!(access.check(&critical), Err(Refusal::Malformed));
}

#[test]
fn public_keys_check_what_their_issuer_signed() {
    for algorithm in [Algorithm::Rs256, Algorithm::Es256] {
        let key = signing(algorithm);
        let named = json!(jwk(algorithm, Some("k-1")));
        let unnamed = json!(jwk(algorithm, None));
        let token = |kid| sign(algorithm.theirs(), kid, &claims(), &key);
        let (access, _folder) = by_file(algorithm, std::slice::from_ref(&named));
        assert!(access.check(&token(Some("k-1"))).is_ok());
        assert_eq!(access.check(&token(Some("k-2"))), Err(Refusal::UnknownKey));
        assert_eq!(access.check(&token(None)), Err(Refusal::UnknownKey));
        let minted = access.mint(&Subject::Fleet, Duration::from_secs(1));
        assert_eq!(minted, Err(MintError::PublicKeysOnly(algorithm.as_str())));
        let (access, _folder) = by_file(algorithm, &[unnamed]);
        assert!(access.check(&token(None)).is_ok());
        assert_eq!(access.check(&token(Some("k-1"))), Err(Refusal::UnknownKey));
        // Keys of other kinds are skipped, and unknown kinds too.
        let others = [
            json!(jwk(Algorithm::Rs256, Some("k-1"))),
            json!(jwk(Algorithm::Es256, Some("k-1"))),
            json!({"kty": "oct", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY", "kid": "k-1"}),
            json!({"kty": "future", "kid": "k-1"}),
            json!({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA", "kid": "k-1"}),
        ];
        let (access, _folder) = by_file(algorithm, &others);
        assert!(access.check(&token(Some("k-1"))).is_ok());
    }
}

#[test]
fn a_public_key_is_no_shared_key() {
    let (access, _folder) = by_file(
        Algorithm::Rs256,
        &[
            json!(jwk(Algorithm::Rs256, Some("k-1"))),
            json!(jwk(Algorithm::Rs256, None)),
        ],
    );
    for kid in [None, Some("k-1")] {
        for secret in [RSA_PUBLIC, RSA_PUBLIC.trim_ascii_end()] {
            let secret = EncodingKey::from_secret(secret);
            let token = sign(jsonwebtoken::Algorithm::HS256, kid, &claims(), &secret);
            assert_eq!(access.check(&token), Err(Refusal::Algorithm));
        }
    }
    let other = sign(
        jsonwebtoken::Algorithm::RS512,
        None,
        &claims(),
        &signing(Algorithm::Rs256),
    );
    assert_eq!(access.check(&other), Err(Refusal::Algorithm));
}

#[test]
fn keys_rotate_with_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    // Written whole under another name: what a careful issuer does.
    let write = |text: &str| {
        let next = folder.path().join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(&next, &path).unwrap();
    };
    let set = |kid| json!({"keys": [jwk(Algorithm::Es256, Some(kid))]}).to_string();
    write(&set("old"));
    let file = keys::watch(path.clone(), Algorithm::Es256).unwrap();
    let file = file.looking_every(Duration::ZERO);
    assert!(file.current().find(Some("old")).is_some());
    for broken in [
        "",
        "{",
        r#"{"keys":[]}"#,
        r#"{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}"#,
    ] {
        write(broken);
        assert!(file.current().find(Some("old")).is_some(), "{broken}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(file.current().find(Some("old")).is_some());
    write(&set("new-name"));
    assert!(file.current().find(Some("old")).is_none());
    assert!(file.current().find(Some("new-name")).is_some());
    let patient = keys::watch(path.clone(), Algorithm::Es256).unwrap();
    write(&set("newest"));
    assert!(
        patient.current().find(Some("newest")).is_none(),
        "looked too soon"
    );
}

#[test]
fn keys_that_can_check_nothing_are_told_at_the_start() {
    let fault = |rules: AccessRules| Access::open(rules).unwrap_err().to_string();
    let mut no_key = rules(Algorithm::Hs256);
    no_key.key = None;
    assert!(fault(no_key).contains("set RIDERFLOW_GATEWAY_KEY to at least 32"));
    let mut short = rules(Algorithm::Hs256);
    short.key = Some(Secret::new("short-and-secret"));
    let told = fault(short);
    assert!(
        told.contains("RIDERFLOW_GATEWAY_KEY holds 16 bytes"),
        "{told}"
    );
    assert!(!told.contains("short-and-secret"));
    assert!(fault(rules(Algorithm::Rs256)).contains("set gateway.jwks"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let mut by_file = rules(Algorithm::Rs256);
    by_file.jwks = Some(path.clone());
    assert!(fault(by_file.clone()).contains("jwks.json: No such file"));
    let twice = [
        json!(jwk(Algorithm::Rs256, None)),
        json!(jwk(Algorithm::Rs256, None)),
    ];
    let mut encrypts = json!(jwk(Algorithm::Rs256, None));
    encrypts["use"] = json!("enc");
    let mut short = json!(jwk(Algorithm::Rs256, None));
    short["n"] = json!("AQAB");
    for (text, expected) in [
        ("[]".to_owned(), "it is no JWKS"),
        (
            json!({"keys": twice}).to_string(),
            "two RS256 keys without kid",
        ),
        (json!({"keys": [encrypts]}).to_string(), "no key for RS256"),
        (json!({"keys": [short]}).to_string(), "no key for RS256"),
        (
            json!({"keys": [jwk(Algorithm::Es256, None)]}).to_string(),
            "no key for RS256",
        ),
    ] {
        std::fs::write(&path, text).unwrap();
        let told = fault(by_file.clone());
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn a_token_is_found_in_one_header_or_the_other() {
    let access = shared();
    let token = sign_shared(&claims());
    let protocol = "sec-websocket-protocol";
    for (what, pairs, expected) in [
        (
            "bearer",
            vec![("authorization", format!("Bearer {token}"))],
            Ok(()),
        ),
        (
            "lower case",
            vec![("authorization", format!("bearer  {token} "))],
            Ok(()),
        ),
        (
            "offer",
            vec![(protocol, format!("riderflow.v1, bearer.{token}"))],
            Ok(()),
        ),
        (
            "offers apart",
            vec![
                (protocol, "riderflow.v1".into()),
                (protocol, format!("bearer.{token}")),
            ],
            Ok(()),
        ),
        (
            "a phone's library",
            vec![
                ("authorization", format!("Bearer {token}")),
                (protocol, "riderflow.v1".into()),
            ],
            Ok(()),
        ),
        ("none", vec![], Err(Refusal::Missing)),
        (
            "no offer",
            vec![(protocol, "riderflow.v1".into())],
            Err(Refusal::Missing),
        ),
        (
            "basic",
            vec![("authorization", "Basic YTpi".into())],
            Err(Refusal::Malformed),
        ),
        (
            "bare",
            vec![("authorization", token.clone())],
            Err(Refusal::Malformed),
        ),
        (
            "empty",
            vec![("authorization", "Bearer ".into())],
            Err(Refusal::Malformed),
        ),
        (
            "both",
            vec![
                ("authorization", format!("Bearer {token}")),
                (protocol, format!("riderflow.v1, bearer.{token}")),
            ],
            Err(Refusal::Ambiguous),
        ),
        (
            "twice",
            vec![
                ("authorization", format!("Bearer {token}")),
                ("authorization", format!("Bearer {token}")),
            ],
            Err(Refusal::Ambiguous),
        ),
        (
            "cookie",
            vec![("cookie", format!("token={token}"))],
            Err(Refusal::Missing),
        ),
    ] {
        let got = access.grant(&headers(&pairs)).map(|_| ());
        assert_eq!(got, expected, "{what}");
    }
}

#[test]
fn refusals_look_alike() {
    for refusal in Refusal::ALL {
        let response = refusal.into_response();
        let expected = if refusal == Refusal::InQuery {
            400
        } else {
            401
        };
        assert_eq!(response.status().as_u16(), expected, "{refusal}");
    }
}

#[test]
fn nothing_prints_the_key() {
    let shown = format!("{:?}", shared());
    assert!(
        shown.contains("riderflow") && !shown.contains(KEY),
        "{shown}"
    );
}

//! Single values of a pipeline file: what they are, what is wrong with them, and what was
//! meant.

use toml::de::DeValue;

use super::schema::{Dimension, Key, Kind, Unit, unit_word};

/// What a value is, for "takes …, not …".
pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(_) => "text".into(),
        DeValue::Integer(_) | DeValue::Float(_) => format!("the number {}", shown(value)),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// A number as it was written, but for underscores.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        other => describe(other),
    }
}

/// A whole number; beyond the range of i128 it counts as infinite.
pub(super) fn whole(value: &DeValue<'_>) -> Option<f64> {
    let DeValue::Integer(integer) = value else {
        return None;
    };
    let parsed = i128::from_str_radix(integer.as_str(), integer.radix());
    Some(parsed.map_or(f64::INFINITY, |number| number as f64))
}

/// A number, which may be infinite or not a number.
pub(super) fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().parse().ok(),
        other => whole(other),
    }
}

/// A key's stem and the dimension of the unit at its end, such as `near` of `near_km`.
pub(super) fn unit_suffix(word: &str) -> Option<(&str, Dimension)> {
    let (stem, suffix) = word.rsplit_once('_')?;
    Some((stem, unit_word(suffix)?.0))
}

/// `key = value` with the number that was meant by a key with another unit at its end.
pub(super) fn converted(key: &Key, word: &str, value: &DeValue<'_>) -> Option<String> {
    let (_, suffix) = word.rsplit_once('_')?;
    let number = match value {
        DeValue::String(text) => return from_text(key, text),
        other => number(other)?,
    };
    in_unit(key, number, suffix)
}

/// `key = value` with what was meant by a value of the wrong type.
pub(super) fn meant(key: &Key, value: &DeValue<'_>) -> Option<String> {
    match (key.kind, value) {
        (_, DeValue::String(text)) => meant_by(key, text),
        (Kind::Flag, DeValue::Integer(integer)) => meant_by(key, integer.as_str()),
        (Kind::Whole { .. }, DeValue::Float(_)) => write(key, number(value)?),
        _ => None,
    }
}

/// `key = value` with what was meant by `text`, which stands in or without quotes.
pub(super) fn meant_by(key: &Key, text: &str) -> Option<String> {
    let text = text.trim();
    match key.kind {
        Kind::Text | Kind::TextOrNone => {
            (!text.is_empty()).then(|| format!("{} = \"{text}\"", key.name))
        }
        Kind::Flag => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(format!("{} = true", key.name)),
            "false" | "no" | "off" | "0" => Some(format!("{} = false", key.name)),
            _ => None,
        },
        Kind::Whole { .. } | Kind::Number { .. } => from_text(key, text),
    }
}

/// What a key takes, for "takes …".
pub(super) fn takes(key: &Key) -> String {
    let unit = key.unit.map_or("", Unit::words);
    match key.kind {
        Kind::Text | Kind::TextOrNone => "text in quotes".into(),
        Kind::Flag => "true or false".into(),
        Kind::Whole { .. } => format!("a whole number of {unit}"),
        Kind::Number { .. } => format!("a plain number in {unit}"),
    }
}

/// `"500 m"`, `"0.5km"`, `"1_000"`.
fn from_text(key: &Key, text: &str) -> Option<String> {
    let text = text.trim();
    let digits = |c: char| c.is_ascii_digit() || matches!(c, '.' | '_' | '+' | '-');
    let end = text.find(|c| !digits(c)).unwrap_or(text.len());
    let number: f64 = text[..end].replace('_', "").parse().ok()?;
    match text[end..].trim() {
        "" => write(key, number),
        unit => in_unit(key, number, unit),
    }
}

fn in_unit(key: &Key, number: f64, unit: &str) -> Option<String> {
    let (dimension, scale) = unit_word(unit)?;
    let (own_dimension, own_scale) = key.unit?.scale();
    if dimension != own_dimension {
        return None;
    }
    write(key, number * scale / own_scale)
}

fn write(key: &Key, number: f64) -> Option<String> {
    // Six decimals hide what binary fractions add to a converted number.
    let number = (number * 1e6).round() / 1e6;
    let fits = match key.kind {
        Kind::Whole { min, max } => {
            number.fract() == 0.0 && number >= min as f64 && number <= max as f64
        }
        _ => number.is_finite(),
    };
    fits.then(|| format!("{} = {number}", key.name))
}

/// What is wrong with a pipeline's name.
pub(super) fn name_fault(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("is empty".into());
    }
    if name.len() > 100 {
        return Some(format!("has {} bytes; at most 100 are allowed", name.len()));
    }
    let legal = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let bad = name.chars().find(|c| !legal(c))?;
    Some(format!(
        "holds `{}`; only letters, digits, `.`, `_` and `-` are allowed",
        bad.escape_debug()
    ))
}

/// What is wrong with a text's content.
pub(super) fn text_fault(key: &Key, text: &str) -> Option<String> {
    if text.trim().is_empty() {
        let may_be = key.kind == Kind::TextOrNone && text.is_empty();
        return (!may_be).then(|| "is empty".into());
    }
    match (key.stage, key.name) {
        ("gateway", "listen") => listen_fault(text),
        ("gateway", "algorithm") => algorithm_fault(text),
        ("gateway", "origins") => origins_fault(text),
        ("kafka", "brokers") => brokers_fault(text),
        ("clickhouse", "url") => url_fault(text),
        ("snapshots", "url") => snapshots_fault(text),
        _ => None,
    }
}

/// What is wrong with a list of brokers.
pub(super) fn brokers_fault(brokers: &str) -> Option<String> {
    brokers.split(',').map(str::trim).find_map(|broker| {
        if broker.is_empty() {
            return Some("has an empty entry; write `host:port,host:port`".into());
        }
        if broker.contains("://") || broker.contains(char::is_whitespace) {
            return Some(format!("holds `{broker}`; write `host:port`"));
        }
        let port = match broker.rsplit_once(':') {
            // Without a port it is 9092; an IPv6 address stands in brackets.
            None => return None,
            Some((_, port)) if port.ends_with(']') => return None,
            Some(("", _)) => return Some(format!("holds `{broker}`, which has no host")),
            Some((_, port)) => port,
        };
        let legal = port.parse::<u16>().is_ok_and(|port| port > 0);
        (!legal).then(|| format!("holds `{broker}`; its port must be 1 to 65535"))
    })
}

/// What is wrong with where the gateway listens.
fn listen_fault(address: &str) -> Option<String> {
    if address.parse::<std::net::SocketAddr>().is_ok() {
        return None;
    }
    Some(format!(
        "is `{address}`; write an address and a port, such as `127.0.0.1:8080`, or `0.0.0.0:8080` \
         for every interface"
    ))
}

/// The algorithms that tokens can be signed with.
const ALGORITHMS: [&str; 3] = ["HS256", "RS256", "ES256"];

fn algorithm_fault(algorithm: &str) -> Option<String> {
    if ALGORITHMS.contains(&algorithm) {
        return None;
    }
    let upper = algorithm.to_uppercase();
    let guess = ALGORITHMS.into_iter().find(|known| *known == upper);
    let guess = guess.map_or(String::new(), |known| format!("; did you mean `{known}`?"));
    let known = ALGORITHMS.join(", ");
    Some(format!("is `{algorithm}`, which is none of {known}{guess}"))
}

/// What is wrong with a list of origins: scheme, host and port, as browsers write them.
fn origins_fault(origins: &str) -> Option<String> {
    origins.split(',').map(str::trim).find_map(|origin| {
        if origin.is_empty() {
            return Some("has an empty entry; write `https://a.example,https://b.example`".into());
        }
        let rest = origin
            .strip_prefix("https://")
            .or_else(|| origin.strip_prefix("http://"));
        let Some(rest) = rest else {
            return Some(format!(
                "holds `{origin}`; an origin begins with https:// or http://"
            ));
        };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let legal = |c: char| {
            c.is_ascii_digit() || c.is_ascii_lowercase() || matches!(c, '.' | '-' | '[' | ']' | ':')
        };
        if host.is_empty() || !host.chars().all(legal) {
            return Some(format!(
                "holds `{origin}`; an origin is scheme, host in lower case and perhaps port, such \
                 as `https://map.example:8443`, without a path"
            ));
        }
        let usual = if origin.starts_with("https") {
            "443"
        } else {
            "80"
        };
        match port {
            Some(port) if port == usual => Some(format!(
                "holds `{origin}`; browsers leave out port {usual}, so write `{}`",
                origin.trim_end_matches(port).trim_end_matches(':')
            )),
            Some(port) if !port.parse::<u16>().is_ok_and(|port| port > 0) => {
                Some(format!("holds `{origin}`; its port must be 1 to 65535"))
            }
            _ => None,
        }
    })
}

/// What is wrong with ClickHouse's address.
pub(super) fn url_fault(url: &str) -> Option<String> {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest else {
        let start = if url.contains("://") {
            ""
        } else {
            ": add `http://`"
        };
        return Some(format!(
            "is `{url}`; it must begin with http:// or https://{start}"
        ));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    if authority.contains('@') {
        return Some(
            "holds credentials; set RIDERFLOW_CLICKHOUSE_USER and RIDERFLOW_CLICKHOUSE_PASSWORD"
                .into(),
        );
    }
    if authority.is_empty() || authority.starts_with(':') {
        return Some(format!("is `{url}`, which has no host"));
    }
    if url.contains(char::is_whitespace) {
        return Some(format!("is `{url}`, which holds a blank"));
    }
    if let Some((_, port)) = authority
        .rsplit_once(':')
        .filter(|(_, p)| !p.ends_with(']'))
        && !port.parse::<u16>().is_ok_and(|port| port > 0)
    {
        return Some(format!("is `{url}`; its port must be 1 to 65535"));
    }
    None
}

/// Where snapshots can go, besides a folder's path. What `snapshot` makes of it is its own.
const SNAPSHOT_SCHEMES: [&str; 9] = [
    "file", "s3", "s3a", "gs", "az", "abfs", "abfss", "http", "https",
];

/// What is wrong with where snapshots go.
fn snapshots_fault(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    if !SNAPSHOT_SCHEMES.contains(&scheme) {
        return Some(format!(
            "is `{url}`; snapshots go to a folder or to {}://, not to `{scheme}://`",
            SNAPSHOT_SCHEMES.join("://, ")
        ));
    }
    if scheme == "file" {
        let is_absolute = rest.starts_with('/');
        return (!is_absolute).then(|| format!("is `{url}`; file:// takes an absolute path"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    // `abfss://container@account/` is no user's name.
    let is_azure = matches!(scheme, "az" | "abfs" | "abfss");
    if let Some((user, _)) = authority.split_once('@')
        && (!is_azure || user.contains(':'))
    {
        return Some(
            "holds credentials; set them in the environment, such as AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY"
                .into(),
        );
    }
    if authority.is_empty() {
        let lacking = if scheme.starts_with("http") {
            "host"
        } else {
            "bucket"
        };
        return Some(format!("is `{url}`, which has no {lacking}"));
    }
    if let Some(sign) = rest
        .chars()
        .find(|c| c.is_whitespace() || matches!(c, '?' | '#'))
    {
        let sign = sign.escape_debug();
        return Some(format!("holds `{sign}`, which is not allowed"));
    }
    None
}

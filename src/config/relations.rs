//! What must hold between the keys of a pipeline file.

use toml::de::{DeTable, DeValue};

use super::schema;
use super::validate::{Span, Walk};

impl Walk<'_> {
    /// What must hold between keys. A default counts where a key is absent; what is wrong by
    /// itself takes no part.
    pub(super) fn relations(&mut self, document: &DeTable<'_>) {
        for (greater, smaller, why) in [
            ("orders.rearm_m", "orders.near_m", "it is the way back out"),
            (
                "orders.depart_m",
                "orders.arrive_m",
                "it is the way back out",
            ),
            (
                "windows.horizon_s",
                "windows.session_gap_s",
                "a session must fit into what is kept",
            ),
            (
                "windows.horizon_s",
                "windows.size_s",
                "a window must fit into what is kept",
            ),
            (
                "windows.size_s",
                "windows.hop_s",
                "between two windows updates would count nowhere",
            ),
        ] {
            self.not_less(document, greater, smaller, why);
        }
        self.whole_hops(document);
        self.gateway_files();
        let Some((partitions, _)) = self.effective(document, "topics.partitions") else {
            return;
        };
        let rows: Vec<_> = self
            .numbers
            .iter()
            .filter(|(path, _)| path.starts_with("routes."))
            .map(|(path, (partition, span))| (path.clone(), *partition, span.clone()))
            .collect();
        for (path, partition, span) in rows {
            if partition < 0.0 || partition >= partitions {
                let last = partitions - 1.0;
                let message = format!(
                    "`{path}` is {partition}; `topics.partitions` is {partitions}, so it must be 0 to {last}"
                );
                self.say(span, message, vec![]);
            }
        }
    }

    /// Which of the gateway's files belong together, and with which algorithm.
    fn gateway_files(&mut self) {
        let given = |name: &str| {
            let found = self.texts.get(&format!("gateway.{name}"));
            found.filter(|(text, _)| !text.is_empty()).cloned()
        };
        let pair = [given("certificate"), given("private_key")];
        let algorithm = given("algorithm");
        let jwks = given("jwks");
        match pair {
            [Some((_, span)), None] => {
                let message = "`gateway.certificate` is given without `gateway.private_key`";
                let help = "both are needed for TLS".into();
                self.say(span, message.into(), vec![help]);
            }
            [None, Some((_, span))] => {
                let message = "`gateway.private_key` is given without `gateway.certificate`";
                let help = "both are needed for TLS".into();
                self.say(span, message.into(), vec![help]);
            }
            _ => {}
        }
        match (algorithm, jwks) {
            (Some((algorithm, span)), None) if algorithm != "HS256" => {
                let message =
                    format!("`gateway.algorithm` is {algorithm}, which needs `gateway.jwks`");
                let help = "it is the file with the issuer's public keys".into();
                self.say(span, message, vec![help]);
            }
            (algorithm, Some((_, span))) => {
                let by_default = algorithm.is_none();
                if algorithm.is_none_or(|(algorithm, _)| algorithm == "HS256") {
                    let default = if by_default { " by default" } else { "" };
                    let message = format!(
                        "`gateway.jwks` is given, but `gateway.algorithm` is HS256{default}"
                    );
                    let help = "with public keys it is RS256 or ES256".into();
                    self.say(span, message, vec![help]);
                }
            }
            _ => {}
        }
    }

    /// A window is cut into hops.
    fn whole_hops(&mut self, document: &DeTable<'_>) {
        let (Some((size, size_at)), Some((hop, hop_at))) = (
            self.effective(document, "windows.size_s"),
            self.effective(document, "windows.hop_s"),
        ) else {
            return;
        };
        let Some(span) = hop_at.or(size_at) else {
            return;
        };
        if hop > 0.0 && hop <= size && size % hop != 0.0 {
            let message = format!(
                "`windows.hop_s` is {hop}; `windows.size_s` is {size}, which is not a multiple of it"
            );
            let help = "0 is a window that begins when the one before ends".into();
            self.say(span, message, vec![help]);
        }
    }

    fn not_less(&mut self, document: &DeTable<'_>, greater: &str, smaller: &str, why: &str) {
        let (Some((high, high_at)), Some((low, low_at))) = (
            self.effective(document, greater),
            self.effective(document, smaller),
        ) else {
            return;
        };
        if high >= low {
            return;
        }
        let by_default = |at: &Option<Span>| if at.is_none() { " by default" } else { "" };
        let help = format!("{greater} can't be less than {smaller}: {why}");
        let (span, message) = match (high_at, low_at) {
            (Some(span), low_at) => {
                let default = by_default(&low_at);
                let rest = format!("`{smaller}` is {low}{default}, and it can't be less");
                (span, format!("`{greater}` is {high}; {rest}"))
            }
            (None, Some(span)) => {
                let rest = format!("`{greater}` is {high} by default, and it can't be more");
                (span, format!("`{smaller}` is {low}; {rest}"))
            }
            // Two defaults agree: a test holds it.
            (None, None) => return,
        };
        self.say(span, message, vec![help]);
    }

    /// A number that is in force, and where its key stands; `None` if it is wrong by itself.
    fn effective(&self, document: &DeTable<'_>, path: &str) -> Option<(f64, Option<Span>)> {
        if let Some((number, span)) = self.numbers.get(path) {
            return Some((*number, Some(span.clone())));
        }
        let (stage, name) = path.split_once('.')?;
        let is_given = document
            .get(stage)
            .is_some_and(|stage| match stage.get_ref() {
                DeValue::Table(table) => table.contains_key(name),
                _ => true,
            });
        if is_given {
            return None;
        }
        let number = schema::key(stage, name)?.default.parse().ok()?;
        Some((number, None))
    }
}

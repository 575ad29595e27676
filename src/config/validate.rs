//! Walks a parsed pipeline file and says everything that is wrong with it.
//!
//! The walk works on the parsed document with its spans, not on the run-time types, so that
//! one mistake doesn't hide the next. Every problem points at its key.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{At, Problem};
use super::nearest::nearest;
use super::schema::{self, Key, Kind, NUMBER_MAX, STAGES, Unit};
use super::{syntax, values};

type Span = Range<usize>;

/// Everything that is wrong with `text`; empty if it is a pipeline.
pub(super) fn problems(text: &str) -> Vec<Problem> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let document = document.get_ref();
    let unreadable = syntax::problems(text, document, &errors);
    let mut walk = Walk {
        text,
        problems: Vec::new(),
        numbers: BTreeMap::new(),
        texts: BTreeMap::new(),
    };
    walk.document(document);
    if unreadable.is_empty() {
        walk.relations(document);
        return walk.problems;
    }
    // What is left of a line that can't be read would only be misread, and so would all that
    // stands under a broken header, or that is missing.
    let broken: Vec<usize> = unreadable.iter().filter_map(line_of).collect();
    let headers_hold = text
        .lines()
        .zip(1..)
        .all(|(line, number)| !(syntax::is_header(line) && broken.contains(&number)));
    walk.problems.retain(|problem| {
        let is_missing = problem.message == MISSING_NAME;
        headers_hold && !is_missing && line_of(problem).is_none_or(|line| !broken.contains(&line))
    });
    let mut all = unreadable;
    all.append(&mut walk.problems);
    all
}

const MISSING_NAME: &str = "missing key `name`, the consumer group and the transactional.id";

fn line_of(problem: &Problem) -> Option<usize> {
    problem.at.as_ref().map(|at| at.line)
}

struct Walk<'t> {
    text: &'t str,
    problems: Vec<Problem>,
    /// The numbers that are fine by themselves, by dotted name, with where their key stands.
    numbers: BTreeMap<String, (f64, Span)>,
    /// The texts that are fine by themselves, likewise.
    texts: BTreeMap<String, (String, Span)>,
}

impl Walk<'_> {
    fn say(&mut self, span: Span, message: String, help: Vec<String>) {
        self.problems.push(Problem {
            at: Some(At::new(self.text, span)),
            message,
            help,
        });
    }

    fn document(&mut self, document: &DeTable<'_>) {
        let mut named = document.contains_key("name");
        for (key, value) in document {
            match key.get_ref().as_ref() {
                "name" => self.name(key.span(), value.get_ref()),
                "routes" => self.stage_table(key, value, Self::routes),
                stage if STAGES.contains(&stage) => self.stage_table(key, value, Self::stage),
                unknown => named |= self.unknown_at_top(unknown, key.span(), value.get_ref()),
            }
        }
        if !named {
            let help = "write `name = \"rider-alerts\"` above the first table";
            self.say(0..0, MISSING_NAME.into(), vec![help.into()]);
        }
    }

    fn stage_table(
        &mut self,
        key: &Spanned<toml::de::DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
        walk: fn(&mut Self, &str, &DeTable<'_>),
    ) {
        let stage = key.get_ref().as_ref();
        match value.get_ref() {
            DeValue::Table(table) => walk(self, stage, table),
            DeValue::Array(_) => {
                let message = format!("`{stage}` is one table, not a list; write `[{stage}]`");
                self.say(key.span(), message, vec![]);
            }
            other => {
                let found = values::describe(other);
                let message = format!("`{stage}` is a table, not {found}; write `[{stage}]`");
                self.say(key.span(), message, vec![keys_help(stage)]);
            }
        }
    }

    /// Whether it was a slip of `name`.
    fn unknown_at_top(&mut self, word: &str, span: Span, value: &DeValue<'_>) -> bool {
        let stages = format!("stages that exist: {}", STAGES.join(", "));
        if matches!(value, DeValue::Table(_) | DeValue::Array(_)) {
            let guess = nearest(word, STAGES).map_or(String::new(), did_you_mean);
            let message = format!("unknown operator or sink `{word}`{guess}");
            self.say(span, message, vec![stages]);
            return false;
        }
        if let Some(home) = home_of(word) {
            let message = format!("unknown key `{word}` above the first table; {home}");
            self.say(span, message, vec![]);
            return false;
        }
        let words = STAGES.into_iter().chain(["name"]);
        let guess = nearest(word, words);
        let message = format!(
            "unknown key `{word}` above the first table{}",
            guess.map_or(String::new(), did_you_mean)
        );
        let help = "only `name` stands above the first table".to_owned();
        self.say(span, message, vec![help, stages]);
        guess == Some("name")
    }

    fn name(&mut self, span: Span, value: &DeValue<'_>) {
        let DeValue::String(name) = value else {
            let message = format!("`name` takes text, not {}", values::describe(value));
            return self.say(span, message, vec![]);
        };
        if let Some(wrong) = values::name_fault(name) {
            let help = "it names the consumer group, the transactional.id and the job's topics";
            self.say(span, format!("`name` {wrong}"), vec![help.into()]);
        }
    }

    fn routes(&mut self, _: &str, rows: &DeTable<'_>) {
        for (row, value) in rows {
            let state = row.get_ref().as_ref();
            if state.is_empty() {
                self.say(
                    row.span(),
                    "`routes` has a state without a name".into(),
                    vec![],
                );
                continue;
            }
            if state != "default" && nearest(state, ["default"]).is_some() {
                let message = format!("unknown row `{state}` in [routes]; did you mean `default`?");
                let help = "`default` serves every state without a row of its own".into();
                self.say(row.span(), message, vec![help]);
                continue;
            }
            match values::whole(value.get_ref()) {
                Some(partition) => {
                    let path = format!("routes.{state}");
                    self.numbers.insert(path, (partition, row.span()));
                }
                None => {
                    let found = values::describe(value.get_ref());
                    let message = format!("`routes.{state}` takes a partition, not {found}");
                    let help = format!("write `{state} = 0`");
                    self.say(row.span(), message, vec![help]);
                }
            }
        }
    }

    fn stage(&mut self, stage: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let word = name.get_ref().as_ref();
            match schema::key(stage, word) {
                Some(key) => self.value(key, name.span(), value.get_ref()),
                None => self.unknown_key(stage, word, name.span(), value.get_ref()),
            }
        }
    }

    fn unknown_key(&mut self, stage: &str, word: &str, span: Span, value: &DeValue<'_>) {
        let unknown = format!("unknown key `{word}` in [{stage}]");
        let secret = match (stage, word) {
            ("clickhouse", "user" | "username") => Some("RIDERFLOW_CLICKHOUSE_USER"),
            ("clickhouse", "password" | "pass") => Some("RIDERFLOW_CLICKHOUSE_PASSWORD"),
            ("gateway", "key" | "secret") => Some("RIDERFLOW_GATEWAY_KEY"),
            _ => None,
        };
        if let Some(variable) = secret {
            let message = format!("{unknown}; credentials belong in the environment");
            return self.say(span, message, vec![format!("set {variable}")]);
        }
        let mut help = Vec::new();
        let by_unit = same_but_for_the_unit(stage, word);
        let guess = if by_unit.is_empty() {
            if let Some(home) = home_of(word) {
                let message = format!("{unknown}; {home}");
                return self.say(span, message, vec![keys_help(stage)]);
            }
            nearest(word, schema::keys_of(stage).map(|key| key.name)).map(did_you_mean)
        } else {
            for key in &by_unit {
                let Some(unit) = key.unit else { continue };
                let write = values::converted(key, word, value);
                let write = write.map_or(String::new(), |w| format!(": write `{w}`"));
                help.push(format!("`{}` is in {}{write}", key.path(), unit.words()));
            }
            let names: Vec<_> = by_unit.iter().map(|key| key.name).collect();
            Some(did_you_mean(&names.join("` or `")))
        };
        help.push(keys_help(stage));
        self.say(
            span,
            format!("{unknown}{}", guess.unwrap_or_default()),
            help,
        );
    }

    fn value(&mut self, key: &'static Key, span: Span, value: &DeValue<'_>) {
        match key.kind {
            Kind::Text | Kind::TextOrNone => match value {
                DeValue::String(text) => {
                    if let Some(wrong) = values::text_fault(key, text) {
                        self.say(span, format!("`{}` {wrong}", key.path()), vec![]);
                    } else {
                        self.texts
                            .insert(key.path(), (text.clone().into_owned(), span));
                    }
                }
                other => self.wrong_type(key, span, other),
            },
            Kind::Flag => {
                if !matches!(value, DeValue::Boolean(_)) {
                    self.wrong_type(key, span, value);
                }
            }
            Kind::Whole { min, max } => match values::whole(value) {
                None => self.wrong_type(key, span, value),
                Some(number) if number < min as f64 || number > max as f64 => {
                    let range = format!("it must be {min} to {max} {}", words(key));
                    self.out_of_range(key, span, value, &range);
                }
                Some(number) => self.remember(key, number, span),
            },
            Kind::Number { zero } => match values::number(value) {
                None => self.wrong_type(key, span, value),
                Some(number) if !number.is_finite() => {
                    self.out_of_range(key, span, value, "it must be a finite number");
                }
                Some(number) if number < 0.0 || number == 0.0 && !zero => {
                    let least = if zero { "0 or more" } else { "over 0" };
                    let range = format!("it must be {least} {}", words(key));
                    self.out_of_range(key, span, value, &range);
                }
                Some(number) if number > NUMBER_MAX => {
                    let range = format!("it must be at most {NUMBER_MAX} {}", words(key));
                    self.out_of_range(key, span, value, &range);
                }
                Some(number) => self.remember(key, number, span),
            },
        }
    }

    fn remember(&mut self, key: &Key, number: f64, span: Span) {
        self.numbers.insert(key.path(), (number, span));
    }

    fn wrong_type(&mut self, key: &Key, span: Span, value: &DeValue<'_>) {
        let found = values::describe(value);
        let write = values::meant(key, value).map_or(String::new(), |w| format!("; write `{w}`"));
        let message = format!(
            "`{}` takes {}, not {found}{write}",
            key.path(),
            values::takes(key)
        );
        let help = format!("its default is {}", key.default);
        self.say(span, message, vec![help]);
    }

    fn out_of_range(&mut self, key: &Key, span: Span, value: &DeValue<'_>, range: &str) {
        let shown = values::shown(value);
        let message = format!("`{}` is {shown}; {range}", key.path());
        let help = format!("its default is {}", key.default);
        self.say(span, message, vec![help]);
    }

    /// What must hold between keys. A default counts where a key is absent; what is wrong by
    /// itself takes no part.
    fn relations(&mut self, document: &DeTable<'_>) {
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

fn words(key: &Key) -> &'static str {
    key.unit.map_or("", Unit::words)
}

fn did_you_mean(word: &str) -> String {
    format!("; did you mean `{word}`?")
}

fn keys_help(stage: &str) -> String {
    if stage == "routes" {
        return "rows of [routes]: a state and its partition, and `default`".into();
    }
    let names: Vec<_> = schema::keys_of(stage).map(|key| key.name).collect();
    format!("keys of [{stage}]: {}", names.join(", "))
}

/// Where a key of this name belongs.
fn home_of(word: &str) -> Option<String> {
    let homes: Vec<_> = schema::KEYS
        .iter()
        .filter(|key| key.name == word)
        .map(|key| format!("[{}]", key.stage))
        .collect();
    (!homes.is_empty()).then(|| format!("it belongs in {}", homes.join(" or ")))
}

/// The keys of a stage that are `word` but for the unit at its end, or for having one.
fn same_but_for_the_unit(stage: &str, word: &str) -> Vec<&'static Key> {
    let with_stem = |stem: &str| -> Vec<&'static Key> {
        schema::keys_of(stage)
            .filter(|key| key.unit.is_some())
            .filter(|key| key.name.rsplit_once('_').is_some_and(|(s, _)| s == stem))
            .collect()
    };
    let Some((stem, dimension)) = values::unit_suffix(word) else {
        return with_stem(word);
    };
    let found = with_stem(stem);
    let same_dimension = |key: &&&Key| key.unit.map(|u| u.scale().0) == Some(dimension);
    let of_dimension: Vec<_> = found.iter().filter(same_dimension).copied().collect();
    if of_dimension.is_empty() {
        found
    } else {
        of_dimension
    }
}

//! Bad files with the first line of what is said about them, and the schema against the types.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn problems_of(text: &str) -> Vec<Problem> {
    match Pipeline::parse(text, "x.toml") {
        Ok(_) => Vec::new(),
        Err(error) => error.problems().to_vec(),
    }
}

/// The first line of each problem, as it is printed.
fn first_lines(text: &str) -> Vec<String> {
    problems_of(text)
        .into_iter()
        .map(|problem| {
            let At { line, column, .. } = problem.at.unwrap();
            format!("{line}:{column}: {}", problem.message)
        })
        .collect()
}

/// What follows `name = "x"` in the file, and the first lines of all that is said.
const BAD: &[(&str, &[&str])] = &[
    // Tables.
    (
        "[clickhose]\nbatch_rows = 1000",
        &["2:2: unknown operator or sink `clickhose`; did you mean `clickhouse`?"],
    ),
    (
        "[order]\nnear_m = 5",
        &["2:2: unknown operator or sink `order`; did you mean `orders`?"],
    ),
    (
        "[geofences]",
        &["2:2: unknown operator or sink `geofences`; did you mean `fences`?"],
    ),
    (
        "[postgres]\nurl = \"x\"",
        &["2:2: unknown operator or sink `postgres`"],
    ),
    (
        "[[orders]]\nnear_m = 5",
        &["2:3: `orders` is one table, not a list; write `[orders]`"],
    ),
    (
        "orders = 5",
        &["2:1: `orders` is a table, not the number 5; write `[orders]`"],
    ),
    (
        "routes = 1",
        &["2:1: `routes` is a table, not the number 1; write `[routes]`"],
    ),
    // The gateway.
    (
        "[gateway]\nlisten = \"localhost:8080\"",
        &[
            "3:1: `gateway.listen` is `localhost:8080`; write an address and a port, such as `127.0.0.1:8080`, or `0.0.0.0:8080` for every interface",
        ],
    ),
    (
        "[gateway]\nalgorithm = \"hs256\"",
        &[
            "3:1: `gateway.algorithm` is `hs256`, which is none of HS256, RS256, ES256; did you mean `HS256`?",
        ],
    ),
    (
        "[gateway]\nalgorithm = \"none\"",
        &["3:1: `gateway.algorithm` is `none`, which is none of HS256, RS256, ES256"],
    ),
    (
        "[gateway]\nalgorithm = \"RS256\"",
        &["3:1: `gateway.algorithm` is RS256, which needs `gateway.jwks`"],
    ),
    (
        "[gateway]\njwks = \"keys.json\"",
        &["3:1: `gateway.jwks` is given, but `gateway.algorithm` is HS256 by default"],
    ),
    (
        "[gateway]\ncertificate = \"cert.pem\"",
        &["3:1: `gateway.certificate` is given without `gateway.private_key`"],
    ),
    (
        "[gateway]\nprivate_key = \"key.pem\"\ncertificate = \"\"",
        &["3:1: `gateway.private_key` is given without `gateway.certificate`"],
    ),
    (
        "[gateway]\nkey = \"x\"",
        &["3:1: unknown key `key` in [gateway]; credentials belong in the environment"],
    ),
    (
        "[gateway]\nissuer = \"\"\norigins = \" \"",
        &[
            "3:1: `gateway.issuer` is empty",
            "4:1: `gateway.origins` is empty",
        ],
    ),
    (
        "[gateway]\norigins = \"*\"",
        &["3:1: `gateway.origins` holds `*`; an origin begins with https:// or http://"],
    ),
    (
        "[gateway]\norigins = \"https://a.example/\"",
        &[
            "3:1: `gateway.origins` holds `https://a.example/`; an origin is scheme, host in lower case and perhaps port, such as `https://map.example:8443`, without a path",
        ],
    ),
    (
        "[gateway]\norigins = \"http://a.example, https://a.example:443\"",
        &[
            "3:1: `gateway.origins` holds `https://a.example:443`; browsers leave out port 443, so write `https://a.example`",
        ],
    ),
    (
        "[gateway]\nhandshake_ms = 500\naddress_per_min = 60",
        &[
            "3:1: unknown key `handshake_ms` in [gateway]; did you mean `handshake_s`?",
            "4:1: unknown key `address_per_min` in [gateway]; did you mean `address_per_s`?",
        ],
    ),
    // Keys.
    (
        "[orders]\nnear_metre = 500",
        &["3:1: unknown key `near_metre` in [orders]; did you mean `near_m`?"],
    ),
    (
        "[orders]\nnaer_m = 500",
        &["3:1: unknown key `naer_m` in [orders]; did you mean `near_m`?"],
    ),
    (
        "orders.near_mm = 500",
        &["2:8: unknown key `near_mm` in [orders]; did you mean `near_m`?"],
    ),
    (
        "[kafka]\nbootstrap_servers = \"localhost:9092\"",
        &["3:1: unknown key `bootstrap_servers` in [kafka]"],
    ),
    (
        "[clickhouse]\nbatch_size = 1000",
        &["3:1: unknown key `batch_size` in [clickhouse]; did you mean `batch_rows`?"],
    ),
    (
        "[drivers]\nnear_m = 500",
        &["3:1: unknown key `near_m` in [drivers]; it belongs in [orders]"],
    ),
    (
        "near_m = 500",
        &["2:1: unknown key `near_m` above the first table; it belongs in [orders]"],
    ),
    (
        "enabled = true",
        &[
            "2:1: unknown key `enabled` above the first table; it belongs in [clickhouse] or [windows]",
        ],
    ),
    (
        "[clickhouse]\npassword = \"hunter2\"",
        &["3:1: unknown key `password` in [clickhouse]; credentials belong in the environment"],
    ),
    (
        "[orders.near]\nm = 5",
        &["2:9: unknown key `near` in [orders]; did you mean `near_m`?"],
    ),
    // Units.
    (
        "[orders]\nnear_km = 0.5",
        &["3:1: unknown key `near_km` in [orders]; did you mean `near_m`?"],
    ),
    (
        "[drivers]\nsilent_ms = 30000",
        &["3:1: unknown key `silent_ms` in [drivers]; did you mean `silent_s`?"],
    ),
    (
        "[clickhouse]\nbatch_s = 1",
        &["3:1: unknown key `batch_s` in [clickhouse]; did you mean `batch_ms`?"],
    ),
    (
        "[clickhouse]\nbatch = 1",
        &["3:1: unknown key `batch` in [clickhouse]; did you mean `batch_rows` or `batch_ms`?"],
    ),
    (
        "[updates]\nmax_speed_kmh = 250",
        &["3:1: unknown key `max_speed_kmh` in [updates]; did you mean `max_speed_mps`?"],
    ),
    (
        "[orders]\narrive_min = 1",
        &["3:1: unknown key `arrive_min` in [orders]; did you mean `arrive_s`?"],
    ),
    (
        "[orders]\nnear_m = \"500 m\"",
        &["3:1: `orders.near_m` takes a plain number in metres, not text; write `near_m = 500`"],
    ),
    (
        "[orders]\nnear_m = \"0.5 km\"",
        &["3:1: `orders.near_m` takes a plain number in metres, not text; write `near_m = 500`"],
    ),
    (
        "[orders]\nnear_m = \"5 s\"",
        &["3:1: `orders.near_m` takes a plain number in metres, not text"],
    ),
    (
        "[orders]\nnear_m = 500 m",
        &["3:10: `orders.near_m` takes a plain number in metres; write `near_m = 500`"],
    ),
    (
        "[clickhouse]\nbatch_ms = \"1s\"",
        &[
            "3:1: `clickhouse.batch_ms` takes a whole number of milliseconds, not text; write `batch_ms = 1000`",
        ],
    ),
    (
        "[updates]\nmax_bytes = \"16 KiB\"",
        &[
            "3:1: `updates.max_bytes` takes a whole number of bytes, not text; write `max_bytes = 16384`",
        ],
    ),
    // Types.
    (
        "[orders]\nnear_repeat = \"yes\"",
        &["3:1: `orders.near_repeat` takes true or false, not text; write `near_repeat = true`"],
    ),
    (
        "[orders]\nnear_repeat = True",
        &["3:15: `orders.near_repeat` takes true or false; write `near_repeat = true`"],
    ),
    (
        "[clickhouse]\nbatch_rows = 1e5",
        &[
            "3:1: `clickhouse.batch_rows` takes a whole number of rows, not the number 1e5; write `batch_rows = 100000`",
        ],
    ),
    (
        "[kafka]\nbrokers = [\"a:9092\"]",
        &["3:1: `kafka.brokers` takes text in quotes, not a list"],
    ),
    (
        "[kafka]\nbrokers = localhost:9092",
        &["3:11: `kafka.brokers` takes text in quotes; write `brokers = \"localhost:9092\"`"],
    ),
    (
        "[drivers]\nsilent_s = 1979-05-27",
        &["3:1: `drivers.silent_s` takes a plain number in seconds, not a date"],
    ),
    (
        "[routes]\nsouth = \"0\"",
        &["3:1: `routes.south` takes a partition, not text"],
    ),
    // Ranges.
    (
        "[clickhouse]\nbatch_rows = 0",
        &["3:1: `clickhouse.batch_rows` is 0; it must be 1 to 1000000 rows"],
    ),
    (
        "[clickhouse]\nbatch_rows = 1_000_001",
        &["3:1: `clickhouse.batch_rows` is 1000001; it must be 1 to 1000000 rows"],
    ),
    (
        "[clickhouse]\nbatch_ms = 9",
        &["3:1: `clickhouse.batch_ms` is 9; it must be 10 to 600000 milliseconds"],
    ),
    (
        "[epoch]\ninterval_ms = 10001",
        &["3:1: `epoch.interval_ms` is 10001; it must be 10 to 10000 milliseconds"],
    ),
    (
        "[updates]\nmax_bytes = 1048577",
        &["3:1: `updates.max_bytes` is 1048577; it must be 1 to 1048576 bytes"],
    ),
    (
        "[topics]\npartitions = 0",
        &["3:1: `topics.partitions` is 0; it must be 1 to 1024 partitions"],
    ),
    (
        "[topics]\npartitions = 99999999999999999999999999999999999999999",
        &[
            "3:1: `topics.partitions` is 99999999999999999999999999999999999999999; it must be 1 to 1024 partitions",
        ],
    ),
    (
        "[orders]\nnear_m = 0",
        &["3:1: `orders.near_m` is 0; it must be over 0 metres"],
    ),
    (
        "[orders]\narrive_s = -1.5",
        &["3:1: `orders.arrive_s` is -1.5; it must be 0 or more seconds"],
    ),
    (
        "[drivers]\nsilent_s = inf",
        &["3:1: `drivers.silent_s` is inf; it must be a finite number"],
    ),
    (
        "[drivers]\nsilent_s = nan",
        &["3:1: `drivers.silent_s` is nan; it must be a finite number"],
    ),
    (
        "[windows]\nhorizon_s = 1e10",
        &["3:1: `windows.horizon_s` is 1e10; it must be at most 1000000000 seconds"],
    ),
    // Between keys.
    (
        "[orders]\nnear_m = 800\nrearm_m = 750",
        &["4:1: `orders.rearm_m` is 750; `orders.near_m` is 800, and it can't be less"],
    ),
    (
        "[orders]\nnear_m = 800",
        &["3:1: `orders.near_m` is 800; `orders.rearm_m` is 700 by default, and it can't be more"],
    ),
    (
        "[orders]\ndepart_m = 50",
        &["3:1: `orders.depart_m` is 50; `orders.arrive_m` is 60 by default, and it can't be less"],
    ),
    (
        "[windows]\nsession_gap_s = 90000",
        &[
            "3:1: `windows.session_gap_s` is 90000; `windows.horizon_s` is 86400 by default, and it can't be more",
        ],
    ),
    (
        "[windows]\nhop_s = 90",
        &["3:1: `windows.hop_s` is 90; `windows.size_s` is 60 by default, and it can't be more"],
    ),
    (
        "[windows]\nhop_s = 25",
        &["3:1: `windows.hop_s` is 25; `windows.size_s` is 60, which is not a multiple of it"],
    ),
    (
        "[windows]\nsize_s = 300\nhorizon_s = 200\nsession_gap_s = 100",
        &["4:1: `windows.horizon_s` is 200; `windows.size_s` is 300, and it can't be less"],
    ),
    (
        "[routes]\nsouth = 0\nnorth = 2",
        &["4:1: `routes.north` is 2; `topics.partitions` is 2, so it must be 0 to 1"],
    ),
    (
        "[routes]\nsouth = -1",
        &["3:1: `routes.south` is -1; `topics.partitions` is 2, so it must be 0 to 1"],
    ),
    (
        "[routes]\ndefualt = 1",
        &["3:1: unknown row `defualt` in [routes]; did you mean `default`?"],
    ),
    // Text.
    (
        "[kafka]\nbrokers = \" \"",
        &["3:1: `kafka.brokers` is empty"],
    ),
    (
        "[kafka]\nbrokers = \"a:9092,,b:9092\"",
        &["3:1: `kafka.brokers` has an empty entry; write `host:port,host:port`"],
    ),
    (
        "[kafka]\nbrokers = \"http://a:9092\"",
        &["3:1: `kafka.brokers` holds `http://a:9092`; write `host:port`"],
    ),
    (
        "[kafka]\nbrokers = \"a:99999\"",
        &["3:1: `kafka.brokers` holds `a:99999`; its port must be 1 to 65535"],
    ),
    (
        "[clickhouse]\nurl = \"localhost:8123\"",
        &[
            "3:1: `clickhouse.url` is `localhost:8123`; it must begin with http:// or https://: add `http://`",
        ],
    ),
    (
        "[clickhouse]\nurl = \"tcp://localhost:9000\"",
        &[
            "3:1: `clickhouse.url` is `tcp://localhost:9000`; it must begin with http:// or https://",
        ],
    ),
    (
        "[clickhouse]\nurl = \"http://:8123\"",
        &["3:1: `clickhouse.url` is `http://:8123`, which has no host"],
    ),
    (
        "[clickhouse]\nurl = \"http://me:secret@localhost:8123\"",
        &[
            "3:1: `clickhouse.url` holds credentials; set RIDERFLOW_CLICKHOUSE_USER and RIDERFLOW_CLICKHOUSE_PASSWORD",
        ],
    ),
    (
        "[snapshots]\nurl = \"ftp://host/path\"",
        &[
            "3:1: `snapshots.url` is `ftp://host/path`; snapshots go to a folder or to file://, s3://, s3a://, gs://, az://, abfs://, abfss://, http://, https://, not to `ftp://`",
        ],
    ),
    (
        "[snapshots]\nurl = \"file://folder\"",
        &["3:1: `snapshots.url` is `file://folder`; file:// takes an absolute path"],
    ),
    (
        "[snapshots]\nurl = \"s3:///path\"",
        &["3:1: `snapshots.url` is `s3:///path`, which has no bucket"],
    ),
    (
        "[snapshots]\nurl = \"https:///path\"",
        &["3:1: `snapshots.url` is `https:///path`, which has no host"],
    ),
    (
        "[snapshots]\nurl = \"https://me:secret@host/path\"",
        &[
            "3:1: `snapshots.url` holds credentials; set them in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ],
    ),
    (
        "[snapshots]\nurl = \"az://container/path?sig=secret\"",
        &["3:1: `snapshots.url` holds `?`, which is not allowed"],
    ),
    // Syntax.
    (
        "name = \"y\"",
        &["2:1: duplicate key `name`; the first is at line 1"],
    ),
    (
        "[orders]\nnear_m = 5\nnear_m = 6",
        &["4:1: duplicate key `near_m` in [orders]; the first is at line 3"],
    ),
    (
        "[orders]\nnear_m = 5\n[orders]\nrearm_m = 6",
        &["4:2: duplicate table [orders]; the first is at line 2"],
    ),
    (
        "[kafka\nbrokers = \"a\"",
        &["2:7: syntax error: unclosed table, expected `]`"],
    ),
    ("[orders]\nnear_m =", &["3:9: `near_m` has no value"]),
    (
        "[orders]\nnear_m",
        &["3:7: syntax error: key with no value, expected `=`"],
    ),
    (
        "[kafka]\nbrokers = \"a",
        &["3:13: syntax error: invalid basic string, expected `\"`"],
    ),
    // Several at once, in the order of the file.
    (
        "[clickhose]\nbatch_rows = 1\n[orders]\nnear_km = 1\nrearm_m = -2\n[kafka]\nbroker = \"a\"",
        &[
            "2:2: unknown operator or sink `clickhose`; did you mean `clickhouse`?",
            "5:1: unknown key `near_km` in [orders]; did you mean `near_m`?",
            "6:1: `orders.rearm_m` is -2; it must be over 0 metres",
            "8:1: unknown key `broker` in [kafka]; did you mean `brokers`?",
        ],
    ),
    (
        "[kafka]\nbrokers = localhost\n[orders]\nnear_k = 4",
        &[
            "3:11: `kafka.brokers` takes text in quotes; write `brokers = \"localhost\"`",
            "5:1: unknown key `near_k` in [orders]; did you mean `near_m`?",
        ],
    ),
];

#[test]
fn every_bad_file_is_told_where_and_what() {
    for (text, expected) in BAD {
        let text = format!("name = \"x\"\n{text}\n");
        assert_eq!(&first_lines(&text), expected, "in\n{text}");
    }
}

#[test]
fn the_name_is_required_and_must_be_legal() {
    let long = format!("name = \"{}\"", "n".repeat(101));
    for (text, expected) in [
        (
            "",
            "1:1: missing key `name`, the consumer group and the transactional.id",
        ),
        (
            "nmae = \"x\"",
            "1:1: unknown key `nmae` above the first table; did you mean `name`?",
        ),
        ("name = 3", "1:1: `name` takes text, not the number 3"),
        ("name = \"\"", "1:1: `name` is empty"),
        (
            "name = rider-alerts",
            "1:8: `name` takes text in quotes; write `name = \"rider-alerts\"`",
        ),
        (
            "name = \"rider alerts\"",
            "1:1: `name` holds ` `; only letters, digits, `.`, `_` and `-` are allowed",
        ),
        (
            "name = \"naïve\"",
            "1:1: `name` holds `ï`; only letters, digits, `.`, `_` and `-` are allowed",
        ),
        (
            long.as_str(),
            "1:1: `name` has 101 bytes; at most 100 are allowed",
        ),
    ] {
        assert_eq!(first_lines(text), [expected], "in {text}");
    }
    let longest = "n".repeat(100);
    assert!(Pipeline::parse(&format!("name = \"{longest}\""), "x.toml").is_ok());
}

#[test]
fn a_problem_is_printed_like_a_compilers() {
    let text = "name = \"x\"\n\n# thresholds\n[orders]\narrive_m = 50\n\nnear_km = 0.5 # wide\n";
    let error = Pipeline::parse(text, "pipelines/x.toml").unwrap_err();
    assert_eq!(
        error.to_string(),
        "pipelines/x.toml:7:1: unknown key `near_km` in [orders]; did you mean `near_m`?\n  \
           |\n\
         7 | near_km = 0.5 # wide\n  \
           | ^^^^^^^\n  \
           = `orders.near_m` is in metres: write `near_m = 500`\n  \
           = keys of [orders]: near_m, near_repeat, rearm_m, arrive_m, arrive_s, depart_m"
    );
}

#[test]
fn an_unknown_stage_is_told_which_exist() {
    let problems = problems_of("name = \"x\"\n[kafak]\n");
    assert_eq!(
        problems[0].help,
        [format!("stages that exist: {}", STAGES.join(", "))]
    );
}

#[test]
fn the_shipped_pipeline_is_valid_and_all_default() {
    let shipped = include_str!("../../pipelines/rider-alerts.toml");
    let pipeline = Pipeline::parse(shipped, "pipelines/rider-alerts.toml").unwrap();
    assert_eq!(pipeline, Pipeline::defaults("rider-alerts"));
}

#[test]
fn absent_keys_have_their_defaults_and_given_ones_their_values() {
    let text =
        "name = \"x\"\n[orders]\nnear_m = 650\narrive_s = 0\n[routes]\n\"Uttar Pradesh\" = 1\n";
    let pipeline = Pipeline::parse(text, "x.toml").unwrap();
    assert_eq!(pipeline.orders.near_m, 650.0);
    assert_eq!(pipeline.orders.arrive_s, 0.0);
    assert_eq!(pipeline.orders.rearm_m, 700.0);
    assert_eq!(
        pipeline.routes.0,
        BTreeMap::from([("Uttar Pradesh".into(), 1)])
    );
    assert_eq!(pipeline.kafka, Kafka::default());
}

#[test]
fn a_gateway_is_described_whole() {
    let text = "name = \"x\"\n[gateway]\nlisten = \"[::]:443\"\nalgorithm = \"ES256\"\n\
         jwks = \"keys.json\"\norigins = \"https://a.example, http://[::1]:8080\"\n\
         certificate = \"c.pem\"\nprivate_key = \"k.pem\"\nhandshake_s = 0.5\n";
    let gateway = Pipeline::parse(text, "x.toml").unwrap().gateway;
    let origins: Vec<_> = gateway.allowed_origins().collect();
    assert_eq!(origins, ["https://a.example", "http://[::1]:8080"]);
    assert_eq!(gateway.handshake_s, 0.5);
    assert_eq!(Gateway::default().allowed_origins().count(), 0);
}

#[test]
fn the_default_rows_fit_into_one_partition() {
    let pipeline = Pipeline::parse("name = \"x\"\ntopics.partitions = 1", "x.toml").unwrap();
    assert!(pipeline.routes.0.values().all(|partition| *partition == 0));
}

/// All keys of the run-time types with their defaults.
fn defaults_of_types() -> Vec<(String, Value)> {
    let defaults = serde_json::to_value(Pipeline::defaults("x")).unwrap();
    let mut keys = Vec::new();
    for (stage, table) in defaults.as_object().unwrap() {
        if let Some(table) = table.as_object().filter(|_| stage != "routes") {
            for (name, value) in table {
                keys.push((format!("{stage}.{name}"), value.clone()));
            }
        }
    }
    keys
}

#[test]
fn the_schema_and_the_types_have_the_same_keys_and_defaults() {
    let types: BTreeSet<String> = defaults_of_types().into_iter().map(|(k, _)| k).collect();
    let schema: BTreeSet<String> = KEYS.iter().map(Key::path).collect();
    assert_eq!(schema, types);
    let stages: BTreeSet<&str> = KEYS.iter().map(|k| k.stage).chain(["routes"]).collect();
    assert_eq!(stages, STAGES.into_iter().collect());
    // A file that spells out every default is the default.
    let lines = KEYS
        .iter()
        .map(|k| format!("{} = {}\n", k.path(), k.default));
    let text: String = std::iter::once("name = \"x\"\n".to_owned())
        .chain(lines)
        .collect();
    assert_eq!(
        Pipeline::parse(&text, "x.toml").unwrap(),
        Pipeline::defaults("x")
    );
}

#[test]
fn every_key_is_refused_with_any_letter_changed() {
    for key in KEYS {
        for index in 0..key.name.len() {
            let mut name = key.name.to_owned();
            name.replace_range(index..=index, "q");
            let text = format!("name = \"x\"\n[{}]\n{name} = {}\n", key.stage, key.default);
            let lines = first_lines(&text);
            let [line] = lines.as_slice() else {
                panic!("one problem in\n{text}, not {lines:?}");
            };
            assert!(line.starts_with("3:1: unknown key"), "{line}");
            assert!(line.contains("did you mean"), "{line}");
        }
    }
}

fn override_with(pairs: &[(&str, &str)]) -> Result<Pipeline, ConfigError> {
    let mut pipeline = Pipeline::defaults("x");
    pipeline.override_from(|name| {
        let pair = pairs.iter().find(|(known, _)| *known == name);
        pair.map(|(_, value)| (*value).to_owned())
    })?;
    Ok(pipeline)
}

#[test]
fn the_environment_overrides_the_file() {
    let pipeline = override_with(&[
        ("RIDERFLOW_KAFKA", "kafka:29092"),
        ("RIDERFLOW_CLICKHOUSE", "https://rows.example:8443"),
        ("RIDERFLOW_CLICKHOUSE_USER", "writer"),
        ("RIDERFLOW_CLICKHOUSE_PASSWORD", "hunter2"),
        ("RIDERFLOW_GATEWAY_KEY", "hunter2-of-the-gateway"),
    ])
    .unwrap();
    let key = pipeline.gateway.key.as_ref().unwrap();
    assert_eq!(key.expose(), "hunter2-of-the-gateway");
    assert_eq!(pipeline.kafka.brokers, "kafka:29092");
    assert_eq!(pipeline.clickhouse.url, "https://rows.example:8443");
    assert_eq!(pipeline.clickhouse.user.as_deref(), Some("writer"));
    let password = pipeline.clickhouse.password.as_ref().unwrap();
    assert_eq!(password.expose(), "hunter2");
    for printed in [
        format!("{pipeline:?}"),
        serde_json::to_string(&pipeline).unwrap(),
    ] {
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}

#[test]
fn an_empty_variable_counts_as_unset_and_a_wrong_one_is_named() {
    let pipeline = override_with(&[("RIDERFLOW_KAFKA", ""), ("RIDERFLOW_CLICKHOUSE", " ")]);
    assert_eq!(pipeline.unwrap(), Pipeline::defaults("x"));
    let error = override_with(&[("RIDERFLOW_CLICKHOUSE", "rows:8123")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment: RIDERFLOW_CLICKHOUSE is `rows:8123`; it must begin with http:// or https://: add `http://`"
    );
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.toml");
    let error = load(&path).unwrap_err().to_string();
    assert!(
        error.contains("x.toml: could not read it: No such file"),
        "{error}"
    );
    std::fs::write(&path, b"name = \"\xff\"").unwrap();
    let error = load(&path).unwrap_err().to_string();
    assert!(error.contains("x.toml: it is not UTF-8"), "{error}");
}

#[test]
fn snapshots_go_to_a_folder() {
    for (url, folder) in [
        ("./riderflow-state", "./riderflow-state"),
        ("file:///var/lib/riderflow", "/var/lib/riderflow"),
    ] {
        let text = format!("name = \"x\"\nsnapshots.url = \"{url}\"");
        let pipeline = Pipeline::parse(&text, "x.toml").unwrap();
        assert_eq!(pipeline.snapshots.folder(), Path::new(folder));
    }
}

#[test]
fn snapshots_go_to_an_object_store() {
    for url in [
        "s3://bucket",
        "s3a://bucket/path",
        "gs://bucket/path",
        "az://container/path",
        "abfs://container@account/path",
        "abfss://container@account.dfs.core.windows.net/path",
        "http://localhost:8080/path",
        "https://account.blob.core.windows.net/container/path",
    ] {
        let text = format!("name = \"x\"\nsnapshots.url = \"{url}\"");
        let pipeline = Pipeline::parse(&text, "x.toml").expect(url);
        assert_eq!(pipeline.snapshots.url, url);
    }
}

proptest! {
    /// Whatever the file holds, there is an answer, every problem has a place that exists, and
    /// what passes the checks also becomes a pipeline.
    #[test]
    fn no_text_is_too_strange(
        lines in prop::collection::vec(
            "(name|\\[orders\\]|\\[routes\\]|near_m|near_km|\\[\\[kafka|é|\\[x\\.y\\]|[a-z_.]{1,6})? ?(=|\\]|)? ?(\"x\"|5|-1|1e400|nan|true|\"5 km|\\[1,|\\{a=1\\}|\u{feff}|\t)?\r?",
            0..8,
        )
    ) {
        let text = lines.join("\n");
        for problem in problems_of(&text) {
            let at = problem.at.expect("a problem of a file has a place");
            prop_assert!(at.line >= 1 && at.line <= text.lines().count().max(1) + 1);
        }
    }
}

//! `gateway` and `token` as a user or a supervisor meets them: what is printed where, the exit
//! codes, and a real Kafka behind.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use riderflow::config::{Pipeline, Secret};
use riderflow::gateway::{Subject, access_of};
use rustix::process::{Pid, Signal, kill_process};

#[path = "common/kafka.rs"]
mod kafka_alone;

use kafka_alone::Kafka;

const RIDERFLOW: &str = env!("CARGO_BIN_EXE_riderflow");
const KEY: &str = "0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(60);

fn kafka() -> Kafka {
    kafka_alone::kafka("gateway_commands", |_| {})
}

/// A folder with a pipeline file.
struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn pipeline(text: &str) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.toml");
    std::fs::write(
        &path,
        format!("name = \"gateways\"\nclickhouse.enabled = false\n{text}"),
    )
    .unwrap();
    File {
        _folder: folder,
        path,
    }
}

fn riderflow(words: &[&str], file: &File) -> Command {
    let mut command = Command::new(RIDERFLOW);
    command
        .arg(words[0])
        .arg(&file.path)
        .args(&words[1..])
        .env_remove("RIDERFLOW_KAFKA")
        .env("RIDERFLOW_GATEWAY_KEY", KEY)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn a_token_is_all_that_is_printed() {
    let file = pipeline("[gateway]\nissuer = \"me\"\naudience = \"phones\"\n");
    let mut parsed =
        Pipeline::parse(&std::fs::read_to_string(&file.path).unwrap(), "x.toml").unwrap();
    parsed.gateway.key = Some(Secret::new(KEY));
    let access = access_of(&parsed.gateway).unwrap();
    for (words, subject, lifetime_s) in [
        (vec!["token", "driver/453"], "driver/453", 3_600),
        (vec!["token", "order/o-1", "--for", "90s"], "order/o-1", 90),
        (vec!["token", "fleet", "--for", "2d"], "fleet", 172_800),
    ] {
        let output = riderflow(&words, &file).output().unwrap();
        let (code, stdout, stderr) = told(&output);
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        let token = stdout.strip_suffix('\n').unwrap();
        let grant = access.check(token).unwrap();
        assert_eq!(grant.subject, subject.parse::<Subject>().unwrap());
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let left_s = grant.expires_at_ms / 1_000 - i64::try_from(now.as_secs()).unwrap();
        assert!((left_s - lifetime_s).abs() <= 10, "{left_s} s");
    }
}

#[test]
fn no_token_is_printed_for_nobody_or_without_a_key() {
    let plain = pipeline("");
    let by_file = pipeline("[gateway]\nalgorithm = \"ES256\"\njwks = \"absent.json\"\n");
    let public = pipeline(&format!(
        "[gateway]\nalgorithm = \"ES256\"\njwks = \"{}\"\n",
        jwks().display()
    ));
    for (file, words, key, code, says) in [
        (&plain, vec!["token", "rider/1"], Some(KEY), 2, "driver/453"),
        (
            &plain,
            vec!["token", "fleet", "--for", "1"],
            Some(KEY),
            2,
            "90s",
        ),
        (
            &plain,
            vec!["token", "fleet"],
            None,
            3,
            "set RIDERFLOW_GATEWAY_KEY",
        ),
        (
            &plain,
            vec!["token", "fleet"],
            Some("short"),
            3,
            "holds 5 bytes",
        ),
        (
            &by_file,
            vec!["token", "fleet"],
            None,
            3,
            "absent.json: No such file",
        ),
        (
            &public,
            vec!["token", "fleet"],
            Some(KEY),
            1,
            "only the public keys",
        ),
    ] {
        let mut command = riderflow(&words, file);
        match key {
            Some(key) => command.env("RIDERFLOW_GATEWAY_KEY", key),
            None => command.env_remove("RIDERFLOW_GATEWAY_KEY"),
        };
        let (found, stdout, stderr) = told(&command.output().unwrap());
        assert_eq!((found, stdout.as_str()), (Some(code), ""), "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
        assert!(!stderr.contains(KEY), "{stderr}");
    }
}

/// A file with a public key that nobody has the private one of.
fn jwks() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gateway_commands-jwks.json");
    // RFC 7517, appendix A.1.
    let text = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"1",
        "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_gateway_that_cannot_start_says_why() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = nobody.local_addr().unwrap();
    // Bound and never accepted from: no Kafka answers there.
    let away = pipeline(&format!("kafka.brokers = \"{taken}\"\n"));
    let words = [
        "gateway",
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
    ];
    let mut no_key = riderflow(&words, &away);
    no_key.env_remove("RIDERFLOW_GATEWAY_KEY");
    let (code, _, stderr) = told(&no_key.output().unwrap());
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("set RIDERFLOW_GATEWAY_KEY"), "{stderr}");

    let (code, _, stderr) = told(&riderflow(&words, &away).output().unwrap());
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains(&taken.to_string()), "{stderr}");

    let kafka = kafka();
    let file = pipeline(&format!(
        "kafka.brokers = \"{}\"\n[gateway]\nlisten = \"{taken}\"\n",
        kafka.brokers
    ));
    init(&file);
    let words = ["gateway", "--http", "127.0.0.1:0"];
    let (code, _, stderr) = told(&riderflow(&words, &file).output().unwrap());
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains(&format!("could not listen at {taken}")) && stderr.contains("--listen"),
        "{stderr}"
    );
}

fn init(file: &File) {
    let output = riderflow(&["init"], file).output().unwrap();
    assert!(output.status.success(), "{}", told(&output).2);
}

/// A running gateway; killed when it is dropped.
struct Running {
    child: Child,
    address: SocketAddr,
    http: SocketAddr,
    log: std::sync::mpsc::Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended where all is well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(file: &File) -> Running {
    let words = [
        "gateway",
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
    ];
    let mut child = riderflow(&words, file).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (to_log, log) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            eprintln!("{line}");
            let _ = to_log.send(line);
        }
    });
    let mut running = Running {
        child,
        address: SocketAddr::from(([0, 0, 0, 0], 0)),
        http: SocketAddr::from(([0, 0, 0, 0], 0)),
        log,
    };
    let line = running.line("gateways: gateway at ");
    let (address, http) = line.split_once("; metrics at http://").unwrap();
    running.address = address.strip_prefix("http://").unwrap().parse().unwrap();
    running.http = http.strip_suffix("/metrics").unwrap().parse().unwrap();
    running
}

impl Running {
    /// What follows `start` in the line that begins so.
    fn line(&self, start: &str) -> String {
        loop {
            let line = self.log.recv_timeout(PATIENCE).expect("it says so in time");
            if let Some(rest) = line.strip_prefix(start) {
                return rest.to_owned();
            }
        }
    }

    fn terminate(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it did not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn gateways_run_side_by_side_and_leave_when_they_are_asked_to() {
    let kafka = kafka();
    let file = pipeline(&format!(
        "kafka.brokers = \"{}\"\ngateway.handshake_s = 3\n",
        kafka.brokers
    ));
    init(&file);
    let mut one = start(&file);
    let mut two = start(&file);
    for running in [&one, &two] {
        let answer = get(running.address, "/v1/nothing");
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        assert!(answer.ends_with(r#"{"error":"not_found"}"#), "{answer}");
        assert!(
            answer.contains("x-content-type-options: nosniff"),
            "{answer}"
        );
        let answer = get(running.address, "/v1/nothing?token=a.b.c");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        // It first reads what Kafka has, to show it.
        let deadline = Instant::now() + PATIENCE;
        while !get(running.http, "/readyz").starts_with("HTTP/1.1 200 ") {
            assert!(
                Instant::now() < deadline,
                "{}",
                get(running.http, "/readyz")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(get(running.http, "/livez").starts_with("HTTP/1.1 200 "));
        let metrics = get(running.http, "/metrics");
        let counted = "riderflow_gateway_turned_away_total{reason=\"token_in_query\"} 1\n";
        assert!(metrics.contains(counted), "{metrics}");
    }
    // Half a second request, which the gateway waits for, but not for long.
    let mut half = TcpStream::connect(one.address).unwrap();
    half.set_read_timeout(Some(PATIENCE)).unwrap();
    half.write_all(b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut first = [0; 1_024];
    assert!(half.read(&mut first).unwrap() > 0);
    half.write_all(b"GET /y HTTP/1.1\r\nho").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    one.terminate();
    one.line("gateways: stopping");
    let begun = Instant::now();
    loop {
        let answer = get(one.http, "/readyz");
        if answer.starts_with("HTTP/1.1 503 ") {
            assert!(
                answer.contains("waiting for: accepting connections"),
                "{answer}"
            );
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "{answer}");
    }
    assert!(
        TcpStream::connect(one.address).is_err(),
        "nobody is accepted"
    );
    assert_eq!(one.ended().code(), Some(0));
    let answer = get(two.address, "/v1/nothing");
    assert!(
        answer.starts_with("HTTP/1.1 404 "),
        "the other goes on: {answer}"
    );
    two.terminate();
    assert_eq!(two.ended().code(), Some(0));
}

//! Several processes, real ones: they find each other or say why not, agree, and end together,
//! whoever is killed, stopped or held.
//!
//! The processes are this binary again: [`member`], a small dataflow in the job's place.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use riderflow::runtime::cluster::{
    Cluster, ClusterError, Event, Identity, Limits, Links, Status, agree,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::vec::Input;
use timely::dataflow::operators::{Exchange, Inspect, Probe};
use timely::worker::Worker;

const MEMBER: &str = "RIDERFLOW_TEST_MEMBER";
/// More than a message of the network layer, and not a multiple of one.
const AGREED_BYTES: usize = 3_000_001;
/// For a process to get as far as a test needs it, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// For what the first worker has yet to do at a stop.
const LEFT_TO_DO: Duration = Duration::from_millis(700);
/// The contract's: all others end within it when one dies.
const TOGETHER: Duration = Duration::from_secs(2);

/// What one process of a test is.
#[derive(Clone, Serialize, Deserialize)]
struct Member {
    processes: usize,
    process: usize,
    hosts: PathBuf,
    workers: usize,
    version: String,
    pipeline: String,
    settings: u64,
    forming_ms: u64,
    silence_ms: u64,
    /// It fails once it runs.
    fails: bool,
}

// ---------------------------------------------------------------------------------------------
// In a process.

/// A process of a cluster, if the environment says so; nothing in a test run.
#[test]
fn member() {
    let Ok(text) = std::env::var(MEMBER) else {
        return;
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let member: Member = serde_json::from_str(&text).unwrap();
    let code = match run(&member) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("error: {error}");
            1
        }
    };
    println!("exit {code}");
    std::process::exit(code);
}

/// What a job has of this: a wish to stop and the first failure.
#[derive(Default)]
struct Control {
    stop: AtomicBool,
    failure: Mutex<Option<ClusterError>>,
}

impl Control {
    fn fail(&self, error: ClusterError) {
        self.failure.lock().unwrap().get_or_insert(error);
        self.stop.store(true, Ordering::Release);
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn status(&self) -> Status {
        if self.failure.lock().unwrap().is_some() {
            Status::Failed
        } else if self.stopping() {
            Status::Stopping
        } else {
            Status::Running
        }
    }
}

fn run(member: &Member) -> Result<(), ClusterError> {
    let control = Arc::new(Control::default());
    stop_at_sigterm(Arc::clone(&control));
    let cluster = Cluster::read(member.processes, member.process, &member.hosts)?;
    let identity = Identity {
        version: member.version.clone(),
        pipeline: member.pipeline.clone(),
        settings: member.settings,
        workers: member.workers,
    };
    let limits = Limits {
        forming: Duration::from_millis(member.forming_ms),
        silence: Duration::from_millis(member.silence_ms),
    };
    let Some(formed) = cluster.form(&identity, limits, || control.stopping())? else {
        println!("stopped before the start");
        return Ok(());
    };
    let (watched, told) = (Arc::clone(&control), Arc::clone(&control));
    let running = formed.watch(
        move || watched.status(),
        move |event| match event {
            Event::Stop(process) => {
                eprintln!("process {process} stops, and so does this one");
                told.stop.store(true, Ordering::Release);
            }
            Event::Fail(error) => told.fail(error),
        },
    )?;
    let links = running.links();
    let in_workers = Arc::clone(&control);
    let fails = member.fails;
    running.execute(move |worker| work(worker, &in_workers, &links, fails))?;
    control.failure.lock().unwrap().take().map_or(Ok(()), Err)
}

fn stop_at_sigterm(control: Arc<Control>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    std::thread::spawn(move || {
        runtime.block_on(async {
            let kind = tokio::signal::unix::SignalKind::terminate();
            tokio::signal::unix::signal(kind).unwrap().recv().await;
        });
        control.stop.store(true, Ordering::Release);
    });
}

fn plan() -> Vec<u8> {
    (0..AGREED_BYTES).map(|at| (at * 31 % 251) as u8).collect()
}

/// Numbers from every worker to every worker, an epoch after the other.
fn work(worker: &mut Worker, control: &Control, links: &Links, fails: bool) {
    let own = (worker.index() == 0).then(plan);
    let Some(agreed) = agree(worker, own, || control.stopping()) else {
        return;
    };
    assert!(
        agreed == plan(),
        "worker {} has another plan",
        worker.index()
    );
    println!("agreed {}", worker.index());

    let peers = worker.peers() as u64;
    let (mut input, probe) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, numbers) = scope.new_input::<u64>();
        let (probe, _) = numbers
            .exchange(|number| *number)
            .inspect(move |number| assert!(*number < 1000 * peers))
            .probe();
        (input, probe)
    });
    let mut epoch = 0;
    let mut said = false;
    while !control.stopping() {
        if probe.less_than(&epoch) {
            worker.step_or_park(Some(Duration::from_millis(20)));
            continue;
        }
        // Always something on its way, and room for the other tests.
        std::thread::sleep(Duration::from_millis(1));
        if epoch == 20 && !said {
            said = true;
            println!("works {}", worker.index());
            if fails {
                control.fail(ClusterError::Workers("on purpose".into()));
            }
        }
        for number in 0..1000 * peers {
            input.send(number);
        }
        epoch += 1;
        input.advance_to(epoch);
    }
    leave(worker, control, links);
    for dataflow in worker.installed_dataflows() {
        worker.drop_dataflow(dataflow);
    }
}

/// The first worker has something left to do, and the others stay for it.
fn leave(worker: &mut Worker, control: &Control, links: &Links) {
    let asked = Instant::now();
    if worker.index() == 0 && control.status() == Status::Stopping {
        while asked.elapsed() < LEFT_TO_DO {
            worker.step_or_park(Some(Duration::from_millis(1)));
        }
    }
    links.finish_worker(worker.index());
    while !links.all_finished() && asked.elapsed() < PATIENCE {
        worker.step_or_park(Some(Duration::from_millis(1)));
    }
    println!(
        "left {} after {} ms",
        worker.index(),
        asked.elapsed().as_millis()
    );
}

// ---------------------------------------------------------------------------------------------
// In the test.

/// Processes that are killed if the test fails.
struct Lab {
    folder: tempfile::TempDir,
    plan: Member,
    members: Vec<Process>,
}

struct Process {
    number: usize,
    child: Child,
    out: PathBuf,
    err: PathBuf,
    ended: Option<(Instant, ExitStatus)>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Held or running, it ends; one that has ended was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// From below the kernel's range for outgoing connections, so that none of them takes it.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 1000) as u16 * 16;
    loop {
        let port = 14_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 16_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn lab(processes: usize) -> Lab {
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    let lines = (0..processes).map(|_| format!("127.0.0.1:{}\n", free_port()));
    std::fs::write(&hosts, lines.collect::<String>()).unwrap();
    Lab {
        folder,
        plan: Member {
            processes,
            process: 0,
            hosts,
            workers: 2,
            version: "0.1.0".into(),
            pipeline: "riders".into(),
            settings: 7,
            forming_ms: 60_000,
            silence_ms: 10_000,
            fails: false,
        },
        members: Vec::new(),
    }
}

impl Lab {
    fn address(&self, process: usize) -> String {
        let hosts = std::fs::read_to_string(&self.plan.hosts).unwrap();
        hosts.lines().nth(process).unwrap().to_owned()
    }

    /// Starts a process as planned, but for what `change` does; its place in `members`.
    fn start_with(&mut self, process: usize, change: impl FnOnce(&mut Member)) -> usize {
        let mut member = self.plan.clone();
        member.process = process;
        change(&mut member);
        let place = self.members.len();
        let file = |kind: &str| self.folder.path().join(format!("{place}.{kind}"));
        let (out, err) = (file("out"), file("err"));
        let create = |path: &Path| std::fs::File::create(path).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["member", "--exact", "--nocapture"])
            .env(MEMBER, serde_json::to_string(&member).unwrap())
            .stdout(create(&out))
            .stderr(create(&err))
            .spawn()
            .unwrap();
        self.members.push(Process {
            number: process,
            child,
            out,
            err,
            ended: None,
        });
        place
    }

    fn start(&mut self, process: usize) -> usize {
        self.start_with(process, |_| {})
    }

    fn start_all(&mut self) {
        for process in 0..self.plan.processes {
            self.start(process);
        }
    }

    fn out(&self, place: usize) -> String {
        std::fs::read_to_string(&self.members[place].out).unwrap()
    }

    fn err(&self, place: usize) -> String {
        std::fs::read_to_string(&self.members[place].err).unwrap()
    }

    /// Waits until all of `places` run.
    fn await_running(&mut self, places: impl IntoIterator<Item = usize>) {
        for place in places {
            self.await_out(place, "works ");
        }
    }

    fn await_out(&mut self, place: usize, text: &str) {
        self.await_that(place, text, |lab| lab.out(place).contains(text));
    }

    fn await_err(&mut self, place: usize, text: &str) {
        self.await_that(place, text, |lab| lab.err(place).contains(text));
    }

    fn await_that(&mut self, place: usize, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            let ended = self.look(place);
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "member {place}: no `{what}`, {ended:?}\n{}\n{}",
                self.out(place),
                self.err(place)
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn look(&mut self, place: usize) -> Option<(Instant, ExitStatus)> {
        let member = &mut self.members[place];
        if member.ended.is_none() {
            let status = member.child.try_wait().unwrap();
            member.ended = status.map(|status| (Instant::now(), status));
        }
        member.ended
    }

    /// How long each worker stayed after it was to stop.
    fn left_after_ms(&self, place: usize) -> Vec<u128> {
        let out = self.out(place);
        let lines = out.lines().filter(|line| line.starts_with("left "));
        let waits: Vec<u128> = lines
            .map(|line| line.split(' ').nth(3).unwrap().parse().unwrap())
            .collect();
        assert_eq!(waits.len(), self.plan.workers, "{out}");
        waits
    }

    fn signal(&self, place: usize, signal: Signal) {
        let pid = Pid::from_child(&self.members[place].child);
        kill_process(pid, signal).unwrap();
    }

    /// Waits until `places` have ended with this exit code, all within `limit` of `since`.
    fn await_ends(&mut self, places: &[usize], code: i32, since: Instant, limit: Duration) {
        let deadline = since + PATIENCE;
        while places.iter().any(|&place| self.look(place).is_none()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        for &place in places {
            let told = format!("{}\n{}", self.out(place), self.err(place));
            let (at, status) = self.look(place).unwrap_or_else(|| {
                panic!("member {place} did not end:\n{told}");
            });
            let took = at - since;
            eprintln!(
                "process {} ended after {took:?}",
                self.members[place].number
            );
            assert_eq!(
                (status.code(), status.signal()),
                (Some(code), None),
                "member {place}:\n{told}"
            );
            assert!(took <= limit, "member {place} took {took:?}:\n{told}");
            assert!(!told.contains("panicked"), "member {place}:\n{told}");
            self.check_out(place);
        }
    }

    /// Standard output is the program's: nothing of the network's is on it.
    fn check_out(&self, place: usize) {
        let known = [
            "running 1 test",
            "works ",
            "left ",
            "agreed ",
            "exit ",
            "stopped ",
            "test member ",
        ];
        for line in self.out(place).lines().filter(|line| !line.is_empty()) {
            assert!(
                known.iter().any(|known| line.starts_with(known)),
                "member {place} printed `{line}`"
            );
        }
    }
}

#[test]
fn all_find_each_other_agree_and_stop_when_all_are_asked_to() {
    let mut lab = lab(3);
    // In no order: whoever is first waits.
    for process in [2, 0, 1] {
        lab.start(process);
    }
    lab.await_running(0..3);
    for place in 0..3 {
        let own = lab.members[place].number;
        for worker in [2 * own, 2 * own + 1] {
            lab.await_out(place, &format!("agreed {worker}\n"));
        }
    }
    let since = Instant::now();
    for place in 0..3 {
        lab.signal(place, Signal::TERM);
        std::thread::sleep(Duration::from_millis(100));
    }
    lab.await_ends(&[0, 1, 2], 0, since, Duration::from_secs(5));
    for place in 0..3 {
        // The last was asked 200 ms after the first, at most.
        for waited_ms in lab.left_after_ms(place) {
            assert!((500..5_000).contains(&waited_ms), "{}", lab.out(place));
        }
    }
}

#[test]
fn a_stop_of_one_is_a_stop_of_all() {
    for asked in [0, 1] {
        let mut lab = lab(2);
        lab.start_all();
        lab.await_running(0..2);
        let since = Instant::now();
        lab.signal(asked, Signal::TERM);
        lab.await_ends(&[0, 1], 0, since, Duration::from_secs(5));
        let told = format!("process {asked} stops");
        assert!(lab.err(1 - asked).contains(&told));
    }
}

#[test]
fn when_one_is_killed_the_others_end_within_two_seconds_and_say_who() {
    for killed in [0, 2] {
        let mut lab = lab(3);
        lab.start_all();
        lab.await_running(0..3);
        let since = Instant::now();
        lab.signal(killed, Signal::KILL);
        let others: Vec<usize> = (0..3).filter(|&other| other != killed).collect();
        lab.await_ends(&others, 1, since, TOGETHER);
        let message = format!(
            "error: process {killed} at {} has gone (",
            lab.address(killed)
        );
        for other in others {
            let told = lab.err(other);
            assert!(told.contains(&message), "{told}");
            assert!(
                told.contains("it closed its connections") || told.contains("says so"),
                "{told}"
            );
            assert!(
                told.contains("; all processes of the pipeline end with it: start them again"),
                "{told}"
            );
        }
    }
}

#[test]
fn when_one_fails_the_others_end_and_point_to_it() {
    let mut lab = lab(2);
    lab.start(0);
    lab.start_with(1, |member| member.fails = true);
    lab.await_err(1, "on purpose");
    let since = Instant::now();
    lab.await_ends(&[0, 1], 1, since, TOGETHER);
    let message = format!(
        "error: process 1 at {} has failed; its own messages say why",
        lab.address(1)
    );
    assert!(lab.err(0).contains(&message), "{}", lab.err(0));
    assert!(
        lab.err(1)
            .contains("error: could not start the workers: on purpose")
    );
}

#[test]
fn one_that_does_not_come_is_named_while_and_after_it_is_waited_for() {
    let mut lab = lab(3);
    let since = Instant::now();
    lab.start_with(1, |member| member.forming_ms = 3_000);
    lab.start_with(2, |member| member.forming_ms = 3_000);
    let (absent, met) = (lab.address(0), lab.address(1));
    lab.await_err(0, &format!("waiting for process 0 at {absent}"));
    lab.await_err(1, &format!("met process 1 at {met}"));
    lab.await_ends(&[0, 1], 1, since, Duration::from_secs(10));
    for place in [0, 1] {
        let told = lab.err(place);
        let message = format!("error: process 0 at {absent} (Connection refused");
        assert!(told.contains(" did not come within 3 s"), "{told}");
        assert!(told.contains(&message), "{told}");
    }
}

#[test]
fn a_stop_ends_the_waiting() {
    let mut lab = lab(2);
    lab.start(1);
    lab.await_err(0, "waiting for process 0");
    let since = Instant::now();
    lab.signal(0, Signal::TERM);
    lab.await_ends(&[0], 0, since, TOGETHER);
    assert!(lab.out(0).contains("stopped before the start"));
}

#[test]
fn processes_that_do_not_belong_together_both_say_why() {
    type Change = fn(&mut Member);
    let cases: [(Change, &str, &str); 6] = [
        (
            |member| member.version = "0.2.0".into(),
            "runs riderflow 0.2.0 and this one 0.1.0",
            "runs riderflow 0.1.0 and this one 0.2.0",
        ),
        (
            |member| member.pipeline = "drivers".into(),
            "runs the pipeline drivers and this one riders",
            "runs the pipeline riders and this one drivers",
        ),
        (
            |member| member.settings = 8,
            "has another pipeline file of riders than this one",
            "has another pipeline file of riders than this one",
        ),
        (
            |member| member.workers = 1,
            "has 1 workers and this one 2",
            "has 2 workers and this one 1",
        ),
        (
            |member| {
                let fewer = member.hosts.with_file_name("fewer");
                let hosts = std::fs::read_to_string(&member.hosts).unwrap();
                let lines = hosts.lines().take(2).map(|line| format!("{line}\n"));
                std::fs::write(&fewer, lines.collect::<String>()).unwrap();
                member.hosts = fewer;
                member.processes = 2;
            },
            "was started with --processes 2 and this one with 3",
            "was started with --processes 3 and this one with 2",
        ),
        (
            // The first two lines are swapped.
            |member| {
                let turned = member.hosts.with_file_name("turned");
                let hosts = std::fs::read_to_string(&member.hosts).unwrap();
                let lines: Vec<&str> = hosts.lines().collect();
                let text = format!("{}\n{}\n{}\n", lines[1], lines[0], lines[2]);
                std::fs::write(&turned, text).unwrap();
                member.hosts = turned;
                member.process = 2;
            },
            "takes this one, which is process 0, for process 1",
            "answers at",
        ),
    ];
    for (change, at_first, at_second) in cases {
        let mut lab = lab(3);
        let since = Instant::now();
        lab.start(0);
        lab.start_with(1, change);
        lab.await_ends(&[0, 1], 1, since, PATIENCE);
        assert!(lab.err(0).contains(at_first), "{at_first}: {}", lab.err(0));
        assert!(
            lab.err(1).contains(at_second),
            "{at_second}: {}",
            lab.err(1)
        );
    }
}

#[test]
fn strangers_are_turned_away_and_hold_nobody_up() {
    let mut lab = lab(2);
    lab.start(0);
    lab.await_err(0, "waiting for process 1");
    let connect = || TcpStream::connect(lab.address(0)).unwrap();
    let _silent = connect();
    let mut web = connect();
    web.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    drop(connect());
    let mut long = connect();
    long.write_all(b"riderflow\xff\xff\xff\xff").unwrap();
    let mut broken = connect();
    broken.write_all(b"riderflow\0\0\0\x02[}").unwrap();

    let since = Instant::now();
    lab.start(1);
    lab.await_running(0..2);
    assert!(since.elapsed() < Duration::from_secs(15));
    let told = lab.err(0);
    assert!(
        told.contains("it does not speak as riderflow does"),
        "{told}"
    );
    assert!(told.contains("its greeting is too long"), "{told}");
    lab.signal(0, Signal::TERM);
    lab.await_ends(&[0, 1], 0, Instant::now(), Duration::from_secs(5));
}

#[test]
fn one_that_goes_away_before_the_start_may_come_back() {
    let mut lab = lab(3);
    let first = lab.start(1);
    let zero = lab.start(0);
    lab.await_err(zero, "met process 1");
    lab.signal(first, Signal::KILL);
    lab.await_err(zero, "went away again");
    let again = lab.start(1);
    let two = lab.start(2);
    lab.await_running([zero, again, two]);
    lab.signal(two, Signal::TERM);
    lab.await_ends(
        &[zero, again, two],
        0,
        Instant::now(),
        Duration::from_secs(5),
    );
}

#[test]
fn a_process_is_not_started_twice() {
    let mut lab = lab(2);
    lab.start_all();
    lab.await_running(0..2);
    let since = Instant::now();
    let second = lab.start(1);
    lab.await_ends(&[second], 1, since, PATIENCE);
    let message = format!(
        "could not listen at {}, the address of process 1: Address already in use",
        lab.address(1)
    );
    assert!(lab.err(second).contains(&message), "{}", lab.err(second));
    lab.signal(0, Signal::TERM);
    lab.await_ends(&[0, 1], 0, Instant::now(), Duration::from_secs(5));
}

#[test]
fn a_process_may_be_held_for_less_than_the_limit_and_not_for_more() {
    let mut lab = lab(2);
    lab.plan.silence_ms = 4_000;
    lab.start_all();
    lab.await_running(0..2);
    lab.signal(1, Signal::STOP);
    std::thread::sleep(Duration::from_secs(2));
    lab.signal(1, Signal::CONT);
    // Longer than the limit since it was held.
    std::thread::sleep(Duration::from_secs(4));
    assert!(lab.look(0).is_none() && lab.look(1).is_none());

    let since = Instant::now();
    lab.signal(1, Signal::STOP);
    lab.await_ends(&[0], 1, since, Duration::from_secs(4) + TOGETHER);
    let message = format!(
        "process 1 at {} has gone (nothing was heard of it for 4 s)",
        lab.address(1)
    );
    assert!(lab.err(0).contains(&message), "{}", lab.err(0));
    // It does not go on alone.
    let since = Instant::now();
    lab.signal(1, Signal::CONT);
    lab.await_ends(&[1], 1, since, TOGETHER);
    assert!(lab.err(1).contains("process 0 at"), "{}", lab.err(1));
}

#[test]
fn a_process_alone_needs_no_network() {
    let mut lab = lab(1);
    lab.start(0);
    lab.await_running([0]);
    lab.await_out(0, "agreed 1\n");
    let since = Instant::now();
    lab.signal(0, Signal::TERM);
    lab.await_ends(&[0], 0, since, TOGETHER);
}

/// The command itself, as far as it gets before it needs the services.
fn riderflow(args: &[&str]) -> (Option<i32>, String) {
    let pipeline = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/rider-alerts.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_riderflow"))
        .arg("run")
        .arg(pipeline)
        .args(args)
        .output()
        .unwrap();
    assert!(output.stdout.is_empty());
    let told = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), told)
}

#[test]
fn wrong_flags_are_usage_errors_and_a_wrong_hosts_file_is_a_bad_config() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hosts");
    std::fs::write(&file, "127.0.0.1:2101\n127.0.0.1\n").unwrap();
    let hosts = file.to_str().unwrap();
    for (args, fault) in [
        (&["--processes", "2"][..], "--process"),
        (&["--processes", "2", "--process", "0"], "--hosts"),
        (&["--hosts", hosts], "--processes"),
        (
            &["--processes", "0", "--process", "0", "--hosts", hosts],
            "0 is not in 1..",
        ),
        (
            &["--processes", "2", "--process", "2", "--hosts", hosts],
            "--process 2 is not one of 2 processes: the first is 0, the last 1",
        ),
    ] {
        let (code, told) = riderflow(args);
        assert_eq!(code, Some(2), "{args:?}: {told}");
        assert!(told.contains(fault), "{args:?}: {told}");
    }
    let (code, told) = riderflow(&["--processes", "2", "--process", "0", "--hosts", hosts]);
    assert_eq!(code, Some(3), "{told}");
    let begin = format!("{hosts}:2: `127.0.0.1` is no address");
    assert!(told.starts_with(&begin), "{told}");
}

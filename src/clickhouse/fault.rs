//! What an error of the `clickhouse` crate means for the rows of an insert.
//!
//! Owns the reading of error texts (the crate gives no code) and the back-off. Pure but for
//! the jitter's random numbers.

use std::error::Error as _;
use std::io::ErrorKind;
use std::time::Duration;

use clickhouse::error::Error;

/// What is to be done about a failed insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The server is away or busy: try again after a back-off.
    Retry,
    /// Code 252, too many parts: wait longer and send fewer, larger batches.
    Widen,
    /// A later run of the pipeline has taken over: this one must not write any more.
    Stop,
    /// Only a person can help: tell loudly, keep the rows, try again slowly.
    Report,
}

/// An error, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// ClickHouse's error code, if the server answered with one.
    pub(super) code: Option<u32>,
    /// What to do.
    pub(super) remedy: Remedy,
    /// Whether it is certain that the server stored nothing. If not, the table must be asked
    /// before the rows are sent again.
    pub(super) clean: bool,
    /// The error's text, one line.
    pub(super) text: String,
}

/// Codes after which the same insert may succeed by itself.
const RETRIABLE: [u32; 21] = [
    3,   // UNEXPECTED_END_OF_FILE: the request was cut
    32,  // ATTEMPT_TO_READ_AFTER_EOF: the request was cut
    33,  // CANNOT_READ_ALL_DATA: the request was cut
    107, // FILE_DOESNT_EXIST: a part was merged away
    131, // TOO_LARGE_STRING_SIZE: the request was cut
    159, // TIMEOUT_EXCEEDED
    164, // READONLY
    202, // TOO_MANY_SIMULTANEOUS_QUERIES
    203, // NO_FREE_CONNECTION
    209, // SOCKET_TIMEOUT
    210, // NETWORK_ERROR
    216, // QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING: something on the way repeats requests
    236, // ABORTED: the server stops
    241, // MEMORY_LIMIT_EXCEEDED
    242, // TABLE_IS_READ_ONLY
    252, // TOO_MANY_PARTS
    285, // TOO_FEW_LIVE_REPLICAS
    319, // UNKNOWN_STATUS_OF_INSERT
    394, // QUERY_WAS_CANCELLED: killed by an operator, or by a later run
    425, // SYSTEM_ERROR
    999, // KEEPER_EXCEPTION
];

/// Codes that ClickHouse answers before it writes anything of an insert that is stored as one
/// block, whichever of the blocks that it comes in could not be read
/// (`tests/clickhouse/blocks.rs`).
const BEFORE_STORING: [u32; 23] = [
    16,  // NO_SUCH_COLUMN_IN_TABLE
    27,  // CANNOT_PARSE_INPUT_ASSERTION_FAILED
    33,  // CANNOT_READ_ALL_DATA
    43,  // ILLEGAL_TYPE_OF_ARGUMENT
    47,  // UNKNOWN_IDENTIFIER
    53,  // TYPE_MISMATCH
    60,  // UNKNOWN_TABLE
    62,  // SYNTAX_ERROR
    81,  // UNKNOWN_DATABASE
    115, // UNKNOWN_SETTING
    117, // INCORRECT_DATA
    131, // TOO_LARGE_STRING_SIZE
    164, // READONLY
    192, // UNKNOWN_USER
    193, // WRONG_PASSWORD
    194, // REQUIRED_PASSWORD
    202, // TOO_MANY_SIMULTANEOUS_QUERIES
    242, // TABLE_IS_READ_ONLY
    252, // TOO_MANY_PARTS
    395, // the insert's own condition
    452, // SETTING_CONSTRAINT_VIOLATION
    497, // ACCESS_DENIED
    516, // AUTHENTICATION_FAILED
];

/// FUNCTION_THROW_IF_VALUE_IS_NON_ZERO: a condition of the insert failed.
const THROWN: u32 = 395;
/// What the condition throws when a later run has taken over.
pub(super) const FENCED: &str = "riderflow: a later run of this pipeline writes";
/// What it throws when the insert began before its writer's last seal.
pub(super) const SEALED: &str = "riderflow: this insert was given up";

impl Fault {
    /// Judges `error`.
    pub(super) fn of(error: &Error) -> Self {
        let text = one_line(error);
        match error {
            Error::BadResponse(answer) => match code(answer) {
                Some(code) => Self {
                    code: Some(code),
                    remedy: match code {
                        252 => Remedy::Widen,
                        THROWN if throws(answer, FENCED) => Remedy::Stop,
                        THROWN if throws(answer, SEALED) => Remedy::Retry,
                        _ if RETRIABLE.contains(&code) => Remedy::Retry,
                        _ => Remedy::Report,
                    },
                    clean: BEFORE_STORING.contains(&code),
                    text,
                },
                // An answer that is not ClickHouse's: a proxy's 502, or no reason at all.
                None => Self::new(Remedy::Retry, false, text),
            },
            Error::Network(_) => Self::new(Remedy::Retry, never_connected(error), text),
            Error::TimedOut => Self::new(Remedy::Retry, false, text),
            Error::InvalidParams(_) | Error::Unsupported(_) => {
                Self::new(Remedy::Report, true, text)
            }
            // Broken answers and the crate's own surprises: the server may have done its part.
            _ => Self::new(Remedy::Retry, false, text),
        }
    }

    fn new(remedy: Remedy, clean: bool, text: String) -> Self {
        Self {
            code: None,
            remedy,
            clean,
            text,
        }
    }

    /// What a person can do about it.
    pub(super) fn advice(&self) -> &'static str {
        match self.code {
            Some(60 | 81) => "run `riderflow init` to create the tables",
            Some(16 | 27 | 47 | 53 | 117) => {
                "compare the table with the expected one by `riderflow init`"
            }
            Some(164 | 192..=194 | 497 | 516) => {
                "check RIDERFLOW_CLICKHOUSE_USER, RIDERFLOW_CLICKHOUSE_PASSWORD and the user's rights"
            }
            Some(243) => "make room on the server's disk",
            Some(252) => {
                "the server merges slower than rows come: raise clickhouse.batch_rows and batch_ms"
            }
            Some(_) => "look the code up in system.errors; the rows are kept and tried again",
            None => "check that ClickHouse runs and that clickhouse.url is right",
        }
    }
}

/// The `N` of the first `Code: N` in a server's answer.
pub(super) fn code(answer: &str) -> Option<u32> {
    let rest = &answer[answer.find("Code: ")? + "Code: ".len()..];
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

/// Whether `message` is what was thrown; further on an answer quotes the query, with all that
/// it might throw.
fn throws(answer: &str, message: &str) -> bool {
    answer
        .split_once("DB::Exception: ")
        .is_some_and(|(_, text)| text.starts_with(message))
}

/// Whether no connection came about, so that no byte of a request was sent.
fn never_connected(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>()
            && io.kind() == ErrorKind::ConnectionRefused
        {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// The error with its causes, on one line, cut to a length that suits a log.
fn one_line(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = line.char_indices().nth(500) {
        line.truncate(at);
        line.push('…');
    }
    line
}

/// How long to wait before the next try.
#[derive(Debug)]
pub(super) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The first wait after an ordinary failure.
    const FIRST: Duration = Duration::from_millis(100);
    /// The longest wait after an ordinary failure: a server that is back is found within it.
    const LONGEST: Duration = Duration::from_secs(5);
    /// The longest wait when only a person or a merge can help.
    const LONGEST_SLOW: Duration = Duration::from_secs(30);

    /// Before any failure.
    pub(super) fn new() -> Self {
        Self { tries: 0 }
    }

    /// Failures so far.
    pub(super) fn tries(&self) -> u32 {
        self.tries
    }

    /// The next wait: doubles each time, with a jitter of half, so that the batches of an
    /// outage do not come back in step.
    pub(super) fn next(&mut self, remedy: Remedy) -> Duration {
        let (first, longest) = match remedy {
            Remedy::Retry | Remedy::Stop => (Self::FIRST, Self::LONGEST),
            Remedy::Widen => (Self::FIRST * 10, Self::LONGEST_SLOW),
            Remedy::Report => (Self::FIRST * 20, Self::LONGEST_SLOW),
        };
        let wait = longest.min(first * 2u32.pow(self.tries.min(12)));
        self.tries += 1;
        wait.mul_f64(0.5 + 0.5 * rand::random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(text: &str) -> Fault {
        Fault::of(&Error::BadResponse(text.into()))
    }

    #[test]
    fn reads_the_first_code() {
        let cases = [
            (
                "Code: 252. DB::Exception: Too many parts (3000).",
                Some(252),
            ),
            ("Code: 210. DB::NetException: Code: 32. nested", Some(210)),
            ("Code: 999", Some(999)),
            ("  Code: 60. DB::Exception: no table", Some(60)),
            ("502 Bad Gateway", None),
            ("Code: x", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(code(text), expected, "{text}");
        }
    }

    #[test]
    fn every_listed_code_is_retried() {
        for number in RETRIABLE {
            let fault = answered(&format!("Code: {number}. DB::Exception: x"));
            assert!(
                matches!(fault.remedy, Remedy::Retry | Remedy::Widen),
                "{number}"
            );
            assert_eq!(fault.code, Some(number));
        }
    }

    #[test]
    fn doubt_is_the_rule_and_certainty_the_exception() {
        // The server may have stored the rows.
        for text in [
            "Code: 159. x",
            "Code: 241. x",
            "Code: 319. x",
            "Code: 12345. x",
            "502 Bad Gateway",
        ] {
            assert!(!answered(text).clean, "{text}");
        }
        assert!(!Fault::of(&Error::TimedOut).clean);
        assert!(!Fault::of(&Error::Network("channel closed".into())).clean);
        let reset = std::io::Error::from(ErrorKind::ConnectionReset);
        assert!(!Fault::of(&Error::Network(Box::new(reset))).clean);
        // It can't have.
        for text in ["Code: 252. x", "Code: 60. x", "Code: 516. x", "Code: 33. x"] {
            assert!(answered(text).clean, "{text}");
        }
        let refused = std::io::Error::from(ErrorKind::ConnectionRefused);
        assert!(Fault::of(&Error::Network(Box::new(refused))).clean);
    }

    #[test]
    fn remedies() {
        assert_eq!(answered("Code: 252. x").remedy, Remedy::Widen);
        assert_eq!(answered("Code: 33. x").remedy, Remedy::Retry);
        assert_eq!(answered("Code: 395. x").remedy, Remedy::Report);
        assert_eq!(
            answered(&format!(
                "Code: 395. DB::Exception: {FENCED}: while {SEALED}"
            ))
            .remedy,
            Remedy::Stop
        );
        let sealed = answered(&format!("Code: 395. DB::Exception: {SEALED}: in {FENCED}"));
        assert_eq!((sealed.remedy, sealed.clean), (Remedy::Retry, true));
        assert_eq!(answered("Code: 60. x").remedy, Remedy::Report);
        assert_eq!(answered("Code: 243. x").remedy, Remedy::Report);
        assert_eq!(answered("503 Service Unavailable").remedy, Remedy::Retry);
        assert!(answered("Code: 60. x").advice().contains("riderflow init"));
    }

    #[test]
    fn waits_double_up_to_a_limit_and_are_never_nothing() {
        let mut backoff = Backoff::new();
        for step in 0..40 {
            let wait = backoff.next(Remedy::Retry);
            let full = Backoff::LONGEST.min(Backoff::FIRST * 2u32.pow(step.min(12)));
            assert!(
                wait <= full && wait >= full / 2,
                "{step}: {wait:?} of {full:?}"
            );
        }
        assert_eq!(backoff.tries(), 40);
        assert!(Backoff::new().next(Remedy::Widen) >= Duration::from_millis(500));
        assert!(Backoff::new().next(Remedy::Report) >= Duration::from_secs(1));
    }
}

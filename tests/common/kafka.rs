//! One Kafka a test binary, without ClickHouse, for tests of commands.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use riderflow::services::{Options, Services};

const RIDERFLOW: &str = env!("CARGO_BIN_EXE_riderflow");

/// The Kafka that the tests of this binary share, and the right to use it alone.
pub(crate) struct Kafka {
    pub(crate) brokers: String,
    _alone: MutexGuard<'static, Option<Services>>,
}

/// Waits for its turn; `prepare` is given the brokers when Kafka has just been started in
/// `folder`.
pub(crate) fn kafka(folder: &str, prepare: impl FnOnce(&str)) -> Kafka {
    // Never dropped: Kafka ends with this process.
    static SERVICES: Mutex<Option<Services>> = Mutex::new(None);
    let mut alone = SERVICES.lock().unwrap_or_else(PoisonError::into_inner);
    let services = alone.get_or_insert_with(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).expect("an old folder goes");
        }
        let services = Services::start(&Options {
            clickhouse: false,
            ..Options::for_tests(folder, RIDERFLOW)
        })
        .expect("Kafka starts");
        prepare(services.kafka());
        services
    });
    Kafka {
        brokers: services.kafka().to_owned(),
        _alone: alone,
    }
}

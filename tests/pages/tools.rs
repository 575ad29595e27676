//! Chromium and Node's packages: found, or fetched, and put where nothing of the source tree is.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A child that is killed when the test ends, however it ends.
pub(crate) struct Guarded(pub(crate) Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().expect("it lies in target/").to_owned()
}

/// The browser: `RIDERFLOW_CHROMIUM`, else one in the path, else Debian's, installed now.
pub(crate) fn chromium() -> PathBuf {
    if let Some(path) = std::env::var_os("RIDERFLOW_CHROMIUM") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "RIDERFLOW_CHROMIUM: no file at {path:?}");
        return path;
    }
    if let Some(path) = in_path() {
        return path;
    }
    assert!(
        rustix::process::geteuid().is_root(),
        "these tests need a browser: `apt-get install --no-install-recommends chromium`, or set \
         RIDERFLOW_CHROMIUM to the file of a Chromium"
    );
    eprintln!("no Chromium is here: installing Debian's");
    let installed = apt_get(&["install", "-y", "--no-install-recommends", "chromium"])
        || (apt_get(&["update"])
            && apt_get(&["install", "-y", "--no-install-recommends", "chromium"]));
    assert!(
        installed,
        "`apt-get install chromium` failed: install a Chromium, or set RIDERFLOW_CHROMIUM"
    );
    in_path().expect("the package puts it in the path")
}

fn in_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut files = NAMES
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    files.find(|file| file.is_file())
}

fn apt_get(arguments: &[&str]) -> bool {
    Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(std::io::stderr())
        .status()
        .is_ok_and(|status| status.success())
}

/// The folder with the scenarios and their packages, ready to run.
pub(crate) fn scripts() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pages");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages-scripts");
    std::fs::create_dir_all(&folder).expect("a folder in target/");
    let lock = "package-lock.json";
    let wanted = std::fs::read(source.join(lock)).expect("a lock file");
    // Written last, so that a broken installation is begun anew.
    let is_there = std::fs::read(folder.join("installed.json")).is_ok_and(|there| there == wanted);
    for entry in std::fs::read_dir(&source).expect("the scenarios") {
        let path = entry.expect("the scenarios").path();
        let name = path.file_name().expect("a file has a name");
        if matches!(path.extension(), Some(kind) if kind == "mjs" || kind == "json") {
            std::fs::copy(&path, folder.join(name)).expect("it is copied");
        }
    }
    if !is_there {
        let status = Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&folder)
            .stdout(std::io::stderr())
            .status();
        match status {
            Ok(status) => assert!(status.success(), "`npm ci` failed: {status}"),
            Err(error) => panic!("these tests need Node.js 20 or newer with npm: {error}"),
        }
        std::fs::write(folder.join("installed.json"), wanted).expect("it is written");
    }
    folder
}

//! ClickHouse's command line, called in its shared library: `unsafe` code.
//!
//! Called in a fresh process that does nothing else and ends with it, so nothing the library
//! does to signals, threads or memory meets code of ours.
#![allow(unsafe_code)]

use std::ffi::{CString, OsString, c_char, c_int};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::ServiceError;

type CommandLine = unsafe extern "C" fn(c_int, *mut *mut c_char) -> c_int;

/// Runs `arguments` (the first is the program's name) until ClickHouse ends.
///
/// # Errors
/// If the library can't be opened, or ends with another code than 0.
pub(super) fn run(library: &Path, arguments: &[OsString]) -> Result<(), ServiceError> {
    let failed = |detail: String| {
        ServiceError::io(
            format!("run {}", library.display()),
            io::Error::other(detail),
        )
    };
    let mut owned = arguments
        .iter()
        .map(|argument| CString::new(argument.as_bytes()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(error.to_string()))?;
    let mut argv: Vec<*mut c_char> = owned
        .iter_mut()
        .map(|argument| argument.as_ptr().cast_mut())
        .collect();
    let argc = c_int::try_from(argv.len()).map_err(|error| failed(error.to_string()))?;
    argv.push(std::ptr::null_mut());

    // SAFETY: the file is the one whose checksum was compared with the pinned one when it was
    // fetched; its initialisers run in a process of its own. `chdb_query_cmdline` has the
    // signature of `main`; `argv` holds `argc` strings that end in NUL and then a null pointer,
    // and both outlive the call. The library is never closed: it may leave threads behind.
    let code = unsafe {
        let opened = Library::open(Some(library), RTLD_NOW | RTLD_GLOBAL)
            .map_err(|error| failed(error.to_string()))?;
        let opened = std::mem::ManuallyDrop::new(opened);
        let command_line = opened
            .get::<CommandLine>(b"chdb_query_cmdline\0")
            .map_err(|error| failed(error.to_string()))?;
        command_line(argc, argv.as_mut_ptr())
    };
    match code {
        0 => Ok(()),
        code => Err(failed(format!("it ended with code {code}"))),
    }
}

//! A data connection as timely's threads see it: it ends in order, or not at all.
//!
//! timely panics on a connection that breaks. Here a break is told to [`Shared`], which knows
//! whose it is; what is written afterwards goes nowhere, and a thread that reads waits for
//! ever: the process ends without it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use timely::communication::allocator::zero_copy::stream::Stream;

use super::links::Shared;

pub(super) struct DataStream {
    stream: TcpStream,
    process: usize,
    shared: Arc<Shared>,
    broken: bool,
}

impl DataStream {
    pub(super) fn new(stream: TcpStream, process: usize, shared: Arc<Shared>) -> io::Result<Self> {
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        Ok(Self {
            stream,
            process,
            shared,
            broken: false,
        })
    }
}

impl Read for DataStream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let (in_order, why) = loop {
            match self.stream.read(bytes) {
                Ok(0) => break (true, "it was closed".to_owned()),
                Ok(read) => return Ok(read),
                // timely would take an interrupted read for a broken connection.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break (false, error.to_string()),
            }
        };
        if self.shared.await_end(self.process, &why) && in_order {
            return Ok(0);
        }
        loop {
            std::thread::park();
        }
    }
}

impl Write for DataStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.broken {
            return Ok(bytes.len());
        }
        match self.stream.write(bytes) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                self.broken = true;
                // The reading half waits to hear whether the peer had ended.
                Ok(bytes.len())
            }
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for DataStream {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            stream: self.stream.try_clone()?,
            process: self.process,
            shared: Arc::clone(&self.shared),
            broken: self.broken,
        })
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.stream.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        // timely has written its last. Only after that may the peer take the end for the end.
        match self.stream.shutdown(how) {
            Ok(()) if !self.broken => self.shared.data_ended(self.process),
            // The reading half finds out.
            _ => {}
        }
        Ok(())
    }
}

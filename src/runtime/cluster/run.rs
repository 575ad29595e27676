//! timely's workers over the connections of a formed cluster.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use timely::WorkerConfig;
use timely::communication::allocator::zero_copy::initialize::{
    CommsGuard, initialize_networking_from_sockets,
};
use timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};
use timely::communication::{Config, Hooks};
use timely::worker::Worker;

use super::ClusterError;
use super::form::Formed;
use super::links::{Event, Links, Status};
use super::stream::DataStream;

/// How long a process that has ended waits for the others, which may still take in windows.
const END_LIMIT: Duration = Duration::from_secs(8);
/// How long timely's network threads may take once all have ended.
const JOIN_LIMIT: Duration = Duration::from_secs(1);

/// A cluster whose processes watch each other. Dropped before it has run, it tells them that
/// this process has failed, or stops if it was asked to.
pub struct Running {
    links: Links,
    workers: usize,
    process: usize,
    /// By process; `None` for this one.
    sockets: Vec<Option<DataStream>>,
    has_run: bool,
    _listener: Option<TcpListener>,
}

impl Formed {
    /// From now on the peers are told `status`, and `on_event` is called when one of them stops,
    /// fails or is gone; from a thread of the cluster, so it should be quick.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn watch(
        self,
        status: impl Fn() -> Status + Send + Sync + 'static,
        on_event: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Running, ClusterError> {
        let broken = |error: std::io::Error| ClusterError::Workers(error.to_string());
        let mut controls = Vec::new();
        let mut datas = Vec::new();
        for peer in self.peers {
            let (control, data) = peer
                .map(|peer| ((peer.address, peer.control), peer.data))
                .unzip();
            controls.push(control);
            datas.push(data);
        }
        let links = Links::start(
            self.process,
            self.workers,
            controls,
            self.limits.silence,
            Box::new(status),
            Box::new(on_event),
        )
        .map_err(broken)?;
        let sockets = datas.into_iter().enumerate().map(|(process, data)| {
            data.map(|data| DataStream::new(data, process, Arc::clone(&links.shared)))
                .transpose()
        });
        let sockets = sockets.collect::<Result<_, _>>().map_err(broken)?;
        Ok(Running {
            links,
            workers: self.workers,
            process: self.process,
            sockets,
            has_run: false,
            _listener: self.listener,
        })
    }
}

impl Running {
    /// The control connections.
    pub fn links(&self) -> Links {
        self.links.clone()
    }

    /// Runs `work` on every worker of this process, waits until all have returned, and then,
    /// with a limit, until the workers of all processes have.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn execute(
        mut self,
        work: impl Fn(&mut Worker) + Send + Sync + 'static,
    ) -> Result<(), ClusterError> {
        let (builders, network) = self.builders().map_err(ClusterError::Workers)?;
        let config = WorkerConfig::default();
        let links = self.links.clone();
        let work = move |worker: &mut Worker| {
            work(worker);
            links.finish_worker(worker.index());
        };
        let guards = timely::execute::execute_from(builders, Box::new(()), config, work)
            .map_err(ClusterError::Workers)?;
        drop(guards);
        self.has_run = true;
        let all_ended = self.links.end(END_LIMIT);
        if let Some(network) = network {
            leave(network, all_ended);
        }
        Ok(())
    }

    fn builders(&mut self) -> Result<(Vec<AllocatorBuilder>, Option<CommsGuard>), String> {
        if self.sockets.len() < 2 {
            let (builders, _nothing) = Config::Process(self.workers).try_build()?;
            return Ok((builders, None));
        }
        let hooks = Hooks::default();
        let inner = ProcessBuilder::new_typed_vector(self.workers, hooks.refill.clone(), None);
        let sockets = std::mem::take(&mut self.sockets);
        let (builders, network) =
            initialize_networking_from_sockets(inner, sockets, self.process, self.workers, hooks)
                .map_err(|error| error.to_string())?;
        let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
        Ok((builders, Some(network)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_run {
            self.links.shared.give_up();
        }
    }
}

/// Waits for timely's network threads, which end in order if all processes do. Otherwise some
/// wait for ever, and the process ends without them.
fn leave(network: CommsGuard, all_ended: bool) {
    if !all_ended {
        std::mem::forget(network);
        return;
    }
    let (sender, receiver) = channel();
    std::thread::Builder::new()
        .name("riderflow-leave".into())
        .spawn(move || {
            drop(network);
            // Nobody may wait any more.
            let _ = sender.send(());
        })
        .expect("the system gives a thread");
    if receiver.recv_timeout(JOIN_LIMIT).is_err() {
        tracing::warn!("the connections to the other processes did not end in order");
    }
}

//! How a mount is asked what it does: a socket that answers its owner, and a file for
//! Prometheus.
//!
//! Whoever connects to the socket sends one line, and gets an answer until the end of the
//! stream:
//!
//! | line | answer |
//! |---|---|
//! | `stat` | the figures, a JSON document in one line |
//! | `prometheus`, `GET …` | the figures as Prometheus reads them, for `GET` after HTTP's headers |
//! | `events FROM` | the kept events after number FROM (`new`: after the last), a JSON line each |
//! | `follow FROM` | the same, and those that come, until the mount goes away |
//!
//! The socket's name is the number of the mount's device, which whoever sees the mount can
//! tell; its directory is its owner's alone. Nothing of this stops a mount or holds up a
//! request: a client has a thread of its own, and nothing is kept for one that does not read.

pub mod client;
mod gather;
mod metrics;
pub mod place;
mod server;

use crate::config::plan::MountPlan;
use crate::observe::Observer;
use crate::union::Union;
use gather::Gatherer;
use metrics::Writer;
use server::Server;
use std::sync::Arc;

/// What answers for a mount, until it is dropped.
#[derive(Debug, Default)]
pub struct Control {
    _server: Option<Server>,
    _metrics: Option<Writer>,
}

impl Control {
    /// Answers for `union`, which `observer` counts for and whose mount has the device number
    /// `device`; where that cannot be, the log says so.
    pub fn start(
        plan: &MountPlan,
        union: &Arc<Union>,
        observer: Option<&Arc<Observer>>,
        device: Option<(u32, u32)>,
    ) -> Control {
        let Some(observer) = observer else {
            return Control::default();
        };
        let gatherer = Arc::new(Gatherer::new(union, observer, &plan.mount_point, device));
        let server = device.and_then(|(_, minor)| {
            let server = Server::start(&gatherer, minor);
            server
                .inspect_err(|e| log::warn!("no control socket, and so no plyfs stat: {e}"))
                .ok()
        });
        let metrics = plan.observe.metrics.as_ref().and_then(|file| {
            let writer = Writer::start(&gatherer, file, plan.observe.interval);
            writer
                .inspect_err(|e| log::warn!("{}: no metrics: {e}", file.display()))
                .ok()
        });
        Control {
            _server: server,
            _metrics: metrics,
        }
    }
}

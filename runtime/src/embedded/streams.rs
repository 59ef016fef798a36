//! Exec, attach and port-forward.

use super::client::{Event, Stream};
use super::network::relay_session;
use super::shim::ShimRequest;
use super::{Inner, failed};
use crate::port::{ExecSyncResult, StreamOptions};
use crate::{Error, Reason};
use kubewright_core::streams::{ExecSession, PortForwardSession};
use std::sync::Arc;
use std::time::Duration;

/// What an `exec_sync` keeps of each output; the rest is read and dropped.
const OUTPUT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A timeout of zero means none, as in the specification; this is then the most.
const EXEC_TIME_MAX: Duration = Duration::from_secs(24 * 3600);

impl Inner {
    pub(super) async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<ExecSyncResult, Error> {
        let entry = self.container(id)?;
        entry.running()?;
        let request = ShimRequest::Exec { command: check(command)?, tty: false, stdin: false };
        let work = async {
            let mut stream = Stream::open(&entry.socket(), &request).await?;
            let mut result = ExecSyncResult::default();
            loop {
                match stream.next().await {
                    Event::Stdout(bytes) => keep(&mut result.stdout, &bytes),
                    Event::Stderr(bytes) => keep(&mut result.stderr, &bytes),
                    Event::Failed(sentence) => return Err(Error::new(Reason::Failed, sentence)),
                    Event::Ended(code) => {
                        result.exit_code = code;
                        return Ok(result);
                    }
                }
            }
        };
        let limit = if timeout.is_zero() { EXEC_TIME_MAX } else { timeout };
        let late = |_| Error::new(Reason::Timeout, format!("command timed out after {limit:?}"));
        tokio::time::timeout(limit, work).await.map_err(late)?
    }

    pub(super) async fn exec(&self, id: &str, options: StreamOptions) -> Result<ExecSession, Error> {
        let entry = self.container(id)?;
        entry.running()?;
        let command = check(options.command)?;
        let request = ShimRequest::Exec { command, tty: options.tty, stdin: options.stdin };
        self.session(&entry.socket(), &request).await
    }

    pub(super) async fn attach(&self, id: &str, options: StreamOptions) -> Result<ExecSession, Error> {
        let entry = self.container(id)?;
        entry.running()?;
        self.session(&entry.socket(), &ShimRequest::Attach { stdin: options.stdin }).await
    }

    async fn session(&self, socket: &std::path::Path, request: &ShimRequest) -> Result<ExecSession, Error> {
        let stream = Stream::open(socket, request).await?;
        let (session, peer) = ExecSession::pair();
        self.spawn(stream.carry(peer));
        Ok(session)
    }

    pub(super) async fn port_forward(
        self: &Arc<Self>,
        id: &str,
        port: u16,
    ) -> Result<PortForwardSession, Error> {
        let dialer = self.dialer(&*self.sandbox(id)?)?;
        let connection = dialer.dial(port, None).await.map_err(|e| failed(&format!("port {port}"), &e))?;
        let (session, peer) = PortForwardSession::pair();
        self.spawn(relay_session(connection, peer));
        Ok(session)
    }
}

fn check(command: Vec<String>) -> Result<Vec<String>, Error> {
    if command.is_empty() { Err(Error::new(Reason::Invalid, "no command given")) } else { Ok(command) }
}

fn keep(to: &mut Vec<u8>, bytes: &[u8]) {
    let room = OUTPUT_BYTES_MAX - to.len();
    to.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

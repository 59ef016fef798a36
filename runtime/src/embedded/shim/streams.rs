//! Hands a program's output to everybody who is attached.

use crate::logs::LogStream;
use bytes::Bytes;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::mpsc;

const FRAMES_MAX: usize = 64;
/// One who has not read for so long is cut off, so that the program goes on.
const PATIENCE: Duration = Duration::from_secs(5);

type Sender = mpsc::Sender<(LogStream, Bytes)>;

/// The attached clients.
#[derive(Default)]
pub(crate) struct Fanout(Mutex<Vec<Sender>>);

impl Fanout {
    /// Another client; it gets what comes from now on.
    pub(crate) fn subscribe(&self) -> mpsc::Receiver<(LogStream, Bytes)> {
        let (sender, receiver) = mpsc::channel(FRAMES_MAX);
        self.0.lock().unwrap_or_else(|e| e.into_inner()).push(sender);
        receiver
    }

    /// Hands out a piece of output, waiting for slow clients a while.
    pub(crate) async fn send(&self, stream: LogStream, bytes: &[u8]) {
        let clients = self.0.lock().unwrap_or_else(|e| e.into_inner()).clone();
        if clients.is_empty() {
            return;
        }
        let bytes = Bytes::copy_from_slice(bytes);
        let mut gone = false;
        for client in &clients {
            let sent = tokio::time::timeout(PATIENCE, client.send((stream, bytes.clone()))).await;
            if !matches!(sent, Ok(Ok(()))) {
                self.0.lock().unwrap_or_else(|e| e.into_inner()).retain(|other| !other.same_channel(client));
                gone = true;
            }
        }
        if gone {
            self.0.lock().unwrap_or_else(|e| e.into_inner()).retain(|client| !client.is_closed());
        }
    }

    /// The output has ended.
    pub(crate) fn close(&self) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).clear();
    }
}

//! Which endpoint a client gets: one after the other, or the same one again.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How many clients of one port are remembered for affinity; the one seen longest ago is forgotten first.
const CLIENTS_MAX: usize = 4096;

/// The endpoints of one port.
#[derive(Debug)]
pub struct Backends(Mutex<State>);

#[derive(Debug)]
struct State {
    endpoints: Vec<SocketAddr>,
    affinity: Option<Duration>,
    next: usize,
    clients: HashMap<IpAddr, (SocketAddr, Instant)>,
}

impl Backends {
    /// Endpoints, and how long a client sticks to its own.
    pub fn new(endpoints: &[SocketAddr], affinity: Option<Duration>) -> Self {
        let state = State { endpoints: endpoints.to_vec(), affinity, next: 0, clients: HashMap::new() };
        Backends(Mutex::new(state))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exchanges the endpoints; clients of those that stay keep theirs.
    pub fn replace(&self, endpoints: &[SocketAddr], affinity: Option<Duration>) {
        let mut state = self.lock();
        state.endpoints = endpoints.to_vec();
        state.affinity = affinity;
        let State { endpoints, clients, .. } = &mut *state;
        clients.retain(|_, (endpoint, _)| affinity.is_some() && endpoints.contains(endpoint));
    }

    /// The endpoints in the order in which a client shall try them; empty where there are none.
    pub fn order(&self, client: IpAddr) -> Vec<SocketAddr> {
        let mut state = self.lock();
        let count = state.endpoints.len();
        if count == 0 {
            return Vec::new();
        }
        let now = Instant::now();
        let kept = state.affinity.and_then(|limit| {
            let (endpoint, seen) = state.clients.get(&client)?;
            (now.duration_since(*seen) < limit).then_some(*endpoint)
        });
        let start = match kept.and_then(|k| state.endpoints.iter().position(|e| *e == k)) {
            Some(at) => at,
            None => {
                state.next = (state.next + 1) % count;
                state.next
            }
        };
        (0..count).map(|n| state.endpoints[(start + n) % count]).collect()
    }

    /// Notes which endpoint a client was connected to.
    pub fn connected(&self, client: IpAddr, endpoint: SocketAddr) {
        let mut state = self.lock();
        if state.affinity.is_none() {
            return;
        }
        if state.clients.len() >= CLIENTS_MAX
            && !state.clients.contains_key(&client)
            && let Some(oldest) = state.clients.iter().min_by_key(|(_, (_, seen))| *seen).map(|(c, _)| *c)
        {
            state.clients.remove(&oldest);
        }
        state.clients.insert(client, (endpoint, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(n: u8) -> SocketAddr {
        SocketAddr::from(([127, 64, 0, n], 80))
    }

    #[tokio::test(start_paused = true)]
    async fn clients_take_turns_or_stick() {
        let client = IpAddr::from([127, 0, 0, 1]);
        let backends = Backends::new(&[socket(1), socket(2), socket(3)], None);
        let mut first: Vec<SocketAddr> = (0..3).map(|_| backends.order(client)[0]).collect();
        first.sort();
        assert_eq!(first, [socket(1), socket(2), socket(3)]);
        backends.replace(&[socket(1), socket(2)], Some(Duration::from_secs(10)));
        let own = backends.order(client)[0];
        backends.connected(client, own);
        for _ in 0..3 {
            assert_eq!(backends.order(client)[0], own);
        }
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_ne!(backends.order(client)[0], own, "the time is over");
        backends.connected(client, own);
        backends.replace(&[socket(9)], Some(Duration::from_secs(10)));
        assert_eq!(backends.order(client), [socket(9)]);
        backends.replace(&[], None);
        assert!(backends.order(client).is_empty());
    }
}

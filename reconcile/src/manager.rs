//! Runs the controllers of a plane: in order, as leader or alone, with a warm standby.

use crate::{Context, Controller, LeaderElection, LeaderElector};
use kubewright_core::ApiError;
use std::fmt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Starts controllers and stops them in reverse.
pub struct Manager {
    cx: Context,
    controllers: Vec<Controller>,
    election: Option<LeaderElection>,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Manager({:?})", self.controllers)
    }
}

impl Manager {
    /// A manager without controllers.
    pub fn new(cx: Context) -> Self {
        Manager { cx, controllers: Vec::new(), election: None }
    }

    /// Adds a controller.
    #[must_use]
    pub fn with(mut self, controller: Controller) -> Self {
        self.controllers.push(controller);
        self
    }

    /// Adds controllers.
    #[must_use]
    pub fn with_all(mut self, controllers: impl IntoIterator<Item = Controller>) -> Self {
        self.controllers.extend(controllers);
        self
    }

    /// Runs the controllers only while this candidate holds a Lease; its informers are warm before.
    #[must_use]
    pub fn elect(mut self, election: LeaderElection) -> Self {
        self.election = Some(election);
        self
    }

    /// The names of the controllers, in the order of their start.
    pub fn names(&self) -> Vec<&'static str> {
        self.controllers.iter().map(Controller::name).collect()
    }

    /// Runs until cancelled. All tasks have ended when it returns.
    ///
    /// # Errors
    /// Two controllers of one name, both told, before anything starts.
    ///
    /// # Cancel safety
    /// Dropping it stops everything at once, without releasing the Lease.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), ApiError> {
        self.check()?;
        for controller in &self.controllers {
            controller.warm(&self.cx);
        }
        match &self.election {
            None => self.lead(cancel).await,
            Some(election) => {
                let client = self.cx.client().clone();
                let (clock, entropy) = (self.cx.shared_clock(), self.cx.entropy().clone());
                let elector = LeaderElector::new(client, clock, entropy, election.clone());
                elector.run(cancel, |term| self.lead(term)).await;
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ApiError> {
        let mut names = self.names();
        names.sort_unstable();
        let twice: Vec<_> = names.windows(2).filter(|w| w[0] == w[1]).map(|w| w[0]).collect();
        if twice.is_empty() {
            return Ok(());
        }
        Err(ApiError::bad_request(format!("several controllers are named {}", twice.join(", "))))
    }

    async fn lead(&self, cancel: CancellationToken) {
        // Each has a token of its own, so that they stop one by one, the last started first.
        let mut running = Vec::new();
        for controller in &self.controllers {
            let stop = CancellationToken::new();
            let mut tasks = JoinSet::new();
            let (controller, cx, token) = (controller.clone(), self.cx.clone(), stop.clone());
            tasks.spawn(async move { controller.run(cx, token).await });
            running.push((stop, tasks));
        }
        cancel.cancelled().await;
        for (stop, mut tasks) in running.into_iter().rev() {
            stop.cancel();
            while tasks.join_next().await.is_some() {}
        }
    }
}

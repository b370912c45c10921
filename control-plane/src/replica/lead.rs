//! The life of a replica: it stands by, leads, and stands by again when it has lost the lead.

use super::role::Role;
use crate::api::Server;
use crate::plane::StartError;
use crate::serve::ServeError;
use crate::store::{Candidate, Lease, RedisStore, RedisUrl, Standing, Store, StoreError, doubts};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// How often a replica that stands by asks for the lead, and how often one that leads says so.
const EVERY: Duration = Duration::from_millis(500);

/// Makes the server on a store.
pub(crate) type Assemble = Arc<dyn Fn(Arc<dyn Store>) -> Result<Server, ServeError> + Send + Sync>;

/// What a replica needs to lead.
pub(crate) struct Campaign {
    /// Nodes of the store.
    pub(crate) nodes: Vec<RedisUrl>,
    /// Where other replicas reach this one.
    pub(crate) address: String,
    /// Makes the server, each time that this replica leads.
    pub(crate) assemble: Assemble,
    /// Where it does what must not keep the lead waiting.
    pub(crate) background: Handle,
}

/// Leads whenever nobody else does, until it is told to stop.
///
/// # Errors
/// When the store cannot be used at all, or its content is not what this program reads. That the store cannot be reached is no
/// reason to end.
pub(crate) async fn lead_or_follow(
    campaign: Campaign,
    role: Role,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let nodes = campaign.nodes.clone();
    let candidate = Arc::new(Candidate::new(nodes, campaign.address.clone()));
    let mut heard = Heard::default();
    let mut has_looked = false;
    while !is_told_to_stop(&stopped) {
        let standing = stand(&candidate).await;
        if standing.is_ok() && !has_looked {
            has_looked = true;
            let nodes = campaign.nodes.clone();
            // Beside all else: a node that is away must not cost the lead.
            spawn_blocking(move || warn_of_doubts(&nodes));
        }
        match standing {
            Ok(Standing::Leads(lease)) => {
                heard.says("this replica leads");
                let lease = Arc::new(lease);
                let term = Term {
                    candidate: Arc::clone(&candidate),
                    lease,
                };
                match term.begin(&campaign).await {
                    Ok((server, store)) => {
                        term.serve(server, &store, &role, &mut stopped, &campaign.background)
                            .await;
                        // It waits for its thread, and that for Redis.
                        drop(spawn_blocking(move || drop(store)).await);
                    }
                    Err(error) => {
                        term.resign().await;
                        if !is_passing(&error) {
                            return Err(error);
                        }
                        heard.complains(&error);
                    }
                }
            }
            Ok(Standing::Follows { leader }) => {
                heard.says(&format!("{leader} leads, this replica stands by"));
                role.follows(leader);
            }
            Err(error @ StoreError::Unsuitable(_)) => return Err(error.into()),
            Err(error) => {
                heard.complains(&error);
                role.waits();
            }
        }
        tokio::select! {
            () = sleep(EVERY) => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
    }
    Ok(())
}

/// The time in which this replica leads.
struct Term {
    candidate: Arc<Candidate>,
    lease: Arc<Lease>,
}

/// What was logged last, so that nothing is logged twice a second.
#[derive(Default)]
struct Heard(String);

// === impl Term ===

impl Term {
    /// Loads everything.
    async fn begin(&self, campaign: &Campaign) -> Result<(Server, Arc<RedisStore>), ServeError> {
        let nodes = campaign.nodes.clone();
        let assemble = Arc::clone(&campaign.assemble);
        let lease = Arc::clone(&self.lease);
        let begun = spawn_blocking(move || {
            let store = Arc::new(RedisStore::open(nodes, &lease)?);
            let server = assemble(Arc::<RedisStore>::clone(&store))?;
            Ok((server, store))
        });
        self.keep_while(begun).await.map_err(std::io::Error::from)?
    }

    /// Answers requests until the lead is lost, or the server is told to stop.
    async fn serve(
        &self,
        server: Server,
        store: &RedisStore,
        role: &Role,
        stopped: &mut watch::Receiver<bool>,
        background: &Handle,
    ) {
        let server = server.begin(background);
        role.leads(&server, Arc::clone(&self.lease));
        let mut heard = Heard::default();
        let is_lost = loop {
            tokio::select! {
                () = sleep(EVERY) => {}
                _ = stopped.wait_for(|stop| *stop) => break false,
            }
            match self.renew().await {
                Ok(()) => heard.says("the store is there"),
                Err(error) => {
                    heard.complains(&error);
                    if error == StoreError::Fenced {
                        break true;
                    }
                }
            }
            // What it has is read again, as after a crash: of what it has lost nothing is known to be right here either.
            if store.is_behind() {
                break true;
            }
        };
        role.waits();
        self.candidate.has_seen(store.head());
        if !is_lost && let Err(error) = self.keep_while(server.plane.stop()).await {
            tracing::error!(%error, "the end of this run cannot be noted: the next one begins as after a crash");
        }
        self.resign().await;
        // Dropping it waits for the journal's thread.
        spawn_blocking(move || drop(server))
            .await
            .unwrap_or_default();
    }

    /// Goes on to say that this replica leads while something lasts.
    async fn keep_while<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = sleep(EVERY) => {}
            }
            if let Err(error) = self.renew().await {
                tracing::warn!(%error, "the lead may be lost");
            }
        }
    }

    async fn renew(&self) -> Result<(), StoreError> {
        let (candidate, lease) = (Arc::clone(&self.candidate), Arc::clone(&self.lease));
        blocking(move || candidate.renew(&lease)).await
    }

    /// If that cannot be said others wait until the lease is over.
    async fn resign(&self) {
        let (candidate, lease) = (Arc::clone(&self.candidate), Arc::clone(&self.lease));
        if let Err(error) = blocking(move || candidate.resign(&lease)).await {
            tracing::debug!(%error, "the lead is not given up");
        }
    }
}

// === impl Heard ===

impl Heard {
    fn says(&mut self, news: &str) {
        if self.0 != news {
            tracing::info!("{news}");
            news.clone_into(&mut self.0);
        }
    }

    fn complains(&mut self, error: &dyn std::error::Error) {
        let news = error.to_string();
        if self.0 != news {
            tracing::error!("{news}");
            self.0 = news;
        }
    }
}

fn warn_of_doubts(nodes: &[RedisUrl]) {
    for doubt in doubts(nodes) {
        tracing::warn!("{doubt}");
    }
}

/// Also when whoever would say so is gone.
fn is_told_to_stop(stopped: &watch::Receiver<bool>) -> bool {
    *stopped.borrow() || stopped.has_changed().is_err()
}

async fn stand(candidate: &Arc<Candidate>) -> Result<Standing, StoreError> {
    let candidate = Arc::clone(candidate);
    blocking(move || candidate.stand()).await
}

/// The client of Redis waits for its answers in a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StoreError::Unreachable(error.to_string())))
}

/// Whether the next attempt may go well.
fn is_passing(error: &ServeError) -> bool {
    let (ServeError::Store(error) | ServeError::Start(StartError::Store(error))) = error else {
        return false;
    };
    !matches!(
        error,
        StoreError::Unsuitable(_) | StoreError::Damaged { .. } | StoreError::Layout { .. }
    )
}

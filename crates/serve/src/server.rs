//! Listening, answering, and ending without losing an accepted request.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use recmill_core::Recommender;
use tokio::{net::TcpListener, sync::oneshot};

use crate::{
    Error, Limits, Result,
    admission::Admission,
    answer::Answers,
    model::Model,
    routes::{Shared, router},
};

/// How a server is to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shutdown {
    /// How long new requests are still taken after probes have been told that none are welcome, so that a load balancer
    /// can turn elsewhere.
    pub grace: Duration,
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    /// Warms `recommender` up, which is version `version` of a model, and listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`Error::Core`] when the model cannot score; [`Error::Bind`] with the address.
    pub async fn bind(
        recommender: Recommender,
        version: impl Into<String>,
        address: SocketAddr,
        limits: Limits,
    ) -> Result<Self> {
        recommender.warm_up()?;
        Self::listen(Arc::new(Model::new(recommender, version.into())), address, limits).await
    }

    async fn listen(model: Arc<dyn Answers>, address: SocketAddr, limits: Limits) -> Result<Self> {
        let bind = |source| Error::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let shared = Arc::new(Shared { model, admission: Admission::new(&limits), limits });
        Ok(Self { listener, address, shared })
    }

    /// Returns the address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until `stop` is ready, then ends those that were accepted.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the listener fails.
    pub async fn run(self, stop: impl Future<Output = Shutdown> + Send + 'static) -> Result<()> {
        let drain_timeout = self.shared.limits.drain_timeout;
        let (draining, drain_begins) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let stop = async move {
            let Shutdown { grace } = stop.await;
            shared.admission.not_ready();
            tokio::time::sleep(grace).await;
            let _ = draining.send(());
        };
        let serve = axum::serve(self.listener, router(self.shared)).with_graceful_shutdown(stop);
        let too_long = async move {
            match drain_begins.await {
                Ok(()) => tokio::time::sleep(drain_timeout).await,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = serve => ended.map_err(Error::Stopped),
            () = too_long => {
                tracing::warn!("requests were still open after {drain_timeout:?} and have been cut off");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;
    use crate::answer::gated::Gated;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stop_loses_no_accepted_request_and_takes_no_new_one() {
        let gated = Arc::new(Gated::default());
        let limits = Limits { request_timeout: Duration::from_secs(600), ..Limits::default() };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::listen(Arc::clone(&gated) as _, address, limits).await.unwrap();
        let address = server.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(server.run(async {
            stopped.await.unwrap();
            Shutdown::default()
        }));
        let accepted = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(stream, "GET /recommend?user_id=7 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let at_gate = Arc::clone(&gated);
        tokio::task::spawn_blocking(move || at_gate.wait_for(1)).await.unwrap();
        stop.send(()).unwrap();
        // The listener is closed before the accepted request has its answer.
        while TcpStream::connect(address).is_ok() {
            tokio::task::yield_now().await;
        }
        gated.open();
        running.await.unwrap().unwrap();
        let answer = accepted.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"user_id\":\"7\""), "{answer}");
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error =
            Server::listen(Arc::new(Gated::default()), address, Limits::default()).await.err().unwrap();
        assert!(error.to_string().starts_with(&format!("cannot listen on {address}")), "{error}");
    }
}

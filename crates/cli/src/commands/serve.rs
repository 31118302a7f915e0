//! `recmill serve`: a model behind HTTP.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use recmill_serve::{Error, Limits, Server};

use crate::{
    device_flag::DeviceFlag,
    failure::{Failure, Result},
    interrupt,
    model::Model,
    newcomers::Newcomers,
    output::{counted, note},
};

/// Arguments of `recmill serve`.
#[derive(Args)]
#[command(after_help = "GET  /recommend?user_id=U&k=N\n\
    POST /recommend  {\"user_id\"?, \"history\"?: [ids], \"exclude\"?: [ids], \"include\"?: [ids], \"k\"?}\n\
    GET  /similar?item_id=I&k=N\n\
    GET  /health/live, /health/ready")]
pub(crate) struct Serve {
    /// Model directory, or one of its versions such as model/versions/7.
    model: PathBuf,
    #[command(flatten)]
    newcomers: Newcomers,
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", env = "RECMILL_BIND")]
    bind: SocketAddr,
    /// Listens on an address that other machines reach, although requests need no key.
    #[arg(long, env = "RECMILL_INSECURE")]
    insecure: bool,
    /// Longest time a request may take, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1000, env = "RECMILL_REQUEST_TIMEOUT",
        value_parser = clap::value_parser!(u64).range(1..))]
    request_timeout: u64,
    /// Requests that are scored or wait for it; the next one is answered 503 [default: 256 more than there are cores].
    #[arg(long, value_name = "N", env = "RECMILL_MAX_REQUESTS", value_parser = clap::value_parser!(u32).range(1..))]
    max_requests: Option<u32>,
    /// Seconds between SIGTERM, from which on /health/ready says 503, and the end of new connections.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, env = "RECMILL_DRAIN_GRACE")]
    drain_grace: u64,
    /// Where to compute: auto, cpu, cuda, cuda:N, wgpu or wgpu:N.
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceFlag::Auto, env = "RECMILL_DEVICE")]
    device: DeviceFlag,
}

impl Serve {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<()> {
        if !self.bind.ip().is_loopback() && !self.insecure {
            return Err(Failure::usage(format!(
                "{} can be reached by other machines, and requests need no key",
                self.bind
            ))
            .hint("put a proxy that checks keys before --bind 127.0.0.1:8080, or say --insecure"));
        }
        let mut model = Model::open(&self.model)?;
        self.newcomers.join(&mut model)?;
        model.score_on(self.device, "serving")?;
        let (kind, version) = (model.kind().to_owned(), model.directory.version().to_owned());
        let data = model.directory.manifest().data.clone();
        let first_user = model.recommender.users().name(0).unwrap_or("1").to_owned();
        let mut limits =
            Limits { request_timeout: Duration::from_millis(self.request_timeout), ..Limits::default() };
        if let Some(most) = self.max_requests {
            limits.max_admitted = most as usize;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Failure::failed(format!("the server cannot start: {error}")))?;
        runtime.block_on(async {
            let stop = interrupt::server_stop(Duration::from_secs(self.drain_grace))?;
            let server = Server::bind(model.recommender, version.as_str(), self.bind, limits)
                .await
                .map_err(explain)?;
            let address = server.address();
            note!(
                "{kind}, version {version}: {}, {}",
                counted(data.users, "user"),
                counted(data.items, "item")
            );
            note!("listening on http://{address}");
            note!("try: curl 'http://{address}/recommend?user_id={}&k=5'", in_query(&first_user));
            server.run(stop).await.map_err(explain)
        })?;
        // Work that outlived its deadline is not waited for.
        runtime.shutdown_background();
        note!("stopped");
        Ok(())
    }
}

fn explain(error: Error) -> Failure {
    let message = error.to_string();
    match error {
        Error::Core(error) => error.into(),
        Error::Bind { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
            Failure::failed(message)
                .hint("another program listens there; choose another port, such as --bind 127.0.0.1:8081")
        }
        _ => Failure::failed(message),
    }
}

/// Writes text so that it can stand in a query string.
fn in_query(text: &str) -> String {
    let mut query = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            query.push(byte.into());
        } else {
            query.push_str(&format!("%{byte:02X}"));
        }
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_escaped_in_the_example() {
        assert_eq!(in_query("a b&ü'"), "a%20b%26%C3%BC%27");
    }
}

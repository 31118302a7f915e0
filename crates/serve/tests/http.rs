//! What a client of the server sees, over real connections on a free port.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    thread::JoinHandle,
};

use recmill_core::{
    Csr, IdMap, Recommender,
    models::{Als, AlsConfig},
};
use recmill_kernels::{Device, Table};
use recmill_serve::{Limits, Server, Shutdown};
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// Two tastes: items a, b, c point one way, x, y, z the other; Ann has had a, Ben has had x.
fn recommender() -> Recommender {
    let ids = |names: &[&str]| {
        let mut map = IdMap::default();
        for name in names {
            map.get_or_insert(name).unwrap();
        }
        Arc::new(map)
    };
    let table = |values: &[f32]| Table::from_f32(values, 2, Device::Cpu, "a test").unwrap();
    let users = table(&[1.0, 0.0, 0.0, 1.0]);
    let items = table(&[1.0, 0.1, 0.9, 0.1, 0.8, 0.1, 0.1, 1.0, 0.1, 0.9, 0.1, 0.8]);
    let model = Als::new(AlsConfig { factors: 2, ..AlsConfig::default() }, users, items).unwrap();
    let learnt = Csr::new(6, vec![0, 1, 2], vec![0, 3], vec![1.0, 1.0]).unwrap();
    let items = ids(&["a", "b", "c", "x", "y", "z"]);
    Recommender::new(Box::new(model), ids(&["Ann", "Ben"]), items, Arc::new(learnt), 0).unwrap()
}

struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start() -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let free_port = SocketAddr::from(([127, 0, 0, 1], 0));
                let server = Server::bind(recommender(), "7", free_port, Limits::default()).await.unwrap();
                tell.send(server.address()).unwrap();
                let stop = async {
                    stopped.await.unwrap();
                    Shutdown::default()
                };
                server.run(stop).await.unwrap();
            });
        });
        Self { address: told.recv().unwrap(), stop: Some(stop), thread: Some(thread) }
    }

    /// Sends raw bytes and returns status and body.
    fn raw(&self, request: &[u8]) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        // A server that refuses early may close before it has read everything.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.raw(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}", body.len());
        self.raw(format!("{head}\r\n\r\n{body}").as_bytes())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn items(answer: &Value) -> Vec<&str> {
    answer["recommendations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["item_id"].as_str().unwrap())
        .collect()
}

#[test]
fn a_user_is_given_what_is_new_to_them() {
    let server = Running::start();
    let (status, answer) = server.get("/recommend?user_id=Ann&k=2");
    assert_eq!((status, items(&answer)), (200, vec!["b", "c"]));
    assert_eq!((&answer["user_id"], &answer["model_version"]), (&json!("Ann"), &json!("7")));
    assert!(answer["recommendations"][0]["score"].is_f64() && answer.get("fallback").is_none());
    assert_eq!(server.post("/recommend", &json!({"user_id": "Ann", "k": 2})).1, answer);
}

#[test]
fn a_history_stands_for_a_user_that_came_after_training() {
    let server = Running::start();
    let (status, answer) =
        server.post("/recommend", &json!({"user_id": "Eve", "history": ["x", "nonsense"], "k": 2}));
    assert_eq!((status, items(&answer)), (200, vec!["y", "z"]));
    assert_eq!(answer["unknown_items"], json!(["nonsense"]));
    let (_, answer) = server.post("/recommend", &json!({"history": [{"item_id": "a", "value": 3}], "k": 1}));
    assert_eq!((items(&answer), answer.get("user_id")), (vec!["b"], None));
    let (_, answer) = server.post("/recommend", &json!({"user_id": "Ann", "history": ["nonsense"], "k": 1}));
    assert_eq!((items(&answer), answer.get("fallback")), (vec!["b"], None));
}

#[test]
fn exclude_and_include_are_kept_to() {
    let server = Running::start();
    let (_, answer) =
        server.post("/recommend", &json!({"user_id": "Ann", "exclude": ["b", "nonsense"], "k": 1}));
    assert_eq!(items(&answer), ["c"]);
    let (_, answer) =
        server.post("/recommend", &json!({"user_id": "Ann", "include": ["z", "y", "a"], "k": 9}));
    // Ann has had a; y and z have one score, so their order is that of a hash.
    let mut included = items(&answer);
    included.sort_unstable();
    assert_eq!(included, ["y", "z"]);
    let (_, answer) = server.post("/recommend", &json!({"user_id": "Ann", "include": [], "k": 9}));
    assert!(items(&answer).is_empty());
}

#[test]
fn an_unknown_user_is_given_the_most_popular_and_told_so() {
    let server = Running::start();
    let (status, answer) = server.get("/recommend?user_id=nobody&k=2");
    assert_eq!((status, &answer["fallback"]), (200, &json!("most_popular")));
    let mut popular = items(&answer);
    popular.sort_unstable();
    assert_eq!(popular, ["a", "x"]);
}

#[test]
fn similar_items_leave_the_item_itself_out() {
    let server = Running::start();
    let (status, answer) = server.get("/similar?item_id=x&k=2");
    let similar: Vec<_> = answer["similar"].as_array().unwrap().iter().map(|item| &item["item_id"]).collect();
    assert_eq!((status, similar), (200, vec![&json!("y"), &json!("z")]));
    let (status, answer) = server.get("/similar?item_id=nonsense");
    assert_eq!((status, &answer["code"]), (422, &json!("unknown_item")));
    assert!(answer["error"].as_str().unwrap().contains("`nonsense`"));
}

#[test]
fn a_body_without_an_announced_length_is_limited_as_well() {
    let server = Running::start();
    let mut request =
        b"POST /recommend HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_vec();
    for _ in 0..3 {
        request.extend(b"100000\r\n");
        request.extend(vec![b' '; 1 << 20]);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    let (status, answer) = server.raw(&request);
    assert_eq!((status, &answer["code"]), (413, &json!("body_too_large")));
}

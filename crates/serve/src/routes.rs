//! From a request to an answer: paths, admission, the body, and an id on everything that leaves.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::to_bytes,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;

use crate::{
    Limits,
    admission::Admission,
    answer::Answers,
    error::Refusal,
    question::{Recommend, Similar},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What every request can reach.
pub(crate) struct Shared {
    pub(crate) model: Arc<dyn Answers>,
    pub(crate) limits: Limits,
    pub(crate) admission: Admission,
}

/// The id of a request, made when it comes in.
#[derive(Clone)]
struct RequestId(String);

/// Returns the server's paths.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/recommend", get(recommend).post(recommend))
        .route("/similar", get(similar))
        .route("/health/live", get(|| async { Json(json!({"status": "live"})) }))
        .route("/health/ready", get(ready))
        .fallback(async |request: Request| {
            refuse(&request, &Refusal::NoSuchPath(request.uri().path().to_owned()))
        })
        .method_not_allowed_fallback(async |request: Request| refuse(&request, &Refusal::WrongMethod))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), with_id))
        .with_state(shared)
}

async fn with_id(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let id = shared.admission.request_id();
    let line = format!("{} {}", request.method(), request.uri().path());
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    let status = response.status();
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(request_id = id, "{line} failed");
    } else {
        tracing::debug!(request_id = id, status = status.as_u16(), "{line}");
    }
    if !shared.admission.is_ready() {
        // Whoever keeps a connection open would send its next request to a server that is gone.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

fn refuse(request: &Request, refusal: &Refusal) -> Response {
    refusal.answer(&id_of(request))
}

fn id_of(request: &Request) -> String {
    request.extensions().get::<RequestId>().map(|RequestId(id)| id.clone()).unwrap_or_default()
}

async fn ready(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if shared.admission.is_ready() {
        Json(json!({"status": "ready"})).into_response()
    } else {
        refuse(&request, &Refusal::NotReady)
    }
}

async fn recommend(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let id = id_of(&request);
    let answer = async move {
        let place = shared.admission.enter()?;
        let question = match *request.method() {
            Method::POST => {
                // A client that sends slowly has as long as a request has, and then gives its place back.
                let body = read_body(request, shared.limits.max_body_bytes);
                let body = tokio::time::timeout(shared.limits.request_timeout, body).await;
                let body = body.map_err(|_| Refusal::Deadline)??;
                Recommend::from_json(&body, &shared.limits)?
            }
            _ => Recommend::from_query(request.uri(), &shared.limits)?,
        };
        let model = Arc::clone(&shared.model);
        shared.admission.score(place, move || model.recommend(question)).await
    };
    answer.await.map_or_else(|refusal| refusal.answer(&id), |answer| Json(answer).into_response())
}

async fn similar(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let id = id_of(&request);
    let answer = async move {
        let place = shared.admission.enter()?;
        let question = Similar::from_query(request.uri(), &shared.limits)?;
        let model = Arc::clone(&shared.model);
        shared.admission.score(place, move || model.similar(question)).await
    };
    answer.await.map_or_else(|refusal| refusal.answer(&id), |answer| Json(answer).into_response())
}

/// Reads a body, no further than `limit`.
async fn read_body(request: Request, limit: usize) -> Result<axum::body::Bytes, Refusal> {
    let too_large = Refusal::BodyTooLarge { limit };
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if announced.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > limit as u64) {
        return Err(too_large);
    }
    to_bytes(request.into_body(), limit).await.map_err(|error| {
        let reason = std::error::Error::source(&error);
        match reason.is_some_and(|reason| reason.to_string().contains("length limit")) {
            true => too_large,
            false => Refusal::Malformed(format!("the body: {error}")),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;
    use crate::answer::gated::Gated;

    fn server(limits: Limits) -> (Arc<Gated>, Arc<Shared>, Router) {
        let gated = Arc::new(Gated::default());
        let model: Arc<dyn Answers> = Arc::clone(&gated) as _;
        let shared = Arc::new(Shared { model, admission: Admission::new(&limits), limits });
        (gated, Arc::clone(&shared), router(shared))
    }

    fn generous() -> Limits {
        Limits { request_timeout: Duration::from_secs(600), ..Limits::default() }
    }

    async fn ask(
        router: &Router,
        method: &str,
        uri: &str,
        body: impl Into<Body>,
    ) -> (StatusCode, Value, Response<()>) {
        let request = Request::builder().method(method).uri(uri).body(body.into()).unwrap();
        let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        (parts.status, value, Response::from_parts(parts, ()))
    }

    #[tokio::test]
    async fn every_refusal_has_its_status_and_a_typed_body() {
        let (_, _, router) = server(generous());
        let long_id = "x".repeat(300);
        let table = [
            ("GET", "/nowhere".to_owned(), String::new(), 404, "not_found"),
            ("GET", "/recommend".into(), String::new(), 400, "malformed"),
            ("GET", "/recommend?user_id=1&k=0".into(), String::new(), 422, "invalid_value"),
            ("GET", "/recommend?user_id=1&k=1001".into(), String::new(), 422, "invalid_value"),
            ("GET", format!("/recommend?user_id={long_id}"), String::new(), 422, "invalid_value"),
            ("POST", "/recommend".into(), "{".into(), 400, "malformed"),
            ("POST", "/recommend".into(), "{}".into(), 422, "invalid_value"),
            ("POST", "/recommend".into(), " ".repeat((2 << 20) + 1), 413, "body_too_large"),
            ("DELETE", "/recommend".into(), String::new(), 405, "wrong_method"),
            ("POST", "/similar?item_id=1".into(), String::new(), 405, "wrong_method"),
            ("POST", "/health/live".into(), String::new(), 405, "wrong_method"),
            ("GET", "/similar?item_id=1".into(), String::new(), 422, "unknown_item"),
            ("GET", "/recommend?user_id=1&k=13".into(), String::new(), 500, "internal"),
        ];
        for (method, uri, body, status, code) in table {
            let (got, value, response) = ask(&router, method, &uri, body).await;
            assert_eq!((got.as_u16(), value["code"].as_str()), (status, Some(code)), "{method} {uri}");
            assert!(!value["error"].as_str().unwrap().is_empty());
            assert_eq!(value["request_id"].as_str().unwrap(), response.headers()["x-request-id"]);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn beyond_the_places_requests_are_refused_and_the_others_are_answered() {
        let (gated, shared, router) = server(Limits { max_admitted: 2, max_scoring: 1, ..generous() });
        let one = |user: &'static str| {
            let router = router.clone();
            tokio::spawn(async move { ask(&router, "GET", &format!("/recommend?user_id={user}"), "").await })
        };
        let first = one("a");
        let at_gate = Arc::clone(&gated);
        tokio::task::spawn_blocking(move || at_gate.wait_for(1)).await.unwrap();
        let second_place = shared.admission.enter().unwrap();
        let (status, value, response) = ask(&router, "GET", "/recommend?user_id=c", "").await;
        assert_eq!((status.as_u16(), value["code"].as_str()), (503, Some("overloaded")));
        assert_eq!(response.headers()["retry-after"], "1");
        let (alive, ..) = ask(&router, "GET", "/health/ready", "").await;
        assert_eq!(alive, StatusCode::OK);
        drop(second_place);
        gated.open();
        assert_eq!(first.await.unwrap().1["user_id"], "a");
        assert_eq!(one("b").await.unwrap().1["user_id"], "b");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_request_past_its_deadline_is_never_scored() {
        let short = Limits { max_scoring: 1, request_timeout: Duration::from_millis(1), ..Limits::default() };
        let (gated, shared, router) = server(short);
        let only_room = Arc::clone(&gated);
        let place = shared.admission.enter().unwrap();
        let question = Recommend::from_json(b"{\"user_id\": 1}", &shared.limits).unwrap();
        let first = shared.admission.score(place, move || only_room.recommend(question)).await;
        assert_eq!(first, Err(Refusal::Deadline));
        // Its work is on its way to a thread, and fills the only room from there.
        gated.wait_for(1);
        let (status, value, _) = ask(&router, "GET", "/recommend?user_id=late", "").await;
        assert_eq!((status.as_u16(), value["code"].as_str()), (504, Some("deadline")));
        assert_eq!(gated.arrived(), 1);
        gated.open();
    }

    #[tokio::test]
    async fn a_body_that_never_ends_gives_its_place_back() {
        let limits =
            Limits { max_admitted: 1, request_timeout: Duration::from_millis(1), ..Limits::default() };
        let (gated, shared, router) = server(limits);
        let endless = Body::from_stream(futures::stream::pending::<std::io::Result<axum::body::Bytes>>());
        let (status, value, _) = ask(&router, "POST", "/recommend", endless).await;
        assert_eq!((status.as_u16(), value["code"].as_str()), (504, Some("deadline")));
        drop(shared.admission.enter().unwrap());
        assert_eq!(gated.arrived(), 0);
    }

    #[tokio::test]
    async fn probes_follow_readiness() {
        let (_, shared, router) = server(generous());
        let (_, value, response) = ask(&router, "GET", "/health/ready", "").await;
        assert_eq!((value["status"].as_str(), response.headers().get("connection")), (Some("ready"), None));
        shared.admission.not_ready();
        let (status, value, response) = ask(&router, "GET", "/health/ready", "").await;
        assert_eq!((status.as_u16(), value["code"].as_str()), (503, Some("not_ready")));
        assert_eq!(response.headers()["connection"], "close");
        assert_eq!(ask(&router, "GET", "/health/live", "").await.0, StatusCode::OK);
    }
}

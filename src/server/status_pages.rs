//! The status pages: `/health`, `/status` and `/metrics` over HTTP/1.
//!
//! Promises: they answer from memory, at every state of the server; `/health` is 200 while reads are
//! served and 503 otherwise, with the reason either way.

use std::sync::Arc;

use axum::{
    Router,
    extract::State as Shared,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use basalt_proto::basaltpb::State;
use serde::Serialize;

use crate::{
    metrics::Metrics,
    state::{ServerState, StatusJson, state_word},
};

#[derive(Clone)]
struct Pages {
    state: Arc<ServerState>,
    metrics: Arc<Metrics>,
}

/// The pages.
pub fn router(state: Arc<ServerState>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/health", get(health))
        .route("/status", get(status))
        .route("/metrics", get(show_metrics))
        .with_state(Pages { state, metrics })
}

async fn index() -> &'static str {
    "Basalt status pages: /health /status /metrics\n"
}

#[derive(Serialize)]
struct Health {
    state: &'static str,
    reason: Option<String>,
}

async fn health(Shared(pages): Shared<Pages>) -> impl IntoResponse {
    let status = pages.state.status().await;
    let state = status.state();
    let code = match state {
        State::Serving | State::ReadOnly => StatusCode::OK,
        State::Unspecified | State::Draining | State::Fenced | State::Starting => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    let reason = Some(status.reason).filter(|reason| !reason.is_empty());
    (
        code,
        json(&Health {
            state: state_word(state),
            reason,
        }),
    )
}

async fn status(Shared(pages): Shared<Pages>) -> impl IntoResponse {
    json(&StatusJson::from(pages.state.status().await))
}

async fn show_metrics(Shared(pages): Shared<Pages>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], pages.metrics.text())
}

fn json<T: Serialize>(value: &T) -> impl IntoResponse + use<T> {
    let mut text = serde_json::to_string(value).expect("plain structs of text and numbers");
    text.push('\n');
    ([(header::CONTENT_TYPE, "application/json")], text)
}

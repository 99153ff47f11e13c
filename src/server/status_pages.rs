//! The status pages for programs: `/livez`, `/readyz`, `/health`, `/status` and `/metrics` over HTTP/1; and where the web page is.
//!
//! Promises: they answer from memory, at every state of the server; `/livez` is 200 while the process serves its
//! pages; `/readyz` is 200 while every check passes and 503 otherwise, and names each that fails, with the reason (all
//! of them with `?verbose`, all but one with `?exclude=NAME`); `/health` is 200 while reads are
//! served and 503 otherwise, with the reason either way.
//!
//! Not here: the page (`web`), what it shows (`api`).

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Router,
    extract::{RawQuery, State as Shared},
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use basalt_proto::basaltpb::State;
use serde::Serialize;

use crate::{
    metrics::Metrics,
    state::{ServerState, StatusJson, state_word},
    web,
};

#[derive(Clone)]
struct Pages {
    state: Arc<ServerState>,
    metrics: Arc<Metrics>,
}

/// The pages.
pub fn router(state: Arc<ServerState>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/", get(web::index))
        .route("/style.css", get(web::style))
        .route("/app.js", get(web::script))
        .route("/icon.svg", get(web::icon))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/health", get(health))
        .route("/status", get(status))
        .route("/metrics", get(show_metrics))
        .with_state(Pages { state, metrics })
}

/// A process that cannot answer this is to be started again.
async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(Shared(pages): Shared<Pages>, RawQuery(query): RawQuery) -> (StatusCode, String) {
    let query = query.unwrap_or_default();
    let words = || query.split('&');
    let is_verbose = words().any(|word| word == "verbose" || word == "verbose=true");
    let is_excluded = |name: &str| words().any(|word| word.strip_prefix("exclude=") == Some(name));
    let checks = pages.state.checks().await;
    let mut text = String::new();
    let mut code = StatusCode::OK;
    for (name, wrong) in checks {
        let _ = match wrong {
            Some(_) if is_excluded(name) => writeln!(text, "[ ] {name} excluded"),
            Some(reason) => {
                code = StatusCode::SERVICE_UNAVAILABLE;
                writeln!(text, "[-] {name} failed: {reason}")
            }
            None if is_verbose => writeln!(text, "[+] {name} ok"),
            None => Ok(()),
        };
    }
    text.push_str(if code == StatusCode::OK {
        "ready\n"
    } else {
        "not ready\n"
    });
    (code, text)
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

//! The web page: one file each of HTML, CSS and JavaScript, part of the binary.
//!
//! Promises: nothing is fetched from anywhere but this server; a browser runs no script but that one (by the header
//! `Content-Security-Policy`), and asks again only whether it has changed.
//!
//! Not here: what the page shows (`api`).

use std::sync::OnceLock;

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

const HTML: &str = include_str!("web/index.html");
const CSS: &str = include_str!("web/style.css");
const JS: &str = include_str!("web/app.js");
const ICON: &str = include_str!("web/icon.svg");

/// What is said to whoever asks for no page.
const TEXT: &str = "Basalt: / is a web page; /livez /readyz /health /status /metrics are for programs, /api/v1/ is documented in \
                    docs/status-api.md\n";

const CSP: &str = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// One of the files.
#[derive(Clone, Copy)]
struct Asset {
    kind: &'static str,
    text: &'static str,
}

impl Asset {
    fn tag(self) -> String {
        let hash = crate::auth::hash(self.text.as_bytes());
        format!("\"{}\"", crate::state::hex(&hash[..8]))
    }

    fn answer(self, tag: &str, headers: &HeaderMap) -> Response {
        let known = headers
            .get(header::IF_NONE_MATCH)
            .map(HeaderValue::as_bytes);
        let mut response = match known == Some(tag.as_bytes()) {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => self.text.into_response(),
        };
        let own = response.headers_mut();
        let tag = HeaderValue::from_str(tag).expect("hex digits");
        own.insert(header::ETAG, tag);
        for (name, value) in [
            (header::CONTENT_TYPE, self.kind),
            (header::CACHE_CONTROL, "no-cache"),
            (header::CONTENT_SECURITY_POLICY, CSP),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
        ] {
            own.insert(name, HeaderValue::from_static(value));
        }
        own.insert(
            "cross-origin-resource-policy",
            HeaderValue::from_static("same-origin"),
        );
        response
    }
}

/// The page, or a line of text for programs.
pub(crate) async fn index(headers: HeaderMap) -> Response {
    static TAG: OnceLock<String> = OnceLock::new();
    let accepts = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    if !accepts.is_some_and(|accept| accept.contains("text/html")) {
        return TEXT.into_response();
    }
    let asset = Asset {
        kind: "text/html; charset=utf-8",
        text: HTML,
    };
    asset.answer(TAG.get_or_init(|| asset.tag()), &headers)
}

/// How it looks.
pub(crate) async fn style(headers: HeaderMap) -> Response {
    static TAG: OnceLock<String> = OnceLock::new();
    let asset = Asset {
        kind: "text/css; charset=utf-8",
        text: CSS,
    };
    asset.answer(TAG.get_or_init(|| asset.tag()), &headers)
}

/// What it does.
pub(crate) async fn script(headers: HeaderMap) -> Response {
    static TAG: OnceLock<String> = OnceLock::new();
    let asset = Asset {
        kind: "text/javascript; charset=utf-8",
        text: JS,
    };
    asset.answer(TAG.get_or_init(|| asset.tag()), &headers)
}

/// The icon of its tab.
pub(crate) async fn icon(headers: HeaderMap) -> Response {
    static TAG: OnceLock<String> = OnceLock::new();
    let asset = Asset {
        kind: "image/svg+xml",
        text: ICON,
    };
    asset.answer(TAG.get_or_init(|| asset.tag()), &headers)
}

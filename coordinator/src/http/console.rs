//! The console: a page of this binary that asks the API from the browser. It holds no data, so it
//! needs no token; what it asks for does.

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::IntoResponse;
use axum::routing::get;

/// Nothing from elsewhere is loaded, and nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // Of another version after an update.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, text)
}

/// The console's files.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let page = || async { file("text/html; charset=utf-8", include_str!("console/index.html")) };
    let style = || async { file("text/css; charset=utf-8", include_str!("console/console.css")) };
    let script =
        || async { file("text/javascript; charset=utf-8", include_str!("console/console.js")) };
    Router::new()
        .route("/", get(page))
        .route("/console.css", get(style))
        .route("/console.js", get(script))
}

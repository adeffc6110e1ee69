//! Who may call what.
//!
//! A role without a token is left to callers on the same machine; a role with one demands it of
//! everybody. An operator may also read.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, HOST};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cdc_shared::config::{Secret, TokenConfig};
use subtle::ConstantTimeEq;

use super::error::ApiError;
use crate::error::CoordinatorError;

/// What a caller wants to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Report progress of a sink.
    Worker,
    /// Change something.
    Operator,
    /// Look.
    Reader,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Operator => "operator",
            Self::Reader => "reader",
        }
    }
}

/// Whether a request may pass, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Allowed {
    /// It bears a token.
    ByToken,
    /// The role has no token, and the caller is on this machine.
    ByPlace,
    /// It may not.
    No,
}

/// The tokens that open one role.
pub(crate) struct Access {
    role: Role,
    own: Option<Secret>,
    wider: Option<Secret>,
}

impl Access {
    pub(crate) fn new(tokens: &TokenConfig, role: Role) -> Self {
        let set = |token: &Option<Secret>| token.clone().filter(|token| !token.is_empty());
        let (own, wider) = match role {
            Role::Worker => (set(&tokens.worker), None),
            Role::Operator => (set(&tokens.operator), None),
            Role::Reader => (set(&tokens.reader), set(&tokens.operator)),
        };
        Self { role, own, wider }
    }

    fn allows(&self, token: Option<&str>, peer: IpAddr) -> Allowed {
        let opened_by = |secret: &Option<Secret>| match (secret, token) {
            (Some(secret), Some(token)) => same(secret.expose(), token),
            _ => false,
        };
        // Both are compared, whatever the first says, so that time tells nothing.
        let opened = opened_by(&self.own) | opened_by(&self.wider);
        if opened {
            Allowed::ByToken
        } else if self.own.is_none() && is_local(peer) {
            Allowed::ByPlace
        } else {
            Allowed::No
        }
    }
}

/// Same text, without telling by time where it differs.
fn same(secret: &str, token: &str) -> bool {
    secret.as_bytes().ct_eq(token.as_bytes()).into()
}

fn is_local(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Lets a request pass or answers 401.
pub(crate) async fn require(
    State(access): State<Arc<Access>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let token = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token);
    match access.allows(token, peer.ip()) {
        Allowed::ByToken => next.run(request).await,
        Allowed::ByPlace if names_this_machine(&request) => next.run(request).await,
        Allowed::ByPlace => ApiError::foreign_host().into_response(),
        Allowed::No => ApiError::unauthorized(access.role.name()).into_response(),
    }
}

/// Whether the caller meant this machine. A page in a browser here can have its own host's name
/// lead to loopback (DNS rebinding); it cannot choose the name that it is asked by.
fn names_this_machine(request: &Request) -> bool {
    let host = request.headers().get(HOST).and_then(|value| value.to_str().ok());
    let Some(host) = host else { return !request.headers().contains_key(HOST) };
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if port.chars().all(|c| c.is_ascii_digit()) => bare,
        _ => host,
    };
    let bare = bare.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// Refuses to listen beyond loopback without any token.
pub(crate) fn check_bind(
    addresses: &[SocketAddr],
    tokens: &TokenConfig,
) -> Result<(), CoordinatorError> {
    let protected = [&tokens.worker, &tokens.operator, &tokens.reader]
        .into_iter()
        .flatten()
        .any(|token| !token.is_empty());
    match addresses.iter().find(|address| !is_local(address.ip())) {
        Some(open) if !protected => Err(CoordinatorError::Unprotected(*open)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> TokenConfig {
        TokenConfig {
            worker: Some("w".into()),
            operator: Some("o".into()),
            reader: Some(Secret::default()),
        }
    }

    #[test]
    fn a_role_is_opened_by_its_token_and_without_one_by_loopback() {
        let (here, there) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([10, 0, 0, 1]));
        let allows =
            |role, token, peer| Access::new(&tokens(), role).allows(token, peer) != Allowed::No;
        assert!(allows(Role::Worker, Some("w"), there));
        assert!(!allows(Role::Worker, Some("o"), here));
        assert!(!allows(Role::Worker, None, here));
        assert!(allows(Role::Operator, Some("o"), there));
        assert!(!allows(Role::Operator, Some("w"), here));
        assert!(allows(Role::Reader, Some("o"), there));
        assert!(allows(Role::Reader, None, here));
        assert!(!allows(Role::Reader, None, there));
        assert!(!allows(Role::Reader, Some(""), there));
        assert!(allows(Role::Reader, None, "::ffff:127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn listening_to_the_world_needs_a_token() {
        let local: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let open: SocketAddr = "0.0.0.0:1".parse().unwrap();
        assert!(check_bind(&[local], &TokenConfig::default()).is_ok());
        assert!(check_bind(&[open], &tokens()).is_ok());
        let error = check_bind(&[local, open], &TokenConfig::default()).unwrap_err();
        assert!(error.to_string().contains("0.0.0.0:1"), "{error}");
    }
}

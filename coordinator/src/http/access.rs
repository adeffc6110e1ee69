//! Who may call what.
//!
//! A role without a token is left to callers on the same machine; a role with one demands it of
//! everybody. An operator may also read. Tokens can be replaced while the coordinator runs.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, HOST};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cdc_shared::config::{Role, Secret, TokenConfig};
use subtle::ConstantTimeEq;

use super::error::ApiError;
use super::limit::FailureLimit;
use super::listen::Peer;
use crate::error::CoordinatorError;

/// The tokens, and who was wrong about them.
#[derive(Debug)]
pub(crate) struct Access {
    tokens: RwLock<Arc<Vec<Token>>>,
    failures: Mutex<FailureLimit>,
}

#[derive(Debug)]
struct Token {
    role: Role,
    /// `None`: the role's own.
    name: Option<String>,
    secret: Secret,
}

/// Who calls, as far as it is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Caller {
    /// Whose token it bears.
    pub(crate) name: Option<String>,
    /// Where it calls from.
    pub(crate) peer: IpAddr,
}

impl Caller {
    /// What the audit trail says, beside what the caller says of itself.
    pub(crate) fn signed(&self, by: &str) -> String {
        let name = self.name.as_ref().map(|name| format!(", token of {name}")).unwrap_or_default();
        if is_local(self.peer) {
            format!("{by}{name}")
        } else {
            format!("{by}{name}, from {}", self.peer.to_canonical())
        }
    }
}

/// Whether a request may pass, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Allowed {
    /// It bears a token, perhaps a named one.
    ByToken(Option<String>),
    /// The role has no token, and the caller is on this machine.
    ByPlace,
    /// It may not.
    No,
}

impl Access {
    /// The tokens of a configuration.
    pub(crate) fn new(tokens: &TokenConfig) -> Self {
        Self { tokens: RwLock::new(Arc::new(list(tokens))), failures: Mutex::default() }
    }

    /// From now on these.
    pub(crate) fn replace(&self, tokens: &TokenConfig) {
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(list(tokens));
    }

    fn allows(&self, wanted: Role, given: Option<&str>, peer: IpAddr) -> Allowed {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut opened = None;
        // All are compared, whatever the first says, so that time tells nothing.
        for token in tokens.iter().filter(|token| token.role.opens(wanted)) {
            if given.is_some_and(|given| same(token.secret.expose(), given)) {
                opened = Some(token.name.clone());
            }
        }
        match opened {
            Some(name) => Allowed::ByToken(name),
            None if !tokens.iter().any(|token| token.role == wanted) && is_local(peer) => {
                Allowed::ByPlace
            }
            None => Allowed::No,
        }
    }

    fn judge(&self, wanted: Role, request: &Request, peer: IpAddr) -> Result<Caller, ApiError> {
        let now = Instant::now();
        let failures = || self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = failures().wait(peer, now) {
            return Err(ApiError::too_many_failures(wait));
        }
        let given = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token);
        match self.allows(wanted, given, peer) {
            Allowed::ByToken(name) => Ok(Caller { name, peer }),
            Allowed::ByPlace if names_this_machine(request) => Ok(Caller { name: None, peer }),
            Allowed::ByPlace => Err(ApiError::foreign_host()),
            Allowed::No => {
                // Without a token nobody guesses one.
                if given.is_some() {
                    failures().failed(peer, now);
                    tracing::warn!(%peer, role = wanted.name(), "coordinator.access_refused");
                }
                Err(ApiError::unauthorized(wanted.name()))
            }
        }
    }
}

fn list(tokens: &TokenConfig) -> Vec<Token> {
    let own = [
        (Role::Worker, &tokens.worker),
        (Role::Operator, &tokens.operator),
        (Role::Reader, &tokens.reader),
    ];
    let own = own.into_iter().filter_map(|(role, secret)| {
        Some(Token { role, name: None, secret: secret.clone().filter(|s| !s.is_empty())? })
    });
    let named = tokens.named.iter().filter(|named| !named.token.is_empty()).map(|named| Token {
        role: named.role,
        name: Some(named.name.clone()),
        secret: named.token.clone(),
    });
    own.chain(named).collect()
}

/// Same text, without telling by time where it differs.
fn same(secret: &str, token: &str) -> bool {
    secret.as_bytes().ct_eq(token.as_bytes()).into()
}

fn is_local(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Lets a request pass, with its [`Caller`], or answers 401.
pub(crate) async fn require(
    State((access, role)): State<(Arc<Access>, Role)>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    match access.judge(role, &request, peer.ip()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
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
    match addresses.iter().find(|address| !is_local(address.ip())) {
        Some(open) if !tokens.any() => Err(CoordinatorError::Unprotected(*open)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use cdc_shared::config::NamedToken;

    use super::*;

    fn tokens() -> TokenConfig {
        TokenConfig {
            worker: Some("w".into()),
            operator: Some("o".into()),
            reader: Some(Secret::default()),
            named: vec![NamedToken {
                name: "alice".to_owned(),
                role: Role::Operator,
                token: "a".into(),
            }],
        }
    }

    #[test]
    fn a_role_is_opened_by_its_token_and_without_one_by_loopback() {
        let (here, there) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([10, 0, 0, 1]));
        let access = Access::new(&tokens());
        let allows = |role, token, peer| access.allows(role, token, peer) != Allowed::No;
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
        let alice = Allowed::ByToken(Some("alice".to_owned()));
        assert_eq!(access.allows(Role::Operator, Some("a"), there), alice);
        assert_eq!(access.allows(Role::Reader, Some("a"), there), alice);
        assert!(!allows(Role::Worker, Some("a"), there));
        access.replace(&TokenConfig { operator: Some("new".into()), ..TokenConfig::default() });
        let allows = |role, token, peer| access.allows(role, token, peer) != Allowed::No;
        assert!(allows(Role::Operator, Some("new"), there));
        assert!(!allows(Role::Operator, Some("a"), there) && !allows(Role::Operator, None, here));
    }

    #[test]
    fn the_audit_trail_tells_whose_token_it_was_and_from_where() {
        let caller = |name: Option<&str>, peer: [u8; 4]| {
            Caller { name: name.map(ToOwned::to_owned), peer: peer.into() }.signed("root@host")
        };
        assert_eq!(caller(None, [127, 0, 0, 1]), "root@host");
        assert_eq!(
            caller(Some("alice"), [10, 0, 0, 1]),
            "root@host, token of alice, from 10.0.0.1"
        );
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

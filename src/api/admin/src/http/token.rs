//! Bearer tokens: those of the configuration, kept as hashes and compared in constant time.
//!
//! Tokens with a dot belong to the table of admin tokens, which this release does not serve yet: they are answered `NotImplemented`, unless
//! the configuration itself holds such a token.

use crate::{AdminError, ErrorCode};

/// Who may call over HTTP.
#[derive(Clone, Default)]
pub struct AdminHttpOptions {
    /// `admin.admin_token`; `None`: no token of the configuration opens the interface.
    pub admin_token: Option<String>,
    /// `admin.metrics_token`.
    pub metrics_token: Option<String>,
    /// `admin.metrics_require_token`: `/metrics` is closed even without `metrics_token`.
    pub metrics_require_token: bool,
}

/// The tokens that open something.
pub(super) struct Tokens {
    admin: Option<TokenHash>,
    metrics: Option<TokenHash>,
    metrics_need_token: bool,
}

/// BLAKE3 of a token. Tokens are long and random, so a fast hash keeps them; its comparison takes constant time.
struct TokenHash(blake3::Hash);

impl TokenHash {
    /// Blanks around a token come from the file it was read from, never from its owner.
    fn of_config(token: &str) -> TokenHash {
        TokenHash(blake3::hash(token.trim().as_bytes()))
    }
    fn matches(&self, token: &str) -> bool {
        self.0 == blake3::hash(token.as_bytes())
    }
}

impl Tokens {
    pub(super) fn new(options: &AdminHttpOptions) -> Tokens {
        let hash = |token: &Option<String>| token.as_deref().filter(|token| !token.trim().is_empty()).map(TokenHash::of_config);
        Tokens {
            admin: hash(&options.admin_token),
            metrics: hash(&options.metrics_token),
            metrics_need_token: options.metrics_token.is_some() || options.metrics_require_token,
        }
    }

    /// Lets the bearer of `token` call `endpoint`. Errors: `AccessDenied`, `NotImplemented`.
    pub(super) fn authorize(&self, token: Option<&str>, endpoint: &str) -> Result<(), AdminError> {
        check(self.admin.as_ref(), token, endpoint)
    }

    /// Lets the bearer of `token` read the metrics; anybody, if they are open.
    pub(super) fn authorize_metrics(&self, token: Option<&str>) -> Result<(), AdminError> {
        if self.metrics_need_token { check(self.metrics.as_ref(), token, "Metrics") } else { Ok(()) }
    }
}

fn check(expected: Option<&TokenHash>, token: Option<&str>, endpoint: &str) -> Result<(), AdminError> {
    let denied = |message: &str| Err(AdminError::new(ErrorCode::AccessDenied, message));
    let Some(token) = token else { return denied("the header Authorization: Bearer <token> is needed") };
    if expected.is_some_and(|expected| expected.matches(token)) {
        return Ok(());
    }
    if token.contains('.') {
        let message =
            format!("{endpoint}: tokens of the admin token table are not implemented in this release; use admin_token of garage.toml");
        return Err(AdminError::new(ErrorCode::NotImplemented, message));
    }
    match expected {
        None => denied("no token is configured for this: set it in the section [admin] of garage.toml"),
        Some(_) => denied("the bearer token is wrong"),
    }
}

#[cfg(test)]
mod tests {
    use super::{AdminHttpOptions, Tokens};

    fn code(result: Result<(), crate::AdminError>) -> u16 {
        result.map_or_else(|error| error.status(), |()| 200)
    }

    #[test]
    fn only_the_exact_admin_token_opens_the_interface() {
        let tokens = Tokens::new(&AdminHttpOptions { admin_token: Some(" secret\n".into()), ..AdminHttpOptions::default() });
        for (token, expected) in
            [(Some("secret"), 200), (None, 403), (Some(""), 403), (Some(" secret"), 403), (Some("secre"), 403), (Some("a.b"), 501)]
        {
            assert_eq!(code(tokens.authorize(token, "GetClusterStatus")), expected, "{token:?}");
        }
    }

    #[test]
    fn without_a_configured_token_nothing_opens_the_interface() {
        for admin_token in [None, Some(String::new()), Some("  ".to_string())] {
            let tokens = Tokens::new(&AdminHttpOptions { admin_token, ..AdminHttpOptions::default() });
            for token in [None, Some(""), Some("x")] {
                assert_eq!(code(tokens.authorize(token, "GetClusterStatus")), 403);
            }
        }
    }

    #[test]
    fn metrics_are_open_until_a_token_is_asked_for_and_the_admin_token_does_not_open_them() {
        let open = Tokens::new(&AdminHttpOptions::default());
        assert_eq!(code(open.authorize_metrics(None)), 200);
        let closed = Tokens::new(&AdminHttpOptions { metrics_require_token: true, ..AdminHttpOptions::default() });
        assert_eq!(code(closed.authorize_metrics(Some("x"))), 403);
        let both = AdminHttpOptions { admin_token: Some("a".into()), metrics_token: Some("m".into()), metrics_require_token: false };
        let guarded = Tokens::new(&both);
        assert_eq!(code(guarded.authorize_metrics(Some("m"))), 200);
        assert_eq!(code(guarded.authorize_metrics(Some("a"))), 403);
        assert_eq!(code(guarded.authorize_metrics(None)), 403);
    }
}

//! `/v1/accounts/{id}/tokens`: what senders of webhooks authenticate with. A token is shown in the answer that makes it, and
//! never again. What is live and what is kept is decided in `intake::tokens`; here is how it is asked and said.
//! Invariant: it is seen through though the caller hangs up, so that what is live and the disk agree.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AdminState;
use super::access::Caller;
use super::filter::{time, time_text};
use super::problem::{Problem, Sent};
use crate::clock;
use crate::config::{Secret, units};
use crate::event::AccountId;
use crate::intake::auth::Origin;
use crate::intake::tokens::{Listed, Made, TokenError, Wanted};

/// The longest name of a token.
const NAME_CHARS: usize = 100;

pub(super) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(revoke)).routes(routes!(rotate))
}

#[derive(Serialize, ToSchema)]
#[schema(as = TokenList)]
struct List {
    tokens: Vec<Token>,
}

/// A token of an account's webhook, without itself.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookToken)]
struct Token {
    /// `config` where it stands in the configuration.
    id: String,
    name: Option<String>,
    /// Its first letters, where they are known.
    prefix: Option<String>,
    origin: TokenOrigin,
    created_at: Option<String>,
    last_used_at: Option<String>,
    expires_at: Option<String>,
    /// Whether it opens nothing any more.
    expired: bool,
}

/// Who made a token.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum TokenOrigin {
    /// It stands in the configuration.
    Config,
    /// An operator made it.
    Operator,
}

#[derive(Serialize, ToSchema)]
#[schema(as = NewWebhookToken)]
struct New {
    #[serde(flatten)]
    listed: Token,
    /// The token itself, this once; absent where it was imported.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Revoked {
    /// The id of the token that opens nothing any more.
    revoked: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookTokenAsked)]
struct CreateAsked {
    /// What to call it.
    name: Option<String>,
    /// One that exists already, such as the provider's portal holds: 16 to 512 characters.
    token: Option<String>,
    /// From when on it opens nothing, RFC 3339.
    expires_at: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RotationAsked)]
struct RotateAsked {
    /// How long the old token opens still, such as `24h`; at most `90d`.
    #[schema(example = "24h")]
    overlap: String,
}

/// An account's tokens, the configuration's first.
#[utoipa::path(get, path = "/v1/accounts/{id}/tokens", operation_id = "listTokens", tag = "tokens",
    params(("id" = String, Path, description = "The account's id", example = "acme")),
    responses((status = 200, body = List), (status = 404, description = "No such account")))]
async fn list(State(state): State<AdminState>, Path(id): Path<String>) -> Result<Json<List>, Problem> {
    let tokens = state.inner.tokens.list(&AccountId::new(&id)).await?;
    Ok(Json(List { tokens: tokens.into_iter().map(Token::from).collect() }))
}

/// Makes a token, or takes one that exists.
#[utoipa::path(post, path = "/v1/accounts/{id}/tokens", operation_id = "createToken", tag = "tokens",
    params(("id" = String, Path, description = "The account's id", example = "acme")), request_body = CreateAsked,
    responses(
        (status = 201, body = New),
        (status = 404, description = "No such account"),
        (status = 409, description = "The account has that token already, or as many as it may"),
    ))]
async fn create(
    State(state): State<AdminState>,
    Path(id): Path<String>,
    caller: Caller,
    Sent(asked): Sent<CreateAsked>,
) -> Result<(StatusCode, Json<New>), Problem> {
    let CreateAsked { name, token, expires_at } = asked;
    let fits = |name: &String| {
        !name.is_empty() && name.chars().count() <= NAME_CHARS && !name.contains(char::is_control)
    };
    if !name.as_ref().is_none_or(fits) {
        return Err(Problem::unprocessable("name has 1 to 100 characters, none of which steers a terminal"));
    }
    let expires = expires_at.as_deref().map(|text| time("expires_at", text)).transpose()?;
    let wanted = Wanted { name, token: token.map(Secret::new), expires };
    let account = AccountId::new(&id);
    let tokens = Arc::clone(&state.inner.tokens);
    let creating = async move {
        let made = tokens.create(&account, wanted, &caller.name).await?;
        tracing::info!(%account, token.id = made.listed.id, who = %caller.name, "token.created");
        Ok::<_, Problem>((StatusCode::CREATED, Json(New::from(made))))
    };
    state.seen_through(creating).await
}

/// Ends a token: it opens nothing from the next request on.
#[utoipa::path(delete, path = "/v1/accounts/{id}/tokens/{token}", operation_id = "revokeToken", tag = "tokens",
    params(("id" = String, Path, description = "The account's id", example = "acme"), ("token" = String, Path, description = "The token's id")),
    responses(
        (status = 200, description = "It opens nothing any more", body = Revoked),
        (status = 404, description = "No such account or token"),
        (status = 409, description = "It stands in the configuration"),
    ))]
async fn revoke(
    State(state): State<AdminState>,
    Path((id, token)): Path<(String, String)>,
    caller: Caller,
) -> Result<Json<Revoked>, Problem> {
    let account = AccountId::new(&id);
    let tokens = Arc::clone(&state.inner.tokens);
    let revoking = async move {
        tokens.revoke(&account, &token, &caller.name).await?;
        tracing::info!(%account, token.id = token, who = %caller.name, "token.revoked");
        Ok::<_, Problem>(Json(Revoked { revoked: token }))
    };
    state.seen_through(revoking).await
}

/// Makes a token in the place of another: both open until the overlap ends.
#[utoipa::path(post, path = "/v1/accounts/{id}/tokens/{token}/rotate", operation_id = "rotateToken", tag = "tokens",
    params(("id" = String, Path, description = "The account's id", example = "acme"), ("token" = String, Path, description = "The token's id")),
    request_body = RotateAsked,
    responses(
        (status = 201, body = New),
        (status = 404, description = "No such account or token"),
        (status = 409, description = "It stands in the configuration, or the account has as many as it may"),
    ))]
async fn rotate(
    State(state): State<AdminState>,
    Path((id, token)): Path<(String, String)>,
    caller: Caller,
    Sent(asked): Sent<RotateAsked>,
) -> Result<(StatusCode, Json<New>), Problem> {
    let wrong = |(what, fix)| Problem::unprocessable(format!("overlap: {what}; {fix}"));
    let overlap = units::duration(&asked.overlap).map_err(wrong)?;
    if overlap.as_secs() > 90 * 24 * 3_600 {
        return Err(Problem::unprocessable("overlap is at most 90d"));
    }
    let account = AccountId::new(&id);
    let tokens = Arc::clone(&state.inner.tokens);
    let rotating = async move {
        let made = tokens.rotate(&account, &token, overlap, &caller.name).await?;
        tracing::info!(%account, token.id = token, token.next = made.listed.id, who = %caller.name, "token.rotated");
        Ok::<_, Problem>((StatusCode::CREATED, Json(New::from(made))))
    };
    state.seen_through(rotating).await
}

impl From<Listed> for Token {
    fn from(listed: Listed) -> Self {
        let Listed { id, name, prefix, origin, created, last_used, expires } = listed;
        let origin = match origin {
            Origin::Config => TokenOrigin::Config,
            Origin::Operator => TokenOrigin::Operator,
        };
        Self {
            id,
            name,
            prefix,
            origin,
            created_at: created.map(time_text),
            last_used_at: last_used.map(time_text),
            expires_at: expires.map(time_text),
            expired: expires.is_some_and(|at| at <= clock::now()),
        }
    }
}

impl From<Made> for New {
    fn from(made: Made) -> Self {
        let token = made.token.map(|token| token.reveal().to_owned());
        Self { listed: Token::from(made.listed), token }
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let status = match error {
            TokenError::UnknownAccount | TokenError::Unknown => StatusCode::NOT_FOUND,
            TokenError::OfConfig | TokenError::Same | TokenError::TooMany => StatusCode::CONFLICT,
            TokenError::Weak(_) | TokenError::Past => StatusCode::UNPROCESSABLE_ENTITY,
            TokenError::Store(error) => return Self::from(error),
        };
        Self::new(status, error.to_string())
    }
}

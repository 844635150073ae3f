//! The operator's port: where it is, and who may ask there. `admin.token` alone is one token named `admin` that may write;
//! `admin.tokens` names more.

use std::net::SocketAddr;

use super::Walk;
use super::values::At;
use crate::config::tree::{Fields, Node, Value};
use crate::config::{Admin, AdminToken, Scope};

/// The name of `admin.token`.
const ONE: &str = "admin";
/// Who asks where no token is configured: not a name to choose.
const NOBODY: &str = "loopback";

impl Walk<'_> {
    pub(super) fn admin(&mut self, fields: &mut Fields<'_>) -> (Admin, Option<At>) {
        let mut admin = Admin { address: SocketAddr::from(([127, 0, 0, 1], 9090)), tokens: Vec::new() };
        let Some(mut map) = self.map(fields, "admin") else { return (admin, None) };
        let at = self.address(&mut map).map(|(address, at)| {
            admin.address = address;
            at
        });
        let at_token = At::in_map(&map, "token");
        let one = self.secret(&mut map, "token");
        admin.tokens = one
            .inspect(|token| self.comes_in_a_header(token, &at_token))
            .map(|token| AdminToken { name: ONE.to_owned(), scope: Scope::Write, token })
            .into_iter()
            .collect();
        let at_tokens = At::in_map(&map, "tokens");
        match map.take("tokens").map(|node| &node.value) {
            None => {}
            Some(Value::List(nodes)) => {
                for (index, node) in nodes.iter().enumerate() {
                    let token =
                        self.admin_token(node, &format!("{}[{index}]", at_tokens.path), &admin.tokens);
                    admin.tokens.extend(token);
                }
            }
            Some(Value::Null | Value::Scalar(_) | Value::Map(_)) => {
                self.add(
                    &at_tokens,
                    "is not a list",
                    "write `- { name: …, scope: read, token: { file: … } }` below it",
                );
            }
        }
        map.finish(&mut self.problems);
        (admin, at)
    }

    fn admin_token(&mut self, node: &Node, path: &str, before: &[AdminToken]) -> Option<AdminToken> {
        let mut map = Fields::of(node, path, &mut self.problems)?;
        let name = self.required(&mut map, "name", "say whose it is: the audit log names it");
        if let Some((name, at)) = &name {
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '@');
            if name.len() > 64 || !name.chars().all(legal) {
                self.add(at, format!("`{name}` is not a token's name"), "1 to 64 of A-Z a-z 0-9 _ - . @");
            } else if name == NOBODY || before.iter().any(|known| known.name == *name) {
                self.add(
                    at,
                    format!("`{name}` is taken already"),
                    "choose another: the audit log tells who did what by it",
                );
            }
        }
        let scope =
            self.required(&mut map, "scope", "write read or write").and_then(|(scope, at)| {
                match scope.as_str() {
                    "read" => Some(Scope::Read),
                    "write" => Some(Scope::Write),
                    _ => {
                        self.add(&at, format!("`{scope}` is not a scope"), "write read or write");
                        None
                    }
                }
            });
        let at = At::in_map(&map, "token");
        let token = self.required_secret(&mut map, "token");
        map.finish(&mut self.problems);
        let (name, token) = (name?.0, token?);
        self.comes_in_a_header(&token, &at);
        if let Some(same) = before.iter().find(|known| self.is_one_secret(&known.token, &token)) {
            self.add(
                &at,
                format!("`{name}` has the secret of `{}`", same.name),
                "give each a secret of its own: it alone tells who asks, and what they may do",
            );
        }
        Some(AdminToken { name, scope: scope?, token })
    }
}

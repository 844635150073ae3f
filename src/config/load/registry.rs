//! The schema registry of a Kafka bus: values carry its frame. Off where it is left out.

use super::Walk;
use super::values::{At, Wire};
use crate::config::tree::Fields;
use crate::config::{RegistryLogin, SchemaRegistry};

/// Confluent's `TopicNameStrategy`.
const SUBJECT: &str = "{topic}-value";

impl Walk<'_> {
    pub(super) fn encoding(&mut self, fields: &mut Fields<'_>) -> Option<SchemaRegistry> {
        let mut map = self.map(fields, "encoding")?;
        let at = At::in_map(&map, "registry");
        if !map.has("registry") {
            self.add(&at, "is missing", "name a schema registry, or leave `encoding` out for bare events");
        }
        let registry = self.map(&mut map, "registry");
        map.finish(&mut self.problems);
        let mut map = registry?;
        let example = "https://registry:8081";
        let url = self.required(&mut map, "url", "write e.g. https://registry:8081");
        let subject = self.text(&mut map, "subject");
        if let Some((subject, at)) = &subject {
            self.template(subject, at, "{topic}");
        }
        let register = self.create(&mut map, "register");
        let ca = self.file(&mut map, "ca");
        let (login, wire) = self.login(&mut map);
        map.finish(&mut self.problems);
        let (url, at) = url?;
        Some(SchemaRegistry {
            url: self.base(&url, &at, wire, example, "`password` and `token`")?,
            subject: subject.map_or_else(|| SUBJECT.to_owned(), |(subject, _)| subject),
            register,
            login,
            ca,
        })
    }

    fn login(&mut self, map: &mut Fields<'_>) -> (Option<RegistryLogin>, Wire) {
        let (named, with_password, with_token) = (map.has("user"), map.has("password"), map.has("token"));
        let user = self.text(map, "user").map(|(user, _)| user);
        let password = self.secret(map, "password");
        let token = self.secret(map, "token");
        let at = At { place: map.place, path: map.path.clone() };
        if named != with_password {
            self.add(&at, "has one of `user` and `password`", "write both, or neither");
        }
        if named && with_token {
            self.add(&at, "has more than one way to sign in", "keep one of user with password, and token");
        }
        let basic = user.zip(password).map(|(user, password)| RegistryLogin::Basic { user, password });
        let login = basic.or_else(|| token.map(|token| RegistryLogin::Bearer { token }));
        (login, if named || with_token { Wire::Secret } else { Wire::Open })
    }
}

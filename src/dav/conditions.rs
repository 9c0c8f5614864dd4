//! The If field (RFC 4918, section 10.4): its grammar, and whether its conditions on entity tags
//! and lock tokens hold.
//!
//! A field has as many lists as the head of the request can hold: some clients send one for each
//! file that they have locked. Knows nothing of files: the caller supplies the present state of each resource that is named.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::fields::{BadField, Location, location};

/// The lists of conditions in an If field, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct If {
    lists: Vec<List>,
}

/// Conditions that must hold together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct List {
    /// The resource that the conditions are about; `None` for the target of the request.
    resource: Option<Location>,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    negated: bool,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Token(String),
    Etag(String),
}

/// The state of a resource that conditions are compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Current {
    pub etag: Option<String>,
    /// The tokens of the locks that cover the resource.
    pub tokens: Vec<String>,
}

impl If {
    /// Parses the field. `host` is the value of the Host field of the request.
    pub fn parse(value: &[u8], host: Option<&[u8]>) -> Result<If, BadField> {
        let value = std::str::from_utf8(value).map_err(|_| BadField)?;
        let mut rest = value.trim_start();
        let mut lists: Vec<List> = Vec::new();
        let mut resource = None;
        // Either all lists are tagged with a resource, or none is.
        let tagged = rest.starts_with('<');
        let mut tag_is_used = true;
        while !rest.is_empty() {
            if let Some(behind) = rest.strip_prefix('<') {
                let (uri, behind) = behind.split_once('>').ok_or(BadField)?;
                if !tagged || !tag_is_used {
                    return Err(BadField);
                }
                tag_is_used = false;
                resource = Some(location(uri.as_bytes(), host)?);
                rest = behind.trim_start();
                continue;
            }
            let inside = rest.strip_prefix('(').ok_or(BadField)?;
            let (conditions, behind) = conditions(inside)?;
            lists.push(List { resource: resource.clone(), conditions });
            tag_is_used = true;
            rest = behind.trim_start();
        }
        if lists.is_empty() || !tag_is_used {
            return Err(BadField);
        }
        Ok(If { lists })
    }

    /// Returns whether one of the lists holds. `current` returns the state of a resource, where
    /// `None` is the target of the request. It is called once for each resource.
    pub fn holds<E>(
        &self,
        mut current: impl FnMut(Option<&[u8]>) -> Result<Current, E>,
    ) -> Result<bool, E> {
        let mut known: HashMap<&Option<Location>, Current> = HashMap::new();
        for List { resource, conditions } in &self.lists {
            let state = match known.entry(resource) {
                Entry::Occupied(state) => state.into_mut(),
                Entry::Vacant(place) => place.insert(match resource {
                    None => current(None)?,
                    Some(Location::Here(path)) => current(Some(path))?,
                    Some(Location::Elsewhere) => Current::default(),
                }),
            };
            if conditions.iter().all(|condition| condition.holds(state)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns all tokens in the field: a client that names a token submits it (RFC 4918, section
    /// 10.4.1).
    pub fn tokens(&self) -> Vec<String> {
        let conditions = self.lists.iter().flat_map(|list| &list.conditions);
        let tokens = conditions.filter_map(|condition| match &condition.kind {
            Kind::Token(token) => Some(token.clone()),
            Kind::Etag(_) => None,
        });
        tokens.collect()
    }
}

impl Condition {
    fn holds(&self, state: &Current) -> bool {
        let found = match &self.kind {
            Kind::Token(token) => state.tokens.contains(token),
            // The entity tags of this server are strong, and a weak one does not match them.
            Kind::Etag(etag) => state.etag.as_ref() == Some(etag),
        };
        found != self.negated
    }
}

/// Parses the conditions up to the closing parenthesis. Returns them, and the text behind it.
fn conditions(text: &str) -> Result<(Vec<Condition>, &str), BadField> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    loop {
        if let Some(behind) = rest.strip_prefix(')') {
            return if found.is_empty() { Err(BadField) } else { Ok((found, behind)) };
        }
        let negated = rest.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("not"));
        if negated {
            rest = rest[3..].trim_start();
        }
        let kind;
        if let Some(behind) = rest.strip_prefix('<') {
            let (token, behind) = behind.split_once('>').ok_or(BadField)?;
            if token.is_empty() || token.chars().any(|c| c.is_ascii_control() || c == ' ') {
                return Err(BadField);
            }
            kind = Kind::Token(token.to_owned());
            rest = behind;
        } else if let Some(behind) = rest.strip_prefix('[') {
            let weak = if behind.starts_with("W/") { 2 } else { 0 };
            let quoted = behind[weak..].strip_prefix('"').ok_or(BadField)?;
            let (opaque, _) = quoted.split_once('"').ok_or(BadField)?;
            let (tag, behind) = behind.split_at(weak + opaque.len() + 2);
            kind = Kind::Etag(tag.to_owned());
            rest = behind.trim_start().strip_prefix(']').ok_or(BadField)?;
        } else {
            return Err(BadField);
        }
        found.push(Condition { negated, kind });
        rest = rest.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Result<If, BadField> {
        If::parse(text.as_bytes(), Some(b"h"))
    }

    /// `/` has the tag `"e"` and the lock `t:1`, `/other` has `"o"` and no lock.
    fn holds(text: &str) -> bool {
        let current = |path: Option<&[u8]>| -> Result<Current, BadField> {
            Ok(match path {
                None | Some(b"/") => {
                    Current { etag: Some("\"e\"".to_owned()), tokens: vec!["t:1".to_owned()] }
                }
                Some(b"/other") => Current { etag: Some("\"o\"".to_owned()), tokens: vec![] },
                Some(_) => Current::default(),
            })
        };
        parsed(text).unwrap_or_else(|_| panic!("refused: {text}")).holds(current).unwrap()
    }

    #[test]
    fn each_resource_is_looked_at_once() {
        let mut asked = Vec::new();
        let none = |path: Option<&[u8]>| -> Result<Current, BadField> {
            asked.push(path.map(<[u8]>::to_vec));
            Ok(Current::default())
        };
        let lists = "</a> (<t:1>) ([\"e\"]) </b> (<t:1>) <http://h/a> (<t:2>)".to_owned();
        assert_eq!(parsed(&lists.repeat(16)).unwrap().holds(none), Ok(false));
        assert_eq!(asked, [Some(b"/a".to_vec()), Some(b"/b".to_vec())]);
        let failed = parsed("(<t:1>)").unwrap().holds(|_| Err(BadField));
        assert_eq!(failed, Err(BadField));
    }

    #[test]
    fn a_field_has_as_many_lists_and_conditions_as_it_has_room_for() {
        let field: String = (0..5000).map(|n| format!("</{n}> (<t:{n}> Not <t:x>)")).collect();
        let mut asked = 0;
        let last = |path: Option<&[u8]>| -> Result<Current, BadField> {
            asked += 1;
            let token = (path == Some(b"/4999")).then(|| "t:4999".to_owned());
            Ok(Current { etag: None, tokens: token.into_iter().collect() })
        };
        assert_eq!(parsed(&field).unwrap().holds(last), Ok(true));
        assert_eq!(asked, 5000);
        assert_eq!(parsed(&field).unwrap().tokens().len(), 10_000);
    }

    #[test]
    fn one_list_must_hold_and_all_of_it() {
        let table = [
            ("(<t:1>)", true),
            ("(<t:2>)", false),
            ("([\"e\"])", true),
            ("([\"x\"])", false),
            ("([W/\"e\"])", false),
            ("(<t:1> [\"e\"])", true),
            ("(<t:1> [\"x\"])", false),
            ("(<t:2>) ([\"e\"])", true),
            ("(Not <t:2>)", true),
            ("(not <t:1>)", false),
            ("(Not<DAV:no-lock>)", true),
            ("(<DAV:no-lock>)", false),
            ("(Not [\"x\"] <t:1>)", true),
            ("<http://h/>(<t:1>)", true),
            ("</other> (<t:1>)", false),
            ("</other> (Not <t:1> [\"o\"])", true),
            ("</other> (<t:1>) </> (<t:1>)", true),
            ("<http://elsewhere/> (<t:1>)", false),
            ("<http://elsewhere/> (Not <t:1>)", true),
            ("</none> ([\"e\"])", false),
            ("</none> (Not [\"e\"])", true),
        ];
        for (text, expected) in table {
            assert_eq!(holds(text), expected, "{text}");
        }
    }

    #[test]
    fn what_does_not_follow_the_grammar_is_refused() {
        for text in [
            "",
            " ",
            "()",
            "(",
            ")",
            "(<t:1>",
            "<t:1>",
            "t:1",
            "(t:1)",
            "(<>)",
            "(<t:1",
            "([e])",
            "([\"e\")",
            "([\"e])",
            "(Not)",
            "(Not Not <t:1>)",
            "(<a b>)",
            "</a>",
            "</a></b>(<t:1>)",
            "(<t:1>) </a> (<t:1>)",
            "</a> (<t:1>) </b>",
            "</../etc/passwd> (<t:1>)",
            "</%2e%2e/x> (<t:1>)",
            "<nonsense> (<t:1>)",
        ] {
            assert_eq!(parsed(text), Err(BadField), "{text}");
        }
        assert_eq!(If::parse(b"(<\xff>)", None), Err(BadField));
    }

    #[test]
    fn every_token_counts_as_known() {
        let tokens = parsed("</> (<t:1> [\"e\"]) (Not <t:2>) </a> (<t:3>)").unwrap().tokens();
        assert_eq!(tokens, ["t:1", "t:2", "t:3"]);
    }

    proptest! {
        #[test]
        fn any_text_is_judged(text in "[()<>\\[\\]\"Not/: a\u{e9}]{0,40}") {
            if let Ok(field) = parsed(&text) {
                let _ = field.holds(|_| Ok::<_, BadField>(Current::default()));
            }
        }
    }
}

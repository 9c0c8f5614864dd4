//! The content of PROPFIND, PROPPATCH and LOCK requests: the elements `propfind`, `propertyupdate`
//! and `lockinfo` (RFC 4918, section 14) as values. Knows nothing of the resources that they are
//! about.

use super::xml::{Element, Malformed, Name, parse};

/// The largest number of properties that one request may name: each is reported for each resource.
const MAX_PROPERTIES: usize = 512;
/// The largest size of an `owner` element, in bytes. It is reported for each resource that the lock
/// covers.
const MAX_OWNER: usize = 4096;

/// The properties that PROPFIND asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All, and the named ones besides.
    All(Vec<Name>),
    Names,
    These(Vec<Name>),
}

/// One change of PROPPATCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The name of the property, and its element as text.
    Set(Name, String),
    Remove(Name),
}

/// The lock that LOCK asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockInfo {
    pub exclusive: bool,
    /// The `owner` element as text.
    pub owner: Option<String>,
}

/// Reads the content of PROPFIND. Empty content asks for all properties.
pub fn propfind(body: &[u8]) -> Result<Wanted, Malformed> {
    if body.trim_ascii().is_empty() {
        return Ok(Wanted::All(Vec::new()));
    }
    let root = parse(body)?;
    if !root.is_dav("propfind") {
        return Err(Malformed);
    }
    // A name counts once, however often it occurs.
    let names = |element: &Element| -> Vec<Name> {
        let mut names: Vec<Name> = Vec::new();
        for inner in element.elements() {
            if !names.contains(&inner.name) {
                names.push(inner.name.clone());
            }
        }
        names
    };
    if root.elements().any(|element| element.elements().count() > MAX_PROPERTIES) {
        return Err(Malformed);
    }
    let kinds = ["allprop", "propname", "prop"];
    let mut asked = root.elements().filter(|e| kinds.iter().any(|kind| e.is_dav(kind)));
    let (Some(first), None) = (asked.next(), asked.next()) else {
        return Err(Malformed);
    };
    if first.is_dav("propname") {
        return Ok(Wanted::Names);
    }
    if first.is_dav("prop") {
        return Ok(Wanted::These(names(first)));
    }
    Ok(Wanted::All(root.child("include").map(names).unwrap_or_default()))
}

/// Reads the content of PROPPATCH. Returns the changes in their order, at least one.
pub fn propertyupdate(body: &[u8]) -> Result<Vec<Change>, Malformed> {
    let mut root = parse(body)?;
    if !root.is_dav("propertyupdate") {
        return Err(Malformed);
    }
    root.hand_down_language(3);
    let mut changes = Vec::new();
    for step in root.elements() {
        let (set, remove) = (step.is_dav("set"), step.is_dav("remove"));
        if !set && !remove {
            continue;
        }
        let properties = step.child("prop").ok_or(Malformed)?;
        for property in properties.elements() {
            let name = property.name.clone();
            changes.push(match set {
                true => Change::Set(name, property.to_text()),
                false => Change::Remove(name),
            });
        }
    }
    if changes.is_empty() { Err(Malformed) } else { Ok(changes) }
}

/// Reads the content of LOCK. Returns `None` if it is empty, which refreshes a lock.
pub fn lockinfo(body: &[u8]) -> Result<Option<LockInfo>, Malformed> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let root = parse(body)?;
    if !root.is_dav("lockinfo") {
        return Err(Malformed);
    }
    let is_write = root.child("locktype").is_some_and(|kind| kind.child("write").is_some());
    let scope = root.child("lockscope").ok_or(Malformed)?;
    let (exclusive, shared) = (scope.child("exclusive"), scope.child("shared"));
    if !is_write || exclusive.is_some() == shared.is_some() {
        return Err(Malformed);
    }
    let owner = root.child("owner").map(Element::to_text);
    if owner.as_ref().is_some_and(|owner| owner.len() > MAX_OWNER) {
        return Err(Malformed);
    }
    Ok(Some(LockInfo { exclusive: exclusive.is_some(), owner }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(space: &str, local: &str) -> Name {
        Name { space: space.to_owned(), local: local.to_owned() }
    }

    #[test]
    fn a_propfind_asks_for_all_for_names_or_for_some() {
        let these = Wanted::These(vec![Name::dav("getetag"), name("u:1", "a"), name("", "b")]);
        let table = [
            ("", Wanted::All(vec![])),
            (" \r\n", Wanted::All(vec![])),
            ("<propfind xmlns='DAV:'><allprop/></propfind>", Wanted::All(vec![])),
            (
                "<propfind xmlns='DAV:'><allprop/><include><x/></include></propfind>",
                Wanted::All(vec![Name::dav("x")]),
            ),
            ("<D:propfind xmlns:D='DAV:'><D:propname/></D:propfind>", Wanted::Names),
            (
                "<D:propfind xmlns:D='DAV:'><D:prop><D:getetag/><a xmlns='u:1'/><b/></D:prop>\
                 </D:propfind>",
                these,
            ),
            ("<propfind xmlns='DAV:'><unknown/><propname/></propfind>", Wanted::Names),
            (
                "<propfind xmlns='DAV:'><prop><a/><b/><a/><b/></prop></propfind>",
                Wanted::These(vec![Name::dav("a"), Name::dav("b")]),
            ),
        ];
        for (body, expected) in table {
            assert_eq!(propfind(body.as_bytes()), Ok(expected), "{body}");
        }
        for body in [
            "<propfind/>",
            "<propfind xmlns='DAV:'/>",
            "<prop xmlns='DAV:'/>",
            "<propfind xmlns='DAV:'><prop/><allprop/></propfind>",
            "<propfind xmlns='DAV:'><prop/></propfind",
            "not xml",
        ] {
            assert_eq!(propfind(body.as_bytes()), Err(Malformed), "{body}");
        }
    }

    #[test]
    fn a_propertyupdate_keeps_its_order() {
        let body = "<p xmlns='DAV:' xmlns:z='u:1' xml:lang='de'><set><prop><z:a>1</z:a></prop></set>\
                    <remove><prop><z:b/></prop></remove><x/>\
                    <set><prop><c xmlns=''/></prop></set></p>";
        let body = body.replace("<p ", "<propertyupdate ").replace("</p>", "</propertyupdate>");
        let a = "<z:a xmlns:z=\"u:1\" xml:lang=\"de\">1</z:a>".to_owned();
        let expected = vec![
            Change::Set(name("u:1", "a"), a),
            Change::Remove(name("u:1", "b")),
            Change::Set(name("", "c"), "<c xml:lang=\"de\"/>".to_owned()),
        ];
        assert_eq!(propertyupdate(body.as_bytes()), Ok(expected));
        for body in [
            "",
            "<propertyupdate xmlns='DAV:'/>",
            "<propertyupdate xmlns='DAV:'><set/></propertyupdate>",
            "<propertyupdate xmlns='DAV:'><set><prop/></set></propertyupdate>",
            "<propfind xmlns='DAV:'><set><prop><a/></prop></set></propfind>",
        ] {
            assert_eq!(propertyupdate(body.as_bytes()), Err(Malformed), "{body}");
        }
    }

    #[test]
    fn a_lockinfo_is_for_writing_and_either_exclusive_or_shared() {
        let body = |scope: &str, kind: &str, owner: &str| {
            format!(
                "<D:lockinfo xmlns:D='DAV:'><D:lockscope>{scope}</D:lockscope>\
                 <D:locktype>{kind}</D:locktype>{owner}</D:lockinfo>"
            )
        };
        let read = |scope, kind, owner| lockinfo(body(scope, kind, owner).as_bytes());
        let owner = "<D:owner><D:href>mailto:a&amp;b</D:href></D:owner>";
        let info = read("<D:exclusive/>", "<D:write/>", owner).unwrap().unwrap();
        assert!(info.exclusive);
        let expected = "<D:owner xmlns:D=\"DAV:\"><D:href>mailto:a&amp;b</D:href></D:owner>";
        assert_eq!(info.owner.as_deref(), Some(expected));
        let info = read("<D:shared/>", "<D:write/>", "").unwrap().unwrap();
        assert_eq!(info, LockInfo { exclusive: false, owner: None });
        assert_eq!(lockinfo(b""), Ok(None));
        assert_eq!(read("<D:shared/><D:exclusive/>", "<D:write/>", ""), Err(Malformed));
        assert_eq!(read("", "<D:write/>", ""), Err(Malformed));
        assert_eq!(read("<D:shared/>", "<D:read/>", ""), Err(Malformed));
        assert_eq!(lockinfo(b"<lockinfo/>"), Err(Malformed));
        let owner = format!("<D:owner>{}</D:owner>", "x".repeat(MAX_OWNER));
        assert_eq!(read("<D:shared/>", "<D:write/>", &owner), Err(Malformed));
        let names = "<a/>".repeat(MAX_PROPERTIES + 1);
        let body = format!("<propfind xmlns='DAV:'><prop>{names}</prop></propfind>");
        assert_eq!(propfind(body.as_bytes()), Err(Malformed));
    }
}

//! The properties of resources (RFC 4918, section 15; RFC 4331): live ones, whose values the server
//! computes, and dead ones, which clients have set.
//!
//! Writes them as elements of XML. Knows nothing of how dead properties and locks are stored.

use std::fmt::Write as _;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::Env;
use super::bodies::Wanted;
use super::locks::{Lock, write_lock};
use super::multistatus::write_name;
use super::store::Properties;
use super::target::without_slash;
use super::xml::{DAV, Name, escape};
use crate::files::known::{entity_tag, http_date, modified_of};
use crate::files::listing::civil_date;
use crate::files::mime::Types;

/// The live properties that `allprop` selects.
const LIVE: [&str; 9] = [
    "creationdate",
    "displayname",
    "getcontentlength",
    "getcontenttype",
    "getetag",
    "getlastmodified",
    "resourcetype",
    "supportedlock",
    "lockdiscovery",
];

/// The live properties that are reported only when a request names them.
const ON_DEMAND: [&str; 2] = ["quota-available-bytes", "quota-used-bytes"];

/// The namespace of properties that clients of Windows set for each file that they store.
const WIN32: &str = "urn:schemas-microsoft-com:";

/// Returns whether a property stands for the modification time of the file, which clients may set by
/// it. It is reported when a request names it.
pub fn is_win32_time(name: &Name) -> bool {
    name.space == WIN32 && name.local == "Win32LastModifiedTime"
}

/// The content of the `supportedlock` property (RFC 4918, section 15.10).
const SUPPORTED: &str = "<D:lockentry><D:lockscope><D:exclusive/></D:lockscope><D:locktype>\
    <D:write/></D:locktype></D:lockentry><D:lockentry><D:lockscope><D:shared/></D:lockscope>\
    <D:locktype><D:write/></D:locktype></D:lockentry>";

/// A resource whose properties are reported.
pub struct Resource<'a> {
    /// The decoded path as clients know it.
    pub path: &'a [u8],
    pub meta: &'a Metadata,
    pub full: &'a Path,
    pub locks: &'a [Lock],
    pub dead: Option<&'a Properties>,
}

/// Returns whether a property is protected, so that clients cannot change it (RFC 4918, section
/// 15).
pub fn is_protected(name: &Name) -> bool {
    let local = name.local.as_str();
    let live = LIVE.contains(&local) || ON_DEMAND.contains(&local);
    // Clients may choose the name that is displayed.
    name.space == DAV && live && local != "displayname"
}

/// Returns the properties that `wanted` selects as elements, grouped by status, as a multi-status
/// document has them.
pub fn answer(
    env: &Env<'_>,
    resource: &Resource<'_>,
    wanted: &Wanted,
) -> Vec<(u16, String, Option<&'static str>)> {
    let (mut found, mut missing) = (String::new(), String::new());
    match wanted {
        Wanted::All(more) => {
            for local in LIVE {
                resource.write(env, &Name::dav(local), &mut found);
            }
            for (name, _) in resource.dead.into_iter().flat_map(Properties::iter) {
                if !is_displayname(name) {
                    resource.write(env, name, &mut found);
                }
            }
            for name in more.iter().filter(|name| !LIVE.contains(&name.local.as_str())) {
                if !resource.write(env, name, &mut found) {
                    write_name(&mut missing, name);
                }
            }
        }
        Wanted::Names => {
            for local in LIVE {
                let name = Name::dav(local);
                if resource.write(env, &name, &mut String::new()) {
                    write_name(&mut found, &name);
                }
            }
            for (name, _) in resource.dead.into_iter().flat_map(Properties::iter) {
                if !is_displayname(name) {
                    write_name(&mut found, name);
                }
            }
        }
        Wanted::These(names) => {
            for name in names {
                if !resource.write(env, name, &mut found) {
                    write_name(&mut missing, name);
                }
            }
        }
    }
    let mut stats = Vec::new();
    if !found.is_empty() || missing.is_empty() {
        stats.push((200, found, None));
    }
    if !missing.is_empty() {
        stats.push((404, missing, None));
    }
    stats
}

fn is_displayname(name: &Name) -> bool {
    *name == Name::dav("displayname")
}

impl Resource<'_> {
    /// Appends a property. Returns false if there is none of this name.
    fn write(&self, env: &Env<'_>, name: &Name, out: &mut String) -> bool {
        if is_win32_time(name) {
            let date = http_date(modified_of(self.meta));
            let _ = write!(out, "<Z:{0} xmlns:Z=\"{WIN32}\">{date}</Z:{0}>", name.local);
            return true;
        }
        if let Some(text) = self.dead.and_then(|dead| dead.get(name)) {
            out.push_str(text);
            return true;
        }
        let local = name.local.as_str();
        if name.space != DAV {
            return false;
        }
        let is_file = self.meta.is_file();
        let value = match local {
            "creationdate" => self.creation_date(),
            "displayname" => self.display_name(),
            "getcontentlength" if is_file => self.meta.len().to_string(),
            "getcontenttype" if is_file => {
                let types = Types::of(env.config);
                types.media_type(self.full.as_os_str().as_bytes()).into_owned()
            }
            "getetag" if is_file => entity_tag(self.meta),
            "getlastmodified" => http_date(modified_of(self.meta)),
            "resourcetype" | "supportedlock" | "lockdiscovery" => String::new(),
            "quota-available-bytes" | "quota-used-bytes" if !is_file => {
                let Ok(space) = rustix::fs::statvfs(self.full) else { return false };
                let free = space.f_bavail.saturating_mul(space.f_frsize);
                let used = space.f_blocks.saturating_sub(space.f_bfree);
                match local {
                    "quota-available-bytes" => free.to_string(),
                    _ => used.saturating_mul(space.f_frsize).to_string(),
                }
            }
            _ => return false,
        };
        let _ = write!(out, "<D:{local}>");
        escape(out, &value);
        match local {
            "resourcetype" if !is_file => out.push_str("<D:collection/>"),
            "supportedlock" if env.config.dav_auth_file.is_some() => out.push_str(SUPPORTED),
            "lockdiscovery" => self.locks.iter().for_each(|lock| write_lock(out, lock, env.unix)),
            _ => {}
        }
        let _ = write!(out, "</D:{local}>");
        true
    }

    /// Returns the name of the file for people to read: bytes that are not UTF-8 are replaced. It is
    /// the name that clients use: that of the directory behind the root is nobody's business.
    fn display_name(&self) -> String {
        let name = match memchr::memrchr(b'/', without_slash(self.path)) {
            Some(slash) if self.path != b"/" => &without_slash(self.path)[slash + 1..],
            _ => b"/",
        };
        String::from_utf8_lossy(name).into_owned()
    }

    /// Returns the time of creation in UTC (RFC 3339), or that of the last modification where the
    /// file system does not keep the former.
    fn creation_date(&self) -> String {
        let created = self.meta.created().ok();
        let since = created.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let seconds = since.unwrap_or(Duration::from_secs(modified_of(self.meta))).as_secs();
        let (year, month, day) = civil_date(seconds / 86_400);
        let (hour, minute, second) = (seconds % 86_400 / 3600, seconds % 3600 / 60, seconds % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Config;
    use crate::test_folder::Folder;
    use std::fs;

    fn told(resource: &Resource<'_>, wanted: &Wanted) -> Vec<(u16, String)> {
        let config = Config { dav_auth_file: Some("x".into()), ..Config::default() };
        let env = Env::new(&config, 0);
        let stats = answer(&env, resource, wanted);
        stats.into_iter().map(|(status, text, _)| (status, text)).collect()
    }

    #[test]
    fn what_is_there_is_told_and_what_is_not_is_named() {
        let folder = Folder::new();
        let full = folder.0.join("a&.html");
        fs::write(&full, "12345").unwrap();
        let time = UNIX_EPOCH + Duration::from_secs(784_111_777);
        fs::File::options().write(true).open(&full).unwrap().set_modified(time).unwrap();
        let meta = fs::metadata(&full).unwrap();
        let own = Name { space: "u:1".to_owned(), local: "p".to_owned() };
        let mut dead = Properties::default();
        dead.insert(own.clone(), "<p xmlns=\"u:1\">1</p>".to_owned());
        let file = Resource {
            path: b"/x/a&.html",
            meta: &meta,
            full: &full,
            locks: &[],
            dead: Some(&dead),
        };
        let live = ["getcontentlength", "getetag", "getlastmodified", "displayname", "none"];
        let mut names: Vec<Name> = live.iter().map(|local| Name::dav(local)).collect();
        names.push(own);
        let found = "<D:getcontentlength>5</D:getcontentlength>\
            <D:getetag>&quot;2ebc98a1.5&quot;</D:getetag>\
            <D:getlastmodified>Sun, 06 Nov 1994 08:49:37 GMT</D:getlastmodified>\
            <D:displayname>a&amp;.html</D:displayname><p xmlns=\"u:1\">1</p>";
        let expected = vec![(200, found.to_owned()), (404, "<D:none/>".to_owned())];
        assert_eq!(told(&file, &Wanted::These(names)), expected);

        let all = &told(&file, &Wanted::All(Vec::new()))[0].1;
        for part in ["<D:resourcetype></D:resourcetype>", "T", "<D:exclusive/>", "<p xmlns"] {
            assert!(all.contains(part), "{part} in {all}");
        }
        let names = &told(&file, &Wanted::Names)[0].1;
        assert!(names.contains("<D:getetag/>") && names.contains("<N:p xmlns:N=\"u:1\"/>"));

        let meta = fs::metadata(&folder.0).unwrap();
        let dir = Resource { path: b"/", meta: &meta, full: &folder.0, locks: &[], dead: None };
        let all = &told(&dir, &Wanted::All(vec![Name::dav("quota-used-bytes")]))[0].1;
        assert!(all.contains("<D:resourcetype><D:collection/></D:resourcetype>"));
        assert!(all.contains("<D:quota-used-bytes>") && !all.contains("getcontentlength"));
    }

    #[test]
    fn what_the_server_knows_is_protected() {
        assert!(is_protected(&Name::dav("getetag")) && is_protected(&Name::dav("lockdiscovery")));
        assert!(!is_protected(&Name::dav("displayname")) && !is_protected(&Name::dav("author")));
        let own = Name { space: "u:1".to_owned(), local: "getetag".to_owned() };
        assert!(!is_protected(&own));
    }
}

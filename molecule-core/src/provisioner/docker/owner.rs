//! Whom the files of a workspace belong to: the user that the image runs as.

use bollard::models::ContainerInspectResponse;

use super::{DockerProvisioner, archive::Owner};
use crate::error::{ErrorKind, Result};

impl DockerProvisioner {
    /// The user that the processes of `container` run as. Root, where the image names nobody that it knows.
    pub(super) async fn owner(&self, name: &str, container: &ContainerInspectResponse) -> Result<Owner> {
        let user = container.config.as_ref().and_then(|config| config.user.as_deref()).unwrap_or_default();
        if let Some(owner) = Names::default().resolve(user) {
            return Ok(owner);
        }
        let names =
            Names { users: self.table(name, "/etc/passwd").await?, groups: self.table(name, "/etc/group").await? };
        Ok(names.resolve(user).unwrap_or_default())
    }

    async fn table(&self, container: &str, path: &str) -> Result<String> {
        match self.read_file(container, path).await {
            Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error),
        }
    }
}

/// The users and groups that an image knows, as its `/etc/passwd` and `/etc/group` hold them.
#[derive(Debug, Default)]
struct Names {
    users: String,
    groups: String,
}

impl Names {
    /// Reads `user`, `user:group`, or nothing, each by name or number; `None` where a name is unknown.
    fn resolve(&self, text: &str) -> Option<Owner> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        if user.is_empty() || user == "0" || user == "root" {
            return Some(Owner { uid: 0, gid: if group.is_empty() { 0 } else { self.group(group)? } });
        }
        let listed = line(&self.users, user);
        let uid = user.parse().ok().or_else(|| listed.as_ref()?.get(2)?.parse().ok())?;
        let gid = if group.is_empty() {
            listed.and_then(|fields| fields.get(3)?.parse().ok()).unwrap_or(0)
        } else {
            self.group(group)?
        };
        Some(Owner { uid, gid })
    }

    fn group(&self, group: &str) -> Option<u64> {
        group.parse().ok().or_else(|| line(&self.groups, group)?.get(2)?.parse().ok())
    }
}

/// The fields of the line whose name or number is `key`.
fn line<'a>(table: &'a str, key: &str) -> Option<Vec<&'a str>> {
    table
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&key) || fields.get(2) == Some(&key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_user_an_image_runs_as() {
        let names = Names {
            users: "root:x:0:0:root:/root:/bin/sh\nagent:x:1000:1001::/home/agent:/bin/sh\n".to_owned(),
            groups: "root:x:0:\nstaff:x:50:\n".to_owned(),
        };
        for (text, expected) in [
            ("", Some((0, 0))),
            ("root", Some((0, 0))),
            ("agent", Some((1000, 1001))),
            ("1000", Some((1000, 1001))),
            ("2000", Some((2000, 0))),
            ("agent:staff", Some((1000, 50))),
            ("2000:3000", Some((2000, 3000))),
            ("nobody", None),
            ("agent:nobody", None),
        ] {
            assert_eq!(names.resolve(text), expected.map(|(uid, gid)| Owner { uid, gid }), "{text:?}");
        }
    }

    #[test]
    fn needs_no_table_for_plain_numbers_with_a_group() {
        assert_eq!(Names::default().resolve("7:8"), Some(Owner { uid: 7, gid: 8 }));
        assert_eq!(Names::default().resolve("agent"), None);
    }
}

//! Puts a template into the folder: whole, or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Component, Path},
};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::{Templates, config::Template, folder::CONFIG_FILE};
use crate::{
    clock::random_uuid,
    control_plane::ControlPlane,
    error::{Error, ErrorKind, Result},
    workspace::DEFAULT_RUNTIME,
};

/// How many files may be imported at once.
const FILES_LIMIT: usize = 200;

/// How many bytes one of them may have, and all of them together.
const FILE_LIMIT: usize = 1024 * 1024;
const BYTES_LIMIT: usize = 8 * 1024 * 1024;

/// Begins the name of what is not whole yet.
const HALF: &str = ".import-";

/// Half of a template that is older than this was left by a server that died.
const HALF_IS_OLD: TimeDelta = TimeDelta::hours(1);

/// A template to put into the folder.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// The name for people; its folder is called alike.
    pub name: String,
    /// What each file holds, by its path below the folder.
    pub files: BTreeMap<String, String>,
}

/// A template that was put into the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The name of its folder.
    pub id: String,
    /// The name for people.
    pub name: String,
}

impl ControlPlane {
    /// Puts a template into the folder of templates. Without a `config.yaml` one is made.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for too many files, a path that leads elsewhere, or a configuration that cannot be
    /// read; [`ErrorKind::Conflict`] with `id` where there is one of that name; nothing is kept then.
    /// [`ErrorKind::Unsupported`] without a folder of templates.
    pub async fn import_template(&self, import: Import) -> Result<Imported> {
        let templates = self.inner.config.templates.clone();
        let temporary = format!("{HALF}{}", random_uuid(&*self.inner.entropy));
        let now = self.now();
        let imported = tokio::task::spawn_blocking(move || {
            if let Some(dir) = templates.dir() {
                clear_halves(dir, now);
            }
            write(&templates, &import, &temporary)
        })
        .await;
        let imported = imported
            .map_err(|error| Error::new(ErrorKind::Unexpected, "the template cannot be kept").caused_by(error))??;
        // What it says of time is to count at once.
        self.inner.config.templates.list().await;
        Ok(imported)
    }
}

fn write(templates: &Templates, import: &Import, temporary: &str) -> Result<Imported> {
    let id = folder_name(&import.name);
    let files = checked(import, &id)?;
    let dir = templates.dir().ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "this server has no folder of templates; name one with --configs-dir")
    })?;
    let failed = |error: std::io::Error| {
        let error = Error::new(ErrorKind::Unexpected, "failed to write config.yaml").caused_by(error);
        error.context("template", &id)
    };
    let (half, whole) = (dir.join(temporary), dir.join(&id));
    let kept = write_files(&half, &files).map_err(failed).and_then(|()| {
        // An empty folder in its place would be replaced; what is there is somebody's.
        if fs::symlink_metadata(&whole).is_ok() {
            return Err(exists(&id));
        }
        fs::rename(&half, &whole).map_err(|error| match error.kind() {
            std::io::ErrorKind::DirectoryNotEmpty | std::io::ErrorKind::AlreadyExists => exists(&id),
            _ => failed(error),
        })
    });
    if kept.is_err() {
        // What failed is told; what it left is nobody's.
        let _ = fs::remove_dir_all(&half);
    }
    kept.map(|()| Imported { id, name: import.name.clone() })
}

/// Removes what imports left whose server died.
fn clear_halves(dir: &Path, now: DateTime<Utc>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_half = entry.file_name().to_str().is_some_and(|name| name.starts_with(HALF));
        let changed = entry.metadata().and_then(|metadata| metadata.modified()).map(DateTime::<Utc>::from);
        if is_half && changed.is_ok_and(|changed| now - changed > HALF_IS_OLD) {
            // What cannot be removed is in nobody's way, and is tried again.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn exists(id: &str) -> Error {
    Error::new(ErrorKind::Conflict, "template already exists").with_member("id", id)
}

/// Every file to write, after every rule was checked.
fn checked(import: &Import, id: &str) -> Result<BTreeMap<String, String>> {
    if import.name.trim().is_empty() || import.files.is_empty() {
        let error = Error::invalid("invalid request body");
        return Err(error.with_member("detail", "name and files must not be empty"));
    }
    if import.files.len() > FILES_LIMIT {
        return Err(Error::invalid(format!("too many files ({}), max {FILES_LIMIT}", import.files.len())));
    }
    let bytes: usize = import.files.values().map(String::len).sum();
    if bytes > BYTES_LIMIT || import.files.values().any(|text| text.len() > FILE_LIMIT) {
        let text = format!("too large, max {FILE_LIMIT} bytes for a file and {BYTES_LIMIT} in all");
        return Err(Error::new(ErrorKind::TooLarge, text));
    }
    if let Some(path) = import.files.keys().find(|path| !is_inside(path)) {
        return Err(Error::invalid("invalid path").with_member("detail", path.as_str()));
    }
    let mut files = import.files.clone();
    let config = files.entry(CONFIG_FILE.to_owned()).or_insert_with(|| generated(&import.name, &import.files));
    Template::parse(id, config).map_err(|error| Error::invalid("invalid config.yaml").with_member("detail", error))?;
    Ok(files)
}

fn is_inside(path: &str) -> bool {
    let normal = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    normal && !path.is_empty() && !path.ends_with('/') && !path.contains(['\0', '\\'])
}

fn write_files(folder: &Path, files: &BTreeMap<String, String>) -> std::io::Result<()> {
    for (path, text) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
    }
    Ok(())
}

/// The folder of a template that is called `name`.
fn folder_name(name: &str) -> String {
    let folder: String = name
        .chars()
        .filter_map(|c| match c {
            ' ' | '-' => Some('-'),
            'a'..='z' | '0'..='9' | '_' => Some(c),
            'A'..='Z' => Some(c.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    if folder.is_empty() { "unnamed".to_owned() } else { folder }
}

/// The configuration of an import that brings none.
fn generated(name: &str, files: &BTreeMap<String, String>) -> String {
    let prompts: Vec<&str> =
        files.keys().map(String::as_str).filter(|path| !path.contains('/') && path.ends_with(".md")).collect();
    let prompts = if prompts.is_empty() { vec!["system-prompt.md"] } else { prompts };
    let skill = |path: &String| {
        let name = path.strip_prefix("skills/")?.strip_suffix("/SKILL.md")?;
        (!name.contains('/')).then(|| name.to_owned())
    };
    let skills: BTreeSet<String> = files.keys().filter_map(skill).collect();
    let list = |items: &mut dyn Iterator<Item = &str>| {
        let items: String = items.map(|item| format!("\n  - {}", quoted(item))).collect();
        if items.is_empty() { " []".to_owned() } else { items }
    };
    format!(
        "name: {}\ndescription: Imported agent\nversion: 1.0.0\ntier: 3\nruntime: {DEFAULT_RUNTIME}\n\
         model: anthropic:claude-haiku-4-5-20251001\nprompt_files:{}\nskills:{}\ntools: []\na2a:\n  port: 8000\n  \
         streaming: true\n  push_notifications: true\nenv:\n  required:\n    - ANTHROPIC_API_KEY\n",
        quoted(name),
        list(&mut prompts.into_iter()),
        list(&mut skills.iter().map(String::as_str)),
    )
}

/// A double-quoted YAML scalar. JSON's escapes are YAML's.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(name: &str, files: &[(&str, &str)]) -> Import {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        Import { name: name.to_owned(), files }
    }

    #[test]
    fn neither_a_file_nor_all_of_them_are_endless() {
        let text = |length: usize| "x".repeat(length);
        let many = |count: usize, length: usize| Import {
            name: "a".to_owned(),
            files: (0..count).map(|n| (format!("{n}.md"), text(length))).collect(),
        };
        for (import, fits) in [
            (many(1, FILE_LIMIT), true),
            (many(1, FILE_LIMIT + 1), false),
            (many(8, FILE_LIMIT), true),
            (many(9, FILE_LIMIT), false),
        ] {
            let kind = checked(&import, "a").err().map(|error| error.kind());
            assert_eq!(kind, (!fits).then_some(ErrorKind::TooLarge), "{} files", import.files.len());
        }
    }

    #[test]
    fn what_a_dead_server_left_of_an_import_goes_and_what_is_under_way_stays() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".import-1", "import-2", "kept"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let made = DateTime::<Utc>::from(fs::metadata(dir.path().join(".import-1")).unwrap().modified().unwrap());
        let left = || {
            let names =
                fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
        };
        clear_halves(dir.path(), made + HALF_IS_OLD - TimeDelta::seconds(1));
        assert_eq!(left(), [".import-1", "import-2", "kept"]);
        clear_halves(dir.path(), made + HALF_IS_OLD + TimeDelta::seconds(1));
        assert_eq!(left(), ["import-2", "kept"]);
    }

    #[test]
    fn of_two_imports_of_one_name_one_is_kept_whole() {
        let dir = tempfile::tempdir().unwrap();
        let templates = Templates::open(Some(dir.path().to_owned()), None);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let begun: Vec<_> = (0..8)
                .map(|n| {
                    let (templates, files) = (&templates, import("Same", &[("a.md", "a"), ("b/c.md", "c")]));
                    scope.spawn(move || write(templates, &files, &format!("{HALF}{n}")))
                })
                .collect();
            begun.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let kept = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let kinds = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).map(Error::kind);
        assert!(kept == 1 && kinds.clone().all(|kind| kind == ErrorKind::Conflict), "{outcomes:?}");
        assert!(dir.path().join("same/b/c.md").is_file() && dir.path().join("same/config.yaml").is_file());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "and of the others nothing");
    }

    #[test]
    fn the_folder_is_called_like_the_template() {
        for (name, folder) in [
            ("Data Engineer", "data-engineer"),
            ("a-b_C9", "a-b_c9"),
            ("../../etc", "etc"),
            ("設計", "unnamed"),
            ("a/b", "ab"),
        ] {
            assert_eq!(folder_name(name), folder);
        }
    }

    #[test]
    fn makes_a_configuration_that_reads_back_whatever_the_name() {
        let files =
            [("b.md", ""), ("a.md", ""), ("docs/c.md", ""), ("skills/two/SKILL.md", ""), ("skills/one/SKILL.md", "")];
        let name = "x\": [y]\n\\\t\r";
        let import = import(name, &files);
        let template = Template::parse("x", &generated(name, &import.files)).unwrap();
        assert_eq!((template.name.as_str(), template.runtime.as_str(), template.tier), (name, "claude-code", 3));
        assert_eq!(template.skills, ["one", "two"]);
        assert_eq!(template.required_env, ["ANTHROPIC_API_KEY"]);
        let yaml = generated("n", &import.files);
        assert!(yaml.contains("prompt_files:\n  - \"a.md\"\n  - \"b.md\"\nskills:"), "{yaml}");
        assert!(generated("n", &BTreeMap::new()).contains("prompt_files:\n  - \"system-prompt.md\"\nskills: []\n"));
    }

    #[test]
    fn is_kept_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("templates");
        let templates = Templates::open(Some(root.clone()), None);
        let keep = |import: &Import| write(&templates, import, ".import-1").map_err(|error| error.message().to_owned());
        let good = import("My Agent", &[("skills/a/SKILL.md", "s"), ("config.yaml", "name: mine")]);
        let imported = keep(&good).unwrap();
        assert_eq!(imported, Imported { id: "my-agent".to_owned(), name: "My Agent".to_owned() });
        assert_eq!(fs::read_to_string(root.join("my-agent/skills/a/SKILL.md")).unwrap(), "s");
        let mode = |path: &str| {
            use std::os::unix::fs::PermissionsExt;
            fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777
        };
        assert_eq!((mode("my-agent/config.yaml"), mode("my-agent/skills") & 0o700), (0o600, 0o700));
        assert_eq!(keep(&good).unwrap_err(), "template already exists");
        for path in ["../x", "/x", "a/../b", "", ".", "a/", "a\0", "a\\b"] {
            assert_eq!(keep(&import("bad", &[("a.md", ""), (path, "")])).unwrap_err(), "invalid path", "{path:?}");
        }
        assert_eq!(keep(&import("bad", &[("config.yaml", "a: [")])).unwrap_err(), "invalid config.yaml");
        assert_eq!(keep(&import("bad", &[])).unwrap_err(), "invalid request body");
        assert_eq!(keep(&import("bad", &[("a", ""), ("a/b", "")])).unwrap_err(), "failed to write config.yaml");
        let many: Vec<String> = (0..201).map(|n| format!("{n}.md")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|path| (path.as_str(), "")).collect();
        assert_eq!(keep(&import("bad", &many)).unwrap_err(), "too many files (201), max 200");
        let left: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["my-agent"]);
    }
}

//! The folder of templates, and what is remembered of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
    sync::{Arc, RwLock},
    time::Duration,
};

use super::{config::Template, manifest};
use crate::error::{Error, ErrorKind, Result};

/// What every template has.
pub(crate) const CONFIG_FILE: &str = "config.yaml";

/// The most that a `config.yaml` may hold.
const CONFIG_LIMIT: u64 = 1024 * 1024;

/// The templates of a folder, and the runtimes of a manifest. Cloning clones the handle.
///
/// [`Default`] has no templates, and the runtimes of this build.
#[derive(Debug, Clone)]
pub struct Templates {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: Option<PathBuf>,
    runtimes: BTreeSet<String>,
    known: RwLock<Known>,
}

/// What the folder held when it was looked at last.
#[derive(Debug, Default)]
struct Known {
    timeouts: BTreeMap<String, Duration>,
    /// Why templates were skipped, so that it is said once.
    skipped: BTreeMap<String, String>,
}

impl Default for Templates {
    fn default() -> Self {
        Self::open(None, None)
    }
}

impl Templates {
    /// The templates in `dir`, which need not exist yet, and the runtimes of `manifest`.
    ///
    /// A manifest that cannot be read counts as none: a line in the log says so.
    pub fn open(dir: Option<PathBuf>, manifest: Option<&Path>) -> Self {
        let inner = Inner { dir, runtimes: manifest::runtimes(manifest), known: RwLock::default() };
        let templates = Self { inner: Arc::new(inner) };
        templates.scan();
        templates
    }

    /// The runtimes there are, `external` among them.
    pub fn runtimes(&self) -> &BTreeSet<String> {
        &self.inner.runtimes
    }

    /// Every template that can be read, by id. What cannot is skipped, and the log says why.
    pub async fn list(&self) -> Vec<Template> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.scan()).await.unwrap_or_default()
    }

    /// How long bringing up a workspace of `runtime` may take: the longest that a template of it asks for.
    pub fn provision_timeout_for(&self, runtime: &str) -> Option<Duration> {
        let known = self.inner.known.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.timeouts.get(runtime).copied()
    }

    /// The folder that templates are in.
    pub(super) fn dir(&self) -> Option<&Path> {
        self.inner.dir.as_deref()
    }

    fn scan(&self) -> Vec<Template> {
        let mut templates = Vec::new();
        let mut skipped = BTreeMap::new();
        for id in self.folders() {
            match self.read(&id) {
                Some(Ok(template)) => templates.push(template),
                Some(Err(error)) => drop(skipped.insert(id, error)),
                None => {}
            }
        }
        let mut known = self.inner.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (id, error) in &skipped {
            if known.skipped.get(id) != Some(error) {
                tracing::warn!("templates list: skip {id}: yaml.Unmarshal: {error}");
            }
        }
        *known = Known { timeouts: timeouts(&templates), skipped };
        templates
    }

    /// The names of the folders that may be templates, in order.
    fn folders(&self) -> Vec<String> {
        let Some(dir) = self.dir() else { return Vec::new() };
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                tracing::warn!(path = %dir.display(), %error, "the folder of templates cannot be read");
                return Vec::new();
            }
        };
        let mut names: Vec<String> = entries
            .flatten()
            // A link is no folder here.
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort_unstable();
        names
    }

    /// The template in the folder `id`; `None` where it is no template.
    fn read(&self, id: &str) -> Option<Result<Template, String>> {
        let path = self.dir()?.join(id).join(CONFIG_FILE);
        let metadata = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file)?;
        if metadata.len() > CONFIG_LIMIT {
            return Some(Err(format!("it is over the limit of {CONFIG_LIMIT} bytes")));
        }
        let yaml = fs::read(&path).ok()?;
        Some(match String::from_utf8(yaml) {
            Ok(yaml) => Template::parse(id, &yaml),
            Err(_) => Err("it is no text".to_owned()),
        })
    }

    /// The folder called `name`, where there is one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a name that leads out of the folder of templates.
    pub(super) fn locate(&self, name: &str) -> Result<Option<PathBuf>> {
        let refuse = || Error::invalid("invalid template").with_member("detail", "it leads out of the templates");
        let relative = Path::new(name);
        let inside = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside || name.contains('\0') || relative.file_name().is_none() {
            return Err(refuse());
        }
        let Some(root) = self.dir().and_then(|dir| dir.canonicalize().ok()) else { return Ok(None) };
        let Ok(folder) = root.join(relative).canonicalize() else { return Ok(None) };
        if !folder.starts_with(&root) || folder == root {
            return Err(refuse());
        }
        Ok(folder.is_dir().then_some(folder))
    }

    /// The template called `name` and its folder, where there is one.
    ///
    /// # Errors
    /// As [`Templates::locate`], and where its configuration cannot be read.
    pub(super) fn find(&self, name: &str) -> Result<Option<(PathBuf, Template)>> {
        let Some(folder) = self.locate(name)? else { return Ok(None) };
        let template = self.read(name).unwrap_or_else(|| Ok(Template { id: name.to_owned(), ..Template::default() }));
        let template = template.map_err(|error| {
            Error::new(ErrorKind::InvalidInput, "invalid template")
                .with_member("detail", format!("{CONFIG_FILE}: {error}"))
        })?;
        Ok(Some((folder, template)))
    }

    /// The folder of a runtime's own template.
    pub(super) fn vanilla(&self, runtime: &str) -> Option<(String, PathBuf)> {
        [format!("{runtime}{}", manifest::VANILLA), runtime.to_owned()]
            .into_iter()
            .find_map(|name| Some((name.clone(), self.locate(&name).ok()??)))
    }

    /// The folder below `parent` (`""` for the templates themselves) that is called like a workspace, or is the only one
    /// whose template is.
    pub(crate) fn called_like(&self, parent: &str, workspace: &str) -> Option<(String, PathBuf)> {
        let below = Self {
            inner: Arc::new(Inner {
                dir: Some(self.dir()?.join(parent)),
                runtimes: BTreeSet::new(),
                known: RwLock::default(),
            }),
        };
        let names: Vec<String> = below.folders().into_iter().filter(|name| !name.starts_with("ws-")).collect();
        let folder = workspace.to_lowercase().replace(' ', "-");
        let called = |name: &String| {
            below
                .read(name)
                .and_then(Result::ok)
                .is_some_and(|template| template.name.to_lowercase() == workspace.to_lowercase())
        };
        let found = names.iter().find(|name| **name == folder).cloned().or_else(|| {
            let mut found = names.into_iter().filter(called);
            found.next().filter(|_| found.next().is_none())
        })?;
        let path = below.locate(&found).ok()??;
        Some((found, path))
    }
}

/// For each runtime the longest time that a template asks for.
fn timeouts(templates: &[Template]) -> BTreeMap<String, Duration> {
    let mut timeouts = BTreeMap::new();
    for template in templates.iter().filter(|template| !template.runtime.is_empty()) {
        if let Some(timeout) = template.provision_timeout {
            let longest = timeouts.entry(template.runtime.clone()).or_insert(timeout);
            *longest = timeout.max(*longest);
        }
    }
    timeouts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn templates(files: &[(&str, &str)]) -> (tempfile::TempDir, Templates) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let templates = Templates::open(Some(dir.path().to_owned()), None);
        (dir, templates)
    }

    #[tokio::test]
    async fn lists_folders_with_a_configuration_and_skips_what_is_malformed() {
        let (dir, templates) = templates(&[
            ("b/config.yaml", "name: B"),
            ("a/config.yaml", "name: A"),
            ("broken/config.yaml", "a: ["),
            ("no-template/readme.md", ""),
            (".import-1/config.yaml", "name: half"),
            ("config.yaml", "name: no folder"),
        ]);
        std::os::unix::fs::symlink(dir.path().join("a"), dir.path().join("link")).unwrap();
        let ids = async || templates.list().await.into_iter().map(|template| template.id).collect::<Vec<_>>();
        assert_eq!(ids().await, ["a", "b"]);
        fs::write(dir.path().join("broken/config.yaml"), "name: mended").unwrap();
        assert_eq!(ids().await, ["a", "b", "broken"]);
        assert!(Templates::open(Some(dir.path().join("nowhere")), None).list().await.is_empty());
        assert!(Templates::default().list().await.is_empty());
    }

    #[tokio::test]
    async fn the_longest_timeout_of_a_runtime_counts_and_follows_the_files() {
        let timeout = |runtime: &str, seconds: i64| {
            format!("runtime: {runtime}\nruntime_config: {{provision_timeout_seconds: {seconds}}}")
        };
        let (dir, templates) = templates(&[
            ("a/config.yaml", &timeout("hermes", 60)),
            ("b/config.yaml", &timeout("hermes", 120)),
            ("c/config.yaml", &timeout("codex", 0)),
            ("d/config.yaml", &timeout("''", 9)),
        ]);
        assert_eq!(templates.provision_timeout_for("hermes"), Some(Duration::from_secs(120)));
        assert_eq!(templates.provision_timeout_for("codex"), None);
        fs::write(dir.path().join("c/config.yaml"), timeout("codex", 7)).unwrap();
        templates.list().await;
        assert_eq!(templates.provision_timeout_for("codex"), Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        let outside = tempfile::tempdir().unwrap();
        let (dir, templates) = templates(&[("a/config.yaml", ""), ("org-templates/lead/config.yaml", "")]);
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        assert!(templates.locate("a").unwrap().is_some());
        assert!(templates.locate("org-templates/lead").unwrap().is_some());
        assert!(templates.locate("none").unwrap().is_none());
        assert!(templates.locate("a/config.yaml").unwrap().is_none(), "it is a file");
        for name in ["", ".", "..", "../x", "a/../..", "/etc", "a\0", "link"] {
            assert_eq!(templates.locate(name).unwrap_err().message(), "invalid template", "{name:?}");
        }
    }

    #[test]
    fn a_workspace_finds_its_template_by_folder_or_by_the_only_name() {
        let (_dir, templates) = templates(&[
            ("data-engineer/config.yaml", "name: other"),
            ("one/config.yaml", "name: Data Engineer"),
            ("two/config.yaml", "name: Writer"),
            ("twin-1/config.yaml", "name: Twin"),
            ("twin-2/config.yaml", "name: twin"),
            ("ws-1/config.yaml", "name: Old"),
            ("org-templates/lead/config.yaml", "name: Lead"),
        ]);
        let found = |parent: &str, name: &str| templates.called_like(parent, name).map(|(name, _)| name);
        for (name, expected) in [
            ("Data Engineer", Some("data-engineer")),
            ("writer", Some("two")),
            ("Twin", None),
            ("Old", None),
            ("Lead", None),
        ] {
            assert_eq!(found("", name).as_deref(), expected, "{name}");
        }
        assert_eq!(found("org-templates", "lead").as_deref(), Some("lead"));
    }

    #[test]
    fn a_runtime_finds_its_own_template() {
        let (_dir, templates) = templates(&[("claude-code-default/config.yaml", ""), ("hermes/config.yaml", "")]);
        let found = |runtime: &str| templates.vanilla(runtime).map(|(name, _)| name);
        assert_eq!(found("claude-code").as_deref(), Some("claude-code-default"));
        assert_eq!(found("hermes").as_deref(), Some("hermes"));
        assert_eq!(found("codex"), None);
    }
}

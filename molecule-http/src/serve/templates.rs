//! Where the templates and the manifest of this server are.

use std::path::{Path, PathBuf};

use molecule_core::templates::Templates;

use super::settings::Settings;

/// The folder where templates are looked for when none is named: here, or in a folder above.
const FOLDER: &str = "workspace-configs-templates";

/// Where the manifest is in a container.
const IN_CONTAINER: &str = "/app/manifest.json";

/// Here, and the two folders above.
const PLACES: [&str; 3] = ["", "..", "../.."];

/// What was named, else what is found; templates that are imported go into the data folder where there is none.
pub(super) fn open(settings: &Settings) -> Templates {
    let found = || PLACES.map(|place| Path::new(place).join(FOLDER)).into_iter().find(|path| holds_a_template(path));
    let dir = settings.configs_dir.clone().or_else(found).unwrap_or_else(|| settings.data_dir.join("templates"));
    let in_places = PLACES.map(|place| Path::new(place).join("manifest.json"));
    let manifest = settings
        .manifest
        .clone()
        .or_else(|| std::iter::once(PathBuf::from(IN_CONTAINER)).chain(in_places).find(|path| path.is_file()));
    tracing::info!(path = %dir.display(), "templates are in this folder");
    Templates::open(Some(dir), manifest.as_deref())
}

fn holds_a_template(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join("config.yaml")).any(|path| path.is_file())
}

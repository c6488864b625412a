//! Where this program keeps its files on a host.

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

/// Looks up an environment variable; `None` where it is unset, empty or not text.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variable `name` of the environment of this process.
#[expect(clippy::disallowed_methods, reason = "the frontend's one look into the environment")]
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// How this program is called, so that what is printed can be typed: the way it was, where that was a path from here, as
/// in `./molecule`; otherwise by its name.
pub(crate) fn program() -> &'static str {
    static PROGRAM: LazyLock<String> = LazyLock::new(|| typed(std::env::args().next()));
    &PROGRAM
}

fn typed(called: Option<String>) -> String {
    called.filter(|called| called.starts_with("./")).unwrap_or_else(|| "molecule".to_owned())
}

/// The folder for what a server keeps: `explicit`, else `MOLECULE_DATA_DIR`, else `$XDG_DATA_HOME/molecule`, else
/// `~/.local/share/molecule`; `None` where not even the home folder is known.
pub(crate) fn data_dir(explicit: Option<&Path>, env: Lookup<'_>) -> Option<PathBuf> {
    explicit
        .map(Path::to_owned)
        .or_else(|| env("MOLECULE_DATA_DIR").map(PathBuf::from))
        .or_else(|| Some(base_dir("XDG_DATA_HOME", ".local/share", env)?.join("molecule")))
}

/// The file for the profiles of the client commands: in `$XDG_CONFIG_HOME/molecule`, else `~/.config/molecule`.
pub(crate) fn profiles_file(env: Lookup<'_>) -> Option<PathBuf> {
    Some(base_dir("XDG_CONFIG_HOME", ".config", env)?.join("molecule/profiles.toml"))
}

/// The file in `data_dir` by which a server hands its admin token to the commands of the same user.
pub(crate) fn operator_token_file(data_dir: &Path) -> PathBuf {
    data_dir.join("operator-token")
}

fn base_dir(variable: &str, below_home: &str, env: Lookup<'_>) -> Option<PathBuf> {
    env(variable)
        .map(PathBuf::from)
        // The XDG specification says to ignore relative ones.
        .filter(|path| path.is_absolute())
        .or_else(|| Some(Path::new(&env("HOME")?).join(below_home)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn what_is_printed_can_be_typed() {
        for (called, shown) in [
            (Some("./molecule"), "./molecule"),
            (Some("/usr/bin/molecule"), "molecule"),
            (Some("molecule"), "molecule"),
            (None, "molecule"),
        ] {
            assert_eq!(typed(called.map(str::to_owned)), shown);
        }
    }

    #[test]
    fn the_data_folder_is_the_first_one_named() {
        let all = [("MOLECULE_DATA_DIR", "/m"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")];
        let dir = |explicit: Option<&str>, skip| data_dir(explicit.map(Path::new), &env(&all[skip..])).unwrap();
        assert_eq!(dir(Some("/e"), 0), Path::new("/e"));
        assert_eq!(dir(None, 0), Path::new("/m"));
        assert_eq!(dir(None, 1), Path::new("/x/molecule"));
        assert_eq!(dir(None, 2), Path::new("/h/.local/share/molecule"));
        assert_eq!(data_dir(None, &env(&[])), None);
    }

    #[test]
    fn a_relative_xdg_folder_is_ignored() {
        let file = profiles_file(&env(&[("XDG_CONFIG_HOME", "here"), ("HOME", "/h")])).unwrap();
        assert_eq!(file, Path::new("/h/.config/molecule/profiles.toml"));
    }
}

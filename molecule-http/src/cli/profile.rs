//! Which server a command talks to, and what token it shows there.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, OpenOptions},
    io::{ErrorKind as IoErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use molecule_core::error::{Error, ErrorKind, Result};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::GlobalArgs;
use crate::paths::{self, Lookup};

/// The profile of those who name none.
pub(crate) const DEFAULT_PROFILE: &str = "default";

const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

/// A server, and the token to show there.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Where the server is; `http` or `https`, without query, fragment and user.
    pub(crate) server: Url,
    /// The token, with where it came from in words fit for a message.
    pub(crate) token: Option<(SecretString, String)>,
}

impl Target {
    /// Whether the server runs on this host.
    pub(crate) fn is_loopback(&self) -> bool {
        match self.server.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }
}

/// Settles the target: flags, then the environment, then the saved profile, then the defaults.
///
/// The token of a profile goes to the server of that profile and to no other.
pub(crate) fn resolve(global: &GlobalArgs, env: Lookup<'_>) -> Result<Target> {
    let file = paths::profiles_file(env);
    let named = global.profile.clone().or_else(|| env("MOLECULE_PROFILE"));
    let name = named.as_deref().unwrap_or(DEFAULT_PROFILE);
    let profile = match &file {
        Some(file) => Profiles::load(file)?.0.remove(name),
        None => None,
    };
    if named.is_some() && profile.is_none() {
        return Err(Error::invalid(format!(
            "there is no profile {name:?}; save one with: {} login URL --profile {name}",
            paths::program()
        )));
    }
    let profile_server = profile.as_ref().map(|profile| parse_server(&profile.server)).transpose()?;
    // A profile named by a flag is as good as the flags it stands for.
    let by_flag = global.profile.is_some();

    let server = match (&global.server, env("MOLECULE_SERVER"), &profile_server) {
        (Some(flag), _, _) => parse_server(flag)?,
        (None, _, Some(saved)) if by_flag => saved.clone(),
        (None, Some(variable), _) => parse_server(&variable)?,
        (None, None, Some(saved)) => saved.clone(),
        (None, None, None) => parse_server(DEFAULT_SERVER)?,
    };

    let saved = profile
        .and_then(|profile| profile.token)
        .filter(|_| profile_server.as_ref() == Some(&server))
        .map(|token| (token.into(), format!("profile {name:?}")));
    let flag = global.token.clone().map(|token| (token, "--token".to_owned()));
    let variable = ["MOLECULE_TOKEN", "ADMIN_TOKEN"]
        .into_iter()
        .find_map(|name| Some((SecretString::from(env(name)?), name.to_owned())));
    let token = if by_flag { flag.or(saved).or(variable) } else { flag.or(variable).or(saved) };

    let mut target = Target { server, token };
    if target.token.is_none() && target.is_loopback() {
        target.token = paths::data_dir(global.data_dir.as_deref(), env).as_deref().and_then(operator_token);
    }
    if let Some((token, source)) = &target.token {
        check_token(token, source)?;
    }
    Ok(target)
}

/// The address of a server, as people type it.
pub(crate) fn parse_server(text: &str) -> Result<Url> {
    let wrong = || Error::invalid(format!("{text:?} is not the address of a server; it looks like {DEFAULT_SERVER}"));
    let mut url = Url::parse(text.trim()).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::invalid("the address of a server must not hold a user or password; use --token"));
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// Refuses what cannot be sent as a token, without showing it.
pub(crate) fn check_token(token: &SecretString, source: &str) -> Result<()> {
    let text = token.expose_secret();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::invalid(format!("the token from {source} must be of visible ASCII characters only")));
    }
    Ok(())
}

/// What `molecule serve` left for the commands of the same user; silently nothing where it cannot be read.
fn operator_token(data_dir: &Path) -> Option<(SecretString, String)> {
    let file = paths::operator_token_file(data_dir);
    let text = fs::read_to_string(&file).ok()?;
    let token = text.trim();
    (!token.is_empty()).then(|| (token.into(), file.display().to_string()))
}

/// The saved profiles by name.
#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Profiles(BTreeMap<String, Profile>);

#[derive(Serialize, Deserialize)]
struct Profile {
    server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl Profiles {
    /// Reads `file`; a missing one holds no profile.
    pub(crate) fn load(file: &Path) -> Result<Self> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), IoErrorKind::NotFound | IoErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            Err(error) => return Err(cannot("read", file, &error)),
        };
        // The parser's own message would quote lines of the file, and with them tokens.
        toml::from_str(&text).map_err(|_| {
            Error::invalid(format!("{} does not hold profiles in TOML; correct or remove it", file.display()))
        })
    }

    /// Adds or replaces the profile `name`.
    pub(crate) fn put(&mut self, name: &str, target: &Target) -> Result<()> {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(Error::invalid(format!(
                "{name:?} is not a name for a profile: use letters, digits, '-', '_' and '.'"
            )));
        }
        let token = target.token.as_ref().map(|(token, _)| token.expose_secret().to_owned());
        self.0.insert(name.to_owned(), Profile { server: target.server.to_string(), token });
        Ok(())
    }

    /// Writes `file` anew, for the eyes of its owner only. A crash leaves the old file or the new one.
    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        let text = toml::to_string(self)
            .map_err(|error| Error::new(ErrorKind::Unexpected, "cannot write the profiles as TOML").caused_by(error))?;
        let folder = file.parent().unwrap_or(Path::new("."));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| cannot("create", folder, &error))?;
        let draft = PathBuf::from(format!("{}.{}", file.display(), std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut open| {
                open.write_all(text.as_bytes())?;
                open.sync_all()
            })
            .and_then(|()| fs::rename(&draft, file));
        written.map_err(|error| {
            let _ = fs::remove_file(&draft);
            cannot("write", file, &error)
        })
    }
}

fn cannot(verb: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Unexpected, format!("cannot {verb} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Home(tempfile::TempDir);

    impl Home {
        fn with_profiles(toml: &str) -> Self {
            let home = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(home.0.path().join(".config/molecule")).unwrap();
            fs::write(home.0.path().join(".config/molecule/profiles.toml"), toml).unwrap();
            home
        }

        fn resolve(&self, global: &GlobalArgs, env: &[(&str, &str)]) -> Result<(String, Option<String>)> {
            let home = self.0.path().to_str().unwrap();
            let lookup = |name: &str| {
                let found = env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
                found.or_else(|| (name == "HOME").then(|| home.to_owned()))
            };
            let target = resolve(global, &lookup)?;
            Ok((target.server.to_string(), target.token.map(|(token, _)| token.expose_secret().to_owned())))
        }
    }

    fn flags(server: Option<&str>, token: Option<&str>, profile: Option<&str>) -> GlobalArgs {
        GlobalArgs {
            server: server.map(str::to_owned),
            token: token.map(SecretString::from),
            profile: profile.map(str::to_owned),
            ..GlobalArgs::default()
        }
    }

    const TWO: &str = "[default]\nserver = 'http://one'\ntoken = 't1'\n[two]\nserver = 'http://two'\ntoken = 't2'\n";

    #[test]
    fn flags_beat_the_environment_beats_the_profile_beats_the_default() {
        let home = Home::with_profiles(TWO);
        let env = [("MOLECULE_SERVER", "http://env"), ("MOLECULE_TOKEN", "te")];
        let none: &[(&str, &str)] = &[];
        for (global, env, server, token) in [
            (flags(Some("http://flag"), Some("tf"), None), &env[..], "http://flag/", Some("tf")),
            (flags(None, None, None), &env[..], "http://env/", Some("te")),
            (flags(None, None, Some("two")), &env[..], "http://two/", Some("t2")),
            (flags(None, None, None), none, "http://one/", Some("t1")),
            (flags(None, None, None), &[("MOLECULE_PROFILE", "two")], "http://two/", Some("t2")),
            (flags(None, None, None), &[("ADMIN_TOKEN", "ta")], "http://one/", Some("ta")),
            (flags(None, None, None), &[("ADMIN_TOKEN", "ta"), ("MOLECULE_TOKEN", "te")], "http://one/", Some("te")),
        ] {
            let expected = (server.to_owned(), token.map(str::to_owned));
            assert_eq!(home.resolve(&global, env).unwrap(), expected, "{global:?} {env:?}");
        }
        let bare = Home::with_profiles("");
        assert_eq!(bare.resolve(&flags(None, None, None), none).unwrap(), ("http://127.0.0.1:8080/".to_owned(), None));
    }

    #[test]
    fn the_token_of_a_profile_goes_to_no_other_server() {
        let home = Home::with_profiles(TWO);
        let other = flags(Some("http://other"), None, Some("two"));
        assert_eq!(home.resolve(&other, &[]).unwrap().1, None);
        let same = flags(Some("http://two/"), None, Some("two"));
        assert_eq!(home.resolve(&same, &[]).unwrap().1.as_deref(), Some("t2"));
        assert_eq!(home.resolve(&flags(None, None, None), &[("MOLECULE_SERVER", "http://x")]).unwrap().1, None);
    }

    #[test]
    fn the_operator_token_is_for_servers_on_this_host_only() {
        let home = Home::with_profiles("");
        let data = home.0.path().join(".local/share/molecule");
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("operator-token"), "op\n").unwrap();
        for (server, token) in [
            ("http://127.0.0.1:1", Some("op")),
            ("http://localhost:1", Some("op")),
            ("http://[::1]:1", Some("op")),
            ("http://192.0.2.1", None),
            ("http://localhost.example", None),
        ] {
            let found = home.resolve(&flags(Some(server), None, None), &[]).unwrap().1;
            assert_eq!(found.as_deref(), token, "{server}");
        }
    }

    #[test]
    fn bad_input_is_named_and_tokens_are_not_shown() {
        let home = Home::with_profiles("[default]\nserver = 'http://one'\ntoken = secret-without-quotes\n");
        let error = home.resolve(&flags(None, None, None), &[]).unwrap_err();
        assert!(error.message().contains("profiles.toml"), "{error}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");

        let home = Home::with_profiles("");
        for (global, expected) in [
            (flags(None, None, Some("nix")), "there is no profile \"nix\""),
            (flags(Some("localhost:8080"), None, None), "is not the address of a server"),
            (flags(Some("ftp://x"), None, None), "is not the address of a server"),
            (flags(Some("http://me:pw@x"), None, None), "must not hold a user"),
            (flags(None, Some("with blank"), None), "the token from --token must be"),
        ] {
            let error = home.resolve(&global, &[]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.message().contains(expected), "{error}");
            assert!(!error.message().contains("with blank"), "{error}");
        }
    }

    #[test]
    fn profiles_are_for_their_owner_only_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/molecule/profiles.toml");
        let mut profiles = Profiles::load(&file).unwrap();
        let server = parse_server("https://fleet.example/base/").unwrap();
        profiles.put("prod", &Target { server, token: Some(("s3".into(), String::new())) }).unwrap();
        profiles.save(&file).unwrap();
        profiles.save(&file).unwrap();

        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "no draft is left behind");
        let read = Profiles::load(&file).unwrap().0.remove("prod").unwrap();
        assert_eq!((read.server.as_str(), read.token.as_deref()), ("https://fleet.example/base", Some("s3")));
    }
}

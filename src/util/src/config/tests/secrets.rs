//! Who wins, and which files are refused.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use super::{read, with};
use crate::config::{Config, Overrides, Purpose, SecretSource, Secrets, load};

const SECRET: &str = "4425f5c26c5e11581d3223904324dcb5b5d5dfb14e5e7f35e38c595424f5f1e6";

fn file(dir: &tempfile::TempDir, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn resolve(config: &Config, overrides: &Overrides) -> Result<Secrets, String> {
    Secrets::resolve(Some(config), overrides, Purpose::Server).map_err(|error| error.to_string())
}

fn value(text: &str) -> SecretSource {
    SecretSource { value: Some(text.into()), file: None }
}

#[test]
fn flags_and_environment_replace_what_the_file_says() {
    let (config, _) =
        read(&format!("{}[admin]\nadmin_token = \"of the file\"\nmetrics_token = \" m \"\n", with(&format!("rpc_secret = \"{SECRET}\""))));
    let overrides = Overrides { admin_token: value("of the flag"), ..Overrides::default() };
    let secrets = resolve(&config, &overrides).unwrap();
    assert_eq!((secrets.admin_token.as_deref(), secrets.metrics_token.as_deref()), (Some("of the flag"), Some("m")));
    assert!(secrets.require_rpc_secret().is_ok());
}

#[test]
fn a_value_and_a_file_in_one_place_exclude_each_other() {
    let (config, _) = read(&with(&format!("rpc_secret = \"{SECRET}\"\nrpc_secret_file = \"/x\"")));
    let message = "rpc_secret and rpc_secret_file are both set (configuration file); only one of them may be";
    assert_eq!(resolve(&config, &Overrides::default()).unwrap_err(), message);
    let (config, _) = read(&with(""));
    let both = Overrides { metrics_token: SecretSource { file: Some("/x".into()), ..value("t") }, ..Overrides::default() };
    let message = "admin.metrics_token and admin.metrics_token_file are both set (flags and environment); only one of them may be";
    assert_eq!(resolve(&config, &both).unwrap_err(), message);
}

#[test]
fn a_secret_file_that_others_can_read_stops_the_server_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "secret", &format!("{SECRET}\n"), 0o640);
    let overrides = Overrides { rpc_secret: SecretSource { value: None, file: Some(path) }, ..Overrides::default() };
    let (config, _) = read(&with(""));
    let error = resolve(&config, &overrides).unwrap_err();
    assert!(error.contains("has mode 0640") && error.contains("chmod 600") && error.contains("allow_world_readable_secrets"), "{error}");
    assert!(Secrets::resolve(Some(&config), &overrides, Purpose::Client).is_ok());
    let allowing = Overrides { allow_world_readable_secrets: Some(true), ..overrides.clone() };
    assert!(resolve(&config, &allowing).is_ok());
    let (permissive, _) = read(&with("allow_world_readable_secrets = true"));
    assert!(resolve(&permissive, &overrides).is_ok());
    let forbidding = Overrides { allow_world_readable_secrets: Some(false), ..overrides };
    assert!(resolve(&permissive, &forbidding).is_err(), "the flag works both ways");
}

#[test]
fn only_trailing_white_space_of_a_secret_file_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "secret", &format!(" {SECRET} \n\n"), 0o600);
    let overrides = Overrides { rpc_secret: SecretSource { value: None, file: Some(path) }, ..Overrides::default() };
    let error = resolve(&read(&with("")).0, &overrides).unwrap_err();
    assert_eq!(error, "rpc_secret holds the character ' ', needs 64 hex digits (32 bytes); `openssl rand -hex 32` makes one");
}

#[test]
fn a_missing_or_malformed_secret_says_how_to_make_one() {
    let (config, _) = read(&with(""));
    let secrets = resolve(&config, &Overrides::default()).unwrap();
    assert!(secrets.require_rpc_secret().unwrap_err().to_string().contains("openssl rand -hex 32"));
    let empty = Overrides { rpc_secret: value(""), ..Overrides::default() };
    assert!(resolve(&config, &empty).unwrap_err().starts_with("rpc_secret has 0 hex digits"), "an empty variable counts as set");
    let gone = Overrides { rpc_secret: SecretSource { value: None, file: Some("/nowhere/secret".into()) }, ..Overrides::default() };
    assert!(resolve(&config, &gone).unwrap_err().starts_with("rpc_secret_file: cannot read /nowhere/secret: "));
}

#[test]
fn a_placeholder_in_the_file_does_not_matter_when_it_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "garage.toml", &with("rpc_secret = \"__REPLACE__\""), 0o644);
    assert!(
        load(&path, &Overrides::default(), Purpose::Server)
            .unwrap_err()
            .to_string()
            .contains("line 5: rpc_secret: holds the character '_'")
    );
    assert!(load(&path, &Overrides { rpc_secret: value(SECRET), ..Overrides::default() }, Purpose::Server).is_ok());
}

#[test]
fn secrets_are_never_shown() {
    let (config, _) = read(&format!(
        "{}[admin]\nadmin_token = \"hush\"\n",
        with(&format!("rpc_secret = \"{SECRET}\"\nrpc_secrets_previous = [\"{SECRET}\"]"))
    ));
    let shown = format!("{config:?} {:?}", resolve(&config, &Overrides::default()).unwrap());
    assert!(!shown.contains("hush") && !shown.contains(SECRET) && !shown.contains("68, 37"), "{shown}");
}

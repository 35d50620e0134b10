//! Volumes: what a manifest asks for, and the files that this means right now.
//!
//! Content is decided here as plain maps from path to bytes; [`super::files`] writes it. Tokens are asked for as an order and
//! made by who has the key.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, Volume, VolumeProjection};

use super::{
    data::{Data, Source},
    downward,
};

/// How long a token is good where the manifest doesn't say, as in Kubernetes.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// The shortest lifetime that can be asked for, as in Kubernetes.
const MIN_TOKEN_LIFETIME: Duration = Duration::from_secs(600);

/// What a volume is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum VolumePlan {
    /// An empty directory of the pod's own, in memory.
    Empty,
    /// A file or directory of this machine.
    Host(PathBuf),
    /// Files that are kept up to date.
    Files { parts: Vec<Part>, mode: u32 },
}

/// Where some of a volume's files come from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    /// Keys of a ConfigMap or Secret: all of them, or these.
    Data { source: Source, name: String, items: Option<Vec<(String, String, Option<u32>)>>, optional: bool },
    /// Fields of the pod: path and field.
    Downward { items: Vec<(String, String)> },
    /// A token of the pod's service account.
    Token { path: String, audience: String, lifetime: Duration },
}

/// What a volume of files holds right now.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Content {
    /// Bytes and mode by path below the volume.
    pub(crate) files: BTreeMap<PathBuf, (Vec<u8>, u32)>,
    /// Tokens to be made.
    pub(crate) tokens: Vec<TokenOrder>,
}

/// A token to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenOrder {
    pub(crate) path: PathBuf,
    pub(crate) audience: String,
    pub(crate) lifetime: Duration,
    pub(crate) mode: u32,
}

/// A volume of a pod's spec; the error is a sentence.
pub(crate) fn plan(volume: &Volume) -> Result<VolumePlan, String> {
    match volume {
        Volume { empty_dir: Some(_), .. } => Ok(VolumePlan::Empty),
        Volume { host_path: Some(host), .. } => Ok(VolumePlan::Host(PathBuf::from(&host.path))),
        Volume { config_map: Some(map), .. } => {
            let part = data(Source::ConfigMap, &map.name, map.items.as_deref(), map.optional)?;
            Ok(VolumePlan::Files { parts: vec![part], mode: file_mode(map.default_mode) })
        }
        Volume { secret: Some(secret), .. } => {
            let name = secret.secret_name.as_deref().unwrap_or_default();
            let part = data(Source::Secret, name, secret.items.as_deref(), secret.optional)?;
            Ok(VolumePlan::Files { parts: vec![part], mode: file_mode(secret.default_mode) })
        }
        Volume { downward_api: Some(api), .. } => Ok(VolumePlan::Files {
            parts: vec![downward_part(api.items.as_deref().unwrap_or_default())?],
            mode: file_mode(api.default_mode),
        }),
        Volume { projected: Some(projected), .. } => {
            let parts = projected.sources.iter().flatten().map(projection).collect::<Result<_, _>>()?;
            Ok(VolumePlan::Files { parts, mode: file_mode(projected.default_mode) })
        }
        _ => Err("this kind of volume is not supported by gamut up; it has emptyDir, configMap, secret, downwardAPI, \
                  projected and hostPath"
            .to_owned()),
    }
}

fn projection(projection: &VolumeProjection) -> Result<Part, String> {
    match projection {
        VolumeProjection { config_map: Some(map), .. } => {
            data(Source::ConfigMap, &map.name, map.items.as_deref(), map.optional)
        }
        VolumeProjection { secret: Some(secret), .. } => {
            data(Source::Secret, &secret.name, secret.items.as_deref(), secret.optional)
        }
        VolumeProjection { downward_api: Some(api), .. } => downward_part(api.items.as_deref().unwrap_or_default()),
        VolumeProjection { service_account_token: Some(token), .. } => {
            let asked = token.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            Ok(Part::Token {
                path: inner_path(&token.path)?,
                audience: token.audience.clone().unwrap_or_default(),
                lifetime: asked.map_or(TOKEN_LIFETIME, Duration::from_secs).max(MIN_TOKEN_LIFETIME),
            })
        }
        _ => Err("projected has a source that gamut up doesn't support; it has configMap, secret, downwardAPI and \
                  serviceAccountToken"
            .to_owned()),
    }
}

fn data(
    source: Source,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
) -> Result<Part, String> {
    let items = items.map(|items| {
        let item =
            |item: &KeyToPath| Ok((item.key.clone(), inner_path(&item.path)?, item.mode.map(permissions)));
        items.iter().map(item).collect::<Result<Vec<_>, String>>()
    });
    Ok(Part::Data {
        source,
        name: name.to_owned(),
        items: items.transpose()?,
        optional: optional == Some(true),
    })
}

fn downward_part(items: &[DownwardAPIVolumeFile]) -> Result<Part, String> {
    let items = items.iter().map(|item| match &item.field_ref {
        Some(field) => Ok((inner_path(&item.path)?, field.field_path.clone())),
        None => Err("resourceFieldRef is not supported by gamut up, which enforces no limits".to_owned()),
    });
    Ok(Part::Downward { items: items.collect::<Result<_, _>>()? })
}

/// A path that stays inside of its volume.
fn inner_path(path: &str) -> Result<String, String> {
    let inside = !path.is_empty() && !path.starts_with('/') && path.split('/').all(|part| part != "..");
    match inside {
        true => Ok(path.to_owned()),
        false => Err(format!("path {path:?} must be relative and must not contain '..'")),
    }
}

fn file_mode(mode: Option<i32>) -> u32 {
    mode.map_or(0o644, permissions)
}

fn permissions(mode: i32) -> u32 {
    mode.unsigned_abs() & 0o777
}

/// The files of a volume of files.
///
/// # Errors
/// A sentence that says what is missing; it may come with time.
pub(crate) fn content(
    parts: &[Part],
    mode: u32,
    pod: &Pod,
    addresses: &[IpAddr],
    all: &Data,
) -> Result<Content, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut content = Content::default();
    for part in parts {
        match part {
            Part::Data { source, name, items, optional } => {
                match (all.set(*source, namespace, name), items) {
                    (None, _) if *optional => {}
                    (None, _) => {
                        return Err(format!("waits for {} {name}, which doesn't exist (yet)", source.kind()));
                    }
                    (Some(set), None) => {
                        content
                            .files
                            .extend(set.iter().map(|(key, value)| (key.into(), (value.clone(), mode))));
                    }
                    (Some(set), Some(items)) => {
                        for (key, path, own_mode) in items {
                            match set.get(key) {
                                Some(value) => {
                                    let file = (value.clone(), own_mode.unwrap_or(mode));
                                    content.files.insert(path.into(), file);
                                }
                                None if *optional => {}
                                None => return Err(format!("{} {name} has no key {key:?}", source.kind())),
                            }
                        }
                    }
                }
            }
            Part::Downward { items } => {
                for (path, field) in items {
                    let value = downward::field(field, pod, addresses)
                        .ok_or_else(|| format!("fieldPath {field:?} is not supported"))?;
                    content.files.insert(path.into(), (value.into_bytes(), mode));
                }
            }
            Part::Token { path, audience, lifetime } => content.tokens.push(TokenOrder {
                path: path.into(),
                audience: audience.clone(),
                lifetime: *lifetime,
                mode,
            }),
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn planned(volume: Value) -> Result<VolumePlan, String> {
        plan(&serde_json::from_value(volume).unwrap())
    }

    fn files(volume: Value) -> Result<Content, String> {
        let VolumePlan::Files { parts, mode } = planned(volume)? else { panic!("no files") };
        let pod = json!({"metadata": {"name": "web-1", "namespace": "demo"}, "spec": {"containers": []}});
        let mut data = Data::default();
        let metadata = json!({"namespace": "demo", "name": "c"});
        data.add(&json!({"kind": "ConfigMap", "metadata": metadata, "data": {"a": "1", "b": "2"}}));
        content(&parts, mode, &serde_json::from_value(pod).unwrap(), &[], &data)
    }

    #[test]
    fn a_projected_volume_gathers_its_sources() {
        let content = files(json!({"name": "v", "projected": {"defaultMode": 0o440, "sources": [
            {"configMap": {"name": "c", "items": [{"key": "b", "path": "dir/two", "mode": 0o600}]}},
            {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {"serviceAccountToken": {"path": "token", "audience": "gamut.mesh/ca", "expirationSeconds": 60}},
        ]}}))
        .unwrap();
        let expected = BTreeMap::from([
            ("dir/two".into(), (b"2".to_vec(), 0o600)),
            ("name".into(), (b"web-1".to_vec(), 0o440)),
        ]);
        assert_eq!(content.files, expected);
        let lifetime = MIN_TOKEN_LIFETIME;
        let order =
            TokenOrder { path: "token".into(), audience: "gamut.mesh/ca".into(), lifetime, mode: 0o440 };
        assert_eq!(content.tokens, [order]);
    }

    #[test]
    fn what_is_missing_is_waited_for_unless_it_is_optional() {
        let missing = files(json!({"name": "v", "configMap": {"name": "none"}})).unwrap_err();
        assert_eq!(missing, "waits for ConfigMap none, which doesn't exist (yet)");
        let optional = files(json!({"name": "v", "configMap": {"name": "none", "optional": true}}));
        assert_eq!(optional, Ok(Content::default()));
    }

    #[test]
    fn a_path_that_leaves_its_volume_is_refused() {
        for path in ["../x", "/etc/passwd", "a/../../b", ""] {
            let items = json!([{"key": "a", "path": path}]);
            let error =
                planned(json!({"name": "v", "configMap": {"name": "c", "items": items}})).unwrap_err();
            assert!(error.contains("must be relative"), "{path}: {error}");
        }
    }

    #[test]
    fn kinds_of_volumes_that_need_a_cluster_are_refused_with_a_list_of_the_others() {
        let error = planned(json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}})).unwrap_err();
        assert!(error.contains("emptyDir"), "{error}");
    }
}

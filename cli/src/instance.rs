//! What commands that ask a running instance have in common.

use gamut_local::{Client, InstanceName};

/// Which instance, and which namespaces of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Selection {
    /// The instance to ask
    #[arg(long, value_name = "NAME", env = gamut_local::INSTANCE_VARIABLE, default_value_t, hide_env_values = true)]
    name: InstanceName,
    /// Only this namespace
    #[arg(short, long, value_name = "NAMESPACE", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// All namespaces, the mesh's own included
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

/// Where the mesh's own objects live.
const SYSTEM_NAMESPACE: &str = "gamut-system";

impl Selection {
    /// A client of the instance.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.name.clone())
    }

    /// Whether objects of a namespace are to be shown: by default those of all namespaces but the mesh's own.
    pub(crate) fn has(&self, namespace: &str) -> bool {
        match &self.namespace {
            Some(wanted) => wanted == namespace,
            None => self.all_namespaces || namespace != SYSTEM_NAMESPACE,
        }
    }
}

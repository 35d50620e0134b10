//! The node's process: everything that is set up before its loop.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use gamut_manifest::WatchError;
use serde_json::Value;
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use super::{
    admission::SYSTEM_NAMESPACE,
    cluster::Cluster,
    components::{self, CONTROLLER_ADMIN, TRUST_BUNDLE},
    control_server,
    event_loop::{Inputs, Node},
    injection,
    kubelet::Kubelet,
    link::Link,
    objects::{self, Objects},
    services::ServiceAddresses,
    tokens::{TokenError, Tokens},
};
use crate::{
    control::Event,
    internal::MachineConfig,
    net::{
        self,
        addresses::{AddressError, DNS_V4},
        dns::Zone,
        dns_server::{self, ListenError},
        http,
        links::{self, LinkError, Links},
    },
    paths,
    pod::{data::Data, worker},
};

/// While somebody waits for the sidecars, the controller is asked about them this often.
const ASK: Duration = Duration::from_millis(25);
/// Requests over the control socket that wait for the loop.
const QUESTIONS: usize = 64;

/// The node can't work.
#[derive(Debug, Error)]
enum NodeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the node's network: {0}")]
    Link(#[from] LinkError),
    #[error(
        "{0}; the kernel needs nf_tables with inet tables and NAT (CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT)"
    )]
    Netfilter(#[from] gamut_netfilter::Error),
    #[error(transparent)]
    Dns(#[from] ListenError),
    #[error(transparent)]
    Tokens(#[from] TokenError),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// Runs until it is told to stop, or `gamut up` is gone. The exit status.
pub(crate) fn run(config: &MachineConfig) -> u8 {
    let outcome = tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
        let code = runtime.block_on(live(config));
        // Blocking tasks may hang in what dies next.
        runtime.shutdown_background();
        code
    });
    outcome.unwrap_or_else(|error| {
        tracing::error!(%error, "the node can't reach gamut up");
        1
    })
}

async fn live(config: &MachineConfig) -> io::Result<u8> {
    let Link { events, output, orders, writer } = Link::over_stdout()?;
    let code = match set_up(config, events.clone(), output).await {
        Ok((node, inputs)) => node.run(inputs, orders).await,
        Err(error) => {
            // The link's task reads until the last event.
            let _ = events.send(Event::Fatal { text: error.to_string() });
            1
        }
    };
    // What was said last shall arrive: the machine ends with this process.
    let _ = timeout(Duration::from_secs(1), writer).await;
    Ok(code)
}

async fn set_up(
    config: &MachineConfig,
    events: mpsc::UnboundedSender<Event>,
    output: mpsc::Sender<Event>,
) -> Result<(Node, Inputs), NodeError> {
    let cluster_directory = Path::new(paths::CLUSTER);
    let listener = config.verbose.then_some(output);
    links::prepare_namespace(true)?;
    let links = Links::connect()?;
    links.set_up_node().await?;
    net::services::apply(&[])?;
    let (zone, current_zone) = watch::channel(Arc::new(Zone::default()));
    dns_server::serve((DNS_V4, 53).into(), current_zone).await?;

    let tokens = Arc::new(Tokens::new()?);
    let (component_states, components) = mpsc::unbounded_channel();
    components::start(tokens.clone(), &config.trust_domain, listener.clone(), component_states)?;
    // The CA writes the roots here; only what is there can be watched.
    let roots =
        cluster_directory.join(objects::file_name(&objects::id("ConfigMap", SYSTEM_NAMESPACE, TRUST_BUNDLE)));
    roots.parent().map_or(Ok(()), fs::create_dir_all)?;
    let roots = gamut_manifest::watch(&[roots])?;
    let manifests = gamut_manifest::watch(&config.paths)?;

    let (data, current_data) = watch::channel(Arc::new(Data::default()));
    let shared = worker::Shared { links, tokens, data: current_data, listener };
    let (report, reports) = mpsc::unbounded_channel();
    let kubelet = Kubelet::new(Arc::new(shared), report)?;
    let addresses = ServiceAddresses::new(links::has_ipv6())?;
    let injector = injection::config(&config.trust_domain, &config.traces);
    let cluster = Cluster::new(Objects::new(cluster_directory), kubelet, addresses, injector, data, zone);

    let (question, questions) = mpsc::channel(QUESTIONS);
    control_server::serve_on_stdin(question)?;
    let (curious, is_curious) = watch::channel(true);
    let (answer, controller) = mpsc::channel(1);
    tokio::spawn(ask_controller(is_curious, answer));
    let node = Node::new(config, cluster, events, curious);
    Ok((node, Inputs { manifests, roots, reports, components, questions, controller }))
}

/// Asks the controller about itself for as long as somebody wants to know.
async fn ask_controller(mut curious: watch::Receiver<bool>, answers: mpsc::Sender<Value>) {
    while curious.wait_for(|curious| *curious).await.is_ok() {
        if let Ok(status) = http::get_json(CONTROLLER_ADMIN, "/status").await
            && answers.send(status).await.is_err()
        {
            return;
        }
        sleep(ASK).await;
    }
}

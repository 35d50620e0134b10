//! `gamut logs`: what a container has printed, of a `gamut up` or of a cluster.

use std::{cmp::Reverse, pin::pin, process::ExitCode, time::Duration};

use gamut_kubernetes::{Cluster, LogSelection};
use gamut_local::{
    Client, ClientError,
    control::{self, PodReport},
};
use tokio::time::sleep;

use crate::{
    output,
    world::{self, Choice, Target, World},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    choice: Choice,

    /// The namespace of the target [default: that of the kubeconfig's context, or default]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// A container of the pod other than the first: gamut-proxy is the sidecar
    #[arg(short, long)]
    container: Option<String>,

    /// Go on with what it prints from now on
    #[arg(short, long)]
    follow: bool,

    /// Begin with the last lines, so many of them
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,

    /// In a cluster: what the container printed before it was started again last. Of a `gamut up` that is in the same log
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,

    /// NAME (a pod), pod/NAME, deploy/NAME, statefulset/NAME, job/NAME, svc/NAME, or node with -c ca or -c controller
    target: control::Target,
}

/// How often somebody who follows an instance's container is looked after.
const INTERVAL: Duration = Duration::from_millis(200);

/// Until all is printed; who follows, until the pod or the instance is gone.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    world::ask(async {
        match args.choice.world().await? {
            World::Instance(client) => of_instance(&client, &args).await,
            ref world @ World::Cluster(ref cluster, _) => of_cluster(world, cluster, &args).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn of_instance(client: &Client, args: &Args) -> anyhow::Result<()> {
    let namespace = args.namespace.as_deref().unwrap_or("default");
    let logs = |after| client.logs(args.target.clone(), namespace, args.container.as_deref(), after);
    let mut part = logs(None)?;
    part.text = args.tail.map_or_else(|| part.text.clone(), |lines| last(&part.text, lines).to_owned());
    while output::stream(part.text.as_bytes())? && args.follow {
        tokio::select! {
            () = sleep(INTERVAL) => {}
            () = output::gone() => break,
        }
        part = match logs(part.place) {
            Ok(part) => part,
            Err(ClientError::Refused(_) | ClientError::NotRunning { .. } | ClientError::Broken { .. }) => {
                break;
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok(())
}

async fn of_cluster(world: &World, cluster: &Cluster, args: &Args) -> anyhow::Result<()> {
    let target = match &args.target {
        control::Target::Pod(name) => Target::Pod(name.clone()),
        control::Target::Workload { kind, name } => {
            Target::Workload { kind: kind.clone(), name: name.clone() }
        }
        control::Target::Service(name) => Target::Service(name.clone()),
        control::Target::Node => anyhow::bail!(
            "in a cluster the mesh's own processes are Deployments: -n {} deploy/gamut-controller, deploy/gamut-ca, deploy/gamut-injector",
            world::SYSTEM_NAMESPACE
        ),
    };
    let namespace = world.namespace(args.namespace.as_deref());
    // One that has ended has logs as well, and is named as a pod.
    let pod = match &target {
        Target::Pod(name) => name.clone(),
        target => best(world.pods_of(target, namespace).await?),
    };
    let wanted = LogSelection {
        container: args.container.as_deref(),
        tail: args.tail.map(i64::from),
        follow: args.follow,
        previous: args.previous,
    };
    let mut logs = match cluster.logs(namespace, &pod, wanted).await {
        Ok(logs) => logs,
        Err(error) if error.is_not_found() => {
            // Its error knows what there is instead.
            world.pods_of(&target, namespace).await?;
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    };
    let mut gone = pin!(output::gone());
    loop {
        tokio::select! {
            part = logs.next() => match part? {
                Some(part) if output::stream(&part)? => {}
                _ => return Ok(()),
            },
            () = &mut gone => return Ok(()),
        }
    }
}

/// Of a workload's pods one that takes traffic if there is such; of several the first by name.
fn best(pods: Vec<PodReport>) -> String {
    let best = pods.into_iter().max_by_key(|pod| (!pod.terminating, pod.ready, Reverse(pod.name.clone())));
    best.map(|pod| pod.name).unwrap_or_default()
}

/// The last lines of a text.
fn last(text: &str, lines: u32) -> &str {
    let lines = usize::try_from(lines).unwrap_or(usize::MAX);
    let ends = text.trim_end_matches('\n').rmatch_indices('\n');
    match lines.checked_sub(1) {
        None => "",
        Some(before) => {
            ends.map(|(at, _)| at + 1).nth(before).map_or(text, |at| text.get(at..).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_those_and_no_more() {
        let text = "one\ntwo\nthree\n";
        for (lines, expected) in [(0, ""), (1, "three\n"), (2, "two\nthree\n"), (3, text), (9, text)] {
            assert_eq!(last(text, lines), expected, "{lines}");
        }
        assert_eq!(last("unended", 1), "unended");
    }
}

//! Which pods to make and which to end: what the controllers of Deployments, StatefulSets and Jobs decide, as pure
//! functions from what is wanted and what there is.

use std::collections::BTreeSet;

/// A pod of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) uid: String,
    pub(crate) name: String,
    /// It was made from the workload's present template.
    pub(crate) current: bool,
    pub(crate) ready: bool,
    pub(crate) terminating: bool,
    /// It has ended by itself: whether successfully.
    pub(crate) outcome: Option<bool>,
}

/// What to do now. Nothing: things are as they should be, or somebody else has to move first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Steps {
    /// So many more pods of the present template.
    pub(crate) create: usize,
    /// Pods of the present template with these names.
    pub(crate) create_named: Vec<String>,
    /// UIDs of pods to end.
    pub(crate) delete: Vec<String>,
}

/// How a Deployment replaces pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RolloutStrategy {
    /// New pods are ready before old ones go, within these bounds.
    Rolling { surge: usize, unavailable: usize },
    /// Old pods are gone before new ones are made.
    Recreate,
}

/// A Deployment's next steps. `members` are its pods, the oldest first.
pub(crate) fn deployment(replicas: usize, strategy: RolloutStrategy, members: &[Member]) -> Steps {
    let live: Vec<&Member> = members.iter().filter(|pod| !pod.terminating && pod.outcome.is_none()).collect();
    let (new, old): (Vec<&Member>, Vec<&Member>) = live.iter().partition(|pod| pod.current);
    let mut steps = Steps { delete: ended(members), ..Steps::default() };

    // Scaling down takes what isn't ready first, and then the youngest.
    let mut superfluous: Vec<&Member> = new.iter().rev().copied().collect();
    superfluous.sort_by_key(|pod| pod.ready);
    steps.delete.extend(uids(superfluous.iter().take(new.len().saturating_sub(replicas)).copied()));

    match strategy {
        RolloutStrategy::Recreate => {
            steps.delete.extend(uids(old.iter().copied()));
            let all_gone = members.iter().all(|pod| pod.current && !pod.terminating || pod.outcome.is_some());
            if all_gone {
                steps.create = replicas.saturating_sub(new.len());
            }
        }
        RolloutStrategy::Rolling { surge, unavailable } => {
            let room = (replicas + surge).saturating_sub(live.len());
            steps.create = replicas.saturating_sub(new.len()).min(room);
            let needed = replicas.saturating_sub(unavailable);
            // New pods that aren't ready yet can't be counted on. Old ones that aren't ready go first: they serve nobody.
            // What is left to go when those are gone is exactly what is ready beyond need.
            let new_unready = new.iter().filter(|pod| !pod.ready).count();
            let budget = live.len().saturating_sub(needed).saturating_sub(new_unready);
            let mut by_use = old;
            by_use.sort_by_key(|pod| pod.ready);
            steps.delete.extend(uids(by_use.into_iter().take(budget)));
        }
    }
    steps
}

/// A StatefulSet's next steps: pods `name-0`, `name-1`, ... appear one after the other, each when all before it are
/// ready, and leave in reverse; `parallel` does it all at once. Updates go from the last to the first.
pub(crate) fn stateful_set(name: &str, replicas: usize, parallel: bool, members: &[Member]) -> Steps {
    let mut steps = Steps { delete: ended(members), ..Steps::default() };
    let find = |ordinal: usize| members.iter().find(|pod| pod.name == format!("{name}-{ordinal}"));
    let wanted: BTreeSet<String> = (0..replicas).map(|ordinal| format!("{name}-{ordinal}")).collect();
    let in_motion = members.iter().any(|pod| pod.terminating || pod.outcome.is_some());

    let mut superfluous: Vec<&Member> =
        members.iter().filter(|pod| !wanted.contains(&pod.name) && !pod.terminating).collect();
    superfluous.sort_by_key(|pod| std::cmp::Reverse(ordinal(&pod.name)));
    let mut all_ready = true;
    for ordinal in 0..replicas {
        match find(ordinal) {
            Some(pod) => all_ready &= pod.ready && !pod.terminating,
            None if parallel || (all_ready && !in_motion) => {
                steps.create_named.push(format!("{name}-{ordinal}"));
                all_ready = false;
            }
            None => all_ready = false,
        }
    }
    if parallel {
        steps.delete.extend(uids(superfluous.into_iter()));
    } else if all_ready && !in_motion {
        steps.delete.extend(uids(superfluous.into_iter().take(1)));
    }

    // One at a time; one that isn't ready anyway may be replaced although others aren't ready either.
    let outdated = (0..replicas).rev().filter_map(find).find(|pod| !pod.current && !pod.terminating);
    if let Some(pod) = outdated
        && !in_motion
        && steps.delete.is_empty()
        && (all_ready || !pod.ready)
    {
        steps.delete.push(pod.uid.clone());
    }
    steps
}

/// A Job's next steps: so many pods at once until so many have succeeded, or too many have failed.
pub(crate) fn job(completions: usize, parallelism: usize, backoff_limit: usize, members: &[Member]) -> Steps {
    let count = |outcome: Option<bool>| members.iter().filter(|pod| pod.outcome == outcome).count();
    let (succeeded, failed) = (count(Some(true)), count(Some(false)));
    let running: Vec<&Member> =
        members.iter().filter(|pod| pod.outcome.is_none() && !pod.terminating).collect();
    let mut steps = Steps::default();
    if failed > backoff_limit {
        steps.delete = uids(running.into_iter());
    } else {
        let wanted = completions.saturating_sub(succeeded).min(parallelism);
        steps.create = wanted.saturating_sub(running.len());
    }
    steps
}

/// A single pod's next steps: it is made once; another specification is another pod, once the first is gone.
pub(crate) fn single(name: &str, members: &[Member]) -> Steps {
    match members {
        [] => Steps { create_named: vec![name.to_owned()], ..Steps::default() },
        _ => {
            let outdated = members.iter().filter(|pod| !pod.current && !pod.terminating);
            Steps { delete: uids(outdated), ..Steps::default() }
        }
    }
}

/// Pods of a workload that restarts them for ever don't end by themselves, unless something went wrong that their restarts can't mend.
fn ended(members: &[Member]) -> Vec<String> {
    uids(members.iter().filter(|pod| pod.outcome.is_some() && !pod.terminating))
}

fn uids<'a>(pods: impl Iterator<Item = &'a Member>) -> Vec<String> {
    pods.map(|pod| pod.uid.clone()).collect()
}

fn ordinal(name: &str) -> usize {
    name.rsplit('-').next().and_then(|ordinal| ordinal.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROLLING: RolloutStrategy = RolloutStrategy::Rolling { surge: 1, unavailable: 0 };

    /// A member from a word: `n`ew or `o`ld, `r`eady or `u`nready, `t`erminating.
    fn member(index: usize, word: &str) -> Member {
        Member {
            uid: index.to_string(),
            name: format!("web-{index}"),
            current: word.contains('n'),
            ready: word.contains('r'),
            terminating: word.contains('t'),
            outcome: None,
        }
    }

    fn members(words: &[&str]) -> Vec<Member> {
        words.iter().enumerate().map(|(index, word)| member(index, word)).collect()
    }

    fn steps(create: usize, delete: &[&str]) -> Steps {
        Steps { create, delete: delete.iter().map(ToString::to_string).collect(), ..Steps::default() }
    }

    #[test]
    fn a_deployment_starts_with_all_of_its_pods_at_once() {
        assert_eq!(deployment(3, ROLLING, &[]), steps(3, &[]));
        assert_eq!(deployment(3, ROLLING, &members(&["nr", "nu"])), steps(1, &[]));
    }

    #[test]
    fn scaling_down_takes_unready_pods_first_and_then_the_youngest() {
        assert_eq!(deployment(1, ROLLING, &members(&["nr", "nu", "nr"])), steps(0, &["1", "2"]));
        assert_eq!(deployment(0, ROLLING, &members(&["or", "nr"])), steps(0, &["1", "0"]));
    }

    #[test]
    fn a_new_template_rolls_one_pod_at_a_time_and_never_loses_a_ready_one_too_early() {
        assert_eq!(deployment(2, ROLLING, &members(&["or", "or"])), steps(1, &[]));
        assert_eq!(deployment(2, ROLLING, &members(&["or", "or", "nu"])), steps(0, &[]));
        assert_eq!(deployment(2, ROLLING, &members(&["or", "or", "nr"])), steps(0, &["0"]));
        assert_eq!(deployment(2, ROLLING, &members(&["ort", "or", "nr"])), steps(1, &[]));
        assert_eq!(deployment(2, ROLLING, &members(&["or", "nr", "nr"])), steps(0, &["0"]));
    }

    #[test]
    fn an_old_pod_that_serves_nobody_does_not_block_its_replacement() {
        assert_eq!(deployment(1, ROLLING, &members(&["ou"])), steps(1, &[]));
        assert_eq!(deployment(1, ROLLING, &members(&["ou", "nr"])), steps(0, &["0"]));
        assert_eq!(deployment(2, ROLLING, &members(&["or", "ou", "nr"])), steps(0, &["1"]));
    }

    #[test]
    fn recreate_waits_until_the_old_pods_are_gone() {
        assert_eq!(deployment(2, RolloutStrategy::Recreate, &members(&["or", "or"])), steps(0, &["0", "1"]));
        assert_eq!(deployment(2, RolloutStrategy::Recreate, &members(&["ort"])), steps(0, &[]));
        assert_eq!(deployment(2, RolloutStrategy::Recreate, &[]), steps(2, &[]));
    }

    #[test]
    fn a_stateful_set_grows_and_shrinks_in_order() {
        let named = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(stateful_set("web", 3, false, &[]).create_named, named(&["web-0"]));
        assert_eq!(stateful_set("web", 3, false, &members(&["nu"])), Steps::default());
        assert_eq!(stateful_set("web", 3, false, &members(&["nr"])).create_named, named(&["web-1"]));
        assert_eq!(stateful_set("web", 3, true, &[]).create_named, named(&["web-0", "web-1", "web-2"]));
        assert_eq!(stateful_set("web", 1, false, &members(&["nr", "nr", "nr"])).delete, ["2"]);
        assert_eq!(stateful_set("web", 1, false, &members(&["nr", "nr", "nrt"])), Steps::default());
    }

    #[test]
    fn a_stateful_set_is_updated_from_the_last_to_the_first() {
        assert_eq!(stateful_set("web", 2, false, &members(&["or", "or"])).delete, ["1"]);
        assert_eq!(stateful_set("web", 2, false, &members(&["or", "nu"])), Steps::default());
        assert_eq!(stateful_set("web", 2, false, &members(&["or", "nr"])).delete, ["0"]);
        assert_eq!(
            stateful_set("web", 2, false, &members(&["or", "ou"])).delete,
            ["1"],
            "it was broken anyway"
        );
    }

    #[test]
    fn a_job_runs_until_enough_have_succeeded_or_too_many_have_failed() {
        let mut pods = members(&["n", "n"]);
        assert_eq!(job(3, 2, 1, &pods[..1]), steps(1, &[]));
        pods[0].outcome = Some(true);
        assert_eq!(job(3, 2, 1, &pods), steps(1, &[]));
        assert_eq!(job(2, 2, 1, &pods), steps(0, &[]));
        pods[0].outcome = Some(false);
        assert_eq!(job(1, 1, 0, &pods), steps(0, &["1"]));
    }

    #[test]
    fn a_single_pod_is_replaced_when_its_specification_changes() {
        assert_eq!(single("one", &[]).create_named, ["one"]);
        assert_eq!(single("one", &members(&["nr"])), Steps::default());
        assert_eq!(single("one", &members(&["or"])).delete, ["0"]);
        assert_eq!(single("one", &members(&["ort"])), Steps::default());
    }

    proptest! {
        /// Whatever order pods become ready in, a rollout from a full set of ready pods keeps enough of them ready,
        /// never has too many, and comes to its end.
        #[test]
        fn a_rollout_keeps_its_promises_all_the_way(
            replicas in 1_usize..6,
            surge in 0_usize..3,
            unavailable in 0_usize..3,
            choices in prop::collection::vec(0_usize..100, 200),
        ) {
            prop_assume!(surge + unavailable > 0);
            let strategy = RolloutStrategy::Rolling { surge, unavailable };
            let mut pods: Vec<Member> = (0..replicas).map(|index| member(index, "or")).collect();
            let mut made = replicas;
            for choice in choices {
                let steps = deployment(replicas, strategy, &pods);
                for _ in 0..steps.create {
                    pods.push(member(made, "nu"));
                    made += 1;
                }
                for pod in &mut pods {
                    pod.terminating |= steps.delete.contains(&pod.uid);
                }
                let live: Vec<&Member> = pods.iter().filter(|pod| !pod.terminating).collect();
                prop_assert!(live.len() <= replicas + surge);
                prop_assert!(live.iter().filter(|pod| pod.ready).count() + unavailable >= replicas);
                // One of the things that can happen: a pod becomes ready, or one is gone.
                let index = choice % pods.len();
                match pods[index].terminating {
                    true => drop(pods.remove(index)),
                    false => pods[index].ready = true,
                }
            }
            // Let everything that is under way come to its end.
            for _ in 0..4 * (replicas + 1) {
                pods.retain(|pod| !pod.terminating);
                pods.iter_mut().for_each(|pod| pod.ready = true);
                let steps = deployment(replicas, strategy, &pods);
                (0..steps.create).for_each(|_| { pods.push(member(made, "nu")); made += 1; });
                pods.iter_mut().for_each(|pod| pod.terminating |= steps.delete.contains(&pod.uid));
            }
            prop_assert_eq!(pods.len(), replicas);
            prop_assert!(pods.iter().all(|pod| pod.current && pod.ready && !pod.terminating));
        }
    }
}

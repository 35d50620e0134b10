//! The contest: which of the routes that are attached to a Service's port are in force for some clients.
//!
//! Only routes that are accepted there contend: of their kinds one wins, and a namespace's own set goes before the
//! producer's (GEP-1294). A route that isn't accepted is in nobody's way. But its filters mustn't be skipped
//! (HTTPRouteFilter.extensionRef): what they were for is answered 500 wherever the route would have been in force
//! itself, before everything that is in force without it.

use std::collections::BTreeSet;

use gamut_route::{NamespacedName, RouteKind, RouteRef, ServicePort, precedence::RouteName};

use super::{
    attach::{Clients, clients_of, find, is_excluded},
    protocol,
    route::CompiledRoute,
    service::Port,
    world::World,
};

/// The routes of one set that have a say about a Service's port.
#[derive(Clone, Debug, Default)]
pub struct Contest<'a> {
    /// Accepted routes of the kind that wins, in the order of age and name; more than one only of kinds that merge.
    pub winners: Vec<&'a CompiledRoute>,
    /// The other accepted ones.
    pub losers: Vec<&'a CompiledRoute>,
    /// Routes that aren't accepted and would be in force if they were: those of their rules that must be answered
    /// 500 are.
    pub failing: Vec<&'a CompiledRoute>,
}

/// What is in force on a Service's port for the clients of one namespace.
#[derive(Clone, Debug, Default)]
pub struct InForce<'a> {
    /// Accepted routes of one kind; none where the Service is as without routes.
    pub winners: Vec<&'a CompiledRoute>,
    /// Routes of the winners' set that aren't accepted, for what must be answered 500.
    pub failing: Vec<&'a CompiledRoute>,
    /// The same of consumer routes, where the winners are of the producer's set: they come first.
    pub failing_consumers: Vec<&'a CompiledRoute>,
}

impl<'a> Contest<'a> {
    /// Decides among the routes attached to a Service's port. `routes` are all that name the Service as a parent.
    pub fn new(
        world: &World,
        routes: &[&'a CompiledRoute],
        service: &NamespacedName,
        port: u16,
        clients: Clients<'_>,
    ) -> Self {
        let excluded = |route: &CompiledRoute| {
            world.services.get(service).is_some_and(|service| is_excluded(route, service))
        };
        let mut attached: Vec<&'a CompiledRoute> = routes
            .iter()
            .copied()
            .filter(|route| clients_of(route, service) == clients && is_attached(world, route, service, port))
            .collect();
        let order = |route: &&'a CompiledRoute| {
            (route.kind(), route.route.created, RouteName(&route.route.reference.name))
        };
        attached.sort_by(|a, b| order(a).cmp(&order(b)));
        let (mut winners, mut failing): (Vec<_>, Vec<_>) =
            attached.into_iter().partition(|route| route.report.refusal().is_none() && !excluded(route));
        let kind = winners.first().map(|route| route.kind());
        let mut winning = winners.iter().take_while(|route| Some(route.kind()) == kind).count();
        // Connections without names can't be told apart: of several TCPRoutes the oldest has them all.
        if kind == Some(RouteKind::Tcp) {
            winning = winning.min(1);
        }
        let losers = winners.split_off(winning);
        failing.retain(|route| route.has_failing() && kind.is_none_or(|kind| route.kind() <= kind));
        Self { winners, losers, failing }
    }

    /// False if the routes of a Service can't be in each other's way: all of one kind that merges. Spares
    /// asking for each.
    pub fn is_possible(routes: &[&CompiledRoute]) -> bool {
        let kinds: BTreeSet<RouteKind> = routes.iter().map(|route| route.kind()).collect();
        kinds.len() > 1 || kinds.contains(&RouteKind::Tcp)
    }

    /// The route that a loser loses to.
    pub fn winner_over(&self, route: &RouteRef) -> Option<&'a CompiledRoute> {
        let lost = self.losers.iter().any(|loser| loser.route.reference == *route);
        self.winners.first().copied().filter(|_| lost)
    }
}

impl<'a> InForce<'a> {
    /// What is in force for clients of a namespace: its own consumer routes if it has any that are accepted, else the
    /// producer's.
    pub fn new(
        world: &World,
        routes: &[&'a CompiledRoute],
        parent: &ServicePort,
        port: &Port,
        client_namespace: &str,
    ) -> Self {
        let contest = |clients| Contest::new(world, routes, &parent.service, parent.port, clients);
        let consumers = match client_namespace == parent.service.namespace {
            true => Contest::default(),
            false => contest(Clients::Of(client_namespace)),
        };
        let mut in_force = if consumers.winners.is_empty() {
            let producers = contest(Clients::Everywhere);
            let failing_consumers = consumers.failing;
            Self { winners: producers.winners, failing: producers.failing, failing_consumers }
        } else {
            Self { winners: consumers.winners, failing: consumers.failing, failing_consumers: Vec::new() }
        };
        // Where bytes pass that are no requests to the sidecar there is nobody to answer.
        if !protocol::carries_requests(protocol::in_force(port, in_force.kind())) {
            in_force.failing.clear();
            in_force.failing_consumers.clear();
        }
        in_force
    }

    /// The kind that wins; `None` where the Service is as without routes.
    pub fn kind(&self) -> Option<RouteKind> {
        self.winners.first().map(|route| route.kind())
    }

    /// Whether requests are answered 500 because of a route that isn't accepted.
    pub fn fails_for(&self, route: &RouteRef) -> bool {
        self.failing.iter().chain(&self.failing_consumers).any(|failing| failing.route.reference == *route)
    }
}

/// Whether one of a route's parentRefs means a port.
fn is_attached(world: &World, route: &CompiledRoute, service: &NamespacedName, port: u16) -> bool {
    route.parents().into_iter().any(|parent| {
        parent.target(route.namespace()) == *service
            && find(world, route, parent).is_ok_and(|attachment| attachment.ports.contains(&port))
    })
}

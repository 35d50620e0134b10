//! From what people wrote to what sidecars obey: pure functions of routes and what they refer to.
//!
//! ```text
//! Route ─compile_route→ CompiledRoute ─┬─ rules ──compile_table→ RouteTable (per Service port and client namespace)
//!   ↑ World: Services, XBackends,      └─ report ─conditions→ Accepted, ResolvedRefs, PartiallyInvalid
//!     policies, grants                        ↑ attach, contest: which ports, who wins there
//! ```
//!
//! Tables and conditions come from the same [`CompiledRoute`], [`attach`] and [`InForce`], so a condition
//! can't promise what a table doesn't do. What a compilation looked at is recorded on the way
//! ([`Dependency`]), so the index knows what to compile again when something changes.
//!
//! What becomes of what can't be carried out:
//!
//! - a *rule* that can't be carried out is dropped, and `PartiallyInvalid` says so; but if one of its filters is the reason, the requests
//!   that it matches are answered 500, because a filter must not be skipped;
//! - a *route* all of whose rules are like that isn't accepted: everything is as without it, but for those 500s where it
//!   would have been in force ([`contest`]);
//! - a *reference* that doesn't resolve costs its share of the requests, which are answered 500, and `ResolvedRefs` says so.
//!
//! Deliberately absent: clocks, sources of objects, what was there before.

mod attach;
mod backends;
mod conditions;
mod contest;
mod filters;
mod http;
mod matches;
mod policy;
mod ports;
mod protocol;
mod report;
mod route;
mod rule;
mod service;
mod session;
mod stream;
mod table;
mod world;

pub use attach::{Attachment, Clients, attach, clients_of};
pub use conditions::{
    Condition, ParentConditions, conditions, policy_conditions, remarks, xbackend_condition,
};
pub use contest::{Contest, InForce};
pub use report::{InvalidRule, Problem, Reason, Report};
pub use route::{CompiledRoute, CompiledRules, compile_route};
pub use rule::CompiledRule;
pub use service::{Frontend, Port, Service, Target};
pub use session::{SCOPE_ANNOTATION, SESSION_ANNOTATION, annotation_problems};
pub use table::compile_table;
pub use world::{Dependency, World};

pub(crate) use backends::xbackend_protocol;
pub(crate) use policy::retry_budget;
pub(crate) use ports::{OPAQUE_PORTS, PortList};

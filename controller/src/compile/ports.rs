//! Port lists in annotations: `3306,9000-9010`.

use std::ops::RangeInclusive;

/// Ports, as an annotation of a pod, Namespace or Service lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortList(Vec<RangeInclusive<u16>>);

/// Ports that sidecars carry without looking: on pods and Namespaces the pods' ports, on a Service the Service's.
pub(crate) const OPAQUE_PORTS: &str = "gamut.mesh/opaque-ports";

impl PortList {
    /// Reads numbers and ranges, separated by commas. What is neither is left out: the injector, which asks
    /// the person who wrote it, has refused it.
    pub(crate) fn read(text: Option<&String>) -> Self {
        let items = text.into_iter().flat_map(|text| text.split(','));
        Self(items.filter_map(range).collect())
    }

    pub(crate) fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// Each port, in the order of the list.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.iter().cloned().flatten()
    }
}

fn range(item: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    match item.split_once('-') {
        Some((first, last)) => Some(port(first)?..=port(last)?),
        None => port(item).map(|port| port..=port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> Vec<u16> {
        PortList::read(Some(&text.to_owned())).iter().collect()
    }

    #[test]
    fn numbers_and_ranges_are_read_and_all_else_is_left_out() {
        assert_eq!(ports("3306, 9000-9002"), [3306, 9000, 9001, 9002]);
        assert_eq!(ports("65535"), [65535]);
        assert_eq!(ports("0,a,80-,-80,9-8,65536, ,443"), [443]);
        assert_eq!(PortList::read(None), PortList::default());
    }

    #[test]
    fn a_list_contains_what_its_ranges_span() {
        let list = PortList::read(Some(&"80,9000-9010".to_owned()));
        assert!(list.contains(80) && list.contains(9000) && list.contains(9010));
        assert!(!list.contains(81) && !list.contains(9011));
    }
}

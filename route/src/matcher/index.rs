//! The index: from a path to the few matches whose path may hold, without looking at the others.
//!
//! Exact paths are in a hash map. Prefixes, and regular expressions by the literal text they begin with, are
//! in a radix tree over bytes. A look-up costs one hash and one walk down the tree, whether the table has ten
//! rules or a thousand.

use std::collections::HashMap;

use smallvec::SmallVec;

/// Ranks of matches, the one that wins first.
pub(super) type Ranks = Vec<usize>;

/// Where to find each match.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    exact: HashMap<Box<str>, Ranks>,
    tree: Node,
}

/// A node of the tree: what ends here, and what goes on from here.
#[derive(Clone, Debug, Default)]
struct Node {
    /// The bytes between the parent and this node; empty in the root only.
    label: Box<[u8]>,
    /// Prefixes (without trailing slash) that end here. They hold if the path ends here too or goes on with
    /// `/`.
    prefixes: Ranks,
    /// Regular expressions that begin with the text up to here.
    regexes: Ranks,
    /// Ordered by the first byte of their labels, which are all different.
    children: Vec<Node>,
}

impl Index {
    /// Adds a match on an exact path. Ranks must be added in ascending order.
    pub(super) fn add_exact(&mut self, path: &str, rank: usize) {
        self.exact.entry(path.into()).or_default().push(rank);
    }

    /// Adds a match on a prefix, given without trailing slash.
    pub(super) fn add_prefix(&mut self, prefix: &str, rank: usize) {
        self.tree.at(prefix.as_bytes()).prefixes.push(rank);
    }

    /// Adds a match on a regular expression, given what all its values begin with.
    pub(super) fn add_regex(&mut self, begins: &[u8], rank: usize) {
        self.tree.at(begins).regexes.push(rank);
    }

    /// The lists of candidates for a path, the most promising first. Exact paths and prefixes in them hold;
    /// regular expressions are still to be tested.
    pub(super) fn candidates(&self, path: &str) -> SmallVec<[&[usize]; 16]> {
        let mut lists = SmallVec::new();
        self.tree.collect(path.as_bytes(), &mut lists);
        lists.extend(self.exact.get(path).map(Vec::as_slice));
        // From the longest prefix to the shortest, in general the order of their ranks.
        lists.reverse();
        lists
    }
}

impl Node {
    /// The node for a text, made if there is none.
    fn at(&mut self, text: &[u8]) -> &mut Node {
        let Some(&first) = text.first() else { return self };
        let at = match self.child(first) {
            Ok(at) => {
                self.children[at].split_after(text);
                at
            }
            Err(at) => {
                self.children.insert(at, Node { label: text.into(), ..Node::default() });
                at
            }
        };
        let child = &mut self.children[at];
        let rest = &text[child.label.len()..];
        child.at(rest)
    }

    fn child(&self, first: u8) -> Result<usize, usize> {
        self.children.binary_search_by_key(&Some(first), |child| child.label.first().copied())
    }

    /// Cuts this node in two where its label stops being a prefix of the text.
    fn split_after(&mut self, text: &[u8]) {
        let common = self.label.iter().zip(text).take_while(|(a, b)| a == b).count();
        if common < self.label.len() {
            let upper = Node { label: self.label[..common].into(), ..Node::default() };
            let mut lower = std::mem::replace(self, upper);
            lower.label = lower.label[common..].into();
            self.children.push(lower);
        }
    }

    fn collect<'t>(&'t self, path: &[u8], lists: &mut SmallVec<[&'t [usize]; 16]>) {
        let mut node = self;
        let mut rest = path;
        loop {
            if !node.regexes.is_empty() {
                lists.push(&node.regexes);
            }
            // The root's prefix is "/", which matches every request, that for "*" too.
            if !node.prefixes.is_empty()
                && (node.label.is_empty() || matches!(rest.first(), None | Some(b'/')))
            {
                lists.push(&node.prefixes);
            }
            let Some(child) = rest.first().and_then(|&first| node.children.get(node.child(first).ok()?))
            else {
                return;
            };
            let Some(after) = rest.strip_prefix(&*child.label) else { return };
            node = child;
            rest = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(index: &Index, path: &str) -> Vec<usize> {
        let mut ranks: Vec<usize> = index.candidates(path).into_iter().flatten().copied().collect();
        ranks.sort_unstable();
        ranks
    }

    #[test]
    fn prefixes_are_found_element_by_element() {
        let mut index = Index::default();
        for (rank, prefix) in ["/a/b/c", "/a/bc", "/a/b", "/a", "", "/ab"].into_iter().enumerate() {
            index.add_prefix(prefix, rank);
        }
        assert_eq!(found(&index, "/a/b/c/d"), [0, 2, 3, 4]);
        assert_eq!(found(&index, "/a/b/"), [2, 3, 4]);
        assert_eq!(found(&index, "/a/bc"), [1, 3, 4]);
        assert_eq!(found(&index, "/a/bcd"), [3, 4]);
        assert_eq!(found(&index, "/abc"), [4]);
        assert_eq!(found(&index, "/ab"), [4, 5]);
        assert_eq!(found(&index, "/"), [4]);
        assert_eq!(found(&index, "*"), [4]);
    }

    #[test]
    fn regular_expressions_are_found_by_what_they_begin_with() {
        let mut index = Index::default();
        index.add_regex(b"/api/v", 0);
        index.add_regex(b"", 1);
        index.add_regex(b"/api/x", 2);
        assert_eq!(found(&index, "/api/v2/cart"), [0, 1]);
        assert_eq!(found(&index, "/api/v"), [0, 1]);
        assert_eq!(found(&index, "/api/"), [1]);
    }

    #[test]
    fn the_most_specific_candidates_come_first() {
        let mut index = Index::default();
        index.add_exact("/a/b", 0);
        index.add_prefix("/a", 2);
        index.add_prefix("", 3);
        index.add_prefix("/a/b", 1);
        let order: Vec<usize> = index.candidates("/a/b").into_iter().flatten().copied().collect();
        assert_eq!(order, [0, 1, 2, 3]);
    }
}

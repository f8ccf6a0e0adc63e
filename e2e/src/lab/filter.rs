//! Packets that are lost.

use std::fmt::Write as _;

use super::{Lab, Node};
use crate::process::run;

/// Packets between two nodes, in one direction or both, that are dropped where they arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    from: Node,
    to: Node,
    both_ways: bool,
    port: Option<u16>,
}

impl Cut {
    /// In both directions.
    pub fn between(one: Node, other: Node) -> Self {
        Self { from: one, to: other, both_ways: true, port: None }
    }

    /// In one direction only.
    pub fn one_way(from: Node, to: Node) -> Self {
        Self { from, to, both_ways: false, port: None }
    }

    /// Only what goes to this TCP port or comes from it.
    pub fn at_port(self, port: u16) -> Self {
        Self { port: Some(port), ..self }
    }

    /// From whom a node gets nothing through this cut.
    fn unheard_by(&self, node: Node) -> impl Iterator<Item = Node> {
        let forth = (node == self.to).then_some(self.from);
        let back = (self.both_ways && node == self.from).then_some(self.to);
        forth.into_iter().chain(back)
    }
}

/// Puts all rules of a node in place at once.
pub(super) fn apply(node: Node, cuts: &[Cut]) -> anyhow::Result<()> {
    // What isn't there can't be deleted: declared first.
    let mut rules = "table ip cuts\ndelete table ip cuts\n".to_owned();
    rules.push_str("table ip cuts {\nchain arriving {\ntype filter hook input priority 0; policy accept;\n");
    for cut in cuts {
        for from in cut.unheard_by(node) {
            let from = from.address();
            // Writing to a String can't fail.
            match cut.port {
                None => writeln!(rules, "ip saddr {from} drop;").ok(),
                Some(port) => {
                    writeln!(rules, "ip saddr {from} tcp dport {port} drop;\nip saddr {from} tcp sport {port} drop;")
                        .ok()
                }
            };
        }
    }
    rules.push_str("}\n}\n");
    run(Lab::command(node, "nft").args(["-f", "-"]), Some(&rules)).map(|_| ())
}

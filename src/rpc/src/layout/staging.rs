//! Changes that are wanted and not yet applied: a CRDT, so that what is staged on any node adds up.
//!
//! Each node's role, and each parameter, is a last-writer-wins register. Dropping a change (because it was applied, or reverted) is a
//! write too, of [`RoleChange::Keep`], under the change's own stamp with the step bit set: greater than that change and smaller
//! than any other later one, so a change staged elsewhere in the meantime outlives the apply that did not know it.

use std::collections::BTreeMap;

use garage_net::NodeId;
use garage_util::hlc::Stamp;
use serde::{Deserialize, Serialize};

use super::error::LayoutError;
use super::role::{Role, ZoneRedundancy};
use super::version::{ContentHasher, LAYOUT_NODE_COUNT_MAX, LayoutVersion, REPLICATION_FACTOR_MAX};

/// A last-writer-wins register.
///
/// The `crdts` register keeps either value when two writes carry one stamp, so two nodes could differ for ever; here the greater
/// value wins, and no bug in a peer's clock makes the cluster diverge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lww<V> {
    stamp: Stamp,
    value: V,
}

impl<V: Ord + Clone> Lww<V> {
    /// What was last written.
    pub fn value(&self) -> &V {
        &self.value
    }

    /// When it was written.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Writes, unless something newer is there.
    pub fn write(&mut self, stamp: Stamp, value: V) {
        if (self.stamp, &self.value) < (stamp, &value) {
            *self = Lww { stamp, value };
        }
    }

    /// Takes over what is newer in `other`.
    pub fn merge(&mut self, other: &Lww<V>) {
        self.write(other.stamp, other.value.clone());
    }
}

/// What is wanted for one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RoleChange {
    /// Nothing: the change was applied or reverted.
    #[default]
    Keep,
    /// The node leaves the layout.
    Remove,
    /// The node gets this role.
    Assign(Role),
}

/// All staged changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staging {
    roles: BTreeMap<NodeId, Lww<RoleChange>>,
    /// `None`: as in the current version; likewise below.
    zone_redundancy: Lww<Option<ZoneRedundancy>>,
    replication_factor: Lww<Option<usize>>,
}

impl Staging {
    /// Stages a role or a removal for `node`.
    ///
    /// Errors: [`LayoutError::InvalidRole`], [`LayoutError::TooManyNodes`].
    pub fn stage_role(&mut self, stamp: Stamp, node: NodeId, change: RoleChange) -> Result<(), LayoutError> {
        if let RoleChange::Assign(role) = &change {
            role.check()?;
        }
        if !self.roles.contains_key(&node) && LAYOUT_NODE_COUNT_MAX <= self.roles.len() {
            return Err(LayoutError::TooManyNodes { count: self.roles.len() + 1, max: LAYOUT_NODE_COUNT_MAX });
        }
        self.roles.entry(node).or_default().write(stamp, change);
        Ok(())
    }

    /// Stages a zone redundancy; `replication_factor` is that of the layout to come.
    pub fn stage_zone_redundancy(&mut self, stamp: Stamp, wanted: ZoneRedundancy, replication_factor: usize) -> Result<(), LayoutError> {
        wanted.check(replication_factor)?;
        self.zone_redundancy.write(stamp, Some(wanted));
        Ok(())
    }

    /// Stages a replication factor.
    pub fn stage_replication_factor(&mut self, stamp: Stamp, wanted: usize) -> Result<(), LayoutError> {
        if !(1..=REPLICATION_FACTOR_MAX).contains(&wanted) {
            return Err(LayoutError::ReplicationFactorOutOfRange { asked: wanted, max: REPLICATION_FACTOR_MAX });
        }
        self.replication_factor.write(stamp, Some(wanted));
        Ok(())
    }

    /// Drops every staged change known here; a change staged elsewhere under a later stamp outlives it.
    pub fn clear(&mut self) {
        self.drop_where(|_, _| true, |_| true, |_| true);
    }

    /// Drops the changes that `applied` made true; what was staged while it was being agreed on stays staged.
    pub(super) fn settle(&mut self, applied: &LayoutVersion) {
        self.drop_where(
            |node, change| match change {
                RoleChange::Keep => true,
                RoleChange::Remove => !applied.roles.contains_key(&node),
                RoleChange::Assign(role) => applied.roles.get(&node) == Some(role),
            },
            |wanted| wanted == applied.zone_redundancy,
            |wanted| wanted == applied.replication_factor,
        );
    }

    fn drop_where(
        &mut self,
        role: impl Fn(NodeId, &RoleChange) -> bool,
        zone_redundancy: impl FnOnce(ZoneRedundancy) -> bool,
        replication_factor: impl FnOnce(usize) -> bool,
    ) {
        for (&node, staged) in &mut self.roles {
            if staged.value != RoleChange::Keep && role(node, &staged.value) {
                staged.write(staged.stamp.stepped(), RoleChange::Keep);
            }
        }
        if self.zone_redundancy.value.is_some_and(zone_redundancy) {
            self.zone_redundancy.write(self.zone_redundancy.stamp.stepped(), None);
        }
        if self.replication_factor.value.is_some_and(replication_factor) {
            self.replication_factor.write(self.replication_factor.stamp.stepped(), None);
        }
    }

    /// The role changes that would change `current`, by node.
    pub fn role_changes<'a>(&'a self, current: &'a LayoutVersion) -> impl Iterator<Item = (NodeId, &'a RoleChange)> + 'a {
        let changes = self.roles.iter().map(|(&node, staged)| (node, &staged.value));
        changes.filter(|(node, change)| match change {
            RoleChange::Keep => false,
            RoleChange::Remove => current.roles.contains_key(node),
            RoleChange::Assign(role) => current.roles.get(node) != Some(role),
        })
    }

    /// The staged zone redundancy, if it would change `current`.
    pub fn zone_redundancy_change(&self, current: &LayoutVersion) -> Option<ZoneRedundancy> {
        self.zone_redundancy.value.filter(|&wanted| wanted != current.zone_redundancy)
    }

    /// The staged replication factor, if it would change `current`.
    pub fn replication_factor_change(&self, current: &LayoutVersion) -> Option<usize> {
        self.replication_factor.value.filter(|&wanted| wanted != current.replication_factor)
    }

    /// Whether anything staged would change `current`.
    pub fn has_changes(&self, current: &LayoutVersion) -> bool {
        self.role_changes(current).next().is_some()
            || self.zone_redundancy_change(current).is_some()
            || self.replication_factor_change(current).is_some()
    }

    /// The greatest stamp in use: a new change needs a greater one to be seen.
    pub fn last_stamp(&self) -> Stamp {
        let parameters = self.zone_redundancy.stamp.max(self.replication_factor.stamp);
        self.roles.values().map(|staged| staged.stamp).max().unwrap_or_default().max(parameters)
    }

    /// `current`'s roles with the staged changes made.
    pub fn roles_after(&self, current: &LayoutVersion) -> BTreeMap<NodeId, Role> {
        let mut roles = current.roles.clone();
        for (node, change) in self.role_changes(current) {
            match change {
                RoleChange::Keep => {}
                RoleChange::Remove => drop(roles.remove(&node)),
                RoleChange::Assign(role) => drop(roles.insert(node, role.clone())),
            }
        }
        roles
    }

    /// Takes over what is newer in `other`.
    pub fn merge(&mut self, other: &Staging) {
        for (&node, staged) in &other.roles {
            self.roles.entry(node).or_default().merge(staged);
        }
        self.zone_redundancy.merge(&other.zone_redundancy);
        self.replication_factor.merge(&other.replication_factor);
    }

    /// Refuses what no node would stage; for what peers send.
    pub fn check(&self) -> Result<(), LayoutError> {
        if 2 * LAYOUT_NODE_COUNT_MAX < self.roles.len() {
            return Err(LayoutError::TooManyNodes { count: self.roles.len(), max: LAYOUT_NODE_COUNT_MAX });
        }
        for staged in self.roles.values() {
            if let RoleChange::Assign(role) = &staged.value {
                role.check()?;
            }
        }
        match self.replication_factor.value {
            Some(asked) if !(1..=REPLICATION_FACTOR_MAX).contains(&asked) => {
                Err(LayoutError::ReplicationFactorOutOfRange { asked, max: REPLICATION_FACTOR_MAX })
            }
            _ => self.zone_redundancy.value.unwrap_or_default().check(REPLICATION_FACTOR_MAX),
        }
    }

    pub(super) fn feed(&self, hasher: &mut ContentHasher) {
        hasher.numbers([self.roles.len() as u64]);
        for (node, staged) in &self.roles {
            hasher.bytes(node.as_bytes());
            hasher.bytes(&staged.stamp.to_sortable());
            match &staged.value {
                RoleChange::Keep => hasher.numbers([0]),
                RoleChange::Remove => hasher.numbers([1]),
                RoleChange::Assign(role) => {
                    hasher.numbers([2]);
                    hasher.role(role);
                }
            }
        }
        hasher.bytes(&self.zone_redundancy.stamp.to_sortable());
        hasher.numbers(match self.zone_redundancy.value {
            None => [0, 0],
            Some(ZoneRedundancy::Maximum) => [1, 0],
            Some(ZoneRedundancy::AtLeast(count)) => [2, count as u64],
        });
        hasher.bytes(&self.replication_factor.stamp.to_sortable());
        hasher.numbers([self.replication_factor.value.map_or(0, |wanted| wanted as u64)]);
    }
}

#[cfg(test)]
mod tests {
    use garage_util::hlc::Stamp;
    use proptest::prelude::*;

    use super::super::exhaustive::{node, storage};
    use super::super::{LayoutVersion, ZoneRedundancy};
    use super::{Lww, RoleChange, Staging};

    fn stamp(time: u64) -> Stamp {
        Stamp::from_parts(time, 1, false)
    }

    fn current() -> LayoutVersion {
        let mut layout = LayoutVersion::zero(3, 256);
        layout.roles.insert(node(1), storage("a", 2048));
        layout
    }

    #[test]
    fn what_equals_the_current_layout_is_no_change() {
        let (current, mut staging) = (current(), Staging::default());
        staging.stage_role(stamp(1), node(1), RoleChange::Assign(storage("a", 2048))).unwrap();
        staging.stage_role(stamp(1), node(2), RoleChange::Remove).unwrap();
        staging.stage_zone_redundancy(stamp(1), ZoneRedundancy::Maximum, 3).unwrap();
        staging.stage_replication_factor(stamp(1), 3).unwrap();
        assert!(!staging.has_changes(&current));
        staging.stage_role(stamp(2), node(1), RoleChange::Assign(storage("b", 2048))).unwrap();
        assert_eq!(staging.role_changes(&current).count(), 1);
        assert_eq!(staging.roles_after(&current)[&node(1)].zone, "b");
        assert_eq!(staging.last_stamp(), stamp(2));
    }

    #[test]
    fn a_revert_drops_every_change_on_every_node_and_new_ones_can_follow() {
        let (current, mut staging) = (current(), Staging::default());
        staging.stage_role(stamp(5), node(1), RoleChange::Remove).unwrap();
        staging.stage_zone_redundancy(stamp(6), ZoneRedundancy::AtLeast(2), 3).unwrap();
        staging.stage_replication_factor(stamp(7), 1).unwrap();
        let elsewhere = staging.clone();
        staging.clear();
        staging.merge(&elsewhere);
        assert!(!staging.has_changes(&current));
        staging.stage_role(stamp(8), node(1), RoleChange::Remove).unwrap();
        assert!(staging.has_changes(&current));
    }

    #[test]
    fn a_demand_out_of_range_is_not_staged() {
        let mut staging = Staging::default();
        assert!(staging.stage_role(stamp(1), node(1), RoleChange::Assign(storage("a", 1))).is_err());
        assert!(staging.stage_zone_redundancy(stamp(1), ZoneRedundancy::AtLeast(4), 3).is_err());
        assert!(staging.stage_zone_redundancy(stamp(1), ZoneRedundancy::AtLeast(0), 3).is_err());
        assert!(staging.stage_replication_factor(stamp(1), 0).is_err());
        assert_eq!(staging, Staging::default());
    }

    proptest! {
        #[test]
        fn a_register_merges_alike_in_any_order_even_with_equal_stamps(writes in prop::collection::vec((0..4u64, 0..4u8), 3)) {
            let [a, b, c] = [0, 1, 2].map(|index| Lww { stamp: stamp(writes[index].0), value: writes[index].1 });
            let merged = |a: &Lww<u8>, b: &Lww<u8>| {
                let mut result = a.clone();
                result.merge(b);
                result
            };
            prop_assert_eq!(merged(&a, &merged(&b, &c)), merged(&merged(&c, &a), &b));
            prop_assert_eq!(merged(&a, &a), a);
        }
    }
}

//! The unclean election: by hand, once, for one replica and one epoch. For a group whose in-sync members are all lost.

use std::collections::BTreeSet;

use crate::elector::{Action, Elector, Notice, Purpose, Ticket};
use crate::{Epoch, GroupRecord, Member};

impl Elector {
    pub(super) fn elect_unclean(&mut self, to: &str, epoch: Epoch, ticket: Ticket) {
        let (old, master) = match self.check_unclean(to, epoch) {
            Ok(checked) => checked,
            Err(why) => return self.actions.push(Action::Switched { ticket, result: Err(why) }),
        };
        let promised = self.seats.values().map(|seat| seat.report.promised);
        let last = promised.fold(old.as_ref().map_or(Epoch(0), |record| record.epoch), Epoch::max);
        let record = GroupRecord {
            epoch: last.next(),
            revision: old.map_or(0, |record| record.revision) + 1,
            in_sync: BTreeSet::from([master.clone()]),
            master: master.clone(),
        };
        let notice = Notice::Unclean { to: master, epoch: record.epoch };
        self.compare_and_set(record, Purpose::ElectUnclean { notice, ticket });
    }

    fn check_unclean(&self, to: &str, epoch: Epoch) -> Result<(Option<GroupRecord>, Member), String> {
        if self.recorded.is_none() || self.writing.is_some() {
            return Err("the record is being read or written; try again".to_owned());
        }
        let record = self.record().cloned();
        let stands = record.as_ref().map_or(Epoch(0), |record| record.epoch);
        if stands != epoch {
            return Err(format!("the record is of epoch {stands}, not {epoch}: look at the status again"));
        }
        if let Some(record) = &record
            && self.serving().is_some()
            && self.trouble.is_none()
        {
            return Err(format!("master {} of epoch {stands} serves: use a switchover", record.master.name));
        }
        let seat = self.seats.get(to).filter(|seat| seat.session.is_some() && self.config.replicas.contains(to));
        let seat = seat.ok_or_else(|| format!("{to} is not connected, or no replica of this group"))?;
        if self.is_fenced(seat) {
            return Err(format!("{to} is fenced: unfence it first"));
        }
        Ok((record, seat.hello.member.clone()))
    }
}

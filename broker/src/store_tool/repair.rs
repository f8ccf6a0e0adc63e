//! `gantry store repair`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use gantry_store::repair::{CutPlan, Repair};

use super::print::{finding, line, time};
use super::{Place, advance, bar};
use crate::replica::ReplicaState;

/// Arguments of `repair`.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["cut", "cut_at_damage", "rebuild_queues"]))]
pub struct RepairArgs {
    #[command(flatten)]
    place: Place,
    /// Cut the log at this offset, where a record begins: what lies behind is given up, and kept in DIR/divergent.
    #[arg(long, value_name = "OFFSET")]
    cut: Option<u64>,
    /// Cut the log where it can't be read on.
    #[arg(long)]
    cut_at_damage: bool,
    /// Remove the consume queues; the next start makes them again from the log.
    #[arg(long)]
    rebuild_queues: bool,
    /// Do it. Without this it is only shown what would be done.
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(args: &RepairArgs) -> Result<ExitCode> {
    let repair = Repair::lock(&args.place.config())?;
    if args.rebuild_queues {
        if !args.yes {
            line("would remove all consume queues; the next start makes them again from the log. Add --yes to do it")?;
            return Ok(ExitCode::SUCCESS);
        }
        repair.remove_queues()?;
        line("the consume queues are removed; the next start makes them again from the log")?;
        return Ok(ExitCode::SUCCESS);
    }
    let plan = if let Some(at) = args.cut {
        repair.plan_cut(at)?
    } else {
        let bar = bar();
        let plan = repair.plan_cut_at_damage(&mut |done, total| advance(&bar, done, total))?;
        bar.finish_and_clear();
        let Some(plan) = plan else {
            line("the log is whole: nothing to cut")?;
            return Ok(ExitCode::SUCCESS);
        };
        plan
    };
    show(&plan)?;
    if !args.yes {
        line("nothing is changed yet. Add --yes to do it")?;
        return Ok(ExitCode::SUCCESS);
    }
    cut(args, &repair, &plan)
}

fn show(plan: &CutPlan) -> Result<()> {
    if let Some(damage) = &plan.damage {
        line(&format!("damage      {}", finding(damage)))?;
    }
    line(&format!("cut         at {}: {} bytes to {} go", plan.at, plan.kept_bytes, plan.end))?;
    let (first, last) = (plan.store_ms.map(|(first, _)| first), plan.store_ms.map(|(_, last)| last));
    line(&format!("lost        {} whole records, stored {} to {}", plan.records, time(first), time(last)))
}

/// The replica becomes another member of its group first: it no longer has all that it acknowledged, and whatever happens
/// in between must not be elected for it.
fn cut(args: &RepairArgs, repair: &Repair, plan: &CutPlan) -> Result<ExitCode> {
    if ReplicaState::renew(&args.place.root, plan.at)? {
        line("replica     has a new store id: it joins its group as a new member, and fetches what it lacks")?;
    }
    for path in repair.cut(plan)? {
        line(&format!("kept        {}", path.display()))?;
    }
    line(&format!("the log ends at {}; start the broker, and the consume queues follow", plan.at))?;
    Ok(ExitCode::SUCCESS)
}

//! `stat`, `refuel`, `repair`, `quote`: how stored data is doing and what it costs. Everything shown comes from ledger
//! records and signed commits.

use std::time::Duration;

use serde_json::{Value, json};
use tallow_client::{Access, ContractReport, Quote as Cost};
use tallow_types::Fuel;
use tallow_types::params::Params;

use crate::args::{Line, Quote, Refuel};
use crate::commands::blobs::blames_json;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::session::{Session, explain};
use crate::{human, output, progress};

/// Shows the contract.
pub async fn stat(ctx: &Context) -> Result<()> {
    let chosen = ctx.network()?;
    let session = Session::open(ctx, &chosen, Access::Read, None).await?;
    let report = session.client.contract().await.map_err(explain)?;
    session.close().await?;
    let mut value = to_json(&report);
    value["slots"] = slots_json(&report);
    ctx.out.result("contract", value, || text(&report));
    Ok(())
}

/// The contract without its slots, as JSON.
pub fn to_json(report: &ContractReport) -> Value {
    json!({
        "contract": report.contract.to_string(),
        "profile": format!("{}/{}", report.profile.data(), report.profile.slots()),
        "phase": report.phase,
        "held": report.held,
        "healthy": report.healthy,
        "width": report.width,
        "can_lose": report.can_lose,
        "stripes": report.stripes,
        "stored_bytes": report.stored.get(),
        "room_bytes": report.room.get(),
        "fuel_units": report.fuel.get().to_string(),
        "burn_units_per_epoch": report.burn.get().to_string(),
        "paid_until_epoch": report.paid_until.map(tallow_types::Epoch::get),
        "paid_until": report.paid_until_time.and_then(human::rfc3339),
    })
}

fn slots_json(report: &ContractReport) -> Value {
    report
        .slots
        .iter()
        .map(|slot| {
            json!({
                "slot": slot.slot,
                "seeder": slot.seeder.map(|seeder| seeder.to_string()),
                "price_units": slot.price.get(),
                "region": slot.region,
                "online": slot.online,
                "current": slot.current,
                "missing_slices": slot.missing,
                "damaged_slices": slot.damaged,
                "bytes": slot.bytes.get(),
            })
        })
        .collect()
}

/// Health in a line: `12 of 12 healthy, can lose 8 more`.
pub fn health(report: &ContractReport) -> String {
    format!(
        "{} of {} slots healthy, can lose {} more",
        report.healthy,
        report.profile.slots(),
        report.can_lose
    )
}

/// Money in a line: `until 2026-12-21 13:05`.
pub fn paid(report: &ContractReport) -> String {
    match (report.paid_until_time, report.paid_until) {
        (Some(time), _) => format!("until {}", human::date(time)),
        (None, Some(epoch)) => format!("until epoch {epoch}"),
        (None, None) => "for good: nothing is burned at present".to_owned(),
    }
}

fn text(report: &ContractReport) -> String {
    let mut text = format!(
        "contract  {}\nprofile   {}, {}\nhealth    {}\nstored    {} in {}, room for {} a slot\nfuel      {}, burns {} an epoch\npaid      {}\n\n",
        report.contract.short(),
        report.profile,
        report.phase,
        health(report),
        human::size(report.stored.get()),
        human::count(report.stripes, "stripe"),
        human::size(report.room.get()),
        human::fuel(report.fuel),
        human::fuel(report.burn),
        paid(report),
    );
    let rows: Vec<Vec<String>> = report
        .slots
        .iter()
        .map(|slot| {
            let seeder = slot.seeder.map_or_else(|| "vacant".to_owned(), |seeder| seeder.short());
            let state = match (slot.seeder.is_some(), slot.online, slot.current) {
                (false, ..) => String::new(),
                (true, false, _) => "silent".to_owned(),
                (true, true, true) if slot.missing + slot.damaged == 0 => "good".to_owned(),
                (true, true, true) if slot.missing == 0 => {
                    format!("{} damaged", human::count(slot.damaged, "slice"))
                }
                (true, true, true) => format!("misses {}", human::count(slot.missing, "slice")),
                (true, true, false) => "behind".to_owned(),
            };
            vec![slot.slot.to_string(), seeder, state, human::size(slot.bytes.get()), slot.region.clone()]
        })
        .collect();
    text.push_str(&output::table(
        &["slot", "seeder", "state", "holds", "region"],
        &[true, false, false, true, false],
        &rows,
    ));
    text
}

/// Adds fuel.
pub async fn refuel(ctx: &Context, args: Refuel) -> Result<()> {
    let chosen = ctx.network()?;
    let session = Session::open(ctx, &chosen, Access::Write, None).await?;
    let amount = match (args.amount, args.time) {
        (Some(amount), _) => amount,
        (None, Some(time)) => {
            let params = session.client.params().await.map_err(explain)?;
            let report = session.client.contract().await.map_err(explain)?;
            report
                .burn
                .mul_div_floor(u128::from(epochs(time, &params)), 1)
                .ok_or_else(|| Failure::user("no network holds as much fuel as that would take"))?
        }
        (None, None) => return Err(Failure::bug("the command line was accepted without an amount")),
    };
    if amount == Fuel::ZERO {
        return Err(Failure::user("there is nothing to add"));
    }
    afford(&session, amount).await?;
    let paid_tx = session.client.refuel(amount).await.map_err(explain)?;
    let report = session.client.contract().await.map_err(explain)?;
    session.close().await?;
    let mut value = to_json(&report);
    value["added_units"] = json!(amount.get().to_string());
    value["height"] = json!(paid_tx.height.get());
    ctx.out.result("refuel", value, || format!("added {}; paid {}\n", human::fuel(amount), paid(&report)));
    Ok(())
}

/// Refuses to spend what the account does not have, in people's units; the ledger has the last word.
pub async fn afford(session: &Session, amount: Fuel) -> Result<()> {
    let balance = session.client.balance().await.map_err(explain)?;
    if balance.free >= amount {
        return Ok(());
    }
    let (has, takes) = (human::fuel(balance.free), human::fuel(amount));
    Err(Failure::user(format!("the account has {has}, this takes {takes}"))
        .hint(format!("ask for less, or have money sent to account {}", balance.account)))
}

/// Fills vacant slots and catches seeders up.
pub async fn repair(ctx: &Context, line: &Line) -> Result<()> {
    let chosen = ctx.network()?;
    let session = Session::open_within(ctx, &chosen, Access::Write, None, line).await?;
    let done = session.client.repair(progress::bar(ctx.out)).await.map_err(explain)?;
    let report = session.client.contract().await.map_err(explain)?;
    session.close().await?;
    let mut value = to_json(&report);
    value["filled"] = json!(done.filled);
    value["caught_up"] = json!(done.caught_up);
    value["failed"] = blames_json(&done.failed);
    value["slices"] = json!(done.slices);
    value["bytes"] = json!(done.bytes);
    ctx.out.result("repair", value, || {
        format!(
            "filled {}, caught up {}, re-created {} ({})\n{}\n",
            human::count(done.filled.len() as u64, "slot"),
            human::count(done.caught_up.len() as u64, "seeder"),
            human::count(done.slices, "slice"),
            human::size(done.bytes),
            health(&report),
        )
    });
    if done.failed.is_empty() {
        return Ok(());
    }
    let mut failure = Failure::unavailable(format!(
        "{} could not be repaired",
        human::count(done.failed.len() as u64, "slot")
    ));
    failure.details = done.failed.iter().map(ToString::to_string).collect();
    Err(failure.hint("type it again when those seeders are up, or more seeders offer their disks"))
}

/// Tells what something would cost.
pub async fn quote(ctx: &Context, args: Quote) -> Result<()> {
    let chosen = ctx.network()?;
    let session = Session::open(ctx, &chosen, Access::Read, args.profile).await?;
    let params = session.client.params().await.map_err(explain)?;
    let cost = session.client.quote(args.size, epochs(args.time, &params)).await.map_err(explain)?;
    session.close().await?;
    let value = json!({
        "profile": format!("{}/{}", cost.profile.data(), cost.profile.slots()),
        "bytes": cost.bytes,
        "stored_bytes": cost.stored.get(),
        "epochs": cost.epochs,
        "per_epoch_units": cost.per_epoch.get().to_string(),
        "total_units": cost.total.get().to_string(),
        "deposit_units": cost.deposit.get().to_string(),
        "seeders": cost.seeders,
    });
    ctx.out.result("quote", value, || quote_text(&cost, args.time));
    Ok(())
}

fn quote_text(cost: &Cost, time: Duration) -> String {
    let deposit = if cost.deposit == Fuel::ZERO {
        String::new()
    } else {
        format!(", and a deposit of {} that comes back", human::fuel(cost.deposit))
    };
    format!(
        "{} with profile {} takes {} on the seeders' disks\nfor {}: {}{deposit}\nan epoch burns {}; {} at a fitting price\n",
        human::size(cost.bytes),
        cost.profile,
        human::size(cost.stored.get()),
        human::duration(time),
        human::fuel(cost.total),
        human::fuel(cost.per_epoch),
        human::count(cost.seeders as u64, "seeder"),
    )
}

/// Epochs in a time, rounded up: nobody wants to be a minute short.
fn epochs(time: Duration, params: &Params) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    millis.div_ceil(params.epoch.get().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a time is never cut short. Method: edges around one epoch.
    #[test]
    fn epochs_round_up() {
        let params = Params::dev();
        let epoch = Duration::from_millis(params.epoch.get());
        assert_eq!(epochs(Duration::ZERO, &params), 0);
        assert_eq!(epochs(epoch, &params), 1);
        assert_eq!(epochs(epoch + Duration::from_millis(1), &params), 2);
    }
}

//! What `local up` shows: lines as things happen, and on a terminal a table that is redrawn.
//!
//! Writing is a thread's work: a terminal that is held, or a pipe that nobody reads, stops the display and nothing else.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, Table};
use gantry_replication::wire::Role;
use k8s_openapi::jiff::Timestamp;

use super::status::{GroupStatus, ReplicaStatus, Status};

/// Things to show that may wait for the display; more are left out of it (the operator's log has all lines).
const QUEUE: usize = 1024;

/// Lines kept under the table.
const RECENT_LINES: usize = 10;

/// How long the end waits for what is still to be shown.
const END_PATIENCE: Duration = Duration::from_secs(1);

enum Shown {
    Line(String),
    Table(String),
    End,
}

/// Takes lines from everywhere.
#[derive(Clone, Debug)]
pub struct Lines {
    sender: SyncSender<Shown>,
}

impl Lines {
    /// Shows a line, with the time before it, and logs it. Never blocks.
    pub fn say(&self, text: &str) {
        tracing::info!("{text}");
        self.show(Shown::Line(format!("{:.3} {text}", Timestamp::now())));
    }

    fn show(&self, shown: Shown) {
        if self.sender.try_send(shown).is_err() {
            tracing::debug!("the display is behind or gone; something was not shown");
        }
    }
}

/// The display.
#[derive(Debug)]
pub struct Screen {
    lines: Lines,
    live: bool,
    writer: Option<JoinHandle<()>>,
    ended: Receiver<()>,
}

impl Screen {
    /// On standard output: a live table if that is a terminal, plain lines else.
    pub fn on_stdout() -> io::Result<Self> {
        let live = io::stdout().is_terminal();
        let (sender, receiver) = sync_channel(QUEUE);
        let (done, ended) = sync_channel(1);
        let writer = std::thread::Builder::new().name("screen".to_owned()).spawn(move || {
            write_all(live, &receiver);
            // Nobody waits any more if it took too long.
            done.send(()).ok();
        })?;
        Ok(Self { lines: Lines { sender }, live, writer: Some(writer), ended })
    }

    /// Where lines go in.
    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Whether there is a table to redraw.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Redraws the table. Nothing happens on a display of plain lines.
    pub fn draw(&self, status: &Status) {
        if self.live {
            self.lines.show(Shown::Table(render(status)));
        }
    }

    /// Shows what is left to show, for a second at most.
    pub fn end(mut self) {
        self.lines.show(Shown::End);
        let ended = self.ended.recv_timeout(END_PATIENCE);
        if let (Some(writer), Ok(()) | Err(RecvTimeoutError::Disconnected)) = (self.writer.take(), ended)
            && writer.join().is_err()
        {
            tracing::warn!("the display ended badly");
        }
    }
}

fn write_all(live: bool, receiver: &Receiver<Shown>) {
    let mut table = String::new();
    let mut latest = VecDeque::new();
    if live {
        put("\x1b[2J");
    }
    while let Ok(shown) = receiver.recv() {
        match shown {
            Shown::End => return,
            Shown::Line(text) if !live => put(&(text + "\n")),
            Shown::Line(text) => {
                latest.push_back(text);
                if latest.len() > RECENT_LINES {
                    latest.pop_front();
                }
                redraw(&table, &latest);
            }
            Shown::Table(new) => {
                table = new;
                redraw(&table, &latest);
            }
        }
    }
}

/// From the top left corner, each line to its end and none wrapped, and nothing below.
fn redraw(table: &str, recent: &VecDeque<String>) {
    let mut text = "\x1b[?7l\x1b[H".to_owned();
    let lines = table.lines().chain([""]).chain(recent.iter().map(String::as_str));
    for line in lines.chain(["", "Ctrl-C stops everything."]) {
        text.push_str(line);
        text.push_str("\x1b[K\n");
    }
    text.push_str("\x1b[J\x1b[?7h");
    put(&text);
}

fn put(text: &str) {
    let mut stdout = io::stdout().lock();
    // A reader that has gone (`| head`) is no reason to stop a broker.
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).ok();
}

/// The table for people: a headline and the replicas of each group.
pub fn render(status: &Status) -> String {
    let mut text = String::new();
    for group in &status.groups {
        text.push_str(&headline(group));
        text.push('\n');
        text.push_str(&replicas(group).to_string());
        text.push_str("\n\n");
    }
    text.trim_end().to_owned() + "\n"
}

fn headline(group: &GroupStatus) -> String {
    let epoch = group.epoch.map_or_else(|| "-".to_owned(), |epoch| epoch.to_string());
    let degraded = if group.degraded == Some(true) { "   DEGRADED" } else { "" };
    format!(
        "{}   master {}   epoch {epoch}   in sync {}/{}{degraded}   address {}   name server {}   controller {}",
        group.name,
        group.master.as_deref().unwrap_or("-"),
        group.in_sync.len(),
        group.replicas.len(),
        group.address,
        group.nameserver,
        group.controller,
    )
}

fn replicas(group: &GroupStatus) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header([
        "REPLICA",
        "ROLE",
        "IN-SYNC",
        "MAX OFFSET",
        "CONFIRM OFFSET",
        "LAG",
        "PID",
        "RESTARTS",
        "ADDRESS",
    ]);
    for replica in &group.replicas {
        table.add_row(row(replica));
    }
    for column in 3..8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn row(replica: &ReplicaStatus) -> [Cell; 9] {
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    [
        Cell::new(&replica.name),
        Cell::new(replica.role.map_or("-", role_name)),
        Cell::new(if replica.in_sync { "yes" } else { "no" }),
        Cell::new(number(replica.max_offset)),
        Cell::new(number(replica.confirm_offset)),
        Cell::new(number(replica.lag_bytes)),
        Cell::new(number(replica.pid.map(u64::from))),
        Cell::new(replica.restarts),
        Cell::new(replica.address.as_deref().unwrap_or("-")),
    ]
}

/// As it stands in JSON.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Fenced => "fenced",
        Role::Slave => "slave",
        Role::Master => "master",
    }
}

/// What has changed between two looks, in words: roles and in-sync sets.
#[derive(Debug, Default)]
pub struct Changes {
    last: Status,
}

impl Changes {
    /// Lines for what is new since the last call.
    pub fn since_last(&mut self, status: &Status) -> Vec<String> {
        let mut lines = Vec::new();
        for group in &status.groups {
            let before = self.last.groups.iter().find(|before| before.name == group.name);
            for replica in &group.replicas {
                let was = before.and_then(|group| group.replicas.iter().find(|was| was.name == replica.name));
                if let Some(role) = replica.role.filter(|role| was.and_then(|was| was.role) != Some(*role)) {
                    let max_offset = replica.max_offset.unwrap_or_default();
                    lines.push(format!("{} is {}, log end {max_offset}", replica.name, role_name(role)));
                }
            }
            let was_in_sync = before.map(|before| before.in_sync.as_slice()).unwrap_or_default();
            if group.in_sync != was_in_sync {
                let (now, all) = (group.in_sync.len(), group.replicas.len());
                lines.push(format!("{} in sync: {} ({now} of {all})", group.name, group.in_sync.join(", ")));
            }
        }
        self.last = status.clone();
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let replica = |n: u32, role| ReplicaStatus {
            name: format!("a-{n}"),
            role,
            pid: Some(100 + n),
            address: Some("127.0.0.1:4000".to_owned()),
            max_offset: Some(5000),
            flushed_offset: Some(5000),
            confirm_offset: None,
            lag_bytes: Some(0),
            in_sync: n == 0,
            restarts: 2,
        };
        let group = GroupStatus {
            name: "a".to_owned(),
            epoch: Some(3),
            master: Some("a-0".to_owned()),
            in_sync: vec!["a-0".to_owned()],
            degraded: Some(false),
            nameserver: "127.0.0.1:9876".parse().unwrap(),
            controller: "127.0.0.1:9878".parse().unwrap(),
            address: "127.0.0.1:10911".parse().unwrap(),
            replicas: vec![replica(0, Some(Role::Master)), replica(1, None)],
        };
        Status { groups: vec![group] }
    }

    #[test]
    fn the_table_says_who_is_master_and_what_is_unknown() {
        let text = render(&status());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            "a   master a-0   epoch 3   in sync 1/2   address 127.0.0.1:10911   name server 127.0.0.1:9876   controller 127.0.0.1:9878"
        );
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(words(lines[1]), "REPLICA ROLE IN-SYNC MAX OFFSET CONFIRM OFFSET LAG PID RESTARTS ADDRESS");
        assert_eq!(words(lines[2]), "a-0 master yes 5000 - 0 100 2 127.0.0.1:4000");
        assert_eq!(words(lines[3]), "a-1 - no 5000 - 0 101 2 127.0.0.1:4000");
    }

    #[test]
    fn changes_are_told_once() {
        let mut changes = Changes::default();
        let mut status = status();
        assert_eq!(changes.since_last(&status), ["a-0 is master, log end 5000", "a in sync: a-0 (1 of 2)"]);
        assert_eq!(changes.since_last(&status), Vec::<String>::new());
        status.groups[0].replicas[1].role = Some(Role::Slave);
        status.groups[0].in_sync.push("a-1".to_owned());
        assert_eq!(changes.since_last(&status), ["a-1 is slave, log end 5000", "a in sync: a-0, a-1 (2 of 2)"]);
    }
}

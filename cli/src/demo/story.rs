//! How a demo tells what it does: one line a step as it happens, a summary at the end, both also as JSON.

use std::time::Instant;

use serde_json::{Value, json};

use crate::human;
use crate::output::Output;

/// Steps of a demo.
pub const STEPS: [&str; 10] =
    ["tree", "network", "wallet", "put", "holders", "search", "kill", "get", "one more", "clean-up"];

/// The telling of a demo.
pub struct Story {
    out: Output,
    started: Instant,
    step: Instant,
    told: usize,
}

impl Story {
    /// From the beginning.
    pub fn begin(out: Output) -> Self {
        let now = Instant::now();
        Self { out, started: now, step: now, told: 0 }
    }

    /// A step held. `facts` go into JSON.
    pub fn held(&mut self, text: &str, facts: Value) {
        let took = self.step.elapsed();
        let name = STEPS[self.told];
        self.told += 1;
        let value = json!({
            "step": name,
            "ok": true,
            "seconds": took.as_secs_f64(),
            "facts": facts,
        });
        let line =
            format!("[{:>2}/{}] {name:<9} {text}  ({})\n", self.told, STEPS.len(), human::duration(took));
        self.out.result("demo-step", value, || line);
        self.step = Instant::now();
    }

    /// Lines that belong to the step before.
    pub fn detail(&self, text: &str) {
        for line in text.lines() {
            self.out.say(format!("             {line}"));
        }
    }

    /// How many steps held.
    pub const fn told(&self) -> usize {
        self.told
    }

    /// The end; says so if every step held.
    pub fn end(self, bytes: u64, files: u64) -> bool {
        let ok = self.told == STEPS.len();
        let took = self.started.elapsed();
        let value = json!({
            "ok": ok,
            "steps": self.told,
            "seconds": took.as_secs_f64(),
            "files": files,
            "bytes": bytes,
        });
        self.out.result("demo", value, || {
            format!(
                "\nall {} steps held in {}: {} in {} stored, unreadable to those who hold it, and back from 4 of 12 seeders byte for byte\n",
                STEPS.len(),
                human::duration(took),
                human::size(bytes),
                human::count(files, "file"),
            )
        });
        ok
    }
}

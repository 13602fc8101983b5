//! The command line reference, made from the command tree: one heading and one help text for each command that people
//! are meant to type.

use std::fmt::Write as _;

use clap::CommandFactory as _;

/// The whole page.
pub fn page() -> String {
    let mut page = String::from(
        "# Command line reference\n\nMade from the program's own help by a test; `TALLOW_BLESS=1 cargo test -p tallow-cli reference` writes it again.\n",
    );
    let mut command = crate::args::Cli::command().term_width(100);
    command.build();
    add(&mut page, &mut command, "tallow");
    page
}

fn add(page: &mut String, command: &mut clap::Command, name: &str) {
    let help = command.render_long_help().to_string();
    // The version in the help would make every release a change of this page; widths may leave trailing blanks.
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    write!(page, "\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end())
        .expect("a string takes all");
    let visible = |sub: &&mut clap::Command| !sub.is_hide_set() && sub.get_name() != "help";
    for sub in command.get_subcommands_mut().filter(visible) {
        let name = format!("{name} {}", sub.get_name());
        add(page, sub, &name);
    }
}

//! The commands of membership transcripts: `simple`, `enter-joint` and `leave-joint` on one membership, which starts
//! empty. A new member is probed at the number of commands before its own.

use std::fmt::Write as _;

use basalt_raft::{
    Error,
    confchange::Changer,
    tracker::{Configuration, Inflights, ProgressMap},
};

use crate::{commands, datadriven::Step, describe};

/// The membership between commands.
#[derive(Default)]
pub(crate) struct Membership {
    config: Configuration,
    progress: ProgressMap,
    commands: u64,
}

impl Membership {
    /// Runs a step: the new membership, or why it does not fit.
    pub(crate) fn run(&mut self, step: &Step) -> String {
        let result = self.change(step);
        self.commands += 1;
        if let Err(error) = result {
            return error;
        }
        let mut text = format!("{}\n", self.config);
        for (id, progress) in self.progress.iter() {
            let _ = writeln!(text, "{id}: {progress}");
        }
        text
    }

    fn change(&mut self, step: &Step) -> Result<(), String> {
        let changes = commands::changes(&step.input)?;
        let changer = Changer {
            config: &self.config,
            progress: &self.progress,
            last_index: self.commands,
            session: 1,
            inflights: &Inflights::new(10, u64::MAX),
        };
        let changed = match step.command.as_str() {
            "simple" => changer.simple(&changes),
            "enter-joint" => {
                let auto_leave = step.option("autoleave") == Some("true");
                changer.enter_joint(auto_leave, &changes)
            }
            "leave-joint" if changes.is_empty() => changer.leave_joint(),
            "leave-joint" => Err(Error::ConfChange("this command takes no input")),
            other => panic!("unknown command: {other}"),
        };
        let (config, progress) = changed.map_err(|error| describe::error(&error))?;
        (self.config, self.progress) = (config, progress);
        Ok(())
    }
}

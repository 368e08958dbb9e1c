//! What came out: for each user and engine the cases, beside each other the programs.

use std::fmt;

/// How one case went.
pub struct Cell {
    case: String,
    outcome: Outcome,
    seconds: String,
}

enum Outcome {
    Pass,
    Skip(String),
    Fail(String),
}

impl Cell {
    /// From a line of `column.sh`: case, outcome, seconds, why.
    pub fn parse(line: &str) -> Option<Cell> {
        let mut fields = line.splitn(4, '\t');
        let case = fields.next()?.to_owned();
        let word = fields.next()?;
        let seconds = fields.next()?.to_owned();
        let why = fields.next()?.to_owned();
        let outcome = match word {
            "pass" => Outcome::Pass,
            "skip" => Outcome::Skip(why),
            "FAIL" => Outcome::Fail(why),
            _ => return None,
        };
        Some(Cell {
            case,
            outcome,
            seconds,
        })
    }

    /// Why it was not run, where it was not.
    pub fn skipped(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Skip(why) => Some(why),
            Outcome::Pass | Outcome::Fail(_) => None,
        }
    }
}

struct Entry {
    /// Who, engine.
    section: (String, String),
    program: String,
    cell: Cell,
}

/// All cells so far.
#[derive(Default)]
pub struct Table {
    entries: Vec<Entry>,
}

impl Table {
    pub fn enter(&mut self, (who, engine): (&str, &str), program: &str, cell: Cell) {
        self.entries.push(Entry {
            section: (who.to_owned(), engine.to_owned()),
            program: program.to_owned(),
            cell,
        });
    }

    /// What failed on `program`, a line each.
    pub fn failures(&self, program: &str) -> Vec<String> {
        self.entries
            .iter()
            .filter(|entry| entry.program == program)
            .filter_map(|entry| match &entry.cell.outcome {
                Outcome::Fail(why) => {
                    let (who, engine) = &entry.section;
                    Some(format!("{engine} as {who}: {}: {why}", entry.cell.case))
                }
                Outcome::Pass | Outcome::Skip(_) => None,
            })
            .collect()
    }

    pub fn passes(&self, program: &str) -> usize {
        self.entries
            .iter()
            .filter(|entry| entry.program == program)
            .filter(|entry| matches!(entry.cell.outcome, Outcome::Pass))
            .count()
    }

    fn cell(&self, section: &(String, String), program: &str, case: &str) -> String {
        let found = self.entries.iter().find(|entry| {
            entry.section == *section && entry.program == program && entry.cell.case == case
        });
        match found.map(|entry| &entry.cell) {
            None => "".into(),
            Some(cell) => match &cell.outcome {
                Outcome::Pass => format!("pass {} s", cell.seconds),
                Outcome::Skip(_) => "–".into(),
                Outcome::Fail(_) => "FAIL".into(),
            },
        }
    }
}

/// The distinct values, in the order of their first appearance.
fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for value in values {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let programs = distinct(self.entries.iter().map(|entry| &entry.program));
        for section in distinct(self.entries.iter().map(|entry| &entry.section)) {
            let (who, engine) = section;
            write!(f, "| {engine} as {who} |")?;
            for program in &programs {
                write!(f, " {program} |")?;
            }
            writeln!(f, "\n|---|{}", "---|".repeat(programs.len()))?;
            let rows = self
                .entries
                .iter()
                .filter(|entry| entry.section == *section);
            for case in distinct(rows.map(|entry| &entry.cell.case)) {
                write!(f, "| {} |", case.replace('_', " "))?;
                for program in &programs {
                    write!(f, " {} |", self.cell(section, program, case))?;
                }
                writeln!(f)?;
            }
            writeln!(f)?;
        }
        for program in programs {
            for failure in self.failures(program) {
                writeln!(f, "{program}: {failure}")?;
            }
        }
        Ok(())
    }
}

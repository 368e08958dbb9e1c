//! The layer trees in `fixtures/`, in every mark format, give the unions written beside them.

use std::path::PathBuf;

use super::support::lab::{Lab, build, outline};
use super::support::layers::MarkFormat;
use super::support::mount::{Stack, Subject};

/// Lowers and view of a fixture, as lines.
#[derive(Default)]
struct Fixture {
    lowers: Vec<Vec<String>>,
    view: Vec<String>,
}

fn parse(text: &str) -> Fixture {
    let mut fixture = Fixture::default();
    let mut in_view = false;
    for line in text
        .lines()
        .filter(|l| !l.trim().is_empty() && !l.starts_with('#'))
    {
        match line {
            "lower" => fixture.lowers.push(Vec::new()),
            "view" => in_view = true,
            _ if in_view => fixture.view.push(line.trim().into()),
            _ => fixture
                .lowers
                .last_mut()
                .expect("a lower was begun")
                .push(line.trim().into()),
        }
    }
    assert!(!fixture.lowers.is_empty() && !fixture.view.is_empty());
    fixture
}

fn lines(of: &[String]) -> Vec<&str> {
    of.iter().map(String::as_str).collect()
}

#[test]
fn every_fixture_gives_its_union_in_every_mark_format() {
    let Some(lab) = Lab::new() else { return };
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut fixtures: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("fixtures/ is there")
        .map(|entry| entry.expect("fixtures/ can be read").path())
        .filter(|path| path.extension().is_some_and(|e| e == "union"))
        .collect();
    fixtures.sort();
    assert!(fixtures.len() >= 9, "{fixtures:?}");
    for (i, path) in fixtures.iter().enumerate() {
        let fixture = parse(&std::fs::read_to_string(path).expect("a fixture can be read"));
        let expected = lab.path(&format!("view{i}"));
        build(&expected, MarkFormat::Overlay, &lines(&fixture.view));
        for format in MarkFormat::ALL {
            let name = format!("{i}-{}", format.name());
            let lowers: Vec<PathBuf> = (0..fixture.lowers.len())
                .map(|n| lab.layer(&format!("{name}-l{n}"), format, &lines(&fixture.lowers[n])))
                .collect();
            let read_only = lab
                .try_mount(&name, &Stack::new(&lowers), Subject::Plyfs)
                .expect("it mounts");
            assert_eq!(
                outline(read_only.path()),
                outline(&expected),
                "{}: {name}, read-only",
                path.display()
            );
            read_only.unmount().expect("it unmounts");
            let mounted = lab.mount(&name, &lowers);
            assert_eq!(
                outline(mounted.path()),
                outline(&expected),
                "{}: {name}",
                path.display()
            );
            mounted.unmount().expect("it unmounts");
        }
    }
}

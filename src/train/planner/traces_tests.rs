//! Tests of `traces`: what is read, round trips, and errors with file and line.

use super::super::synthetic;
use super::*;

const HEADER: &str = "timestep_time;vehicle_id;vehicle_x;vehicle_y;vehicle_angle;vehicle_speed;\
                      vehicle_acceleration";

fn read(text: &str) -> Result<TraceSet> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fcd.csv");
    std::fs::write(&path, text).unwrap();
    TraceSet::read(&path)
}

#[test]
fn rows_become_traces() {
    let text = format!(
        "{HEADER}\n120.00;;;;;;\n120.10;a;1.50;2.00;90.00;3.00;-0.25\n\
         120.10;b;0;0;0;1;0\r\n120.20;a;1.80;2.00;0.00;3.00;0\n\n120.40;a;2;2;180;1;0\n"
    );
    let set = read(&text).unwrap();
    assert_eq!(set.step_seconds, 0.1);
    let summary: Vec<(&str, u64, usize)> =
        set.traces.iter().map(|t| (t.vehicle.as_str(), t.first_tick, t.states.len())).collect();
    // `a` is away at 120.30.
    assert_eq!(summary, [("a", 1, 2), ("b", 1, 1), ("a", 4, 1)]);
    let first = set.traces[0].states[0];
    assert_eq!((first.x, first.y, first.speed, first.acceleration), (1.5, 2.0, 3.0, -0.25));
    assert_eq!(first.heading, 0.0);
    assert!((set.traces[0].states[1].heading - std::f32::consts::FRAC_PI_2).abs() < 1e-6);
    assert_eq!(set.rows(), 4);
}

#[test]
fn columns_may_be_in_any_order_and_more() {
    let text =
        "id;lane;time;speed;angle;y;x;acceleration\na;e_0;0;5;90;2;1;0\na;e_0;0.5;5;90;2;3;0";
    let set = read(text).unwrap();
    assert_eq!(set.step_seconds, 0.5);
    assert_eq!((set.traces[0].states[1].x, set.traces[0].states[1].y), (3.0, 2.0));
}

#[test]
fn a_teleport_starts_a_new_trace_and_a_lane_change_does_not() {
    let rows = |y: f64| format!("{HEADER}\n0;a;0;0;90;10;0\n0.1;a;1;{y};90;10;0\n");
    assert_eq!(read(&rows(3.5)).unwrap().traces.len(), 1);
    assert_eq!(read(&rows(300.0)).unwrap().traces.len(), 2);
}

#[test]
fn errors_name_file_and_line() {
    let good = "0;a;0;0;90;10;0\n";
    let cases = [
        (String::new(), "no rows"),
        (format!("{HEADER}\n"), "no rows"),
        (format!("{HEADER}\n{good}"), "only one time step"),
        ("timestep_time;vehicle_id\n".to_string(), "line 1: no column vehicle_x"),
        (format!("{HEADER}\n{good}0.1;a;0;0;90;10\n"), "line 3: 6 columns; the header has 7"),
        (format!("{HEADER}\n{good}0.1;a;0;zero;90;10;0\n"), "line 3: 'zero' for y"),
        (format!("{HEADER}\n{good}0.1;a;0;NaN;90;10;0\n"), "line 3: 'NaN' for y"),
        (format!("{HEADER}\n{good};a;0;0;90;10;0\n"), "line 3: '' for time"),
        (format!("{HEADER}\n{good}0.1;b;0;0;90;10;0\n{good}"), "line 4: time 0 after 0.1"),
        (format!("{HEADER}\n{good}{good}"), "line 3: vehicle 'a' has two rows"),
        (
            format!("{HEADER}\n{good}0.1;a;0;0;90;10;0\n0.25;a;0;0;90;10;0\n"),
            "line 4: time 0.25 is not on the grid of 0.1 s",
        ),
    ];
    for (text, wanted) in cases {
        let error = read(&text).unwrap_err();
        assert!(error.message.contains("fcd.csv"), "{error}");
        assert!(error.message.contains(wanted), "{error} has no {wanted:?}");
        assert_eq!(error.exit_code(), 2);
    }
    let mut bytes = format!("{HEADER}\n").into_bytes();
    bytes.extend([0xff, 0xfe, b'\n']);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fcd.csv");
    std::fs::write(&path, bytes).unwrap();
    assert!(TraceSet::read(&path).unwrap_err().message.contains("line 2: cannot read"));
    assert!(TraceSet::read(&folder.path().join("none")).unwrap_err().message.contains("none"));
}

#[test]
fn what_is_written_is_read_back_to_two_decimals() {
    let mut set = synthetic::traces(5, 12.0, 3);
    set.traces[2].first_tick = 7;
    set.traces[4].states.truncate(1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fcd.csv");
    set.write(&path).unwrap();
    let back = TraceSet::read(&path).unwrap();
    assert_eq!((back.step_seconds, back.rows()), (set.step_seconds, set.rows()));
    for trace in &set.traces {
        let found = back.traces.iter().find(|t| t.vehicle == trace.vehicle).unwrap();
        assert_eq!(found.first_tick, trace.first_tick);
        for (a, b) in trace.states.iter().zip(&found.states) {
            assert!((a.x - b.x).abs() <= 0.0051 && (a.y - b.y).abs() <= 0.0051);
            assert!(turned(a.heading, b.heading).abs() < 1e-4);
            assert!((a.speed - b.speed).abs() <= 0.0051);
        }
    }
}

#[test]
fn between_states_it_is_linear_and_turns_the_short_way() {
    let state = |x: f64, heading: f32| State { x, heading, speed: 2.0, ..State::default() };
    let states = vec![state(0.0, 3.0), state(2.0, -3.0), state(3.0, -3.0)];
    let trace = Trace { vehicle: "a".into(), first_tick: 0, states };
    assert_eq!(trace.at(1.0), trace.states[1]);
    assert_eq!(trace.at(2.0 + 1e-9), trace.states[2]);
    let middle = trace.at(0.5);
    assert_eq!(middle.x, 1.0);
    assert!((middle.heading - std::f32::consts::PI).abs() < 1e-6, "{middle:?}");
    assert!((trace.at(1.25).x - 2.25).abs() < 1e-12);
}

//! What flow control counts, under upstream's names.

use super::Control;
use super::level::Refusal;
use crate::ports::MetricSource;
use std::fmt::Write;
use std::sync::atomic::Ordering;

/// What a gauge shows of a level.
type Gauge = fn(&super::level::Level) -> i64;

impl MetricSource for Control {
    fn write(&self, out: &mut String) {
        let config = self.config.load_full();
        // Writing to a String cannot fail.
        let mut family = |kind: &str, name: &str, help: &str, rows: &mut dyn FnMut(&mut String, &str)| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            rows(out, name);
        };
        let name = "apiserver_flowcontrol_dispatched_requests_total";
        family("counter", name, "Requests that ran, by flow schema.", &mut |out, name| {
            for s in &config.schemas {
                let count = s.dispatched.load(Ordering::Relaxed);
                let (schema, level) = (&s.name, &s.level.name);
                let _ =
                    writeln!(out, "{name}{{flow_schema=\"{schema}\",priority_level=\"{level}\"}} {count}");
            }
        });
        let name = "apiserver_flowcontrol_rejected_requests_total";
        family("counter", name, "Requests refused, by level and reason.", &mut |out, name| {
            for level in config.levels.values() {
                for (at, why) in Refusal::ALL.iter().enumerate() {
                    let count = level.refused[at].load(Ordering::Relaxed);
                    let (level, why) = (&level.name, why.as_str());
                    if count > 0 {
                        let _ =
                            writeln!(out, "{name}{{priority_level=\"{level}\",reason=\"{why}\"}} {count}");
                    }
                }
            }
        });
        let gauges: [(&str, &str, Gauge); 5] = [
            ("current_inqueue_requests", "Requests that wait.", |l| l.waiting.load(Ordering::Relaxed)),
            ("current_executing_requests", "Requests that run.", |l| l.running.load(Ordering::Relaxed)),
            ("current_executing_seats", "Seats taken.", |l| l.taken.load(Ordering::Relaxed)),
            ("nominal_limit_seats", "Seats by configuration.", |l| l.seating().nominal),
            ("current_limit_seats", "Seats with what is lent and borrowed.", |l| {
                l.limit.load(Ordering::Relaxed)
            }),
        ];
        for (name, help, value) in gauges {
            family("gauge", &format!("apiserver_flowcontrol_{name}"), help, &mut |out, name| {
                for level in config.levels.values() {
                    let _ = writeln!(out, "{name}{{priority_level=\"{}\"}} {}", level.name, value(level));
                }
            });
        }
    }
}

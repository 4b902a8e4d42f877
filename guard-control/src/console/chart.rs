//! Charts, drawn here as SVG: counts enter, a drawing and its words for who cannot see it leave.

use jiff::{Timestamp, tz::TimeZone};
use maud::{Markup, html};

use super::show;
use crate::reading::{Bucket, History};

const WIDTH: u64 = 960;
const HEIGHT: u64 = 180;
/// Room for the words below.
const FOOT: u64 = 22;
/// Least height of a bar that stands for something.
const LEAST: u64 = 2;

/// Decisions over time, a bar for each part, what was refused on top.
pub fn history(history: &History) -> Markup {
    let top = history.buckets.iter().map(|bucket| bucket.total()).max().unwrap_or(0);
    let total = history.total();
    let words = format!(
        "Decisions over time: {} allowed, {} refused or held, {} that policy would refuse; at most {} in one part",
        total.allowed, total.refused, total.would, top
    );
    let slot = WIDTH / (history.buckets.len() as u64).max(1);
    html! {
        figure.chart {
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT + FOOT) } role="img" aria-label=(words) preserveAspectRatio="none" {
                @for quarter in 1..=3 {
                    @let y = HEIGHT * quarter / 4;
                    line.grid x1="0" x2=(WIDTH) y1=(y) y2=(y) {}
                }
                line.base x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) {}
                @for (at, bucket) in history.buckets.iter().enumerate() {
                    (bar(*bucket, (at as u64 * slot, slot), top, &title(history, at)))
                }
            }
            figcaption.axis aria-hidden="true" {
                @for part in [0, 1, 2, 3, 4] {
                    @let at = history.since + history.step * (history.buckets.len() as i64 * part / 4);
                    span { (label(at, history)) }
                }
            }
        }
    }
}

fn bar(bucket: Bucket, (x, slot): (u64, u64), top: u64, title: &str) -> Markup {
    let height = |count: u64| match count {
        0 => 0,
        count => {
            (u128::from(count) * u128::from(HEIGHT) / u128::from(top.max(1))).max(u128::from(LEAST)) as u64
        }
    };
    let (allowed, would, refused) = (height(bucket.allowed), height(bucket.would), height(bucket.refused));
    // What is refused is seen, whatever else there is: the highest part gives way.
    let allowed = allowed.min(HEIGHT.saturating_sub(would + refused));
    let width = slot.saturating_sub(4).max(1);
    let mut floor = HEIGHT;
    let mut parts = Vec::new();
    for (class, part) in [("allowed", allowed), ("would", would), ("refused", refused)] {
        let part = part.min(floor);
        floor -= part;
        if part > 0 {
            parts.push((class, floor, part));
        }
    }
    html! {
        g.bar {
            title { (title) }
            rect.hit x=(x) y="0" width=(slot) height=(HEIGHT) {}
            @for (class, y, part) in parts {
                rect class=(class) x=(x + 2) y=(y) width=(width) height=(part) rx="1.5" {}
            }
        }
    }
}

fn title(history: &History, at: usize) -> String {
    let bucket = history.buckets.get(at).copied().unwrap_or_default();
    let begin = history.since + history.step * at as i64;
    format!(
        "from {}: {} allowed, {} refused, {} would be refused",
        label(begin, history),
        bucket.allowed,
        bucket.refused,
        bucket.would
    )
}

fn label(micros: i64, history: &History) -> String {
    let days = history.step * history.buckets.len() as i64 > 26 * 3_600 * 1_000_000;
    let form = if days { "%b %d" } else { "%H:%M" };
    let at = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH);
    at.to_zoned(TimeZone::UTC).strftime(form).to_string()
}

/// Shares of a whole in one line, each with its name and number.
pub fn shares(name: &str, parts: &[(&'static str, &str, u64)]) -> Markup {
    let total: u64 = parts.iter().map(|(_, _, count)| count).sum();
    let words: Vec<_> = parts.iter().map(|(_, name, count)| format!("{count} {name}")).collect();
    let mut x = 0;
    let mut drawn = Vec::new();
    for (class, _, count) in parts {
        let width = (WIDTH * count).checked_div(total).unwrap_or(0);
        if width > 0 {
            drawn.push((*class, x, width));
        }
        x += width;
    }
    html! {
        figure.shares {
            svg viewBox={ "0 0 " (WIDTH) " 14" } preserveAspectRatio="none" role="img"
                aria-label={ (name) ": " (words.join(", ")) } {
                rect.track x="0" y="0" width=(WIDTH) height="14" {}
                @for (class, x, width) in drawn { rect class=(class) x=(x) y="0" width=(width) height="14" {} }
            }
            figcaption {
                @for (class, name, count) in parts {
                    span.key { span class={ "dot " (class) } {} (show::number(*count)) " " (name) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_stays_within_its_frame_whatever_the_numbers_are() {
        let extreme = Bucket { allowed: u64::MAX / 4, refused: 1, would: u64::MAX / 4, non_proxied: 0 };
        let buckets = vec![extreme, Bucket::default(), Bucket { refused: 1, ..Bucket::default() }];
        let drawn = history(&History { since: 0, step: 1, buckets, causes: Vec::new() }).into_string();
        for part in drawn.split("<rect").skip(1) {
            let value = |name: &str| -> u64 {
                let rest = part.split(&format!(" {name}=\"")).nth(1).unwrap();
                rest.split('"').next().unwrap().parse().unwrap()
            };
            assert!(value("y") + value("height") <= HEIGHT, "{part}");
        }
        history(&History { since: i64::MAX / 2, step: 0, buckets: Vec::new(), causes: Vec::new() });
        shares("none", &[("allowed", "allowed", 0)]);
    }

    #[test]
    fn one_refusal_among_millions_is_still_seen() {
        let bucket = Bucket { allowed: 10_000_000, refused: 1, ..Bucket::default() };
        let drawn = bar(bucket, (0, 20), 10_000_001, "").into_string();
        assert!(drawn.contains("class=\"refused\""), "{drawn}");
        let bucket = Bucket { would: 3_000_000, ..bucket };
        let drawn = bar(bucket, (0, 20), bucket.total(), "").into_string();
        assert!(drawn.contains("class=\"refused\"") && drawn.contains("class=\"would\""), "{drawn}");
    }
}

//! The cost of an orphan over the number of live ones, as a picture.
#![forbid(unsafe_code)]

use super::report::{Measured, Report};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 64.0;
/// Room for the names.
const RIGHT: f64 = 190.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 48.0;
/// The least distance of two names.
const LINE: f64 = 16.0;
/// Ours are greens and thick. All can be read on light and on dark, as the grey of the texts can.
const OURS: [&str; 4] = ["#0a8f5b", "#12b886", "#2f9e44", "#66a80f"];
const PEERS: [&str; 5] = ["#e8590c", "#c2255c", "#7048e8", "#1c7ed6", "#868e96"];

/// A picture that stands for itself, on a light or a dark page.
pub fn svg(report: &Report) -> String {
    let points = report.inits.iter().flat_map(|init| &init.orphans);
    let most_live = points.clone().map(|point| f64::from(point.live)).fold(1.0, f64::max);
    let top = round_up(points.map(|point| point.cpu_us).fold(1.0, f64::max));
    let x = |live: u32| LEFT + f64::from(live) / most_live * (WIDTH - LEFT - RIGHT);
    let y = |cost: f64| HEIGHT - BOTTOM - cost / top * (HEIGHT - TOP - BOTTOM);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
         <style>text{{fill:#768390}}.grid{{stroke:#8884}}</style>\n\
         <title>CPU time of the init for each reaped orphan</title>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\" font-weight=\"600\">CPU time of the init for each reaped orphan</text>\n\
         <text x=\"{LEFT}\" y=\"40\">microseconds, while so many other orphans live; lower is better</text>\n"
    );
    for quarter in 0..=4 {
        let cost = top * f64::from(quarter) / 4.0;
        let (right, y) = (WIDTH - RIGHT, y(cost));
        text += &format!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\n");
        let (end, base) = (LEFT - 8.0, y + 4.0);
        text += &format!("<text x=\"{end}\" y=\"{base:.1}\" text-anchor=\"end\">{}</text>\n", short(cost));
    }
    for point in report.inits.first().map_or(&[][..], |init| &init.orphans) {
        let (x, base) = (x(point.live), HEIGHT - BOTTOM + 20.0);
        text += &format!("<text x=\"{x:.1}\" y=\"{base}\" text-anchor=\"middle\">{}</text>\n", point.live);
    }
    let (middle, base) = ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0);
    text += &format!("<text x=\"{middle}\" y=\"{base}\" text-anchor=\"middle\">live orphans</text>\n");
    let colours = colours(&report.inits);
    for (init, colour) in report.inits.iter().zip(&colours) {
        let line: Vec<_> =
            init.orphans.iter().map(|point| format!("{:.1},{:.1}", x(point.live), y(point.cpu_us))).collect();
        text += &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{}\" stroke-linejoin=\"round\"/>\n",
            line.join(" "),
            if is_ours(init) { 3.0 } else { 1.5 }
        );
        for point in &init.orphans {
            text += &format!(
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>\n",
                x(point.live),
                y(point.cpu_us)
            );
        }
    }
    let ends: Vec<_> = report.inits.iter().map(|init| y(last_cost(init))).collect();
    for ((init, colour), at) in report.inits.iter().zip(&colours).zip(apart(&ends, HEIGHT - BOTTOM)) {
        let (x, base) = (WIDTH - RIGHT + 10.0, at + 4.0);
        text += &format!(
            "<text x=\"{x}\" y=\"{base:.1}\" style=\"fill:{colour}\" font-weight=\"600\">{}: {} µs</text>\n",
            escaped(&init.name),
            short(last_cost(init))
        );
    }
    text + "</svg>\n"
}

fn last_cost(init: &Measured) -> f64 {
    init.orphans.last().map_or(0.0, |point| point.cpu_us)
}

fn is_ours(init: &Measured) -> bool {
    init.name.starts_with("sexton")
}

fn colours(inits: &[Measured]) -> Vec<&'static str> {
    let (mut ours, mut peers) = (OURS.iter().cycle(), PEERS.iter().cycle());
    let next = |init: &Measured| if is_ours(init) { ours.next() } else { peers.next() };
    inits.iter().map(next).map(|colour| colour.copied().unwrap_or("#868e96")).collect()
}

/// The next number that reads well: 1, 2, 4 or 8 times a power of ten.
fn round_up(number: f64) -> f64 {
    let power = 10_f64.powf(number.log10().floor());
    [1.0, 2.0, 4.0, 8.0].map(|step| step * power).into_iter().find(|round| *round >= number).unwrap_or(power * 10.0)
}

fn short(number: f64) -> String {
    if number >= 10.0 || number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.1}") }
}

/// Moves heights apart so that no two texts overlap: upwards from the lowest, as near as can be.
fn apart(heights: &[f64], lowest: f64) -> Vec<f64> {
    let mut order: Vec<_> = (0..heights.len()).collect();
    order.sort_by(|a, b| height(heights, *b).total_cmp(&height(heights, *a)));
    let mut placed = vec![0.0; heights.len()];
    let mut limit = lowest;
    for index in order {
        let at = height(heights, index).min(limit);
        if let Some(place) = placed.get_mut(index) {
            *place = at;
        }
        limit = at - LINE;
    }
    placed
}

fn height(heights: &[f64], index: usize) -> f64 {
    heights.get(index).copied().unwrap_or(0.0)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_in_a_round_number() {
        for (number, round) in [(1.0, 1.0), (3.0, 4.0), (273.0, 400.0), (8.1, 10.0), (520.0, 800.0)] {
            assert!((round_up(number) - round).abs() < 1e-9, "{number}");
        }
    }

    #[test]
    fn names_do_not_overlap() {
        let placed = apart(&[352.0, 352.0, 100.0, 350.0], 352.0);
        for (index, one) in placed.iter().enumerate() {
            assert!(placed.iter().skip(index + 1).all(|other| (one - other).abs() >= LINE), "{placed:?}");
        }
        assert!((placed[2] - 100.0).abs() < f64::EPSILON);
    }
}

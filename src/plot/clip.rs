//! Cuts lines and areas to the plot area.

use super::scene::{Point, Rectangle};

/// The parts of a polyline inside `area`.
pub(super) fn clip_line(points: &[Point], area: &Rectangle) -> Vec<Vec<Point>> {
    let mut runs: Vec<Vec<Point>> = Vec::new();
    for pair in points.windows(2) {
        let Some((from, to)) = clip_segment(pair[0], pair[1], area) else {
            continue;
        };
        match runs.last_mut() {
            Some(run) if run.last() == Some(&from) => run.push(to),
            _ => runs.push(vec![from, to]),
        }
    }
    runs
}

/// The part of a segment inside `area` (Liang and Barsky).
fn clip_segment(from: Point, to: Point, area: &Rectangle) -> Option<(Point, Point)> {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let (mut enter, mut leave) = (0.0f64, 1.0f64);
    for (speed, room) in [
        (-dx, from.0 - area.left),
        (dx, area.right - from.0),
        (-dy, from.1 - area.top),
        (dy, area.bottom - from.1),
    ] {
        if speed == 0.0 {
            if room < 0.0 {
                return None;
            }
        } else if speed < 0.0 {
            enter = enter.max(room / speed);
        } else {
            leave = leave.min(room / speed);
        }
    }
    let at = |share: f64| (from.0 + share * dx, from.1 + share * dy);
    (enter <= leave).then(|| {
        (
            if enter > 0.0 { at(enter) } else { from },
            if leave < 1.0 { at(leave) } else { to },
        )
    })
}

/// The part of a polygon inside `area` (Sutherland and Hodgman).
pub(super) fn clip_polygon(points: &[Point], area: &Rectangle) -> Vec<Point> {
    type Depth = fn(Point, &Rectangle) -> f64;
    let depths: [Depth; 4] = [
        |p, area| p.0 - area.left,
        |p, area| area.right - p.0,
        |p, area| p.1 - area.top,
        |p, area| area.bottom - p.1,
    ];
    let mut points = points.to_vec();
    for depth in depths {
        let Some(&last) = points.last() else { break };
        let mut previous = last;
        let mut kept = Vec::with_capacity(points.len());
        for &point in &points {
            let (before, now) = (depth(previous, area), depth(point, area));
            if (before < 0.0) != (now < 0.0) {
                let share = before / (before - now);
                kept.push((
                    previous.0 + share * (point.0 - previous.0),
                    previous.1 + share * (point.1 - previous.1),
                ));
            }
            if now >= 0.0 {
                kept.push(point);
            }
            previous = point;
        }
        points = kept;
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREA: Rectangle = Rectangle {
        left: 0.0,
        top: 0.0,
        right: 10.0,
        bottom: 10.0,
    };

    #[test]
    fn a_line_that_leaves_and_returns_is_cut_into_two_runs() {
        let runs = clip_line(&[(5.0, 5.0), (15.0, 5.0), (15.0, 6.0), (5.0, 6.0)], &AREA);
        assert_eq!(runs, [[(5.0, 5.0), (10.0, 5.0)], [(10.0, 6.0), (5.0, 6.0)]]);
    }

    #[test]
    fn a_line_outside_leaves_nothing() {
        assert!(clip_line(&[(-5.0, -1.0), (15.0, -1.0)], &AREA).is_empty());
        assert!(clip_line(&[(1.0, 1.0)], &AREA).is_empty());
    }

    #[test]
    fn a_polygon_around_the_area_becomes_the_area() {
        let around = [(-5.0, -5.0), (15.0, -5.0), (15.0, 15.0), (-5.0, 15.0)];
        let clipped = clip_polygon(&around, &AREA);
        assert_eq!(clipped.len(), 4);
        for corner in AREA.corners() {
            assert!(clipped.contains(&corner));
        }
        assert!(clip_polygon(&[(20.0, 0.0), (30.0, 0.0), (20.0, 5.0)], &AREA).is_empty());
    }
}

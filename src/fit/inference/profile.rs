//! Profile-likelihood intervals of linear forms.

use super::constrained::{Plane, Point};
use super::missing::Missing;
use crate::backend::Backend;
use crate::fit::bounds::Bounds;
use crate::model::{Data, Parameters};
use ndarray::Array1;
use statrs::distribution::{ContinuousCDF, Normal};

/// Largest error of the deviance at an end, in units of one plus that quantile; more
/// where the log-likelihood's own rounding is more.
const DEVIANCE: f64 = 1e-8;
/// A log-likelihood above the fit's by more is a better one.
const BETTER: f64 = 1e-5;
/// Most constrained fits on one side.
const MAX_FITS: usize = 80;
/// Outwards, one constrained fit lies no farther than this many times as far as the last.
const STRIDE: f64 = 3.0;
/// Beyond this many half-widths of the Wald interval an open side is unbounded.
const FARTHEST: f64 = 1e4;
/// Relative width of a bracket that cannot be divided further.
const NARROW: f64 = 1e-11;

/// The maximum of the likelihood where a linear form has one value.
#[derive(Clone, Debug, PartialEq)]
pub struct ConstrainedMaximum {
    /// w . packed
    pub value: f64,
    /// l there.
    pub log_likelihood: f64,
    /// Where. Shape: P.
    pub packed: Vec<f64>,
}

/// One end of a profile interval.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// The deviance reaches the quantile here.
    Quantile(ConstrainedMaximum),
    /// The parameter set ends here, with the deviance still below the quantile.
    Bound(ConstrainedMaximum),
    /// The deviance stays below the quantile however far out: no end.
    Unbounded,
}

/// A profile-likelihood interval of w . packed.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileInterval {
    /// Lower end.
    pub low: End,
    /// Upper end.
    pub high: End,
    /// Passes over the data that it took.
    pub passes: usize,
}

/// The profile-likelihood interval of w . packed,
///
/// ```text
/// { c : 2 (l(maximum) - max_{w . theta = c} l(theta)) <= chi2_1 quantile of level },
/// ```
///
/// of which the part is returned that is connected with the maximum. From the maximum
/// outwards, each constrained maximum is reached from its neighbour along its velocity
/// d theta / d c; ends are roots of the signed root r(c) of the deviance, by Newton's
/// method with r' = -(d l / d c) / r, held in a bracket.
///
/// Infinite bounds mark coordinates that may go to infinity (gates). A side that ends in
/// one is unbounded if the deviance is below the quantile at 10^4 times the half-width of
/// the Wald interval.
///
/// # Errors
/// [`Missing::Held`] if no weight lies on a coordinate that may move; otherwise what
/// stopped the path.
///
/// # Shapes
/// `weights`: P.
pub fn profile_interval(
    backend: &dyn Backend,
    data: &Data,
    maximum: &Parameters,
    bounds: &Bounds,
    weights: &[f64],
    level: f64,
) -> Result<ProfileInterval, Missing> {
    let layout = maximum.layout();
    let size = layout.len();
    let mut packed = layout.pack(maximum);
    bounds.project(&mut packed);
    let mut plane = Plane {
        backend,
        data,
        template: maximum,
        layout: &layout,
        bounds,
        weights: Array1::zeros(size),
        scale: Array1::ones(size),
        passes: 0,
    };
    let given = plane.point(packed).ok_or(Missing::NotFinite)?;
    let diagonal = given.derivatives.hessian.diag().mapv(f64::abs);
    let largest = diagonal.iter().fold(f64::MIN_POSITIVE, |m, v| m.max(*v));
    plane.scale = diagonal.mapv(|v| v.max(1e-12 * largest).sqrt());
    let stated = given.derivatives.log_likelihood;
    let form: f64 = weights.iter().zip(&given.packed).map(|(w, p)| w * p).sum();
    // Fits are certified to 1e-6; deviances here to less.
    let best = plane.maximise(given).ok_or(Missing::NoConvergence(form))?;
    let gain = best.derivatives.log_likelihood - stated;
    if gain > BETTER {
        return Err(better(&plane, &best, gain));
    }
    let free = |j: usize| !bounds.is_pinned(j);
    let own = (0..size).map(|j| if free(j) { weights[j] } else { 0.0 });
    plane.weights = own.collect();
    if plane.weights.iter().all(|w| *w == 0.0) {
        return Err(Missing::Held);
    }
    // What pinned coordinates add to the form.
    let offset = (0..size).filter(|&j| !free(j));
    let offset: f64 = offset.map(|j| weights[j] * best.packed[j]).sum();
    let root = Normal::standard().inverse_cdf(0.5 + 0.5 * level);
    let mut end = |sign: f64| {
        let mut side = Side {
            plane: &mut plane,
            best: &best,
            sign,
            root,
            offset,
        };
        side.end()
    };
    let (low, high) = (end(-1.0)?, end(1.0)?);
    Ok(ProfileInterval {
        low,
        high,
        passes: plane.passes,
    })
}

fn better(plane: &Plane, point: &Point, gain: f64) -> Missing {
    Missing::BetterMaximum {
        gain,
        parameters: Box::new(plane.parameters(&point.packed)),
    }
}

/// One side of an interval; distances are those of the form from its best value.
struct Side<'a, 'b> {
    plane: &'a mut Plane<'b>,
    best: &'a Point,
    sign: f64,
    /// The root of the quantile.
    root: f64,
    offset: f64,
}

/// A constrained maximum on the path.
struct Visited {
    distance: f64,
    point: Point,
}

impl Side<'_, '_> {
    fn end(&mut self) -> Result<End, Missing> {
        let centre = self.plane.form(&self.best.packed);
        let farthest = self.farthest(centre);
        let half_width = self.root * self.standard_error();
        let tolerance = DEVIANCE * (1.0 + self.root * self.root);
        let best = self.best.derivatives.log_likelihood;
        let tolerance = tolerance.max(1e-12 * best.abs());
        let mut inner = Visited {
            distance: 0.0,
            point: self.best.clone(),
        };
        let mut outer: Option<Visited> = None;
        let mut next = half_width.min(farthest);
        let mut found = None;
        if farthest <= 1e-12 * half_width {
            return Ok(End::Bound(self.constrained(self.best)));
        }
        for _ in 0..MAX_FITS {
            let value = centre + self.sign * next;
            let Some(point) = self.fit(&inner, outer.as_ref(), value, next) else {
                // Too far from the neighbour.
                let nearer = 0.5 * (inner.distance + next);
                if nearer - inner.distance <= 1e-3 * inner.distance.max(1e-3 * half_width) {
                    return Err(Missing::NoConvergence(value + self.offset));
                }
                next = nearer;
                continue;
            };
            let loss = best - point.derivatives.log_likelihood;
            if -loss > BETTER {
                return Err(better(self.plane, &point, -loss));
            }
            let deviance = 2.0 * loss.max(0.0);
            let root = deviance.sqrt();
            if (deviance - self.root * self.root).abs() <= tolerance {
                found = Some(point);
                break;
            }
            let speed = -self.sign * self.plane.multiplier(&point) / root;
            let newton = next + (self.root - root) / speed;
            let visited = Visited {
                distance: next,
                point,
            };
            if root < self.root {
                if visited.distance >= farthest {
                    return Ok(End::Bound(self.constrained(&visited.point)));
                }
                if outer.is_none()
                    && visited.distance >= FARTHEST * half_width
                    && farthest.is_infinite()
                {
                    return Ok(End::Unbounded);
                }
                inner = visited;
            } else {
                outer = Some(visited);
            }
            let [low, high] = match &outer {
                None => [inner.distance, (STRIDE * inner.distance).min(farthest)],
                Some(outer) => [inner.distance, outer.distance],
            };
            if high - low <= NARROW * high {
                return Err(Missing::Jump(centre + self.sign * high + self.offset));
            }
            let inside = speed > 0.0 && newton > low && newton < high;
            next = match (inside, &outer) {
                (true, _) => newton,
                (false, None) => high,
                (false, Some(_)) => 0.5 * (low + high),
            };
        }
        match found {
            Some(point) => Ok(End::Quantile(self.constrained(&point))),
            None => Err(Missing::NoConvergence(
                centre + self.sign * next + self.offset,
            )),
        }
    }

    /// How far the box lets the form go.
    fn farthest(&self, centre: f64) -> f64 {
        let bounds = self.plane.bounds;
        let extreme = |(j, w): (usize, &f64)| match *w * self.sign {
            0.0 => 0.0,
            up if up > 0.0 => w * bounds.high[j],
            _ => w * bounds.low[j],
        };
        let end: f64 = self.plane.weights.iter().enumerate().map(extreme).sum();
        (self.sign * (end - centre)).max(0.0)
    }

    /// The standard error from the bend of the profile at the maximum.
    fn standard_error(&self) -> f64 {
        let at_bound = |j: &usize| self.plane.bounds.is_at_bound(&self.best.packed, *j);
        let held: Vec<usize> = (0..self.best.packed.len()).filter(at_bound).collect();
        let hessian = &self.best.derivatives.hessian;
        let velocity = self.plane.velocity(self.best, &held);
        let bend = velocity.map_or(0.0, |v| -v.dot(&hessian.dot(&v)));
        match bend > 0.0 {
            true => 1.0 / bend.sqrt(),
            false => {
                let scaled = &self.plane.weights / &self.plane.scale;
                scaled.dot(&scaled).sqrt()
            }
        }
    }

    /// The constrained maximum at `value`, from the nearer neighbour, else from the other.
    fn fit(
        &mut self,
        inner: &Visited,
        outer: Option<&Visited>,
        value: f64,
        distance: f64,
    ) -> Option<Point> {
        let mut starts = vec![inner];
        starts.extend(outer);
        starts.sort_by(|a, b| {
            let gap = |v: &Visited| (v.distance - distance).abs();
            gap(a).total_cmp(&gap(b))
        });
        starts.into_iter().find_map(|start| {
            let point = self.plane.advance(&start.point, value)?;
            self.plane.maximise(point)
        })
    }

    fn constrained(&self, point: &Point) -> ConstrainedMaximum {
        ConstrainedMaximum {
            value: self.plane.form(&point.packed) + self.offset,
            log_likelihood: point.derivatives.log_likelihood,
            packed: point.packed.clone(),
        }
    }
}

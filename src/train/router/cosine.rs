//! Cosine scores: XMoE (Chi et al. 2022) and perturbed cosine (Nguyen et al. 2024).
//!
//! u = x W (a linear map to a few dimensions), v_e an expert's embedding:
//! z_te = u_t . v_e / (n(u_t) n(v_e) tau), n(a) = |a| + theta; theta = 0 is XMoE.
//! With [`Normalised::ExpertsOnly`] n(u) = 1.
//!
//! dL/du = sum_e g_e (v_e / (n(u) n(v_e) tau) - z_e u / (|u| n(u))), v alike,
//! dL/dtau = - sum g z / tau.

use crate::train::ops::real::{Real, dot, vectorised};
use crate::train::ops::rows;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Whose length is divided out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalised {
    /// A cosine.
    Both,
    /// torchscale's XMoE.
    ExpertsOnly,
}

/// The constants of the scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cosine {
    /// Whose length is divided out.
    pub normalised: Normalised,
    /// Added to lengths: 0, or 0.1 for the perturbed cosine.
    pub theta: f64,
    /// Width of u and v.
    pub width: usize,
}

/// Gradients of the scores' arguments.
#[derive(Debug)]
pub struct Gradients<'a, T> {
    /// Written. Shape: tokens, width.
    pub u: &'a mut [T],
    /// Added to. Shape: experts, width.
    pub v: &'a mut [T],
    /// Of the temperature, added to.
    pub tau: &'a mut f64,
}

/// Lengths below this count as this: a zero vector has score 0.
const SHORTEST: f64 = 1e-12;

/// |a|, and |a| + theta.
fn lengths<T: Real>(a: &[T], theta: f64) -> [T; 2] {
    let length = dot(a, a).sqrt().larger(T::of(SHORTEST));
    [length, length + T::of(theta)]
}

impl Cosine {
    fn of_token<T: Real>(&self, u: &[T]) -> [T; 2] {
        match self.normalised {
            Normalised::Both => lengths(u, self.theta),
            Normalised::ExpertsOnly => [T::ONE, T::ONE],
        }
    }

    fn of_tokens<T: Real>(&self, u: &[T]) -> Vec<[T; 2]> {
        let tokens = u.par_chunks_exact(self.width).with_min_len(256);
        tokens.map(|u| self.of_token(u)).collect()
    }

    fn of_experts<T: Real>(&self, v: &[T]) -> Vec<[T; 2]> {
        let experts = v.chunks_exact(self.width);
        experts.map(|v| lengths(v, self.theta)).collect()
    }

    /// Writes z.
    ///
    /// # Shapes
    /// u: tokens, width. v: experts, width. scores: tokens, experts.
    pub fn forward<T: Real>(&self, u: &[T], v: &[T], tau: f64, scores: &mut [T]) {
        let (width, experts) = (self.width, v.len() / self.width);
        let norms = self.of_experts(v);
        rows::for_each(scores, experts, |token, scores| {
            let u = &u[token * width..][..width];
            let [_, u_norm] = self.of_token(u);
            let embeddings = v.chunks_exact(width).zip(&norms);
            vectorised!(|| {
                for ((v, [_, v_norm]), z) in embeddings.zip(scores) {
                    *z = dot(u, v) / (u_norm * *v_norm * T::of(tau));
                }
            });
        });
    }

    /// The gradients.
    ///
    /// # Shapes
    /// As in [`Cosine::forward`]; `scores` as it wrote them, d_scores alike.
    pub fn backward<T: Real>(
        &self,
        u: &[T],
        v: &[T],
        tau: f64,
        scores: &[T],
        d_scores: &[T],
        gradients: Gradients<T>,
    ) {
        let (width, experts) = (self.width, v.len() / self.width);
        let (u_norms, v_norms) = (self.of_tokens(u), self.of_experts(v));
        let at = |token: usize, expert: usize| {
            let at = token * experts + expert;
            (scores[at], d_scores[at])
        };
        let along_tau = rows::map_blocks(gradients.u, width, |first, du| {
            let mut along_tau = 0.0;
            for (i, du) in du.chunks_exact_mut(width).enumerate() {
                let token = first + i;
                let u = &u[token * width..][..width];
                let [u_length, u_norm] = u_norms[token];
                du.fill(T::ZERO);
                for (expert, v) in v.chunks_exact(width).enumerate() {
                    let (z, g) = at(token, expert);
                    along_tau -= g.wide() * z.wide() / tau;
                    let across = g / (u_norm * v_norms[expert][1] * T::of(tau));
                    let along = match self.normalised {
                        Normalised::Both => g * z / (u_length * u_norm),
                        Normalised::ExpertsOnly => T::ZERO,
                    };
                    for ((du, &v), &u) in du.iter_mut().zip(v).zip(u) {
                        *du += across * v - along * u;
                    }
                }
            }
            along_tau
        });
        *gradients.tau += along_tau.iter().sum::<f64>();
        let rows = gradients.v.par_chunks_exact_mut(width).enumerate();
        rows.for_each(|(expert, dv)| {
            let v = &v[expert * width..][..width];
            let [v_length, v_norm] = v_norms[expert];
            for (token, u) in u.chunks_exact(width).enumerate() {
                let (z, g) = at(token, expert);
                let across = g / (u_norms[token][1] * v_norm * T::of(tau));
                let along = g * z / (v_length * v_norm);
                for ((dv, &u), &v) in dv.iter_mut().zip(u).zip(v) {
                    *dv += across * u - along * v;
                }
            }
        });
    }
}

/// Gives every embedding this length. Belongs after the optimiser's step, never
/// into the forward pass, which must be able to run twice.
///
/// # Shapes
/// v: experts, width.
pub fn rescale<T: Real>(v: &mut [T], width: usize, length: f64) {
    for v in v.chunks_exact_mut(width) {
        let [own, _] = lengths(v, 0.0);
        let factor = T::of(length) / own;
        v.iter_mut().for_each(|v| *v *= factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::check::{assert_gradient, distance, inner, normals};

    fn cosine(normalised: Normalised, theta: f64) -> Cosine {
        Cosine {
            normalised,
            theta,
            width: 3,
        }
    }

    fn scores(cosine: Cosine, u: &[f64], v: &[f64], tau: f64) -> Vec<f64> {
        let mut z = vec![0.0; u.len() / 3 * (v.len() / 3)];
        cosine.forward(u, v, tau, &mut z);
        z
    }

    #[test]
    fn all_gradients_of_cosine_scores_match_finite_differences() {
        let (u, v, c) = (normals(1, 12), normals(2, 15), normals(3, 20));
        for cosine in [
            cosine(Normalised::Both, 0.0),
            cosine(Normalised::Both, 0.1),
            cosine(Normalised::ExpertsOnly, 0.0),
            cosine(Normalised::ExpertsOnly, 0.1),
        ] {
            let z = scores(cosine, &u, &v, 0.3);
            let (mut du, mut dv, mut d_tau) = (vec![f64::NAN; 12], vec![0.0; 15], 0.0);
            let gradients = Gradients {
                u: &mut du,
                v: &mut dv,
                tau: &mut d_tau,
            };
            cosine.backward(&u, &v, 0.3, &z, &c, gradients);
            let value = |u: &[f64], v: &[f64], tau: f64| inner(&scores(cosine, u, v, tau), &c);
            assert_gradient("u", &u, &du, |u| value(u, &v, 0.3));
            assert_gradient("v", &v, &dv, |v| value(&u, v, 0.3));
            assert_gradient("tau", &[0.3], &[d_tau], |tau| value(&u, &v, tau[0]));
        }
    }

    #[test]
    fn the_temperature_enters_the_scores_and_lengths_do_not() {
        let (u, v) = (normals(1, 12), normals(2, 15));
        let cosine = cosine(Normalised::Both, 0.0);
        let z = scores(cosine, &u, &v, 1.0);
        let halved: Vec<f64> = z.iter().map(|z| z / 0.5).collect();
        assert!(distance(&scores(cosine, &u, &v, 0.5), &halved) < 1e-14);
        let longer: Vec<f64> = u.iter().map(|u| 7.0 * u).collect();
        assert!(distance(&scores(cosine, &longer, &v, 1.0), &z) < 1e-14);
        assert!(z.iter().all(|z| z.abs() <= 1.0));
    }

    #[test]
    fn a_zero_vector_has_score_zero_and_finite_gradients() {
        let cosine = cosine(Normalised::Both, 0.0);
        let (u, v) = (vec![0.0; 3], normals(2, 6));
        let z = scores(cosine, &u, &v, 0.3);
        assert_eq!(z, [0.0, 0.0]);
        let (mut du, mut dv, mut d_tau) = (vec![0.0; 3], vec![0.0; 6], 0.0);
        let gradients = Gradients {
            u: &mut du,
            v: &mut dv,
            tau: &mut d_tau,
        };
        cosine.backward(&u, &v, 0.3, &z, &[1.0, 1.0], gradients);
        assert!(du.iter().chain(&dv).all(|g| g.is_finite()));
    }

    #[test]
    fn rescaled_embeddings_have_the_length_asked_for() {
        let mut v = normals(1, 9);
        rescale(&mut v, 3, 1.5);
        for v in v.chunks(3) {
            assert!((inner(v, v).sqrt() - 1.5).abs() < 1e-14);
        }
    }
}

//! What the user should know.

use super::contents::Analysis;
use super::tables::hits;
use super::wording;
use crate::analysis::Attainment;
use crate::plot::number::counted;

impl Analysis {
    /// Every warning: of the design, of the caller, and of what was found.
    pub fn all_warnings(&self) -> Vec<String> {
        let given = self.design.warnings.iter().chain(&self.warnings);
        let mut all: Vec<String> = given.cloned().collect();
        let fitted = &self.model().fitted;
        let Some(best) = fitted.best() else {
            return all;
        };
        if let Some(reason) = &best.spurious {
            let reason = wording::spurious(reason);
            all.push(format!(
                "every optimum is spurious ({reason}): use fewer experts"
            ));
        }
        match &best.attainment {
            Attainment::Interior => {}
            Attainment::NotAttained(_) => all.push(
                "the likelihood has no maximum: the log-likelihood is a supremum, the gate's \
                 coefficients only say how far it was followed, and the theory behind the \
                 criteria does not cover this model"
                    .to_string(),
            ),
            Attainment::OnBound(which) => all.push(format!(
                "{} on the boundary of the parameter set: the criteria count every parameter",
                wording::coordinates(&self.design, which)
            )),
        }
        if fitted.has_better_failure() {
            all.push(
                "a start that ended without a certified optimum had a larger log-likelihood: \
                 try more starts"
                    .to_string(),
            );
        }
        let hits = hits(best);
        if fitted.starts > 1 && hits < 2 {
            all.push(format!(
                "the best optimum was found from {} of {}: there may be a better one, try more",
                hits,
                counted(fitted.starts, "start")
            ));
        }
        all
    }
}

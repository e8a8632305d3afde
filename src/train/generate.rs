//! Text from a model, token by token.
//!
//! The next token is drawn from softmax(z / temperature), z the logits behind the last
//! token. `top_k` keeps the k likeliest tokens, then `top_p` the fewest of these whose
//! probabilities (among these) sum to p or more (Holtzman et al. 2020). A model sees at
//! most the last tokens of its length; they are computed again for every token.

use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};
use crate::train::device::Device;
use crate::train::model::{Batch, Observe, Phase, Tape, Transformer};
use crate::train::ops::cross_entropy::IGNORED;
use crate::train::ops::real::Real;

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; at 0 the likeliest token is taken.
    pub temperature: f64,
    /// The number of likeliest tokens to draw from; all if absent.
    pub top_k: Option<usize>,
    /// The share of probability to draw from; all if absent.
    pub top_p: Option<f64>,
    /// Names the random stream: equal seeds, equal texts.
    pub seed: u64,
}

impl Sampling {
    /// Always the likeliest token; the first of equals.
    pub const GREEDY: Sampling = Sampling {
        temperature: 0.0,
        top_k: None,
        top_p: None,
        seed: 0,
    };

    /// Checks all values.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn check(&self) -> Result<()> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(Error::value("temperature", "must be 0 or more"));
        }
        if self.top_k == Some(0) {
            return Err(Error::value("top_k", "must be at least 1"));
        }
        match self.top_p {
            Some(p) if !(p > 0.0 && p <= 1.0) => {
                Err(Error::value("top_p", "must be above 0 and at most 1"))
            }
            _ => Ok(()),
        }
    }

    /// The token at `u`, uniform on 0 to 1.
    fn choose(&self, logits: &[f64], u: f64) -> Result<u32> {
        if let Some(id) = logits.iter().position(|z| z.is_nan()) {
            let message = format!("the model's logit of token {id} is not a number");
            return Err(Error::value("weights", message));
        }
        let mut tokens: Vec<usize> = (0..logits.len()).collect();
        // Stable: the first of equals stays first.
        tokens.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        let best = tokens[0];
        if self.temperature == 0.0 {
            return Ok(best as u32);
        }
        tokens.truncate(self.top_k.unwrap_or(tokens.len()));
        let weight = |&token: &usize| ((logits[token] - logits[best]) / self.temperature).exp();
        let weights: Vec<f64> = tokens.iter().map(weight).collect();
        let limit = self.top_p.unwrap_or(1.0) * weights.iter().sum::<f64>();
        let mut mass = 0.0;
        let enough = weights.iter().position(|w| {
            mass += w;
            mass >= limit
        });
        let kept = enough.map_or(weights.len(), |last| last + 1);
        let mut left = u * weights[..kept].iter().sum::<f64>();
        let drawn = weights[..kept].iter().position(|w| {
            left -= w;
            left < 0.0
        });
        // Rounding can leave a trace at the end.
        Ok(tokens[drawn.unwrap_or(kept - 1)] as u32)
    }
}

/// The tokens that a model writes after a prompt, without end.
pub struct Continuation<'a, D: Device> {
    device: &'a D,
    transformer: &'a Transformer<D>,
    sampling: Sampling,
    stream: Stream,
    text: Vec<u32>,
    drawn: u64,
    tape: Option<(usize, Tape<D>)>,
}

impl<'a, D: Device> Continuation<'a, D> {
    /// Behind a prompt of at least one token.
    ///
    /// # Errors
    /// [`Error::Value`] for a prompt without tokens or with tokens beyond the
    /// vocabulary; as [`Sampling::check`].
    pub fn new(
        device: &'a D,
        transformer: &'a Transformer<D>,
        prompt: &[u32],
        sampling: Sampling,
    ) -> Result<Self> {
        sampling.check()?;
        let vocabulary = transformer.architecture().vocabulary;
        if prompt.is_empty() {
            return Err(Error::value("prompt", "must have at least one token"));
        }
        if let Some(id) = prompt.iter().find(|&&id| id as usize >= vocabulary) {
            let message = format!("has token {id}, the model's vocabulary {vocabulary}");
            return Err(Error::value("prompt", message));
        }
        Ok(Continuation {
            device,
            transformer,
            sampling,
            stream: Stream::named(sampling.seed, "text", 0, Purpose::Tokens),
            text: prompt.to_vec(),
            drawn: 0,
            tape: None,
        })
    }

    /// Logits behind the last token.
    fn logits(&mut self) -> Result<Vec<f64>> {
        let architecture = self.transformer.architecture();
        let window = self.text.len().min(architecture.length);
        let ids = &self.text[self.text.len() - window..];
        let batch = Batch::new(self.device, ids, &vec![IGNORED; window], window)?;
        let tape = match self.tape.take() {
            Some((length, tape)) if length == window => tape,
            _ => self.transformer.tape(self.device, 1, window)?,
        };
        let (_, tape) = self.tape.insert((window, tape));
        let phase = Phase::Evaluation {
            active: architecture.method.rule.k,
            observe: Observe::Loss,
        };
        self.transformer
            .forward(self.device, &batch, &phase, tape)?;
        let all = self.device.download(tape.logits())?;
        let last = &all[(window - 1) * architecture.vocabulary..];
        Ok(last.iter().map(|z| z.wide()).collect())
    }

    fn draw(&mut self) -> Result<u32> {
        let logits = self.logits()?;
        let [u, _] = self.stream.uniform_pair(self.drawn, 0);
        let token = self.sampling.choose(&logits, u)?;
        self.text.push(token);
        self.drawn += 1;
        Ok(token)
    }
}

impl<D: Device> Iterator for Continuation<'_, D> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Result<u32>> {
        Some(self.draw())
    }
}

/// `count` tokens behind a prompt.
///
/// # Errors
/// As [`Continuation::new`]; what the device refuses.
pub fn generate<D: Device>(
    device: &D,
    transformer: &Transformer<D>,
    prompt: &[u32],
    count: usize,
    sampling: Sampling,
) -> Result<Vec<u32>> {
    Continuation::new(device, transformer, prompt, sampling)?
        .take(count)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::device::Cpu;
    use crate::train::model::tests::{LENGTH, VOCABULARY, run};
    use crate::train::run::trainer::Trainer;

    /// A model that knows 0, 1, .., 6, 0, 1, .. by heart.
    fn counting() -> Trainer<Cpu<f32>> {
        let mut run = run("smoe", "", "");
        run.steps = 150;
        run.optimiser.rate = 0.02;
        let mut trainer = Trainer::new(run, Cpu::new(), VOCABULARY).unwrap();
        for step in 0..trainer.run().steps as usize {
            let mut read = |sequences: std::ops::Range<usize>,
                            ids: &mut Vec<u32>,
                            targets: &mut Vec<u32>|
             -> Result<()> {
                let token = |i: usize| (i % VOCABULARY) as u32;
                for first in sequences.map(|sequence| 4 * step + sequence) {
                    ids.extend((first..first + LENGTH).map(token));
                    targets.extend((first + 1..=first + LENGTH).map(token));
                }
                Ok(())
            };
            trainer.step(&mut read).unwrap();
        }
        trainer
    }

    fn text(trainer: &Trainer<Cpu<f32>>, prompt: &[u32], sampling: Sampling) -> Vec<u32> {
        generate(
            &trainer.device,
            &trainer.transformer,
            prompt,
            3 * LENGTH,
            sampling,
        )
        .unwrap()
    }

    /// Far from greedy.
    const HOT: Sampling = Sampling {
        temperature: 5.0,
        top_k: None,
        top_p: None,
        seed: 1,
    };

    #[test]
    fn greedy_text_goes_on_as_the_model_has_learnt_also_beyond_its_length() {
        let trainer = counting();
        let expected: Vec<u32> = (0..3 * LENGTH as u32).map(|i| (i + 3) % 7).collect();
        assert_eq!(text(&trainer, &[1, 2], Sampling::GREEDY), expected);
        let cold = Sampling {
            temperature: 1e-6,
            ..HOT
        };
        assert_eq!(text(&trainer, &[1, 2], cold), expected);
        let [one, nucleus] = [(Some(1), None), (None, Some(1e-9))].map(|(top_k, top_p)| Sampling {
            top_k,
            top_p,
            ..HOT
        });
        assert_eq!(text(&trainer, &[1, 2], one), expected);
        assert_eq!(text(&trainer, &[1, 2], nucleus), expected);
    }

    #[test]
    fn a_text_is_a_function_of_its_seed() {
        let trainer = counting();
        let of_seed = |seed| text(&trainer, &[1, 2], Sampling { seed, ..HOT });
        assert_eq!(of_seed(1), of_seed(1));
        assert_ne!(of_seed(1), of_seed(2));
    }

    #[test]
    fn only_the_last_tokens_of_the_models_length_count() {
        let trainer = counting();
        let long: Vec<u32> = [5, 0, 3, 3, 6, 1, 0, 2, 4, 4].into();
        let short = &long[long.len() - LENGTH..];
        assert_eq!(text(&trainer, &long, HOT), text(&trainer, short, HOT));
        assert_ne!(text(&trainer, &long, HOT), text(&trainer, &[4, 4], HOT));
    }

    /// How often each token is drawn, over evenly spaced u.
    fn shares(sampling: Sampling, logits: &[f64]) -> Vec<f64> {
        const DRAWS: usize = 100_000;
        let mut counts = vec![0.0; logits.len()];
        for i in 0..DRAWS {
            let u = (i as f64 + 0.5) / DRAWS as f64;
            counts[sampling.choose(logits, u).unwrap() as usize] += 1.0 / DRAWS as f64;
        }
        counts
    }

    #[test]
    fn tokens_are_drawn_in_proportion_to_the_probabilities_that_are_kept() {
        // Probabilities 0.1, 0.4, 0.2, 0.3 at temperature 1.
        let logits = [0.1f64, 0.4, 0.2, 0.3].map(f64::ln);
        let base = Sampling {
            temperature: 1.0,
            ..HOT
        };
        let check = |sampling, expected: [f64; 4]| {
            for (share, expected) in shares(sampling, &logits).iter().zip(expected) {
                assert!(
                    (share - expected).abs() < 1e-4,
                    "{sampling:?}: {share}, {expected}"
                );
            }
        };
        check(base, [0.1, 0.4, 0.2, 0.3]);
        let half = Sampling {
            temperature: 0.5,
            ..base
        };
        check(half, [1.0, 16.0, 4.0, 9.0].map(|v| v / 30.0));
        let two = Sampling {
            top_k: Some(2),
            ..base
        };
        check(two, [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
        let nucleus = Sampling {
            top_p: Some(0.71),
            ..base
        };
        check(nucleus, [0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]);
        let nucleus = Sampling {
            top_p: Some(0.69),
            ..base
        };
        check(nucleus, [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
        let both = Sampling {
            top_p: Some(0.5),
            top_k: Some(2),
            ..base
        };
        check(both, [0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn a_prompt_or_a_rule_that_says_nothing_is_refused() {
        let run = run("smoe", "", "");
        let trainer = Trainer::new(run, Cpu::<f32>::new(), VOCABULARY).unwrap();
        let refusal = |prompt: &[u32], sampling| {
            let (device, transformer) = (&trainer.device, &trainer.transformer);
            let text = generate(device, transformer, prompt, 1, sampling);
            text.unwrap_err().to_string()
        };
        assert_eq!(refusal(&[], HOT), "prompt: must have at least one token");
        assert_eq!(
            refusal(&[7], HOT),
            "prompt: has token 7, the model's vocabulary 7"
        );
        for (temperature, top_k, top_p, key) in [
            (-1.0, None, None, "temperature"),
            (f64::NAN, None, None, "temperature"),
            (1.0, Some(0), None, "top_k"),
            (1.0, None, Some(0.0), "top_p"),
            (1.0, None, Some(1.5), "top_p"),
        ] {
            let sampling = Sampling {
                temperature,
                top_k,
                top_p,
                seed: 1,
            };
            assert!(refusal(&[1], sampling).starts_with(key), "{sampling:?}");
        }
        let broken = Sampling::GREEDY.choose(&[0.0, f64::NAN], 0.5).unwrap_err();
        assert!(broken.to_string().contains("token 1 is not a number"));
    }
}

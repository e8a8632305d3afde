//! Byte-pair encoding (Sennrich, Haddow, Birch 2016) on bytes, as GPT-2 has it.

use crate::error::{Error, Result};
use crate::train::data::text::{Unit, pieces};
use crate::train::data::vocabulary::{TOKENIZER, Vocabulary};
use std::path::Path;
use tokenizers::Tokenizer;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

/// Bytes of text given to the trainer at a time.
const PIECE: usize = 1 << 16;

/// Learns `size` tokens from texts: the 256 bytes and the most frequent merges that
/// occur at least twice; fewer where the texts have no more.
///
/// # Errors
/// [`Error::Value`] for fewer than 256 tokens.
pub(super) fn train(texts: &[&str], size: usize) -> Result<Vocabulary> {
    if size < 256 {
        let message = "must have at least 256 tokens, one per byte";
        return Err(Error::value("vocabulary bpe:SIZE", message));
    }
    let wrong = |e: tokenizers::Error| Error::value("vocabulary bpe:SIZE", e.to_string());
    let mut tokenizer = Tokenizer::new(BPE::default());
    let bytes = ByteLevel::default().add_prefix_space(false);
    tokenizer.with_pre_tokenizer(Some(bytes));
    tokenizer.with_decoder(Some(bytes));
    let trainer = BpeTrainer::builder()
        .vocab_size(size)
        .min_frequency(2)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .show_progress(false)
        .build();
    let pieces = texts
        .iter()
        .flat_map(|text| pieces(text.as_bytes(), Unit::Characters, PIECE))
        .map(|piece| String::from_utf8_lossy(piece));
    tokenizer
        .train(&mut TrainerWrapper::BpeTrainer(trainer), pieces)
        .map_err(wrong)?;
    let json = tokenizer.to_string(true).map_err(wrong)?;
    Vocabulary::from_tokenizer_json(Path::new(TOKENIZER), json.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_are_the_most_frequent_pairs_and_the_same_every_time() {
        let text = "low low low low lower lower newest newest newest widest ".repeat(3);
        let learn = |size| train(&[&text], size).unwrap();
        // "lo" and "ow" stand in every low; the first merge is one of them, the next
        // completes it.
        let low = learn(258).encode("low").unwrap();
        assert_eq!(low.len(), 1);
        assert_eq!(learn(256).encode("low").unwrap().len(), 3);
        let first = learn(280);
        assert!((0..5).all(|_| learn(280) == first));
        // The text has no more pairs that occur twice.
        assert!(learn(100_000).size() < 400);
    }
}

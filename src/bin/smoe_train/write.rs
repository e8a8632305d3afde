//! Models as files of other programs, and as authors.

use crate::arguments::{Export, Family as FamilyName, Generate};
use crate::model::Trained;
use crate::output::print_bytes;
use smoe_lab::error::Result;
use smoe_lab::train::export::{Family, Format, Source};
use smoe_lab::train::generate::{Sampling, generate};

/// `smoe_train export`.
pub fn export(arguments: &Export) -> Result<bool> {
    let trained = Trained::load(&arguments.run, &arguments.weights)?;
    let vocabulary = trained.corpus.vocabulary().clone();
    let source = Source::of(&trained.device, &trained.transformer, Some(vocabulary))?;
    let format = match arguments.family {
        None => Format::Automatic,
        Some(FamilyName::Plain) => Format::Plain,
        Some(FamilyName::Mixtral) => Format::Of(Family::Mixtral),
        Some(FamilyName::Qwen2Moe) => Format::Of(Family::Qwen2Moe),
        Some(FamilyName::Glm4Moe) => Format::Of(Family::Glm4Moe),
    };
    let family = source.export(&arguments.out, format)?;
    let name = family.map_or("plain", Family::model_type);
    eprintln!("{}: {name}", arguments.out.display());
    Ok(true)
}

/// `smoe_train generate`.
pub fn continuation(arguments: &Generate) -> Result<bool> {
    let sampling = Sampling {
        temperature: arguments.temperature,
        top_k: arguments.top_k,
        top_p: arguments.top_p,
        seed: arguments.seed,
    };
    sampling.check()?;
    let trained = Trained::load(&arguments.run, &arguments.weights)?;
    let vocabulary = trained.corpus.vocabulary();
    let mut text = vocabulary.encode(&arguments.prompt)?;
    let (device, transformer) = (&trained.device, &trained.transformer);
    text.extend(generate(
        device,
        transformer,
        &text,
        arguments.tokens,
        sampling,
    )?);
    let mut bytes = vocabulary.decode(&text)?;
    bytes.push(b'\n');
    print_bytes(&bytes);
    Ok(true)
}

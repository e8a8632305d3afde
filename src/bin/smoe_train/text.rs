//! `smoe_train data`.

use crate::arguments::Data;
use crate::output::{bar, print};
use smoe_lab::error::Result;
use smoe_lab::train::data::{self, Preparation, Splits};

/// Prepares a text.
pub fn prepare(arguments: &Data) -> Result<bool> {
    let shares = arguments.validation.is_some() || arguments.test.is_some();
    let splits = arguments.splits.or_else(|| {
        shares.then(|| Splits::Shares {
            validation: arguments.validation.unwrap_or(0.1),
            test: arguments.test.unwrap_or(0.0),
        })
    });
    let preparation = Preparation {
        source: arguments.source.clone(),
        vocabulary: arguments.vocabulary.clone(),
        splits,
    };
    let bar = bar("{elapsed_precise} [{wide_bar}] {bytes}/{total_bytes} eta {eta}");
    let mut progress = |done, total| {
        if let Some(bar) = &bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    };
    let description = data::prepare(&preparation, &arguments.out, &mut progress)?;
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    for (split, numbers) in &description.splits {
        print(&format!(
            "{split}: {} tokens of {} bytes\n",
            numbers.tokens, numbers.bytes
        ));
    }
    Ok(true)
}

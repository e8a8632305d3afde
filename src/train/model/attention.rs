//! m = x + out(attention(norm(x))).

use crate::error::Result;
use crate::train::device::{Device, TensorOf};
use crate::train::model::architecture::Block;
use crate::train::model::parameters::Tensors;
use crate::train::model::transformer::Context;
use crate::train::ops::attention::Shape;
use crate::train::ops::rotary::Turn;

/// What the backward pass needs.
pub(super) struct AttentionTape<D: Device> {
    normed: TensorOf<D>,
    moments: TensorOf<D>,
    qkv: TensorOf<D>,
    o: TensorOf<D>,
    log_sums: TensorOf<D>,
}

impl<D: Device> AttentionTape<D> {
    pub(super) fn new(device: &D, shape: Shape) -> Result<Self> {
        let (tokens, width) = (shape.tokens(), shape.columns());
        Ok(AttentionTape {
            normed: device.zeros(tokens, width)?,
            moments: device.zeros(tokens, 2)?,
            qkv: device.zeros(tokens, 3 * width)?,
            o: device.zeros(tokens, width)?,
            log_sums: device.zeros(shape.sequences * shape.heads, shape.length)?,
        })
    }
}

/// Writes m.
pub(super) fn forward<D: Device>(
    context: &Context<D>,
    block: &Block,
    parameters: &Tensors<D>,
    layer: usize,
    x: &TensorOf<D>,
    tape: &mut AttentionTape<D>,
    m: &mut TensorOf<D>,
) -> Result<()> {
    let device = context.device;
    let bias = |id: Option<_>| id.map(|id| parameters.get(id));
    context.normalise(
        parameters,
        block.attention_norm,
        x,
        &mut tape.normed,
        &mut tape.moments,
    )?;
    let weight = parameters.get(block.qkv.weight);
    device.linear(&tape.normed, weight, bias(block.qkv.bias), &mut tape.qkv)?;
    if let Some(rotary) = context.rotary {
        device.rotate(rotary, context.shape, &mut tape.qkv, Turn::Forth)?;
    }
    device.attend(context.shape, &tape.qkv, &mut tape.o, &mut tape.log_sums)?;
    let weight = parameters.get(block.out.weight);
    device.linear(&tape.o, weight, bias(block.out.bias), m)?;
    context.dropout(layer, ATTENTION_OUTPUT, m)?;
    device.add(x, m)
}

/// The place of dropout behind attention.
const ATTENTION_OUTPUT: u32 = 0;

/// Memory of the backward pass, shared by all layers.
pub(super) struct AttentionScratch<D: Device> {
    d_qkv: TensorOf<D>,
    d_o: TensorOf<D>,
    part: TensorOf<D>,
}

impl<D: Device> AttentionScratch<D> {
    pub(super) fn new(device: &D, shape: Shape) -> Result<Self> {
        let (tokens, width) = (shape.tokens(), shape.columns());
        Ok(AttentionScratch {
            d_qkv: device.zeros(tokens, 3 * width)?,
            d_o: device.zeros(tokens, width)?,
            part: device.zeros(tokens, width)?,
        })
    }
}

/// Replaces dL/dm in `d_stream` by dL/dx; adds to gradients.
#[allow(clippy::too_many_arguments)]
pub(super) fn backward<D: Device>(
    context: &Context<D>,
    block: &Block,
    parameters: &Tensors<D>,
    gradients: &mut Tensors<D>,
    layer: usize,
    x: &TensorOf<D>,
    tape: &AttentionTape<D>,
    scratch: &mut AttentionScratch<D>,
    d_stream: &mut TensorOf<D>,
) -> Result<()> {
    let (device, shape) = (context.device, context.shape);
    let AttentionScratch { d_qkv, d_o, part } = scratch;
    let out = parameters.get(block.out.weight);
    let d_out = Some(gradients.pair(block.out));
    if context.drops() {
        device.copy(d_stream, part)?;
        context.dropout(layer, ATTENTION_OUTPUT, part)?;
        device.linear_backward(&tape.o, out, part, Some(d_o), d_out)?;
    } else {
        device.linear_backward(&tape.o, out, d_stream, Some(d_o), d_out)?;
    }
    device.attend_backward(shape, &tape.qkv, &tape.o, &tape.log_sums, d_o, d_qkv)?;
    if let Some(rotary) = context.rotary {
        device.rotate(rotary, shape, d_qkv, Turn::Back)?;
    }
    let weight = parameters.get(block.qkv.weight);
    // d_o has been used: its memory holds dL/d(norm's output) now.
    let gradient = Some(gradients.pair(block.qkv));
    device.linear_backward(&tape.normed, weight, d_qkv, Some(d_o), gradient)?;
    device.norm_backward(
        context.norm,
        x,
        parameters.get(block.attention_norm.weight),
        &tape.moments,
        d_o,
        part,
        gradients.pair(block.attention_norm),
    )?;
    device.add(part, d_stream)
}

//! Values and names of exported models, and what is refused. What other programs make
//! of them is checked by `tests/reference/check.py`, which reads what the last test
//! leaves in the folder `SMOE_EXPORT_FOLDER`.

use super::*;
use crate::train::config::Model;
use crate::train::model::reference_tests::{Case, Numbers, tensors};
use crate::train::model::tests::{LENGTH, METHODS, VOCABULARY, parameters, run, text};
use crate::train::model::{Batch, Observe, Phase};
use crate::train::run::checkpoint::{self, State};
use crate::train::run::trainer::Trainer;
use safetensors::tensor::{Dtype, TensorView};
use std::path::PathBuf;

type File = BTreeMap<String, Numbers>;

fn source_of(case: &Case) -> Source {
    let device = Cpu::<f32>::new();
    Source::of(&device, &case.transformer(&device), None).unwrap()
}

/// What a model of a case becomes: description and arrays.
fn exported(case: &Case, format: Format) -> (Value, File) {
    let out = tempfile::tempdir().unwrap();
    source_of(case).export(out.path(), format).unwrap();
    let config = std::fs::read(out.path().join("config.json")).unwrap();
    let arrays = match format {
        Format::Plain => "weights.safetensors",
        _ => "model.safetensors",
    };
    let arrays = tensors(&out.path().join(arrays));
    (serde_json::from_slice(&config).unwrap(), arrays)
}

/// Compares an array of theirs with a function of row and column.
fn assert_array(file: &mut File, name: &str, shape: &[usize], value: impl Fn(usize, usize) -> f64) {
    let array = file.remove(name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(array.shape, shape, "{name}");
    let columns = *shape.last().unwrap();
    for (i, &v) in array.values.iter().enumerate() {
        assert_eq!(v, value(i / columns, i % columns), "{name}[{i}]");
    }
}

/// Checks all arrays of a case, of which none may be left over.
fn assert_arrays(case: &Case, prefix: &str, parts: [&str; 3], shared: Option<(&str, usize, f64)>) {
    let (_, mut theirs) = exported(case, Format::Automatic);
    let theirs = &mut theirs;
    let ours = case.tensors("weights");
    let size = |key: &str| case.config[key].as_u64().unwrap() as usize;
    let [w, hidden, vocabulary] = [size("width"), size("hidden"), size("vocabulary")];
    let (experts, dense) = (size("experts"), size("dense_hidden"));
    let own = |name: &str| {
        let numbers = &ours[name];
        let columns = *numbers.shape.last().unwrap();
        move |row: usize, column: usize| numbers.values[row * columns + column]
    };
    let embedding = own("embedding.weight");
    assert_array(
        theirs,
        "model.embed_tokens.weight",
        &[vocabulary, w],
        embedding,
    );
    assert_array(theirs, "model.norm.weight", &[w], own("final_norm.gain"));
    if case.config["head"] == "untied" {
        let head = own("head.weight");
        assert_array(theirs, "lm_head.weight", &[vocabulary, w], |r, c| {
            head(c, r)
        });
    }
    for layer in 0..size("layers") {
        let their = |name: &str| format!("model.layers.{layer}.{name}.weight");
        let own = |name: &str| own(&format!("layers.{layer}.{name}"));
        let gain = own("attention_norm.gain");
        assert_array(theirs, &their("input_layernorm"), &[w], gain);
        let gain = own("feed_forward_norm.gain");
        assert_array(theirs, &their("post_attention_layernorm"), &[w], gain);
        let qkv = own("attention.qkv.weight");
        for (part, name) in ["q", "k", "v"].iter().enumerate() {
            let name = their(&format!("self_attn.{name}_proj"));
            assert_array(theirs, &name, &[w, w], |r, c| qkv(c, part * w + r));
        }
        let out = own("attention.out.weight");
        assert_array(theirs, &their("self_attn.o_proj"), &[w, w], |r, c| {
            out(c, r)
        });
        if case.config["layout"][layer] == "dense" {
            for part in ["gate", "up"] {
                let ours = own(&format!("dense.{part}.weight"));
                let name = their(&format!("mlp.{part}_proj"));
                assert_array(theirs, &name, &[dense, w], |r, c| ours(c, r));
            }
            let down = own("dense.down.weight");
            assert_array(theirs, &their("mlp.down_proj"), &[w, dense], |r, c| {
                down(c, r)
            });
            continue;
        }
        let router = own("router.weight");
        let gate = their(&format!("{prefix}.gate"));
        assert_array(theirs, &gate, &[experts, w], |r, c| router(c, r));
        let [gate, up, down] = ["gate", "up", "down"].map(|p| own(&format!("experts.{p}.weight")));
        for e in 0..experts {
            let [to_gate, to_up, to_down] =
                parts.map(|part| their(&format!("{prefix}.experts.{e}.{part}")));
            assert_array(theirs, &to_gate, &[hidden, w], |r, c| gate(e * w + c, r));
            assert_array(theirs, &to_up, &[hidden, w], |r, c| up(e * w + c, r));
            let of_down = |r, c| down(e * hidden + c, r);
            assert_array(theirs, &to_down, &[w, hidden], of_down);
        }
        if let Some((name, count, factor)) = shared {
            let wide = count * hidden;
            for part in ["gate", "up"] {
                let ours = own(&format!("shared.{part}.weight"));
                let of_unit = |r: usize, c| ours(r / hidden * w + c, r % hidden);
                let name = their(&format!("{prefix}.{name}.{part}_proj"));
                assert_array(theirs, &name, &[wide, w], of_unit);
            }
            let down = own("shared.down.weight");
            let to = their(&format!("{prefix}.{name}.down_proj"));
            assert_array(theirs, &to, &[w, wide], |r, c| factor * down(c, r));
        }
        if factor_of_gate(shared) {
            let gate = their(&format!("{prefix}.shared_expert_gate"));
            assert_array(theirs, &gate, &[1, w], |_, _| 0.0);
        }
        if case.config["selection_bias"] == true {
            let bias = own("router.bias");
            let name = format!("model.layers.{layer}.{prefix}.gate.e_score_correction_bias");
            assert_array(theirs, &name, &[experts], bias);
        }
    }
    assert!(theirs.is_empty(), "left over: {:?}", theirs.keys());
}

fn factor_of_gate(shared: Option<(&str, usize, f64)>) -> bool {
    shared.is_some_and(|(_, _, factor)| factor == 2.0)
}

#[test]
fn every_number_of_ours_goes_to_its_place_in_theirs_and_nothing_else_does() {
    let single = ["w1", "w3", "w2"];
    let projections = ["gate_proj", "up_proj", "down_proj"];
    assert_arrays(
        &Case::named("smoe-mixtral"),
        "block_sparse_moe",
        single,
        None,
    );
    let shared = Some(("shared_expert", 2, 2.0));
    assert_arrays(&Case::named("smoe-qwen"), "mlp", projections, shared);
    let shared = Some(("shared_experts", 2, 1.0));
    assert_arrays(&Case::named("deepseek-v3"), "mlp", projections, shared);
}

#[test]
fn their_descriptions_say_what_ours_is() {
    let check = |case: &str, expected: Value| {
        let (config, _) = exported(&Case::named(case), Format::Automatic);
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(config[key], *value, "{case}: {key}");
        }
    };
    check(
        "smoe-mixtral",
        json!({
            "model_type": "mixtral", "vocab_size": 11, "hidden_size": 16, "head_dim": 8,
            "num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 6,
            "tie_word_embeddings": false, "max_position_embeddings": 8,
        }),
    );
    check(
        "smoe-qwen",
        json!({
            "model_type": "qwen2_moe", "num_experts": 4, "norm_topk_prob": false,
            "shared_expert_intermediate_size": 12, "moe_intermediate_size": 6,
            "intermediate_size": 12, "mlp_only_layers": [0], "tie_word_embeddings": true,
        }),
    );
    check(
        "deepseek-v3",
        json!({
            "model_type": "glm4_moe", "n_routed_experts": 6, "n_shared_experts": 2,
            "n_group": 3, "topk_group": 2, "routed_scaling_factor": 2.5,
            "first_k_dense_replace": 0,
        }),
    );
}

#[test]
fn of_the_cases_those_that_some_family_can_stand_for_are_known() {
    let found: Vec<(String, Family)> = Case::all()
        .iter()
        .filter_map(|c| Some((c.name.clone(), Family::of(&c.architecture()).ok()?)))
        .collect();
    let expected = [
        ("deepseek-v3", Family::Glm4Moe),
        ("smoe-mixtral", Family::Mixtral),
        ("smoe-qwen", Family::Qwen2Moe),
    ];
    assert_eq!(
        found,
        expected.map(|(name, family)| (name.to_string(), family))
    );
}

/// A model that all but the method lets be Mixtral.
const THEIRS: &str = "norm = \"root-mean-square\"\nactivation = \"swiglu\"\n";

#[test]
fn what_a_family_has_not_is_refused_in_one_line_with_its_key() {
    use Family::{Glm4Moe, Mixtral, Qwen2Moe};
    let rms = "norm = \"root-mean-square\"";
    let swiglu = "activation = \"swiglu\"";
    for (kind, router, model, family, key) in [
        (
            "smoe",
            "",
            format!("{THEIRS}position = \"learned\""),
            Mixtral,
            "model.position",
        ),
        ("smoe", "", swiglu.into(), Mixtral, "model.norm"),
        ("smoe", "", rms.into(), Qwen2Moe, "model.activation"),
        (
            "sigma-moe",
            "",
            format!("{THEIRS}bias = \"everywhere\""),
            Glm4Moe,
            "model.bias",
        ),
        (
            "smoe",
            "",
            format!("{THEIRS}layout = \"alternating\""),
            Mixtral,
            "model.layout",
        ),
        ("xmoe", "", THEIRS.into(), Qwen2Moe, "router.kind"),
        ("unified", "", THEIRS.into(), Qwen2Moe, "router.combine"),
        ("competition", "", THEIRS.into(), Mixtral, "router.kind"),
        ("switch", "", THEIRS.into(), Mixtral, "router.combine"),
        ("sigma-moe", "", THEIRS.into(), Qwen2Moe, "router.combine"),
        ("smoe", "", THEIRS.into(), Glm4Moe, "router.combine"),
        (
            "smoe",
            "scale = 2.0",
            THEIRS.into(),
            Mixtral,
            "router.scale",
        ),
        (
            "smoe",
            "selection = { groups = 2, kept_groups = 1 }",
            THEIRS.into(),
            Mixtral,
            "router.selection.groups",
        ),
        (
            "smoe",
            "selection = { bias_rate = 0.1 }",
            THEIRS.into(),
            Qwen2Moe,
            "router.selection.bias_rate",
        ),
        (
            "deepseek-v3",
            "selection = { groups = 4, kept_groups = 2 }",
            THEIRS.into(),
            Glm4Moe,
            "router.selection.groups",
        ),
    ] {
        let run = run(kind, router, &model);
        let architecture = Architecture::new(&run, VOCABULARY).unwrap();
        let message = family.check(&architecture).unwrap_err().to_string();
        let start = format!("{key}: must be ");
        assert!(message.starts_with(&start), "{kind}: {message}");
        assert!(message.contains(family.model_type()), "{kind}: {message}");
        assert!(!message.contains('\n'));
    }
    let mut limited = run("smoe", "", THEIRS);
    let check = |run: &Run| Family::of(&Architecture::new(run, VOCABULARY).unwrap());
    limited.experts.capacity_factor = Some(1.0);
    assert_eq!(
        check(&limited).unwrap(),
        Mixtral,
        "training's capacity is training's"
    );
    limited.experts.evaluation_capacity_factor = Some(1.0);
    let message = check(&limited).unwrap_err().to_string();
    assert!(message.starts_with("experts.evaluation_capacity_factor: must be absent"));
    let mut shared = run("smoe", "", THEIRS);
    shared.experts.shared = 1;
    let architecture = Architecture::new(&shared, VOCABULARY).unwrap();
    assert!(Mixtral.check(&architecture).is_err());
    assert_eq!(Family::of(&architecture).unwrap(), Qwen2Moe);
}

#[test]
fn a_refused_model_leaves_nothing_behind() {
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().join("model");
    let source = source_of(&Case::named("xmoe"));
    assert!(source.export(&folder, Format::Automatic).is_err());
    assert!(!folder.exists());
}

#[test]
fn the_plain_description_of_every_case_is_the_case() {
    for case in Case::all() {
        let (config, weights) = exported(&case, Format::Plain);
        let ours = config.as_object().unwrap();
        for (key, value) in ours {
            // What the step of the case did, and not every evaluation does.
            let of_the_step = ["competing", "capacity_factor"].contains(&key.as_str());
            let unused = match key.as_str() {
                "balance_scope" | "balance_distribution" => ours["balance"].is_null(),
                "competition_balance_scope" | "competition_balance_distribution" => {
                    ours["competition_balance"].is_null()
                }
                "balance" => ours["balance_coefficient"] == 0.0,
                "competition_balance" => ours["competition_balance_coefficient"] == 0.0,
                "theta" => value.is_null(),
                "diversity_pairs" => ours["diversity"] == 0.0,
                _ => false,
            };
            assert!(
                of_the_step || unused || *value == case.config[key],
                "{}: {key} is {value}, was {}",
                case.name,
                case.config[key]
            );
        }
        let optional = |key: &str| match key {
            _ if key.starts_with("cosine_") => ours["router"] != "xmoe",
            "response"
            | "competition_combine"
            | "target"
            | "temperature"
            | "spread"
            | "distillation"
            | "theta"
            | "diversity_pairs"
            | "balance_gradient"
            | "router_losses"
            | "compatibility" => !ours["router"].as_str().unwrap().starts_with("compet"),
            _ => false,
        };
        for key in case.config.as_object().unwrap().keys() {
            assert!(
                ours.contains_key(key) || optional(key),
                "{}: no {key}",
                case.name
            );
        }
        let values = |file: &File| -> Vec<(String, Vec<f64>)> {
            let each = file.iter().map(|(k, v)| (k.clone(), v.values.clone()));
            each.collect()
        };
        assert_eq!(
            values(&weights),
            values(&case.tensors("weights")),
            "{}",
            case.name
        );
    }
}

const TOKENIZER: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
    "normalizer":null,"pre_tokenizer":{"type":"WhitespaceSplit"},"post_processor":null,
    "decoder":null,"model":{"type":"WordLevel","vocab":{"[unk]":0,"a":1,"b":2,"c":3,"d":4,
    "e":5,"f":6},"unk_token":"[unk]"}}"#;

#[test]
fn a_checkpoint_is_exported_from_its_folder_with_its_tokenizer() {
    let run = run("smoe", "", THEIRS);
    let trainer = Trainer::new(run.clone(), Cpu::<f32>::new(), VOCABULARY).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let state = State::of(&trainer, "text", 0.0, None);
    let best = folder.path().join("best");
    checkpoint::save_weights(&best, &trainer, &state).unwrap();
    let vocabulary = Vocabulary::from_tokenizer_json(Path::new("t"), TOKENIZER.into()).unwrap();
    assert_eq!(vocabulary.size(), VOCABULARY);
    let source = Source::open(&best, &run, vocabulary.clone()).unwrap();
    let direct = Source::of(&trainer.device, &trainer.transformer, Some(vocabulary)).unwrap();
    assert_eq!(source.architecture(), direct.architecture());
    assert_eq!(source.arrays, direct.arrays);
    let out = folder.path().join("out");
    let family = source.export(&out, Format::Automatic).unwrap();
    assert_eq!(family, Some(Family::Mixtral));
    let text = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    assert_eq!(text("tokenizer.json"), TOKENIZER);
    assert!(text("tokenizer_config.json").contains("PreTrainedTokenizerFast"));
    let other = Source::open(&best, &run, Vocabulary::Bytes).unwrap_err();
    let message = other.to_string();
    assert!(
        message.contains("embedding.weight") && message.contains("(256, 6)"),
        "{message}"
    );
}

/// Writes a model of a run with drawn weights, its tokens and the logits that it has
/// at evaluation.
fn leave(folder: &Path, run: &Run, format: Format) -> Option<Family> {
    // Two heads of two pairs of channels: with less, an order of channels would hide.
    let run = &Run {
        model: Model {
            width: 8,
            heads: 2,
            ..run.model.clone()
        },
        ..run.clone()
    };
    let device = Cpu::<f32>::new();
    let narrow = |p: &Vec<f64>| p.iter().map(|&v| v as f32).collect();
    let values: Vec<Vec<f32>> = parameters(run).iter().map(narrow).collect();
    let architecture = Architecture::new(run, VOCABULARY).unwrap();
    let tensors = Tensors::uploaded(&device, &architecture.specs(), &values).unwrap();
    let transformer = Transformer::with(architecture, tensors).unwrap();
    let (ids, targets) = text(0, 0..4);
    let batch = Batch::new(&device, &ids, &targets, LENGTH).unwrap();
    let mut tape = transformer.tape(&device, 4, LENGTH).unwrap();
    let phase = Phase::Evaluation {
        active: transformer.architecture().method.rule.k,
        observe: Observe::Loss,
    };
    transformer
        .forward(&device, &batch, &phase, &mut tape)
        .unwrap();
    let logits = device.download(tape.logits()).unwrap();
    assert!(logits.iter().all(|v| v.is_finite()));
    let vocabulary = Vocabulary::from_tokenizer_json(Path::new("t"), TOKENIZER.into()).unwrap();
    let source = Source::of(&device, &transformer, Some(vocabulary)).unwrap();
    let family = source.export(folder, format).unwrap();
    let ids: Vec<u8> = ids
        .iter()
        .flat_map(|&id| i64::from(id).to_le_bytes())
        .collect();
    let file = |name: &str, tensor: &str, kind, shape: Vec<usize>, bytes: &[u8]| {
        let view = TensorView::new(kind, shape, bytes).unwrap();
        safetensors::serialize_to_file([(tensor, view)], None, &folder.join(name)).unwrap();
    };
    file(
        "batch.safetensors",
        "ids",
        Dtype::I64,
        vec![4, LENGTH],
        &ids,
    );
    let (shape, bytes) = (vec![4 * LENGTH, VOCABULARY], bytemuck::cast_slice(&logits));
    file("expected.safetensors", "logits", Dtype::F32, shape, bytes);
    family
}

/// Methods that some family has, with more of their models.
const REPRESENTABLE: [(&str, &str, &str, usize, Family); 13] = [
    ("smoe", "", "", 0, Family::Mixtral),
    (
        "smoe",
        "combine = \"softmax-top-k-renormalised\"",
        "head = \"tied\"",
        0,
        Family::Mixtral,
    ),
    ("noisy", "", "", 0, Family::Mixtral),
    (
        "smoe-dropout",
        "k_schedule = { first = 2, last = 3, curve = \"linear\" }",
        "",
        0,
        Family::Mixtral,
    ),
    ("compete-v1", "", "", 0, Family::Mixtral),
    ("compete-v2", "", "", 0, Family::Mixtral),
    (
        "compete-v2",
        "",
        "layout = \"alternating\"",
        1,
        Family::Qwen2Moe,
    ),
    ("switch", "", "", 0, Family::Qwen2Moe),
    (
        "smoe",
        "",
        "layout = \"dense\"\ndense_hidden = \"total\"",
        0,
        Family::Qwen2Moe,
    ),
    ("sigma-moe", "", "", 0, Family::Glm4Moe),
    (
        "sigma-moe",
        "scale = 0.5",
        "head = \"tied\"\nlayout = \"alternating\"",
        2,
        Family::Glm4Moe,
    ),
    (
        "deepseek-v3",
        "selection = { bias_rate = 0.01, groups = 2, kept_groups = 1 }",
        "",
        1,
        Family::Glm4Moe,
    ),
    ("deepseek-v3", "", "", 0, Family::Glm4Moe),
];

#[test]
fn models_of_every_method_are_left_for_other_programs() {
    let temporary = tempfile::tempdir().unwrap();
    let asked = std::env::var_os("SMOE_EXPORT_FOLDER").map(PathBuf::from);
    let folder = asked.unwrap_or(temporary.path().to_path_buf());
    for (i, (kind, router, model, shared, family)) in REPRESENTABLE.iter().enumerate() {
        let mut run = run(kind, router, &format!("{THEIRS}{model}"));
        run.experts.shared = *shared;
        let out = folder.join(format!("{}/{i:02}-{kind}", family.model_type()));
        assert_eq!(
            leave(&out, &run, Format::Automatic),
            Some(*family),
            "{kind}"
        );
    }
    for (i, (kind, router)) in METHODS.iter().enumerate() {
        let model = match i % 2 {
            0 => "bias = \"everywhere\"\nactivation = \"gelu\"\nposition = \"learned\"",
            _ => "layout = \"alternating\"\nactivation = \"silu\"\nhead = \"tied\"",
        };
        let out = folder.join(format!("plain/{i:02}-{kind}"));
        assert_eq!(leave(&out, &run(kind, router, model), Format::Plain), None);
    }
}

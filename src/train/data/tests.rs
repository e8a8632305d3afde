use crate::error::Result;
use crate::train::config::data::Order;
use crate::train::data::description::DESCRIPTION;
use crate::train::data::memory::Memory;
use crate::train::data::text::{Unit, pieces};
use crate::train::data::tokens::Width;
use crate::train::data::vocabulary::TOKENIZER;
use crate::train::data::{
    Choice, Corpus, Description, EvaluationWindows, Loader, Preparation, Split, Splits,
    TINYSHAKESPEARE, Tokens, Vocabulary, prepare,
};
use crate::train::ops::cross_entropy::IGNORED;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Tokens 0, 1, 2, ...: a window says where it lies.
fn counting(len: usize) -> Tokens {
    let mut bytes = Vec::new();
    let ids: Vec<u32> = (0..len as u32).collect();
    Width::U32.write(&ids, &mut bytes);
    let path = PathBuf::from("train.bin");
    Tokens::new(Memory::Owned(bytes), Width::U32, len, Split::Train, path)
}

fn loader(order: Order, seed: u64, length: usize, sequences: usize, len: usize) -> Loader {
    Loader::new(order, seed, length, sequences, counting(len)).unwrap()
}

fn prepared(
    folder: &TempDir,
    source: &Path,
    vocabulary: &str,
    splits: Option<Splits>,
) -> Result<(PathBuf, Description)> {
    let out = folder.path().join("prepared");
    let preparation = Preparation {
        source: source.to_path_buf(),
        vocabulary: vocabulary.parse()?,
        splits,
    };
    prepare(&preparation, &out, &mut |_, _| ()).map(|description| (out, description))
}

fn file(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn all(tokens: &Tokens) -> Vec<u32> {
    let mut ids = Vec::new();
    tokens.read(0..tokens.len(), &mut ids).unwrap();
    ids
}

/// The one line that a user sees.
fn line<T>(result: Result<T>) -> String {
    let message = result.err().expect("must fail").to_string();
    assert!(!message.contains('\n'), "more than one line: {message}");
    message
}

fn shares(validation: f64, test: f64) -> Option<Splits> {
    Some(Splits::Shares { validation, test })
}

// Vocabularies.

proptest! {
    #[test]
    fn any_bytes_come_back_from_their_tokens(bytes: Vec<u8>) {
        let ids = Vocabulary::Bytes.encode(&bytes).unwrap();
        prop_assert_eq!(ids.len(), bytes.len());
        prop_assert_eq!(Vocabulary::Bytes.decode(&ids).unwrap(), bytes);
    }

    #[test]
    fn any_text_comes_back_from_its_characters(text: String) {
        let vocabulary = Vocabulary::characters_of([text.as_str()]);
        let ids = vocabulary.encode(&text).unwrap();
        prop_assert_eq!(ids.len(), text.chars().count());
        prop_assert!(ids.iter().all(|id| (*id as usize) < vocabulary.size()));
        let bytes: usize = ids.iter().map(|id| vocabulary.bytes_of(*id)).sum();
        prop_assert_eq!(bytes, text.len());
        prop_assert_eq!(vocabulary.text(&ids).unwrap(), text);
    }
}

#[test]
fn characters_are_sorted_and_distinct() {
    let vocabulary = Vocabulary::characters_of(["bé", "ab\n"]);
    assert_eq!(vocabulary.size(), 4);
    assert_eq!(vocabulary.text(&[0, 1, 2, 3]).unwrap(), "\nabé");
}

#[test]
fn what_a_vocabulary_has_not_is_refused_in_one_line() {
    let vocabulary = Vocabulary::characters_of(["ab"]);
    assert_eq!(
        line(vocabulary.encode("aéb")),
        "text: 'é' at byte 1 is not a character of the vocabulary"
    );
    assert_eq!(
        line(vocabulary.encode(b"ab\xFF")),
        "text: is not UTF-8 at byte 2"
    );
    assert_eq!(
        line(vocabulary.decode(&[0, 2])),
        "text: token 2 is not below 2, the size of the vocabulary"
    );
    assert_eq!(vocabulary.bytes_of(2), 0);
}

#[test]
fn a_saved_vocabulary_is_the_same_when_opened() {
    let folder = TempDir::new().unwrap();
    for vocabulary in [Vocabulary::Bytes, Vocabulary::characters_of(["zaé\""])] {
        vocabulary.save(folder.path()).unwrap();
        assert_eq!(Vocabulary::open(folder.path()).unwrap(), vocabulary);
    }
    std::fs::write(
        folder.path().join("vocabulary.json"),
        r#"{"kind":"characters","characters":"ba"}"#,
    )
    .unwrap();
    assert!(line(Vocabulary::open(folder.path())).contains("distinct characters in order"));
}

#[test]
fn trained_byte_pairs_give_text_and_bytes_back_and_pieces_change_nothing() {
    let folder = TempDir::new().unwrap();
    let source = Path::new(TINYSHAKESPEARE);
    let (out, description) = prepared(&folder, source, "bpe:300", None).unwrap();
    let corpus = Corpus::open(&out).unwrap();
    let vocabulary = corpus.vocabulary();
    assert_eq!(vocabulary.size(), 300);
    let described = &description.splits[&Split::Validation];
    assert_eq!(described.bytes, 111_540);
    let ids = all(&corpus.split(Split::Validation).unwrap());
    assert_eq!(ids.len() as u64, described.tokens);
    assert!(ids.len() < 100_000, "nothing was merged");
    let text = vocabulary.decode(&ids).unwrap();
    assert_eq!(text.len(), 111_540);
    let bytes: usize = ids.iter().map(|id| vocabulary.bytes_of(*id)).sum();
    assert_eq!(bytes, text.len());
    for size in [100, 5000] {
        let pieces = pieces(&text, Unit::Characters, size);
        let joined: Vec<Vec<u32>> = pieces.map(|p| vocabulary.encode(p).unwrap()).collect();
        assert!(joined.len() > 10);
        assert_eq!(joined.concat(), ids);
    }
    // Bytes that no text of the training had.
    let rare = "naïve 東京 😀";
    let ids = vocabulary.encode(rare).unwrap();
    assert_eq!(vocabulary.text(&ids).unwrap(), rare);
    assert!(
        line("bpe:255".parse().and_then(|choice| {
            let preparation = Preparation {
                source: source.to_path_buf(),
                vocabulary: choice,
                splits: None,
            };
            prepare(&preparation, &folder.path().join("none"), &mut |_, _| ())
        }))
        .contains("at least 256")
    );
}

#[test]
fn a_tokenizer_is_copied_unchanged_and_its_truncation_is_not_applied() {
    let folder = TempDir::new().unwrap();
    let json = r#"{"version":"1.0","truncation":{"direction":"Right","max_length":2,
        "strategy":"LongestFirst","stride":0},"padding":null,
        "added_tokens":[{"id":3,"content":"<end>","single_word":false,"lstrip":false,
        "rstrip":false,"normalized":false,"special":true}],"normalizer":null,
        "pre_tokenizer":{"type":"WhitespaceSplit"},"post_processor":null,"decoder":null,
        "model":{"type":"WordLevel","vocab":{"[unk]":0,"the":1,"cat":2},"unk_token":"[unk]"}}"#;
    let tokenizer = file(&folder, "words.json", json);
    let text = file(&folder, "a.txt", "the cat the dog <end> the cat the\n");
    let (out, _) = prepared(
        &folder,
        &text,
        tokenizer.to_str().unwrap(),
        shares(0.35, 0.0),
    )
    .unwrap();
    assert_eq!(std::fs::read_to_string(out.join(TOKENIZER)).unwrap(), json);
    let corpus = Corpus::open(&out).unwrap();
    let train = all(&corpus.split(Split::Train).unwrap());
    assert_eq!(train, [1, 2, 1, 0, 3]);
    assert_eq!(corpus.vocabulary().size(), 4);
    let bytes = [1, 3].map(|id| corpus.vocabulary().bytes_of(id));
    assert_eq!(bytes, [3, 0]);
    std::fs::write(out.join(TOKENIZER), json.replace("\"cat\"", "\"dog\"")).unwrap();
    assert!(line(Corpus::open(&out)).contains("is not the tokenizer"));
    let broken = file(&folder, "broken.json", "{\n\"model\": 1}");
    let broken = line(Vocabulary::tokenizer(&broken));
    assert!(
        broken.contains("is not a Hugging Face tokenizer.json"),
        "{broken}"
    );
}

#[test]
fn marks_of_words_and_escaped_bytes_count_as_what_they_stand_for() {
    let folder = TempDir::new().unwrap();
    let json = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
        "normalizer":null,"pre_tokenizer":{"type":"Metaspace","replacement":"▁",
        "prepend_scheme":"never","split":true},"post_processor":null,
        "decoder":{"type":"Sequence","decoders":[{"type":"ByteFallback"},
        {"type":"Metaspace","replacement":"▁","prepend_scheme":"never","split":true}]},
        "model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,
        "end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":true,"ignore_merges":false,
        "vocab":{"<0xC3>":0,"<0xA9>":1,"▁":2,"a":3,"▁a":4},"merges":[["▁","a"]]}}"#;
    let vocabulary = Vocabulary::tokenizer(&file(&folder, "pieces.json", json)).unwrap();
    let ids = vocabulary.encode("a aé").unwrap();
    assert_eq!(ids, [3, 4, 0, 1]);
    assert_eq!(vocabulary.text(&ids).unwrap(), "a aé");
    let bytes: Vec<usize> = ids.iter().map(|id| vocabulary.bytes_of(*id)).collect();
    assert_eq!(bytes, [1, 2, 1, 1]);
}

// Preparing and opening.

#[test]
fn tinyshakespeare_has_the_counts_that_nanogpt_prints() {
    let corpus = Corpus::open(Path::new(TINYSHAKESPEARE)).unwrap();
    assert_eq!(corpus.vocabulary().size(), 65);
    let [train, validation] =
        [Split::Train, Split::Validation].map(|split| corpus.split(split).unwrap());
    assert_eq!((train.len(), validation.len()), (1_003_854, 111_540));
    let mut ids = Vec::new();
    train.read(0..14, &mut ids).unwrap();
    assert_eq!(corpus.vocabulary().text(&ids).unwrap(), "First Citizen:");
    // nanoGPT's train_ids begin so.
    assert_eq!(ids[..5], [18, 47, 56, 57, 58]);
    assert!(line(corpus.split(Split::Test)).contains("has no test split"));
    corpus.verify().unwrap();
}

#[test]
fn a_prepared_folder_of_the_same_text_has_the_digest_of_the_built_in_one() {
    let folder = TempDir::new().unwrap();
    let source = Path::new(TINYSHAKESPEARE);
    let built_in = Corpus::open(source).unwrap();
    let (out, _) = prepared(&folder, source, "characters", None).unwrap();
    let corpus = Corpus::open(&out).unwrap();
    assert_eq!(corpus.digest(), built_in.digest());
    assert_eq!(corpus.description(), built_in.description());
    for split in [Split::Train, Split::Validation] {
        assert_eq!(
            all(&corpus.split(split).unwrap()),
            all(&built_in.split(split).unwrap())
        );
    }
    // 2 bytes a token and no head, as nanoGPT has it.
    let size = std::fs::metadata(out.join("validation.bin")).unwrap().len();
    assert_eq!(size, 2 * 111_540);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "something temporary is left");
}

#[test]
fn shares_cut_between_characters_and_lose_none() {
    let folder = TempDir::new().unwrap();
    let text = "aé€😀b".repeat(4);
    let source = file(&folder, "a.txt", &text);
    let (out, _) = prepared(&folder, &source, "characters", shares(0.2, 0.15)).unwrap();
    let corpus = Corpus::open(&out).unwrap();
    let splits = [Split::Train, Split::Validation, Split::Test];
    let texts = splits.map(|split| {
        let ids = all(&corpus.split(split).unwrap());
        corpus.vocabulary().text(&ids).unwrap()
    });
    assert_eq!(texts.concat(), text);
    assert_eq!(texts.map(|text| text.chars().count()), [13, 4, 3]);
}

#[test]
fn a_folder_of_files_has_its_own_splits() {
    let folder = TempDir::new().unwrap();
    let source = TempDir::new().unwrap();
    file(&source, "wiki.train.tokens", "the cat");
    file(&source, "README.md", "not a split");
    let missing = line(prepared(&folder, source.path(), "bytes", None));
    assert!(missing.contains("has no file for validation"), "{missing}");
    file(&source, "wiki.valid.tokens", "a dog");
    let (out, description) = prepared(&folder, source.path(), "characters", None).unwrap();
    let bytes: Vec<u64> = description.splits.values().map(|s| s.bytes).collect();
    assert_eq!(bytes, [7, 5]);
    assert!(!out.join("test.bin").exists());
    std::fs::remove_dir_all(&out).unwrap();
    let both = line(prepared(&folder, source.path(), "bytes", shares(0.1, 0.0)));
    assert!(both.contains("whose files are the splits"), "{both}");
    file(&source, "wiki.train.raw", "twice");
    let twice = line(prepared(&folder, source.path(), "bytes", None));
    assert!(twice.ends_with("two files for train: wiki.train.raw and wiki.train.tokens"));
}

#[test]
fn a_vocabulary_above_65536_is_stored_in_four_bytes() {
    assert_eq!(Width::of(65_536), Width::U16);
    assert_eq!(Width::of(65_537), Width::U32);
    let folder = TempDir::new().unwrap();
    let words: String = (0..70_000).map(|n| format!("w{n} ")).collect();
    let entries: Vec<String> = (0..70_000).map(|n| format!("\"w{n}\":{n}")).collect();
    let json = format!(
        r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
        "normalizer":null,"pre_tokenizer":{{"type":"WhitespaceSplit"}},"post_processor":null,
        "decoder":null,"model":{{"type":"WordLevel","vocab":{{{}}},"unk_token":"w0"}}}}"#,
        entries.join(",")
    );
    let tokenizer = file(&folder, "words.json", json);
    let text = file(&folder, "a.txt", words);
    let (out, description) = prepared(
        &folder,
        &text,
        tokenizer.to_str().unwrap(),
        shares(0.0, 0.0),
    )
    .unwrap();
    assert_eq!(description.token, Width::U32);
    let corpus = Corpus::open(&out).unwrap();
    let train = all(&corpus.split(Split::Train).unwrap());
    assert_eq!(train, (0..70_000).collect::<Vec<u32>>());
}

#[test]
fn bad_texts_are_refused_in_one_line_and_leave_nothing() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("nowhere.txt");
    let message = line(prepared(&folder, &path, "bytes", None));
    assert!(message.contains("nowhere.txt: cannot read"), "{message}");
    let source = file(&folder, "empty.txt", "");
    let message = line(prepared(&folder, &source, "bytes", None));
    assert!(message.contains("empty.txt: is empty"), "{message}");
    let source = file(&folder, "latin.txt", b"abc\xE9def");
    let message = line(prepared(&folder, &source, "characters", None));
    assert!(
        message.contains("latin.txt: is not UTF-8 at byte 3"),
        "{message}"
    );
    prepared(&TempDir::new().unwrap(), &source, "bytes", shares(0.3, 0.0)).unwrap();
    let source = file(&folder, "short.txt", "abcdefghij");
    let message = line(prepared(&folder, &source, "bytes", None));
    assert!(
        message.contains("gives validation 1 bytes and 1 token"),
        "{message}"
    );
    let message = line(prepared(&folder, &source, "bytes", shares(0.5, 0.5)));
    assert!(message.contains("leaves nothing to train on"), "{message}");
    let message = line(prepared(&folder, &source, "bytes", shares(f64::NAN, 0.5)));
    assert!(message.contains("validation: must be a share"), "{message}");
    let message = line(prepared(&folder, &source, "bytes", Some(Splits::Enwik8)));
    assert!(
        message.contains("has 10 bytes, enwik8 and text8 have 100000000"),
        "{message}"
    );
    let message = line("words".parse::<Choice>());
    assert!(message.contains("bytes, characters, bpe:SIZE"), "{message}");
    let mut left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["empty.txt", "latin.txt", "short.txt"]);
}

#[test]
fn a_folder_with_anything_in_it_is_not_written_to() {
    let folder = TempDir::new().unwrap();
    let source = file(&folder, "a.txt", "abcdefghij".repeat(3));
    std::fs::create_dir(folder.path().join("prepared")).unwrap();
    let (out, _) = prepared(&folder, &source, "bytes", None).unwrap();
    let before = std::fs::read(out.join(DESCRIPTION)).unwrap();
    let message = line(prepared(&folder, &source, "characters", None));
    assert!(message.contains("is not empty"), "{message}");
    assert_eq!(std::fs::read(out.join(DESCRIPTION)).unwrap(), before);
}

#[test]
fn progress_ends_at_its_total() {
    let folder = TempDir::new().unwrap();
    let preparation = Preparation {
        source: TINYSHAKESPEARE.into(),
        vocabulary: Choice::Bytes,
        splits: None,
    };
    let mut seen = Vec::new();
    let out = folder.path().join("out");
    prepare(&preparation, &out, &mut |done, total| {
        seen.push((done, total))
    })
    .unwrap();
    assert_eq!(seen.first(), Some(&(0, 1_115_394)));
    assert_eq!(seen.last(), Some(&(1_115_394, 1_115_394)));
    assert!(seen.is_sorted());
}

#[test]
fn a_damaged_folder_is_refused_in_one_line() {
    let folder = TempDir::new().unwrap();
    let source = file(&folder, "a.txt", "abcdefghij".repeat(3));
    let message = line(Corpus::open(folder.path()));
    assert!(message.contains("is no prepared text"), "{message}");
    let (out, description) = prepared(&folder, &source, "characters", None).unwrap();
    let bin = out.join("train.bin");
    let whole = std::fs::read(&bin).unwrap();

    std::fs::write(&bin, &whole[..whole.len() - 1]).unwrap();
    let message = line(Corpus::open(&out));
    assert!(
        message.contains("train.bin: has 53 bytes, but 27 tokens have 54"),
        "{message}"
    );

    let mut corrupted = whole.clone();
    corrupted[6] = 10;
    std::fs::write(&bin, &corrupted).unwrap();
    let corpus = Corpus::open(&out).unwrap();
    let tokens = corpus.split(Split::Train).unwrap();
    let message = line(tokens.read(0..tokens.len(), &mut Vec::new()));
    assert!(
        message.ends_with("train.bin: token 3 is 10, but the vocabulary has 10"),
        "{message}"
    );
    let message = line(
        Loader::new(Order::Streams, 1, 8, 1, tokens.clone())
            .and_then(|loader| loader.read(0, 0..1, &mut Vec::new(), &mut Vec::new())),
    );
    assert!(message.contains("token 3 is 10"), "{message}");

    // A change that leaves a token of the vocabulary needs the hash.
    corrupted[6] = 9;
    std::fs::write(&bin, &corrupted).unwrap();
    let message = line(Corpus::open(&out).unwrap().verify());
    assert!(
        message.contains("train.bin: is not the file that was prepared"),
        "{message}"
    );

    std::fs::remove_file(&bin).unwrap();
    let message = line(Corpus::open(&out));
    assert!(message.contains("train.bin: cannot read"), "{message}");

    let newer = description
        .to_json()
        .replace("\"format\": 1", "\"format\": 2");
    std::fs::write(out.join(DESCRIPTION), newer).unwrap();
    let message = line(Corpus::open(&out));
    assert!(
        message.contains("has format 2, this version reads 1"),
        "{message}"
    );
    std::fs::write(out.join(DESCRIPTION), "{\n").unwrap();
    assert!(line(Corpus::open(&out)).contains(DESCRIPTION));
}

// Windows.

const ORDERS: [Order; 3] = [Order::Random, Order::Shuffled, Order::Streams];

#[test]
fn targets_are_the_next_tokens_and_windows_lie_inside() {
    for order in ORDERS {
        // The shortest split there is, and others.
        for (length, sequences, len) in [(5, 1, 6), (5, 2, 11), (4, 3, 100), (1, 2, 3)] {
            let loader = loader(order, 3, length, sequences, len);
            let (mut ids, mut targets) = (vec![7], vec![7]);
            for step in 0..50 {
                loader
                    .read(step, 0..sequences, &mut ids, &mut targets)
                    .unwrap();
                assert_eq!(ids.len(), length * sequences);
                for (sequence, row) in ids.chunks(length).enumerate() {
                    let start = loader.window(step, sequence) as u32;
                    let expected: Vec<u32> = (start..start + length as u32).collect();
                    assert_eq!(row, expected);
                }
                let next: Vec<u32> = ids.iter().map(|id| id + 1).collect();
                assert_eq!(targets, next);
            }
        }
    }
}

#[test]
fn the_order_does_not_depend_on_micro_batches() {
    for order in ORDERS {
        let loader = loader(order, 9, 16, 12, 5000);
        let (mut whole, mut part, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for step in [0, 1, 25, 26, 1000] {
            loader.read(step, 0..12, &mut whole, &mut targets).unwrap();
            for size in [1, 3, 4] {
                let mut joined = Vec::new();
                for first in (0..12).step_by(size) {
                    loader
                        .read(step, first..first + size, &mut part, &mut targets)
                        .unwrap();
                    joined.extend_from_slice(&part);
                }
                assert_eq!(joined, whole);
            }
        }
    }
}

#[test]
fn another_seed_is_another_order_and_the_same_seed_the_same() {
    for order in [Order::Random, Order::Shuffled] {
        let windows = |seed| {
            let loader = loader(order, seed, 8, 4, 1000);
            let at = |i: usize| loader.window(i as u64 / 4, i % 4);
            (0..200).map(at).collect::<Vec<usize>>()
        };
        assert_eq!(windows(1), windows(1));
        assert_ne!(windows(1), windows(2));
    }
}

#[test]
fn a_fixed_seed_keeps_its_windows_for_ever() {
    // A change here changes every recorded run: it is a breaking change.
    let first = |order| {
        let loader = loader(order, 1, 8, 4, 1000);
        [(0, 0), (0, 1), (1, 0), (100, 3)].map(|(step, s)| loader.window(step, s))
    };
    assert_eq!(first(Order::Random), [261, 872, 646, 246]);
    assert_eq!(first(Order::Shuffled), [392, 384, 864, 645]);
    assert_eq!(first(Order::Streams), [0, 249, 8, 832]);
}

#[test]
fn shuffled_windows_are_each_read_once_per_epoch_and_the_grid_moves() {
    // 7 windows of 8 in an epoch of 64 tokens; a step of 3 crosses epochs.
    let (length, sequences, len) = (8, 3, 64);
    let loader = loader(Order::Shuffled, 5, length, sequences, len);
    let (mut grids, mut orders) = (BTreeSet::new(), BTreeSet::new());
    for epoch in 0..40 {
        let at = |i: usize| loader.window((i / sequences) as u64, i % sequences);
        let starts: Vec<usize> = (epoch * 7..epoch * 7 + 7).map(at).collect();
        let mut sorted = starts.clone();
        sorted.sort_unstable();
        let first = sorted[0];
        let grid: Vec<usize> = (0..7).map(|w| first + w * length).collect();
        assert_eq!(sorted, grid, "epoch {epoch}");
        assert!(first < length && (epoch > 0 || first == 0));
        grids.insert(first);
        orders.insert(
            starts
                .iter()
                .map(|s| (s - first) / length)
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(grids.len(), length, "all 8 grids in 40 epochs");
    assert_eq!(orders.len(), 40, "an order comes twice");
    assert_eq!(loader.steps_per_epoch(), 3);
}

#[test]
fn streams_go_on_where_their_last_window_ended() {
    let (length, sequences, len) = (8, 3, 3 * 50 + 1);
    let loader = loader(Order::Streams, 5, length, sequences, len);
    let windows = loader.steps_per_epoch();
    assert_eq!(windows, 5);
    for epoch in 0..20 {
        for stream in 0..sequences {
            let at = |k: u64| loader.window(epoch * windows + k, stream);
            let first = at(0);
            assert!((50 * stream..50 * stream + length).contains(&first));
            assert!((0..windows).all(|k| at(k) == first + k as usize * length));
            // All targets lie in the stream's own part.
            assert!(at(windows - 1) + length <= 50 * (stream + 1));
        }
    }
}

/// 2000 windows of 10 equal parts: Pearson's chi-square with 9 degrees of freedom is
/// above 52 with probability 5e-8.
#[test]
fn random_windows_start_anywhere() {
    let loader = loader(Order::Random, 2, 4, 2, 1004);
    let mut counts = [0u32; 10];
    let starts = (0..1000).flat_map(|step| [0, 1].map(|s| loader.window(step, s)));
    starts.for_each(|start| counts[start / 100] += 1);
    let square = |count: u32| (f64::from(count) - 200.0).powi(2) / 200.0;
    let statistic: f64 = counts.map(square).iter().sum();
    assert!(statistic < 52.0, "chi-square {statistic}");
}

#[test]
fn a_split_too_short_for_its_windows_is_refused_in_one_line() {
    for order in ORDERS {
        let message = line(Loader::new(order, 1, 8, 2, counting(8)));
        assert!(
            message.contains("the train split has 8 tokens"),
            "{message}"
        );
    }
    let message = line(Loader::new(Order::Streams, 1, 8, 2, counting(16)));
    assert!(
        message.ends_with("windows of 8 in 2 streams need 17"),
        "{message}"
    );
    line(Loader::new(Order::Random, 1, 0, 2, counting(8)));
    line(Loader::new(Order::Random, 1, 8, 0, counting(16)));
    let loader = loader(Order::Random, 1, 8, 2, 16);
    line(loader.read(0, 1..3, &mut Vec::new(), &mut Vec::new()));
}

proptest! {
    #[test]
    fn an_evaluation_predicts_every_token_but_the_first_once(
        len in 2usize..200, length in 1usize..40, batch in 1usize..7,
    ) {
        let windows = EvaluationWindows::new(counting(len), length, None).unwrap();
        let (mut ids, mut targets, mut predicted) = (Vec::new(), Vec::new(), Vec::new());
        for first in (0..windows.len()).step_by(batch) {
            windows.read(first..first + batch, &mut ids, &mut targets).unwrap();
            prop_assert_eq!(ids.len(), batch * length);
            prop_assert_eq!(targets.len(), batch * length);
            for (id, target) in ids.iter().zip(&targets) {
                match *target {
                    IGNORED => prop_assert_eq!(*id, 0),
                    target => {
                        prop_assert_eq!(target, id + 1);
                        predicted.push(target);
                    }
                }
            }
        }
        prop_assert_eq!(predicted, (1..len as u32).collect::<Vec<u32>>());
    }
}

#[test]
fn some_evaluation_windows_are_evenly_spaced() {
    let windows = EvaluationWindows::new(counting(101), 10, Some(4)).unwrap();
    let starts: Vec<usize> = (0..windows.len()).map(|w| windows.window(w)).collect();
    assert_eq!(starts, [0, 20, 50, 70]);
    assert_eq!(
        EvaluationWindows::new(counting(101), 10, Some(99))
            .unwrap()
            .len(),
        10
    );
    line(EvaluationWindows::new(counting(101), 10, Some(0)));
    line(EvaluationWindows::new(counting(101), 0, None));
    line(EvaluationWindows::new(counting(1), 10, None));
}

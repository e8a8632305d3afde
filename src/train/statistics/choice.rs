//! How choices move, and what is chosen together.

use crate::train::moe::Assignment;
use crate::train::ops::real::Real;
use crate::train::statistics::mean;
use std::collections::HashMap;

/// mean over tokens with experts of |S_t and S'_t| / |S_t|: the share of a token's
/// experts that `other` chose too, on the same tokens.
///
/// 1 for equal choices, 0 for disjoint ones, in expectation K / E for independent
/// uniform ones. With the final router as `other`: router saturation (Muennighoff et
/// al. 2024, OLMoE). One minus it, with an earlier router: the expert-change rate.
pub fn overlap<T: Real, U: Real>(of: &Assignment<T>, other: &Assignment<U>) -> Option<f64> {
    let of_token = |token| {
        let chosen = &of.experts()[of.pairs_of(token)];
        let others = &other.experts()[other.pairs_of(token)];
        let common = chosen.iter().filter(|e| others.contains(e)).count();
        (!chosen.is_empty()).then(|| common as f64 / chosen.len() as f64)
    };
    mean((0..of.tokens().min(other.tokens())).filter_map(of_token))
}

/// Element i E + j: the share of expert i's tokens that expert j serves too (OLMoE's
/// co-activation); 1 on the diagonal, 0 in the rows of dead experts.
pub fn coactivation<T: Real>(assignment: &Assignment<T>) -> Vec<f64> {
    let experts = assignment.expert_count();
    let mut together = vec![0.0; experts * experts];
    for token in 0..assignment.tokens() {
        let chosen = &assignment.experts()[assignment.pairs_of(token)];
        for &i in chosen {
            for &j in chosen {
                together[i as usize * experts + j as usize] += 1.0;
            }
        }
    }
    for i in 0..experts {
        let alone: f64 = together[i * experts + i];
        let row = &mut together[i * experts..][..experts];
        row.iter_mut().for_each(|c| *c /= alone.max(1.0));
    }
    together
}

/// How far a token's id decides whether an expert serves it: per expert, the mean over
/// its tokens of (n_xe - 1) / (n_x - 1), with x the token's id, n_x the tokens of that
/// id and n_xe those of them that the expert serves.
///
/// 1 if the id decides alone, in expectation the expert's share of tokens if it does
/// not matter: the token itself is left out, so rare ids do not look special. Ids that
/// occur once say nothing and are left out; `None` for an expert with no others.
/// OLMoE's vocabulary specialisation, without its bias.
///
/// # Shapes
/// ids: tokens.
pub fn specialisation<T: Real>(assignment: &Assignment<T>, ids: &[u32]) -> Vec<Option<f64>> {
    let mut of_id: HashMap<u32, u64> = HashMap::new();
    let mut served: HashMap<(u32, u32), u64> = HashMap::new();
    for (token, &id) in ids.iter().enumerate().take(assignment.tokens()) {
        *of_id.entry(id).or_default() += 1;
        for &expert in &assignment.experts()[assignment.pairs_of(token)] {
            *served.entry((expert, id)).or_default() += 1;
        }
    }
    // Sorted: the order of a sum decides its last bits.
    let mut served: Vec<_> = served.into_iter().collect();
    served.sort_unstable();
    let mut sums = vec![(0.0, 0_u64); assignment.expert_count()];
    for ((expert, id), n) in served {
        let of_id = of_id[&id];
        if of_id > 1 {
            let (sum, tokens) = &mut sums[expert as usize];
            *sum += n as f64 * (n - 1) as f64 / (of_id - 1) as f64;
            *tokens += n;
        }
    }
    let value = |(sum, tokens): (f64, u64)| (tokens > 0).then(|| sum / tokens as f64);
    sums.into_iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::check::normals;
    use crate::train::statistics::sample::{chosen, route};

    #[test]
    fn overlap_is_one_for_equal_zero_for_disjoint_and_known_in_between() {
        let a = chosen(&[&[0, 1], &[2, 3]], 4);
        assert_eq!(overlap(&a, &a), Some(1.0));
        assert_eq!(overlap(&a, &chosen(&[&[1, 0], &[3, 2]], 4)), Some(1.0));
        assert_eq!(overlap(&a, &chosen(&[&[2, 3], &[1, 0]], 4)), Some(0.0));
        assert_eq!(overlap(&a, &chosen(&[&[0, 3], &[2, 3]], 4)), Some(0.75));
        assert_eq!(overlap(&chosen(&[&[]], 4), &a), None);
        // Of three experts one is common: 1/3 seen from there, 1 from here.
        let (many, one) = (chosen(&[&[0, 1, 2]], 4), chosen(&[&[2]], 4));
        assert_eq!(overlap(&many, &one), Some(1.0 / 3.0));
        assert_eq!(overlap(&one, &many), Some(1.0));
    }

    #[test]
    fn independent_routers_agree_as_often_as_chance() {
        let (a, b) = (normals(1, 8000), normals(2, 8000));
        let agreed = overlap(&route(&a, 8, 2), &route(&b, 8, 2)).unwrap();
        assert!((agreed - 0.25).abs() < 0.03, "{agreed}");
    }

    #[test]
    fn coactivation_is_a_share_of_the_rows_expert() {
        // Expert 0 serves three tokens, two with expert 1; expert 3 is dead.
        let together = coactivation(&chosen(&[&[0, 1], &[1, 0], &[0, 2]], 4));
        let third = 1.0 / 3.0;
        let expected = [
            [1.0, 2.0 * third, third, 0.0],
            [1.0, 1.0, 0.0, 0.0],
            [1.0, 0.0, 1.0, 0.0],
            [0.0, 0.0, 0.0, 0.0],
        ];
        assert_eq!(together, expected.concat());
    }

    #[test]
    fn an_expert_of_its_own_words_is_special_and_one_of_all_words_is_not() {
        let by_id = chosen(&[&[0], &[1], &[0], &[1]], 3);
        let ids = [7, 9, 7, 9];
        assert_eq!(specialisation(&by_id, &ids), [Some(1.0), Some(1.0), None]);
        // Each id once to each expert: never twice to the same.
        let against = chosen(&[&[0], &[0], &[1], &[1]], 2);
        assert_eq!(specialisation(&against, &ids), [Some(0.0), Some(0.0)]);
        assert_eq!(specialisation(&by_id, &[1, 2, 3, 4]), [None; 3]);
        // One id four times, three to expert 0: (3 * 2/3) / 3.
        let mostly = chosen(&[&[0], &[0], &[0], &[1]], 2);
        let special = specialisation(&mostly, &[5; 4]);
        assert!((special[0].unwrap() - 2.0 / 3.0).abs() < 1e-15);
        assert_eq!(special[1], Some(0.0));
    }

    #[test]
    fn rare_words_do_not_make_a_random_router_look_special() {
        // 2000 ids of two tokens each: OLMoE's share would be near (1 + 1/8) / 2.
        let router = route(&normals(3, 32_000), 8, 1);
        let ids: Vec<u32> = (0..4000).map(|t| t / 2).collect();
        let special = specialisation(&router, &ids);
        let average = special.iter().flatten().sum::<f64>() / 8.0;
        assert!((average - 0.125).abs() < 0.03, "{average}");
    }
}

//! Permutations of axes, as the transpose rules need them.

use tcc_ir::dim::Dim;

/// The permutation of two transposes in a row: `inner` first, then `outer`.
pub fn compose(outer: &[usize], inner: &[usize]) -> Vec<usize> {
    outer.iter().map(|axis| inner[*axis]).collect()
}

/// The permutation that undoes `perm`.
pub fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut result = vec![0; perm.len()];
    for (position, axis) in perm.iter().enumerate() {
        result[*axis] = position;
    }
    result
}

/// True where every axis stays.
pub fn is_identity(perm: &[usize]) -> bool {
    perm.iter().enumerate().all(|(position, axis)| position == *axis)
}

/// `items` in the order of `perm`.
pub fn apply<T: Clone>(perm: &[usize], items: &[T]) -> Vec<T> {
    perm.iter().map(|axis| items[*axis].clone()).collect()
}

/// True where only axes of extent 1 change place among the others, so that the elements keep their order.
pub fn keeps_order(perm: &[usize], shape: &[Dim]) -> bool {
    perm.iter().filter(|axis| !shape[**axis].is(1)).is_sorted()
}

/// From channels first to channels last, for a tensor of this rank.
pub fn to_channels_last(rank: usize) -> Vec<usize> {
    let mut perm: Vec<usize> = (0..rank).collect();
    if rank > 1 {
        let channels = perm.remove(1);
        perm.push(channels);
    }
    perm
}

/// From channels last to channels first.
pub fn to_channels_first(rank: usize) -> Vec<usize> {
    inverse(&to_channels_last(rank))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverses_compose_to_the_identity() {
        let perm = [2, 0, 3, 1];
        assert!(is_identity(&compose(&perm, &inverse(&perm))));
        assert!(is_identity(&compose(&to_channels_first(4), &to_channels_last(4))));
        assert_eq!(to_channels_last(4), [0, 2, 3, 1]);
    }

    #[test]
    fn unit_axes_move_freely() {
        assert!(keeps_order(&[0, 2, 3, 1], &[1.into(), 5.into(), 1.into(), 1.into()]));
        assert!(!keeps_order(&[0, 2, 3, 1], &[1.into(), 5.into(), 2.into(), 1.into()]));
    }
}

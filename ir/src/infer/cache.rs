//! Types of the key-value cache operators.

use super::{Matcher, Result, fail, shape, tensor};
use crate::cache::{CacheStorage, SCALE_GROUP};
use crate::dim::Dim;
use crate::dtype::DType;
use crate::types::{TensorType, Type};

/// Refuses a head size whose scale groups are not whole.
fn check_depth(depth: &Dim, storage: &CacheStorage) -> Result<()> {
    if storage.format.has_scales() && !depth.modulo(&Dim::Const(SCALE_GROUP)).is(0) {
        let format = storage.format.text();
        return fail(format!("a cache in {format} takes heads of a multiple of {SCALE_GROUP}, got {depth}"));
    }
    Ok(())
}

pub(super) fn state(extents: &[Dim], storage: &CacheStorage) -> Result<Vec<Type>> {
    let [_, heads, depth] = extents else {
        return fail(format!("a cache is [slots, heads, d], got {} extents", extents.len()));
    };
    if heads.as_const().is_none() || depth.as_const().is_none() {
        return fail(format!("heads and head size of a cache are constants, got {heads} and {depth}"));
    }
    check_depth(depth, storage)?;
    Ok(vec![Type::tensor(DType::F32, extents.to_vec())])
}

fn cache<'a>(operands: &[&'a Type], index: usize, storage: &CacheStorage) -> Result<&'a TensorType> {
    let cache = tensor(operands, index)?;
    if cache.rank() != 3 || cache.dtype() != DType::F32 {
        return fail(format!("a cache is [slots, heads, d] of f32, got {cache}"));
    }
    check_depth(&cache.shape[2], storage)?;
    Ok(cache)
}

/// An integer vector of extent `count`.
fn indices(matcher: &mut Matcher, operands: &[&Type], index: usize, count: &Dim, what: &str) -> Result<()> {
    let vector = tensor(operands, index)?;
    shape::check_indices(vector)?;
    match &vector.shape[..] {
        [extent] => matcher.same(count, extent, what).map(|_| ()),
        _ => fail(format!("{what} are a vector, got {vector}")),
    }
}

pub(super) fn append(matcher: &mut Matcher, operands: &[&Type], storage: &CacheStorage) -> Result<Vec<Type>> {
    let (cache, x) = (cache(operands, 0, storage)?, tensor(operands, 1)?);
    if x.rank() != 3 || !x.dtype().is_float() {
        return fail(format!("kv_append takes rows [n, heads, d] of floats, got {x}"));
    }
    matcher.same(&cache.shape[1], &x.shape[1], "heads of the cache")?;
    matcher.same(&cache.shape[2], &x.shape[2], "head size of the cache")?;
    indices(matcher, operands, 2, &x.shape[0], "slots")?;
    Ok(vec![operands[0].clone()])
}

pub(super) fn attend(
    matcher: &mut Matcher,
    operands: &[&Type],
    page: usize,
    [k_storage, v_storage]: [&CacheStorage; 2],
) -> Result<Vec<Type>> {
    let q = tensor(operands, 0)?;
    let (k, v) = (cache(operands, 1, k_storage)?, cache(operands, 2, v_storage)?);
    if q.rank() != 3 || !q.dtype().is_float() {
        return fail(format!("kv_attend takes queries [n, heads, d] of floats, got {q}"));
    }
    if page == 0 {
        return fail("a page has at least one slot");
    }
    matcher.same(&q.shape[2], &k.shape[2], "head size")?;
    matcher.same(&k.shape[0], &v.shape[0], "slots of keys and values")?;
    matcher.same(&k.shape[1], &v.shape[1], "heads of keys and values")?;
    if let (Some(heads), Some(shared)) = (q.shape[1].as_const(), k.shape[1].as_const())
        && (shared == 0 || heads % shared != 0)
    {
        return fail(format!("kv_attend: {heads} query heads do not divide into {shared} cache heads"));
    }
    let table = tensor(operands, 3)?;
    shape::check_indices(table)?;
    if table.rank() != 2 {
        return fail(format!("the block table is [sequences, pages], got {table}"));
    }
    indices(matcher, operands, 4, &q.shape[0], "rows of the block table")?;
    indices(matcher, operands, 5, &q.shape[0], "positions")?;
    let shape = vec![q.shape[0].clone(), q.shape[1].clone(), v.shape[2].clone()];
    Ok(vec![Type::tensor(q.dtype(), shape)])
}

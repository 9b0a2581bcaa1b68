//! Offsets in an arena for buffers that live for a known range of steps.
//!
//! Buffers whose ranges do not meet may share bytes. Finding the smallest arena is NP-hard (it is dynamic storage
//! allocation); the plan here is greedy best fit in a few orders, of which the smallest result is kept, as in
//! Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference" (2020). The result depends only
//! on the requests.

use crate::manifest::ALIGNMENT;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use thiserror::Error;

/// A buffer to be placed: its size and the first and last step that use it, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Size in bytes.
    pub bytes: u64,
    /// First step.
    pub first_step: u32,
    /// Last step.
    pub last_step: u32,
}

/// Where every buffer goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Offset of each request, a multiple of [`ALIGNMENT`].
    pub offsets: Vec<u64>,
    /// Size of the arena: the peak.
    pub bytes: u64,
    /// The largest sum of sizes alive at one step: no plan can be smaller.
    pub lower_bound: u64,
}

/// Why no plan exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The sizes add up to more than 64 bits.
    #[error("the arena exceeds 64 bits")]
    Overflow,
    /// A request ends before it starts.
    #[error("request {0} ends before it starts")]
    EmptyRange(usize),
    /// Two requests with fixed offsets share bytes at some step.
    #[error("requests {0} and {1} share bytes while both are alive")]
    Overlap(usize, usize),
}

impl Request {
    fn meets(&self, other: &Request) -> bool {
        self.first_step <= other.last_step && other.first_step <= self.last_step
    }
}

/// Places every request.
pub fn plan(requests: &[Request]) -> Result<Plan, PlanError> {
    let mut total = 0u64;
    let mut sizes = Vec::with_capacity(requests.len());
    for (index, request) in requests.iter().enumerate() {
        if request.last_step < request.first_step {
            return Err(PlanError::EmptyRange(index));
        }
        let size = request.bytes.checked_next_multiple_of(ALIGNMENT).ok_or(PlanError::Overflow)?;
        total = total.checked_add(size).ok_or(PlanError::Overflow)?;
        sizes.push(size);
    }
    let lower_bound = lower_bound(requests, &sizes);
    let length = |index: usize| u64::from(requests[index].last_step - requests[index].first_step) + 1;

    let mut by_size: Vec<usize> = (0..requests.len()).collect();
    by_size.sort_by_key(|&index| (Reverse(sizes[index]), requests[index].first_step, index));
    let mut by_area = by_size.clone();
    by_area.sort_by_key(|&index| Reverse(u128::from(sizes[index]) * u128::from(length(index))));
    let mut by_time = by_size.clone();
    by_time.sort_by_key(|&index| requests[index].first_step);

    let mut best: Option<Plan> = None;
    for order in [by_size, by_area, by_time] {
        let (offsets, bytes) = best_fit(requests, &sizes, &order);
        if best.as_ref().is_none_or(|best| bytes < best.bytes) {
            best = Some(Plan { offsets, bytes, lower_bound });
        }
        if bytes == lower_bound {
            break;
        }
    }
    Ok(best.unwrap_or_default())
}

/// Puts each request, in this order, into the smallest gap that fits between those already placed whose live
/// range meets it, or above them all.
fn best_fit(requests: &[Request], sizes: &[u64], order: &[usize]) -> (Vec<u64>, u64) {
    let mut offsets = vec![0u64; requests.len()];
    // Sorted by offset, so that the walk below meets the neighbours of every gap in order.
    let mut placed: Vec<usize> = Vec::with_capacity(order.len());
    let mut peak = 0;
    for &index in order {
        if sizes[index] == 0 {
            continue;
        }
        let mut end = 0;
        let mut best: Option<(u64, u64)> = None;
        for &other in placed.iter().filter(|&&other| requests[other].meets(&requests[index])) {
            if let Some(gap) = offsets[other].checked_sub(end)
                && gap >= sizes[index]
                && best.is_none_or(|(smallest, _)| gap < smallest)
            {
                best = Some((gap, end));
            }
            end = end.max(offsets[other] + sizes[other]);
        }
        offsets[index] = best.map_or(end, |(_, offset)| offset);
        peak = peak.max(offsets[index] + sizes[index]);
        let position = placed.partition_point(|&other| offsets[other] <= offsets[index]);
        placed.insert(position, index);
    }
    (offsets, peak)
}

/// The largest sum of sizes alive at one step.
fn lower_bound(requests: &[Request], sizes: &[u64]) -> u64 {
    let mut events: Vec<(u64, bool, u64)> = Vec::with_capacity(requests.len() * 2);
    for (request, &size) in requests.iter().zip(sizes) {
        events.push((u64::from(request.first_step), true, size));
        events.push((u64::from(request.last_step) + 1, false, size));
    }
    // Ends sort before starts of the same step.
    events.sort_unstable();
    let (mut alive, mut peak) = (0, 0);
    for (_, starts, size) in events {
        alive = if starts { alive + size } else { alive - size };
        peak = peak.max(alive);
    }
    peak
}

/// Checks that no two requests at these offsets share bytes while both are alive.
pub fn check_no_overlap(requests: &[Request], offsets: &[u64]) -> Result<(), PlanError> {
    let mut events = Vec::with_capacity(requests.len() * 2);
    for (index, (request, offset)) in requests.iter().zip(offsets).enumerate() {
        if request.last_step < request.first_step {
            return Err(PlanError::EmptyRange(index));
        }
        offset.checked_add(request.bytes).ok_or(PlanError::Overflow)?;
        if request.bytes > 0 {
            events.push((u64::from(request.first_step), true, index));
            events.push((u64::from(request.last_step) + 1, false, index));
        }
    }
    events.sort_unstable();
    // Those alive, by offset. They never overlap, so a new one can only meet its neighbours.
    let mut alive: BTreeMap<u64, usize> = BTreeMap::new();
    for (_, starts, index) in events {
        let offset = offsets[index];
        if !starts {
            alive.remove(&offset);
            continue;
        }
        let below = alive.range(..=offset).next_back();
        let above = alive.range(offset..).next();
        if let Some((&start, &other)) = below
            && start + requests[other].bytes > offset
        {
            return Err(PlanError::Overlap(other.min(index), other.max(index)));
        }
        if let Some((&start, &other)) = above
            && offset + requests[index].bytes > start
        {
            return Err(PlanError::Overlap(other.min(index), other.max(index)));
        }
        alive.insert(offset, index);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(bytes: u64, first_step: u32, last_step: u32) -> Request {
        Request { bytes, first_step, last_step }
    }

    #[test]
    fn a_chain_needs_two_neighbours_at_a_time() {
        let requests: Vec<_> = (0..10).map(|step| request(1024, step, step + 1)).collect();
        let plan = plan(&requests).unwrap();
        assert_eq!(plan.bytes, 2048);
        assert_eq!(plan.lower_bound, 2048);
    }

    #[test]
    fn nothing_and_zero_bytes_take_no_room() {
        assert_eq!(plan(&[]).unwrap().bytes, 0);
        assert_eq!(plan(&[request(0, 0, 9)]).unwrap().bytes, 0);
    }

    #[test]
    fn bad_requests_are_refused() {
        assert_eq!(plan(&[request(1, 3, 2)]), Err(PlanError::EmptyRange(0)));
        assert_eq!(plan(&[request(u64::MAX, 0, 0)]), Err(PlanError::Overflow));
        assert_eq!(plan(&[request(1 << 63, 0, 0), request(1 << 63, 0, 0)]), Err(PlanError::Overflow));
        let both = [request(65, 0, 2), request(1, 2, 3)];
        assert_eq!(check_no_overlap(&both, &[0, 64]), Err(PlanError::Overlap(0, 1)));
        assert_eq!(check_no_overlap(&both, &[0, 128]), Ok(()));
        assert_eq!(check_no_overlap(&[request(64, 0, 1), request(64, 2, 3)], &[0, 0]), Ok(()));
    }

    proptest! {
        #[test]
        fn plans_never_overlap_and_stay_between_the_bounds(
            raw in prop::collection::vec((0u64..5000, 0u32..40, 0u32..10), 0..60)
        ) {
            let requests: Vec<_> = raw.iter().map(|&(bytes, first, length)| request(bytes, first, first + length)).collect();
            let plan = plan(&requests).unwrap();
            prop_assert_eq!(check_no_overlap(&requests, &plan.offsets), Ok(()));
            prop_assert!(plan.bytes >= plan.lower_bound);
            for (request, offset) in requests.iter().zip(&plan.offsets) {
                prop_assert_eq!(offset % ALIGNMENT, 0);
                prop_assert!(offset + request.bytes <= plan.bytes);
            }
        }
    }
}

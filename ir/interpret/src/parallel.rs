//! Independent rows of a result on several threads.

use std::thread;

/// Calls `fill(index, row)` for every row of `length` elements of `out`; the result does not depend on the threads.
pub(crate) fn rows<T: Send>(out: &mut [T], length: usize, fill: impl Fn(usize, &mut [T]) + Sync) {
    if length == 0 || out.is_empty() {
        return;
    }
    let count = out.len() / length;
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get()).min(count).max(1);
    let part = count.div_ceil(threads);
    thread::scope(|scope| {
        for (index, part_rows) in out.chunks_mut(part * length).enumerate() {
            let fill = &fill;
            scope.spawn(move || {
                for (row, values) in part_rows.chunks_mut(length).enumerate() {
                    fill(index * part + row, values);
                }
            });
        }
    });
}
